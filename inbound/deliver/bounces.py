"""The way out for bounces: the guards, the caps, the DSN, its signature, the smarthost.

BounceAction goes through it, and so does what an SNSAction finds too long.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inbound.assess.rendering import field_line
from inbound.decide.engine import Step
from inbound.decide.recipients import InvalidRecipient, canonical_domain
from inbound.deliver.backscatter import GUARDS, Candidate, Caps, Guard, objection
from inbound.deliver.dsn import TOO_LONG, Bounce, Failure
from inbound.deliver.sinks import MessageRefused, SinkFailure
from inbound.deliver.smtp import Smarthost
from inbound.deliver.work import Work

Sign = Callable[[bytes], bytes]
"""Makes the DKIM-Signature line to put above a message."""


@dataclass(frozen=True, slots=True)
class BounceTerms:
    """How bounces are made: our name in them, how they are signed (None: not at all), and who may object to one."""

    hostname: str
    sign: Sign | None = None
    guards: tuple[Guard, ...] = GUARDS


class Bounces:
    """Sends bounces. `monotonic` is a clock for the caps, in seconds."""

    def __init__(self, smarthost: Smarthost, terms: BounceTerms, caps: Caps, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._smarthost = smarthost
        self._terms = terms
        self._caps = caps
        self._monotonic = monotonic

    @property
    def sink(self) -> str:
        """The smarthost's name as a sink."""
        return self._smarthost.sink

    async def bounce(self, work: Work, step: Step, failure: Failure, sender: str) -> Mapping[str, Any]:
        """Bounce the message for the step's recipients, unless a guard objects; what happened, for people.

        It tells `to`, `bounce` (the failure), then `messageId` and `reply`, or `suppressed` with the reason, or `refused` with what the
        smarthost said for good: a bounce has nobody to bounce to. Raises SinkDown or MessageFailed; then it is to be tried again.
        """
        told = {"to": work.envelope.reverse_path, "bounce": str(failure)}
        candidate = Candidate(work.envelope, work.fields, work.assessment, sender, self._terms.hostname)
        reason = objection(candidate, self._terms.guards) or self._caps.take(work.envelope.reverse_path, self._monotonic())
        if reason:
            return {**told, "suppressed": reason}
        bounce = self._bounce(work, step, failure, sender)
        try:
            reply = await self._send(bounce, work.now())
        except MessageRefused as error:
            return {**told, "messageId": bounce.message_id, "refused": str(error)}
        except SinkFailure:
            self._caps.give_back(work.envelope.reverse_path)
            raise
        return {**told, "messageId": bounce.message_id, "reply": reply}

    async def too_long(self, work: Work, step: Step) -> Mapping[str, Any]:
        """Bounce what is over the limit of an SNSAction, as SES does: from the postmaster of the first recipient's domain."""
        return await self.bounce(work, step, TOO_LONG, f"postmaster@{step.recipients[0].rpartition('@')[2]}")

    def _bounce(self, work: Work, step: Step, failure: Failure, sender: str) -> Bounce:
        """The header that it shows begins with our Return-Path and Received; without them for what is too long (captured from SES)."""
        ours = b"" if failure is TOO_LONG else b"".join(field_line(name, value) for name, value in work.reception())
        return Bounce(
            failure=failure, sender=_in_ascii(sender), reverse_path=_in_ascii(work.envelope.reverse_path), recipients=step.recipients,
            hostname=self._terms.hostname, arrived=work.envelope.received_at, header=ours + work.header(),
            digest=hashlib.sha256(f"{work.id} {step.digest}".encode()).hexdigest(),
        )

    async def _send(self, bounce: Bounce, now: float) -> str:
        message = bounce.octets(now)
        if self._terms.sign is not None:
            message = await asyncio.to_thread(self._terms.sign, message) + message
        name = bounce.message_id.partition("@")[0]
        return await self._smarthost.send(message, bounce.reverse_path, name=name, smtputf8=bounce.needs_smtputf8)


def _in_ascii(address: str) -> str:
    """The address with its domain in A-labels: then fewer of them need SMTPUTF8."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{canonical_domain(domain)}"
    except InvalidRecipient:
        return address
