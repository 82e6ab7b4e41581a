"""Viruses: clamd is asked over TCP or a Unix socket, the message streamed to it (INSTREAM, clamd(8)).

A client of our own in few lines: of those on PyPI the asynchronous ones know no Unix socket, and lose clamd's answer to a stream too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from pathlib import Path

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
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ScannerDown(str(error) or type(error).__name__) from None

    async def close(self) -> None:
        """Nothing is kept open between messages."""

    async def _ask(self, content: Content) -> str:
        reader, writer = await self._connect()
        try:
            with contextlib.suppress(ConnectionError):  # a clamd that has had enough answers and closes; what it said is read below
                await _send(writer, content)
            return (await reader.readuntil(b"\0"))[:-1].decode("utf-8", "replace").strip()
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._address, Path):
            return await asyncio.open_unix_connection(self._address, limit=_REPLY_LIMIT)
        return await asyncio.open_connection(*self._address, limit=_REPLY_LIMIT)


async def _send(writer: asyncio.StreamWriter, content: Content) -> None:
    writer.write(b"zINSTREAM\0")
    async for piece in pieces(content):
        writer.write(struct.pack("!L", len(piece)))
        writer.write(piece)
        await writer.drain()
    writer.write(struct.pack("!L", 0))
    await writer.drain()


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
