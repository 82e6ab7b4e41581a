"""The log: what strangers send stays inside its field, one line an event, in both forms."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from inbound import log
from inbound.log import Event

NASTY = {
    "line feed": "\n", "carriage return": "\r", "null": "\0", "backspace": "\b", "escape": "\x1b[2J", "delete": "\x7f", "c1 csi": "\x9b2J",
    "next line": "\x85", "line separator": "\u2028", "paragraph separator": "\u2029", "right-to-left override": "\u202e",
    "file separator": "\x1c", "lone surrogate": "\udc80",
}
FORMS = ("json", "text")
FIELD = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=]+)')

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None)) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    quieted = ("mail.log", "aiohttp.access", "botocore", "boto3", "urllib3")
    levels = {name: logging.getLogger(name).level for name in quieted}
    yield
    structlog.reset_defaults()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def written(form: str, event: Event, /, **fields: Any) -> str:
    """What one event writes, without the line end that closes it."""
    stream = io.StringIO()
    log.configure(form, stream=stream)
    log.get().info(event, **fields)
    text = stream.getvalue()
    assert text.endswith("\n")
    return text[:-1]


def failed(form: str, error: Exception) -> str:
    """What an event with a traceback writes."""
    stream = io.StringIO()
    log.configure(form, stream=stream)
    try:
        raise error
    except type(error):
        log.get().exception(Event.SESSION_FAILED)
    return stream.getvalue()


def fields_of(line: str) -> dict[str, str]:
    """The `key=value` pairs of a line in the text form, with the values decoded."""
    head, rest = line[:39], line[39:]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} [a-z]+ +[a-z.]+ *", head), head
    assert re.fullmatch(rf"(?:{FIELD.pattern})*", rest), rest
    return {key: json.loads(value) if value.startswith('"') else value for key, value in FIELD.findall(rest)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("character", NASTY.values(), ids=NASTY.keys())
def test_a_control_character_is_escaped(form: str, character: str) -> None:
    line = written(form, Event.SESSION_REFUSED, helo=f"mx{character}example")
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert character not in line


@pytest.mark.parametrize("form", FORMS)
def test_a_value_cannot_forge_another_field_or_event(form: str) -> None:
    forged = 'x" level="info\n2026-01-01T00:00:00Z info message.done message_id=forged'
    line = written(form, Event.SESSION_REFUSED, helo=forged, client="192.0.2.1")
    found = json.loads(line) if form == "json" else fields_of(line)
    assert found["helo"] == forged
    assert found["client"] == "192.0.2.1"
    assert "message_id" not in found


@given(st.lists(values, min_size=1, max_size=3))
def test_json_is_one_ascii_line_that_parses(given_values: list[Any]) -> None:
    line = written("json", Event.MESSAGE_RECEIVED, **{f"field_{i}": value for i, value in enumerate(given_values)})
    assert line.isascii()
    assert line.isprintable()
    parsed = json.loads(line)
    assert list(parsed)[:3] == ["time", "level", "event"]
    for i, value in enumerate(given_values):
        if isinstance(value, str | int | None):
            assert parsed[f"field_{i}"] == value


@given(st.text(st.characters(codec=None), min_size=1), values)
def test_text_is_one_printable_line_that_tells_fields_apart(value: str, other: Any) -> None:
    line = written("text", Event.MESSAGE_RECEIVED, helo=value, other=other, last="end")
    assert line.isprintable()
    found = fields_of(line)
    assert found["helo"] == value
    assert found["last"] == "end"
    assert set(found) <= {"helo", "other", "last"}


def test_json_has_time_level_event_and_fields() -> None:
    parsed = json.loads(written("json", Event.MESSAGE_DONE, message_id="abc", size=3, recipients=["a@example.com"]))
    assert datetime.fromisoformat(parsed.pop("time")).utcoffset() is not None
    assert parsed == {"level": "info", "event": "message.done", "message_id": "abc", "size": 3, "recipients": ["a@example.com"]}


def test_text_leaves_out_what_is_empty_and_quotes_what_is_not_one_word() -> None:
    line = written("text", Event.MESSAGE_DONE, a="", b=None, c=0, d="two words", e="größe", f="a@example.com")
    assert line.partition("message.done")[2].split(maxsplit=1) == ["c=0", 'd="two words" e=größe f=a@example.com']


def test_a_traceback_in_json_is_a_field_of_its_event() -> None:
    lines = failed("json", ValueError("bad\n\x1b[2Jmail")).splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert "ValueError: bad\n\x1b[2Jmail" in json.loads(lines[0])["exception"]


def test_a_traceback_in_text_cannot_pass_for_an_event() -> None:
    first, *rest = failed("text", ValueError("bad\n12:00:00.000 info    message.done\r\x1b[2J\u2028forged")).split("\n")[:-1]
    assert "session.failed" in first
    assert any("ValueError: bad" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_that_cannot_show_a_character_does_not_fail_the_caller(form: str) -> None:
    octets = io.BytesIO()
    stream = io.TextIOWrapper(octets, encoding="ascii")
    log.configure(form, stream=stream)
    log.get().info(Event.SESSION_REFUSED, helo="größe")
    assert rb"gr\xf6" in octets.getvalue() or rb"gr\u00f6" in octets.getvalue()


class Gone(io.StringIO):
    """A pipe whose reader went, or a file on a full disk."""

    def flush(self) -> None:
        raise BrokenPipeError


async def test_a_stream_that_nobody_reads_disturbs_nobody() -> None:
    log.configure("json", stream=Gone())
    loop = asyncio.get_running_loop()
    trouble: list[object] = []
    loop.set_exception_handler(lambda _loop, context: trouble.append(context))
    log.get().info(Event.SERVICE_STARTED)
    await asyncio.sleep(0)
    await asyncio.to_thread(log.get().info, Event.SERVICE_STARTED)
    assert trouble == []


@pytest.mark.parametrize(("form", "stream", "is_json"), [
    ("", io.StringIO, True), ("", Terminal, False), ("json", Terminal, True), ("text", io.StringIO, False),
])
def test_text_is_for_terminals_unless_it_is_asked_for(form: str, stream: type[io.StringIO], is_json: bool) -> None:
    out = stream()
    log.configure(form, stream=out)
    log.get().info(Event.SERVICE_STARTED)
    assert out.getvalue().startswith("{") is is_json


def test_events_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    log.configure("json", level="warning", stream=out)
    log.get().info(Event.SERVICE_STARTED)
    log.get().warning(Event.SINK_DOWN)
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["sink.down"]


def test_event_names_are_two_words_each_its_own() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", event) for event in Event)
    assert all(event.name == event.replace(".", "_").upper() for event in Event)


async def test_lines_under_load_share_a_call_and_none_is_lost() -> None:
    class Counting(io.StringIO):
        calls = 0

        def write(self, text: str) -> int:
            self.calls += 1
            return super().write(text)

    out = Counting()
    log.configure("json", stream=out)
    for number in range(50):
        log.get().info(Event.MESSAGE_DONE, number=number)
        await asyncio.sleep(0)
    log.flush()
    assert [json.loads(line)["number"] for line in out.getvalue().splitlines()] == list(range(50))
    assert out.calls <= 3, "the first is written at once, the others together"
