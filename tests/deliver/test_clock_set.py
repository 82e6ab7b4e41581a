"""The wall clock is set while messages wait: forward it ends no retry time, backward it makes nothing wait for hours."""

from __future__ import annotations

import asyncio

import pytest
from worker_bench import S3, Bench, rule

from inbound.accept.envelope import new_message_id
from inbound.accept.spool import State
from inbound.deliver.sinks import MessageFailed, SinkDown
from inbound.deliver.timekeeper import Timekeeper

HOURS = 3600.0
DOWN = SinkDown("connection refused")


async def looked(bench: Bench) -> None:
    """The worker has looked at what is due, and worked it."""
    if bench.worker._feeder is None:
        await bench.worker.start()
    bench.worker._wake.set()
    for _ in range(20):
        await asyncio.sleep(0)
    await bench.worker.idle()


@pytest.mark.parametrize("failure", [DOWN, MessageFailed("boom")])
@pytest.mark.parametrize("hours", [5, 24 * 365])
async def test_a_clock_set_forward_expires_nothing_at_its_next_failure(failure: Exception, hours: float) -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = failure  # type: ignore[assignment]
        messages = [await bench.send() for _ in range(3)]
        await looked(bench)
        bench.set_clock(hours * HOURS)
        for _ in range(4):
            await looked(bench)
            bench.now += 20 * 60
        assert {await bench.state(message) for message in messages} == {State.DEFERRED}
        assert max([(await bench.entry(message)).attempts for message in messages]) > 1, "it was tried"
        bench.now += 4 * HOURS
        for _ in range(3):
            await looked(bench)
            bench.now += 60
        assert {await bench.state(message) for message in messages} == {State.DEAD}, "its time with us is as long as ever"


async def test_a_clock_set_forward_in_the_middle_of_a_call_does_not_expire_its_message() -> None:
    async with Bench(rule("a", S3)) as bench:
        answers = asyncio.Event()
        bench.aws.faults["s3:mail"] = [answers]
        bench.aws.down["s3:mail"] = DOWN
        message = await bench.send(work=False)
        await bench.aws.until(lambda: bench.aws.calls == ["s3:mail"])
        bench.set_clock(100 * HOURS)
        answers.set()
        await bench.worker.idle()
        assert await bench.state(message) is State.DEFERRED
        await looked(bench)
        bench.now += 900
        await looked(bench)
        assert await bench.state(message) is State.DEFERRED


async def test_what_comes_after_the_clock_was_set_has_its_time_from_then() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = DOWN
        await bench.send()
        await looked(bench)
        bench.set_clock(10 * HOURS)
        late = await bench.send()
        await looked(bench)
        assert (await bench.entry(late)).since == bench.now


async def test_a_clock_set_back_delays_nothing_for_hours() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.faults["s3:mail"] = [MessageFailed("boom")]
        message = await bench.send()
        await looked(bench)
        bench.set_clock(-5 * HOURS)
        await looked(bench)
        assert await bench.state(message) is State.DONE


async def test_a_clock_set_back_while_nothing_ran_delays_nothing_for_hours() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.faults["s3:mail"] = [MessageFailed("boom")]
        message = await bench.send()
        bench.now -= 5 * HOURS
        bench.worker = bench.new_worker(bench.terms)
        await looked(bench)
        assert await bench.state(message) is State.DONE


async def test_what_waits_for_its_time_is_not_hurried_by_a_start() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.faults["s3:mail"] = [MessageFailed("boom")]
        message = await bench.send()
        bench.worker = bench.new_worker(bench.terms)
        await looked(bench)
        assert await bench.state(message) is State.DEFERRED


def test_ids_do_not_depend_on_the_clock() -> None:
    assert len({new_message_id() for _ in range(10_000)}) == 10_000


def test_the_timekeeper_notices_both_ways_and_leaves_slewing_alone() -> None:
    now = {"wall": 1000.0, "monotonic": 5.0}
    keeper = Timekeeper(lambda: now["wall"], lambda: now["monotonic"])
    for _ in range(100):
        now = {"wall": now["wall"] + 60.0, "monotonic": now["monotonic"] + 60.0}
        assert (keeper.now(), keeper.times, keeper.forward) == (now["wall"], 0, 0.0)
    now["wall"] += 3600.0
    assert (keeper.now(), keeper.times, keeper.forward) == (now["wall"], 1, 3600.0)
    now["wall"] -= 7200.0
    assert (keeper.now(), keeper.times, keeper.forward) == (now["wall"], 2, 3600.0)
    for _ in range(3):
        now["wall"] += 2.0
        keeper.now()
    assert (keeper.times, keeper.forward) == (3, 3606.0), "small steps add up"
