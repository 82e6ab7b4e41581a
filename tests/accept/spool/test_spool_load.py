"""How full a spool says it is: what waits how long, and what it takes; of every spool."""

from __future__ import annotations

import pytest
from letters import Clock, dead, deferred, done, octets, put
from spools import THRESHOLD, Kept

from inbound.accept.spool import Backlog, Load, Spool, SpoolError, SpoolFull, State
from inbound.accept.spool.memory import Fault, MemorySpool
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.metrics import COMMIT_SIZE, COMMITS, Metrics

NOW = 1_700_000_000.0
PAGES = 30  # that an empty spool of today's schema does not reach
ROOM = PAGES * 16384


async def oldest(spool: Spool) -> float | None:
    return (await spool.load()).oldest


class TestOldest:
    async def test_nothing_waits_in_an_empty_spool(self, spool: Spool) -> None:
        assert await oldest(spool) is None

    @pytest.mark.parametrize("held", [True, False])
    async def test_it_is_that_of_the_first_message_whether_it_is_worked_or_waits_to_be(self, spool: Spool, held: bool) -> None:
        for age in (20, 30, 10):
            await put(spool, received=NOW - age, held=held)
        assert await oldest(spool) == NOW - 30

    async def test_what_waits_for_a_sink_counts_from_its_receipt(self, spool: Spool) -> None:
        entry = await put(spool, received=NOW - 100)
        await spool.update(entry.id, deferred(NOW + 60, sink="s3:mail", error="down", attempts=3))
        await put(spool, received=NOW - 5)
        assert await oldest(spool) == NOW - 100
        assert [claimed.id for claimed in await spool.claim(NOW + 60, 1)] == [entry.id]
        assert await oldest(spool) == NOW - 100, "while it is tried again, too"

    async def test_one_that_fails_for_reasons_of_its_own_does_not_count(self, spool: Spool) -> None:
        poison = await put(spool, received=NOW - 1000)
        await spool.update(poison.id, deferred(NOW + 60, error="the function failed", attempts=1))
        assert await oldest(spool) is None
        await put(spool, received=NOW - 5)
        assert await oldest(spool) == NOW - 5
        assert len(await spool.claim(NOW + 60, 10)) == 1
        assert await oldest(spool) == NOW - 5

    @pytest.mark.parametrize("end", [done(NOW), dead(NOW, error="no", sink="")])
    async def test_what_is_done_or_dead_does_not_wait(self, spool: Spool, end) -> None:
        entry = await put(spool, received=NOW - 100)
        await spool.update(entry.id, end)
        assert await oldest(spool) is None

    async def test_an_old_dead_letter_that_is_tried_again_waits_from_then_on(self, spool: Spool) -> None:
        entry = await put(spool, received=NOW - 86400)
        await spool.update(entry.id, dead(NOW - 80000, error="no"))
        assert await spool.retry([entry.id], NOW - 3) == [entry.id]
        assert await oldest(spool) == NOW - 3
        await put(spool, received=NOW - 50, held=False)
        assert await oldest(spool) == NOW - 50, "although the other was received before"


class TestOctets:
    @pytest.mark.parametrize("size", [THRESHOLD - 1, THRESHOLD * 20])
    async def test_they_grow_with_what_is_kept_and_fall_when_it_goes(self, spool: Spool, size: int) -> None:
        empty = (await spool.load()).octets
        kept = [(await put(spool, octets(size))).id for _ in range(40)]
        full = (await spool.load()).octets
        assert full - empty >= 40 * size
        for entry_id in kept[:20]:
            await spool.update(entry_id, done(NOW, drop_content=True))
        half = (await spool.load()).octets
        assert full - half >= 19 * size
        for entry_id in kept[20:]:
            await spool.update(entry_id, dead(NOW, error="no"))
        assert (await spool.load()).octets >= half, "dead letters are kept"
        assert sorted(await spool.drop(kept[20:])) == sorted(kept[20:])
        assert (await spool.load()).octets - empty < ROOM

    async def test_a_restart_changes_nothing(self, spool: Spool, kept: Kept) -> None:
        for size in (300, THRESHOLD * 5):
            await put(spool, octets(size), held=False)
        before = await spool.load()
        assert before == Load(NOW, before.octets, before.spare)
        assert before == await (await kept.restarted(spool)).load()


class TestBacklog:
    async def test_it_tells_of_each_sink_how_many_wait_and_since_when(self, spool: Spool) -> None:
        assert await spool.backlog() == {}
        for age, sink in ((5, "a"), (50, "b"), (20, "a"), (500, "")):
            entry = await put(spool, received=NOW - age)
            await spool.update(entry.id, deferred(NOW + 60, sink=sink, attempts=1))
        entry = await put(spool, received=NOW - 999)
        await spool.update(entry.id, dead(NOW, error="no", sink="a"))
        found = await spool.backlog()
        assert found == {"a": Backlog(2, NOW - 20), "b": Backlog(1, NOW - 50)}
        assert {sink: backlog.messages for sink, backlog in found.items()} == await spool.waiting()


class TestProbe:
    async def test_it_leaves_nothing(self, spool: Spool, clock: Clock) -> None:
        await spool.probe()
        assert await spool.revision("") is None
        assert set((await spool.counts()).values()) == {0}

    async def test_of_a_spool_that_is_closed_it_fails_as_everything_else(self, spool: Spool) -> None:
        await spool.stop()
        for question in (spool.probe, spool.load, spool.backlog):
            with pytest.raises(SpoolError):
                await question()

    async def test_of_the_twin_it_fails_as_a_put_would(self, clock: Clock) -> None:
        twin = MemorySpool(clock=clock)
        await twin.start()
        twin.faults.put = Fault(SpoolFull("no space"))
        with pytest.raises(SpoolFull):
            await twin.probe()

    async def test_on_disk_it_is_a_commit(self, disk: SqliteSpool) -> None:
        before = disk.commits
        await disk.probe()
        assert disk.commits == before + 1


async def test_commits_are_measured_with_those_who_shared_them_and_reading_is_not(tmp_path, clock: Clock) -> None:
    metrics = Metrics()
    spool = SqliteSpool(tmp_path / "measured", clock=clock, metrics=metrics)
    await spool.start()
    try:
        entry = await put(spool)
        assert (await spool.get(entry.id) or entry).state is State.ACTIVE
        await spool.next_due()
        sizes, times = metrics.get(COMMIT_SIZE), metrics.get(COMMITS)
        assert (sum(sizes[:-1]), sizes[-1], sum(times[:-1])) == (1, 1, 1)
        assert 0 < times[-1] < 10
    finally:
        await spool.stop()
