"""PROXY headers at the front door: whom load balancers speak for is the client, for everything, and nobody else may say so."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

import pytest
from certificates import client_context, server_context
from front_door import HOSTNAME, Door, front_door, until
from smtp_client import Client
from test_proxy import BAD, SIGNATURE, version_2

from inbound.accept import policy, reply, session
from inbound.accept.envelope import Peer
from inbound.accept.policy import Trust
from inbound.log import Event

BALANCER = Trust(proxies=policy.LOOPBACK)
ELSEWHERE = Trust(proxies=(ipaddress.ip_network("10.0.0.0/8"),))
GREETING = f"220 {HOSTNAME} ESMTP"
VERSION_1 = b"PROXY TCP4 192.0.2.1 198.51.100.25 56324 25\r\n"
MESSAGE = ("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")


async def proxied(door: Door, header: bytes) -> Client:
    """A client behind a load balancer, which has sent this header."""
    client = await door.connect()
    await client.send(header)
    return client


async def peers(door: Door) -> list[tuple[str, int]]:
    """The clients of the messages that were accepted."""
    return [(envelope.peer.address, envelope.peer.port) for envelope, _ in await door.intake.messages()]


@pytest.mark.parametrize(("header", "client"), [
    (VERSION_1, ("192.0.2.1", 56324)),
    (b"PROXY TCP6 2001:db8::1 2001:db8::25 56324 25\r\n", ("2001:db8::1", 56324)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.25 56324 25\r\n", ("192.0.2.7", 56324)),  # IPv4-mapped, spec §10 row 33
    (version_2("192.0.2.2", 1), ("192.0.2.2", 1)),
    (version_2("2001:db8::2", 2, tlvs=b"\x04\x00\x05abcde"), ("2001:db8::2", 2)),
], ids=lambda value: repr(value)[:30])
async def test_the_client_is_the_one_that_the_header_names(header: bytes, client: tuple[str, int]) -> None:
    async with front_door(trust=BALANCER) as door:
        speaking = await proxied(door, header)
        assert await speaking.line() == GREETING
        await speaking.said(*MESSAGE)
        await speaking.send(b"Subject: x\r\n\r\n.\r\n")
        assert (await speaking.reply()).startswith("250 2.0.0 OK ")
        assert await speaking.say("XYZZY") == str(reply.UNKNOWN_COMMAND)
        assert await peers(door) == [client]
        assert [event["client"] for event in door.journal.events] == [client[0]]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 192.0.2.1 192.0.2.1 1 1\r\n", version_2(command=0x20),
                                    SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x00\x00\x00"], ids=repr)
async def test_a_header_that_names_nobody_leaves_the_connection_as_it_is(header: bytes) -> None:
    """Health checks of the load balancer itself, for instance."""
    async with front_door(trust=BALANCER) as door:
        client = await proxied(door, header)
        assert await client.line() == GREETING
        await client.said(*MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        assert await peers(door) == [client.sock.getsockname()]


@pytest.mark.parametrize("header", [VERSION_1, version_2(tlvs=b"x" * 100)], ids=["version-1", "version-2"])
async def test_the_header_may_come_in_any_pieces_and_with_more_behind_it(header: bytes) -> None:
    async with front_door(trust=BALANCER) as door:
        dripped, early = await door.connect(), await door.connect()
        await dripped.drip(header + b"NOOP\r\n")
        await early.send(header + b"NOOP\r\nVRFY x\r\n")
        for client in (dripped, early):
            assert await client.line() == GREETING
            assert await client.line() == str(reply.OK)
        assert await early.line() == str(reply.VRFY)


# --- refusals ---


@pytest.mark.parametrize("octets", [*BAD, b"EHLO client.example\r\nMAIL FROM:<>\r\n"], ids=lambda octets: repr(octets[:40]))
async def test_without_a_good_header_a_load_balancers_connection_is_refused(octets: bytes) -> None:
    """Temporarily: it is the operators who have to agree on PROXY, and senders must not lose mail meanwhile."""
    async with front_door(trust=BALANCER) as door:
        client = await door.connect()
        writing = asyncio.create_task(client.send(octets))
        assert await client.rest() in (f"{reply.PROXY_EXPECTED}\r\n", "")  # a reset may overtake the reply when much was unread
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await door.empty()
        assert [(event["client"], event["reason"]) for event in door.journal.events] == [("127.0.0.1", "no proxy header")]
        assert door.journal.events[0]["error"].startswith(("no PROXY header", "a "))


async def test_a_header_is_waited_for_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PROXY_SECONDS", 0.2)
    async with front_door(trust=BALANCER) as door:
        silent, slow = await door.connect(), await proxied(door, VERSION_1[:-1])
        assert [await client.rest() for client in (silent, slow)] == [f"{reply.PROXY_EXPECTED}\r\n"] * 2
        assert {event["error"] for event in door.journal.events} == {"no PROXY header in 0.2 s"}


async def test_the_time_for_a_header_is_that_of_the_specification() -> None:
    assert session.PROXY_SECONDS == 3


async def test_a_connection_that_ends_before_its_header_is_nothing_to_tell() -> None:
    async with front_door(trust=BALANCER) as door:
        (await door.connect()).close()
        (await proxied(door, VERSION_1[:20])).half_close()
        (await proxied(door, VERSION_1[:20])).reset()
        await door.empty()
        assert not door.journal.events


async def test_a_client_that_is_gone_when_its_header_is_read_is_forgotten() -> None:
    async with front_door(trust=BALANCER) as door:
        for _ in range(20):
            (await proxied(door, VERSION_1)).reset()
        waiting = await door.connect()
        await until(lambda: door.listener._sessions)
        session = next(iter(door.listener._sessions))
        waiting.close()
        await door.empty()
        door.listener.become(session, Peer("192.0.2.1"))
        assert not door.listener._of_client


@pytest.mark.parametrize("trust", [None, ELSEWHERE], ids=["no-proxies", "others-are"])
async def test_a_header_in_version_1_from_a_stranger_ends_the_session(trust: Trust | None) -> None:
    async with front_door(trust=trust) as door:
        client = await proxied(door, VERSION_1 + b"EHLO x\r\nMAIL FROM:<>\r\n")
        assert await client.rest() == f"{GREETING}\r\n{reply.PROXY}\r\n{reply.TOO_MANY_ERRORS}\r\n"
        assert {event["client"] for event in door.journal.events} == {"127.0.0.1"}
        assert door.journal.events[0]["reason"] == "proxy header"


@pytest.mark.parametrize("trust", [None, ELSEWHERE], ids=["no-proxies", "others-are"])
async def test_a_header_in_version_2_from_a_stranger_ends_the_session(trust: Trust | None) -> None:
    """Its signature holds what no SMTP client says: two empty lines and a NUL."""
    async with front_door(trust=trust) as door:
        client = await proxied(door, version_2() + b"EHLO x\r\nMAIL FROM:<>\r\n")
        assert await client.rest() == f"{GREETING}\r\n{reply.BAD_COMMAND}\r\n{reply.BAD_COMMAND}\r\n{reply.PROXY}\r\n{reply.TOO_MANY_ERRORS}\r\n"
        assert {event["client"] for event in door.journal.events} == {"127.0.0.1"}
        assert door.journal.events[2]["reason"] == "proxy header"


@pytest.mark.parametrize("header", [VERSION_1, version_2("203.0.113.9")], ids=["version-1", "version-2"])
async def test_a_second_header_names_nobody(header: bytes) -> None:
    """From the load balancer's own client."""
    async with front_door(trust=BALANCER) as door:
        client = await proxied(door, VERSION_1 + header)
        assert (await client.rest()).endswith(f"{reply.PROXY}\r\n{reply.TOO_MANY_ERRORS}\r\n")
        assert {event["client"] for event in door.journal.events} == {"192.0.2.1"}


# --- what is decided by the client's address ---


async def test_ip_filters_judge_the_client_before_any_greeting() -> None:
    async with front_door(trust=BALANCER) as door:
        door.intake.rules.blocked.add("192.0.2.1")
        blocked, other = await proxied(door, VERSION_1), await proxied(door, version_2("192.0.2.2"))
        assert await blocked.rest() == "554 5.7.1 192.0.2.1 blocked\r\n"
        assert await other.line() == GREETING


async def test_a_filter_on_the_load_balancer_is_not_one_on_its_clients() -> None:
    async with front_door(trust=BALANCER) as door:
        door.intake.rules.blocked.add("127.0.0.1")
        assert await (await proxied(door, VERSION_1)).line() == GREETING
        assert await (await proxied(door, b"PROXY UNKNOWN\r\n")).rest() == "554 5.7.1 127.0.0.1 blocked\r\n"


async def test_connections_are_counted_by_client() -> None:
    async with front_door(trust=BALANCER, connections_per_client=2) as door:
        first, second, third = [await proxied(door, version_2("192.0.2.1", port)) for port in (1, 2, 3)]
        assert [await client.line() for client in (first, second, third)] == [GREETING, GREETING, str(reply.TOO_MANY_FROM_CLIENT)]
        assert await (await proxied(door, version_2("192.0.2.2"))).line() == GREETING
        first.close()
        await until(lambda: door.listener._of_client["192.0.2.1"] == 1)
        assert await (await proxied(door, version_2("192.0.2.1", 4))).line() == GREETING


async def test_connections_without_a_header_yet_count_among_all() -> None:
    async with front_door(trust=BALANCER, connections=2) as door:
        waiting = [await door.connect() for _ in range(2)]
        await until(lambda: len(door.listener._sessions) == 2)
        assert await (await proxied(door, VERSION_1)).rest() == f"{reply.TOO_MANY_CONNECTIONS}\r\n"
        for client in waiting:
            client.close()


async def test_a_drain_ends_connections_without_a_header() -> None:
    async with front_door(trust=BALANCER) as door:
        client = await door.connect()
        await until(lambda: door.listener._sessions)
        await door.listener.drain(10)
        assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"


# --- with TLS ---


@pytest.mark.parametrize("header", [VERSION_1, version_2("192.0.2.1", 56324)], ids=["version-1", "version-2"])
async def test_starttls_behind_a_header(header: bytes, tmp_path: Path) -> None:
    async with front_door(trust=BALANCER, tls=server_context(tmp_path)) as door:
        client = await proxied(door, header)
        assert await client.line() == GREETING
        await client.said("EHLO client.example", "STARTTLS")
        await client.start_tls(client_context())
        await client.said(*MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        assert await peers(door) == [("192.0.2.1", 56324)]


@pytest.mark.parametrize("together", [False, True], ids=["apart", "in-one-write"])
@pytest.mark.parametrize("header", [VERSION_1, version_2("192.0.2.1", 56324)], ids=["version-1", "version-2"])
async def test_implicit_tls_behind_a_header(header: bytes, together: bool, tmp_path: Path) -> None:
    """The header comes in clear, before the handshake."""
    async with front_door(trust=BALANCER, tls=server_context(tmp_path), secure=True) as door:
        client = await proxied(door, b"" if together else header)
        await client.start_tls(client_context(), before=header if together else b"")
        assert await client.line() == GREETING
        await client.said(*MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        assert await peers(door) == [("192.0.2.1", 56324)]
        assert door.intake.accepted[0].tls is not None


async def test_implicit_tls_without_a_header_is_refused(tmp_path: Path) -> None:
    async with front_door(trust=BALANCER, tls=server_context(tmp_path), secure=True) as door:
        client = await proxied(door, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert await client.rest() == f"{reply.PROXY_EXPECTED}\r\n"
        await door.empty()
        assert door.journal.of(Event.SESSION_REFUSED)[0]["reason"] == "no proxy header"
