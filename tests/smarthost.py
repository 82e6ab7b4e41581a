"""A smarthost on loopback, by aiosmtpd: it keeps what it gets, wants STARTTLS and a login where told so, and answers as told."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Smarthost:
    """`got` holds (sender, recipients, octets, whether it was encrypted, login). `answers` gives the reply to a command in place of 250."""

    def __init__(self) -> None:
        self.got: list[tuple[str, list[str], bytes, bool, str]] = []
        self.answers: dict[str, str] = {}
        self.parameters: list[str] = []
        self.port = 0
        self.changed = asyncio.Condition()

    async def handle_MAIL(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        self.parameters = options
        if "MAIL" not in self.answers:
            envelope.mail_from = address
        return self.answers.get("MAIL", "250 2.1.0 OK")

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        if "RCPT" not in self.answers:
            envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 2.1.5 OK")

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        if "DATA" not in self.answers:
            login = session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else ""
            content = envelope.original_content or b""
            self.got.append((envelope.mail_from or "", list(envelope.rcpt_tos), content, session.ssl is not None, login))
        async with self.changed:
            self.changed.notify_all()
        return self.answers.get("DATA", f"250 2.0.0 queued as {len(self.got)}")

    async def until(self, holds: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until the condition holds, looking again after every message."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(holds), seconds)


def _login(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data == LoginPassword(b"me", b"p@ss word"), auth_data=data, handled=False)


@asynccontextmanager
async def smarthost(*, port: int = 0, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, login: bool = False,
                    smtputf8: bool = False) -> AsyncIterator[Smarthost]:
    """One that runs: `starttls` offers that, `tls` speaks it from the start; `login` takes mail from me / 'p@ss word' only."""
    host = Smarthost()
    sessions: list[SMTP] = []

    def session() -> SMTP:
        with warnings.catch_warnings(action="ignore"):  # aiosmtpd advises against a login in clear
            made = SMTP(host, tls_context=starttls, require_starttls=starttls is not None and login, auth_required=login, authenticator=_login,
                        auth_require_tls=starttls is not None, enable_SMTPUTF8=smtputf8, hostname="mail.test", loop=asyncio.get_running_loop())
        sessions.append(made)
        return made

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", port, ssl=tls)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for each in sessions:
            if each.transport is not None:
                each.transport.abort()
        tasks = [each._handler_coroutine for each in sessions if each._handler_coroutine is not None]
        for task in tasks:
            task.cancel()  # one whose handshake failed would wait for ever
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
