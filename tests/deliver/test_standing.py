"""May mail come, and if not, why not; and numbers that are there whatever the spool does."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from worker_bench import S3, Bench, rule

from inbound.accept.spool import SpoolError
from inbound.accept.spool.memory import Fault
from inbound.deliver.pressure import Bounds, Pressure
from inbound.deliver.sinks import SinkDown
from inbound.deliver.standing import Standing
from inbound.metrics import Metrics


class Stand(Bench):
    """A bench, and how it stands; what it is asked, tests choose."""

    def __init__(self) -> None:
        super().__init__(rule("a", S3))
        self.is_serving = self.has_rules = True
        self.expires: float | None = None
        self.free = 100
        metrics = Metrics()
        self.pressure = Pressure(self.spool, Path(), Bounds(100), structlog.get_logger(), metrics=metrics, free=lambda _: self.free,
                                 clock=lambda: self.now)
        self.standing = Standing(self.spool, self.worker.sinks, self.pressure, metrics, is_serving=lambda: self.is_serving,
                                 has_rules=lambda: self.has_rules, sessions=lambda: 3, expires=lambda: self.expires, clock=lambda: self.now)

    async def number(self, name: str, *labels: str) -> float | None:
        """One number, or None where it is not told."""
        for told, value in (await self.standing.numbers()).get(f"inbound_{name}", []):
            if told == list(labels):
                return value
        return None


async def test_mail_may_come_while_nothing_is_against_it() -> None:
    async with Stand() as stand:
        await stand.pressure.look()
        assert stand.standing.unready() is None
        assert (await stand.number("ready"), await stand.number("sessions")) == (1, 3)


async def test_each_thing_that_is_against_it_is_named() -> None:
    async with Stand() as stand:
        stand.is_serving = False
        assert stand.standing.unready() == ("draining", "the service is stopping, or not started yet")
        stand.is_serving, stand.has_rules = True, False
        assert stand.standing.unready() == ("no rules", "no rule set is active: every recipient is refused")
        stand.has_rules, stand.free = True, 99
        await stand.pressure.look()
        assert stand.standing.unready() == ("disk full", "99 octets free at ., where 100 octets are to stay free")
        assert await stand.number("ready") == 0
        stand.free = 100
        stand.spool.faults.put = Fault(SpoolError("input/output error"))
        stand.pressure.failed(SpoolError("input/output error"))
        await stand.pressure.look()
        assert stand.standing.unready() == ("spool failed", "input/output error")
        stand.spool.faults.put = None
        await stand.pressure.look()
        assert stand.standing.unready() is None


async def test_queue_breakers_and_dead_letters_are_read_off_when_somebody_asks() -> None:
    async with Stand() as stand:
        stand.aws.down["s3:mail"] = SinkDown("no")
        for _ in range(6):
            await stand.send()
        stand.now += 30
        assert [await stand.number(name, "s3:mail") for name in ("queue_messages", "queue_oldest_seconds")] == [6, 30]
        assert [await stand.number("sink_breaker", "s3:mail", state) for state in ("closed", "open", "probing")] == [0, 1, 0]
        assert await stand.number("spool_messages", "deferred") == 6
        stand.aws.down.clear()
        await stand.later(900)
        assert await stand.number("queue_messages", "s3:mail") is None, "nothing waits any more, and no stale number is left"
        assert await stand.number("spool_messages", "done") == 6


async def test_the_end_of_the_certificate_is_told_where_there_is_one() -> None:
    async with Stand() as stand:
        assert await stand.number("certificate_expiry_timestamp_seconds") is None
        stand.expires = 1e9
        assert await stand.number("certificate_expiry_timestamp_seconds") == 1e9


async def test_a_spool_that_does_not_answer_takes_no_other_number_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing() -> None:
        raise SpoolError("locked")

    async with Stand() as stand:
        await stand.send()
        await stand.standing.numbers()
        monkeypatch.setattr(stand.spool, "counts", failing)
        assert await stand.number("sessions") == 3
        assert await stand.number("spool_messages", "done") == 1, "its last answer"
