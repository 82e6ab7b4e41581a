"""Bounces over SMTP to a real server on loopback: what it gets, under which encryption and login, and what its answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from smarthost import Smarthost, smarthost

from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown, SinkFailure
from inbound.deliver.smtp import About, SmtpSmarthost, failure
from inbound.settings import SmtpServer, smtp_server

MESSAGE = b"From: postmaster@example.com\r\nSubject: bounce\r\n\r\n.\r\n..two\r\nlast\r\n"
CA = trustme.CA()


def server_context(name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def to(host: Smarthost, url: str = "smtp://127.0.0.1:{}") -> SmtpSmarthost:
    return SmtpSmarthost(smtp_server(url.format(host.port)), "mx.example.org", tls=client_context())


async def send(way: SmtpSmarthost, recipient: str = "ann@sender.example", *, smtputf8: bool = False) -> str:
    return await way.send(MESSAGE, recipient, name="x", smtputf8=smtputf8)


async def test_a_bounce_arrives_octet_for_octet_from_the_null_reverse_path() -> None:
    async with smarthost() as host:
        assert await send(to(host)) == "250 2.0.0 queued as 1"
        assert host.got == [("<>", ["ann@sender.example"], MESSAGE, False, "")]
        assert host.parameters == [f"SIZE={len(MESSAGE)}"]


@pytest.mark.parametrize("recipient", ['"a b"@sender.example', "a..b@sender.example", '"x\\"<y>"@sender.example', "a@[192.0.2.1]"])
async def test_the_recipient_is_named_as_it_named_itself(recipient: str) -> None:
    async with wire() as (port, said):
        await send(SmtpSmarthost(SmtpServer("127.0.0.1", port, "off"), "mx.example.org"), recipient)
        assert f"RCPT TO:<{recipient}>\r\n".encode() in said


async def test_on_the_wire_dots_are_stuffed_and_every_line_ends_with_crlf() -> None:
    async with wire() as (port, said):
        await send(SmtpSmarthost(SmtpServer("127.0.0.1", port, "off"), "mx.example.org"))
        talk = b"".join(said)
        assert talk.startswith(b"EHLO mx.example.org\r\nMAIL FROM:<>\r\nRCPT TO:<ann@sender.example>\r\nDATA\r\n")
        assert talk.endswith(b"\r\n\r\n..\r\n...two\r\nlast\r\n.\r\nQUIT\r\n")
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", talk)


@pytest.mark.parametrize("content", [b"a\n.\nb", b"a\n.\r\nQUIT\r\n",
                                     b"a\r.\rb\r", b"a\r\n.\rb", b"\n.\n", b".\r", b"a\r\r\n.\r\n", b"a\n\r.\n\r"], ids=repr)
async def test_on_the_wire_there_is_no_bare_cr_or_lf_and_one_final_dot(content: bytes) -> None:
    """Onward smuggling: octets that were taken as content here must not be an end of data there."""
    async with wire() as (port, said):
        await SmtpSmarthost(SmtpServer("127.0.0.1", port, "off"), "mx.example.org").send(content, "ann@sender.example", name="x", smtputf8=False)
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", b"".join(said))
        assert said[3] == b"DATA\r\n"
        assert [number for number, line in enumerate(said) if line == b".\r\n"] == [len(said) - 2]
        assert said[-1] == b"QUIT\r\n"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server_of(serve: Serve) -> AsyncIterator[int]:
    """The port of a server whose connections `serve` holds; they have all ended when this ends."""
    sessions: list[asyncio.Task[None]] = []

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sessions.append(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*sessions), 10)


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says yes to everything, and what it was told, line by line."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        content = False
        while line := await reader.readline():
            said.append(line)
            if line == b".\r\n" or not content:
                content = line == b"DATA\r\n"
                writer.write(b"354 go\r\n" if content else b"221 bye\r\n" if line == b"QUIT\r\n" else b"250 OK\r\n")

    async with server_of(serve) as port:
        yield port, said


@pytest.mark.parametrize(("url", "encrypted"), [
    ("smtp://127.0.0.1:{}?starttls=required", True), ("smtp://127.0.0.1:{}", True), ("smtp://127.0.0.1:{}?starttls=off", False),
])
async def test_starttls_is_used_as_told(url: str, encrypted: bool) -> None:
    async with smarthost(starttls=server_context()) as host:
        await send(to(host, url))
        assert [got[3] for got in host.got] == [encrypted]


async def test_login_after_starttls() -> None:
    async with smarthost(starttls=server_context(), login=True) as host:
        await send(to(host, "smtp://me:p%40ss%20word@127.0.0.1:{}"))
        assert [got[3:] for got in host.got] == [(True, "me")]


async def test_login_in_clear_only_where_that_is_written() -> None:
    async with smarthost(login=True) as host:
        with pytest.raises(SinkDown, match="STARTTLS"):
            await send(to(host, "smtp://me:p%40ss%20word@127.0.0.1:{}"))
        await send(to(host, "smtp://me:p%40ss%20word@127.0.0.1:{}?starttls=off"))
        assert [got[3:] for got in host.got] == [(False, "me")]


async def test_tls_from_the_start() -> None:
    async with smarthost(tls=server_context()) as host:
        await send(to(host, "smtps://127.0.0.1:{}"))
        assert len(host.got) == 1


async def test_a_wrong_password_is_the_sink_s_trouble_and_is_told_nowhere() -> None:
    async with smarthost(starttls=server_context(), login=True) as host:
        with pytest.raises(SinkDown, match="535") as caught:
            await send(to(host, "smtp://me:secret@127.0.0.1:{}"))
        assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r} {to(host)._server!r}"


@pytest.mark.parametrize("url", ["smtp://127.0.0.1:{}?starttls=required", "smtps://127.0.0.1:{}"])
@pytest.mark.parametrize("name", ["mail.example.com", "127.0.0.1"])
async def test_required_encryption_wants_a_certificate_for_the_name_from_an_authority_that_is_trusted(url: str, name: str) -> None:
    context = server_context(name)
    async with smarthost(**{"tls" if url.startswith("smtps") else "starttls": context}) as host:
        trusting = client_context() if name != "127.0.0.1" else None
        with pytest.raises(SinkDown, match="certificate verify failed"):
            await send(SmtpSmarthost(smtp_server(url.format(host.port)), "mx.example.org", tls=trusting))
        assert host.got == []


async def test_where_encryption_is_optional_any_certificate_will_do() -> None:
    async with smarthost(starttls=server_context("mail.example.com")) as host:
        await send(SmtpSmarthost(smtp_server(f"smtp://127.0.0.1:{host.port}"), "mx.example.org"))
        assert [got[3] for got in host.got] == [True]


async def test_smtputf8_is_asked_for_where_it_is_needed_and_offered() -> None:
    async with smarthost(smtputf8=True) as host:
        await send(to(host), "jörg@sender.example", smtputf8=True)
        assert host.got[0][1] == ["jörg@sender.example"]
        assert "SMTPUTF8" in host.parameters
    async with smarthost() as host:
        with pytest.raises(MessageRefused, match="SMTPUTF8"):
            await send(to(host), "jörg@sender.example", smtputf8=True)
        assert host.got == []


@pytest.mark.parametrize(("command", "answer", "meaning"), [
    ("MAIL", "451 4.3.0 later", SinkDown), ("MAIL", "421 4.3.2 closing", SinkDown), ("MAIL", "530 5.7.0 log in", SinkDown),
    ("MAIL", "550 5.7.1 no null senders", SinkDown), ("MAIL", "552 5.3.4 too big", MessageRefused), ("MAIL", "452 4.3.1 full", SinkDown),
    ("RCPT", "450 4.2.0 greylisted", MessageFailed), ("RCPT", "421 4.7.0 too many", SinkDown), ("RCPT", "550 5.1.1 unknown", MessageRefused),
    ("RCPT", "554 5.7.1 relay access denied", MessageFailed), ("RCPT", "530 log in first", MessageFailed), ("RCPT", "553 5.1.3 bad", MessageRefused),
    ("DATA", "451 4.3.0 later", MessageFailed), ("DATA", "421 4.3.2 closing", SinkDown), ("DATA", "554 5.7.1 spam", MessageRefused),
    ("DATA", "552 5.2.2 full", MessageRefused),
])
async def test_what_an_answer_means(command: str, answer: str, meaning: type[SinkFailure]) -> None:
    async with smarthost() as host:
        host.answers[command] = answer
        with pytest.raises(SinkFailure) as caught:
            await send(to(host))
        assert type(caught.value) is meaning
        assert str(caught.value) == f"{command}: {answer}"
        host.answers.clear()
        await send(to(host))


def test_a_long_answer_is_told_in_one_line() -> None:
    assert str(failure(550, "5.1.1 unknown\nsee " + "x" * 1000, About.RECIPIENT)) == "RCPT: 550 5.1.1 unknown see " + "x" * 482


async def test_nobody_there() -> None:
    async with smarthost() as host:
        way = to(host)
    with pytest.raises(SinkDown, match=r"Error connecting to 127\.0\.0\.1"):
        await send(way)
    assert way.sink == f"smtp:127.0.0.1:{host.port}"


@pytest.mark.parametrize("greeting", [b"554 5.7.1 not you\r\n", b"", b"nonsense\r\n"])
async def test_a_server_that_does_not_want_to_talk(greeting: bytes) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

    async with server_of(serve) as port:
        with pytest.raises(SinkDown):
            await send(SmtpSmarthost(SmtpServer("127.0.0.1", port, "optional"), "mx.example.org"))


async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inbound.deliver.smtp.CONNECT_TIMEOUT", 0.05)

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server_of(serve) as port:
        with pytest.raises(SinkDown, match="Timed out"):
            await send(SmtpSmarthost(SmtpServer("127.0.0.1", port, "off"), "mx.example.org"))


async def test_a_greeting_is_had_without_sending_anything() -> None:
    async with smarthost(starttls=server_context(), login=True) as host:
        assert await to(host, "smtp://me:p%40ss%20word@127.0.0.1:{}").greet() == "mail.test"
        assert host.got == []
        with pytest.raises(SinkDown):
            await to(host, "smtp://me:wrong@127.0.0.1:{}").greet()
