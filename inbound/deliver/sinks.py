"""The sinks (buckets, topics, functions) as the worker sees them: a limit on concurrent calls and a breaker each.

No sink holds up messages for others: a call waits only for its own sink's slots, and not in any number.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from inbound.assess.scanning import ScannerBusy, ScannerDown
from inbound.deliver.retry import Breaker, Circuit
from inbound.log import Event, Log

CONCURRENT_CALLS = 16
QUEUE_LIMIT = 64  # calls that wait for a slot; more are parked in the spool
QUEUE_LOW = 8  # parked messages come back when fewer wait


class SinkFailure(Exception):
    """A call that failed. The text is the sink's own, for people."""


class SinkDown(SinkFailure):
    """The sink failed for reasons of its own (not reachable, forbidden, missing, throttled, timed out): time or an operator may cure it."""


class MessageFailed(SinkFailure):
    """The sink is well, but would not take this message now (a function that raised): retried, and no other message waits for it."""


class MessageRefused(SinkFailure):
    """No repetition of this message could cure it (too large): a dead letter at once."""


class SinkClosed(Exception):
    """The call was not made: the breaker is open. Carries the sink's last error."""


class SinkBusy(Exception):
    """The call was not made: too many wait for this sink already."""


class Sink:
    """One sink."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.breaker = Breaker()
        self.slots = asyncio.Semaphore(CONCURRENT_CALLS)
        self.waiting = 0
        self.parked = False
        self.settled = asyncio.Event()  # a probe had its outcome
        self.prober: asyncio.Task[None] | None = None


class Sinks:
    """All sinks by name, made on first use. `release(name, limit)` lets that many messages go that wait for the sink in the spool."""

    def __init__(self, release: Callable[[str, int], Awaitable[int]], log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._release = release
        self._log = log
        self._clock = clock
        self._sinks: dict[str, Sink] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Sink:
        """The sink of that name."""
        sink = self._sinks.get(name)
        if sink is None:
            sink = self._sinks[name] = Sink(name)
        return sink

    def states(self) -> dict[str, Circuit]:
        """The breaker state of every sink used so far."""
        return {name: sink.breaker.circuit for name, sink in self._sinks.items()}

    @contextlib.asynccontextmanager
    async def call(self, name: str) -> AsyncIterator[None]:
        """Around one call to the sink: waits for a slot, and learns from the outcome. Raises SinkClosed or SinkBusy instead of waiting long."""
        sink = self.get(name)
        if sink.waiting >= QUEUE_LIMIT:
            sink.parked = True
            raise SinkBusy
        self._admit(sink, take=False)
        sink.waiting += 1
        try:
            await sink.slots.acquire()
        finally:
            sink.waiting -= 1
        try:
            self._admit(sink, take=True)
            try:
                yield
            except SinkDown as error:
                self._failed(sink, str(error))
                raise
            except (MessageFailed, MessageRefused):
                self._succeeded(sink)  # the sink is well; only this message is not
                raise
            except BaseException:
                sink.breaker.abandoned(self._clock())
                sink.settled.set()
                raise
            else:
                self._succeeded(sink)
        finally:
            sink.slots.release()
            if sink.parked and sink.waiting < QUEUE_LOW:
                sink.parked = False
                self._spawn(self._let_go(sink, QUEUE_LIMIT))

    @contextlib.asynccontextmanager
    async def scanner(self, name: str) -> AsyncIterator[None]:
        """`call` for one look of a scanner at a message: a scanner that is down is left alone as a sink is. Raises ScannerDown, ScannerBusy."""
        try:
            async with self.call(name):
                try:
                    yield
                except ScannerDown as error:
                    raise SinkDown(str(error)) from error
        except SinkDown as error:
            raise ScannerDown(str(error)) from error
        except SinkClosed as error:
            raise ScannerDown(str(error), asked=False) from error
        except SinkBusy as error:
            raise ScannerBusy("too many messages wait for it") from error

    def expect(self, name: str) -> None:
        """Messages already wait for this sink (after a restart): let one go to see, the others when it answers."""
        sink = self.get(name)
        sink.breaker.circuit = Circuit.OPEN
        sink.breaker.probe_at = self._clock()
        sink.breaker.last_error = "was failing before the restart"
        self._probe(sink)

    async def stop(self) -> None:
        """End all probing."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _admit(self, sink: Sink, *, take: bool) -> None:
        breaker = sink.breaker
        if breaker.circuit is Circuit.CLOSED:
            return
        now = self._clock()
        admitted = breaker.admits(now) if take else breaker.circuit is Circuit.OPEN and now >= breaker.probe_at
        if not admitted:
            raise SinkClosed(breaker.last_error)

    def _succeeded(self, sink: Sink) -> None:
        if sink.breaker.succeeded():
            self._log.info(Event.SINK_UP, sink=sink.name)
            self._spawn(self._let_go(sink, 1_000_000))
        sink.settled.set()

    def _failed(self, sink: Sink, error: str) -> None:
        if sink.breaker.failed(self._clock(), error):
            self._log.warning(Event.SINK_DOWN, sink=sink.name, error=error)
        if sink.breaker.circuit is Circuit.OPEN:
            self._probe(sink)
        sink.settled.set()

    async def _let_go(self, sink: Sink, limit: int) -> None:
        await self._release(sink.name, limit)

    def _probe(self, sink: Sink) -> None:
        if sink.prober is None or sink.prober.done():
            sink.prober = self._spawn(self._probing(sink))

    async def _probing(self, sink: Sink) -> None:
        """While the breaker is open, let one waiting message go whenever its time comes; if none waits, the next that comes is the probe."""
        while sink.breaker.circuit is not Circuit.CLOSED:
            await asyncio.sleep(max(0.0, sink.breaker.probe_at - self._clock()))
            sink.settled.clear()
            if not await self._release(sink.name, 1):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * Breaker.LONGEST_PROBE):  # wait_for of Python 3.11 may swallow a cancellation
                    await sink.settled.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
