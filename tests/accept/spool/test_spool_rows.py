"""What is written as rows comes back as it was, whatever strangers put into it."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.envelope import Envelope, Peer, Tls
from inbound.accept.spool import Outcome, State, StepRecord
from inbound.accept.spool.rows import UNREADABLE, entry_from, entry_shown, envelope_text, step_from, step_row, storable

any_text = st.text(st.characters(), max_size=20)  # lone surrogates and control characters included
utf8 = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
envelopes = st.builds(
    Envelope,
    message_id=any_text,
    peer=st.builds(Peer, any_text, st.integers(0, 65535), any_text),
    helo=any_text,
    reverse_path=any_text,
    forward_paths=st.lists(any_text, max_size=3).map(tuple),
    received_at=numbers,
    connected_at=numbers,
    revision=any_text,
    esmtp=st.booleans(),
    tls=st.none() | st.builds(Tls, any_text, any_text),
    body=any_text,
    smtputf8=st.booleans(),
    parameters=st.lists(any_text, max_size=3).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
details = st.dictionaries(any_text, json_values, max_size=3).filter(lambda value: json.loads(json.dumps(value)) == value)
records = st.builds(
    StepRecord,
    rule=utf8,
    index=st.integers(0, 10**6),
    part=st.sampled_from(["action", "topic"]),
    digest=utf8,
    attempt=st.integers(1, 10**6),
    started=numbers,
    milliseconds=st.integers(0, 10**9),
    outcome=st.sampled_from(Outcome),
    flow=utf8,
    sink=utf8,
    error=utf8,
    detail=details,
)


def row_of(envelope: Envelope, text: str) -> tuple[object, ...]:
    return ("id", "dead", 1.0, 2.0, 3, 4, "row", "error", "sink", "assessment", "disposition", 5.0, envelope.received_at, text)


@given(envelopes.filter(lambda envelope: envelope == Envelope.from_json(json.loads(json.dumps(envelope.to_json())))))
def test_an_envelope_comes_back(envelope: Envelope) -> None:
    text = envelope_text(envelope)
    assert text.isascii()
    assert json.loads(text) == json.loads(json.dumps(envelope.to_json()))
    assert entry_from(row_of(envelope, text)).envelope == envelope


def test_the_strategy_knows_every_field() -> None:
    """A field added to the envelope is to be added above too."""
    assert len(fields(Envelope)) == 13
    assert len(fields(StepRecord)) == 12


@given(records)
def test_a_step_comes_back(record: StepRecord) -> None:
    assert step_from(step_row(record)) == record


@given(any_text)
def test_every_text_can_be_stored(text: str) -> None:
    stored = storable(text)
    stored.encode("utf-8")
    assert stored == text or any("\ud800" <= character <= "\udfff" for character in text)


@given(st.text(max_size=30) | json_values.map(json.dumps))
def test_a_damaged_record_is_shown_as_one(text: str) -> None:
    envelope = Envelope("id", Peer("192.0.2.1"), "", "", (), 7.0)
    entry = entry_shown(row_of(envelope, text))
    assert (entry.id, entry.state, entry.envelope.received_at) == ("id", State.DEAD, 7.0)
    assert "damaged" in UNREADABLE
