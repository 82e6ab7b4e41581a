"""How entries, steps and envelopes are written as rows of plain values, and read back. Pure; knows no SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from inbound.accept.envelope import Envelope, Peer
from inbound.accept.spool import Entry, Outcome, State, StepRecord
from inbound.compact import encoded_by

Row = Sequence[Any]

ENTRY_COLUMNS = "id, state, due, since, attempts, size, content, error, sink, assessment, disposition, finished, received, envelope"
INSERTED = "id, state, received, due, since, size, content, assessment, revision, envelope"
STEP_COLUMNS = "rule, place, part, digest, attempt, started, milliseconds, outcome, flow, sink, error, detail"
UNREADABLE = "the record of this message in the spool is damaged"


class UnreadableError(ValueError):
    """A row holds what was never written there: its envelope or a step cannot be read."""


def storable(text: str) -> str:
    """The text with what UTF-8 cannot hold (lone surrogates) spelled as backslash escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _by_slots(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__slots__}


_encode_slots = encoded_by(_by_slots)  # the text of json.dumps(envelope.to_json()), without all the copies
_encode_detail = encoded_by(str)


def envelope_text(envelope: Envelope) -> str:
    """The JSON text of an envelope, as `Envelope.to_json` shapes it; ASCII only, so that it can hold every str."""
    return _encode_slots(_by_slots(envelope))


def envelope_from(text: str) -> Envelope:
    """The envelope that `envelope_text` wrote. Raises UnreadableError."""
    try:
        return Envelope.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableError(UNREADABLE) from error


def entry_from(row: Row, steps: Iterable[Row] = ()) -> Entry:
    """The entry of a row of ENTRY_COLUMNS and rows of STEP_COLUMNS. Raises UnreadableError."""
    try:
        return _entry(row, envelope_from(row[-1]), tuple(map(step_from, steps)))
    except (ValueError, TypeError) as error:
        raise UnreadableError(UNREADABLE) from error


def entry_shown(row: Row, steps: Iterable[Row] = ()) -> Entry:
    """As `entry_from`, but what is unreadable is shown with an empty envelope, so that people can see and drop it."""
    try:
        return entry_from(row, steps)
    except UnreadableError:
        return _entry(row, Envelope(row[0], Peer(""), "", "", (), row[-2]), ())


def _entry(row: Row, envelope: Envelope, steps: tuple[StepRecord, ...]) -> Entry:
    id_, state, due, since, attempts, size, content, error, sink, assessment, disposition, finished, *_ = row
    return Entry(
        id=id_,
        envelope=envelope,
        size=size,
        state=State(state),
        due=due,
        since=since,
        attempts=attempts,
        error=error,
        sink=sink,
        assessment=assessment,
        disposition=disposition,
        finished=finished,
        has_content=bool(content),
        steps=steps,
    )


def step_row(record: StepRecord) -> Row:
    """The values of STEP_COLUMNS for one attempt."""
    return (
        storable(record.rule),
        record.index,
        storable(record.part),
        storable(record.digest),
        record.attempt,
        record.started,
        record.milliseconds,
        record.outcome.value,
        storable(record.flow),
        storable(record.sink),
        storable(record.error),
        _encode_detail(dict(record.detail)),
    )


def step_from(row: Row) -> StepRecord:
    """The attempt of a row of STEP_COLUMNS. Raises ValueError when its detail or outcome cannot be read."""
    rule, place, part, digest, attempt, started, milliseconds, outcome, flow, sink, error, detail = row
    return StepRecord(rule, place, part, digest, attempt, started, milliseconds, Outcome(outcome), flow, sink, error, json.loads(detail))
