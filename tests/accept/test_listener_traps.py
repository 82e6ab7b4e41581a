"""What stock aiosmtpd 1.4.6 does to mail servers that trust it (F1 to F9, and traps a to h), and what this listener does instead."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import json
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import aiosmtpd
import aiosmtpd.smtp
import pytest
from front_door import Door, front_door, until
from smtp_client import Client

from inbound import log
from inbound.accept import connection, listener, policy, reception, reply, session
from inbound.accept.spool import SpoolError, SpoolFull
from inbound.accept.spool.memory import Fault
from inbound.log import Event

MB = 1024 * 1024
TRANSACTION = ("MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")
SECRET = "/var/spool/inbound: secret of ours"


class ForgetfulDraft:
    """A draft that only counts, so that memory is the listener's alone."""

    def __init__(self) -> None:
        self.size = 0
        self.flushes = 0
        self.gate: asyncio.Event | None = None

    def add(self, piece: bytes) -> bool:
        self.size += len(piece)
        return self.gate is not None

    async def flush(self) -> None:
        self.flushes += 1
        if self.gate is not None:
            await self.gate.wait()

    def head(self, limit: int) -> bytes:
        return b""

    async def discard(self) -> None:
        pass


@pytest.fixture
def traced() -> Iterator[None]:
    """Memory is counted from here on."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def pour(client: Client, octets: int) -> None:
    """Send that many octets without a line end, or until the server has had enough."""
    piece = b"x" * 65536
    try:
        for _ in range(octets // len(piece)):
            await client.send(piece)
    except ConnectionError:
        pass


async def deliver(client: Client, octets: bytes = b"a\r\n.\r\n") -> str:
    """The reply to a message on a session that has said HELO."""
    for answer in await client.said(*TRANSACTION):
        assert answer[0] in "23", answer
    await client.send(octets)
    return await client.reply()


# --- F1: a line without an end in DATA was kept whole in memory ---


async def test_f1_endless_line_in_data_is_cut_off(traced: None) -> None:
    async with front_door(message_size=MB) as door:
        client = await door.in_data()
        tracemalloc.reset_peak()
        await pour(client, 60 * MB)
        assert await client.rest() == f"{reply.ENDLESS}\r\n"
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
        await door.empty()
        assert door.intake.discarded


async def test_f1_what_is_too_large_is_thrown_away_before_its_end() -> None:
    async with front_door(message_size=MB) as door:
        client = await door.in_data()
        await client.send(b"x" * (MB + 1))
        await until(lambda: door.intake.discarded)
        await client.send(b"\r\n.\r\n")
        assert await client.reply() == str(reply.TOO_LARGE)


async def test_f1_a_line_of_60_mb_in_data_is_not_held_in_memory(traced: None) -> None:
    async with front_door(message_size=30 * MB) as door:
        door.intake.draft = lambda _: ForgetfulDraft()  # type: ignore[method-assign]
        client = await door.in_data()
        tracemalloc.reset_peak()
        await pour(client, 60 * MB)
        await client.send(b"\r\n.\r\n")
        assert await client.reply() == str(reply.TOO_LARGE)
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
        assert await client.say("NOOP") == str(reply.OK)


# --- F2: our own trouble became a permanent refusal, which told internals ---

INTERNAL = (reply.INTERNAL, reply.NO_MEMORY)
FAULTS = [
    (SpoolError(SECRET), reply.SPOOL_FAILED),
    (SpoolFull(SECRET), reply.SPOOL_FULL),
    (RuntimeError(SECRET), reply.INTERNAL),
    (OSError(errno.ENOSPC, SECRET), reply.INTERNAL),
    (ConnectionRefusedError(SECRET), reply.INTERNAL),
    (TimeoutError(SECRET), reply.INTERNAL),
    (MemoryError(SECRET), reply.NO_MEMORY),
    (asyncio.IncompleteReadError(b"", 1), reply.INTERNAL),
]


async def assert_trouble_was_ours(door: Door, client: Client, answer: str, expected: reply.Reply) -> None:
    """A temporary refusal without internals, one error event, one refusal event, and the session goes on once the trouble is over."""
    assert answer == str(expected)
    assert expected.is_temporary
    assert [event["event"] for event in door.journal.events if event["level"] == "error"] == \
        [Event.SESSION_FAILED if expected in INTERNAL else Event.SPOOL_FAILED]
    assert door.journal.refusals == [answer]
    door.intake.faults.clear()
    assert (await client.say("RSET")) == str(reply.OK)
    assert (await deliver(client)).startswith("250 2.0.0 OK ")
    assert len(door.intake.accepted) == 1


@pytest.mark.parametrize(("error", "expected"), FAULTS, ids=lambda value: type(value).__name__)
async def test_f2_trouble_at_the_commit_is_temporary(error: Exception, expected: reply.Reply) -> None:
    async with front_door(failures=int(expected in INTERNAL)) as door:
        client = await door.greeted("HELO client.example")
        door.intake.faults["accept"] = error
        answer = await deliver(client)
        assert len(door.intake.discarded) == 1
        await assert_trouble_was_ours(door, client, answer, expected)


@pytest.mark.parametrize(("error", "expected"), FAULTS, ids=lambda value: type(value).__name__)
async def test_f2_trouble_with_a_draft_comes_before_354(error: Exception, expected: reply.Reply) -> None:
    async with front_door(failures=int(expected in INTERNAL)) as door:
        client = await door.greeted("HELO client.example", *TRANSACTION[:2])
        door.intake.faults["draft"] = error
        await assert_trouble_was_ours(door, client, await client.say("DATA"), expected)


@pytest.mark.parametrize(("error", "expected"), FAULTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("operation", ["add", "flush", "head"])
async def test_f2_trouble_while_streaming_is_said_after_the_final_dot(operation: str, error: Exception, expected: reply.Reply,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it said before, the rest of the message would be taken for commands."""
    async with front_door(failures=int(expected in INTERNAL)) as door:
        draft = door.intake.draft("0" * 40)

        async def fail_later(*_: Any) -> Any:
            raise error

        def fail(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(type(draft), operation, fail_later if operation == "flush" else fail)
        client = await door.greeted("HELO client.example", *TRANSACTION)
        await client.send(b"a" * 600_000 + b"\r\nRSET\r\nQUIT\r\n.\r\n")
        answer = await client.reply()
        monkeypatch.undo()
        await assert_trouble_was_ours(door, client, answer, expected)


@pytest.mark.parametrize(("operation", "command"), [("ready", "MAIL FROM:<bob@sender.example>"), ("pin", "MAIL FROM:<bob@sender.example>")])
async def test_f2_trouble_at_mail_is_temporary(operation: str, command: str) -> None:
    async with front_door(failures=1) as door:
        client = await door.greeted("HELO client.example")
        door.intake.faults[operation] = RuntimeError(SECRET)
        await assert_trouble_was_ours(door, client, await client.say(command), reply.INTERNAL)


async def test_f2_trouble_at_rcpt_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front_door(failures=1) as door:
        client = await door.greeted("HELO client.example", TRANSACTION[0])
        monkeypatch.setattr(policy, "recipient", lambda *_, **__: 1 / 0)
        answer = await client.say(TRANSACTION[1])
        monkeypatch.undo()
        await assert_trouble_was_ours(door, client, answer, reply.INTERNAL)


async def test_f2_trouble_at_connect_is_temporary() -> None:
    async with front_door(failures=1) as door:
        door.intake.faults["pin"] = RuntimeError(SECRET)
        client = await door.connect()
        assert await client.rest() == f"{reply.INTERNAL}\r\n"


async def test_f2_a_flush_that_fails_once_refuses_that_message_only() -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example")
        door.intake.spool.faults.flush = Fault(SpoolFull("no space left"), times=1)
        assert await deliver(client, b"a" * MB + b"\r\n.\r\n") == str(reply.SPOOL_FULL)
        assert (await deliver(client, b"a" * MB + b"\r\n.\r\n")).startswith("250 2.0.0 OK ")


# --- F3: one timer covered the whole of DATA ---


async def test_f3_silence_in_data_ends_the_session() -> None:
    async with front_door(data_timeout=0.1) as door:
        client = await door.in_data()
        await client.send(b"Subject: half\r\n")
        assert await client.rest() == f"{reply.TIMED_OUT}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1


async def test_f3_a_sender_who_keeps_writing_is_served_beyond_the_command_timeout() -> None:
    async with front_door(command_timeout=0.5, data_timeout=0.5) as door:
        client = await door.in_data()
        for _ in range(5):
            await client.send(b"x")
            await asyncio.sleep(0.13)  # the time is what is tested: 0.65 s of DATA in all
        await client.send(b"\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")


async def test_f3_a_drip_in_data_is_too_slow_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RATE_GRACE", 0.05)
    async with front_door(min_data_rate=10_000) as door:
        client = await door.in_data()
        await client.send(b"x")
        await asyncio.sleep(0.06)  # the grace
        await client.send(b"x")
        assert await client.rest() == f"{reply.TOO_SLOW}\r\n"
        await door.empty()
        assert len(door.intake.discarded) == 1


async def test_f3_a_fast_sender_is_not_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RATE_GRACE", 0.0)
    async with front_door(min_data_rate=1) as door:
        client = await door.in_data()
        await client.drip(b"a\r\nb\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")


async def test_f3_a_message_that_has_come_whole_is_never_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RATE_GRACE", 0.0)
    async with front_door(min_data_rate=10**9) as door:
        client = await door.in_data()
        await client.send(b"a\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")


def test_f3_nobody_is_too_slow_within_three_minutes() -> None:
    """RFC 5321 section 4.5.3.2.5: a client that says nothing at all has three minutes, one that says little must not have fewer."""
    assert reception.RATE_GRACE >= 180


# --- F4: a half-close after the final dot, or a lost connection, cancelled the commit ---


async def test_f4_half_close_after_the_final_dot_still_gets_its_reply() -> None:
    async with front_door() as door:
        client = await door.in_data()
        await client.send(b"a\r\n.\r\n")
        client.half_close()
        assert await client.rest() == f"250 2.0.0 OK {door.intake.accepted[0].message_id}\r\n"


async def test_f4_half_close_during_the_commit_still_gets_its_reply() -> None:
    async with front_door() as door:
        gate = door.intake.spool.faults.hold_put = asyncio.Event()
        client = await door.in_data()
        await client.send(b"a\r\n.\r\n")
        client.half_close()
        await door.intake.accepting.wait()
        gate.set()
        assert await client.rest() == f"250 2.0.0 OK {door.intake.accepted[0].message_id}\r\n"


@pytest.mark.parametrize("error", [None, SpoolFull("no space left"), SpoolError("no disk")], ids=repr)
async def test_f4_a_connection_lost_during_the_commit_does_not_tear_it(error: SpoolError | None) -> None:
    async with front_door() as door:
        gate = door.intake.spool.faults.hold_put = asyncio.Event()
        if error is not None:
            door.intake.spool.faults.put = Fault(error)
        client = await door.in_data()
        await client.send(b"a\r\n.\r\n")
        await door.intake.accepting.wait()
        client.reset()
        await until(lambda: not door.listener._sessions)
        gate.set()
        await door.empty()
        assert [octets for _, octets in await door.intake.messages()] == ([b"a\r\n"] if error is None else [])
        assert [operation for operation, _ in door.intake.spool.journal if operation == "put"] == ["put"] * (error is None)


@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
async def test_f4_a_connection_lost_in_data_leaves_nothing(end: str) -> None:
    async with front_door() as door:
        client = await door.in_data()
        await client.send(b"a" * 100_000 + b"\r\n.\r")
        getattr(client, end)()
        await door.empty()
        assert not door.intake.accepted
        assert len(door.intake.discarded) == 1


async def test_f4_a_network_that_gives_up_is_no_failure_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may be lost with any OSError: ETIMEDOUT, EHOSTUNREACH."""
    async with front_door() as door:
        for connect in (door.greeted, door.in_data):
            client = await connect()
            (session,) = door.listener._sessions
            transport = session.transport
            session.connection_lost(OSError(errno.EHOSTUNREACH, "No route to host"))
            transport.abort()
            assert await client.rest() == ""
            await door.empty()
        assert not door.journal.events
        assert len(door.intake.discarded) == 1


# --- F5: NUL, CR, ESC and invalid UTF-8 went through to logs and replies ---

HOSTILE = [b"NO\x1b[2JOP", b"EHLO a\x1b]0;x\x07", b"MAIL FROM:<a\x00@b.example>", b"MAIL FROM:<a\rb@b.example>",
           b"MAIL FROM:<\xff\xfe@b.example>", b"RCPT TO:<a\x1b@b.example>",
           b"\xe2\x80\xaeQUIT", b"\x85\x0b\x0c", b"EHLO \xc0\xae", b"XXXX" * 400]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: repr(line)[:40])
async def test_f5_hostile_octets_are_refused_and_escaped_in_the_log(line: bytes) -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example")
        if line.startswith(b"RCPT"):
            await client.say(TRANSACTION[0])
        await client.send(line + b"\r\n")
        answer = await client.reply()
    assert answer[0] == "5"
    assert answer.isprintable()
    (event,) = door.journal.events
    for render in (log.render_json, log.render_text):
        text = render(None, "info", {**event, "time": "2026-01-01T00:00:00.000Z"})
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 500


# --- F7: addresses that are none were taken, and the null reverse-path was `<>` ---


@pytest.mark.parametrize("command", ["RCPT TO:<>", "MAIL FROM:<a@sender.example", "MAIL FROM:<a@[999.1.1]>", "RCPT TO:<a@[999.1.1]>"])
async def test_f7_what_is_no_address_is_refused(command: str) -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example", *([TRANSACTION[0]] if command.startswith("RCPT") else []))
        assert (await client.say(command)).startswith(("501 5.1.3", "501 5.1.7"))


async def test_f7_the_null_reverse_path_is_empty() -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example", "MAIL FROM:<>", *TRANSACTION[1:])
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].reverse_path == ""


# --- F8: nothing was limited but unknown verbs ---


async def test_f8_errors_of_known_verbs_end_the_session() -> None:
    async with front_door(errors=3) as door:
        client = await door.greeted()
        assert await client.said(*["MAIL FROM:<a@b.example>"] * 3) == [str(reply.NEED_HELO)] * 3
        await client.send(b"RCPT\r\n")
        assert await client.rest() == f"{reply.NEED_MAIL}\r\n{reply.TOO_MANY_ERRORS}\r\n"


async def test_f8_recipients_that_are_too_many_end_the_session_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest sender with twice as many recipients as we take must come through; one with no end of them must not."""
    monkeypatch.setattr(session, "OVERSHOOT", 5)
    async with front_door(recipients=2) as door:
        client = await door.greeted("HELO client.example", TRANSACTION[0])
        assert await client.said(*[TRANSACTION[1]] * 7) == [str(reply.RCPT_OK)] * 2 + [str(reply.TOO_MANY_RECIPIENTS)] * 5
        await client.send(b"RCPT TO:<support@example.com>\r\n" * 3)
        assert await client.rest() == f"{reply.TOO_MANY_ERRORS}\r\n"


async def test_f8_an_honest_sender_of_2000_recipients_comes_through() -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example", TRANSACTION[0])
        await client.send(b"RCPT TO:<support@example.com>\r\n" * 2000 + b"DATA\r\n")
        assert [await client.reply() for _ in range(2001)] == \
            [str(reply.RCPT_OK)] * 1000 + [str(reply.TOO_MANY_RECIPIENTS)] * 1000 + [str(reply.START_DATA)]
        await client.send(b".\r\n")
        assert (await client.reply()).startswith("250 ")


async def test_f8_temporary_refusals_without_end_end_the_session() -> None:
    """A client that asks again and again writes our log full all the same."""
    async with front_door() as door:
        door.intake.refusal = reply.SPOOL_FULL
        client = await door.greeted("HELO client.example")
        await client.send(b"MAIL FROM:<>\r\n" * 500)
        assert (await client.rest()).splitlines()[-2:] == [str(reply.SPOOL_FULL), str(reply.TOO_MANY_ERRORS)]
        assert len(door.journal.events) <= policy.Limits().junk + 2


async def test_f8_internal_errors_without_end_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front_door(failures=policy.Limits().junk) as door:
        client = await door.greeted("HELO client.example", TRANSACTION[0])
        monkeypatch.setattr(policy, "recipient", lambda *_, **__: 1 / 0)
        await client.send(b"RCPT TO:<support@example.com>\r\n" * 500)
        assert (await client.rest()).splitlines()[-2:] == [str(reply.INTERNAL), str(reply.TOO_MANY_ERRORS)]


async def test_f8_connections_in_all_are_limited() -> None:
    async with front_door(connections=2) as door:
        first, _ = await door.greeted(), await door.greeted()
        refused = await door.connect()
        assert await refused.rest() == f"{reply.TOO_MANY_CONNECTIONS}\r\n"
        assert await first.say("QUIT") == str(reply.BYE)
        await until(lambda: len(door.listener._sessions) == 1)
        await door.greeted("NOOP")


async def test_f8_connections_of_a_client_are_limited_and_loopback_is_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "127.0.0.1", "127.0.0.1", "127.0.0.1",
                 "2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3", "2001:db8:0:1::1"]
    coming = iter(addresses)
    monkeypatch.setattr(policy, "client_address", lambda _: next(coming))
    greetings = []
    async with front_door(connections_per_client=2) as door:
        for _ in addresses:
            greetings.append(await (await door.connect()).line())
    served, refused = "220 mx.test ESMTP", str(reply.TOO_MANY_FROM_CLIENT)
    assert greetings == [served, served, refused, served, served, served, served, served, served, refused, served]


async def test_f8_a_burst_of_connections_is_served_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "client_address", lambda _: "192.0.2.1")
    async with front_door(connections_per_client=5) as door:
        clients = await asyncio.gather(*(door.connect() for _ in range(8)))
        greetings = [await client.line() for client in clients]
    assert greetings.count("220 mx.test ESMTP") == 5
    assert greetings.count(str(reply.TOO_MANY_FROM_CLIENT)) == 3


async def test_f8_a_message_that_has_been_everywhere_is_a_loop() -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example")
        assert (await deliver(client, b"Received: x\r\n" * 50 + b"\r\n.\r\n")).startswith("250 2.0.0 OK ")
        assert await deliver(client, b"Received: x\r\n" * 51 + b"\r\n.\r\n") == str(reply.LOOP)


# --- F9: SIZE was given to int() ---


@pytest.mark.parametrize("size", ["\u0661", "\u00b2", "-1", "9" * 400, "1e3", " 1", ""], ids=repr)
async def test_f9_a_size_that_is_no_number_is_refused(size: str) -> None:
    async with front_door() as door:
        client = await door.greeted("EHLO client.example")
        await client.send(f"MAIL FROM:<alice@sender.example> SIZE={size}\r\n".encode())
        assert await client.reply() == str(reply.BAD_PARAMETER)


# --- the traps of aiosmtpd ---


async def test_trap_a_an_exception_is_451_and_tells_nothing() -> None:
    async with front_door(failures=1) as door:
        client = await door.greeted("HELO client.example")
        door.intake.faults["accept"] = KeyError(SECRET)
        assert await deliver(client) == "451 4.3.0 Temporary trouble here, try again later"
        (event,) = door.journal.of(Event.SESSION_FAILED)
        assert (event["command"], event["client"], event["exc_info"]) == ("DATA", "127.0.0.1", door.intake.faults["accept"])
        assert SECRET in event["error"]


async def test_trap_b_the_envelope_holds_what_the_session_said() -> None:
    async with front_door() as door:
        client = await door.greeted("EHLO client.example", "MAIL FROM:<Alice@Sender.example> size=7 BODY=8BITMIME",
                                    "RCPT TO:<Support@example.com>", "RCPT TO:<sales@Example.COM>", "DATA")
        await client.send(b"a\r\n.\r\n")
        message_id = (await client.reply()).removeprefix("250 2.0.0 OK ")
        (envelope,) = door.intake.accepted
        assert envelope.message_id == message_id
        assert (envelope.reverse_path, envelope.forward_paths) == ("Alice@Sender.example", ("Support@example.com", "sales@Example.COM"))
        assert (envelope.helo, envelope.esmtp, envelope.tls, envelope.body) == ("client.example", True, None, "8BITMIME")
        assert envelope.parameters == ("SIZE=7", "BODY=8BITMIME")
        assert (envelope.peer.address, envelope.peer.port) == client.sock.getsockname()
        assert envelope.revision == "r1"
        assert envelope.connected_at <= envelope.received_at
        assert await client.said("HELO other.example", "MAIL FROM:<>", "RCPT TO:<support@example.com>", "DATA")
        await client.send(b".\r\n")
        await client.reply()
        envelope = door.intake.accepted[1]
        assert (envelope.helo, envelope.esmtp, envelope.reverse_path, envelope.body) == ("other.example", False, "", "7BIT")
        assert envelope.parameters == ()


async def test_trap_b_a_refusal_is_logged_with_what_was_said_before_it() -> None:
    async with front_door(message_size=10) as door:
        client = await door.greeted("HELO client.example", *TRANSACTION[:2])
        await client.said("RCPT TO:<nobody@example.com>", "FOO", "DATA")
        await client.send(b"more than ten octets\r\n.\r\n")
        assert await client.reply() == str(reply.TOO_LARGE)
    known = {"client": "127.0.0.1", "helo": "client.example", "event": Event.SESSION_REFUSED, "level": "info"}
    door.journal.events[-1].pop("size")  # what was kept of it when it was refused
    assert door.journal.events == [
        {**known, "command": "RCPT", "reason": "no rule", "reply": str(reply.NO_SUCH_RECIPIENT), "sender": "alice@sender.example",
         "recipient": "nobody@example.com"},
        {**known, "command": "FOO", "reason": "unknown command", "reply": str(reply.UNKNOWN_COMMAND)},
        {**known, "command": "DATA", "reason": "size", "reply": str(reply.TOO_LARGE), "sender": "alice@sender.example",
         "recipients": ["support@example.com"]},
    ]


async def test_trap_b_the_revision_is_that_of_mail() -> None:
    async with front_door() as door:
        client = await door.greeted("HELO client.example", TRANSACTION[0])
        door.intake.rules = type(door.intake.rules)(revision="r2", known=frozenset())
        assert await client.said(*TRANSACTION[1:]) == [str(reply.RCPT_OK), str(reply.START_DATA)]
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].revision == "r1"
        assert await client.said(*TRANSACTION[:2]) == [str(reply.MAIL_OK), str(reply.NO_SUCH_RECIPIENT)]


async def test_trap_c_the_null_reverse_path_is_no_string_of_brackets() -> None:
    await test_f7_the_null_reverse_path_is_empty()


async def test_trap_d_a_large_message_is_flushed_while_it_comes() -> None:
    async with front_door() as door:
        client = await door.in_data()
        await client.send(b"x" * MB + b"\r\n.\r\n")
        await client.reply()
        operations = [operation for operation, _ in door.intake.spool.journal]
        assert operations.index("put") >= 3
        assert operations[:3] == ["flush"] * 3


async def test_trap_d_a_slow_disk_slows_the_sender_and_nobody_else(traced: None) -> None:
    async with front_door(failures=1) as door:  # the spool in memory does not know the draft
        draft = ForgetfulDraft()
        draft.gate = asyncio.Event()
        door.intake.draft = lambda _: draft  # type: ignore[method-assign]
        client = await door.in_data()
        tracemalloc.reset_peak()
        pouring = asyncio.create_task(pour(client, 30 * MB))
        await until(lambda: draft.flushes)
        other = await door.greeted("EHLO other.example", *TRANSACTION[:2])
        assert await other.say("NOOP") == str(reply.OK)
        _, pending = await asyncio.wait([pouring], timeout=0.2)
        assert pending, "the kernel's buffers are full long before 30 MB"
        assert tracemalloc.get_traced_memory()[1] < 4 * MB
        draft.gate.set()
        await pouring
        await client.send(b"\r\n.\r\n")
        assert await client.reply() == str(reply.INTERNAL)
        assert draft.size == 30 * MB + 2


async def test_trap_e_a_line_longer_than_the_reader_s_limit_is_content() -> None:
    async with front_door() as door:
        client = await door.in_data()
        await client.send(b"x" * 300_000 + b"\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert (await door.intake.messages())[0][1] == b"x" * 300_000 + b"\r\n"


async def test_trap_f_bare_newlines_are_content_and_end_nothing() -> None:
    async with front_door() as door:
        client = await door.in_data()
        await client.send(b"a\nb\rc\n.\nd\n.\r\ne\r\n.\nf\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert (await door.intake.messages())[0][1] == b"a\nb\rc\n.\nd\n.\r\ne\r\n\nf\r\n"


async def test_trap_g_the_listener_runs_in_our_loop_and_no_thread_of_its_own() -> None:
    threads = set(threading.enumerate())
    async with front_door() as door:
        await door.greeted("NOOP")
        assert set(threading.enumerate()) == threads


async def test_trap_h_the_greeting_names_no_software() -> None:
    async with front_door() as door:
        client = await door.connect()
        assert await client.line() == "220 mx.test ESMTP"
        for answer in await client.said("EHLO client.example", "HELP", "VRFY a", "FOO", "QUIT"):
            assert not {"python", "aiosmtpd", "inbound"} & set(answer.lower().split())


# --- the private attributes of aiosmtpd and asyncio ---


def test_aiosmtpd_is_the_release_the_listener_was_written_for() -> None:
    assert aiosmtpd.__version__ == "1.4.6"


def test_the_private_attributes_still_exist() -> None:
    async def instance() -> aiosmtpd.smtp.SMTP:
        smtp = aiosmtpd.smtp.SMTP(object(), hostname="mx.test", loop=asyncio.get_running_loop())
        smtp._cb_client_connected(None, None)  # type: ignore[arg-type]
        return smtp

    smtp = asyncio.run(instance())
    assert [name for name in connection.PRIVATE if not hasattr(smtp, name)] == []
    loop = asyncio.new_event_loop()
    assert isinstance(asyncio.StreamReader(loop=loop)._buffer, bytearray)  # type: ignore[attr-defined]
    assert list(inspect.signature(asyncio.StreamReader._maybe_resume_transport).parameters) == ["self"]  # type: ignore[attr-defined]
    loop.close()


def test_private_lists_exactly_what_the_listener_uses() -> None:
    """What it overrides, and what it touches without having defined it."""
    trees = {module: ast.parse(inspect.getsource(module)) for module in (connection, session, reception, listener)}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for module, name in ((listener, "Listener"), (reception, "Reception")):
        (owner,) = (node for node in trees[module].body if isinstance(node, ast.ClassDef) and node.name == name)
        own |= {node.attr for node in ast.walk(owner) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    touched = {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_private(node.attr)}
    subclasses = {**vars(connection.Connection), **vars(session.Session)}
    overridden = {name for name in subclasses if is_private(name) and hasattr(aiosmtpd.smtp.SMTP, name)}
    assert set(connection.PRIVATE) == (touched - own) | overridden
    assert len(connection.PRIVATE) == len(set(connection.PRIVATE))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in {"_buffer", "_maybe_resume_transport"}  # asyncio's


def test_what_is_logged_is_json() -> None:
    event = {"event": Event.SESSION_REFUSED, "level": "info", "time": "t", "command": "a\x1b\r\nb"}
    assert json.loads(log.render_json(None, "info", event))["command"] == "a\x1b\r\nb"
