"""XCLIENT at the front door: a trusted front end speaks for its client, for everything that follows, and nobody else can."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from certificates import client_context, server_context
from front_door import HOSTNAME, front_door, until
from test_xclient import BAD

from inbound.accept import policy, reply
from inbound.accept.envelope import Peer
from inbound.accept.policy import Trust

FRONT_END = Trust(front_ends=policy.LOOPBACK)
GREETING = f"220 {HOSTNAME} ESMTP"
OFFER = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"
MESSAGE = ("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")


async def test_the_client_is_the_one_that_was_told() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted("EHLO front.example")
        assert await client.say("XCLIENT NAME=spike.example ADDR=192.0.2.1 PORT=2525 LOGIN=alice+40example.com") == GREETING
        await client.said(*MESSAGE)
        await client.send(b".\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert await client.say("XYZZY") == str(reply.UNKNOWN_COMMAND)
        (envelope,) = door.intake.accepted
        assert (envelope.peer, envelope.helo) == (Peer("192.0.2.1", 2525, "spike.example"), "client.example")
        assert [event["client"] for event in door.journal.events] == ["192.0.2.1"]


async def test_it_is_offered_to_the_trusted_and_to_nobody_else() -> None:
    for trust in (None, Trust(front_ends=(ipaddress.ip_network("10.0.0.0/8"),)), Trust(proxies=(ipaddress.ip_network("10.0.0.0/8"),))):
        async with front_door(trust=trust) as door:
            client = await door.greeted()
            assert "XCLIENT" not in await client.say("EHLO x")
            assert await client.said("XCLIENT ADDR=192.0.2.1", "XCLIENT", "NOOP") == [*[str(reply.NOT_TRUSTED)] * 2, str(reply.OK)]
            assert {event["client"] for event in door.journal.events} == {"127.0.0.1"}
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted()
        assert OFFER in (await client.say("EHLO x")).replace("250-", "250 ").split("\n250 ")


async def test_the_session_begins_anew() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted("EHLO front.example")
        assert await client.said("XCLIENT ADDR=192.0.2.1", "MAIL FROM:<>") == [GREETING, str(reply.NEED_HELO)]


async def test_a_helo_that_was_told_holds_until_another_is_said() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted()
        assert await client.say("XCLIENT ADDR=192.0.2.1 HELO=told.example PROTO=ESMTP") == GREETING
        for commands in (MESSAGE[1:], MESSAGE):
            await client.said(*commands)
            await client.send(b".\r\n")
            await client.reply()
        assert [(envelope.helo, envelope.esmtp) for envelope in door.intake.accepted] == [("told.example", True), ("client.example", True)]
        assert await client.said("XCLIENT HELO=told.example PROTO=SMTP", "MAIL FROM:<> SIZE=1") == [GREETING, str(reply.UNKNOWN_PARAMETER)]


async def test_it_may_come_in_several_commands() -> None:
    """As XCLIENT_README asks of clients whose attributes are long."""
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted()
        assert await client.said("XCLIENT ADDR=192.0.2.1 NAME=spike.example", "XCLIENT PORT=9", "XCLIENT HELO=h PROTO=ESMTP", *MESSAGE[1:]) == \
            [GREETING] * 3 + [str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.START_DATA)]
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].peer == Peer("192.0.2.1", 9, "spike.example")


async def test_the_name_and_port_of_one_client_are_not_those_of_the_next() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted()
        await client.said("XCLIENT ADDR=192.0.2.1 NAME=spike.example PORT=9", "XCLIENT ADDR=192.0.2.2", *MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].peer == Peer("192.0.2.2")


async def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted()
        await client.said("XCLIENT ADDR=IPV6:::ffff:192.0.2.1", *MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].peer.address == "192.0.2.1"


async def test_what_is_malformed_changes_nothing() -> None:
    async with front_door(trust=FRONT_END, errors=1000) as door:
        client = await door.greeted("EHLO front.example")
        for argument in BAD:
            if b"\0" not in argument:  # no command holds that
                await client.send(b"XCLIENT " + argument + b"\r\n")
                assert await client.reply() == str(reply.BAD_XCLIENT), argument
        await client.said(*MESSAGE[1:])
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].peer.address == "127.0.0.1"


async def test_not_within_a_transaction() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted(*MESSAGE[:3])
        assert await client.said("XCLIENT ADDR=192.0.2.1", "RSET", "XCLIENT ADDR=192.0.2.1") == [str(reply.NESTED_MAIL), str(reply.OK), GREETING]


# --- what is decided by the client's address ---


async def test_ip_filters_judge_the_client() -> None:
    async with front_door(trust=FRONT_END) as door:
        door.intake.rules.blocked.add("192.0.2.1")
        client = await door.greeted("EHLO front.example")
        assert await client.say("XCLIENT ADDR=192.0.2.1") == "554 5.7.1 192.0.2.1 blocked"
        assert await client.rest() == ""


async def test_connections_are_counted_by_client() -> None:
    async with front_door(trust=FRONT_END, connections_per_client=1) as door:
        first, second = await door.greeted(), await door.greeted()
        assert await first.say("XCLIENT ADDR=192.0.2.1") == GREETING
        assert await second.say("XCLIENT ADDR=192.0.2.1") == str(reply.TOO_MANY_FROM_CLIENT)
        first.close()
        await until(lambda: not door.listener._of_client["192.0.2.1"])
        third = await door.greeted()
        assert await third.say("XCLIENT ADDR=192.0.2.1") == GREETING
        assert await third.say("XCLIENT ADDR=192.0.2.2") == GREETING
        assert dict(door.listener._of_client) == {"192.0.2.2": 1}


async def test_endless_xclient_is_cut_off() -> None:
    async with front_door(trust=FRONT_END) as door:
        client = await door.greeted()
        await client.send(b"XCLIENT ADDR=192.0.2.1\r\n" * 101)
        assert (await client.rest()).count(GREETING) == 100
        assert door.journal.refusals == [str(reply.TOO_MANY_ERRORS)]


# --- with TLS and PROXY ---


async def test_what_was_told_in_clear_is_forgotten_when_tls_begins(tmp_path: Path) -> None:
    """RFC 3207 section 4.2: whoever is between us and the front end could have told it."""
    async with front_door(trust=FRONT_END, tls=server_context(tmp_path), connections_per_client=1) as door:
        client = await door.greeted()
        assert await client.say("XCLIENT ADDR=192.0.2.1 NAME=spike.example HELO=x PROTO=ESMTP") == GREETING
        assert await client.say("STARTTLS") == str(reply.START_TLS)
        await client.start_tls(client_context())
        assert await client.said("MAIL FROM:<>", *MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        assert door.intake.accepted[0].peer == Peer(*client.sock.getsockname())
        assert dict(door.listener._of_client) == {"127.0.0.1": 1}


async def test_it_may_be_told_in_tls(tmp_path: Path) -> None:
    async with front_door(trust=FRONT_END, tls=server_context(tmp_path)) as door:
        client = await door.greeted("EHLO x", "STARTTLS")
        await client.start_tls(client_context())
        assert await client.say("XCLIENT ADDR=192.0.2.1") == GREETING
        await client.said(*MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        (envelope,) = door.intake.accepted
        assert envelope.peer == Peer("192.0.2.1")
        assert envelope.tls is not None


async def test_a_load_balancers_client_is_trusted_for_itself_and_not_for_the_load_balancer() -> None:
    trust = Trust(proxies=policy.LOOPBACK, front_ends=(*policy.LOOPBACK, ipaddress.ip_network("192.0.2.0/24")))
    async with front_door(trust=trust) as door:
        stranger, front_end = await door.connect(), await door.connect()
        await stranger.send(b"PROXY TCP4 203.0.113.1 127.0.0.1 1 25\r\n")
        await front_end.send(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 25\r\n")
        assert [await client.line() for client in (stranger, front_end)] == [GREETING] * 2
        assert [await client.say("XCLIENT ADDR=127.0.0.1") for client in (stranger, front_end)] == [str(reply.NOT_TRUSTED), GREETING]
