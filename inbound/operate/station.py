"""What HTTP asks of the service, whether that is one process or several: all answers are JSON, so that they can come from elsewhere."""

from __future__ import annotations

from typing import Any, Protocol

from inbound.accept.spool import SpoolError, State
from inbound.assess.trial import Trial
from inbound.decide.engine import StopScope
from inbound.decide.rules import RuleSet
from inbound.deliver.trace import trace
from inbound.metrics import Snapshot
from inbound.service import Service

READY = "ready"


class Station(Protocol):
    """Whom to ask."""

    trial: Trial | None
    """Ordered verdicts of `inbound dev`."""

    async def readiness(self) -> dict[str, Any]:
        """`status` is READY while mail is accepted, with `revision` and `spool` (messages by state); else a word, and `error` says why."""
        ...

    async def numbers(self) -> Snapshot:
        """All metrics of this moment."""
        ...

    async def message(self, message_id: str, wait: float) -> dict[str, Any] | None:
        """The trace of a message, once it is done, dead or deferred, or after `wait` seconds; None for one that is not known."""
        ...


class OneProcess:
    """The service in this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.trial = service.trial

    async def readiness(self) -> dict[str, Any]:
        unready = self._service.standing.unready()
        if unready is not None:
            return dict(zip(("status", "error"), unready, strict=True))
        try:
            counts = await self._service.standing.counts()
        except SpoolError as error:
            return {"status": "spool failed", "error": str(error)}
        revision = self._service.rules.current.rule_set.revision
        return {"status": READY, "revision": revision, "spool": {str(state): count for state, count in counts.items()}}

    async def numbers(self) -> Snapshot:
        return await self._service.standing.numbers()

    async def message(self, message_id: str, wait: float) -> dict[str, Any] | None:
        spool = self._service.spool
        entry = await spool.get(message_id)
        if entry is not None and entry.state is State.ACTIVE:
            await self._service.worker.settled(message_id, wait)
            entry = await spool.get(message_id)
        if entry is None:
            return None
        rules = await spool.revision(entry.envelope.revision)
        return trace(entry, RuleSet.kept(rules), StopScope(self._service.settings.stop_scope))
