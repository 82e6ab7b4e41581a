"""Alerts: what an operator should hear of at once, told to an SNS topic and a web hook, and never in anybody's way.

One alert a kind and five minutes, with a count of what happened since the last, and one when it is over; what cannot be told is kept, and
told when it can be. The calls go by no sink's breaker and are no message's steps, so a channel that fails raises no alert of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from inbound.deliver.sinks import set_within
from inbound.log import Event, Log
from inbound.metrics import ALERTS, Metrics
from inbound.mishap import keep_going

GATHER = 1.0  # seconds that the first of a kind waits for company
PAUSE = 300.0  # seconds between two alerts of a kind
RETRY_MIN, RETRY_MAX = 5.0, 300.0  # seconds until an alert that could not be told is tried again
DETAILS = 5  # events of a kind that an alert tells of; the others it counts
DETAIL_LENGTH = 500
SECONDS = 15.0  # that a channel has for one alert


class Kind(StrEnum):
    """What alerts are about."""

    DEAD_LETTERS = "dead_letters"
    RULES_REJECTED = "rules_rejected"
    QUEUE_STUCK = "queue_stuck"
    SPOOL_TROUBLE = "spool_trouble"
    CERTIFICATE = "certificate"


_SUMMARIES = {
    Kind.DEAD_LETTERS: "dead letters",
    Kind.RULES_REJECTED: "the rule file was refused, the last good rules stay in force",
    Kind.QUEUE_STUCK: "the queue is stuck",
    Kind.SPOOL_TROUBLE: "the spool cannot take mail",
    Kind.CERTIFICATE: "the certificate is about to expire",
}
_OVER = {
    Kind.RULES_REJECTED: "the rule file is good again",
    Kind.QUEUE_STUCK: "the queue is no longer stuck",
    Kind.SPOOL_TROUBLE: "the spool takes mail again",
    Kind.CERTIFICATE: "the certificate was renewed",
}
_ADVICE = {
    Kind.DEAD_LETTERS: "inbound queue list --state dead",
    Kind.RULES_REJECTED: "inbound check",
    Kind.QUEUE_STUCK: "inbound queue list --state deferred",
    Kind.SPOOL_TROUBLE: "inbound doctor",
    Kind.CERTIFICATE: "inbound doctor",
}


class Tell(Protocol):
    """Takes note of one event; returns at once, and never raises."""

    def __call__(self, kind: Kind, detail: str, what: str = "", *, over: bool = False) -> None:
        """`what` names a trouble that lasts, among those of its kind; with `over` it has ended. Of one that was not told no end is told."""
        ...


def untold(kind: Kind, detail: str, what: str = "", *, over: bool = False) -> None:  # a Tell
    """Nobody wants to hear."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: what happened, how often since the last one, and the first few of it. Times in seconds since the epoch."""

    kind: Kind
    host: str
    count: int
    first: float
    last: float
    details: tuple[str, ...]
    over: bool = False
    """All trouble of this kind has ended."""

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.over:
            return _OVER[self.kind]
        number = f"{self.count} new " if self.kind is Kind.DEAD_LETTERS else ""
        return f"{number}{_SUMMARIES[self.kind]}"

    def to_json(self) -> str:
        """The JSON that topic and hook get, ASCII only."""
        return json.dumps({
            "version": 1, "service": "inbound", "host": self.host, "kind": self.kind, "over": self.over, "summary": self.summary, "count": self.count,
            "first": _iso(self.first), "last": _iso(self.last), "details": self.details, "look": _ADVICE[self.kind],
        })


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class AlertFailed(Exception):
    """It could not be told. The text never shows the address of a hook."""


class Channel(Protocol):
    """Where alerts go."""

    name: str
    """`topic` or `hook`."""

    async def send(self, alert: Alert) -> None:
        """Tell it. Raises AlertFailed."""
        ...


@dataclass(slots=True)
class _Pending:
    """Events of one kind, or the end of their trouble, that are still to be told."""

    due: float
    first: float
    last: float
    count: int = 0
    details: list[str] = field(default_factory=list)


class Outlet:
    """One channel, and what is still to be told there. `monotonic` and `clock` in seconds, the latter since the epoch."""

    def __init__(self, channel: Channel, host: str, log: Log, metrics: Metrics, *, pause: float, clock: Callable[[], float],
                 monotonic: Callable[[], float]) -> None:
        self._channel = channel
        self._host = host
        self._log = log
        self._metrics = metrics
        self._pause = pause
        self._clock = clock
        self._monotonic = monotonic
        self._pending: dict[tuple[Kind, bool], _Pending] = {}  # by kind, and whether it is over
        self._again: dict[tuple[Kind, bool], float] = {}  # when the next alert of that may go
        self._wake = asyncio.Event()
        self._failures = 0

    def tell(self, kind: Kind, detail: str, *, over: bool = False) -> None:
        """Take note of one event, or that its kind is over."""
        if not over:
            self._pending.pop((kind, True), None)  # it is not over
        now, key = self._clock(), (kind, over)
        pending = self._pending.get(key)
        if pending is None:
            due = max(self._monotonic() + GATHER, self._again.get(key, 0.0))
            pending = self._pending[key] = _Pending(due, now, now)
        pending.count += 1
        pending.last = now
        if len(pending.details) < DETAILS:
            pending.details.append(detail[:DETAIL_LENGTH])
        self._wake.set()

    async def run(self) -> None:
        """Tell what is due, until cancelled."""
        while True:
            self._wake.clear()
            wait = min((pending.due for pending in self._pending.values()), default=self._monotonic() + PAUSE) - self._monotonic()
            if wait > 0:
                await set_within(self._wake, wait)
            else:
                await self.tell_due(self._monotonic())

    async def flush(self) -> None:
        """Try once to tell all there is."""
        await self.tell_due(float("inf"))

    async def tell_due(self, now: float) -> None:
        """Tell what is due at that time of `monotonic`."""
        due = [key for key, pending in self._pending.items() if pending.due <= now]
        for kind, over in sorted(due, key=lambda key: key[1]):
            pending, trouble = self._pending.get((kind, over)), self._pending.get((kind, False))
            if pending is None:
                continue  # it was not over after all
            if over and trouble is not None:
                pending.due = max(pending.due, trouble.due)  # first that there was trouble, then that it is over
            else:
                await self._send(kind, self._pending.pop((kind, over)), over=over)

    async def _send(self, kind: Kind, told: _Pending, *, over: bool) -> None:
        alert = Alert(kind, self._host, told.count, told.first, told.last, tuple(told.details), over)
        try:
            async with asyncio.timeout(SECONDS):
                await self._channel.send(alert)
        except (AlertFailed, TimeoutError) as error:
            self._failed(kind, told, str(error) or f"the {self._channel.name} did not answer within {SECONDS:.0f} s", over=over)
        except asyncio.CancelledError:
            self._pending[kind, over] = told  # for `flush`
            raise
        except Exception as error:
            self._failed(kind, told, type(error).__name__, over=over)
        else:
            self._failures = 0
            self._again[kind, over] = self._monotonic() + self._pause
            self._metrics.count(ALERTS, kind, self._channel.name, "sent")

    def _failed(self, kind: Kind, told: _Pending, error: str, *, over: bool) -> None:
        """Keep it for another try, with what came meanwhile. Told once in the log, until an alert gets through."""
        self._metrics.count(ALERTS, kind, self._channel.name, "failed")
        if not self._failures:
            self._log.error(Event.ALERT_FAILED, channel=self._channel.name, kind=str(kind), error=error)
        told.due = self._monotonic() + min(RETRY_MAX, RETRY_MIN * 2.0 ** min(self._failures, 20))
        self._failures += 1
        if over and (kind, False) in self._pending:
            return  # there is new trouble since
        newer = self._pending.get((kind, over))
        if newer is not None:
            told.count += newer.count
            told.last = newer.last
            told.details = (told.details + newer.details)[:DETAILS]
        self._pending[kind, over] = told


class Alerts:
    """All channels. Without any, what is told is forgotten."""

    def __init__(self, channels: Sequence[Channel], log: Log, *, host: str, metrics: Metrics | None = None, pause: float = PAUSE,
                 clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        numbers = metrics or Metrics()
        self._open: set[tuple[Kind, str]] = set()  # what was told and is not over
        self._outlets = [Outlet(channel, host, log, numbers, pause=pause, clock=clock, monotonic=monotonic) for channel in channels]

    def tell(self, kind: Kind, detail: str, what: str = "", *, over: bool = False) -> None:
        """Take note of one event, a line of text; returns at once. A kind is over once nothing of it is left."""
        if over:
            if (kind, what) not in self._open:
                return
            self._open.remove((kind, what))
            if any(other is kind for other, _ in self._open):
                return
        elif what:
            self._open.add((kind, what))
        for outlet in self._outlets:
            outlet.tell(kind, detail, over=over)

    async def run(self) -> None:
        """Tell what is due, until cancelled."""
        await asyncio.gather(*(keep_going(outlet.run, self._log) for outlet in self._outlets))

    async def flush(self, seconds: float) -> None:
        """At the end: try once to tell what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(outlet.flush() for outlet in self._outlets))
