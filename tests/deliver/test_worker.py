"""The worker on in-memory twins: order, records, retry, give-up, crash, and sinks that do not hold up each other."""

from __future__ import annotations

import asyncio
import json

import pytest
from worker_bench import EVENT, FUNCTION, OTHER_TOPIC, REQUEST, S3, S3_TOPIC, SNS, STOP, TOPIC, Bench, header, rule

from inbound.accept.spool import Outcome, SpoolError, State
from inbound.accept.spool.memory import Fault
from inbound.decide.engine import StopScope
from inbound.deliver.retry import Circuit
from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown

DOWN = SinkDown("connection refused")


async def test_steps_run_in_order_each_with_its_notification_and_the_entry_is_done() -> None:
    async with Bench(rule("one", header("X-A"), S3_TOPIC, SNS, EVENT, STOP), rule("two", S3)) as bench:
        message = await bench.send()
        assert bench.aws.calls == ["s3:mail", f"sns:{TOPIC}", f"sns:{OTHER_TOPIC}", f"lambda:{FUNCTION}"]
        assert bench.notified() == [("inbound", "S3"), ("other", "SNS")]
        entry = await bench.entry(message)
        assert (entry.state, entry.disposition, entry.has_content) == (State.DONE, "STOPPED", False)
        assert [(s.rule, s.index, s.part, s.outcome) for s in entry.steps] == [
            ("one", 0, "action", "done"), ("one", 1, "action", "done"), ("one", 1, "topic", "done"), ("one", 2, "action", "done"),
            ("one", 3, "action", "done"), ("one", 4, "action", "done"),
        ]
        assert bench.aws.objects["mail", message].startswith(b"X-A: x\r\nReturn-Path: <a@example.net>\r\nReceived: from client.test ")


async def test_a_failed_step_is_retried_by_the_schedule_and_what_is_done_is_not_repeated() -> None:
    async with Bench(rule("one", S3, EVENT, SNS)) as bench:
        bench.aws.faults[f"lambda:{FUNCTION}"] = [DOWN, DOWN]
        message = await bench.send()
        entry = await bench.entry(message)
        assert (entry.state, entry.attempts, entry.sink) == (State.DEFERRED, 1, f"lambda:{FUNCTION}")
        assert bench.now + 30 <= entry.due <= bench.now + 60
        assert "connection refused" in entry.error
        await bench.later(60)
        assert await bench.state(message) is State.DEFERRED
        await bench.later(120)
        assert await bench.state(message) is State.DONE
        assert bench.aws.calls == ["s3:mail", *[f"lambda:{FUNCTION}"] * 3, f"sns:{OTHER_TOPIC}"]
        attempts = [(s.attempt, s.outcome, s.error) for s in (await bench.entry(message)).steps if s.index == 1]
        assert attempts == [(1, "failed", "connection refused"), (2, "failed", "connection refused"), (3, "done", "")]


async def test_the_retry_of_a_notification_does_not_repeat_its_action() -> None:
    async with Bench(rule("one", S3_TOPIC)) as bench:
        bench.aws.faults[f"sns:{TOPIC}"] = [DOWN]
        message = await bench.send()
        await bench.later(60)
        assert await bench.state(message) is State.DONE
        assert bench.aws.calls == ["s3:mail", f"sns:{TOPIC}", f"sns:{TOPIC}"]


async def test_after_the_retry_time_it_is_a_dead_letter_whose_later_steps_do_not_run() -> None:
    async with Bench(rule("one", S3, STOP), rule("two", EVENT)) as bench:
        bench.aws.down["s3:mail"] = MessageFailed("no")
        message = await bench.send()
        while await bench.state(message) is State.DEFERRED:
            await bench.later(900)
        entry = await bench.entry(message)
        assert entry.state is State.DEAD
        assert entry.error == "s3:mail: no"
        assert 14_400 <= bench.now - entry.since <= 15_300
        assert 16 <= entry.attempts <= 24
        assert f"lambda:{FUNCTION}" not in bench.aws.calls
        assert entry.has_content
        bench.aws.down.clear()
        assert await bench.spool.retry([message], bench.now) == [message]
        await bench.later(0)
        assert await bench.state(message) is State.DONE
        assert ("mail", message) in bench.aws.objects


async def test_what_no_repetition_can_cure_is_a_dead_letter_at_once() -> None:
    async with Bench(rule("one", EVENT, S3)) as bench:
        bench.aws.faults[f"lambda:{FUNCTION}"] = [MessageRefused("413 too large")]
        message = await bench.send()
        entry = await bench.entry(message)
        assert (entry.state, entry.error) == (State.DEAD, "413 too large")
        assert [s.outcome for s in entry.steps] == [Outcome.FINAL]
        assert bench.aws.objects == {}


async def test_a_message_too_large_for_sns_is_a_dead_letter_with_the_reason() -> None:
    async with Bench(rule("one", SNS)) as bench:
        message = await bench.send(content=b"Subject: x\r\n\r\n" + b"y" * 154_000)
        entry = await bench.entry(message)
        assert entry.state is State.DEAD
        assert entry.error.startswith("552 5.2.3 the message has 154")
        assert bench.aws.calls == []


async def test_a_crash_repeats_at_most_the_step_that_was_under_way() -> None:
    async with Bench(rule("one", header("X-A"), S3, REQUEST, SNS)) as bench:
        hang = asyncio.Event()
        bench.aws.faults[f"lambda:{FUNCTION}"] = [hang]
        message = await bench.send(work=False)
        await bench.aws.until(lambda: f"lambda:{FUNCTION}" in bench.aws.calls)
        await bench.crash()
        assert await bench.state(message) is State.DONE
        assert bench.aws.calls == ["s3:mail", f"lambda:{FUNCTION}", f"lambda:{FUNCTION}", f"sns:{OTHER_TOPIC}"]
        content = json.loads(bench.aws.published[0][2])["content"]
        assert content.startswith("X-A: x\r\n"), "the header of an AddHeader that was done before the crash is still on the message"


@pytest.mark.parametrize(("answer", "called"), [
    (b'{"disposition":"STOP_RULE"}', ["two"]), (b'{"disposition":"stop_rule_set"}', []), (b'{"disposition":"CONTINUE"}', ["one", "two"]),
    (b"null", ["one", "two"]), (b"", ["one", "two"]), (b'{"disposition":"NONSENSE"}', ["one", "two"]), (b'{"disposition":7}', ["one", "two"]),
    (b"[]", ["one", "two"]),
])
async def test_a_synchronous_functions_answer_decides_what_follows(answer: bytes, called: list[str]) -> None:
    buckets = {"one": {"S3Action": {"BucketName": "one"}}, "two": {"S3Action": {"BucketName": "two"}}}
    async with Bench(rule("a", REQUEST, buckets["one"]), rule("b", buckets["two"])) as bench:
        bench.aws.answers[FUNCTION] = lambda _: answer
        message = await bench.send()
        assert sorted(bucket for bucket, _ in bench.aws.objects) == called
        assert bench.aws.invocations[0][2] is True
        assert await bench.state(message) is State.DONE


async def test_an_answer_that_is_not_json_is_retried_and_never_continue() -> None:
    async with Bench(rule("a", REQUEST, S3)) as bench:
        bench.aws.answers[FUNCTION] = lambda _: b"<html>"
        message = await bench.send()
        assert await bench.state(message) is State.DEFERRED
        assert bench.aws.objects == {}


async def test_a_stop_ends_the_walk_for_the_recipients_of_its_rule_only() -> None:
    rules = [rule("a", STOP, to="a@example.com"), rule("all", SNS)]
    async with Bench(*rules) as bench:
        await bench.send("a@example.com", "b@example.com")
        assert json.loads(bench.aws.published[0][2])["receipt"]["recipients"] == ["b@example.com"]
    async with Bench(*rules, stop_scope=StopScope.MESSAGE) as bench:
        await bench.send("a@example.com", "b@example.com")
        assert bench.aws.published == []


async def test_a_sink_that_is_down_is_left_alone_and_its_backlog_goes_when_it_answers() -> None:
    async with Bench(rule("a", S3, to="a@example.com"), rule("b", SNS, to="b@example.com")) as bench:
        bench.aws.down["s3:mail"] = DOWN
        waiting = [await bench.send("a@example.com") for _ in range(20)]
        assert bench.worker.sinks.states()["s3:mail"] is Circuit.OPEN
        assert bench.aws.calls.count("s3:mail") == 5, "after five failures in a row the sink is left alone"
        assert {(await bench.entry(m)).attempts for m in waiting[5:]} == {0}, "a call that was not made is no attempt"
        await bench.send("b@example.com")
        assert bench.notified() == [("other", "SNS")], "another sink's messages are not delayed"
        del bench.aws.down["s3:mail"]
        bench.ticks += 1.0
        await bench.worker.start()
        await bench.aws.until(lambda: len(bench.aws.objects) == 20)
        assert bench.aws.calls.count("s3:mail") == 25


async def test_a_function_that_fails_for_one_message_delays_no_other() -> None:
    async with Bench(rule("a", REQUEST)) as bench:
        bench.aws.faults[f"lambda:{FUNCTION}"] = [MessageFailed("ValueError: boom")] * 8
        for _ in range(8):
            await bench.send()
        good = await bench.send()
        assert await bench.state(good) is State.DONE
        assert bench.worker.sinks.states()[f"lambda:{FUNCTION}"] is Circuit.CLOSED


async def test_a_slow_sink_takes_no_more_than_its_slots_and_its_queue() -> None:
    async with Bench(rule("a", S3, to="a@example.com"), rule("b", SNS, to="b@example.com")) as bench:
        hang = asyncio.Event()
        bench.aws.faults["s3:mail"] = [hang] * 16
        slow = [await bench.send("a@example.com", work=False) for _ in range(120)]
        await bench.aws.until(lambda: bench.aws.calls.count("s3:mail") == 16)
        quick = await bench.send("b@example.com", work=False)
        await bench.worker.settled(quick, 10)
        assert await bench.state(quick) is State.DONE
        assert bench.aws.calls.count("s3:mail") == 16
        parked = [m for m in slow if await bench.state(m) is State.DEFERRED]
        assert len(parked) == 120 - 16 - 64
        await bench.worker.start()
        hang.set()
        await bench.aws.until(lambda: len(bench.aws.objects) == 120)


@pytest.mark.parametrize("error", [SpoolError("disk gone"), MemoryError()])
async def test_trouble_with_the_spool_is_waited_out_and_no_step_is_repeated(error: Exception) -> None:
    async with Bench(rule("a", S3, SNS)) as bench:
        bench.spool.faults.update = Fault(error, times=2)
        message = await bench.send()
        assert await bench.state(message) is State.DONE
        assert bench.aws.calls == ["s3:mail", f"sns:{OTHER_TOPIC}"]


async def test_an_internal_error_defers_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench(rule("a", S3)) as bench:
        monkeypatch.setattr("inbound.deliver.work.render", lambda *_, **__: 1 / 0)
        message = await bench.send()
        entry = await bench.entry(message)
        assert entry.state is State.DEFERRED
        assert "ZeroDivisionError" in entry.error
        monkeypatch.undo()
        await bench.later(60)
        assert await bench.state(message) is State.DONE


async def test_a_message_is_judged_by_the_revision_it_came_under() -> None:
    async with Bench(rule("a", S3)) as bench:
        bench.aws.faults["s3:mail"] = [DOWN]
        message = await bench.send()
        await bench.crash()
        await bench.later(60)
        assert ("mail", message) in bench.aws.objects, "the new process read the revision from the spool"
