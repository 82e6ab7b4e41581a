"""What an operator is told of since it lasts: a sink that stays down while messages wait for it, a certificate that runs out."""

from __future__ import annotations

import pytest
from worker_bench import S3, SNS, Bench, rule

from inbound.accept.spool import Query, SpoolError, State
from inbound.deliver.alerts import Kind
from inbound.deliver.retry import Circuit
from inbound.deliver.sinks import SinkDown
from inbound.deliver.vigil import DAY, DOWN, REMIND, Vigil

DAYS_14 = 14 * DAY


class Watch(Bench):
    """A bench, and a vigil over it whose looks tests order."""

    def __init__(self) -> None:
        super().__init__(rule("a", S3), rule("b", SNS, to="other@example.com"))
        self.expires: float | None = None
        self.told: list[tuple[Kind, str]] = []
        self.over: list[tuple[Kind, str]] = []
        self.vigil = Vigil(self.spool, self.worker.sinks, self.hear, expires=lambda: self.expires, clock=lambda: self.now)

    def hear(self, kind: Kind, detail: str, what: str = "", *, over: bool = False) -> None:
        """Told to an operator: trouble is kept in `told`, its end in `over`."""
        assert what
        (self.over if over else self.told).append((kind, detail))

    async def looked(self, after: float = 0.0) -> list[tuple[Kind, str]]:
        """What a look tells, some time later."""
        self.now += after
        self.ticks += after
        before = len(self.told)
        await self.vigil.look()
        return self.told[before:]

    async def outage(self) -> None:
        """S3 goes down, and six messages find out."""
        self.aws.down["s3:mail"] = SinkDown("no")
        for _ in range(6):
            await self.send()
        assert self.worker.sinks.states()["s3:mail"] is Circuit.OPEN


async def test_a_sink_that_is_down_for_minutes_is_told_once_and_again_after_hours() -> None:
    async with Watch() as watch:
        await watch.outage()
        assert await watch.looked(DOWN - 1) == []
        assert await watch.looked(1) == [
            (Kind.QUEUE_STUCK, "s3:mail has been down for 5 min; messages that wait: 6, the oldest for 5 min")]
        assert await watch.looked(REMIND - 1) == []
        assert len(await watch.looked(1)) == 1


async def test_one_that_answered_and_goes_down_again_is_news() -> None:
    async with Watch() as watch:
        await watch.outage()
        assert len(await watch.looked(DOWN)) == 1
        watch.aws.down.clear()
        await watch.later(900)
        assert watch.worker.sinks.down() == {}
        assert watch.over == []
        assert await watch.looked() == []
        assert await watch.looked() == []
        assert watch.over == [(Kind.QUEUE_STUCK, "s3:mail is no longer down")], "once"
        await watch.outage()
        assert len(await watch.looked(DOWN)) == 1


async def test_one_that_answers_before_it_was_told_of_is_not_told_to_be_over() -> None:
    async with Watch() as watch:
        await watch.outage()
        assert await watch.looked(DOWN - 1) == []
        watch.aws.down.clear()
        await watch.later(900)
        assert await watch.looked() == []
        assert watch.over == []


async def test_one_that_nobody_waits_for_is_not_told() -> None:
    async with Watch() as watch:
        await watch.outage()
        waiting = await watch.spool.find(Query(states=[State.DEFERRED]))
        assert len(await watch.spool.drop([entry.id for entry in waiting])) == 6
        assert await watch.looked(DOWN) == []


async def test_one_that_was_down_before_a_restart_is_down_since_then() -> None:
    async with Watch() as watch:
        watch.worker.sinks.expect("s3:mail")
        watch.ticks += 7
        assert watch.worker.sinks.down() == {"s3:mail": 7}


async def test_a_spool_that_does_not_answer_ends_no_vigil(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing() -> None:
        raise SpoolError("locked")

    async with Watch() as watch:
        await watch.outage()
        monkeypatch.setattr(watch.spool, "backlog", failing)
        assert await watch.looked(DOWN) == []
        monkeypatch.undo()
        assert len(await watch.looked()) == 1


async def test_a_certificate_is_told_of_two_weeks_before_its_end_and_daily_from_then_on() -> None:
    async with Watch() as watch:
        assert await watch.looked() == []
        watch.expires = watch.now + DAYS_14 + 1
        assert await watch.looked() == []
        assert await watch.looked(1) == [(Kind.CERTIFICATE, "it expires in 14.0 days")]
        assert await watch.looked(DAY - 1) == []
        assert await watch.looked(1) == [(Kind.CERTIFICATE, "it expires in 13.0 days")]
        assert await watch.looked(13 * DAY) == [(Kind.CERTIFICATE, "it has expired: STARTTLS is not offered")]
        assert watch.over == []
        watch.expires = watch.now + 90 * DAY
        assert await watch.looked(DAY) == []
        assert await watch.looked(DAY) == []
        assert watch.over == [(Kind.CERTIFICATE, "it expires in 89 days")], "once"
