"""A finished message that is judged again: the mark between what was recorded before and what comes of it now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from inbound.accept.spool import Entry, Outcome, State, StepRecord

PART = "replay"
FINISHED = (State.DONE, State.DEAD)


@dataclass(frozen=True, slots=True)
class Replay:
    """By which revision, with its text, a message is judged again. `content` is given where the spool may not keep it any more."""

    revision: str
    text: str
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What was recorded of a message until it was replayed, at `replayed` (seconds since the epoch), by the revision it was judged by till then.

    `state`, `disposition`, `error` and `finished` are those it had.
    """

    revision: str
    state: str
    disposition: str
    error: str
    finished: float
    replayed: float
    steps: tuple[StepRecord, ...]


def runs(records: Sequence[StepRecord]) -> tuple[Sequence[Run], Sequence[StepRecord]]:
    """The runs that are over, the first one first, and the records of the present one."""
    over = list(_over(records))
    return over, records[sum(len(run.steps) + 1 for run in over) :] if over else records


def _over(records: Sequence[StepRecord]) -> Iterator[Run]:
    begin = 0
    for place, record in enumerate(records):
        if record.part == PART:
            told = record.detail
            yield Run(record.digest, told["state"], told["disposition"], told["error"], told["finished"], record.started,
                      tuple(records[begin:place]))
            begin = place + 1


def is_possible(entry: Entry, replay: Replay) -> bool:
    """Is the entry finished, and is its content kept, or given and as long as it was?"""
    return entry.state in FINISHED and (entry.has_content or (replay.content is not None and len(replay.content) == entry.size))


def replayed(entry: Entry, replay: Replay, now: float) -> Entry:
    """The entry as it waits for its next run, due at once: the mark is its last record."""
    told = {
        "revision": replay.revision, "state": str(entry.state), "disposition": entry.disposition, "error": entry.error, "finished": entry.finished,
    }
    number = sum(record.part == PART for record in entry.steps) + 1
    mark = StepRecord("", 0, PART, entry.envelope.revision, number, now, 0, Outcome.DONE, detail=told)
    return replace(
        entry, state=State.DEFERRED, due=now, since=now, attempts=0, error="", sink="", disposition="", finished=0.0, has_content=True,
        envelope=replace(entry.envelope, revision=replay.revision), steps=(*entry.steps, mark),
    )
