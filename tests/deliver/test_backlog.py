"""Messages that wait for sinks that fail, hang or are slow: none is given up untried, none bars the way of others, none is worked in vain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from worker_bench import REQUEST, S3, S3_TOPIC, SNS, TOPIC, Bench, rule

from inbound.accept.spool import SpoolError, State
from inbound.accept.spool.memory import Fault
from inbound.deliver import sinks, worker
from inbound.deliver.retry import Breaker, Circuit
from inbound.deliver.sinks import CONCURRENT_CALLS, QUEUE_LIMIT, SinkClosed, SinkDown, Sinks

DOWN = SinkDown("connection refused")
BUCKETS = [rule(f"r{n}", {"S3Action": {"BucketName": f"bucket{n}"}}, to=f"u{n}@example.com") for n in range(100)]
OTHER = rule("other", SNS, to="other@example.com")


def hang(bench: Bench, count: int) -> asyncio.Event:
    """Calls to that many buckets meet an event that nobody sets but the test."""
    event = asyncio.Event()
    for n in range(count):
        bench.aws.faults[f"s3:bucket{n}"] = [event] * 100
    return event


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Let the worker work until this holds."""
    while not await holds():  # noqa: ASYNC110  # the spool tells nobody of its entries
        await asyncio.sleep(0)


async def done(bench: Bench, message: str) -> None:
    async def is_done() -> bool:
        return await bench.state(message) is State.DONE

    await until(is_done)


async def in_hand(bench: Bench, count: int) -> None:
    async def are() -> bool:
        return (await bench.spool.counts())[State.ACTIVE] <= count

    await until(are)


async def test_a_backlog_that_slept_through_its_time_with_us_is_tried() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = DOWN
        messages = [await bench.send() for _ in range(20)]
        bench.aws.down.clear()
        answers = asyncio.Event()
        bench.aws.faults["s3:mail"] = [answers]
        bench.now += 24 * 3600
        bench.worker = bench.new_worker(bench.terms)
        await bench.worker.start()
        await bench.aws.until(lambda: bench.aws.calls.count("s3:mail") == 6)
        await in_hand(bench, 1)
        answers.set()
        await bench.aws.until(lambda: len(bench.aws.objects) == 20)
        await bench.worker.idle()
        assert {await bench.state(message) for message in messages} == {State.DONE}


async def test_a_backlog_past_its_time_is_given_up_when_the_sink_still_fails() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = DOWN
        messages = [await bench.send() for _ in range(20)]
        bench.now += 24 * 3600
        bench.worker = bench.new_worker(bench.terms)
        await bench.worker.start()
        while await bench.spool.next_due():
            bench.now += 60
            bench.worker._wake.set()
            await asyncio.sleep(0)
        await bench.worker.idle()
        assert {await bench.state(message) for message in messages} == {State.DEAD}


async def test_messages_that_make_a_sink_fail_do_not_bar_the_way_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaker, "LONGEST_PROBE", 0.01)
    async with Bench(rule("bad", S3, to="bad@example.com"), rule("good", S3, to="good@example.com")) as bench:
        put, bad = bench.aws.put_object, set()

        async def picky(bucket: str, key: str, *arguments: Any, **more: Any) -> None:
            if key in bad:
                raise SinkDown("AccessDenied")
            await put(bucket, key, *arguments, **more)

        bench.aws.put_object = picky  # type: ignore[method-assign]
        for _ in range(8):
            bad.add(await bench.send("bad@example.com", work=False))
            await asyncio.sleep(0)
        await bench.worker.idle()
        good = [await bench.send("good@example.com") for _ in range(20)]
        assert bench.worker.sinks.states()["s3:mail"] is Circuit.OPEN
        assert {await bench.state(message) for message in good} == {State.DEFERRED}
        bench.worker.sinks._clock = time.monotonic
        await bench.worker.start()
        await bench.aws.until(lambda: len(bench.aws.objects) == 20)


async def test_what_a_slow_sink_has_no_room_for_is_not_worked_in_vain() -> None:
    async with Bench(rule("a", S3)) as bench:
        answers = asyncio.Event()
        bench.aws.faults["s3:mail"] = [answers] * CONCURRENT_CALLS
        await bench.worker.start()
        messages = [await bench.send(work=False) for _ in range(300)]
        await in_hand(bench, CONCURRENT_CALLS + QUEUE_LIMIT)
        assert await bench.spool.claim(bench.now + 60, 1000) == []
        worked = len(bench.spool.journal)
        answers.set()
        await bench.aws.until(lambda: len(bench.aws.objects) == 300)
        await bench.worker.idle()
        assert {await bench.state(message) for message in messages} == {State.DONE}
        assert len(bench.spool.journal) - worked < 3 * 300, "each is claimed once more and done, hardly one is parked again"


async def test_when_a_sink_answers_again_its_backlog_goes_at_the_pace_it_takes() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = DOWN
        for _ in range(1000):
            await bench.send()
        put = bench.aws.put_object

        async def leisurely(*arguments: Any, **more: Any) -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            await put(*arguments, **more)

        bench.aws.put_object = leisurely  # type: ignore[method-assign]
        bench.aws.down.clear()
        bench.ticks += 5.0
        before = len(bench.spool.journal)
        await bench.worker.start()
        await bench.aws.until(lambda: len(bench.aws.objects) == 1000)
        await bench.worker.idle()
        assert len(bench.spool.journal) - before < 2 * 1000 + 200


async def test_a_message_that_fails_while_its_sink_takes_others_waits_for_its_time() -> None:
    async with Bench(rule("a", S3)) as bench:
        answers = asyncio.Event()
        bench.aws.faults["s3:mail"] = [answers] * CONCURRENT_CALLS
        await bench.worker.start()
        messages = [await bench.send(work=False) for _ in range(300)]
        await in_hand(bench, CONCURRENT_CALLS + QUEUE_LIMIT)
        put, attempts = bench.aws.put_object, 0

        async def picky(bucket: str, key: str, *arguments: Any, **more: Any) -> None:
            nonlocal attempts
            await asyncio.sleep(0)
            attempts += key in messages[20:24]
            if key in messages[20:24]:
                raise SinkDown("AccessDenied")
            await put(bucket, key, *arguments, **more)

        bench.aws.put_object = picky  # type: ignore[method-assign]
        answers.set()
        await bench.aws.until(lambda: len(bench.aws.objects) == 296)
        await bench.worker.idle()
        assert attempts == 4


@pytest.mark.parametrize("count", [10, 60])
async def test_many_sinks_that_hang_hold_up_no_other(count: int) -> None:
    async with Bench(*BUCKETS[:count], OTHER) as bench:
        answers = hang(bench, count)
        await bench.worker.start()
        for n in range(40 * count):
            if bench.worker.has_room:
                await bench.send(f"u{n % count}@example.com", work=False)
                await asyncio.sleep(0)
        assert bench.worker.has_room
        for _ in range(20):
            await done(bench, await bench.send("other@example.com", work=False))
        answers.set()


@pytest.fixture
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IN_HAND", 16)
    monkeypatch.setattr(worker, "FROM_SPOOL", 4)
    monkeypatch.setattr(worker, "LOOK", 0.01)


@pytest.mark.usefixtures("few_places")
@pytest.mark.parametrize(("hanging", "room"), [(12, False), (15, False), (11, True)])
async def test_new_messages_and_calls_that_hang_leave_places_to_old_ones(hanging: int, room: bool) -> None:
    async with Bench(*BUCKETS[:1], OTHER) as bench:
        answers = hang(bench, 1)
        bench.aws.faults[f"sns:{SNS['SNSAction']['TopicArn']}"] = [sinks.MessageFailed("later")]
        deferred = await bench.send("other@example.com")
        for _ in range(hanging):
            await bench.send("u0@example.com", work=False)
        assert bench.worker.has_room is room
        bench.now += 60
        await bench.worker.start()
        await done(bench, deferred)
        answers.set()


async def test_an_entry_claimed_again_at_once_stays_in_hand() -> None:
    async with Bench(rule("a", REQUEST)) as bench:
        function = f"lambda:{REQUEST['LambdaAction']['FunctionArn']}"
        answers = asyncio.Event()
        bench.aws.faults[function] = [sinks.MessageFailed("boom"), answers]
        message = await bench.send(work=False)
        task = bench.worker._tasks[message]
        while not task.done():  # noqa: ASYNC110  # whoever awaits it is told after the worker
            await asyncio.sleep(0)
        [entry] = await bench.spool.claim(bench.now + 60, 1)
        bench.worker.take(entry)
        await bench.aws.until(lambda: bench.aws.calls.count(function) == 2)
        assert message in bench.worker._tasks, "else nothing waits for it at a stop, and nothing keeps its task alive"
        answers.set()


@pytest.mark.parametrize("error", [SpoolError("disk"), MemoryError()])
async def test_probing_outlives_trouble_with_the_spool(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inbound.deliver.worker.LOOK", 0.01)
    async with Bench(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = DOWN
        for _ in range(6):
            await bench.send()
        bench.aws.down.clear()
        release, trouble = bench.spool.release, Fault(error, 3)

        async def flaky(*arguments: Any) -> int:
            if trouble.times:
                trouble.times -= 1
                raise error
            return await release(*arguments)

        bench.spool.release = flaky  # type: ignore[method-assign]
        bench.ticks += 1.0
        bench.worker._feeder = asyncio.create_task(bench.worker._feed())
        await bench.aws.until(lambda: len(bench.aws.objects) >= 2)
        assert bench.worker.sinks.states()["s3:mail"] is Circuit.CLOSED


async def test_a_role_that_fails_does_not_hold_up_what_goes_to_the_topic_without_it() -> None:
    denied = {"S3Action": {"BucketName": "mail", "TopicArn": TOPIC, "IamRoleArn": "arn:aws:iam::000000000000:role/denied"}}
    async with Bench(rule("a", denied, to="a@example.com"), rule("b", S3_TOPIC, to="b@example.com")) as bench:
        bench.aws.faults[f"sns:{TOPIC}"] = [SinkDown("AccessDenied")] * 5
        for _ in range(5):
            await bench.send("a@example.com")
        assert await bench.state(await bench.send("b@example.com")) is State.DONE


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def nothing_waits(_sink: str, _limit: int) -> int:
    return 0


async def fail(found: Sinks, name: str) -> None:
    with pytest.raises((SinkDown, SinkClosed)):
        async with found.call(name):
            raise DOWN


async def test_probes_that_hang_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PROBES", 2)
    clock = Clock()
    found = Sinks(nothing_waits, _Quiet(), clock=clock)  # type: ignore[arg-type]
    for name in "abc":
        for _ in range(5):
            await fail(found, name)
    clock.now = 5.0
    async with found.call("a"), found.call("b"):
        assert found.states() == {"a": Circuit.PROBING, "b": Circuit.PROBING, "c": Circuit.OPEN}
        with pytest.raises(SinkClosed):
            async with found.call("c"):
                pass
        assert not found.is_down("c"), "nothing is known of it, so nothing is given up"
    async with found.call("c"):
        pass
    assert set(found.states().values()) == {Circuit.CLOSED}
    await found.stop()


async def test_one_call_that_hangs_and_fails_is_enough_to_leave_a_sink_alone() -> None:
    clock = Clock()
    found = Sinks(nothing_waits, _Quiet(), clock=clock)  # type: ignore[arg-type]
    with pytest.raises(SinkDown):
        async with found.call("a"):
            clock.now += 30.0
            raise DOWN
    assert found.states() == {"a": Circuit.OPEN}
    await found.stop()


class _Quiet:
    def info(self, *_: object, **__: object) -> None:
        pass

    warning = error = info
