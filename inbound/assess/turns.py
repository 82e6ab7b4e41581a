"""Fairness on the event loop: what a header costs is bounded, but hundreds of hostile ones at once would cost everybody else seconds.

So pure work on headers takes turns: little of it in one round of the loop, and what is large in a thread, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakSet

T = TypeVar("T")

INLINE = 16_384  # octets of header that the event loop reads by itself: more than nearly all mail has
KEEPERS = 16  # a large header that is read may take 5 MB
ROUND = 0.02  # seconds of such work in one round of the event loop, after which the rest waits for the next


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._large = asyncio.Lock()
        self._keepers: WeakSet[object] = WeakSet()

    async def take(self, octets: int, work: Callable[[], T]) -> T:
        """What `work` on a header of so many octets returns. Raises what it raises."""
        if octets > INLINE:
            async with self._large:
                return await asyncio.to_thread(work)
        await self.come()
        with self.taken():
            return work()

    async def come(self) -> None:
        """Wait for a round of the event loop in which there is time; usually there is."""
        while self._spent >= ROUND:  # noqa: ASYNC110  # an event would wake all who wait in one round
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Around work that is done now: its time counts."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if not self._spent:
                asyncio.get_running_loop().call_soon(self._next_round)
            self._spent += time.perf_counter() - started

    def may_keep(self, who: object) -> bool:
        """May this one keep what it read of a large header, for as long as it lives? Only some may, since hundreds may be in hand."""
        if len(self._keepers) < KEEPERS:
            self._keepers.add(who)
        return who in self._keepers

    def _next_round(self) -> None:
        self._spent = 0.0


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns() -> Turns:
    """Those of the running event loop. Raises RuntimeError where none runs."""
    loop = asyncio.get_running_loop()
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = Turns()
    return found
