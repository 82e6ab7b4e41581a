"""Commands that come alone are answered as they come, without the session's task: only commands are, and the task goes on where they end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from certificates import client_context, server_context
from front_door import Door, front_door, session_tasks, until
from smtp_client import Client

from inbound.accept import reply
from inbound.accept.connection import Closed
from inbound.accept.policy import LOOPBACK, Trust
from inbound.accept.session import Session


@pytest.mark.parametrize("line", ["QUIT", "RSET", "MAIL FROM:<mallory@evil.example>", "EHLO x", "DATA"])
async def test_a_line_of_content_that_reads_like_a_command_is_content(line: str) -> None:
    async with front_door() as door:
        client = await door.in_data()
        (session,) = door.listener._sessions
        sent = f"{line}\r\n".encode()
        for count in range(1, 4):
            await client.send(sent)
            await until(lambda octets=count * len(sent): session.transaction.reception._received == octets)  # noqa: B008  # that is what it is for
        assert (await client.say(".")).startswith("250 2.0.0 OK ")
        ((envelope, octets),) = await door.intake.messages()
        assert (envelope.reverse_path, octets) == ("alice@sender.example", f"{line}\r\n".encode() * 3)
        assert await client.say("QUIT") == str(reply.BYE)


@pytest.mark.parametrize("command", ["RSET", "EHLO x", "HELO x"])
async def test_a_command_behind_chunks_that_ends_their_message_forgets_them(command: str) -> None:
    async with front_door() as door:
        client = await door.greeted("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<support@example.com>")
        await client.send(b"BDAT 5\r\nabcde")
        assert await client.reply() == "250 2.0.0 5 octets received"
        assert (await client.say(command))[:3] == "250"
        await until(lambda: len(door.intake.discarded) == 1)
        assert await client.say("RCPT TO:<support@example.com>") == str(reply.NEED_MAIL)
        assert await door.intake.messages() == []


async def test_no_command_is_answered_before_one_that_came_earlier() -> None:
    """The second comes while the task has the first in hand, or has not been told of it."""
    async with front_door() as door:
        client = await door.greeted("EHLO client.example")
        await client.send(b"NOOP\r\nMAIL FROM:<a@b.example>\r\nRC")
        await client.send(b"PT TO:<support@example.com>\r\n")
        await client.send(b"RCPT TO:<nobody@example.com>\r\n")
        assert [await client.reply() for _ in range(4)] == [str(reply.OK), str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.NO_SUCH_RECIPIENT)]


async def test_of_two_commands_in_one_turn_of_the_loop_the_first_is_answered_first() -> None:
    async with front_door() as door:
        client = await door.greeted("EHLO client.example")
        (session,) = door.listener._sessions
        await until(lambda: not session_tasks())
        session.data_received(b"NOOP\r\n")
        session.data_received(b"MAIL FROM:<a@b.example>\r\n")
        assert [await client.reply(), await client.reply()] == [str(reply.OK), str(reply.MAIL_OK)]


async def test_too_many_errors_end_a_session_whose_commands_come_alone() -> None:
    async with front_door(errors=2) as door:
        client = await door.greeted("EHLO client.example")
        assert await client.said(*["MAIL TO:<x>"] * 2) == [str(reply.BAD_SENDER)] * 2
        await client.send(b"MAIL TO:<x>\r\n")
        assert (await client.rest()).splitlines() == [str(reply.BAD_SENDER), str(reply.TOO_MANY_ERRORS)]
        await door.empty()


@pytest.mark.parametrize("before", [b"", b"NOOP\r\n"], ids=["alone", "behind another"])
@pytest.mark.parametrize(("size", "expected"), [(2048, reply.START_DATA), (2049, reply.LINE_TOO_LONG)])
async def test_a_line_may_be_as_long_alone_as_behind_another(before: bytes, size: int, expected: reply.Reply) -> None:
    async with front_door() as door:
        client = await door.greeted("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<support@example.com>")
        await client.send(before + b"DATA".ljust(size - 2) + b"\r\n")
        if before:
            assert await client.reply() == str(reply.OK)
        assert await client.reply() == str(expected)


async def test_commands_follow_a_354_that_could_not_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front_door(failures=1) as door:
        client = await door.greeted("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<support@example.com>")
        (session,) = door.listener._sessions
        send = session.send

        def fail(answer: reply.Reply) -> None:
            if answer is reply.START_DATA:
                raise MemoryError
            send(answer)

        monkeypatch.setattr(session, "send", fail)
        assert await client.said("DATA", "RSET", "MAIL FROM:<c@d.example>") == [str(reply.NO_MEMORY), str(reply.OK), str(reply.MAIL_OK)]
        assert len(door.intake.discarded) == 1


@pytest.mark.parametrize("error", [MemoryError(), ValueError("secret")], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("line", [b"MAIL TO:<x>\r\n", b"NOOP x\r\nMAIL TO:<x>\r\n"], ids=["alone", "behind another"])
async def test_trouble_with_a_refusal_ends_the_session(line: bytes, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async with front_door(failures=1) as door:
        client = await door.greeted("EHLO client.example")

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(door.listener, "refused", fail)
        await client.send(line)
        trouble = reply.NO_MEMORY if isinstance(error, MemoryError) else reply.INTERNAL
        assert (await client.rest()).splitlines()[-2:] == [str(reply.BAD_SENDER), str(trouble)]
        await door.empty()


@pytest.mark.parametrize("in_data", [False, True])
async def test_what_fails_as_octets_come_ends_the_session(in_data: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on to read from a connection that was lost, without end."""
    async with front_door(failures=1) as door:
        client = await (door.in_data() if in_data else door.greeted("EHLO client.example"))
        (session,) = door.listener._sessions

        def fail(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(session._reader, "feed_data", fail)
        await client.send(b"NOOP\r\n")
        assert await client.rest() == f"{reply.NO_MEMORY}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == in_data


async def test_a_session_that_waits_has_no_task() -> None:
    """A task for each would cost a thousand idle clients memory, and every message that comes alone the time to make it and end it."""
    async with front_door() as door:
        client = await door.in_data()
        assert session_tasks() == []
        await client.send(b"Subject: x\r\n\r\nbo")
        await until(lambda: len(session_tasks()) == 1)
        await client.send(b"dy\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        await until(lambda: not session_tasks())
        assert await client.said("NOOP", "VRFY a") == [str(reply.OK), str(reply.VRFY)]


async def test_a_session_behind_a_proxy_that_waits_has_no_task_either() -> None:
    async with front_door(trust=Trust(proxies=LOOPBACK)) as door:
        client = await door.connect()
        await client.send(b"PROXY TCP4 192.0.2.9 127.0.0.1 40000 25\r\n")
        assert (await client.reply()).startswith("220 ")
        await until(lambda: not session_tasks())
        assert await client.said("NOOP", "QUIT") == [str(reply.OK), str(reply.BYE)]


async def test_half_a_line_gets_a_client_no_more_time() -> None:
    """What had come made a task, which gave it the time for a command anew."""
    async with front_door() as door:
        client = await door.greeted("EHLO client.example")
        (session,) = door.listener._sessions
        session.deadline = until_then = session.deadline - 5.0  # as if it had been idle for so long
        await client.send(b"NO")
        await until(session_tasks)
        await asyncio.sleep(0)
        assert session.deadline == until_then
        assert await client.say("OP") == str(reply.OK)
        await until(lambda: session.deadline > until_then)


async def after_content(door: Door) -> Client:
    client = await door.in_data()
    await client.send(b"Subject: x\r\n\r\n.\r\n")
    assert (await client.reply()).startswith("250 2.0.0 OK ")
    return client


async def in_content(door: Door) -> Client:
    client = await door.in_data()
    await client.send(b"Subject: x\r\n\r\nbo")
    await until(session_tasks)
    return client


async def between_chunks(door: Door) -> Client:
    client = await door.greeted("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<support@example.com>")
    await client.send(b"BDAT 2\r\nab")
    assert await client.reply() == str(reply.chunk_taken(2))
    return client


async def in_tls(door: Door) -> Client:
    client = await door.greeted("EHLO client.example")
    await client.say("STARTTLS")
    await client.start_tls(client_context())
    assert (await client.say("EHLO client.example")).startswith("250-")
    return client


async def in_handshake(door: Door) -> Client:
    client = await door.greeted("EHLO client.example")
    await client.say("STARTTLS")
    await client.send(b"\x16\x03\x01")
    return client


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the garbage collector, cycles stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
@pytest.mark.parametrize("reach", [after_content, in_content, between_chunks, in_tls, in_handshake])
async def test_a_session_that_ended_is_gone_without_the_garbage_collector(
    reach: Callable[[Door], Awaitable[Client]], end: str, tmp_path: Path
) -> None:
    """Ten thousand connections left cycles for which it stopped the service for 13 ms at a time."""
    async with front_door(tls=server_context(tmp_path)) as door:
        client = await reach(door)
        sessions = weakref.WeakSet(door.listener._sessions)
        assert len(sessions) == 1
        getattr(client, end)()
        await until(lambda: not sessions)


@pytest.mark.usefixtures("no_collector")
async def test_a_session_that_said_quit_is_gone_without_the_garbage_collector() -> None:
    async with front_door() as door:
        client = await after_content(door)
        sessions = weakref.WeakSet(door.listener._sessions)
        assert await client.said("NOOP", "QUIT") == [str(reply.OK), str(reply.BYE)]
        await until(lambda: not sessions)


async def test_more_commands_than_the_buffer_takes_are_answered_and_what_follows_them() -> None:
    """Reading was paused for them, and a session whose task had ended was never read from again."""
    async with front_door() as door:
        names = [f"user.number.{number:06}.with.a.usual.name@department.example.com" for number in range(2000)]
        door.intake.rules.known = frozenset(names)
        client = await door.greeted("EHLO client.example", "MAIL FROM:<a@b.example>")
        await client.send(b"".join(f"RCPT TO:<{name}>\r\n".encode() for name in names))
        answers = [await client.reply() for _ in names]
        assert answers == [str(reply.RCPT_OK)] * 1000 + [str(reply.TOO_MANY_RECIPIENTS)] * 1000
        assert await client.say("QUIT") == str(reply.BYE)


async def test_a_cancelled_session_takes_no_content_for_commands() -> None:
    async with front_door() as door:
        client = await in_content(door)
        (session,) = door.listener._sessions
        await until(lambda: session.reception is not None and session.reception.size)
        (task,) = session_tasks()
        task.cancel()
        assert await client.rest() == ""
        await asyncio.gather(task, return_exceptions=True)
        await door.empty()
        assert len(door.intake.discarded) == 1


@pytest.mark.parametrize("kind", ["secure", "proxied"])
async def test_nothing_is_answered_before_the_greeting(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without memory for its task, a session spoke in clear on a port for TLS, and with whoever stood behind a proxy."""
    trust = Trust(proxies=LOOPBACK if kind == "proxied" else ())
    monkeypatch.setattr(Session, "resume", no_memory)
    async with front_door(tls=server_context(tmp_path), secure=kind == "secure", trust=trust, failures=1) as door:
        client = await door.connect()
        await client.send(b"EHLO client.example\r\n")
        assert (await client.rest())[:4] in ("", "452 ")
        await door.empty()


def no_memory(*_: object) -> None:
    raise MemoryError


async def test_what_takes_the_connection_from_a_reply_is_no_trouble_of_ours() -> None:
    """An error that ends a connection came to a session that waited for room to write as its own."""
    async with front_door() as door:
        client = await door.greeted("EHLO client.example")
        (session,) = door.listener._sessions
        session.pause_writing()
        waiting = asyncio.create_task(session.drained())
        await asyncio.sleep(0)
        transport = session.transport
        session.connection_lost(MemoryError())
        with pytest.raises(Closed):
            await waiting
        transport.abort()
        assert await client.rest() == ""


async def test_trouble_with_the_greeting_ends_the_session_with_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front_door(failures=1) as door:
        monkeypatch.setattr(door.listener, "judge", lambda _session: 1 / 0)
        client = await door.connect()
        assert await client.rest() == f"{reply.INTERNAL}\r\n"
        await door.empty()


async def test_no_memory_for_a_task_ends_the_session_with_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front_door(failures=1) as door:
        client = await door.greeted("EHLO client.example")
        (session,) = door.listener._sessions
        monkeypatch.setattr(session, "resume", no_memory)
        await client.send(b"NOOP\r\n")
        assert await client.rest() == f"{reply.NO_MEMORY}\r\n"
        await door.empty()
