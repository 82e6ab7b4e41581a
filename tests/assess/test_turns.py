"""Work on headers takes turns: found as a stall of 14 seconds for everybody when a hundred costly headers came at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from inbound.assess import turns as module
from inbound.assess.turns import INLINE, KEEPERS, ROUND, Turns, turns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the work itself moves on."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


async def test_many_costly_headers_at_once_are_one_a_round(clock: list[float]) -> None:
    mine, rounds, done = Turns(), [0], list[int]()

    async def others() -> None:
        while True:
            rounds[0] += 1
            await asyncio.sleep(0)

    def work() -> None:
        clock[0] += 2 * ROUND
        done.append(rounds[0])

    running = asyncio.create_task(others())
    await asyncio.gather(*(mine.take(10, work) for _ in range(50)))
    running.cancel()
    assert len(done) == 50
    assert len(set(done)) == 50, "others had their turn between any two"


async def test_cheap_headers_do_not_wait_for_another_round(clock: list[float]) -> None:
    mine, done = Turns(), list[int]()

    async def one(number: int) -> None:
        await mine.take(10, lambda: done.append(number))

    tasks = [asyncio.create_task(one(number)) for number in range(200)]
    await asyncio.sleep(0)
    assert len(done) == 200
    await asyncio.gather(*tasks)


async def test_large_headers_are_read_beside_the_event_loop_one_after_the_other() -> None:
    mine, at_once, most, threads = Turns(), [0], [0], set[int]()

    def work() -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        threads.add(threading.get_ident())
        time.sleep(0.001)
        at_once[0] -= 1

    await asyncio.gather(*(mine.take(INLINE + 1, work) for _ in range(20)))
    assert threading.get_ident() not in threads
    assert most == [1]


@pytest.mark.parametrize("octets", [1, INLINE + 1])
async def test_what_the_work_returns_and_raises_is_the_callers(octets: int) -> None:
    def broken() -> Any:
        raise LookupError("x")

    assert await turns().take(octets, lambda: 7) == 7
    with pytest.raises(LookupError):
        await turns().take(octets, broken)
    assert await turns().take(octets, lambda: 8) == 8


async def test_only_some_keep_what_they_read() -> None:
    class Holder:
        pass

    mine, holders = Turns(), [Holder() for _ in range(KEEPERS + 1)]
    assert [mine.may_keep(each) for each in holders] == [True] * KEEPERS + [False]
    assert mine.may_keep(holders[0])
    del holders[0]
    assert mine.may_keep(holders[-1])


async def test_every_event_loop_has_turns_of_its_own() -> None:
    assert turns() is turns()

    async def elsewhere() -> Turns:
        return turns()

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) is not turns()
