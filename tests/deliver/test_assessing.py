"""Verdicts between intake and worker: formed once, kept, refused before 250 where that is asked for, and waited for like a sink."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from worker_bench import S3, Bench, rule, rule_set

from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.reply import Refusal
from inbound.accept.spool import Content, SpoolError, State
from inbound.accept.spool.memory import Fault
from inbound.assess.assessor import NOT_WANTED, Assessor
from inbound.assess.authentication import Authentication
from inbound.assess.dns import Resolver
from inbound.assess.scanning import ScannerBusy, ScannerDown, Unscanned
from inbound.assess.verdicts import Assessment, Status, Verdict
from inbound.deliver.intake import Rejection, SpoolIntake
from inbound.deliver.pressure import Bounds, Pressure
from inbound.deliver.retry import Circuit, Schedule
from inbound.deliver.sinks import CONCURRENT_CALLS, QUEUE_LIMIT, MessageRefused
from inbound.deliver.timekeeper import Timekeeper
from inbound.deliver.work import Identity
from inbound.deliver.worker import Terms, Worker

PASS, FAIL = Verdict(Status.PASS), Verdict(Status.FAIL, "Eicar")
CLEAN = Assessment(PASS, PASS, PASS, PASS, PASS, authentication=Authentication("pass", "ok", (), "pass", "example.net"))
INFECTED = replace(CLEAN, virus=FAIL)
CONTENT = b"From: a@example.net\r\n\r\nbody\r\n"
SCAN = {"ScanEnabled": True}


class Judge:
    """An assessor that says what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Assessment | Exception | asyncio.Event = CLEAN) -> None:
        self.answer = answer
        self.asked: list[tuple[bool, bool]] = []  # scan, and whether something was known
        self.lacked: tuple[str, ...] = ()  # the scans that were still to be made when it was asked last
        self.octets: list[bytes] = []
        self.again = asyncio.Event()  # asked twice

    async def __call__(self, envelope: Envelope, content: Content, *, scan: bool, earlier: Assessment | None = None) -> Assessment:
        if self.asked:
            self.again.set()
        self.asked.append((scan, earlier is not None))
        self.lacked = earlier.unscanned if earlier else ()
        with content.open() as reader:
            self.octets.append(reader.read())
        if isinstance(self.answer, asyncio.Event):
            await self.answer.wait()
            return CLEAN
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class JudgeBench(Bench):
    """A bench whose worker judges, and whose messages may come through the intake."""

    def __init__(self, judge: Any, *rules: dict[str, Any], reject: tuple[str, ...] = (), seconds: float = 20.0, **terms: Any) -> None:
        self.judge = judge
        super().__init__(*rules, **terms)
        self.intake = SpoolIntake(self.spool, self.worker, lambda: self.rules, structlog.get_logger(), tls_works=False,
                                  pressure=Pressure(self.spool, Path(), Bounds(0), structlog.get_logger()), rejection=Rejection(reject, seconds))

    def new_worker(self, terms: dict[str, Any]) -> Worker:
        return Worker(self.spool, self.aws, Terms(Identity("mx.test", "mx.test"), **terms), structlog.get_logger(), assess=self.judge,
                      clock=Timekeeper(lambda: self.now, lambda: self.now), monotonic=lambda: self.ticks)

    async def receive(self, content: bytes = CONTENT) -> str:
        envelope = Envelope(new_message_id(), Peer("192.0.2.1"), "client.test", "a@example.net", ("u@example.com",), self.now,
                            revision=self.rules.revision)
        draft = self.intake.draft(envelope.message_id)
        if draft.add(content):
            await draft.flush()
        await self.intake.accept(envelope, draft)
        await self.worker.idle()
        return envelope.message_id


def unscanned(cause: Exception, verdict: Assessment = CLEAN) -> Unscanned:
    whole = replace(verdict, virus=Verdict(Status.PROCESSING_FAILED, f"clamd:x: {cause}"), unscanned=("virus",))
    return Unscanned(whole, "clamd:x", cause)


DOWN = ScannerDown("connection refused")


@pytest.mark.parametrize(("more", "scan"), [({}, False), (SCAN, True)])
async def test_a_message_is_scanned_when_a_rule_wants_it_and_judged_once(more: dict[str, Any], scan: bool) -> None:
    async with JudgeBench(Judge(), rule("one", S3, **more)) as bench:
        message = await bench.send(content=CONTENT)
        assert bench.judge.asked == [(scan, False)]
        assert bench.judge.octets == [CONTENT]
        entry = await bench.entry(message)
        assert Assessment.from_json(entry.assessment) == CLEAN
        stored = bench.aws.objects["mail", message]
        assert b"\r\nAuthentication-Results: mx.test;\r\n spf=pass " in stored
        assert (b"X-SES-Virus-Verdict: PASS" in stored) is scan


async def test_the_clients_name_by_dns_is_in_received() -> None:
    async with JudgeBench(Judge(replace(CLEAN, client_name="mx.sender.example")), rule("one", S3)) as bench:
        message = await bench.send(content=CONTENT)
        assert b"Received: from client.test (mx.sender.example [192.0.2.1])\r\n" in bench.aws.objects["mail", message]


async def test_a_retry_of_a_step_does_not_judge_again() -> None:
    async with JudgeBench(Judge(), rule("one", S3)) as bench:
        bench.aws.faults["s3:mail"] = [RuntimeError("x")]
        message = await bench.send(content=CONTENT)
        await bench.later(120)
        assert await bench.state(message) is State.DONE
        assert len(bench.judge.asked) == 1


async def test_rules_that_want_it_scanned_get_it_scanned_though_no_rule_wanted_that_when_it_came() -> None:
    unwanted = replace(CLEAN, spam=NOT_WANTED, virus=NOT_WANTED)
    async with JudgeBench(Judge(unwanted), rule("one", S3)) as bench:
        bench.aws.down["s3:mail"] = MessageRefused("NoSuchBucket")
        message = await bench.send(content=CONTENT)
        bench.aws.down.clear()
        bench.judge.answer = CLEAN
        bench.rules = rule_set(rule("two", S3, **SCAN))
        await bench.spool.retry([message], bench.now, revision=(bench.rules.revision, bench.rules.text))
        await bench.later(0)
        assert (bench.judge.asked, bench.judge.lacked) == ([(False, False), (True, True)], ("spam", "virus"))
        assert b"X-SES-Virus-Verdict: PASS" in bench.aws.objects["mail", message]


# --- refused before 250 ---


async def test_a_verdict_that_counts_refuses_and_nothing_is_kept() -> None:
    async with JudgeBench(Judge(INFECTED), rule("one", S3), reject=("virus",)) as bench:
        with pytest.raises(Refusal, match=r"550 5\.7\.1 Message refused: it carries a virus \(Eicar\)"):
            await bench.receive()
        assert bench.judge.asked == [(True, False)], "to reject viruses every message is scanned"
        assert sum((await bench.spool.counts()).values()) == 0
        assert bench.aws.calls == []


async def test_what_was_judged_before_250_is_not_judged_again() -> None:
    async with JudgeBench(Judge(), rule("one", S3, **SCAN), reject=("spf",)) as bench:
        message = await bench.receive(b"x" * 600_000)
        assert await bench.state(message) is State.DONE
        assert bench.judge.asked == [(True, False)]
        assert bench.judge.octets == [b"x" * 600_000]
        assert Assessment.from_json((await bench.entry(message)).assessment) == CLEAN


async def test_a_verdict_on_mail_authentication_does_not_scan() -> None:
    async with JudgeBench(Judge(), rule("one", S3), reject=("spf", "dmarc")) as bench:
        await bench.receive()
        assert bench.judge.asked == [(False, False)]


async def test_without_the_setting_the_verdict_is_formed_after_250() -> None:
    async with JudgeBench(Judge(INFECTED), rule("one", S3)) as bench:
        message = await bench.receive()
        assert await bench.state(message) is State.DONE


async def test_verdicts_that_take_too_long_are_formed_later() -> None:
    held = asyncio.Event()
    async with JudgeBench(Judge(held), rule("one", S3), reject=("virus",), seconds=0.01) as bench:
        draft_in = asyncio.create_task(bench.receive())
        await bench.judge.again.wait()
        held.set()
        message = await draft_in
        assert await bench.state(message) is State.DONE
        assert bench.judge.asked == [(True, False), (False, False)]


@pytest.mark.parametrize("answer", [RuntimeError("a fault of ours"), unscanned(DOWN), unscanned(ScannerBusy("x"))])
async def test_what_keeps_verdicts_from_being_formed_never_keeps_a_message_out(answer: Exception) -> None:
    async with JudgeBench(Judge(answer), rule("one", S3, **SCAN), reject=("virus",)) as bench:
        with structlog.testing.capture_logs():
            message = await bench.receive()
        assert await bench.state(message) is State.DEFERRED


async def test_a_verdict_that_was_formed_counts_though_a_scanner_is_down() -> None:
    async with JudgeBench(Judge(unscanned(DOWN, replace(CLEAN, spf=FAIL))), rule("one", S3), reject=("virus", "spf")) as bench:
        with pytest.raises(Refusal, match=r"550 5\.7\.23 "):
            await bench.receive()


async def test_trouble_with_the_disk_is_temporary() -> None:
    async with JudgeBench(Judge(SpoolError("no space")), rule("one", S3), reject=("spf",)) as bench:
        with pytest.raises(SpoolError):
            await bench.receive()


# --- waiting for a scanner ---


async def test_a_message_waits_for_a_scanner_and_keeps_the_verdicts_it_has() -> None:
    async with JudgeBench(Judge(unscanned(DOWN)), rule("one", S3, **SCAN)) as bench:
        message = await bench.send(content=CONTENT)
        entry = await bench.entry(message)
        assert (entry.state, entry.error, entry.attempts) == (State.DEFERRED, "clamd:x: connection refused", 1)
        assert Assessment.from_json(entry.assessment).unscanned == ("virus",)
        bench.judge.answer = CLEAN
        await bench.later(120)
        assert await bench.state(message) is State.DONE
        assert bench.judge.asked == [(True, False), (True, True)]
        assert Assessment.from_json((await bench.entry(message)).assessment) == CLEAN


async def test_after_the_retry_time_it_is_a_dead_letter_that_can_be_retried() -> None:
    async with JudgeBench(Judge(unscanned(DOWN)), rule("one", S3, **SCAN)) as bench:
        message = await bench.send(content=CONTENT)
        while await bench.state(message) is State.DEFERRED:
            await bench.later(900)
        entry = await bench.entry(message)
        assert (entry.state, entry.error) == (State.DEAD, "clamd:x: connection refused")
        assert bench.aws.calls == []
        bench.judge.answer = CLEAN
        await bench.spool.retry([message], bench.now)
        await bench.later(0)
        assert await bench.state(message) is State.DONE


@pytest.mark.parametrize(("cause", "error"), [
    (ScannerBusy("too many"), ""), (ScannerDown("connection refused", asked=False), "clamd:x: connection refused"),
])
async def test_a_call_that_was_not_made_is_no_attempt(cause: Exception, error: str) -> None:
    async with JudgeBench(Judge(unscanned(cause)), rule("one", S3, **SCAN)) as bench:
        entry = await bench.entry(await bench.send(content=CONTENT))
        assert (entry.state, entry.attempts, entry.sink, entry.error) == (State.DEFERRED, 0, "clamd:x", error)


class Scanner:
    """A scanner that can be told to be down, or to hold its answers."""

    name = "clamd:x"

    def __init__(self) -> None:
        self.down = False
        self.go = asyncio.Event()
        self.go.set()
        self.asked = 0

    async def scan(self, _envelope: Envelope, _content: Content) -> Verdict:
        self.asked += 1
        await self.go.wait()
        if self.down:
            raise ScannerDown("connection refused")
        return PASS

    async def close(self) -> None:
        pass


class Guarded(JudgeBench):
    """A bench with the real assessor, whose scanner is guarded by the worker's breakers. No DNS."""

    def __init__(self, *, waits: bool) -> None:
        self.scanner = Scanner()
        assessor = Assessor(Resolver(()), structlog.get_logger(), hostname="mx.test", scanners={"virus": self.scanner},
                            guard=self.guard, waits=waits)
        super().__init__(assessor, rule("one", S3, **SCAN), schedule=Schedule(60, 900, 4 * 3600))

    def guard(self, name: str) -> contextlib.AbstractAsyncContextManager[None]:
        return self.worker.sinks.scanner(name)

    async def verdict(self, message: str) -> Verdict:
        return Assessment.from_json((await self.entry(message)).assessment).virus


async def test_a_scanner_that_is_down_is_left_alone_and_messages_go_on() -> None:
    async with Guarded(waits=False) as bench:
        bench.scanner.down = True
        messages = [await bench.send(content=CONTENT) for _ in range(20)]
        assert {await bench.state(message) for message in messages} == {State.DONE}
        assert {await bench.verdict(message) for message in messages} == {Verdict(Status.PROCESSING_FAILED, "clamd:x: connection refused")}
        assert bench.scanner.asked == 5
        assert bench.worker.sinks.states()["clamd:x"] is Circuit.OPEN
        bench.scanner.down = False
        bench.ticks += 1.0
        assert await bench.verdict(await bench.send(content=CONTENT)) == PASS
        assert bench.worker.sinks.states()["clamd:x"] is Circuit.CLOSED


async def test_what_waits_for_a_scanner_goes_at_once_when_it_answers() -> None:
    async with Guarded(waits=True) as bench:
        bench.scanner.down = True
        messages = [await bench.send(content=CONTENT) for _ in range(20)]
        assert {await bench.state(message) for message in messages} == {State.DEFERRED}
        assert bench.scanner.asked == 5
        assert (await bench.spool.waiting())["clamd:x"] >= 15, "all since it is left alone"
        bench.scanner.down = False
        await bench.later(901)
        assert {await bench.state(message) for message in messages} == {State.DONE}
        assert {await bench.verdict(message) for message in messages} == {PASS}


async def test_more_messages_than_a_scanner_takes_wait_and_none_goes_unscanned() -> None:
    async with Guarded(waits=False) as bench:
        bench.scanner.go.clear()
        messages = [await bench.send(content=CONTENT, work=False) for _ in range(CONCURRENT_CALLS + QUEUE_LIMIT + 20)]
        await asyncio.wait(list(bench.worker._tasks.values())[-20:])
        assert (await bench.spool.counts())[State.DEFERRED] == 20
        bench.scanner.go.set()
        await bench.worker.idle()
        await bench.later(10)
        assert {await bench.state(message) for message in messages} == {State.DONE}
        assert {await bench.verdict(message) for message in messages} == {PASS}
        assert bench.scanner.asked == len(messages)


async def test_a_full_spool_is_told_before_250_even_when_verdicts_were_formed() -> None:
    async with JudgeBench(Judge(), rule("one", S3), reject=("spf",)) as bench:
        bench.spool.faults.put = Fault(SpoolError("full"), 1)
        with pytest.raises(SpoolError):
            await bench.receive()


