"""STARTTLS (RFC 3207) at the front door: F6, and the rows of it in which nothing may cross from clear text into TLS."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Awaitable, Callable

import pytest
import trustme
from front_door import OFFERS, Door, front_door, until
from smtp_client import Client, Gone

from inbound.accept import connection, reply, tls
from inbound.log import Event

EHLO_IN_CLEAR = OFFERS.replace("250 LIMITS RCPTMAX=1000", "250-LIMITS RCPTMAX=1000\n250 STARTTLS")
ENVELOPE = "EHLO x\r\nMAIL FROM:<mallory@sender.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\ninjected\r\n.\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """The context that is made of a certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("mx.test")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return tls.read(cert, key).context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def over_tls(door: Door, context: ssl.SSLContext, *commands: str) -> Client:
    """A client whose session is in TLS, and has said these commands there."""
    client = await door.greeted("EHLO client.example")
    assert await client.say("STARTTLS") == str(reply.START_TLS)
    await client.start_tls(context)
    for answer in await client.said(*commands):
        assert answer[0] in "23", answer
    return client


async def test_f6_a_message_over_tls(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    content = b"Subject: over TLS\r\n\r\n" + b"0123456789abcdef" * 200_000 + b"\r\n"
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context)
        assert await client.say("EHLO client.example") == OFFERS
        assert await client.said("MAIL FROM:<alice@sender.example>", "RCPT TO:<secret@example.com>", "DATA") == \
            [str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.START_DATA)]
        await client.send(content + b".\r\nNOOP\r\n")
        assert (await client.reply()).startswith("250 2.0.0 OK ")
        assert await client.reply() == str(reply.OK)
        assert await client.say("QUIT") == str(reply.BYE)
        assert await client.rest() == ""
        ((envelope, octets),) = await door.intake.messages()
        assert octets == content
        assert envelope.tls is not None
        assert client.tls is not None
        assert (envelope.tls.version, envelope.tls.cipher) == (client.tls.version(), (client.tls.cipher() or ("",))[0])
        assert envelope.tls.version == "TLSv1.3"


async def test_f6_the_version_told_is_the_one_spoken(server: ssl.SSLContext, authority: trustme.CA) -> None:
    """A cipher made for TLS 1.0 is still spoken in TLS 1.2; OpenSSL names the older version beside the cipher."""
    old = "ECDHE-ECDSA-AES256-SHA"
    servers, clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("mx.test").configure_cert(servers)
    authority.configure_trust(clients)
    clients.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (servers, clients):
        context.set_ciphers(old)
    async with front_door(tls=servers) as door:
        client = await over_tls(door, clients, "EHLO a.example", "MAIL FROM:<>", "RCPT TO:<support@example.com>", "DATA")
        await client.send(b".\r\n")
        await client.reply()
        tls = door.intake.accepted[0].tls
        assert tls is not None
        assert (tls.version, tls.cipher) == ("TLSv1.2", old)


async def test_f6_starttls_is_offered_in_clear_only_and_taken_once(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        plain = await door.greeted()
        assert await plain.said("EHLO client.example", "STARTTLS now", "NOOP") == [EHLO_IN_CLEAR, str(reply.BAD_ARGUMENT), str(reply.OK)]
        client = await over_tls(door, client_context)
        assert await client.said("STARTTLS", "EHLO client.example", "STARTTLS", "NOOP") == \
            [str(reply.TLS_ALREADY), OFFERS, str(reply.TLS_ALREADY), str(reply.OK)]


async def test_f6_helo_and_envelope_are_forgotten(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """RFC 3207 section 4.2."""
    async with front_door(tls=server) as door:
        client = await door.greeted("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "STARTTLS")
        await client.start_tls(client_context)
        assert await client.said("RCPT TO:<support@example.com>", "DATA") == [str(reply.NEED_MAIL)] * 2
        assert await client.said("MAIL FROM:<alice@sender.example>", "EHLO a", "DATA") == [str(reply.NEED_HELO), OFFERS, str(reply.NEED_MAIL)]


TAILS = ["NOOP\r\n", "RSET\r\n", "EHLO injected.example\r\n", "MAIL FROM:<mallory@sender.example>\r\n", "QUIT\r\n", "HELP\r\n",
         "NOOP\r\n" * 200, "\r\n", "XYZZY\r\n", ENVELOPE]


@pytest.mark.parametrize("tail", TAILS, ids=lambda tail: repr(tail)[:20])
async def test_f6_what_was_injected_behind_starttls_gets_no_answer(tail: str, server: ssl.SSLContext,
                                                                   client_context: ssl.SSLContext) -> None:
    """CVE-2011-0411: what came in clear must not be carried out, nor answered, as if it had come in TLS."""
    async with front_door(tls=server) as door:
        client = await door.greeted("EHLO client.example")
        await client.send(f"STARTTLS\r\n{tail}".encode())
        assert await client.reply() == str(reply.START_TLS)
        await client.start_tls(client_context)
        assert await client.said("VRFY first", "MAIL FROM:<alice@sender.example>") == [str(reply.VRFY), str(reply.NEED_HELO)]
        assert await client.say("QUIT") == str(reply.BYE)
        assert await client.rest() == ""
        assert not door.intake.accepted


async def test_f6_a_line_is_not_joined_across_the_handshake(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        client = await door.greeted("EHLO client.example")
        await client.send(b"STARTTLS\r\nNO")
        assert await client.reply() == str(reply.START_TLS)
        await client.start_tls(client_context)
        assert await client.said("OP", "NOOP") == [str(reply.UNKNOWN_COMMAND), str(reply.OK)]


async def test_f6_clear_text_after_the_220_ends_the_session(server: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        client = await door.greeted("EHLO client.example", "STARTTLS")
        await client.send(ENVELOPE.encode())
        assert "250" not in (await rest_in_bytes(client)).decode("latin-1")
        await door.empty()
        assert not door.intake.accepted


# --- handshakes that come to nothing ---


async def rest_in_bytes(client: Client) -> bytes:
    """Everything until the server closes, TLS alerts among it."""
    found = b""
    while octets := await client._octets():
        found += octets
    return found


async def stall(client: Client, _: ssl.SSLContext) -> None:
    """Say nothing at all; the server has to give up."""
    await rest_in_bytes(client)


async def stall_in_the_middle(client: Client, context: ssl.SSLContext) -> None:
    await client.send(hello(context)[:50])
    await rest_in_bytes(client)


async def garbage(client: Client, _: ssl.SSLContext) -> None:
    await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"\xff" * 600)
    await rest_in_bytes(client)


async def half_close(client: Client, context: ssl.SSLContext) -> None:
    await client.send(hello(context)[:50])
    client.half_close()
    await rest_in_bytes(client)


async def reset(client: Client, _: ssl.SSLContext) -> None:
    client.reset()


async def reset_in_the_middle(client: Client, context: ssl.SSLContext) -> None:
    await client.send(hello(context))
    await client._octets()
    client.reset()


async def close(client: Client, _: ssl.SSLContext) -> None:
    client.close()


def hello(context: ssl.SSLContext) -> bytes:
    """A ClientHello."""
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mx.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("failure", [stall, stall_in_the_middle, garbage, half_close, reset, reset_in_the_middle, close],
                         ids=lambda failure: failure.__name__)
async def test_f6_a_handshake_that_fails_is_dropped_and_disturbs_nobody(failure: Callable[[Client, ssl.SSLContext], Awaitable[None]],
                                                                        server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server, command_timeout=0.6) as door:
        client = await door.greeted("EHLO client.example", "STARTTLS")
        failing = asyncio.create_task(failure(client, client_context))
        other = await over_tls(door, client_context)
        assert await other.say("QUIT") == str(reply.BYE)
        other.close()
        await failing
        await door.empty()
        last = door.journal.of(Event.SESSION_REFUSED)[-1]
        assert (last["command"], last["reason"], last["helo"]) == ("STARTTLS", "tls handshake", "client.example")


async def test_f6_failed_handshakes_use_up_no_connections(server: ssl.SSLContext) -> None:
    async with front_door(tls=server, connections=3) as door:
        for _ in range(6):
            client = await door.greeted("EHLO client.example", "STARTTLS")
            await client.send(b"no handshake at all\r\n")
            await rest_in_bytes(client)
            await until(lambda: not door.listener._sessions)
        await door.greeted("NOOP")


async def test_f6_tls_1_1_is_refused(server: ssl.SSLContext, authority: trustme.CA) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(old)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with front_door(tls=server) as door:
        client = await door.greeted("EHLO client.example", "STARTTLS")
        with pytest.raises((ssl.SSLError, Gone)):
            await client.start_tls(old)
        await door.empty()
        assert "UNSUPPORTED_PROTOCOL" in door.journal.of(Event.SESSION_REFUSED)[-1]["error"]


async def test_f6_tls_1_2_is_spoken(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context, "EHLO client.example")
        assert client.tls is not None
        assert client.tls.version() == "TLSv1.2"


# --- the end of a session in TLS ---


async def test_f6_a_truncated_stream_is_no_message(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """RFC 8446 section 6.1: FIN without close_notify, in DATA."""
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context, "EHLO a", "MAIL FROM:<>", "RCPT TO:<support@example.com>", "DATA")
        await client.send(b"TRUNCATED\r\n")
        client.half_close()
        await door.empty()
        assert not door.intake.accepted
        assert len(door.intake.discarded) == 1


@pytest.mark.parametrize("commands", [[], ["EHLO a"], ["EHLO a", "MAIL FROM:<>", "RCPT TO:<support@example.com>", "DATA"]], ids=len)
async def test_f6_a_reset_in_tls_leaves_nothing_behind(commands: list[str], server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context, *commands)
        client.reset()
        await door.empty()
        assert not door.journal.events


async def test_f6_a_client_that_does_not_close_tls_is_not_waited_for(server: ssl.SSLContext, client_context: ssl.SSLContext,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.1)
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context)
        assert await client.say("QUIT") == str(reply.BYE)
        await door.empty()


async def test_f6_an_endless_command_line_in_tls_is_cut_off(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context)
        await client.send(b"x" * 2 * connection.SKIP_LIMIT)
        assert await client.rest() == f"{reply.ENDLESS}\r\n"
        client.close()
        await door.empty()


async def test_f6_an_idle_session_in_tls_times_out_in_tls(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server, command_timeout=0.3) as door:
        client = await over_tls(door, client_context)
        assert await client.rest() == f"{reply.TIMED_OUT}\r\n"


async def test_f6_a_drain_says_421_in_tls(server: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        client = await over_tls(door, client_context, "EHLO a")
        draining = asyncio.create_task(door.listener.drain(10))
        assert await client.rest() == f"{reply.SHUTTING_DOWN}\r\n"
        client.close()
        await draining


async def test_f6_a_drain_does_not_wait_for_a_client_that_does_not_close_tls(server: ssl.SSLContext, client_context: ssl.SSLContext,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER", 60.0)
    async with front_door(tls=server) as door:
        await over_tls(door, client_context, "EHLO a", "MAIL FROM:<>")
        await over_tls(door, client_context, "EHLO a")
        await door.listener.drain(0.1)
        await door.empty()


async def test_f6_a_drain_ends_a_handshake(server: ssl.SSLContext) -> None:
    async with front_door(tls=server) as door:
        client = await door.greeted("EHLO a", "STARTTLS")
        await door.listener.drain(10)
        assert b"250" not in await rest_in_bytes(client)
        await door.empty()
