"""Promises 2, 3 and 6: whatever kills the service and cuts its calls, what was acknowledged arrives, exactly as it was sent, and nothing
arrives twice without a crash or an unknown outcome that explains it.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from ledger import RULES, Ledger, Receiver, emptied, left
from process import Serve
from proxy import Proxy

CONNECTIONS = 8
SOON = {"retry_min": "0.2", "retry_max": "1", "max_connections_per_client": "100"}


class Lives:
    """A service under load, ended again and again. `crashed` counts how often each message was in hand when that happened."""

    def __init__(self, folder: Path, sink: Receiver, proxy: Proxy, seed: int) -> None:
        self.serve = Serve(folder, RULES, proxy.endpoint, **SOON)
        self.ledger = Ledger(seed)
        self.sink, self.proxy = sink, proxy
        self.crashed: Counter[str] = Counter()
        answers = itertools.count(1)
        proxy.cuts = lambda message_id: next(answers) % 25 == 0 and proxy.cut[message_id] < 3

    async def live(self, number: int) -> tuple[int, float]:
        """One life under load, ended by a signal at a random moment; the exit status, and how many seconds the end took."""
        await self.serve.start()
        stop = asyncio.Event()
        target = len(self.ledger.acknowledged) + self.ledger.dice.randint(5, 120)
        clients = [asyncio.create_task(self.ledger.load(self.serve.port, stop)) for _ in range(CONNECTIONS)]
        async with asyncio.timeout(60):
            while len(self.ledger.acknowledged) < target and not all(client.done() for client in clients):
                await asyncio.wait(clients, timeout=self.ledger.dice.random() * 0.05)
        began = time.monotonic()
        status = await self.serve.kill(number)
        seconds = time.monotonic() - began
        stop.set()
        await asyncio.gather(*clients)
        await self.proxy.quiet()
        if number == signal.SIGKILL:
            self.crashed.update(self.known() - self.done())
        return status, seconds

    def known(self) -> set[str]:
        """Every id that was acknowledged, delivered or logged."""
        received = {e["id"] for e in self.serve.events if e["event"] == "message.received"}
        return received | self.ledger.acknowledged.keys() | self.sink.stored.keys() | self.sink.told.keys()

    def done(self) -> set[str]:
        """The ids whose end is in the spool: nothing of them may be done again."""
        return {e["id"] for e in self.serve.events if e["event"] == "message.done"}

    async def conclude(self) -> int:
        """The service delivers the rest in peace. Everything is held to the ledger; how many calls were made twice."""
        await self.serve.start()
        await self.ledger.settled(self.sink)
        await emptied(self.serve)
        assert await self.serve.kill(signal.SIGTERM) == 0
        await self.proxy.quiet()
        self.ledger.check(self.sink)
        assert left(self.serve) == {}
        return self.duplicates(self.sink.stored) + self.duplicates(self.sink.told)

    def duplicates(self, made: Counter[str]) -> int:
        """How many calls came again, each explained by a crash while its message was in hand, or by a cut after the sink had it."""
        unexplained = {i: n for i, n in made.items() if n - 1 > self.crashed[i] + self.proxy.cut[i]}
        assert not unexplained, f"{unexplained}; crashed {self.crashed}; cut {self.proxy.cut}"
        return sum(n - 1 for n in made.values())


async def lived(folder: Path, number: int, times: int, seed: int) -> tuple[Lives, int]:
    async with Receiver() as sink, Proxy(sink.endpoint) as proxy:
        lives = Lives(folder, sink, proxy, seed)
        for _ in range(times):
            status, seconds = await lives.live(number)
            assert status == (0 if number == signal.SIGTERM else -number)
            assert seconds < 30
        duplicates = await lives.conclude()
    assert len(lives.ledger.acknowledged) >= 5 * times
    assert proxy.cut, "no answer was lost on its way"
    counted = f"{len(lives.ledger.acknowledged)} acknowledged, {len(lives.ledger.refused)} refused"
    sys.stdout.write(f"{counted}, {times} ends, {duplicates} calls made again\n")
    return lives, duplicates


async def test_killed_at_random_under_load_nothing_is_lost_or_torn(tmp_path: Path) -> None:
    await lived(tmp_path, signal.SIGKILL, 4, seed=7)


async def test_ended_in_good_order_under_load_nothing_is_lost_or_made_again(tmp_path: Path) -> None:
    lives, _ = await lived(tmp_path, signal.SIGTERM, 2, seed=8)
    assert not lives.crashed


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_random_thirty_times(tmp_path: Path, seed: int) -> None:
    await lived(tmp_path, signal.SIGKILL, 30, seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_ended_in_good_order_twenty_times(tmp_path: Path) -> None:
    await lived(tmp_path, signal.SIGTERM, 20, seed=1)
