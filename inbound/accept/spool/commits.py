"""Group commit: one thread owns the database, and everything that arrived while a commit ran shares the next one.

A sync costs the same for one message and for a hundred: nobody waits for company, and under load it comes by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from inbound.accept.spool import SpoolError
from inbound.accept.spool.database import Connection
from inbound.accept.spool.transactions import Operation, Transactions

LAZY_SECONDS = 0.05
MEMORY_SECONDS = 0.05  # until it is tried again whether there is some
BATCH_LIMIT = 500  # operations in one transaction

Committed = Callable[[Any, bool], None]
Measured = Callable[[int, float], None]
"""Told, in the event loop, of each transaction that wrote: how many operations shared it, and the seconds that it took."""


class _Request:
    """An operation on its way, and who is told how it went: a future, and callbacks that no cancellation takes away."""

    __slots__ = ("committed", "failed", "future", "operation")

    def __init__(self, operation: Operation, future: asyncio.Future[Any], committed: Committed | None, failed: Callable[[], object] | None) -> None:
        self.operation = operation
        self.future = future
        self.committed = committed
        self.failed = failed

    def settle(self, outcome: Any) -> None:
        awaited = not self.future.done()
        if isinstance(outcome, Exception):
            if self.failed:
                self.failed()
            if awaited:
                self.future.set_exception(outcome)
            return
        if self.committed:
            self.committed(outcome, awaited)
        if awaited:
            self.future.set_result(outcome)


class GroupCommit:
    """The thread that owns the database, and the operations on their way to it. Made, and used, in a running event loop."""

    def __init__(self, transactions: Transactions, measured: Measured) -> None:
        self._transactions = transactions
        self._measured = measured
        self._loop = asyncio.get_running_loop()
        self._requests: deque[_Request] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._awake = False
        self._rousing = False
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def start(self, opening: Callable[[], Connection], closing: Callable[[], None]) -> None:
        """Start the thread. `opening` gives it the first connection, `closing` is what it does last; what `opening` raises is raised."""
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opening, closing, opened), name="spool", daemon=True)
        self._thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._close()
            raise

    async def stop(self) -> None:
        """Commit what was submitted, close the connection, end the thread."""
        self._close()
        await asyncio.shield(self._ended)
        self._thread.join()

    def submit(
        self,
        operation: Operation,
        *,
        lazy: bool = False,
        committed: Committed | None = None,
        failed: Callable[[], object] | None = None,
    ) -> asyncio.Future[Any]:
        """A future of the result, given when it is durable. It raises KeyError or SpoolError; after `stop`, `submit` itself does.

        `lazy` waits for another operation to share its commit, at most 50 ms. A cancelled future does not stop the operation:
        `committed` is told the result and whether it is still awaited, `failed` that nothing was written, both in the event loop.
        """
        if self._closed:
            raise SpoolError("the spool is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._requests.append(_Request(operation, future, committed, failed))
        if not lazy:
            self._rouse_soon()
        elif self._lazy_timer is None:
            self._lazy_timer = self._loop.call_later(LAZY_SECONDS, self._end_laziness)
        return future

    def _end_laziness(self) -> None:
        self._lazy_timer = None
        if self._requests:
            self._rouse()

    def _close(self) -> None:
        self._closed = True
        self._rouse()
        if self._lazy_timer:
            self._lazy_timer.cancel()

    def _rouse_soon(self) -> None:
        """After this turn of the event loop, so that what it brings goes together: the thread would start with the first at once."""
        if not self._rousing:
            self._rousing = True
            self._loop.call_soon(self._rouse)

    def _rouse(self) -> None:
        self._rousing = False
        if not self._awake:  # the thread clears this before it takes the requests, so none is left behind
            self._awake = True
            self._wake.put(None)

    def _run(self, opening: Callable[[], Connection], closing: Callable[[], None], opened: asyncio.Future[None]) -> None:
        try:
            self._transactions.begin_with(opening())
        except BaseException as error:  # handed to whoever awaits the start
            self._tell(_settle, opened, error)
            return
        self._tell(_settle, opened, None)
        self._serve()
        self._transactions.close()
        closing()
        self._tell(_settle, self._ended, None)

    def _serve(self) -> None:
        while not (self._closed and not self._requests):
            self._wake.get()
            self._awake = False
            waiting = self._take()
            for start in range(0, len(waiting), BATCH_LIMIT):
                self._commit(waiting[start : start + BATCH_LIMIT])

    def _commit(self, batch: Sequence[_Request]) -> None:
        before, began = self._transactions.count, time.perf_counter()
        outcomes = self._transactions.run([request.operation for request in batch])
        seconds = time.perf_counter() - began if self._transactions.count > before else None
        self._tell(self._settle, batch, outcomes, seconds)

    def _settle(self, batch: Sequence[_Request], outcomes: Sequence[Any], seconds: float | None) -> None:
        if seconds is not None:
            self._measured(len(batch), seconds)
        for request, outcome in zip(batch, outcomes, strict=True):
            request.settle(outcome)

    def _take(self) -> list[_Request]:
        waiting: list[_Request] = []
        with contextlib.suppress(IndexError):
            while True:
                waiting.append(self._requests.popleft())
        return waiting

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        while True:
            try:
                self._loop.call_soon_threadsafe(function, *arguments)
            except MemoryError:
                time.sleep(MEMORY_SECONDS)  # whoever waits hears of it from nobody else
            except RuntimeError:  # the event loop is closed, so nobody is left to be told
                return
            else:
                return


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
