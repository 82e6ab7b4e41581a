"""Back-pressure, seen by an SMTP client of the real listener; the disk is a number that tests choose, the spool and AWS are their twins."""

from __future__ import annotations

import asyncio
import mmap
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from journal import Journal
from process import connected, converse, message, reply
from worker_bench import EVENT, FUNCTION, S3, SNS, Bench, rule

from inbound.accept.listener import Listener, bind
from inbound.accept.policy import Limits
from inbound.accept.spool import Load, SpoolError, SpoolFull, SpoolShort, State
from inbound.accept.spool.memory import Fault
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.deliver import worker
from inbound.deliver.alerts import Kind
from inbound.deliver.intake import SpoolIntake
from inbound.deliver.pressure import FLOOR, Bounds, Pressure, free_octets, reserve
from inbound.deliver.sinks import MessageFailed, SinkDown
from inbound.log import Event
from inbound.memory import LEAST, RESERVE, Reserve
from inbound.metrics import DISK_FREE, OLDEST, PRESSURE, SPOOL_FAILURES, SPOOL_TROUBLE, Metrics

MB = 2**20
BODY = b"Subject: hi\r\n\r\nbody"
TO = "u@example.com"
FULL = "452 4.3.1 Insufficient storage, try again later"
HELD_UP = "451 4.3.2 Mail is held up here, try again later"


class House(Bench):
    """A worker on the twins, with an intake and a listener before it; `free` is what the disk has, or what asking it raises."""

    def __init__(self, *rules: dict[str, Any], octets: int | None = None, age: float = 7200.0, **more: Any) -> None:
        super().__init__(*rules, **more)
        self.now = time.time()  # which the listener's envelopes say that it is
        self.free: int | OSError = 1000 * MB
        self.journal = Journal()
        self.metrics = Metrics()
        self.told: list[tuple[Kind, str]] = []
        self.over: list[tuple[Kind, str]] = []
        self.memory = Reserve()
        self.pressure = Pressure(self.spool, Path("/data"), Bounds(60 * MB, octets, age), self.journal.log, metrics=self.metrics,
                                 tell=self.hear, free=self._free, clock=lambda: self.now, memory=self.memory)
        intake = SpoolIntake(self.spool, self.worker, lambda: self.rules, self.journal.log, pressure=self.pressure, tls_works=lambda: False,
                             metrics=self.metrics)
        self.listener = Listener(intake, self.journal.log, hostname="mx.test", limits=Limits(), metrics=self.metrics, memory=self.memory)
        self.memory.on_short = (self.listener.relieve, self.pressure.short)
        self.port = 0

    def hear(self, kind: Kind, detail: str, what: str = "", *, over: bool = False) -> None:
        """Told to an operator: trouble is kept in `told`, its end in `over`."""
        assert what
        (self.over if over else self.told).append((kind, detail))

    def _free(self, folder: Path) -> int:
        assert folder == Path("/data")
        if isinstance(self.free, OSError):
            raise self.free
        return self.free

    async def sent(self, body: bytes = BODY) -> str:
        """The answer that ends an attempt to send a message: that to its content, or the first refusal."""
        async with connected(self.port) as (reader, writer):
            answer = await reply(reader)
            for command in (b"EHLO client.test\r\n", *message(TO, body)):
                writer.write(command)
                answer = await reply(reader)
                if answer[0] in "45":
                    break
        await self.worker.idle()
        return answer

    def logged(self, event: Event) -> int:
        return len(self.journal.of(event))


@asynccontextmanager
async def house(*rules: dict[str, Any], **more: Any) -> AsyncIterator[House]:
    async with House(*(rules or (rule("a", S3),)), **more) as opened:
        (sock,) = bind("127.0.0.1", 0)
        opened.port = sock.getsockname()[1]
        await opened.listener.open([sock])
        yield opened
        await opened.listener.drain(5)


def accepted(answer: str) -> bool:
    return answer.startswith("250 2.0.0 OK ")


async def test_a_disk_with_less_than_the_reserve_is_452_at_mail_until_there_is_room() -> None:
    async with house() as here:
        await here.pressure.look()
        assert accepted(await here.sent())
        here.free = 60 * MB - 1
        await here.pressure.look()
        await here.pressure.look()
        assert [await here.sent(), await here.sent()] == [FULL, FULL]
        assert here.told == [(Kind.SPOOL_TROUBLE, "60 MB free at /data, where 60 MB are to stay free")]
        assert (here.metrics.get(PRESSURE, "disk full"), here.metrics.get(DISK_FREE)) == (1, 60 * MB - 1)
        assert here.over == []
        here.free = 60 * MB
        await here.pressure.look()
        assert here.over == [(Kind.SPOOL_TROUBLE, f"over: {here.told[0][1]}")]
        assert accepted(await here.sent())
        assert here.metrics.get(PRESSURE, "disk full") == 0
        assert (here.logged(Event.INTAKE_CLOSED), here.logged(Event.INTAKE_OPENED)) == (1, 1)


async def test_a_message_that_was_begun_before_may_be_finished() -> None:
    async with house() as here, connected(here.port) as (reader, writer):
        answers = [await reply(reader)]
        for command in (b"EHLO client.test\r\n", *message(TO, BODY)):
            if command.startswith(b"RCPT"):
                here.free = 0
                await here.pressure.look()
            writer.write(command)
            answers.append(await reply(reader))
        assert accepted(answers[-1])
        writer.write(b"MAIL FROM:<a@example.net>\r\n")
        assert await reply(reader) == FULL


async def test_a_spool_over_its_size_is_452_until_what_waits_has_gone() -> None:
    async with house(octets=3000) as here:
        here.aws.down["s3:mail"] = SinkDown("no")
        for _ in range(3):
            assert accepted(await here.sent(b"Subject: x\r\n\r\n" + b"y" * 1000))
        await here.pressure.look()
        assert await here.sent() == FULL
        assert here.journal.of(Event.INTAKE_CLOSED)[0]["reason"] == "spool size"
        assert "INBOUND_SPOOL_MAX" in here.told[-1][1]
        here.aws.down.clear()
        await here.later(60)
        await here.pressure.look()
        assert accepted(await here.sent())


async def test_content_kept_after_the_end_makes_room_before_any_mail_is_refused() -> None:
    """INBOUND_RETAIN_CONTENT and INBOUND_SPOOL_MAX: the content finished first goes first, its trace stays, and senders notice nothing."""
    async with house(octets=3000, keep_content=True) as here:
        body = b"Subject: x\r\n\r\n" + b"y" * 1000
        sent = []
        for _ in range(6):
            answer = await here.sent(body)
            assert accepted(answer)
            sent.append(answer.split()[-1])
            await here.pressure.look()
        assert here.logged(Event.INTAKE_CLOSED) == 0
        assert [(await here.entry(one)).has_content for one in sent] == [False] * 4 + [True] * 2
        assert len(here.journal.of(Event.SERVICE_WARNING)) == 1, "told once"


async def test_content_kept_after_the_end_goes_before_the_disk_is_down_to_the_reserve() -> None:
    async with house(keep_content=True) as here:
        sent = [(await here.sent()).split()[-1] for _ in range(3)]
        here.free = 120 * MB
        await here.pressure.look()
        assert [(await here.entry(one)).has_content for one in sent] == [True] * 3
        here.free = 120 * MB - 1
        await here.pressure.look()
        assert [(await here.entry(one)).has_content for one in sent] == [False, True, True]
        assert "the disk fills up" in here.journal.of(Event.SERVICE_WARNING)[0]["warning"]
        assert accepted(await here.sent())


async def test_what_waits_is_never_removed_to_make_room() -> None:
    async with house(octets=100, keep_content=True) as here:
        here.aws.down["s3:mail"] = SinkDown("no")
        sent = (await here.sent(b"Subject: x\r\n\r\n" + b"y" * 1000)).split()[-1]
        here.free = 0
        await here.pressure.look()
        assert await here.sent() == FULL
        assert (await here.entry(sent)).has_content


async def test_a_disk_with_no_room_to_make_room_is_452_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(keep_content=True) as here:
        await here.sent()

        async def full(octets: int) -> int:
            raise SpoolFull(f"no space to remove {octets} octets")

        monkeypatch.setattr(here.spool, "shed", full)
        here.free = 0
        await here.pressure.look()
        assert (await here.sent(), here.pressure.trouble) == (FULL, "")


async def test_a_backlog_older_than_the_bound_is_451_until_its_sink_answers() -> None:
    async with house(age=600) as here:
        here.aws.down["s3:mail"] = SinkDown("no")
        assert accepted(await here.sent())
        await here.later(599)
        await here.pressure.look()
        assert accepted(await here.sent()), "not yet"
        await here.later(2)
        await here.pressure.look()
        assert await here.sent() == HELD_UP
        assert here.metrics.get(OLDEST) == pytest.approx(601, abs=0.9)
        (told,) = here.told
        assert told[0] is Kind.QUEUE_STUCK
        assert re.fullmatch("the oldest message has waited 60[01] s, INBOUND_SPOOL_AGE is 600 s", told[1])
        here.aws.down.clear()
        await here.later(900)
        assert (await here.spool.counts())[State.DONE] == 2
        await here.pressure.look()
        assert here.over == [(Kind.QUEUE_STUCK, f"over: {told[1]}")]
        assert accepted(await here.sent())


async def test_one_message_that_fails_for_reasons_of_its_own_closes_no_door() -> None:
    async with house(rule("a", EVENT), age=600) as here:
        here.aws.down[f"lambda:{FUNCTION}"] = MessageFailed("ValueError")
        assert accepted(await here.sent())
        await here.later(3600)
        await here.pressure.look()
        assert (await here.spool.counts())[State.DEFERRED] == 1
        assert accepted(await here.sent())


async def test_an_old_dead_letter_that_is_tried_again_closes_no_door() -> None:
    async with house(age=600) as here:
        here.aws.down["s3:mail"] = SinkDown("no")
        dead = (await here.sent()).split()[-1]
        while await here.state(dead) is not State.DEAD:
            await here.later(900)
        await here.pressure.look()
        assert here.pressure.refusal is None
        await here.spool.retry([dead], here.now)
        await here.later(0)
        await here.pressure.look()
        assert accepted(await here.sent())


async def test_a_clock_that_was_set_back_makes_nothing_old() -> None:
    async with house(age=600) as here:
        await here.send(work=False)
        here.now -= 10_000
        await here.pressure.look()
        assert (here.pressure.refusal, here.metrics.get(OLDEST)) == (None, 0)


async def test_what_the_twin_of_the_spool_cannot_keep_is_trouble_until_it_can_keep_something() -> None:
    async with house() as here:
        here.spool.faults.put = Fault(SpoolError("disk gone"))
        assert [await here.sent(), await here.sent()] == ["451 4.3.0 Could not store the message, try again later"] * 2
        await here.pressure.look()
        assert here.pressure.trouble == "disk gone"
        assert here.told == [(Kind.SPOOL_TROUBLE, "disk gone")], "told once"
        assert (here.metrics.get(SPOOL_TROUBLE), here.metrics.get(SPOOL_FAILURES)) == (1, 2)
        here.spool.faults.put = None
        await here.pressure.look()
        assert (here.pressure.trouble, here.metrics.get(SPOOL_TROUBLE)) == ("", 0), "no message had to come to find out"
        await here.pressure.look()
        assert here.over == [(Kind.SPOOL_TROUBLE, "it can be written again")], "once"
        assert accepted(await here.sent())


async def test_a_single_failure_is_over_for_the_next_message() -> None:
    async with house() as here:
        here.spool.faults.put = Fault(SpoolFull("no space"), times=1)
        assert await here.sent() == FULL
        assert accepted(await here.sent())


async def test_a_disk_that_cannot_be_asked_is_trouble_and_refuses_nothing() -> None:
    async with house() as here:
        here.free = OSError(5, "Input/output error")
        await here.pressure.look()
        assert here.pressure.trouble == "/data: Input/output error"
        assert accepted(await here.sent())


async def test_a_spool_that_does_not_answer_leaves_the_door_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(age=600) as here:
        here.aws.down["s3:mail"] = SinkDown("no")
        await here.sent()
        await here.later(700)
        await here.pressure.look()

        async def failing() -> None:
            raise SpoolError("locked")

        monkeypatch.setattr(here.spool, "load", failing)
        await here.pressure.look()
        assert await here.sent() == HELD_UP


async def test_the_watch_looks_again_by_itself() -> None:
    async with house() as here:
        watching = asyncio.create_task(here.pressure.watch())
        here.free = 0
        await here.journal.until(Event.INTAKE_CLOSED)
        here.free = 1000 * MB
        await here.journal.until(Event.INTAKE_OPENED)
        watching.cancel()


def test_the_reserve_is_one_and_a_half_messages_and_no_less_than_the_floor() -> None:
    assert reserve(400 * MB) == 600 * MB
    assert reserve(1024) == FLOOR == 64 * MB


def test_the_free_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    assert free_octets(tmp_path) > 0
    with pytest.raises(OSError, match="No such file"):
        free_octets(tmp_path / "nowhere")


async def test_what_waits_while_its_sinks_are_down_is_in_the_spool_and_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IN_HAND", 16)
    monkeypatch.setattr(worker, "FROM_SPOOL", 4)
    async with house(rule("a", S3), rule("b", SNS)) as here:
        never = asyncio.Event()
        here.aws.faults["s3:mail"] = [never] * 1000
        most = 0
        for start in range(0, 100, 5):
            async def one() -> None:
                nonlocal most
                commands = (b"EHLO client.test\r\n", *message(TO, BODY))
                assert accepted((await converse(here.port, *commands))[-1])
                most = max(most, len(here.worker._tasks))
            await asyncio.gather(*(one() for _ in range(start, start + 5)))
        counts = await here.spool.counts()
        assert most <= 16
        assert counts[State.ACTIVE] == len(here.worker._tasks) <= 16
        assert counts[State.ACTIVE] + counts[State.DEFERRED] == 100
        never.set()


async def test_the_spool_on_disk_holds_no_more_content_in_memory_than_it_may(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "spool", memory=10_000)
    here = Bench(rule("a", S3), spool=spool)  # type: ignore[arg-type]  # a bench that never crashes its spool takes any
    async with here:
        never = asyncio.Event()
        here.aws.faults["s3:mail"] = [never] * 1000
        messages = [await here.send(content=b"Subject: x\r\n\r\n" + b"y" * 1500, work=False) for _ in range(30)]
        assert 0 < spool.cached <= 10_000
        never.set()
        await here.worker.idle()
        assert {await here.state(one) for one in messages} == {State.DONE}
        assert spool.cached == 0


class TestMemory:
    """Short of memory, what is coming in is let go of, and nothing more is taken until there is a reserve again; what came whole is kept."""

    async def test_content_that_is_coming_is_452_when_it_has_come(self) -> None:
        async with house() as here, connected(here.port) as (reader, writer), connected(here.port) as (other, late):
            await reply(reader)
            await reply(other)
            *commands, content = message(TO, b"x" * 50_000)
            for command in (b"EHLO client.test\r\n", *commands):
                writer.write(command)
                assert (await reply(reader))[0] in "23"
            writer.write(content[:40_000])
            session = next(each for each in here.listener._sessions if each.transaction and each.transaction.reception)
            async with asyncio.timeout(10):
                while session.transaction.reception.size < 40_000:  # noqa: ASYNC110  # nobody tells of it
                    await asyncio.sleep(0)
            here.memory.spend()
            assert session.transaction.reception._draft.head(10) == b"", "its memory is wanted at once"
            writer.write(content[40_000:])
            assert await reply(reader) == FULL
            late.write(b"EHLO client.test\r\nMAIL FROM:<a@example.net>\r\n")
            assert (await reply(other))[:3] == "250"
            assert await reply(other) == FULL
            with pytest.raises(ConnectionError):
                async with connected(here.port) as (refused, _):
                    assert await reply(refused) == "421 4.3.2 Too busy, try again later"
                    await reply(refused)
            assert (here.told[0][0], here.metrics.get(PRESSURE, "memory")) == (Kind.SPOOL_TROUBLE, 1)
            await here.pressure.look()
            assert (here.over[0][0], here.metrics.get(PRESSURE, "memory")) == (Kind.SPOOL_TROUBLE, 0)
            writer.write(commands[0])
            assert (await reply(reader))[:3] == "250"
            assert accepted(await here.sent())

    async def test_the_reserve_grows_again_while_mail_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with house() as here:
            here.memory.spend()
            real, room = mmap.mmap, 3 * LEAST

            def scarce(fd: int, length: int, **options: int) -> mmap.mmap:
                if length > room:
                    raise OSError(12, "Cannot allocate memory")
                return real(fd, length, **options)

            monkeypatch.setattr("inbound.memory.mmap.mmap", scarce)
            await here.pressure.look()
            assert (here.memory.octets, here.pressure.refusal) == (2 * LEAST, None)
            room = RESERVE
            await here.pressure.look()
            assert here.memory.octets == RESERVE

    async def test_what_the_spool_has_no_memory_for_is_a_sign_whoever_asked_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with house() as here:
            async def starved() -> Load:
                raise SpoolShort("out of memory")

            monkeypatch.setattr(here.spool, "load", starved)
            await here.pressure.look()
            assert here.memory.is_short
            assert here.pressure.refusal is not None
        reserve = Reserve()
        reserve.note(SpoolShort("out of memory"))  # as the worker tells it
        assert reserve.is_short

    async def test_what_is_kept_is_acknowledged_and_worked_although_it_cannot_be_logged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with house() as here:
            intake = here.listener.intake
            assert isinstance(intake, SpoolIntake)

            def starved(event: Event, **_: object) -> None:
                assert event is Event.MESSAGE_RECEIVED
                raise MemoryError

            with monkeypatch.context() as patch:
                patch.setattr(intake, "_log", SimpleNamespace(info=starved))
                assert accepted(await here.sent())
            await here.worker.idle()
            assert len(here.aws.objects) == 1

    async def test_of_chunks_the_next_is_452(self) -> None:
        async with house() as here, connected(here.port) as (reader, writer):
            await reply(reader)
            for command in (b"EHLO client.test\r\n", *message(TO, b"")[:2], b"BDAT 5\r\nabcde"):
                writer.write(command)
                assert (await reply(reader))[:3] == "250"
            here.memory.spend()
            writer.write(b"BDAT 5 LAST\r\nabcde")
            assert await reply(reader) == FULL

    async def test_content_that_has_come_is_kept_as_it_is(self) -> None:
        async with house() as here, connected(here.port) as (reader, writer):
            await reply(reader)
            here.spool.faults.hold_put = asyncio.Event()
            *commands, content = message(TO, b"Subject: hi\r\n\r\n" + b"x" * 5000)
            for command in (b"EHLO client.test\r\n", *commands):
                writer.write(command)
                await reply(reader)
            writer.write(content)
            (session,) = here.listener._sessions
            async with asyncio.timeout(10):
                while not session.transaction.reception._is_whole:  # noqa: ASYNC110  # nobody tells of it
                    await asyncio.sleep(0)
            here.memory.spend()
            here.spool.faults.hold_put.set()
            assert accepted(await reply(reader))
            await here.worker.idle()
            (stored,) = [bytes(each) for each in here.aws.objects.values()]
            assert b"x" * 5000 in stored

    async def test_a_session_and_a_spool_that_are_out_of_memory_say_452_and_spend_the_reserve(self) -> None:
        for error in (SpoolShort("out of memory"), MemoryError()):
            async with house() as here:
                here.spool.faults.put = Fault(error, times=1)
                assert await here.sent() == FULL
                assert here.memory.is_short
                (failed,) = here.journal.of(Event.SESSION_FAILED)
                assert failed["error"] == "out of memory"
