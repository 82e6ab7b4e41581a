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

    def suppressed(self, work: Work, failure: Failure, sender: str) -> Mapping[str, Any] | None:
        """What is told of a bounce that is not to be sent: `to`, `bounce` (the failure) and `suppressed`, the reason; None if it may go."""
        candidate = Candidate(work.envelope, work.fields, work.assessment, sender, self._terms.hostname)
        reason = objection(candidate, self._terms.guards) or self._caps.reached(work.envelope.reverse_path, self._monotonic())
        return {**_told(work, failure), "suppressed": reason} if reason else None

    async def bounce(self, work: Work, step: Step, failure: Failure, sender: str) -> Mapping[str, Any]:
        """Bounce a message for the step's recipients, once `suppressed` said that it may; what happened, for people.

        It tells `to`, `bounce` (the failure) and `messageId`, then `reply`, or `refused` with what the smarthost said for good: a bounce has
        nobody to bounce to. Raises SinkDown or MessageFailed; then it is to be tried again.
        """
        told = _told(work, failure)
        self._caps.take(work.envelope.reverse_path, self._monotonic())
        bounce = self._bounce(work, step, failure, sender)
        try:
            reply = await self._send(bounce, work.now())
        except MessageRefused as error:
            return {**told, "messageId": bounce.message_id, "refused": str(error)}
        except SinkFailure:
            self._caps.give_back(work.envelope.reverse_path)
            raise
        return {**told, "messageId": bounce.message_id, "reply": reply}

    def too_long_suppressed(self, work: Work, step: Step) -> Mapping[str, Any] | None:
        """`suppressed` for what is over the limit of an SNSAction."""
        return self.suppressed(work, TOO_LONG, _postmaster(step))

    async def too_long(self, work: Work, step: Step) -> Mapping[str, Any]:
        """Bounce what is over the limit of an SNSAction, as SES does: from the postmaster of the first recipient's domain."""
        return await self.bounce(work, step, TOO_LONG, _postmaster(step))

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


def _told(work: Work, failure: Failure) -> dict[str, Any]:
    return {"to": work.envelope.reverse_path, "bounce": str(failure)}


def _postmaster(step: Step) -> str:
    return f"postmaster@{step.recipients[0].rpartition('@')[2]}"


def _in_ascii(address: str) -> str:
    """The address with its domain in A-labels: then fewer of them need SMTPUTF8."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{canonical_domain(domain)}"
    except InvalidRecipient:
        return address
