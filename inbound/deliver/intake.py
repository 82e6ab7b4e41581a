"""The intake: what the listener asks of the stages behind it. It pins the rules, keeps the message, and hands it to the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from inbound.accept import reply
from inbound.accept.envelope import Envelope
from inbound.accept.reply import Refusal, Reply
from inbound.accept.spool import Draft, Spool, SpoolError
from inbound.assess.refusal import refusal
from inbound.assess.scanning import Unscanned
from inbound.decide.engine import Acceptance, acceptance
from inbound.decide.rules import RuleSet
from inbound.deliver.worker import Worker
from inbound.log import Event, Log

_ANSWERS = {
    Acceptance.ACCEPT: reply.RCPT_OK,
    Acceptance.NO_RULE: reply.NO_SUCH_RECIPIENT,
    Acceptance.TLS_REQUIRED: reply.NEED_TLS,
}


SCANNED = frozenset({"virus", "spam"})


@dataclass(frozen=True, slots=True)
class Rejection:
    """The verdicts whose FAIL is refused before a message is accepted, and the seconds that they have to be formed."""

    verdicts: Collection[str] = ()
    seconds: float = 20.0


class PinnedRules:
    """One revision of the rule set, as a session sees it."""

    __slots__ = ("_rule_set", "_tls_works", "revision")

    def __init__(self, rule_set: RuleSet, *, tls_works: Callable[[], bool]) -> None:
        self._rule_set = rule_set
        self._tls_works = tls_works
        self.revision = rule_set.revision

    def admits(self, address: str) -> bool:
        """Do the IP filters let this client in?"""
        return self._rule_set.admits(address)

    def recipient(self, address: str, *, tls: bool) -> Reply:
        """250, 550 5.1.1 when no enabled rule matches, 530 5.7.0 when all that do require TLS (451 when we cannot offer it)."""
        found = acceptance(self._rule_set, address, tls=tls)
        if found is Acceptance.TLS_REQUIRED and not self._tls_works():
            return reply.CANNOT_REQUIRE_TLS
        return _ANSWERS[found]

    def postmaster(self) -> str | None:
        """Postmaster at the first identity."""
        identities = self._rule_set.identities
        return f"postmaster@{identities[0].rpartition('@')[2]}" if identities else None


class SpoolIntake:
    """Pins the current rule set, keeps messages in the spool, gives them to the worker."""

    def __init__(self, spool: Spool, worker: Worker, rules: Callable[[], RuleSet], log: Log, *, tls_works: Callable[[], bool],
                 rejection: Rejection = Rejection()) -> None:
        self._spool = spool
        self._worker = worker
        self._rules = rules
        self._log = log
        self._tls_works = tls_works
        self._rejection = rejection
        self._pinned: PinnedRules | None = None
        self.draft: Callable[[str], Draft] = spool.draft

    def pin(self) -> PinnedRules:
        """The revision of this moment."""
        rule_set = self._rules()
        if self._pinned is None or self._pinned.revision != rule_set.revision:
            self._pinned = PinnedRules(rule_set, tls_works=self._tls_works)
        return self._pinned

    def ready(self) -> Reply | None:
        """Messages are always welcome here; a full disk shows in `accept`."""
        return None

    async def accept(self, envelope: Envelope, draft: Draft) -> None:
        """Durable when this returns; the worker has it, from memory or, when that is short, from the spool.

        Raises Refusal for a verdict that INBOUND_REJECT names, before anything is kept.
        """
        assessment = await self._judged(envelope, draft) if self._rejection.verdicts else ""
        entry = await self._spool.put(envelope, draft, held=self._worker.has_room, assessment=assessment)
        self._log.info(Event.MESSAGE_RECEIVED, id=entry.id, client=envelope.peer.address, helo=envelope.helo, sender=envelope.reverse_path,
                       recipients=envelope.forward_paths, size=entry.size, revision=envelope.revision)
        if entry.state == "active":
            self._worker.take(entry)

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
