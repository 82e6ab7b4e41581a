"""The twin's own abilities: faults to order, a journal to read, a crash to survive."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from letters import Clock, deferred, done, drafted, envelope, put, read, step

from inbound.accept.spool import SpoolError, SpoolFull, State, Update
from inbound.accept.spool.memory import Fault, MemorySpool

NOW = 1_700_000_000.0


@pytest_asyncio.fixture
async def twin(clock: Clock) -> MemorySpool:
    spool = MemorySpool(clock=clock)
    await spool.start()
    return spool


async def test_the_next_operations_fail_as_ordered(twin: MemorySpool) -> None:
    twin.faults.put = Fault(SpoolFull("no space left"), times=2)
    for _ in range(2):
        with pytest.raises(SpoolFull, match="no space left"):
            await put(twin)
    await put(twin)
    assert (await twin.counts())[State.ACTIVE] == 1


async def test_or_all_of_them_until_the_fault_is_taken_away(twin: MemorySpool) -> None:
    entry = await put(twin)
    twin.faults.put = twin.faults.update = twin.faults.claim = twin.faults.flush = Fault(SpoolError("broken"))
    for _ in range(3):
        for operation in (put(twin), twin.update(entry.id, done(NOW)), twin.claim(NOW, 1), twin.draft("a").flush()):
            with pytest.raises(SpoolError, match="broken"):
                await operation
    twin.faults.put = twin.faults.update = twin.faults.claim = twin.faults.flush = None
    await put(twin)
    await twin.update(entry.id, deferred(NOW))
    assert [claimed.id for claimed in await twin.claim(NOW, 1)] == [entry.id]


async def test_a_failed_update_changes_nothing(twin: MemorySpool) -> None:
    entry = await put(twin)
    twin.faults.update = Fault(SpoolError("broken"), times=1)
    with pytest.raises(SpoolError):
        await twin.update(entry.id, done(NOW, steps=[step()]))
    assert await twin.get(entry.id) == entry


async def test_a_put_can_be_held_up(twin: MemorySpool) -> None:
    twin.faults.hold_put = asyncio.Event()
    held = asyncio.ensure_future(put(twin, b"data", message_id="a"))
    await asyncio.sleep(0)
    assert await twin.get("a") is None
    assert not held.done()
    twin.faults.hold_put.set()
    await held
    assert await read(twin, "a") == b"data"


async def test_the_journal_tells_what_was_done_in_order(twin: MemorySpool) -> None:
    message = envelope("a")
    draft = await drafted(twin, "a", b"x" * 300_000)
    await draft.flush()
    await twin.put(message, draft)
    await twin.update("a", deferred(NOW))
    await twin.claim(NOW, 1)
    await twin.update("a", deferred(NOW))
    await twin.retry(["a"], NOW)
    await twin.drop(["a"])
    await (await drafted(twin, "b", b"x")).discard()
    whole = [(operation, id_) for operation, id_ in twin.journal if operation != "flush"]
    assert ("flush", "a") in twin.journal
    operations = ["put", "update", "claim", "update", "retry", "drop"]
    assert whole == [*((operation, "a") for operation in operations), ("discard", "b")]


async def test_a_crash_gives_leases_back_and_loses_lazy_updates_that_waited(twin: MemorySpool, clock: Clock) -> None:
    first, second = await put(twin), await put(twin)
    await twin.update(second.id, Update(attempts=1), lazy=True)
    lost = asyncio.ensure_future(twin.update(first.id, done(NOW), lazy=True))
    await asyncio.sleep(0)
    clock.now += 1
    after = twin.crash()
    with pytest.raises(SpoolError, match="crashed"):
        await lost
    one, two = await after.claim(clock.now, 10)
    assert (one.id, one.attempts) == (first.id, 0)
    assert (two.id, two.attempts) == (second.id, 1)


async def test_the_crashed_one_is_dead_and_shares_nothing_with_its_successor(twin: MemorySpool) -> None:
    entry = await put(twin)
    after = twin.crash()
    with pytest.raises(SpoolError):
        await put(twin)
    with pytest.raises(SpoolError):
        await twin.get(entry.id)
    await put(after)
    assert (await after.counts())[State.DEFERRED] == 1
