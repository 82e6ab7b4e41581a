"""Time, memory and connections: what slow, silent, greedy and vanishing clients cost, and what a stop of the service means to each."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import tracemalloc
import weakref

import pytest
from front_door import Door, front_door, until
from smtp_client import Client, Gone

from inbound.accept import connection, listener, policy, reply
from inbound.accept.listener import bind

MB = 1024 * 1024
TRANSACTION = ("HELO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")


# --- time ---


@pytest.mark.parametrize("commands", [TRANSACTION[:n] for n in range(4)], ids=len)
async def test_a_silent_session_times_out_in_every_state(commands: tuple[str, ...]) -> None:
    async with front_door(command_timeout=0.15) as door:
        client = await door.greeted(*commands)
        assert await client.rest() == f"{reply.TIMED_OUT}\r\n"
        await door.empty()
        assert door.journal.refusals == [str(reply.TIMED_OUT)]


async def test_every_command_has_its_own_time() -> None:
    async with front_door(command_timeout=0.5) as door:
        client = await door.greeted()
        for _ in range(5):
            await asyncio.sleep(0.13)  # 0.65 s in all
            assert await client.say("NOOP") == str(reply.OK)


async def test_a_command_that_drips_has_no_more_time_than_one() -> None:
    async with front_door(command_timeout=0.2) as door:
        client = await door.greeted()
        with pytest.raises(Gone):
            for _ in range(100):
                await client.drip(b"N")
                await asyncio.sleep(0.02)
        assert await client.rest() == f"{reply.TIMED_OUT}\r\n"


async def test_a_slow_commit_is_not_a_silent_client() -> None:
    """The time of a command ends when the client has done its part; a commit has as much again."""
    async with front_door(command_timeout=0.6, data_timeout=0.6) as door:
        gate = door.intake.spool.faults.hold_put = asyncio.Event()
        client = await door.in_data()
        await asyncio.sleep(0.35)
        await client.send(b".\r\n")
        await door.intake.accepting.wait()
        await asyncio.sleep(0.35)
        gate.set()
        assert (await client.reply()).startswith("250 2.0.0 OK ")


# --- memory ---


async def test_commands_without_end_whose_replies_nobody_reads_end_the_session() -> None:
    tracemalloc.start()
    async with front_door() as door:
        client = await door.greeted()
        with contextlib.suppress(ConnectionError):
            await client.send(b"NOOP\r\n" * 50_000)
        await door.empty()
        assert tracemalloc.get_traced_memory()[1] < 4 * MB
        assert door.journal.refusals == [str(reply.TOO_MANY_ERRORS)]
        # the system throws away what is unsent when it closes a connection with unread octets: the last replies may be missing
        assert (await client.rest()).count(str(reply.OK)) <= policy.Limits().junk
    tracemalloc.stop()


async def test_replies_that_fill_every_buffer_are_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.1)
    tracemalloc.start()
    async with front_door(send_buffer=4096, command_timeout=0.5, recipients=10**6) as door:
        client = await door.connect(receive_buffer=2048)
        await client.send(b"HELO a\r\nMAIL FROM:<>\r\n")
        flood = asyncio.create_task(client.send(b"RCPT TO:<support@example.com>\r\n" * 50_000))
        await until(lambda: door.listener._sessions)
        other = await door.greeted("NOOP")
        assert await other.say("QUIT") == str(reply.BYE)
        await door.empty()
        with contextlib.suppress(ConnectionError):
            await flood
        assert tracemalloc.get_traced_memory()[1] < 6 * MB
        assert door.journal.refusals == [str(reply.TIMED_OUT)]
    tracemalloc.stop()


async def test_an_endless_command_line_is_cut_off() -> None:
    tracemalloc.start()
    async with front_door() as door:
        client = await door.greeted()
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                await client.send(b"x" * MB)
        assert await client.rest() == f"{reply.ENDLESS}\r\n"
        assert tracemalloc.get_traced_memory()[1] < 6 * MB
        await door.empty()
    tracemalloc.stop()


async def test_a_long_command_line_that_ends_is_refused_once() -> None:
    async with front_door() as door:
        client = await door.greeted()
        await client.send(b"x" * (connection.SKIP_LIMIT // 2) + b"\r\nNOOP\r\n")
        assert [await client.reply(), await client.reply()] == [str(reply.LINE_TOO_LONG), str(reply.OK)]


@pytest.mark.parametrize("length", [65_534, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073])
async def test_a_line_as_long_as_the_reader_s_buffer_is_refused_once(length: int) -> None:
    async with front_door() as door:
        client = await door.greeted()
        await client.send(b"x" * length + b"\r\nNOOP\r\n")
        assert [await client.reply(), await client.reply()] == [str(reply.LINE_TOO_LONG), str(reply.OK)]


async def test_a_long_command_line_that_never_ends_is_no_command() -> None:
    async with front_door() as door:
        client = await door.greeted()
        await client.send(b"x" * 200_000)
        client.half_close()
        assert await client.rest() == ""
        assert not door.journal.events


@pytest.mark.parametrize("end", ["QUIT", "close", "reset", "refused", "timed out"])
async def test_nothing_keeps_a_session_that_is_over(end: str) -> None:
    """No timer, no list: its memory is free again at once."""
    async with front_door(command_timeout=0.1 if end == "timed out" else 300.0, errors=0) as door:
        client = await door.greeted("EHLO client.example")
        (session,) = map(weakref.ref, door.listener._sessions)
        if end in ("close", "reset"):
            getattr(client, end)()
        else:
            if end != "timed out":
                await client.send(b"QUIT\r\n" if end == "QUIT" else b"FOO\r\n")
            await client.rest()
        await door.empty()
        await asyncio.sleep(0)
        gc.collect()
        assert session() is None


# --- connections ---


async def test_200_idle_connections_disturb_nobody() -> None:
    async with front_door() as door:
        for _ in range(200):
            await door.connect()
        client = await door.greeted(*TRANSACTION)
        await client.send(b"a\r\n.\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert len(door.listener._sessions) == 201


async def in_commit(door: Door) -> Client:
    client = await door.in_data()
    await client.send(b"a\r\n.\r\n")
    await door.intake.accepting.wait()
    return client


@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
@pytest.mark.parametrize("state", ["connected", "greeted", "in a line", *TRANSACTION, "in content", "after data", "in commit", "after QUIT"])
async def test_a_client_that_goes_in_any_state_leaves_nothing_behind(state: str, how: str) -> None:
    async with front_door() as door:
        if state == "connected":
            client = await door.connect()
        elif state == "in commit":
            gate = door.intake.spool.faults.hold_put = asyncio.Event()
            client = await in_commit(door)
        else:
            said = TRANSACTION[: TRANSACTION.index(state) + 1] if state in TRANSACTION else ()
            client = await (door.in_data() if state in ("in content", "after data") else door.greeted(*said))
            octets = {"in a line": b"NOO", "in content": b"abc\r\n.", "after data": b".\r\n", "after QUIT": b"QUIT\r\n"}.get(state, b"")
            await client.send(octets)
            if state == "after data":
                await client.reply()
        getattr(client, how)()
        if state == "in commit":
            gate.set()
        await door.empty()
        assert len(door.intake.accepted) == int(state in ("in commit", "after data"))
        assert not door.journal.events


async def test_a_client_that_was_gone_before_it_was_met_leaves_nothing_behind() -> None:
    async with front_door() as door:
        sock = socket.create_connection(door.addresses[0])  # the loop stands still until the reset has come as well
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await door.greeted("NOOP")
        await until(lambda: len(door.listener._sessions) == 1)
        assert not door.journal.events


async def test_ipv6() -> None:
    async with front_door("::1") as door:
        client = await door.in_data()
        await client.send(b".\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert (door.intake.accepted[0].peer.address, door.intake.accepted[0].peer.port) == ("::1", client.sock.getsockname()[1])


async def test_several_addresses() -> None:
    async with front_door("127.0.0.1", "127.0.0.2", "::1") as door:
        assert len({address for address, _ in door.addresses}) == 3
        for number in range(3):
            client = await door.connect(number)
            assert await client.line() == "220 mx.test ESMTP"


def test_a_host_name_may_be_several_addresses_and_one_in_use_is_an_error() -> None:
    sockets = bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    sockets[0].listen()
    with pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", port)
    sockets[0].close()
    everywhere = bind("", port)
    assert {sock.family for sock in everywhere} == {socket.AF_INET, socket.AF_INET6}
    assert {sock.getsockname()[1] for sock in everywhere} == {port}, "IPv6 leaves IPv4 to the other socket"
    for sock in everywhere:
        sock.close()


def test_when_one_of_several_addresses_is_in_use_none_is_kept() -> None:
    (taken,) = bind("::", 0)
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        bind("", port)
    taken.close()
    (free,) = bind("0.0.0.0", port)
    free.listen()
    free.close()


async def test_a_listener_that_was_not_opened_serves_nobody() -> None:
    async with front_door() as door:
        unopened = listener.Listener(door.intake, door.journal.log, hostname="mx.test", limits=door.listener.limits)
        with pytest.raises(RuntimeError):
            unopened._session()
        await unopened.drain(0)


# --- the service stops ---


async def test_drain_says_421_to_the_idle_at_once_and_lets_the_others_finish() -> None:
    async with front_door() as door:
        idle, helloed = await door.greeted(), await door.greeted("HELO idle.example")
        busy, receiving = await door.greeted(*TRANSACTION[:3]), await door.in_data()
        await receiving.send(b"first half, ")
        draining = asyncio.create_task(door.listener.drain(10))
        for client in (idle, helloed):
            assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        with pytest.raises(ConnectionRefusedError):
            await door.connect()
        assert not draining.done()
        await receiving.send(b"second half\r\n.\r\n")
        assert (await receiving.rest()).splitlines()[1:] == [str(reply.SHUTTING_DOWN)]
        assert await busy.said("RSET") == [str(reply.OK)]
        assert await busy.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        await draining
        assert [octets for _, octets in await door.intake.messages()] == [b"first half, second half\r\n"]


async def test_drain_waits_for_a_commit() -> None:
    async with front_door() as door:
        gate = door.intake.spool.faults.hold_put = asyncio.Event()
        client = await in_commit(door)
        draining = asyncio.create_task(door.listener.drain(10))
        await asyncio.sleep(0)
        gate.set()
        await draining
        message_id = door.intake.accepted[0].message_id
        assert await client.rest() == f"250 2.0.0 OK {message_id}\r\n{reply.SHUTTING_DOWN}\r\n"


async def test_drain_cuts_off_what_is_stuck() -> None:
    async with front_door() as door:
        stuck = [await door.greeted(*TRANSACTION[:2]), await door.in_data()]
        await door.listener.drain(0.1)
        for client in stuck:
            assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        await door.empty()
        assert not door.intake.accepted
        assert len(door.intake.discarded) == 1


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("turns", range(8))
async def test_drain_meets_a_client_that_connects_in_the_same_instant(turns: int) -> None:
    """However far its connection has come: it is told 421 or just not served, and never greeted and forgotten.

    In one of these instants asyncio's own loop lets a connection hang until the process ends: its Server._attach fails when closed.
    """
    async with front_door() as door:
        sock = socket.create_connection(door.addresses[0])  # the loop has not seen it yet
        sock.setblocking(False)
        client = Client(sock)
        door.clients.append(client)
        for _ in range(turns):
            await asyncio.sleep(0)
        await door.listener.drain(10)
        assert (await client.rest()).removeprefix("220 mx.test ESMTP\r\n") in (f"{reply.SHUTTING_DOWN}\r\n", "")
        await door.empty()


async def test_drain_has_the_last_word() -> None:
    """What the client said in the same instant is not answered any more, and 421 is said once."""
    async with front_door() as door:
        client = await door.greeted("HELO client.example")
        (session,) = door.listener._sessions
        session._reader.feed_data(b"MAIL FROM:<alice@sender.example>\r\nNOOP\r\n")
        await door.listener.drain(10)
        assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        assert door.journal.refusals == []


async def test_mail_that_was_pipelined_behind_a_drain_is_refused() -> None:
    async with front_door() as door:
        client = await door.greeted(*TRANSACTION[:3])
        draining = asyncio.create_task(door.listener.drain(10))
        await asyncio.sleep(0)
        await client.send(b"RSET\r\nMAIL FROM:<bob@sender.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n.\r\n")
        assert await client.rest() == f"{reply.OK}\r\n{reply.SHUTTING_DOWN}\r\n"
        await draining
        assert not door.intake.accepted
