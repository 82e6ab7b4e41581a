"""Commands that come alone are answered as they come, without the session's task: only commands are, and the task goes on where they end."""

from __future__ import annotations

import pytest
from front_door import front_door, until

from inbound.accept import reply


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
        await until(lambda: session.listening)
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
    async with front_door() as door:
        client = await (door.in_data() if in_data else door.greeted("EHLO client.example"))
        (session,) = door.listener._sessions

        def fail(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(session._reader, "feed_data", fail)
        await client.send(b"NOOP\r\n")
        assert await client.rest() == ""
        await door.empty()
        assert [type(fault["exception"]) for fault in door.faults_of_the_loop] == [MemoryError]
        door.faults_of_the_loop.clear()
        assert len(door.intake.discarded) == in_data
