"""How many messages one connection may bring, and what LIMITS (RFC 9422) tells of it."""

from __future__ import annotations

import pytest
from front_door import OFFERS, Door, front_door
from smtp_client import Client

from inbound.accept import policy, reply
from inbound.accept.policy import Trust

BALANCER = Trust(proxies=policy.LOOPBACK)
TRANSACTION = ("MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")


async def client_of(door: Door, address: str) -> Client:
    """A client at this address that has said EHLO."""
    client = await door.connect()
    await client.send(f"PROXY TCP4 {address} 192.0.2.25 4000 25\r\n".encode())
    assert (await client.line())[:3] == "220"
    return client


async def send(client: Client) -> str:
    """The reply to a message."""
    assert await client.said(*TRANSACTION) == [str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.START_DATA)]
    await client.send(b"a\r\n.\r\n")
    return await client.reply()


async def test_one_connection_brings_so_many_messages_and_the_client_knows() -> None:
    async with front_door(trust=BALANCER, messages=2) as door:
        client = await client_of(door, "192.0.2.1")
        assert "\n250 LIMITS MAILMAX=2 RCPTMAX=1000" in await client.say("EHLO client.example")
        for _ in range(2):
            assert (await send(client)).startswith("250 2.0.0 OK ")
        await client.send(b"MAIL FROM:<alice@sender.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n")
        assert await client.rest() == f"{reply.TOO_MANY_MESSAGES}\r\n"
        other = await client_of(door, "192.0.2.1")
        await other.say("EHLO client.example")
        assert (await send(other)).startswith("250 2.0.0 OK ")


@pytest.mark.parametrize("end", ["RSET", "EHLO again.example"])
async def test_every_mail_counts_whatever_becomes_of_it(end: str) -> None:
    """RFC 9422 section 4.1."""
    async with front_door(trust=BALANCER, messages=3) as door:
        client = await client_of(door, "192.0.2.1")
        await client.say("EHLO client.example")
        assert await client.say("MAIL FROM:<alice@sender.example> SIZE=99999999999") == str(reply.TOO_LARGE)
        assert await client.said(TRANSACTION[0], end, TRANSACTION[0]) == [str(reply.MAIL_OK), *answer_to(end), str(reply.MAIL_OK)]
        await client.say("RSET")
        await client.send(TRANSACTION[0].encode() + b"\r\n")
        assert await client.rest() == f"{reply.TOO_MANY_MESSAGES}\r\n"


def answer_to(command: str) -> list[str]:
    """The reply to what ends a transaction."""
    return [str(reply.OK)] if command == "RSET" else [OFFERS.replace("LIMITS ", "LIMITS MAILMAX=3 ")]


async def test_loopback_has_no_such_limit() -> None:
    async with front_door(messages=1) as door:
        client = await door.greeted()
        assert await client.say("EHLO client.example") == OFFERS
        for _ in range(3):
            assert (await send(client)).startswith("250 2.0.0 OK ")
