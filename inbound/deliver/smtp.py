"""The one door to aiosmtplib: bounces leave through a smarthost, a connection each, with the null reverse-path.

Which of a smarthost's answers time can cure: what it says of us (connection, login, the null reverse-path) an operator can repair, and so it
is the sink that fails; what it says of one bounce (its recipient, its content) concerns that bounce alone.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from enum import Enum
from typing import Protocol

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown, SinkFailure
from inbound.settings import SmtpServer

CONNECT_TIMEOUT = 30.0  # seconds
COMMAND_TIMEOUT = 60.0
DATA_TIMEOUT = 300.0  # RFC 5321 §4.5.3.2.6 asks for ten minutes; who gives up early may send twice
QUIT_TIMEOUT = 5.0

_LOGIN = frozenset((530, 534, 535, 538))  # RFC 4954 §6
_POLICY = re.compile(r"5\.7\.[0-9]+\b")  # RFC 3463 §3.8


class Smarthost(Protocol):
    """Where bounces go."""

    @property
    def sink(self) -> str:
        """Its name as a sink."""
        ...

    async def send(self, message: bytes, recipient: str, *, name: str, smtputf8: bool) -> str:
        """Hand the message over for the recipient, from the null reverse-path; what the smarthost said. `name` is fit for a file.

        `smtputf8`: an address in it needs that. Raises SinkDown, MessageFailed or MessageRefused.
        """
        ...


class SmtpSmarthost:
    """A server that takes mail by SMTP. `hostname` is our name in EHLO; `tls` stands in for the certificates that the system trusts."""

    def __init__(self, server: SmtpServer, hostname: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._hostname = hostname
        self._tls = tls

    @property
    def sink(self) -> str:
        return f"smtp:{self._server}"

    async def send(self, message: bytes, recipient: str, *, name: str, smtputf8: bool) -> str:  # noqa: ARG002  # a server needs no file name
        async with self._connected() as client:
            return await _transaction(client, message, recipient, smtputf8=smtputf8)

    async def greet(self) -> str:
        """Connect, encrypt and log in as for a bounce, and send nothing: what the server calls itself. Raises SinkDown."""
        async with self._connected() as client:
            answer = client.last_ehlo_response
            return answer.message.split("\n", 1)[0] if answer else ""

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[SMTP]:
        """A session in which mail may be sent. Raises SinkDown, whatever it is that keeps us from it."""
        client = self._client()
        try:
            try:
                await client.connect(timeout=CONNECT_TIMEOUT)
                if client.is_ehlo_or_helo_needed:
                    await client.ehlo()
            except (SMTPException, OSError, ValueError) as error:
                raise SinkDown(_told(error)) from error
            try:
                yield client
            except SinkFailure:
                await _quit(client)
                raise
            await _quit(client)
        finally:
            client.close()

    def _client(self) -> SMTP:
        """Whoever requires encryption gets a certificate that fits the name; where it is optional any will do (RFC 7435)."""
        server = self._server
        start_tls = {"required": True, "optional": None}.get(server.tls, False)
        return SMTP(
            hostname=server.host, port=server.port, local_hostname=self._hostname, timeout=COMMAND_TIMEOUT, use_tls=server.tls == "implicit",
            start_tls=start_tls, validate_certs=server.tls != "optional", tls_context=self._tls if server.tls != "optional" else None,
            username=server.username or None, password=server.password or None,
        )


class About(Enum):
    """What an answer of the smarthost is about."""

    US = "MAIL"
    RECIPIENT = "RCPT"
    CONTENT = "DATA"


def failure(code: int, text: str, about: About) -> SinkFailure:
    """What a negative answer means. Of a recipient, 5.7.z and a missing login tell that relaying is not permitted, which can be repaired."""
    said = f"{about.value}: {code} {_line(text)}"
    if code == 421 or (about is About.US and code != 552):
        return SinkDown(said)
    repairable = about is About.RECIPIENT and (code in _LOGIN or _POLICY.match(text) is not None)
    return MessageRefused(said) if code >= 500 and not repairable else MessageFailed(said)


async def _transaction(client: SMTP, message: bytes, recipient: str, *, smtputf8: bool) -> str:
    """One mail transaction (RFC 5321 §3.3)."""
    if smtputf8 and not client.supports_extension("smtputf8"):
        raise MessageRefused("it does not offer SMTPUTF8, which an address of this bounce needs")
    parameters = [f"SIZE={len(message)}".encode()] if client.supports_extension("size") else []
    parameters += [b"SMTPUTF8"] if smtputf8 else []
    try:
        await _command(client, About.US, b"MAIL", b"FROM:<>", *parameters)
        await _command(client, About.RECIPIENT, b"RCPT", b"TO:<" + recipient.encode() + b">")
        answer = await client.data(message, timeout=DATA_TIMEOUT)
    except SMTPResponseException as error:
        raise failure(error.code, error.message, About.CONTENT) from error
    except (SMTPException, OSError) as error:
        raise SinkDown(_told(error)) from error
    return f"{answer.code} {_line(answer.message)}"


async def _command(client: SMTP, about: About, *words: bytes) -> None:
    answer = await client.execute_command(*words)
    if not 200 <= answer.code < 300:
        raise failure(answer.code, answer.message, about)


async def _quit(client: SMTP) -> None:
    with contextlib.suppress(SMTPException, OSError):
        await client.quit(timeout=QUIT_TIMEOUT)


def _told(error: Exception) -> str:
    if isinstance(error, SMTPResponseException):
        return f"{error.code} {_line(error.message)}"
    return _line(str(error)) or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
