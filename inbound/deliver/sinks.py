"""The sinks (buckets, topics, functions) as the worker sees them: a limit on concurrent calls and a breaker each.

No sink holds up messages for others: a call waits only for its own sink's slots, and not in any number; the more calls are held up in all,
the fewer of them may be for one sink.
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
QUEUE_LIMIT = 64  # calls that wait for a slot; more messages wait in the spool
CALLS = 384  # to all sinks together; a sink may have no more of them than are left
PROBES = 128  # sinks that are probed at once: a probe may hang
HUNG = 10.0  # seconds; a call that failed after so long is no accident
LOOK = 5.0  # seconds after which what was let go is not expected any more


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
        self.down_since: float | None = None  # by the clock of the sinks; None while the breaker is closed
        self.calls = 0  # under way or waiting for a slot
        self.coming = 0  # messages let go from the spool whose calls are still to come
        self.moved = asyncio.Event()  # a call ended
        self.settled = asyncio.Event()  # a probe had its outcome
        self.prober: asyncio.Task[None] | None = None
        self.releaser: asyncio.Task[None] | None = None


class Sinks:
    """All sinks by name, made on first use. `release(name, limit)` lets that many messages go that wait for the sink in the spool."""

    def __init__(self, release: Callable[[str, int], Awaitable[int]], log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._release = release
        self._log = log
        self._clock = clock
        self._sinks: dict[str, Sink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._probes = 0
        self._stopped = False

    def get(self, name: str) -> Sink:
        """The sink of that name."""
        sink = self._sinks.get(name)
        if sink is None:
            sink = self._sinks[name] = Sink(name)
        return sink

    def states(self) -> dict[str, Circuit]:
        """The breaker state of every sink used so far."""
        return {name: sink.breaker.circuit for name, sink in self._sinks.items()}

    def down(self) -> dict[str, float]:
        """How many seconds each sink has been left alone whose breaker is not closed."""
        now = self._clock()
        return {name: now - sink.down_since for name, sink in self._sinks.items() if sink.down_since is not None}

    def is_letting_go(self, name: str) -> bool:
        """Do messages that waited for the sink go to it now?"""
        sink = self.get(name)
        return sink.breaker.circuit is Circuit.CLOSED and sink.releaser is not None and not sink.releaser.done()

    def is_down(self, name: str) -> bool:
        """Did the sink fail just now? Not known of one that is being probed, or is about to be."""
        breaker = self.get(name).breaker
        return breaker.circuit is Circuit.OPEN and self._clock() < breaker.probe_at

    @contextlib.asynccontextmanager
    async def call(self, name: str) -> AsyncIterator[None]:
        """Around one call to the sink: waits for a slot, and learns from the outcome. Raises SinkClosed or SinkBusy instead of waiting long."""
        sink = self.get(name)
        sink.coming = max(0, sink.coming - 1)
        self._check(sink)
        if sink.calls >= self._share():
            raise SinkBusy
        sink.calls += 1
        self._calls += 1
        is_probe = False
        try:
            async with sink.slots:
                is_probe = self._admit(sink)
                started = self._clock()
                try:
                    yield
                except SinkDown as error:
                    self._failed(sink, str(error), hung=self._clock() - started >= HUNG)
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
            self._probes -= is_probe
            sink.calls -= 1
            self._calls -= 1
            sink.moved.set()

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
        sink.breaker.last_error = "messages waited for it before the restart; one goes first, to see whether it answers"
        sink.down_since = self._clock()
        self._probe(sink)

    def waits(self, name: str, *, failed: bool) -> None:
        """A message now waits in the spool for this sink, because its call `failed` or was not made. It goes when the sink answers, or has room."""
        sink = self.get(name)
        if sink.breaker.circuit is not Circuit.CLOSED:
            self._probe(sink)
        elif not failed:
            self._let_go(sink)

    async def stop(self) -> None:
        """End all probing, and let nothing go any more."""
        self._stopped = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _share(self) -> int:
        """How many calls one sink may have now."""
        return min(CONCURRENT_CALLS + QUEUE_LIMIT, max(1, CALLS - self._calls))

    def _check(self, sink: Sink) -> None:
        """Raises SinkClosed where a call would not be made."""
        breaker = sink.breaker
        if breaker.circuit is Circuit.CLOSED:
            return
        if breaker.circuit is Circuit.PROBING or self._clock() < breaker.probe_at or self._probes >= PROBES:
            raise SinkClosed(breaker.last_error)

    def _admit(self, sink: Sink) -> bool:
        """Is the call the probe of a sink whose breaker is open? It counts as one then. Raises SinkClosed where another is, or none may be."""
        is_probe = sink.breaker.circuit is Circuit.OPEN
        if (is_probe and self._probes >= PROBES) or not sink.breaker.admits(self._clock()):
            raise SinkClosed(sink.breaker.last_error)
        self._probes += is_probe
        return is_probe

    def _succeeded(self, sink: Sink) -> None:
        if sink.breaker.succeeded():
            sink.down_since = None
            self._log.info(Event.SINK_UP, sink=sink.name)
            self._let_go(sink)
        sink.settled.set()

    def _failed(self, sink: Sink, error: str, *, hung: bool) -> None:
        if sink.breaker.failed(self._clock(), error, certain=hung):
            sink.down_since = self._clock()
            self._log.warning(Event.SINK_DOWN, sink=sink.name, error=error)
        if sink.breaker.circuit is Circuit.OPEN:
            self._probe(sink)
        sink.settled.set()

    def _probe(self, sink: Sink) -> None:
        if sink.prober is None or sink.prober.done():
            sink.prober = self._spawn(self._probing(sink))

    async def _probing(self, sink: Sink) -> None:
        """While the breaker is open, let one waiting message go whenever its time comes; if none waits, the next that comes is the probe."""
        while sink.breaker.circuit is not Circuit.CLOSED:
            if sink.breaker.circuit is Circuit.OPEN and self._probes < PROBES:
                await asyncio.sleep(max(0.0, sink.breaker.probe_at - self._clock()))
                sink.settled.clear()
                if not await self._release(sink.name, 1):
                    return
            await set_within(sink.settled, 2 * Breaker.LONGEST_PROBE)
            sink.settled.clear()

    def _let_go(self, sink: Sink) -> None:
        sink.moved.set()
        if sink.releaser is None or sink.releaser.done():
            sink.releaser = self._spawn(self._letting_go(sink))

    async def _letting_go(self, sink: Sink) -> None:
        """Let messages go that wait in the spool: as many as the sink takes, and more whenever half of these are through, until none waits."""
        sink.coming = 0
        while sink.breaker.circuit is Circuit.CLOSED:
            sink.moved.clear()
            room = self._share() - sink.calls - sink.coming
            if 2 * room >= self._share():
                released = await self._release(sink.name, room)
                if not released:
                    return
                sink.coming += released
            elif not await set_within(sink.moved, LOOK):
                sink.coming = 0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self._stopped:
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, at most so long; is it?"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for of Python 3.11 may swallow a cancellation
            await event.wait()
    return event.is_set()
