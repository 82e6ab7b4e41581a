"""What is counted while mail goes by: the closed list of metrics, and the numbers of one process as plain dicts.

Stages count into a `Metrics` that is handed to them; `operate/metrics.py` writes it down for Prometheus. Nothing here knows of it, so that
the numbers of several processes can be added up before anybody sees them. Labels hold names from the rule file and words of our own, never
what a stranger said: what a client could choose, it could choose a million times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Labels = tuple[str, ...]
Snapshot = dict[str, list[list[Any]]]
"""A metric's name to its series: [labels, number], or [labels, [count in each bucket and beyond, sum]] of a histogram. JSON can hold it."""


class Kind(StrEnum):
    """How a metric behaves, and how the numbers of several processes become one."""

    COUNTER = "counter"  # only grows; added up
    HISTOGRAM = "histogram"  # added up bucket by bucket
    SUM = "sum"  # a gauge of which each process has its part
    LEAST = "least"  # a gauge of which the smallest counts
    MOST = "most"  # a gauge of which the largest counts


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: compared and hashed by identity, which costs nothing. `buckets` are the upper bounds of a histogram's."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES = tuple(float(4**n * 1024) for n in range(9))
_STEP = ("rule", "action", "part")

RECEIVED = Metric("inbound_messages_received_total", Kind.COUNTER, "Messages accepted: on disk, and answered with 250.")
RECEIVED_SIZE = Metric("inbound_message_size_bytes", Kind.HISTOGRAM, "Sizes of accepted messages.", buckets=_BYTES)
CONNECTIONS = Metric("inbound_connections_total", Kind.COUNTER, "SMTP connections that began.")
SESSIONS = Metric("inbound_sessions", Kind.SUM, "SMTP sessions that are open.")
REFUSED = Metric("inbound_refusals_total", Kind.COUNTER, "Refusals in SMTP sessions, by their reason in the log and their reply code.",
                 ("reason", "code"))
VERDICTS = Metric("inbound_verdicts_total", Kind.COUNTER, "Verdicts formed, by kind (spf, dkim, dmarc, spam, virus) and status.",
                  ("verdict", "status"))
STEPS = Metric("inbound_actions_total", Kind.COUNTER, "Attempts at actions (part: action) and at the notifications of their TopicArn (part: topic): "
               "success, failure (is retried), refused (no retry could cure it), expired (the retry time ended: a dead letter).",
               (*_STEP, "outcome"))
STEP_SECONDS = Metric("inbound_action_seconds", Kind.HISTOGRAM, "Time that calls to sinks took, failed ones too.", _STEP, _SECONDS)
DONE = Metric("inbound_messages_done_total", Kind.COUNTER, "Messages whose rules have all run, by disposition.", ("disposition",))
DONE_SECONDS = Metric("inbound_message_seconds", Kind.HISTOGRAM, "From the receipt of a message to the end of its last action.",
                      buckets=(*_SECONDS, 300.0, 900.0, 3600.0, 14400.0))
DEFERRED = Metric("inbound_messages_deferred_total", Kind.COUNTER, "Attempts after which a message had to wait for another.")
DEAD = Metric("inbound_dead_letters_total", Kind.COUNTER, "Messages that became dead letters.")
BOUNCES = Metric("inbound_bounces_total", Kind.COUNTER, "Bounces: sent, suppressed (by a guard or a rate), or refused by the smarthost.",
                 ("outcome",))
ENTRIES = Metric("inbound_spool_messages", Kind.SUM, "Messages in the spool, by state; those in the state dead are the dead letters.", ("state",))
QUEUE = Metric("inbound_queue_messages", Kind.SUM, "Messages that wait for a sink.", ("sink",))
QUEUE_AGE = Metric("inbound_queue_oldest_seconds", Kind.MOST, "Age of the oldest message that waits for a sink.", ("sink",))
OLDEST = Metric("inbound_oldest_waiting_seconds", Kind.MOST, "How long the retry time of the oldest message has run that waits for a sink or for "
                "its first attempt; back-pressure begins at INBOUND_SPOOL_AGE.")
SPOOL_BYTES = Metric("inbound_spool_bytes", Kind.SUM, "What the spool takes on disk; back-pressure begins at INBOUND_SPOOL_MAX.")
DISK_FREE = Metric("inbound_disk_free_bytes", Kind.LEAST, "Free space of the data folder's file system.")
DISK_RESERVE = Metric("inbound_disk_reserve_bytes", Kind.MOST, "Free space below which no mail is accepted.")
PRESSURE = Metric("inbound_backpressure", Kind.MOST, "1 while MAIL is answered with 4yz for this reason.", ("reason",))
SPOOL_TROUBLE = Metric("inbound_spool_trouble", Kind.MOST, "1 while the spool cannot be written.")
SPOOL_FAILURES = Metric("inbound_spool_failures_total", Kind.COUNTER, "Messages that could not be kept, and were answered with 4yz.")
COMMITS = Metric("inbound_commit_seconds", Kind.HISTOGRAM, "Time of transactions of the spool that write, syncs included.",
                 buckets=(0.0005, *_SECONDS))
COMMIT_SIZE = Metric("inbound_commit_operations", Kind.HISTOGRAM, "Operations that shared such a transaction.",
                     buckets=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 500.0))
BREAKERS = Metric("inbound_sink_breaker", Kind.SUM, "1 for the state of the sink's breaker: closed (well), open (left alone) or probing.",
                  ("sink", "state"))
RELOADS = Metric("inbound_rule_reloads_total", Kind.COUNTER, "Revisions of the rule file: loaded or rejected.", ("outcome",))
RULES_GOOD = Metric("inbound_rules_good", Kind.LEAST, "1 while the rule file is the revision in force, 0 while a broken one lies there.")
CERTIFICATE = Metric("inbound_certificate_expiry_timestamp_seconds", Kind.LEAST, "When the certificate expires, in seconds since the epoch.")
ALERTS = Metric("inbound_alerts_total", Kind.COUNTER, "Alerts, by kind and channel: sent or failed.", ("kind", "channel", "outcome"))
READY = Metric("inbound_ready", Kind.LEAST, "1 while /readyz answers 200.")

ALL: dict[str, Metric] = {value.name: value for value in list(globals().values()) if isinstance(value, Metric)}
"""Every metric there is, by name."""


class Metrics:
    """The numbers of one process. To be used in its event loop only."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Metric, dict[Labels, Any]] = {metric: {} for metric in ALL.values()}
        for metric in ALL.values():
            if metric.kind is Kind.COUNTER and not metric.labels:
                self._values[metric][()] = 0  # a rate needs a beginning

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        series = self._values[metric]
        series[labels] = series.get(labels, 0) + by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        series = self._values[metric]
        numbers = series.get(labels)
        if numbers is None:
            numbers = series[labels] = [0] * (len(metric.buckets) + 1) + [0.0]
        numbers[bisect_left(metric.buckets, value)] += 1
        numbers[-1] += value

    def put(self, metric: Metric, value: float, *labels: str) -> None:
        """Set one series of a gauge."""
        self._values[metric][labels] = value

    def replace(self, metric: Metric, series: dict[Labels, float]) -> None:
        """Set all series of a gauge; those not named are gone."""
        self._values[metric] = dict(series)

    def forget(self, label: str, known: Collection[str]) -> None:
        """Drop the series whose label names none of these: of a rule that has left the rule file, say."""
        for metric, series in self._values.items():
            if label in metric.labels:
                at = metric.labels.index(label)
                self._values[metric] = {labels: value for labels, value in series.items() if labels[at] in known}

    def get(self, metric: Metric, *labels: str) -> Any:
        """The number, or a histogram's numbers; 0 where nothing was counted."""
        return self._values[metric].get(labels, 0)

    def snapshot(self) -> Snapshot:
        """All numbers of this moment, apart from what counts on."""
        return {metric.name: [[list(labels), _copy(value)] for labels, value in series.items()] for metric, series in self._values.items() if series}


def _copy(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The numbers of several processes as one. What is no metric of ours is left out, as a process of another version may tell."""
    found: dict[Metric, dict[Labels, Any]] = {}
    for snapshot in snapshots:
        for metric, labels, value in series_of(snapshot):
            series = found.setdefault(metric, {})
            series[labels] = _joined(metric, series[labels], value) if labels in series else _copy(value)
    return {metric.name: [[list(labels), value] for labels, value in series.items()] for metric, series in found.items()}


def lasting(snapshot: Snapshot) -> Snapshot:
    """What counts on of a snapshot whose process is gone: a counter that fell would look like many new events."""
    return {name: series for name, series in snapshot.items() if name in ALL and ALL[name].kind in (Kind.COUNTER, Kind.HISTOGRAM)}


def series_of(snapshot: Snapshot) -> Iterator[tuple[Metric, Labels, Any]]:
    """Each number of a snapshot with its metric and labels."""
    for name, series in snapshot.items():
        if name in ALL:
            for labels, value in series:
                yield ALL[name], tuple(labels), value


def _joined(metric: Metric, one: Any, other: Any) -> Any:
    match metric.kind:
        case Kind.HISTOGRAM:
            return [a + b for a, b in zip(one, other, strict=True)]
        case Kind.LEAST:
            return min(one, other)
        case Kind.MOST:
            return max(one, other)
    return one + other
