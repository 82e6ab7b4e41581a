"""The intake: what the listener asks of the stages behind it. It pins the rules, keeps the message, and hands it to the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from inbound.accept import reply
from inbound.accept.envelope import Envelope
from inbound.accept.reply import Refusal, Reply
from inbound.accept.spool import Draft, Spool, SpoolError
from inbound.assess.refusal import refusal
from inbound.assess.scanning import Unscanned
from inbound.decide.engine import Acceptance
from inbound.decide.rules import Bounce, RuleSet
from inbound.decide.session_bounce import Certain, answer
from inbound.deliver.dsn import Failure
from inbound.deliver.notification import SNS_CONTENT_LIMIT
from inbound.deliver.pressure import Pressure
from inbound.deliver.worker import Worker
from inbound.log import Event, Log
from inbound.metrics import RECEIVED, RECEIVED_SIZE, Metrics

_ANSWERS = {
    Acceptance.ACCEPT: reply.RCPT_OK,
    Acceptance.NO_RULE: reply.NO_SUCH_RECIPIENT,
    Acceptance.TLS_REQUIRED: reply.NEED_TLS,
}


SCANNED = frozenset({"virus", "spam"})
REVISIONS = 16  # rule set revisions at hand
REPLY_OCTETS = 510  # RFC 5321 §4.5.3.1.5, without the CRLF


@dataclass(frozen=True, slots=True)
class Rejection:
    """The verdicts whose FAIL is refused before a message is accepted, and the seconds that they have to be formed."""

    verdicts: Collection[str] = ()
    seconds: float = 20.0


class PinnedRules:
    """One revision of the rule set, as a session sees it. What is `certain` under it is said in the session; None: nothing is."""

    __slots__ = ("_certain", "_rule_set", "_tls_works", "revision")

    def __init__(self, rule_set: RuleSet, *, tls_works: Callable[[], bool], certain: Certain | None = None) -> None:
        self._rule_set = rule_set
        self._tls_works = tls_works
        self._certain = certain
        self.revision = rule_set.revision

    def admits(self, address: str) -> bool:
        """Do the IP filters let this client in?"""
        return self._rule_set.admits(address)

    def allows(self, address: str) -> bool:
        """Does an IP filter name this client as allowed? No blocklist speaks against it then."""
        return self._rule_set.allows(address)

    def recipient(self, address: str, *, tls: bool) -> Reply:
        """250, 550 5.1.1 when no enabled rule matches, 530 5.7.0 when all that do require TLS (451 when we cannot offer it).

        What a rule says instead where nothing but its bounce would come of the message.
        """
        found = answer(self._rule_set, address, tls=tls, certain=self._certain)
        if found.bounce is not None:
            return _in_the_session(found.bounce)
        if found.acceptance is Acceptance.TLS_REQUIRED and not self._tls_works():
            return reply.CANNOT_REQUIRE_TLS
        return _ANSWERS[found.acceptance]

    def takes(self, size: int, *, tls: bool) -> bool:
        """Not if nothing comes of any message but that SNSActions publish it, and this one is over their limit."""
        return size <= SNS_CONTENT_LIMIT or not (self._certain and self._certain.any_message_goes_to_topics_only(tls=tls))

    def too_long(self, size: int, recipients: tuple[str, ...], *, tls: bool) -> bool:
        """Would nothing come of a message of this size but bounces, for each of its recipients?"""
        return size > SNS_CONTENT_LIMIT and self._certain is not None and self._certain.goes_to_topics_only(recipients, tls=tls)

    def postmaster(self) -> str | None:
        """Postmaster at the first identity."""
        identities = self._rule_set.identities
        return f"postmaster@{identities[0].rpartition('@')[2]}" if identities else None


def _in_the_session(bounce: Bounce) -> Reply:
    """A rule's bounce as a reply: its own code, status and text, as far as one line of US-ASCII holds it."""
    failure = Failure(bounce.SmtpReplyCode, bounce.StatusCode or "", bounce.Message)
    room = REPLY_OCTETS - len(f"{failure.code} {failure.status} ")
    return Reply(int(failure.code), failure.status, failure.line[:room], "bounce")


class SpoolIntake:
    """Pins the current rule set, keeps messages in the spool, gives them to the worker."""

    def __init__(self, spool: Spool, worker: Worker, rules: Callable[[], RuleSet], log: Log, *, pressure: Pressure,
                 tls_works: Callable[[], bool], rejection: Rejection = Rejection(), certain: Callable[[RuleSet], Certain] | None = None,
                 metrics: Metrics | None = None) -> None:
        self._spool = spool
        self._worker = worker
        self._rules = rules
        self._log = log
        self._pressure = pressure
        self._tls_works = tls_works
        self._rejection = rejection
        self._certain = certain
        self._metrics = metrics or Metrics()
        self._pinned: OrderedDict[str, PinnedRules] = OrderedDict()  # by revision: the latest ones, to which open transactions hold on
        self.draft: Callable[[str], Draft] = spool.draft

    def pin(self) -> PinnedRules:
        """The revision of this moment."""
        rule_set = self._rules()
        pinned = self._pinned.get(rule_set.revision)
        if pinned is None:
            certain = self._certain(rule_set) if self._certain else None
            pinned = self._pinned[rule_set.revision] = PinnedRules(rule_set, tls_works=self._tls_works, certain=certain)
            if len(self._pinned) > REVISIONS:
                self._pinned.popitem(last=False)
        return pinned

    def ready(self) -> Reply | None:
        """Back-pressure, as the last look found it."""
        return self._pressure.refusal

    async def accept(self, envelope: Envelope, draft: Draft) -> None:
        """Durable when this returns; the worker has it, from memory or, when that is short, from the spool.

        Raises Refusal for a verdict that INBOUND_REJECT names, and for what is too long for every recipient, before anything is kept.
        """
        pinned = self._pinned.get(envelope.revision)
        if pinned is not None and pinned.too_long(draft.size, envelope.forward_paths, tls=envelope.tls is not None):
            raise Refusal(reply.TOO_LARGE)
        assessment = await self._judged(envelope, draft) if self._rejection.verdicts else ""
        try:
            entry = await self._spool.put(envelope, draft, held=self._worker.has_room, assessment=assessment)
        except SpoolError as error:
            self._pressure.failed(error)
            raise
        if entry.state == "active":
            self._worker.take(entry)
        with contextlib.suppress(MemoryError):  # it is ours: the sender would send again what cannot be told of here
            self._metrics.count(RECEIVED)
            self._metrics.observe(RECEIVED_SIZE, entry.size)
            self._log.info(Event.MESSAGE_RECEIVED, id=entry.id, client=envelope.peer.address, helo=envelope.helo, sender=envelope.reverse_path,
                           recipients=envelope.forward_paths, size=entry.size, revision=envelope.revision)

    async def _judged(self, envelope: Envelope, draft: Draft) -> str:
        """The assessment for the spool; empty when it cannot be formed in time: then the worker judges. Raises Refusal, SpoolError."""
        scan = not SCANNED.isdisjoint(self._rejection.verdicts)
        try:
            async with asyncio.timeout(self._rejection.seconds):
                found = await self._worker.assess(envelope, await draft.content(), scan=scan)
        except TimeoutError:
            return ""
        except Unscanned as waits:
            found = waits.assessment
        except SpoolError:
            raise
        except Exception as error:
            self._log.exception(Event.WORKER_FAILED, id=envelope.message_id, error=repr(error))
            return ""
        answer = refusal(found, self._rejection.verdicts)
        if answer is not None:
            raise Refusal(answer)
        return found.to_json()
