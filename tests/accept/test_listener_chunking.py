"""CHUNKING (RFC 3030): whatever becomes of a chunk, its octets are taken, and what follows them is the next command."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from certificates import client_context, server_context
from front_door import Door, front_door, until
from smtp_client import Client

from inbound.accept import framing, reception, reply
from inbound.accept.policy import LOOPBACK, Trust
from inbound.accept.reply import Refusal
from inbound.accept.spool import SpoolError, SpoolFull
from inbound.accept.spool.memory import Fault
from inbound.log import Event

MB = 1024 * 1024
TRANSACTION = ("MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>")
TRAP = b"\r\n.\r\nRSET\r\nMAIL FROM:<x@y.example>\r\nQUIT\r\n"  # what a chunk may hold


async def begun(door: Door, *commands: str) -> Client:
    """A client that may send content now."""
    return await door.greeted("EHLO client.example", *TRANSACTION, *commands)


def bdat(octets: bytes, *, last: bool = False) -> bytes:
    """The command and the chunk."""
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


async def chunk(client: Client, octets: bytes, *, last: bool = False) -> str:
    """The reply to a chunk."""
    await client.send(bdat(octets, last=last))
    return await client.reply()


@pytest.mark.parametrize(("argument", "expected"), [
    (b"0", (0, False)), (b"86 LAST", (86, True)), (b"00012  last ", (12, True)), (b" 7", (7, False)), (b"9" * 20, (10**20 - 1, False)),
])
def test_the_argument(argument: bytes, expected: tuple[int, bool]) -> None:
    assert framing.chunk(argument) == expected


@pytest.mark.parametrize("argument", [b"", b" ", b"LAST", b"-1", b"+1", b"1.0", b"0x10", b"1_0", b"\xd9\xa1", "1²".encode(), b"1 LAST LAST",
                                      b"1LAST", b"1 FIRST", b"9" * 21, b"1\x0bLAST", b"1 2"])
async def test_what_is_no_count_ends_the_session(argument: bytes) -> None:
    with pytest.raises(Refusal):
        framing.chunk(argument)
    async with front_door() as door:
        client = await begun(door)
        await client.send(b"BDAT " + argument + b"\r\nNOOP\r\n")
        assert await client.rest() == f"{reply.BAD_CHUNK}\r\n{reply.TOO_MANY_ERRORS}\r\n"


async def test_bdat_alone_ends_the_session() -> None:
    async with front_door() as door:
        client = await begun(door)
        await client.send(b"BDAT\r\nNOOP\r\n")
        assert await client.rest() == f"{reply.BAD_CHUNK}\r\n{reply.TOO_MANY_ERRORS}\r\n"


async def test_binarymime_is_not_offered_and_not_taken() -> None:
    async with front_door() as door:
        client = await door.greeted()
        assert "BINARYMIME" not in await client.say("EHLO client.example")
        assert await client.say(f"{TRANSACTION[0]} BODY=BINARYMIME") == str(reply.BAD_PARAMETER)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 131_072, 131_073, 3 * MB])
async def test_a_chunk_of_any_size_is_stored_as_it_came(size: int) -> None:
    octets = (TRAP * (size // len(TRAP) + 1))[:size]
    async with front_door() as door:
        client = await begun(door)
        await client.send(bdat(octets) + bdat(b"", last=True) + b"NOOP\r\n")
        assert await client.reply() == f"250 2.0.0 {size} octets received"
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert await client.say("QUIT") == str(reply.OK), "the NOOP behind the last chunk"
        assert [content for _, content in await door.intake.messages()] == [octets]


async def test_many_small_chunks() -> None:
    async with front_door() as door:
        client = await begun(door)
        await client.send(bdat(b"x") * 500 + bdat(b"\r\n", last=True))
        assert [await client.reply() for _ in range(500)] == [str(reply.chunk_taken(1))] * 500
        assert (await client.reply()).startswith("250 2.0.0 OK ")


async def test_empty_chunks_are_junk() -> None:
    async with front_door() as door:
        client = await begun(door)
        await client.send(bdat(b"") * 500)
        assert (await client.rest()).endswith(f"{reply.TOO_MANY_ERRORS}\r\n")
        await door.empty()
        assert door.intake.discarded


async def test_a_pipeline_of_tiny_chunks_lets_others_have_their_turn() -> None:
    """400 KB of `BDAT 1`, all that the buffers hold, kept every other session waiting for two seconds."""
    async with front_door() as door:
        client, other = await begun(door), await door.greeted()
        (session,) = (each for each in door.listener._sessions if each.transaction is not None)
        await client.send(bdat(b"x") * 5000)
        assert await other.say("NOOP") == str(reply.OK)
        assert session.transaction is not None
        assert session.transaction.reception is None or session.transaction.reception.size < 2500
        assert [await client.reply() for _ in range(5000)] == [str(reply.chunk_taken(1))] * 5000


# --- failures ---

FAULTS = [(SpoolFull("no space"), reply.SPOOL_FULL), (SpoolError("no disk"), reply.SPOOL_FAILED), (RuntimeError("secret"), reply.INTERNAL),
          (MemoryError("secret"), reply.NO_MEMORY), (ConnectionResetError("secret"), reply.INTERNAL)]


@pytest.mark.parametrize(("error", "expected"), FAULTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("operation", ["draft", "add", "flush", "head", "accept"])
async def test_trouble_of_ours_is_temporary_and_said_when_the_chunk_has_come(
        operation: str, error: Exception, expected: reply.Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every chunk that was pipelined behind it, too: a client may look at the last reply only."""
    async with front_door(failures=int(expected in (reply.INTERNAL, reply.NO_MEMORY))) as door:
        octets = TRAP + b"a" * 600_000

        def fail(*_: Any) -> Any:
            raise error

        async def fail_later(*_: Any) -> Any:
            raise error

        client = await begun(door)
        if operation in ("draft", "accept"):
            door.intake.faults[operation] = error
        else:
            monkeypatch.setattr(type(door.intake.spool.draft("0" * 40)), operation, fail_later if operation == "flush" else fail)
        await client.send(bdat(octets) + bdat(octets) + bdat(TRAP, last=True))
        answers = [await client.reply() for _ in range(3)]
        first = 2 if operation in ("head", "accept") else 0
        assert answers == [str(reply.chunk_taken(len(octets)))] * first + [str(expected)] * (3 - first)
        assert door.journal.refusals == [str(expected)], "one refusal, however many chunks"
        door.intake.faults.clear()
        monkeypatch.undo()
        assert await client.said(*TRANSACTION) == [str(reply.MAIL_OK), str(reply.RCPT_OK)]
        assert (await chunk(client, TRAP, last=True)).startswith("250 2.0.0 OK ")
        assert [content for _, content in await door.intake.messages()] == [TRAP]


async def test_chunks_that_were_pipelined_behind_one_that_is_too_large_are_no_more_errors() -> None:
    async with front_door(message_size=MB, errors=1) as door:
        client = await begun(door)
        await client.send(bdat(b"x" * MB) + bdat(b"y") * 300 + bdat(b"", last=True) + b"NOOP\r\n")
        assert await client.reply() == str(reply.chunk_taken(MB))
        assert [await client.reply() for _ in range(301)] == [str(reply.TOO_LARGE)] * 301
        assert await client.reply() == str(reply.OK)
        assert door.journal.refusals == [str(reply.TOO_LARGE)]
        assert not door.intake.accepted


async def test_a_transaction_whose_chunk_was_refused_accepts_no_rest() -> None:
    """Else half of a message would be taken for the whole."""
    async with front_door() as door:
        client = await begun(door)
        door.intake.spool.faults.flush = Fault(SpoolFull("no space"), times=1)
        assert await chunk(client, b"a" * MB) == str(reply.SPOOL_FULL)
        assert await client.say("RCPT TO:<sales@example.com>") == str(reply.CONTENT_BEGUN)
        assert await client.say("DATA") == str(reply.CONTENT_BEGUN)
        assert await chunk(client, b"b") == str(reply.SPOOL_FULL)
        assert await chunk(client, b"c", last=True) == str(reply.SPOOL_FULL)
        assert not door.intake.accepted


async def test_chunks_without_end_end_the_session() -> None:
    async with front_door(message_size=MB) as door:
        client = await begun(door)
        for _ in range(3):
            await client.send(bdat(b"x" * MB))
            await client.reply()
        await client.send(b"BDAT 1\r\n")
        assert await client.rest() == f"{reply.TOO_LARGE}\r\n{reply.ENDLESS}\r\n"
        await door.empty()
        assert door.intake.discarded


async def test_a_loop_is_refused_after_the_last_chunk() -> None:
    async with front_door(hops=2) as door:
        client = await begun(door)
        await chunk(client, b"Received: a\r\nRecei")
        assert await chunk(client, b"ved: b\r\nReceived: c\r\n\r\n", last=True) == str(reply.LOOP)


# --- time ---


async def test_silence_within_a_chunk_ends_the_session() -> None:
    async with front_door(data_timeout=0.1) as door:
        client = await begun(door)
        await client.send(b"BDAT 10\r\nhalf")
        assert await client.rest() == f"{reply.TIMED_OUT}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1


async def test_silence_between_chunks_ends_the_session() -> None:
    async with front_door(command_timeout=0.15) as door:
        client = await begun(door)
        await chunk(client, b"half")
        assert await client.rest() == f"{reply.TIMED_OUT}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1


@pytest.mark.parametrize("drip", [b"BDAT 1000\r\nx", b"BDAT 1\r\nx"], ids=["of octets", "of chunks"])
async def test_a_drip_is_too_slow_after_a_while(drip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RATE_GRACE", 0.05)
    async with front_door(min_data_rate=10_000) as door:
        client = await begun(door)
        await client.send(drip)
        await asyncio.sleep(0.06)  # the grace
        await client.send(drip)
        assert (await client.rest()).removeprefix(f"{reply.chunk_taken(1)}\r\n") == f"{reply.TOO_SLOW}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1


async def test_a_message_that_has_come_whole_is_never_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RATE_GRACE", 0.0)
    async with front_door(min_data_rate=10**9) as door:
        client = await begun(door)
        assert (await chunk(client, b"a\r\n", last=True)).startswith("250 2.0.0 OK ")


# --- the session around it ---


@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
@pytest.mark.parametrize("octets", [b"BDAT 10 LAST\r\nhalf", b"BDAT 10 LA", b"BDAT 4\r\nhalf", b""], ids=repr)
async def test_a_connection_lost_between_or_within_chunks_leaves_nothing(end: str, octets: bytes) -> None:
    async with front_door() as door:
        client = await begun(door)
        await chunk(client, b"first")
        await client.send(octets)
        getattr(client, end)()
        await door.empty()
        assert not door.intake.accepted
        assert len(door.intake.discarded) == 1
        assert not door.journal.events


@pytest.mark.parametrize("command", ["RSET", "EHLO again.example", "HELO again.example"])
async def test_what_resets_a_transaction_discards_its_chunks(command: str) -> None:
    async with front_door() as door:
        client = await begun(door)
        await chunk(client, b"first")
        assert (await client.say(command))[0] == "2"
        assert len(door.intake.discarded) == 1
        assert await chunk(client, TRAP, last=True) == str(reply.NEED_MAIL)
        assert await client.said(*TRANSACTION) == [str(reply.MAIL_OK), str(reply.RCPT_OK)]
        assert (await chunk(client, b"second", last=True)).startswith("250 2.0.0 OK ")
        assert [content for _, content in await door.intake.messages()] == [b"second"]


async def test_starttls_between_chunks_discards_them(tmp_path: Path) -> None:
    """RFC 3207 section 4.2: nothing that was said in clear is known within TLS."""
    async with front_door(tls=server_context(tmp_path)) as door:
        client = await begun(door)
        await chunk(client, b"in clear")
        await client.say("STARTTLS")
        await client.start_tls(client_context())
        assert await chunk(client, TRAP, last=True) == str(reply.NEED_MAIL)
        assert len(door.intake.discarded) == 1
        assert (await client.said("EHLO x", *TRANSACTION))[1:] == [str(reply.MAIL_OK), str(reply.RCPT_OK)]
        await client.send(bdat(TRAP) + bdat(TRAP, last=True))
        assert await client.reply() == str(reply.chunk_taken(len(TRAP)))
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        ((envelope, content),) = await door.intake.messages()
        assert (content, envelope.tls is not None) == (TRAP * 2, True)


async def test_tls_that_is_cut_within_a_chunk_is_no_message(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path)) as door:
        client = await door.greeted("EHLO x", "STARTTLS")
        await client.start_tls(client_context())
        await client.said("EHLO x", *TRANSACTION)
        await client.send(b"BDAT 9 LAST\r\nTRUNCATE")
        client.close()  # FIN, and no close_notify
        await door.empty()
        assert not door.intake.accepted
        assert len(door.intake.discarded) == 1


async def test_xclient_between_chunks_is_refused() -> None:
    async with front_door(trust=Trust(front_ends=LOOPBACK)) as door:
        client = await begun(door)
        await chunk(client, b"a")
        assert await client.say("XCLIENT ADDR=192.0.2.1") == str(reply.NESTED_MAIL)
        assert (await chunk(client, b"b", last=True)).startswith("250 2.0.0 OK ")
        assert [content for _, content in await door.intake.messages()] == [b"ab"]


async def test_a_drain_lets_chunks_that_were_begun_finish() -> None:
    async with front_door() as door:
        client = await begun(door)
        await chunk(client, b"a")
        draining = asyncio.create_task(door.listener.drain(10))
        await asyncio.sleep(0)
        assert await chunk(client, b"b") == str(reply.chunk_taken(1))
        await client.send(bdat(b"c", last=True))
        assert (await client.rest()).splitlines()[1:] == [str(reply.SHUTTING_DOWN)]
        await draining
        assert [content for _, content in await door.intake.messages()] == [b"abc"]


async def test_a_drain_cuts_off_chunks_that_are_stuck() -> None:
    async with front_door() as door:
        client = await begun(door)
        await chunk(client, b"a")
        await door.listener.drain(0.1)
        assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1


async def test_a_connection_lost_during_the_commit_does_not_tear_it() -> None:
    async with front_door() as door:
        gate = door.intake.spool.faults.hold_put = asyncio.Event()
        client = await begun(door)
        await client.send(bdat(b"whole", last=True))
        await door.intake.accepting.wait()
        client.reset()
        await until(lambda: not door.listener._sessions)
        gate.set()
        await door.empty()
        assert [content for _, content in await door.intake.messages()] == [b"whole"]


async def test_framing_that_fails_ends_the_session_with_our_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows then where the content ends: were the session to go on, the rest of it would be taken for commands."""
    async with front_door(failures=1) as door:
        client = await begun(door, "DATA")
        monkeypatch.setattr(framing.Framer, "feed", lambda *_: 1 / 0)
        await client.send(b"a\r\nNOOP\r\n.\r\nNOOP\r\n")
        assert await client.rest() == f"{reply.INTERNAL}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1
        assert len(door.journal.of(Event.SESSION_FAILED)) == 1
