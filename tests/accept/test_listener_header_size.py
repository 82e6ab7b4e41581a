"""Header blocks of any size are taken whole; INBOUND_MAX_HEADER_SIZE refuses those over it, and nothing but those."""

from __future__ import annotations

import pytest
from front_door import front_door
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept import reply
from inbound.accept.framing import HeaderLength, begins_with_field

TRANSACTION = ("HELO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")
FIELD = b"X-Line: a value\r\n"  # 17 octets


async def said_of(content: bytes, header_size: int) -> str:
    """The reply to this content under this limit."""
    async with front_door(header_size=header_size) as door:
        client = await door.greeted(*TRANSACTION)
        await client.send(content + b".\r\n")
        answer = await client.reply()
        taken = [octets for _, octets in await door.intake.messages()]
        assert taken == ([content] if answer[0] == "2" else [])
        assert len(door.intake.discarded) == int(answer[0] != "2")
        return answer


async def test_without_a_limit_a_header_of_5_mb_is_taken_as_it_came() -> None:
    assert (await said_of(FIELD * 300_000 + b"\r\nbody\r\n", 0)).startswith("250 2.0.0 OK ")


@pytest.mark.parametrize("blank", [b"\r\n", b"\n"])
async def test_the_limit_is_exact(blank: bytes) -> None:
    body = blank + b"body\r\n" * 10_000
    assert (await said_of(FIELD * 1000 + body, 17_000)).startswith("250 2.0.0 OK ")
    assert await said_of(FIELD * 1000 + body, 16_999) == str(reply.HEADER_TOO_LARGE)


@pytest.mark.parametrize("content", [b"\r\n" + b"x" * 5000 + b"\r\n", b"no field\r\n" * 500, b"", b"\r\n", b"\n" + FIELD * 500])
async def test_what_has_no_header_has_no_large_one(content: bytes) -> None:
    assert (await said_of(content, 1000)).startswith("250 2.0.0 OK ")


async def test_a_header_without_an_end_counts_whole() -> None:
    assert await said_of(FIELD * 1000, 16_999) == str(reply.HEADER_TOO_LARGE)


async def test_in_bdat() -> None:
    async with front_door(header_size=100) as door:
        client = await door.greeted(*TRANSACTION[:3])
        await client.send(b"BDAT 85\r\n" + FIELD * 5 + b"BDAT 17 LAST\r\n" + FIELD)
        assert [await client.reply(), await client.reply()] == [str(reply.chunk_taken(85)), str(reply.HEADER_TOO_LARGE)]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a:b", b"a", b""]), max_size=15))
def test_the_length_is_the_same_over_any_pieces(pieces: list[bytes]) -> None:
    whole, cut = HeaderLength(), HeaderLength()
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    assert (cut.octets, cut.ended) == (whole.octets, whole.ended)
    octets = b"".join(pieces)
    assert whole.octets <= len(octets)
    if whole.ended:
        assert octets[whole.octets :].startswith((b"\n", b"\r\n"))
        assert whole.octets == 0 or octets[whole.octets - 1 : whole.octets] == b"\n"


@pytest.mark.parametrize(("head", "is_one"), [
    (b"Subject: x", True), (b"From x", True), (b"X-Y\t:", True), (b"no field", False), (b": x", False), (b" a: b", False), (b"", False),
    ("S\u00fcbject: x".encode(), False)])
def test_what_a_first_line_is(head: bytes, is_one: bool) -> None:
    assert begins_with_field(head) is is_one
