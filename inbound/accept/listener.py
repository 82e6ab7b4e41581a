"""The SMTP listener: all sessions of the process, on any number of addresses, and what they have in common."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from inbound.accept import policy, reply
from inbound.accept.envelope import Envelope, Peer
from inbound.accept.policy import Limits, Pinned, Trust
from inbound.accept.quotas import Quotas
from inbound.accept.reply import Reply, ReplyError, TemporaryFailure
from inbound.accept.session import Session
from inbound.accept.spool import Draft, SpoolError, SpoolFull
from inbound.log import Event, Log
from inbound.memory import Reserve
from inbound.metrics import CONNECTIONS, REFUSED, Metrics

NAME_SECONDS = 2.0  # from the beginning of a session, for the client's reverse name to be found


class Intake(Protocol):
    """What a session asks of the stages behind it."""

    def pin(self) -> Pinned:
        """The rule set revision of this moment."""
        ...

    def ready(self) -> Reply | None:
        """The temporary refusal of new messages, or None when they are welcome."""
        ...

    def draft(self, message_id: str) -> Draft:
        """An empty draft for the content of a message."""
        ...

    async def accept(self, envelope: Envelope, draft: Draft) -> None:
        """Make the message durably ours and see to it from then on. Raises SpoolError when it is not ours."""
        ...


class TlsOffer(Protocol):
    """The certificate as handshakes need it."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        ...

    @property
    def works(self) -> bool:
        """Is it fit to be offered?"""
        ...


class Listener:
    """All SMTP sessions of the process, on any number of addresses.

    `reverse_name` finds the name of an IP address; empty when there is none. `listed` finds the blocklist that names an address, and what it
    says of it; both take their time and never raise.
    """

    def __init__(self, intake: Intake, log: Log, *, hostname: str, limits: Limits, trust: Trust | None = None, tls: TlsOffer | None = None,
                 smtputf8: bool = False, reverse_name: Callable[[str], Awaitable[str]] | None = None, metrics: Metrics | None = None,
                 listed: Callable[[str], Awaitable[tuple[str, str] | None]] | None = None, quotas: Quotas | None = None,
                 memory: Reserve | None = None) -> None:
        self.intake = intake
        self.log = log
        self.limits = limits
        self.trust = trust or Trust()
        self.hostname = hostname
        self.greeting = Reply(220, "", f"{hostname} ESMTP")
        self.hello = Reply(250, "", hostname)
        self.tls = tls
        self.smtputf8 = smtputf8
        self.quotas = quotas or Quotas(limits)
        self._memory = memory or Reserve(0)
        self._reverse_name = reverse_name
        self._metrics = metrics or Metrics()
        self._listed = listed
        self._template: Session | None = None
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()
        self._of_client: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._draining = False

    async def open(self, sockets: Sequence[socket.socket], secure: Sequence[socket.socket] = ()) -> None:
        """Serve on sockets that are bound, in the running loop; on `secure` ones TLS begins with the connection."""
        if secure and self.tls is None:
            raise ValueError("implicit TLS needs a certificate")
        loop = asyncio.get_running_loop()
        self._template = Session(handler=object(), hostname=self.hostname, loop=loop)
        for sock in (*sockets, *secure):
            self._servers.append(await loop.create_server(partial(self._session, secure=sock in secure), sock=sock, backlog=1024))

    def _session(self, *, secure: bool = False) -> Session:
        if self._template is None:
            raise RuntimeError("the listener is not open")
        return self._template.begin(self, secure=secure)

    async def drain(self, seconds: float) -> None:
        """Stop listening; idle sessions get 421, transactions may finish within `seconds`, then the rest is cut off."""
        self._draining = True
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.drain()
        if self._sessions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        for session in list(self._sessions):
            session.refuse(reply.SHUTTING_DOWN, "")
            if session.transport is not None:
                session.transport.abort()

    def relieve(self) -> None:
        """Memory is short: let go of all content that is still coming."""
        for session in self._sessions:
            if session.reception is not None:
                session.reception.give_up(TemporaryFailure(reply.NO_MEMORY))

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    # --- what sessions tell ---

    def enter(self, session: Session) -> None:
        """A session began."""
        self._sessions.add(session)
        self._metrics.count(CONNECTIONS)
        self._count(session)

    def leave(self, session: Session) -> None:
        """A session ended."""
        if session not in self._sessions:
            return
        self._sessions.discard(session)
        self._discount(session)
        if not self._sessions:
            self._empty.set()

    def become(self, session: Session, peer: Peer) -> None:
        """A session speaks for another client from here on."""
        if session in self._sessions:  # else it has ended meanwhile
            self._discount(session)
            session.peer = peer
            self._count(session)

    def _count(self, session: Session) -> None:
        key = policy.client_key(session.peer.address)
        self._of_client[key] += 1
        session.rank = (len(self._sessions), self._of_client[key])

    def _discount(self, session: Session) -> None:
        key = policy.client_key(session.peer.address)
        self._of_client[key] -= 1
        if self._of_client[key] <= 0:
            del self._of_client[key]

    def name_of(self, address: str) -> asyncio.Task[str] | None:
        """The search for the reverse name of a client; None where there is nothing to search for. It ends in NAME_SECONDS."""
        if self._reverse_name is None or policy.is_in(address, policy.LOOPBACK):
            return None
        return asyncio.get_running_loop().create_task(self._find_name(self._reverse_name, address))

    async def _find_name(self, reverse_name: Callable[[str], Awaitable[str]], address: str) -> str:
        try:
            async with asyncio.timeout(NAME_SECONDS):
                return await reverse_name(address)
        except TimeoutError:
            return ""
        except Exception as error:
            self.log.error(Event.SESSION_FAILED, client=address, command="connect", error=repr(error), exc_info=error)
            return ""

    def screening_of(self, address: str) -> asyncio.Task[Reply | None] | None:
        """The search for a client in blocklists; None where nothing that they say would count."""
        if self._listed is None or policy.is_exempt(address, self.limits) or self.intake.pin().allows(address):
            return None
        return asyncio.get_running_loop().create_task(self._screen(self._listed, address))

    async def _screen(self, listed: Callable[[str], Awaitable[tuple[str, str] | None]], address: str) -> Reply | None:
        try:
            found = await listed(address)
        except Exception as error:
            self.log.error(Event.SESSION_FAILED, client=address, command="connect", error=repr(error), exc_info=error)
            return None
        return reply.listed(address, *found) if found else None

    def judge(self, session: Session) -> Reply | None:
        """The refusal of a session that just began, or None."""
        if self._draining:
            return reply.SHUTTING_DOWN
        if self._memory.is_short:
            return reply.TOO_BUSY
        connections, of_client = session.rank
        return policy.connection(session.peer.address, self.intake.pin(), self.limits, connections=connections, of_client=of_client)

    def refused(self, session: Session, answer: Reply, command: str, facts: dict[str, Any]) -> None:
        """Log one refusal."""
        self._metrics.count(REFUSED, answer.reason, str(answer.code))
        name = session.session.host_name if session.session else None
        self.log.info(Event.SESSION_REFUSED, client=session.peer.address, helo=name or "", command=command, reason=answer.reason,
                      reply=str(answer), **facts)

    def handshake_failed(self, session: Session, cause: BaseException | None) -> None:
        """Log a TLS handshake that came to nothing; there is nobody left to answer."""
        self._metrics.count(REFUSED, "tls handshake", "")
        self.log.info(Event.SESSION_REFUSED, client=session.peer.address, helo=session.session.host_name or "",
                      command="connect" if session.secure else "STARTTLS", reason="tls handshake", reply="", error=str(cause or ""))

    def trouble(self, session: Session, command: str, error: Exception) -> ReplyError:
        """The temporary failure that our own trouble is to the client; logged with its cause."""
        if isinstance(error, MemoryError):
            self._memory.spend()
            self.log.error(Event.SESSION_FAILED, client=session.peer.address, command=command, error="out of memory")
            return TemporaryFailure(reply.NO_MEMORY)
        if isinstance(error, SpoolError):
            self.log.error(Event.SPOOL_FAILED, client=session.peer.address, error=str(error))
            return ReplyError(reply.SPOOL_FULL if isinstance(error, SpoolFull) else reply.SPOOL_FAILED)
        self.log.error(Event.SESSION_FAILED, client=session.peer.address, command=command, error=repr(error), exc_info=error)
        return ReplyError(reply.INTERNAL)


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for one address; a host name may give several. Raises OSError."""
    found: list[socket.socket] = []
    for family, kind, proto, _, name in socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(name)
            sock.setblocking(False)
        except OSError:
            sock.close()
            for other in found:
                other.close()
            raise
        found.append(sock)
    return found
