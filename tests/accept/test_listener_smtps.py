"""Implicit TLS (RFC 8314 section 3), and what becomes of a certificate while sessions go on: replaced, expired, told of in the trace."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from certificates import client_context, issue, server_context
from front_door import HOSTNAME, OFFERS, Door, Offer, front_door, until
from journal import Journal
from smtp_client import Client, Gone

from inbound.accept import listener, reply
from inbound.accept.tls import Certificate
from inbound.log import Event

GREETING = f"220 {HOSTNAME} ESMTP"
MESSAGE = ("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<secret@example.com>", "DATA")


async def over_tls(door: Door, context: ssl.SSLContext | None = None) -> Client:
    """A client that began with the handshake, and has read the greeting."""
    client = await door.connect()
    await client.start_tls(context or client_context())
    assert await client.line() == GREETING
    return client


async def test_a_message_over_implicit_tls(tmp_path: Path) -> None:
    content = b"Subject: over TLS\r\n\r\n" + b"0123456789abcdef" * 100_000 + b"\r\n"
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        client = await over_tls(door)
        assert await client.said(*MESSAGE) == [
            OFFERS, str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.START_DATA)]
        await client.send(content + b".\r\nNOOP\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert await client.reply() == str(reply.OK)
        assert await client.say("QUIT") == str(reply.BYE)
        assert await client.rest() == ""
        ((envelope, octets),) = await door.intake.messages()
        assert octets == content
        assert envelope.tls is not None
        assert client.tls is not None
        assert (envelope.tls.version, envelope.tls.cipher) == ("TLSv1.3", (client.tls.cipher() or ("",))[0])


async def test_tls_1_2_is_spoken_and_told(tmp_path: Path) -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        client = await over_tls(door, context)
        await client.said(*MESSAGE)
        await client.send(b".\r\n")
        await client.reply()
        tls = door.intake.accepted[0].tls
        assert tls is not None
        assert tls.version == "TLSv1.2"


async def test_starttls_within_it_is_refused(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        client = await over_tls(door)
        assert await client.said("EHLO x", "STARTTLS", "NOOP") == [
            OFFERS, str(reply.TLS_ALREADY), str(reply.OK)]


async def test_a_handshake_octet_by_octet(tmp_path: Path) -> None:
    """What of it came before the TLS layer was there is handed on, and in order."""
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        client = await door.connect()
        tls = client_context().wrap_bio(client._incoming, client._outgoing, server_hostname="mx.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await client.drip(client._outgoing.read())
        client._incoming.write(await client._octets())
        await client.start_tls_with(tls)
        assert await client.line() == GREETING
        assert (await client.say("EHLO x")).startswith("250-")


async def test_clear_text_is_not_answered_as_smtp(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        client = await door.connect()
        await client.send(b"EHLO client.example\r\nMAIL FROM:<>\r\n")
        octets = b""
        while more := await client._octets():
            octets += more
        assert b"220" not in octets
        assert b"250" not in octets
        await door.empty()
        (event,) = door.journal.of(Event.SESSION_REFUSED)
        assert (event["command"], event["reason"]) == ("connect", "tls handshake")


async def test_a_blocked_client_is_told_so_in_tls(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        door.intake.rules.blocked.add("127.0.0.1")
        client = await door.connect()
        await client.start_tls(client_context())
        assert await client.rest() == "554 5.7.1 127.0.0.1 blocked\r\n"


@pytest.mark.parametrize("how", ["silent", "reset", "half-closed", "closed"])
async def test_a_handshake_that_does_not_happen_holds_nothing(how: str, tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path), secure=True, command_timeout=0.2) as door:
        client = await door.connect()
        await until(lambda: door.listener._sessions)
        if how == "reset":
            client.reset()
        elif how == "closed":
            client.close()
        elif how == "half-closed":
            client.half_close()
        await door.empty()
        assert not door.listener._of_client


async def test_a_connection_that_was_closed_at_once_is_forgotten(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        for _ in range(10):
            (await door.connect()).half_close()
            (await door.connect()).reset()
        await door.empty()


async def test_a_drain_says_421_in_tls(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path), secure=True) as door:
        client = await over_tls(door)
        draining = asyncio.create_task(door.listener.drain(10))
        assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        client.close()
        await draining


async def test_both_kinds_of_listener_stand_beside_each_other(tmp_path: Path) -> None:
    async with front_door(tls=server_context(tmp_path)) as door:
        (secure,) = listener.bind("127.0.0.1", 0)
        door.addresses.append(secure.getsockname())
        await door.listener.open((), (secure,))
        in_clear, client = await door.connect(0), await door.connect(1)
        await client.start_tls(client_context())
        assert [await client.line(), await in_clear.line()] == [GREETING] * 2


async def test_implicit_tls_without_a_certificate_is_a_mistake_of_ours() -> None:
    (sock,) = listener.bind("127.0.0.1", 0)
    async with front_door() as door:
        with sock, pytest.raises(ValueError, match="certificate"):
            await door.listener.open((), (sock,))


# --- a certificate in the course of time ---


async def test_new_handshakes_take_a_new_certificate_and_old_sessions_go_on(tmp_path: Path) -> None:
    certificate = Certificate(*issue(tmp_path), Journal().log)
    async with front_door(tls=Offer(certificate.context)) as door:
        door.listener.tls = certificate
        old, waiting = await door.greeted("EHLO x", "STARTTLS"), await door.greeted("EHLO x")
        await old.start_tls(client_context())
        other = trustme.CA()
        issue(tmp_path, by=other)
        await certificate.refresh()
        for client in (waiting, await door.greeted("EHLO x")):
            assert await client.say("STARTTLS") == str(reply.START_TLS)
            await client.start_tls(client_context(other))
        late = await door.greeted("EHLO x", "STARTTLS")
        with pytest.raises((ssl.SSLCertVerificationError, Gone)):
            await late.start_tls(client_context())
        assert (await old.say("EHLO x")).startswith("250-")


async def test_an_expired_certificate_is_not_offered_and_mail_flows_in_clear(tmp_path: Path) -> None:
    async with front_door(tls=Offer(server_context(tmp_path), works=False)) as door:
        client = await door.greeted()
        assert "STARTTLS" not in await client.say("EHLO x")
        assert await client.said("STARTTLS", "MAIL FROM:<>", "RCPT TO:<support@example.com>") == \
            [str(reply.TLS_UNAVAILABLE), str(reply.MAIL_OK), str(reply.RCPT_OK)]
        assert reply.TLS_UNAVAILABLE.code == 454
