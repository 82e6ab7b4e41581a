"""A finished message that is judged again: the worker performs the new rules' actions, and what was recorded before stays apart."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
from hypothesis import given
from journal import Journal
from test_trace import SLOW, Watched, encrypted, envelope, faults, flows, recipients, rules, scopes
from worker_bench import MESSAGE, REQUEST, S3, SNS, Bench, header, rule, rule_set

from inbound.accept.envelope import Tls
from inbound.accept.spool import Entry, Outcome, State
from inbound.accept.spool.replays import Replay, runs
from inbound.decide.engine import Flow, StopScope
from inbound.decide.rules import RuleSet
from inbound.deliver.replay import Rules, compare
from inbound.deliver.sinks import MessageRefused, SinkDown, SinkFailure
from inbound.deliver.trace import trace
from inbound.deliver.trace_schema import schema
from inbound.deliver.worker import Worker
from inbound.log import Event
from inbound.metrics import DONE, DONE_SECONDS, Metrics


class Replayed(Bench):
    """Keeps content, and replays by other rules."""

    def __init__(self, *rules: dict[str, Any]) -> None:
        self.journal, self.metrics = Journal(), Metrics()
        super().__init__(*rules, keep_content=True)

    def new_worker(self, terms: dict[str, Any]) -> Worker:
        worker = super().new_worker(terms)
        worker._log, worker._metrics = self.journal.log, self.metrics
        return worker

    async def replay(self, message_id: str, *rules: dict[str, Any], later: float = 60.0) -> dict[str, Any]:
        """Replay it by these rules and let it be worked; its trace."""
        self.rules = rule_set(*rules)
        self.now += later
        assert await self.spool.replay(message_id, self.now, Replay(self.rules.revision, self.rules.text))
        await self.later(0)
        return await self.trace(message_id)

    async def trace(self, message_id: str) -> dict[str, Any]:
        told = trace(await self.entry(message_id), self.rules)
        jsonschema.validate(told, schema())
        return told


def attempts(told: dict[str, Any]) -> list[str]:
    return [f"{each['action']} {each['outcome']}" for each in told["attempts"]]


def actions(told: dict[str, Any]) -> list[str]:
    return [f"{rule['name']} {action['action']} {action['state']}" for rule in told["rules"] for action in rule["actions"]]


async def test_the_new_rules_actions_are_performed_and_both_runs_are_told() -> None:
    async with Replayed(rule("a", S3)) as bench:
        message_id = await bench.send()
        first = bench.rules.revision
        told = await bench.replay(message_id, rule("a", header("X-A"), S3, SNS))
        assert bench.aws.calls == ["s3:mail", "s3:mail", f"sns:{SNS['SNSAction']['TopicArn']}"]
        assert (told["state"], told["disposition"], told["replay"], told["unexplained"]) == ("done", "COMPLETED", "1970-01-12T13:47:40.000Z", [])
        assert actions(told) == ["a AddHeader done", "a S3 done", "a SNS done"]
        (earlier,) = told["earlier"]
        assert (earlier["revision"], earlier["state"], earlier["disposition"], attempts(earlier)) == (first, "done", "COMPLETED", ["S3 done"])


async def test_the_very_same_rules_perform_everything_again() -> None:
    async with Replayed(rule("a", S3, SNS)) as bench:
        message_id = await bench.send()
        told = await bench.replay(message_id, rule("a", S3, SNS))
        assert len(bench.aws.calls) == 4
        assert actions(told) == ["a S3 done", "a SNS done"]
        told = await bench.replay(message_id, rule("a", SNS))
        assert len(bench.aws.calls) == 5
        assert [attempts(run) for run in told["earlier"]] == [["S3 done", "SNS done"]] * 2


async def test_a_dead_letter_gets_the_time_of_a_new_message() -> None:
    async with Replayed(rule("a", S3)) as bench:
        bench.aws.down["s3:mail"] = MessageRefused("EntityTooLarge")
        message_id = await bench.send()
        assert await bench.state(message_id) is State.DEAD
        bench.aws.down["s3:mail"] = SinkDown("no")
        told = await bench.replay(message_id, rule("a", S3), later=100_000)
        assert (told["state"], told["attempts"], actions(told)) == ("deferred", 1, ["a S3 failed"])
        assert (told["earlier"][0]["state"], told["earlier"][0]["error"], attempts(told["earlier"][0])) == ("dead", "EntityTooLarge", ["S3 final"])
        bench.aws.down.clear()
        await bench.later(900)
        assert actions(await bench.trace(message_id)) == ["a S3 done"]


async def test_a_function_is_asked_again() -> None:
    async with Replayed(rule("a", REQUEST, S3)) as bench:
        bench.aws.answers[REQUEST["LambdaAction"]["FunctionArn"]] = lambda _event: b'{"disposition": "STOP_RULE"}'
        message_id = await bench.send()
        bench.aws.answers.clear()
        assert actions(await bench.replay(message_id, rule("a", REQUEST, S3))) == ["a Lambda done", "a S3 done"]


async def test_a_crash_in_the_midst_of_a_replay_repeats_one_step_at_most() -> None:
    async with Replayed(rule("a", S3)) as bench:
        message_id = await bench.send()
        bench.aws.down[f"sns:{SNS['SNSAction']['TopicArn']}"] = SinkDown("no")
        await bench.replay(message_id, rule("a", S3, SNS))
        bench.aws.down.clear()
        before = bench.aws.calls.count("s3:mail")
        await bench.crash()
        await bench.later(900)
        assert (await bench.trace(message_id))["state"] == "done"
        assert bench.aws.calls.count("s3:mail") == before == 2


async def test_the_log_marks_it_and_the_time_to_the_end_is_not_measured() -> None:
    async with Replayed(rule("a", S3)) as bench:
        message_id = await bench.send()
        await bench.replay(message_id, rule("a", S3), later=100_000)
        first, second = bench.journal.of(Event.MESSAGE_DONE)
        assert (first.get("replay"), second.get("replay"), second["seconds"]) == (None, True, 0)
        assert bench.metrics.get(DONE, "COMPLETED") == 2
        assert sum(bench.metrics.get(DONE_SECONDS)[:-1]) == 1


async def test_a_retry_by_the_current_rules_keeps_what_was_before_the_replay() -> None:
    async with Replayed(rule("a", S3)) as bench:
        message_id = await bench.send()
        bench.aws.down[f"sns:{SNS['SNSAction']['TopicArn']}"] = MessageRefused("InvalidParameter")
        assert (await bench.replay(message_id, rule("a", S3, SNS)))["state"] == "dead"
        bench.rules = rule_set(rule("b", S3))
        await bench.spool.retry([message_id], bench.now, revision=(bench.rules.revision, bench.rules.text))
        await bench.later(0)
        told = await bench.trace(message_id)
        assert (actions(told), [attempts(run) for run in told["earlier"]]) == (["b S3 done"], [["S3 done"]])


@SLOW
@given(rules, rules, recipients, encrypted, faults, flows, scopes)
def test_what_is_told_of_a_replay_is_what_the_worker_does(one: RuleSet, other: RuleSet, to: tuple[str, ...], tls: Tls | None,
                                                          troubles: dict[str, list[SinkFailure]], answers: dict[str, Flow], scope: StopScope) -> None:
    """By the same rules nothing is different, and what was never done is what has no record; by others, the worker takes the very steps."""
    async def go() -> None:
        async with Watched(one, troubles, answers, scope) as bench:
            await bench.receive(envelope(one, to, tls), MESSAGE)
            entry = await finished(bench)
            same = compare(entry, Rules(one), Rules(one), scope)
            assert same.difference is None
            assert bool(same.not_performed) == (entry.state is State.DEAD)
            assert len(performed(entry)) == len(same.then.steps) - sum("TopicArn" not in step for step in same.not_performed)
            told = compare(entry, Rules(one), Rules(other), scope)
            assert await bench.spool.replay(entry.id, bench.now, Replay(other.revision, other.text, MESSAGE))
            await bench.later(0)
            again = await finished(bench)
            if not told.now.assumed and again.state is State.DONE:
                assert performed(again) == [step.digest for step in told.now.steps]
                assert again.disposition == told.now.disposition

    asyncio.run(go())


async def finished(bench: Watched) -> Entry:
    for _ in range(40):
        entry = await bench.entry("0" * 40)
        if entry.state is not State.DEFERRED:
            return entry
        await bench.later(900)
    raise AssertionError("it is not done after 40 rounds")


def performed(entry: Entry) -> list[str]:
    """The steps whose action is done in the present run."""
    return [record.digest for record in runs(entry.steps)[1] if record.part == "action" and record.outcome is Outcome.DONE]
