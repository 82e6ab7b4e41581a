"""A server that keeps the very octets of each request, answers as told, and may misbehave as servers do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

OK = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n'


@dataclass
class Asked:
    """One request. `headers` have lower-case names; `connection` counts connections from 1."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class Wire:
    """`answer` makes the octets of an answer; None closes the connection without one, an Event is waited for before that.

    `continues`: says 100 (Continue) where it is asked to. `takes`: octets of a body that it reads, then no more.
    """

    answer: Callable[[Asked], bytes | asyncio.Event | None] = lambda _: OK
    continues: bool = True
    refuses: bytes = b""  # the answer, before any body, to who asks whether to send it
    closes_idle: bool = False
    takes: int | None = None
    keeps_bodies: bool = True
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while await self._one(reader, writer, number):
                if self.closes_idle:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        if headers.get("expect"):
            if self.refuses:
                self.asked.append(Asked(line, headers, b"", number))
                writer.write(self.refuses)
                await writer.drain()
                return False
            if self.continues:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.takes is not None:
            await reader.readexactly(self.takes)
            await asyncio.Event().wait()
        if line.startswith("CONNECT "):
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = await self._chunks(reader)
        else:
            body = await self._body(reader, int(headers.get("content-length", 0)))
        asked = Asked(line, headers, body, number)
        self.asked.append(asked)
        answer = self.answer(asked)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = None
        if answer is None:
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def _body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        if self.keeps_bodies:
            return await reader.readexactly(length)
        while length:
            length -= len(await reader.read(min(length, 65_536)))
        return b""

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body


def http(status: int, body: str = "", **headers: str) -> bytes:
    """The octets of an answer; `x_amz_bucket_region` is the header X-Amz-Bucket-Region."""
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{told}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def failure(code: str, text: str = "told to fail", region: str = "") -> str:
    """The XML of S3."""
    return f"<Error><Code>{code}</Code><Message>{text}</Message>{f'<Region>{region}</Region>' if region else ''}</Error>"
