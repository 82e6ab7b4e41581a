"""A TCP proxy between a service and its sink, which can cut a call after its body and before its answer, or play dead in other ways."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

MESSAGE_ID = re.compile(rb"(?:PUT /mail/|messageId%22%3A%22)([0-9a-v]{40})")
TAIL = 57  # octets of a piece that are looked at again with the next: all but one of the longest match


class Proxy:
    """`endpoint` passes on to the sink at `upstream`.

    `cuts(message_id)`: reset the connection when the sink has answered a call for this message, before the service sees the answer;
    `cut` counts these. `mode` is what connections meet from now on: `pass`, `reset` (at once), `silent` (accepted, never answered),
    `half` (half an answer, then the end), `slow` (`delay` seconds before each answer). `open` is how many connections there are.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self.endpoint = ""
        self.mode = "pass"
        self.delay = 1.0
        self.cuts: Callable[[str], bool] = lambda _: False
        self.cut: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset_all()
        await self.quiet()

    def heal(self) -> None:
        """Pass on from now on, and end the connections of before."""
        self.mode = "pass"
        self.reset_all()

    def reset_all(self) -> None:
        """RST to everybody."""
        for writer in list(self._writers):
            _reset(writer)

    async def quiet(self) -> None:
        """Return when no connection is open: the sink has had all that a dead service sent."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: not self._writers), 30)

    async def until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until the condition holds, looking again after every connection and call."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(holds), seconds)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)  # the loop does not keep it
        self.met[self.mode] += 1
        await self._tell()
        try:
            with contextlib.suppress(ConnectionError):
                if self.mode == "reset":
                    _reset(writer)
                elif self.mode == "silent":
                    while await reader.read(65536):
                        pass
                else:
                    await self._pass(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._writers.discard(writer)
            self._tasks.discard(task)
            await self._tell()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sink_reader, sink_writer = await asyncio.open_connection(*self._upstream)
        asked: list[str] = []
        back = asyncio.create_task(self._back(sink_reader, writer, asked))
        tail = b""
        try:
            while piece := await reader.read(65536):
                asked += [found.decode() for found in MESSAGE_ID.findall(tail + piece)]
                tail = (tail + piece)[-TAIL:]
                sink_writer.write(piece)
                await sink_writer.drain()
        finally:
            with contextlib.suppress(ConnectionError, RuntimeError):
                sink_writer.write_eof()
            await asyncio.wait((back,), timeout=5)  # the sink may not notice that nobody reads its answer
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            sink_writer.close()
            with contextlib.suppress(ConnectionError):
                await sink_writer.wait_closed()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[str]) -> None:
        while piece := await reader.read(65536):
            if piece.startswith(b"HTTP/1.1 100"):
                writer.write(piece)
                continue
            if asked and self.cuts(asked[0]):
                self.cut.update(asked)  # of a batch, all that are in it
                _reset(writer)
                return
            if self.mode == "half":
                writer.write(piece[: len(piece) // 2])
                writer.close()
                return
            if self.mode == "slow":
                await asyncio.sleep(self.delay)
            asked.clear()
            writer.write(piece)
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
