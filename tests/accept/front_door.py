"""The listener as tests meet it: a real one on a loopback port, before a spool in memory and rules that a test may bend."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from journal import Journal
from smtp_client import Client

from inbound.accept import reply
from inbound.accept.envelope import Envelope
from inbound.accept.listener import Listener, bind
from inbound.accept.policy import Limits, Trust
from inbound.accept.quotas import Quotas
from inbound.accept.reply import Reply
from inbound.accept.spool import Draft
from inbound.accept.spool.memory import MemorySpool
from inbound.log import Event

HOSTNAME = "mx.test"
OFFERS = f"250-{HOSTNAME}\n250-PIPELINING\n250-SIZE 41943040\n250-8BITMIME\n250-ENHANCEDSTATUSCODES\n250-CHUNKING\n250 LIMITS RCPTMAX=1000"
KNOWN = frozenset({"support@example.com", "sales@example.com", "postmaster@example.com", '"john doe"@example.com', "a.b+c@example.com",
                   "user@[192.0.2.1]"})


@dataclass
class Rules:
    """A revision of the rules that takes a few addresses."""

    revision: str = "r1"
    blocked: set[str] = field(default_factory=set)
    allowed: set[str] = field(default_factory=set)
    known: frozenset[str] = KNOWN

    def admits(self, address: str) -> bool:
        return address not in self.blocked

    def allows(self, address: str) -> bool:
        return address in self.allowed

    def recipient(self, address: str, *, tls: bool) -> Reply:
        if address.lower() == "secret@example.com":
            return reply.RCPT_OK if tls else reply.NEED_TLS
        return reply.RCPT_OK if address.lower() in self.known else reply.NO_SUCH_RECIPIENT

    def takes(self, size: int, *, tls: bool) -> bool:
        return True

    def postmaster(self) -> str | None:
        return "postmaster@example.com" if "postmaster@example.com" in self.known else None


Listed = Callable[[str], Awaitable[tuple[str, str] | None]]


class SpoolIntake:
    """An intake that keeps messages in a `MemorySpool`. `faults` maps one of its operations to what that raises."""

    def __init__(self) -> None:
        self.rules = Rules()
        self.spool = MemorySpool()
        self.refusal: Reply | None = None
        self.faults: dict[str, Exception] = {}
        self.accepting = asyncio.Event()  # a commit has begun
        self.accepted: list[Envelope] = []

    def pin(self) -> Rules:
        self._strike("pin")
        return self.rules

    def ready(self) -> Reply | None:
        self._strike("ready")
        return self.refusal

    def draft(self, message_id: str) -> Draft:
        self._strike("draft")
        return self.spool.draft(message_id)

    async def accept(self, envelope: Envelope, draft: Draft) -> None:
        self._strike("accept")
        self.accepting.set()
        await self.spool.put(envelope, draft)
        self.accepted.append(envelope)

    def _strike(self, operation: str) -> None:
        if operation in self.faults:
            raise self.faults[operation]

    async def messages(self) -> list[tuple[Envelope, bytes]]:
        """Everything accepted so far, with its octets, in the order of acceptance."""
        found = []
        for envelope in self.accepted:
            content = await self.spool.content(envelope.message_id)
            with content.open() as octets:
                found.append((envelope, octets.read()))
        return found

    @property
    def discarded(self) -> set[str]:
        """The ids whose drafts were discarded before they were put."""
        return {message_id for operation, message_id in self.spool.journal if operation == "discard"}


async def until(condition: Callable[[], Any]) -> None:
    """Returns as soon as the condition holds, which nothing announces."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # as the docstring says
            await asyncio.sleep(0)


class Door:
    """An open listener with everything around it."""

    def __init__(self, listener: Listener, intake: SpoolIntake, journal: Journal, addresses: list[tuple[str, int]]) -> None:
        self.listener = listener
        self.intake = intake
        self.journal = journal
        self.addresses = addresses
        self.clients: list[Client] = []
        self.faults_of_the_loop: list[dict[str, Any]] = []

    async def connect(self, number: int = 0, *, receive_buffer: int = 0) -> Client:
        """A client that has read nothing yet, on one of the listener's addresses."""
        client = await Client.connect(self.addresses[number], receive_buffer=receive_buffer)
        self.clients.append(client)
        return client

    async def greeted(self, *commands: str) -> Client:
        """A client that has read the greeting, and said these commands, none of which was refused."""
        client = await self.connect()
        assert await client.line() == f"220 {HOSTNAME} ESMTP"
        for answer in await client.said(*commands):
            assert answer[0] in "23", answer
        return client

    async def in_data(self) -> Client:
        """A client that may send a message now."""
        return await self.greeted("EHLO client.example", "MAIL FROM:<alice@sender.example>", "RCPT TO:<support@example.com>", "DATA")

    async def empty(self) -> None:
        """Returns when no session is left, in the listener or as a task."""
        async with asyncio.timeout(10):
            while self.listener._sessions:
                self.listener._empty.clear()
                await self.listener._empty.wait()
            await asyncio.gather(*session_tasks())

    async def close(self) -> None:
        """Close the clients, stop the listener; nothing may be left behind, and nothing may have failed unseen."""
        for client in self.clients:
            client.close()
        await self.listener.drain(10)
        await self.empty()
        assert not self.listener._of_client
        assert not self.faults_of_the_loop


def session_tasks() -> list[asyncio.Task[Any]]:
    """The tasks of all sessions that have not ended."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == "Session._handle_client"]


@dataclass
class Offer:
    """A certificate, in a context; `works` may change."""

    context: ssl.SSLContext
    works: bool = True


@contextlib.asynccontextmanager
async def front_door(*hosts: str, tls: Offer | ssl.SSLContext | None = None, secure: bool = False, trust: Trust | None = None,
                     smtputf8: bool = False, reverse_name: Callable[[str], Awaitable[str]] | None = None, send_buffer: int = 0,
                     failures: int = 0, listed: Listed | None = None, quotas: Quotas | None = None, **limits: Any) -> AsyncIterator[Door]:
    """A listener on free ports of `hosts` (127.0.0.1 when none), under these limits. It must log exactly `failures` internal errors.

    `secure`: TLS begins with the connection, on all of them.
    """
    intake, journal = SpoolIntake(), Journal()
    await intake.spool.start()
    offer = Offer(tls) if isinstance(tls, ssl.SSLContext) else tls
    listener = Listener(intake, journal.log, hostname=HOSTNAME, limits=Limits(**limits), tls=offer, trust=trust, smtputf8=smtputf8,
                        reverse_name=reverse_name, listed=listed, quotas=quotas)
    sockets = [sock for host in hosts or ("127.0.0.1",) for sock in bind(host, 0)]
    if send_buffer:
        for sock in sockets:
            sock.setsockopt(1, 7, send_buffer)  # SOL_SOCKET, SO_SNDBUF: connections inherit it
    door = Door(listener, intake, journal, [sock.getsockname()[:2] for sock in sockets])
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: door.faults_of_the_loop.append(context))
    await (listener.open((), sockets) if secure else listener.open(sockets))
    try:
        yield door
    finally:
        await door.close()
    assert len(journal.of(Event.SESSION_FAILED)) == failures, journal.of(Event.SESSION_FAILED)
