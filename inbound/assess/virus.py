"""Viruses: clamd is asked over TCP or a Unix socket, the message streamed to it (INSTREAM, clamd(8)).

A client of our own in few lines: of those on PyPI the asynchronous ones know no Unix socket, and lose clamd's answer to a stream too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess.scanning import ScannerDown, pieces
from inbound.assess.verdicts import Status, Verdict

_REPLY_LIMIT = 4096  # octets; a reply is a name and a word
_NOT_WHOLE = "Heuristics.Limits.Exceeded"  # clamd gave up within the message (AlertExceedsMax), and found nothing so far


class Clamd:
    """clamd at `address`: host and port, or the path of its socket.

    A message of more than `limit` octets is not sent (clamd takes no more than its StreamMaxLength); an answer may take `timeout` seconds.
    """

    def __init__(self, address: tuple[str, int] | Path, *, limit: int, timeout: float) -> None:
        self._address = address
        self._limit = limit
        self._timeout = timeout
        self.name = f"clamd:{address}" if isinstance(address, Path) else f"clamd:{address[0]}:{address[1]}"

    async def scan(self, _envelope: Envelope, content: Content) -> Verdict:
        """PASS or FAIL with the name of what was found; PROCESSING_FAILED for what clamd cannot scan whole. Raises ScannerDown."""
        if content.size > self._limit:
            return Verdict(Status.PROCESSING_FAILED, f"not scanned: it has {content.size} octets, and clamd gets {self._limit} at most")
        try:
            async with asyncio.timeout(self._timeout):
                return _verdict(await self._ask(content))
        except TimeoutError:
            raise ScannerDown(f"no answer in {self._timeout:g} s") from None
        except OSError as error:
            raise ScannerDown(error.strerror or str(error)) from None

    async def close(self) -> None:
        """Nothing is kept open between messages."""

    async def _ask(self, content: Content) -> str:
        with await self._connect() as sock:
            with contextlib.suppress(ConnectionError):  # a clamd that has had enough answers and closes; what it said is read below
                await _send(sock, content)
            return await _reply(sock)

    async def _connect(self) -> socket.socket:
        """A raw socket: a stream of asyncio's would lose what clamd said before it closed."""
        if isinstance(self._address, Path):
            return await _connected(socket.AF_UNIX, str(self._address))
        host, port = self._address
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, *_, name in found[:-1]:
            with contextlib.suppress(OSError):
                return await _connected(family, name)
        return await _connected(found[-1][0], found[-1][-1])


async def _connected(family: int, name: tuple[Any, ...] | str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, name)
    except BaseException:
        sock.close()
        raise
    return sock


async def _send(sock: socket.socket, content: Content) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"zINSTREAM\0")
    async for piece in pieces(content):
        await loop.sock_sendall(sock, struct.pack("!L", len(piece)) + piece)
    await loop.sock_sendall(sock, struct.pack("!L", 0))


async def _reply(sock: socket.socket) -> str:
    """What clamd says, up to its NUL. Raises ConnectionError without one."""
    loop = asyncio.get_running_loop()
    said = b""
    while b"\0" not in said and len(said) <= _REPLY_LIMIT:
        piece = await loop.sock_recv(sock, _REPLY_LIMIT)
        if not piece:
            break
        said += piece
    reply, end, _ = said.partition(b"\0")
    if not end:
        raise ConnectionError("the connection was closed without an answer")
    return reply.decode("utf-8", "replace").strip()


def _verdict(reply: str) -> Verdict:
    """From `stream: OK`, `stream: NAME FOUND`, or a line that ends in ERROR."""
    said = reply.removeprefix("stream: ")
    if said == "OK":
        return Verdict(Status.PASS, "clamd found nothing")
    if said.endswith(" FOUND"):
        name = said.removesuffix(" FOUND")
        if name.startswith(_NOT_WHOLE):
            return Verdict(Status.PROCESSING_FAILED, f"not scanned whole: {name}")
        return Verdict(Status.FAIL, name)
    return Verdict(Status.PROCESSING_FAILED, f"clamd says: {said.removesuffix(' ERROR')[:200]}")
