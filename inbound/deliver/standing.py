"""How a process stands: may mail come, and if not, why not; and the numbers that are not counted but read off when somebody asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from inbound.accept.spool import Spool, SpoolError, State
from inbound.deliver.pressure import Pressure
from inbound.deliver.retry import Circuit
from inbound.deliver.sinks import Sinks
from inbound.metrics import BREAKERS, CERTIFICATE, ENTRIES, QUEUE, QUEUE_AGE, READY, SESSIONS, Metrics, Snapshot


class Standing:
    """Asked by /readyz and /metrics. `is_serving`: started and not draining; `has_rules`: a rule set is active; `expires`: the certificate."""

    def __init__(self, spool: Spool, sinks: Sinks, pressure: Pressure, metrics: Metrics, *, is_serving: Callable[[], bool],
                 has_rules: Callable[[], bool], sessions: Callable[[], int], expires: Callable[[], float | None],
                 clock: Callable[[], float]) -> None:
        self._spool = spool
        self._sinks = sinks
        self._pressure = pressure
        self._metrics = metrics
        self._is_serving = is_serving
        self._has_rules = has_rules
        self._sessions = sessions
        self._expires = expires
        self._clock = clock

    def unready(self) -> tuple[str, str] | None:
        """Why mail would be refused: a word and a sentence; None when it would not be."""
        if not self._is_serving():
            return "draining", "the service is stopping, or not started yet"
        if not self._has_rules():
            return "no rules", "no rule set is active: every recipient is refused"
        if self._pressure.refusal is not None:
            return self._pressure.refusal.reason, self._pressure.why
        if self._pressure.trouble:
            return "spool failed", self._pressure.trouble
        return None

    async def counts(self) -> dict[State, int]:
        """How many messages are in each state. Raises SpoolError."""
        return await self._spool.counts()

    async def numbers(self) -> Snapshot:
        """All numbers of this process, of this moment. Of a spool that does not answer, those of its last answer."""
        metrics = self._metrics
        metrics.put(SESSIONS, self._sessions())
        metrics.put(READY, float(self.unready() is None))
        metrics.replace(BREAKERS, {(name, state): float(state is circuit) for name, circuit in self._sinks.states().items() for state in Circuit})
        expires = self._expires()
        if expires is not None:
            metrics.put(CERTIFICATE, expires)
        with contextlib.suppress(SpoolError):  # which the numbers of spool trouble tell
            await self._read_spool()
        return metrics.snapshot()

    async def _read_spool(self) -> None:
        counts, backlog, now = await self._spool.counts(), await self._spool.backlog(), self._clock()
        self._metrics.replace(ENTRIES, {(state,): count for state, count in counts.items()})
        self._metrics.replace(QUEUE, {(sink,): found.messages for sink, found in backlog.items()})
        self._metrics.replace(QUEUE_AGE, {(sink,): max(0.0, now - found.oldest) for sink, found in backlog.items()})
