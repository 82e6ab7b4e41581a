"""Whole SMTP sessions as text scripts, see dialogs/README.txt for their format. What holds in every session is asserted for all."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from front_door import Door, Rules, front_door
from smtp_client import Client, Gone

from inbound.accept import reply
from inbound.accept.envelope import Envelope

DIALOGS = sorted(Path(__file__).parent.joinpath("dialogs").glob("[0-9]*.txt"))

_LINE = re.compile(r"([#!CSXM])(?:\*(\d+))?(?:([:|])(?: (.*))?| (.*))?")
_TIMES = re.compile(r"\{(\d+) (.)\}")
_MESSAGE_ID = re.compile(r"[0-9a-v]{40}")
_STATUS = re.compile(r"([245])\d\d \1\.\d{1,3}\.\d{1,3} \S.*")
_WITHOUT_STATUS = re.compile(r"220 mx\.test ESMTP|250[ -](mx\.test|PIPELINING|SIZE \d+|8BITMIME|ENHANCEDSTATUSCODES|CHUNKING|"
                             r"LIMITS RCPTMAX=\d+|STARTTLS)|354 .*")


@dataclass
class Dialog:
    """A script: what it needs, its steps in order, and the messages that are accepted in it."""

    limits: dict[str, int] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    steps: list[tuple[str, bytes]] = field(default_factory=list)  # (C, octets), (S, line), (X, b""), (!, directive)
    messages: list[tuple[str, bytes]] = field(default_factory=list)


def read(text: str) -> Dialog:
    """The script in a file's text."""
    dialog = Dialog()
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        assert match, f"not a line of a dialog: {line!r}"
        kind, times, form, rest = match[1], int(match[2] or 1), match[3], match[4] or match[5] or ""
        rest = _TIMES.sub(lambda m: int(m[1]) * m[2], rest)
        if kind == "!" and not dialog.steps:
            demand(dialog, rest)
        elif kind == "M":
            octets = raw(rest)
            if form == ":":
                dialog.messages.append((rest, b""))
            else:
                dialog.messages[-1] = (dialog.messages[-1][0], octets)
        elif kind == "C":
            dialog.steps += [("C", raw(rest) if form == "|" else rest.encode("ascii") + b"\r\n")] * times
        elif kind != "#":
            dialog.steps += [(kind, rest.encode("ascii"))] * times
    return dialog


def raw(text: str) -> bytes:
    """The octets that Python's escapes in the text stand for."""
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")


def demand(dialog: Dialog, directive: str) -> None:
    """A directive before the first step."""
    word, _, rest = directive.partition(" ")
    if word == "limits":
        dialog.limits = {name: int(value) for name, _, value in (pair.partition("=") for pair in rest.split())}
    elif directive == "blocked":
        dialog.rules.blocked.add("127.0.0.1")
    else:
        assert directive == "no postmaster", directive
        dialog.rules.known -= {"postmaster@example.com"}


def written(envelope: Envelope) -> str:
    """An envelope as dialogs write it."""
    return " ".join(f"<{path}>" for path in (envelope.reverse_path, *envelope.forward_paths))


class Play:
    """A dialog in front of an open door. `transcript` is what the server said."""

    def __init__(self, dialog: Dialog, door: Door, client: Client, *, by_octets: bool) -> None:
        self.dialog = dialog
        self.door = door
        self.client = client
        self.by_octets = by_octets
        self.transcript: list[str] = []
        self.ids: list[str] = []
        self._unsent = b""
        self._drain: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Every step, then the end: the server has nothing more to say."""
        steps = {"C": self._queue, "S": self._expect, "X": self._closed, "!": self._direct}
        for kind, octets in self.dialog.steps:
            await steps[kind](octets)
        await self._send()
        if self.dialog.steps[-1][0] != "X":
            self.client.half_close()
        await self._closed(b"")
        if self._drain is not None:
            await self._drain

    async def _queue(self, octets: bytes) -> None:
        self._unsent += octets

    async def _send(self) -> None:
        octets, self._unsent = self._unsent, b""
        try:
            if self.by_octets and len(octets) < 4000:
                await self.client.drip(octets)
            elif octets:
                await self.client.send(octets)
        except (Gone, ConnectionError):
            pass  # the server has said its last word; the dialog tells whether that is right

    async def _expect(self, line: bytes) -> None:
        await self._send()
        said = await self.client.line()
        self.transcript.append(said)
        expected = line.decode("ascii")
        if expected.endswith(" *"):
            assert said.startswith(expected[:-1]), said
            assert _MESSAGE_ID.fullmatch(said, len(expected) - 1), said
            self.ids.append(said[len(expected) - 1 :])
        else:
            assert said == expected

    async def _closed(self, _: bytes) -> None:
        await self._send()
        assert await self.client.rest() == ""

    async def _direct(self, directive: bytes) -> None:
        await self._send()
        if directive == b"drain":
            self._drain = asyncio.create_task(self.door.listener.drain(10))
            await asyncio.sleep(0)
        else:
            assert directive == b"full", directive
            self.door.intake.refusal = reply.SPOOL_FULL


@pytest.mark.parametrize("by_octets", [False, True], ids=["in-lines", "by-octets"])
@pytest.mark.parametrize("text", [path.read_text("utf-8") for path in DIALOGS], ids=[path.stem for path in DIALOGS])
async def test_dialog(text: str, by_octets: bool) -> None:
    dialog = read(text)
    async with front_door(**dialog.limits) as door:
        door.intake.rules = dialog.rules
        play = Play(dialog, door, await door.connect(), by_octets=by_octets)
        await play.run()
        await door.empty()
        messages = await door.intake.messages()

    assert [(written(envelope), octets) for envelope, octets in messages] == dialog.messages
    assert [envelope.message_id for envelope, _ in messages] == play.ids, "the reply to DATA names the message"
    for line in play.transcript:
        assert _STATUS.fullmatch(line) or _WITHOUT_STATUS.fullmatch(line), f"no enhanced status code, or one of another class: {line}"
    refusals = [line for line in play.transcript if line[0] in "45" and line != str(reply.SHUTTING_DOWN)]  # which refuses nothing
    assert door.journal.refusals == refusals, "every refusal is one event, and says what was said"
    assert all(event["reason"] and event["client"] == "127.0.0.1" for event in door.journal.events)


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 50
    assert len({path.name[:2] for path in DIALOGS}) == len(DIALOGS)
