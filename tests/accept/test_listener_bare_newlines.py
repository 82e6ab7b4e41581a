"""CR and LF without each other: kept as content, or refused when the content has come (INBOUND_BARE_NEWLINE); never an end of anything."""

from __future__ import annotations

import re

import pytest
from front_door import front_door
from hypothesis import given
from hypothesis import strategies as st
from smtp_client import Client

from inbound.accept import reply
from inbound.accept.framing import LineEnds
from inbound.log import Event

TRANSACTION = ("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>")
BARE = [b"a\nb\r\n", b"a\rb\r\n", b"\n\r\n", b"\r\r\n", b"a\n\r\n", b"a\r\n\nb\r\n", b"a\n.\nb\r\n", b"a\r.\rb\r\n", b"\x00\r\x00\r\n"]
PURE = [b"", b"\r\n", b"a\r\n\r\nb\r\n", b"a\x0b\x0c\x85\r\n"]
PIECES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b""]) | st.binary(max_size=4), max_size=12)


async def say_content(client: Client, octets: bytes, by: str) -> str:
    """The reply to a message that holds no line with a dot first."""
    if by == "DATA":
        await client.say("DATA")
        await client.send(octets + b".\r\n")
        return await client.reply()
    half = len(octets) // 2
    await client.send(b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (half, octets[:half], len(octets) - half, octets[half:]))
    assert await client.reply() == str(reply.chunk_taken(half))
    return await client.reply()


@pytest.mark.parametrize("by", ["DATA", "BDAT"])
@pytest.mark.parametrize("octets", BARE, ids=repr)
async def test_bare_ones_are_kept_as_they_came(octets: bytes, by: str) -> None:
    async with front_door() as door:
        client = await door.greeted(*TRANSACTION)
        assert (await say_content(client, octets, by)).startswith("250 2.0.0 OK ")
        assert [content for _, content in await door.intake.messages()] == [octets]


@pytest.mark.parametrize("by", ["DATA", "BDAT"])
@pytest.mark.parametrize("octets", BARE, ids=repr)
async def test_bare_ones_are_refused_when_the_content_has_come(octets: bytes, by: str) -> None:
    """In BDAT as well: RFC 3030 section 3 has lines end with CRLF unless the sender says BINARYMIME, and Postfix refuses them there, too."""
    async with front_door(bare_newlines=False) as door:
        client = await door.greeted(*TRANSACTION)
        assert await say_content(client, octets, by) == str(reply.BARE_NEWLINE)
        assert not door.intake.accepted
        assert len(door.intake.discarded) == 1
        assert [event["reason"] for event in door.journal.of(Event.SESSION_REFUSED)] == ["bare newline"]
        assert (await client.said(*TRANSACTION[1:])) == [str(reply.MAIL_OK), str(reply.RCPT_OK)]
        assert (await say_content(client, b"a\r\n", by)).startswith("250 2.0.0 OK ")


@pytest.mark.parametrize("by", ["DATA", "BDAT"])
@pytest.mark.parametrize("octets", PURE, ids=repr)
async def test_messages_without_any_are_not_refused(octets: bytes, by: str) -> None:
    async with front_door(bare_newlines=False) as door:
        client = await door.greeted(*TRANSACTION)
        assert (await say_content(client, octets, by)).startswith("250 2.0.0 OK ")


async def test_a_chunk_that_ends_with_half_a_line_end_is_judged_with_the_next() -> None:
    async with front_door(bare_newlines=False) as door:
        client = await door.greeted(*TRANSACTION)
        await client.send(b"BDAT 2\r\na\rBDAT 1 LAST\r\n\n")
        assert [await client.reply(), (await client.reply())[:9]] == [str(reply.chunk_taken(2)), "250 2.0.0"]
        await client.said(*TRANSACTION[1:])
        await client.send(b"BDAT 2 LAST\r\na\r")
        assert await client.reply() == str(reply.BARE_NEWLINE)


@given(PIECES)
def test_line_ends_are_told_over_any_pieces(pieces: list[bytes]) -> None:
    line_ends = LineEnds()
    for piece in pieces:
        line_ends.feed(piece)
    assert line_ends.has_bare == bool(re.search(rb"(?<!\r)\n|\r(?!\n)", b"".join(pieces)))
