"""Whatever octets come, in whatever state and in whatever pieces, the listener answers with well-formed replies or closes, fails at
nothing, says the same however the octets are cut, and accepts only messages that a HELO or EHLO, a MAIL, a RCPT for a recipient of
the rules, DATA and CRLF.CRLF, or BDAT commands of which only the last says LAST, enclose in those octets, in that order.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import client_context, server_context
from event_loops import LOOPS
from front_door import KNOWN, Door, front_door
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inbound.accept import reply
from inbound.accept.envelope import Envelope
from inbound.log import Event

STATES: dict[str, list[bytes]] = {
    "before EHLO": [],
    "after EHLO": [b"EHLO client.example"],
    "after MAIL": [b"EHLO client.example", b"MAIL FROM:<alice@sender.example>"],
    "after RCPT": [b"EHLO client.example", b"MAIL FROM:<alice@sender.example>", b"RCPT TO:<support@example.com>"],
    "in DATA": [b"EHLO client.example", b"MAIL FROM:<alice@sender.example>", b"RCPT TO:<support@example.com>", b"DATA"],
    "in BDAT": [b"EHLO client.example", b"MAIL FROM:<alice@sender.example>", b"RCPT TO:<support@example.com>", b"BDAT 11\r\nfirst cut"],
    "after DATA": [b"EHLO client.example", b"MAIL FROM:<alice@sender.example>", b"RCPT TO:<support@example.com>", b"DATA", b"."],
}
WITHIN = {"within a chunk": ("in BDAT", b"BDAT 40\r\n"), "within a last chunk": ("after RCPT", b"BDAT 40 LAST\r\n")}
WORDS = [
    b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<>\r\n", b"MAIL FROM:<a@b.example> SIZE=9\r\n", b"RCPT TO:<support@example.com>\r\n",
    b"RCPT TO:<nobody@example.com>\r\n", b'RCPT TO:<"sales"@example.com>\r\n', b"RCPT TO:<Postmaster>\r\n", b"DATA\r\n", b"DATA\n",
    b".\r\n", b"\r\n.\r\n", b"\r\n.\n", b"\n.\r\n", b"..\r\n", b"\r\n", b"\n", b"\r", b"\0", b".", b" ", b"a", b"RSET\r\n", b"NOOP\r\n",
    b"QUIT\r\n", b"VRFY x\r\n", b"HELP\r\n", b"STARTTLS\r\n", b"BDAT 3 LAST\r\n", b"BDAT 7\r\n", b"BDAT 0 LAST\r\n", b"BDAT 600\r\n",
    b"BDAT x\r\n", b"BDAT 9999999999\r\n", b"AUTH PLAIN\r\n", b"GET / HTTP/1.1\r\n",
    b"Received: x\r\n", b"MAIL", b"FROM:", b"<", b">", b"@", b"\xff\xfe", b"x" * 2050, b"y" * 400 + b"\r\n",
]
CORPUS = sorted(Path(__file__).parent.joinpath("corpus").glob("*.octets"))
OCTETS = st.lists(st.sampled_from(WORDS) | st.binary(max_size=8), max_size=25).map(b"".join)
CUTS = st.sampled_from(["octets", "lines"]) | st.lists(st.integers(1, 40), min_size=1, max_size=8)
BDAT = re.compile(rb"bdat +(\d+)( +last)? *\r?\n", re.IGNORECASE)
WELL_FORMED = re.compile(r"""(?:(?:
    220\ mx\.test\ ESMTP | 250\ mx\.test | 354\ [ -~]+ |
    250-mx\.test(?:\r\n250-[A-Z0-9= ]+)*\r\n250\ [A-Z0-9= ]+ |
    ([245])\d\d\ \1\.\d{1,3}\.\d{1,3}\ [ -~]+
)\r\n)*""", re.VERBOSE)


@dataclass
class Seen:
    """What came of one session."""

    said: str
    messages: list[tuple[Envelope, bytes]]

    @property
    def without_ids(self) -> tuple[str, list[tuple[str, tuple[str, ...], bytes]]]:
        """The same for every session that went the same way."""
        said = re.sub(r"\b[0-9a-v]{40}\b", "ID", self.said)
        return said, [(envelope.reverse_path, envelope.forward_paths, octets) for envelope, octets in self.messages]


async def session(door: Door, state: list[bytes], pieces: list[bytes]) -> Seen:
    """Come to the state, send the pieces, listen to the end."""
    before = len(door.intake.accepted)
    client = await door.connect()
    said = f"{await client.reply()}\r\n"
    for command in state:
        await client.send(command + b"\r\n")
        said += (await client.reply()).replace("\n", "\r\n") + "\r\n"
    with contextlib.suppress(OSError):
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(0)
        client.half_close()
    said += await client.rest()
    client.close()
    await door.empty()
    door.clients.clear()
    return Seen(said, (await door.intake.messages())[before:])


def cut(octets: bytes, sizes: list[int] | str) -> list[bytes]:
    """The octets in pieces of these sizes, over and over; or each octet, or line, by itself."""
    if sizes == "lines":
        return re.findall(rb"[^\n]*\n|[^\n]+", octets)
    if isinstance(sizes, str):
        sizes = [1]
    pieces, position, turn = [], 0, 0
    while position < len(octets):
        step = sizes[turn % len(sizes)]
        pieces.append(octets[position : position + step])
        position, turn = position + step, turn + 1
    return pieces


def content(octets: bytes) -> tuple[bytes, int] | None:
    """The message at the beginning of the octets, and where it ends; None when no CRLF.CRLF ends it. Line by line, as the RFC tells it."""
    text = b"\r\n" + octets
    end = text.find(b"\r\n.\r\n")
    if end < 0:
        return None
    lines = text[: end + 2].split(b"\r\n")
    return b"\r\n".join(line.removeprefix(b".") for line in lines)[2:], end + 3


def by_data(wire: bytes, start: int, octets: bytes) -> Iterator[tuple[int, int]]:
    """Where from `start` on the octets may have come by DATA: the end of the command, the end of the content."""
    for data in re.compile(rb"(?:^|\n)data[ \t]*\r?\n", re.IGNORECASE).finditer(wire, start):
        found = content(wire[data.end() :])
        if found is not None and found[0] == octets:
            yield data.end(), data.end() + found[1]


def by_bdat(wire: bytes, start: int, octets: bytes) -> Iterator[tuple[int, int]]:
    """Where from `start` on the octets may have come by BDAT: the end of the first command, the end of the last chunk."""
    commands = [(found.end(), found.end() + int(found[1]), bool(found[2])) for found in BDAT.finditer(wire, start)
                if found.end() + int(found[1]) <= len(wire)]
    ways = {(begin, begin, 0) for begin, *_ in commands}  # the first command's end, how far it came, how many octets were told so far
    while ways:
        further = set()
        for first, position, told in ways:
            for begin, end, last in commands:
                if begin < position or (begin > first and position == first) or wire[begin:end] != octets[told : told + end - begin]:
                    continue
                if last and told + end - begin == len(octets):
                    yield first, end
                elif end > begin:
                    further.add((first, end, told + end - begin))
        ways = further


def is_enclosed(wire: bytes, start: int, envelope: Envelope, octets: bytes) -> int:
    """Where in the wire the message ends, looked for from `start`. Fails when no legal transaction encloses it."""
    for begin, end in (*by_data(wire, start, octets), *by_bdat(wire, start, octets)):
        commands = wire[start:begin]
        mail = re.search(rb"(?:^|\n)mail from:[^\n]*" + re.escape(envelope.reverse_path.encode()), commands, re.IGNORECASE)
        if (mail and re.search(rb"(?:^|\n)(?:ehlo|helo) ", wire[:begin], re.IGNORECASE)
                and len(re.findall(rb"\nrcpt to:", commands[mail.end() :], re.IGNORECASE)) >= len(envelope.forward_paths) > 0):
            return end
    raise AssertionError(f"{octets!r} was accepted, and no transaction encloses it")


def check(wire: bytes, seen: Seen) -> None:
    """The sentence at the top of this file, for one session."""
    assert WELL_FORMED.fullmatch(seen.said), seen.said
    start = 0
    for envelope, octets in seen.messages:
        assert {path.lower() for path in envelope.forward_paths} <= KNOWN
        start = is_enclosed(wire, start, envelope, octets)
    assert re.findall(r"^250 2\.0\.0 OK ([0-9a-v]{40})\r$", seen.said, re.MULTILINE) == [envelope.message_id for envelope, _ in seen.messages]


@pytest.mark.parametrize("state", [*STATES, *WITHIN])
@pytest.mark.parametrize("loop", LOOPS)
def test_any_octets_in_any_state(state: str, loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        opening = front_door(errors=6, recipients=3, message_size=500, hops=2)
        door = runner.run(opening.__aenter__())
        try:
            said, begun = WITHIN.get(state, (state, b""))
            strangers(state, lambda wire, cuts: runner.run(both(door, STATES[said], begun + wire, cuts)))
        finally:
            runner.run(opening.__aexit__(None, None, None))


def strangers(state: str, talk: Callable[[bytes, list[int] | str], None]) -> None:
    """Let hypothesis talk."""

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(OCTETS, CUTS)
    @example(b"DATA\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<support@example.com>\r\nDATA\r\na\r\n.\r\n", "octets")
    @example(b"a\r\n.\r\n.\r\n\r\n.\r\n", [2, 3])
    def talk_to_it(octets: bytes, cuts: list[int] | str) -> None:
        talk(octets, cuts)

    talk_to_it.__name__ = f"talk_to_it_{state}"
    talk_to_it()


@pytest.mark.parametrize("loop", LOOPS)
def test_any_octets_around_starttls(loop: str, tmp_path: Path) -> None:
    """What comes in clear behind STARTTLS is neither carried out nor answered within TLS; within TLS the sentence above holds."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        opening = front_door(tls=server_context(tmp_path), errors=6, recipients=3, message_size=500, hops=2)
        door = runner.run(opening.__aenter__())
        try:
            over_tls(lambda clear, octets, cuts: runner.run(in_tls(door, clear, octets, cuts)))
        finally:
            runner.run(opening.__aexit__(None, None, None))


def over_tls(talk: Callable[[bytes, bytes, list[int] | str], None]) -> None:
    """Let hypothesis talk."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(OCTETS, OCTETS, CUTS)
    @example(b"MAIL FROM:<>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n", b"a\r\n.\r\n", "octets")
    @example(b"BDAT 9999\r\n", b"RSET\r\n", [3])
    def talk_to_it(clear: bytes, octets: bytes, cuts: list[int] | str) -> None:
        talk(clear, octets, cuts)

    talk_to_it()


async def in_tls(door: Door, clear: bytes, octets: bytes, cuts: list[int] | str) -> None:
    """STARTTLS with octets behind it in one write, then a session in TLS that comes to RCPT and says whatever."""
    before = len(door.intake.accepted)
    client = await door.greeted("EHLO clear.example")
    await client.send(b"STARTTLS\r\n" + clear)
    assert await client.reply() == str(reply.START_TLS)
    await client.start_tls(client_context())
    assert await client.said("VRFY first", "DATA") == [str(reply.VRFY), str(reply.NEED_MAIL)]
    said = ""
    state = STATES["after RCPT"]
    for command in state:
        said += (await client.say(command.decode())).replace("\n", "\r\n") + "\r\n"
    with contextlib.suppress(OSError):
        for piece in cut(octets, cuts):
            await client.send(piece)
            await asyncio.sleep(0)
        client.half_close()
    said += await client.rest()
    client.close()
    await door.empty()
    door.clients.clear()
    messages = (await door.intake.messages())[before:]
    assert said == "" or WELL_FORMED.fullmatch(f"220 mx.test ESMTP\r\n{said}"), said
    start, wire = 0, b"".join(command + b"\r\n" for command in state) + octets
    for envelope, content_ in messages:
        start = is_enclosed(wire, start, envelope, content_)
    told = re.findall(r"^250 2\.0\.0 OK ([0-9a-v]{40})\r$", said, re.MULTILINE)
    assert told == [envelope.message_id for envelope, _ in messages][: len(told)], "a reply may be lost with the connection, none is made up"
    assert not door.journal.of(Event.SESSION_FAILED)
    door.journal.events.clear()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
async def test_what_failed_once(path: Path) -> None:
    state, octets = read(path)
    async with front_door(errors=6, recipients=3, message_size=500, hops=2) as door:
        for cuts in ([2, 3, 5, 7], [1] if len(octets) < 5000 else [4096, 61_439]):
            await both(door, STATES[state], octets, cuts)


def read(path: Path) -> tuple[str, bytes]:
    """The state and the octets of a file of the corpus."""
    return path.name.partition("--")[0].replace("-", " "), path.read_bytes()


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) > 25
    assert {read(path)[0] for path in CORPUS} == set(STATES)


async def both(door: Door, state: list[bytes], octets: bytes, cuts: list[int] | str) -> None:
    """The same octets whole and in pieces."""
    wire = b"".join(command + b"\r\n" for command in state) + octets
    whole = await session(door, state, [octets] if octets else [])
    pieces = await session(door, state, cut(octets, cuts))
    for seen in (whole, pieces):
        check(wire, seen)
    assert whole.without_ids == pieces.without_ids
    assert not door.journal.of(Event.SESSION_FAILED)
    door.journal.events.clear()
