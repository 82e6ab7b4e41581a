"""The client's reverse name: looked for while the session goes on, waited for at the end and not for long, and never anybody's trouble."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from front_door import HOSTNAME, OFFERS, Door, front_door, until
from smtp_client import Client

from inbound.accept import listener, policy, reply, xclient
from inbound.accept.policy import Trust
from inbound.log import Event

GREETING = f"220 {HOSTNAME} ESMTP"
BALANCER = Trust(proxies=policy.LOOPBACK, front_ends=(ipaddress.ip_network("192.0.2.0/24"),))
MESSAGE = ("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")


class Names:
    """A search for names that tests hold back; `asked` is whom it was asked about."""

    def __init__(self, *, held: bool = False) -> None:
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def __call__(self, address: str) -> str:
        self.asked.append(address)
        try:
            await self.gate.wait()
            return f"host-{address.rpartition('.')[2]}.example"
        finally:
            self.ended.append(address)


async def client_of(door: Door, address: str = "192.0.2.1") -> Client:
    """A client at this address, as a load balancer says; it has read the greeting."""
    client = await door.connect()
    await client.send(f"PROXY TCP4 {address} 192.0.2.25 4000 25\r\n".encode())
    assert await client.line() == GREETING
    return client


async def send(client: Client) -> None:
    """A message, until it is accepted."""
    await client.said(*MESSAGE)
    await client.send(b".\r\n")
    assert (await client.reply()).startswith("250 2.0.0 OK ")


async def test_the_envelope_tells_the_name() -> None:
    names = Names()
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        client = await client_of(door)
        await send(client)
        await send(client)
        assert [envelope.peer.reverse_name for envelope in door.intake.accepted] == ["host-1.example"] * 2
        assert names.asked == ["192.0.2.1"], "once a session"


async def test_the_search_holds_up_nothing_before_the_end_of_data() -> None:
    names = Names(held=True)
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        client = await client_of(door)
        assert names.asked == ["192.0.2.1"]
        assert await client.said(*MESSAGE) == [
            OFFERS.replace("250 LIMITS ", "250-LIMITS MAILMAX=1000 ") + f"\n250 {xclient.OFFER}",
            str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.START_DATA)]
        await client.send(b".\r\n")
        names.gate.set()
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert door.intake.accepted[0].peer.reverse_name == "host-1.example"


async def test_the_end_of_data_waits_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listener.NAME_SECONDS <= 2
    monkeypatch.setattr(listener, "NAME_SECONDS", 0.1)
    names = Names(held=True)
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        client = await client_of(door)
        await send(client)
        assert door.intake.accepted[0].peer.reverse_name == ""
        assert names.ended == ["192.0.2.1"]


async def test_the_time_runs_from_the_beginning_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "NAME_SECONDS", 0.1)
    names = Names(held=True)
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        client = await client_of(door)
        await until(lambda: names.ended)
        await send(client)
        assert door.intake.accepted[0].peer.reverse_name == ""


async def test_a_client_that_goes_is_not_searched_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "NAME_SECONDS", 60)
    names = Names(held=True)
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        (await client_of(door)).close()
        await until(lambda: names.ended)
        assert await (await client_of(door)).say("QUIT") == str(reply.BYE)
        await until(lambda: len(names.ended) == 2)


async def test_a_message_is_kept_though_its_client_goes_while_the_name_is_awaited() -> None:
    names = Names(held=True)
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        client = await client_of(door)
        await client.said(*MESSAGE)
        await client.send(b"kept\r\n.\r\n")
        client.half_close()
        await until(lambda: all(session._reader.at_eof() for session in door.listener._sessions))
        client.close()
        names.gate.set()
        await door.intake.accepting.wait()
        await door.empty()
        assert [octets for _, octets in await door.intake.messages()] == [b"kept\r\n"]


async def test_a_search_that_fails_is_logged_and_hurts_nobody() -> None:
    async def broken(_address: str) -> str:
        raise OSError("no such thing as DNS")

    async with front_door(trust=BALANCER, reverse_name=broken, failures=1) as door:
        await send(await client_of(door))
        assert door.intake.accepted[0].peer.reverse_name == ""
        assert door.journal.of(Event.SESSION_FAILED)[0]["client"] == "192.0.2.1"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3"])
async def test_this_machine_is_not_searched_for(address: str) -> None:
    names = Names()
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        await send(await client_of(door, address))
        await send(await client_of(door, "192.0.2.1"))
        assert names.asked == ["192.0.2.1"]
    async with front_door(reverse_name=names) as door:
        await send(await door.greeted())
        assert names.asked == ["192.0.2.1"]


async def test_who_is_blocked_is_not_searched_for() -> None:
    names = Names()
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        door.intake.rules.blocked.add("192.0.2.1")
        client = await door.connect()
        await client.send(b"PROXY TCP4 192.0.2.1 192.0.2.25 4000 25\r\n")
        assert await client.rest() == "554 5.7.1 192.0.2.1 blocked\r\n"
        assert not names.asked


@pytest.mark.parametrize(("said", "asked", "name"), [
    ("ADDR=203.0.113.9", ["192.0.2.1", "203.0.113.9"], "host-9.example"),
    ("ADDR=203.0.113.9 NAME=told.example", ["192.0.2.1"], "told.example"),
    ("NAME=told.example", ["192.0.2.1"], "told.example"),
    ("ADDR=127.0.0.1", ["192.0.2.1"], ""),
])
async def test_the_name_of_whom_a_front_end_speaks_for(said: str, asked: list[str], name: str) -> None:
    names = Names()
    async with front_door(trust=BALANCER, reverse_name=names) as door:
        client = await client_of(door)
        assert await client.say(f"XCLIENT {said}") == GREETING
        await send(client)
        assert (door.intake.accepted[0].peer.reverse_name, names.asked) == (name, asked)


async def test_without_a_search_there_is_no_name() -> None:
    async with front_door(trust=BALANCER) as door:
        await send(await client_of(door))
        assert door.intake.accepted[0].peer.reverse_name == ""
