"""Questions and answers between the parent and a child: a line of JSON each, over a socket that nobody else has."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

LINE = 64 * 1024 * 1024  # octets: a rule file, or the numbers of every rule

Handler = Callable[..., Awaitable[Any]]


class Unanswered(Exception):
    """The other side is gone, or took too long."""


class Failed(Exception):
    """The other side raised: `kind` is the name of the exception there."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Channel:
    """One end. `handlers` answer what the other end asks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Mapping[str, Handler]) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, sock: socket.socket, handlers: Mapping[str, Handler]) -> Self:
        """A channel over a connected socket, which it owns."""
        return cls(*await asyncio.open_connection(sock=sock, limit=LINE), handlers)

    async def ask(self, question: str, *details: Any, seconds: float) -> Any:
        """The answer. Raises Failed, Unanswered."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"number": number, "ask": question, "details": details})
            async with asyncio.timeout(seconds):
                return await answer
        except (TimeoutError, ConnectionError):
            raise Unanswered(question) from None
        finally:
            del self._waiting[number]

    async def run(self) -> None:
        """Take questions and answers until the other end is gone; then whatever still waits for an answer is Unanswered."""
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (ConnectionError, ValueError):
            pass
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Unanswered("the other end is gone"))
            self._writer.close()

    def _take(self, told: dict[str, Any]) -> None:
        if "ask" in told:
            task = asyncio.create_task(self._answer(told))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        answer = self._waiting.get(told["number"])
        if answer is None or answer.done():
            return
        if "failed" in told:
            answer.set_exception(Failed(*told["failed"]))
        else:
            answer.set_result(told["answer"])

    async def _answer(self, told: dict[str, Any]) -> None:
        try:
            answer = {"answer": await self._handlers[told["ask"]](*told["details"])}
        except Exception as error:
            answer = {"failed": [type(error).__name__, str(error)]}
        self._send({"number": told["number"], **answer})

    def _send(self, message: dict[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")
