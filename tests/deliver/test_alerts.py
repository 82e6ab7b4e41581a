"""Alerts: grouped, counted, kept while they cannot be told, never in anybody's way; the hook is a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from journal import Journal

from inbound.deliver.alerts import DETAIL_LENGTH, DETAILS, Alert, AlertFailed, Alerts, Kind, Outlet
from inbound.deliver.channels import Hook, Topic, channels
from inbound.deliver.memory import MemoryAws
from inbound.deliver.sinks import SinkDown
from inbound.log import Event
from inbound.metrics import ALERTS, Metrics

README = Path(__file__).parents[2] / "README.md"
TOPIC = "arn:aws:sns:us-east-1:000000000000:alerts"
ALERT = Alert(Kind.DEAD_LETTERS, "mx.test", 2, 1_700_000_000.0, 1_700_000_060.5, ("id1: no", "id2: \x1b[31mno"))
SHAPE = {
    "version": 1, "service": "inbound", "host": "mx.test", "kind": "dead_letters", "over": False, "summary": "2 new dead letters", "count": 2,
    "first": "2023-11-14T22:13:20Z", "last": "2023-11-14T22:14:20Z", "details": ["id1: no", "id2: \x1b[31mno"],
    "look": "inbound queue list --state dead",
}


class Ear:
    """A channel that keeps what it is told; `fails` is what it raises instead."""

    name = "topic"

    def __init__(self) -> None:
        self.heard: list[Alert] = []
        self.fails: Exception | None = None
        self.calls = 0

    async def send(self, alert: Alert) -> None:
        self.calls += 1
        if self.fails is not None:
            raise self.fails
        self.heard.append(alert)


class Desk:
    """An outlet whose time only tests move."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.ear = Ear()
        self.journal = Journal()
        self.metrics = Metrics()
        self.outlet = Outlet(self.ear, "mx.test", self.journal.log, self.metrics, pause=300.0, clock=lambda: self.now, monotonic=lambda: self.now)

    async def after(self, seconds: float) -> list[tuple[str, int]]:
        """Let time pass; (kind, count) of what was told since."""
        before = len(self.ear.heard)
        self.now += seconds
        await self.outlet.tell_due(self.now)
        return [(str(alert.kind), alert.count) for alert in self.ear.heard[before:]]


async def test_the_first_of_a_kind_is_told_within_a_second_and_those_of_that_second_with_it() -> None:
    desk = Desk()
    for number in range(3):
        desk.outlet.tell(Kind.DEAD_LETTERS, f"id{number}: no")
    desk.outlet.tell(Kind.RULES_REJECTED, "rules.yaml:1:1: no")
    assert await desk.after(0.9) == []
    assert await desk.after(0.1) == [("dead_letters", 3), ("rules_rejected", 1)]
    assert desk.ear.heard[0].details == ("id0: no", "id1: no", "id2: no")


async def test_those_that_follow_are_one_alert_in_five_minutes_with_their_count_and_the_first_few() -> None:
    desk = Desk()
    desk.outlet.tell(Kind.DEAD_LETTERS, "x")
    await desk.after(1)
    for number in range(1000):
        desk.outlet.tell(Kind.DEAD_LETTERS, f"{number} " + "y" * 10_000)
        assert await desk.after(0.2) == []
    assert await desk.after(99) == []
    assert await desk.after(1) == [("dead_letters", 1000)]
    alert = desk.ear.heard[-1]
    assert len(alert.details) == DETAILS
    assert len(alert.details[0]) == DETAIL_LENGTH
    assert alert.last - alert.first == pytest.approx(199.8)
    assert await desk.after(10_000) == []


class Office:
    """All alerts, to one channel, whose time only tests move; `heard` is (kind, over, count) of each."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.ear = Ear()
        self.alerts = Alerts([self.ear], Journal().log, host="mx.test", clock=lambda: self.now, monotonic=lambda: self.now)

    async def after(self, seconds: float) -> list[tuple[str, bool, int]]:
        """Let time pass; (kind, over, count) of what was told since."""
        before = len(self.ear.heard)
        for _ in range(int(seconds)):
            self.now += 1
            (outlet,) = self.alerts._outlets
            await outlet.tell_due(self.now)
        return [(str(alert.kind), alert.over, alert.count) for alert in self.ear.heard[before:]]


async def test_the_end_of_what_was_told_is_told_once() -> None:
    office = Office()
    office.alerts.tell(Kind.RULES_REJECTED, "no", "rules.yaml")
    assert await office.after(1) == [("rules_rejected", False, 1)]
    for _ in range(2):
        office.alerts.tell(Kind.RULES_REJECTED, "revision 1 is in force", "rules.yaml", over=True)
    assert await office.after(1000) == [("rules_rejected", True, 1)]
    assert (office.ear.heard[-1].summary, office.ear.heard[-1].details) == ("the rule file is good again", ("revision 1 is in force",))


async def test_of_what_was_not_told_no_end_is_told() -> None:
    office = Office()
    office.alerts.tell(Kind.RULES_REJECTED, "revision 1 is in force", "rules.yaml", over=True)
    assert await office.after(1000) == []


async def test_trouble_that_is_over_within_the_second_is_told_before_its_end() -> None:
    office = Office()
    office.alerts.tell(Kind.SPOOL_TROUBLE, "disk gone", "writing")
    office.alerts.tell(Kind.SPOOL_TROUBLE, "it can be written again", "writing", over=True)
    assert await office.after(1) == [("spool_trouble", False, 1), ("spool_trouble", True, 1)]


async def test_a_kind_is_over_when_all_of_its_trouble_is() -> None:
    office = Office()
    office.alerts.tell(Kind.QUEUE_STUCK, "s3:mail is down", "s3:mail")
    office.alerts.tell(Kind.QUEUE_STUCK, "s3:mail is still down", "s3:mail")
    office.alerts.tell(Kind.QUEUE_STUCK, "the oldest has waited", "backlog")
    assert await office.after(1) == [("queue_stuck", False, 3)]
    office.alerts.tell(Kind.QUEUE_STUCK, "s3:mail is no longer down", "s3:mail", over=True)
    assert await office.after(1000) == []
    office.alerts.tell(Kind.QUEUE_STUCK, "over", "backlog", over=True)
    assert await office.after(1) == [("queue_stuck", True, 1)]


async def test_what_comes_and_goes_is_not_said_to_be_over_while_it_is_there() -> None:
    office = Office()
    said = []
    for _ in range(5):
        office.alerts.tell(Kind.SPOOL_TROUBLE, "disk gone", "writing")
        said += await office.after(10)
        office.alerts.tell(Kind.SPOOL_TROUBLE, "it can be written again", "writing", over=True)
        said += await office.after(10)
    assert said == [("spool_trouble", False, 1), ("spool_trouble", True, 1)]
    assert await office.after(1000) == [("spool_trouble", False, 4), ("spool_trouble", True, 1)]


async def test_an_end_that_cannot_be_told_is_kept_but_not_beyond_new_trouble() -> None:
    office = Office()
    office.alerts.tell(Kind.SPOOL_TROUBLE, "disk gone", "writing")
    await office.after(1)
    office.ear.fails = AlertFailed("no")
    office.alerts.tell(Kind.SPOOL_TROUBLE, "it can be written again", "writing", over=True)
    assert await office.after(10) == []
    office.alerts.tell(Kind.SPOOL_TROUBLE, "disk gone", "writing")
    office.ear.fails = None
    assert await office.after(1000) == [("spool_trouble", False, 1)]
    office.alerts.tell(Kind.SPOOL_TROUBLE, "it can be written again", "writing", over=True)
    office.ear.fails = AlertFailed("no")
    assert await office.after(10) == []
    office.ear.fails = None
    assert await office.after(1000) == [("spool_trouble", True, 1)]


async def test_kinds_do_not_hold_up_each_other() -> None:
    desk = Desk()
    desk.outlet.tell(Kind.DEAD_LETTERS, "x")
    await desk.after(1)
    desk.outlet.tell(Kind.QUEUE_STUCK, "y")
    assert await desk.after(1) == [("queue_stuck", 1)]


@pytest.mark.parametrize("error", [AlertFailed("no"), ValueError("internal"), TimeoutError()])
async def test_what_cannot_be_told_is_kept_and_tried_again_ever_more_slowly_and_logged_once(error: Exception) -> None:
    desk = Desk()
    desk.ear.fails = error
    desk.outlet.tell(Kind.DEAD_LETTERS, "first")
    for _ in range(3600):
        await desk.after(1)
    assert 10 <= desk.ear.calls <= 20
    assert len(desk.journal.of(Event.ALERT_FAILED)) == 1
    desk.outlet.tell(Kind.DEAD_LETTERS, "second")
    desk.ear.fails = None
    assert await desk.after(300) == [("dead_letters", 2)]
    assert desk.ear.heard[-1].details == ("first", "second")
    assert desk.metrics.get(ALERTS, "dead_letters", "topic", "sent") == 1
    assert desk.metrics.get(ALERTS, "dead_letters", "topic", "failed") == desk.ear.calls - 1
    desk.ear.fails = error
    desk.outlet.tell(Kind.DEAD_LETTERS, "third")
    await desk.after(300)
    assert len(desk.journal.of(Event.ALERT_FAILED)) == 2, "a new outage is told again"


async def test_a_channel_that_fails_holds_up_no_other_and_raises_no_alert_of_its_own() -> None:
    deaf, well, journal = Ear(), Ear(), Journal()
    deaf.fails = AlertFailed("no")
    alerts = Alerts([deaf, well], journal.log, host="mx.test")
    alerts.tell(Kind.SPOOL_TROUBLE, "x")
    await alerts.flush(5)
    assert (deaf.calls, len(well.heard)) == (1, 1)
    await alerts.flush(5)
    assert (deaf.calls, len(well.heard)) == (2, 1)


async def test_one_that_never_answers_does_not_hold_up_the_end() -> None:
    class Hanging(Ear):
        async def send(self, alert: Alert) -> None:
            await asyncio.Event().wait()

    alerts = Alerts([Hanging()], Journal().log, host="mx.test")
    alerts.tell(Kind.SPOOL_TROUBLE, "x")
    await asyncio.wait_for(alerts.flush(0.05), 5)


async def test_they_are_told_by_themselves() -> None:
    aws = MemoryAws()
    alerts = Alerts(channels(aws, TOPIC, None), Journal().log, host="mx.test")
    running = asyncio.create_task(alerts.run())
    await asyncio.sleep(0)  # it waits now
    alerts.tell(Kind.CERTIFICATE, "it expires in 3.0 days")
    await asyncio.wait_for(aws.until(lambda: bool(aws.published)), 10)
    running.cancel()
    topic, subject, text = aws.published[0]
    assert (topic, subject) == (TOPIC, "inbound mx.test: the certificate is about to expire")
    assert json.loads(text)["details"] == ["it expires in 3.0 days"]


async def test_what_is_being_told_when_the_end_comes_is_told_at_the_end() -> None:
    aws, answers = MemoryAws(), asyncio.Event()
    aws.faults[f"sns:{TOPIC}"] = [answers]
    alerts = Alerts(channels(aws, TOPIC, None), Journal().log, host="mx.test")
    running = asyncio.create_task(alerts.run())
    alerts.tell(Kind.DEAD_LETTERS, "id1: no")
    await asyncio.wait_for(aws.until(lambda: bool(aws.calls)), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await alerts.flush(5)
    assert [json.loads(text)["count"] for _, _, text in aws.published] == [1]


async def test_without_a_channel_nothing_is_kept() -> None:
    assert channels(MemoryAws(), None, None) == []
    alerts = Alerts([], Journal().log, host="mx.test")
    alerts.tell(Kind.DEAD_LETTERS, "x")
    await alerts.flush(1)


def test_an_alert_is_json_in_ascii() -> None:
    assert json.loads(ALERT.to_json()) == SHAPE
    assert ALERT.to_json().isascii()


def test_the_readme_shows_an_alert_with_its_keys_in_their_order_and_names_every_kind() -> None:
    readme = README.read_text()
    shown = json.loads(readme.split("```json\n")[1].split("```")[0])
    alert = Alert(Kind(shown["kind"]), shown["host"], shown["count"], _seconds(shown["first"]), _seconds(shown["last"]), tuple(shown["details"]))
    assert list(json.loads(alert.to_json()).items()) == list(shown.items())
    assert all(f"`{kind}`" in readme for kind in Kind)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_words_that_sns_takes_as_a_subject(kind: Kind) -> None:
    alert = Alert(kind, "m" * 200, 3, 0.0, 0.0, ())
    assert alert.summary.isascii()
    assert json.loads(alert.to_json())["look"].startswith("inbound ")


async def test_the_topic_gets_a_subject_of_less_than_100_characters() -> None:
    aws = MemoryAws()
    await Topic(aws, TOPIC).send(Alert(Kind.DEAD_LETTERS, "m" * 200, 3, 0.0, 0.0, ()))
    assert len(aws.published[0][1]) < 100


async def test_a_topic_that_fails_is_told_with_what_it_said() -> None:
    aws = MemoryAws()
    aws.down[f"sns:{TOPIC}"] = SinkDown("AuthorizationError")
    with pytest.raises(AlertFailed, match="alerts: AuthorizationError"):
        await Topic(aws, TOPIC).send(ALERT)


class Server:
    """A web hook: `status` is what it answers, `got` what it got."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[str, str, Any]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((request.method, request.path_qs, await request.json()))
        return web.Response(status=self.status, headers={"Location": "/elsewhere"} if self.status == 302 else {})


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/geheim?token=geheim"
    yield found
    await runner.cleanup()


async def test_the_hook_gets_the_alert_by_post(server: Server) -> None:
    await Hook(server.url).send(ALERT)
    assert server.got == [("POST", "/geheim?token=geheim", SHAPE)]


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_another_answer_than_2xx_is_a_failure_redirects_too_and_the_hook_is_not_shown(server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(AlertFailed) as failed:
        await Hook(server.url).send(ALERT)
    assert str(failed.value) == f"the hook answered {status}"
    assert len(server.got) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/geheim", "https://127.0.0.1:9/geheim", "http://geheim.invalid/geheim", "http://[geheim/"])
async def test_a_hook_that_cannot_be_reached_is_not_shown(url: str) -> None:
    desk = Desk()
    outlet = Outlet(Hook(url), "mx.test", desk.journal.log, desk.metrics, pause=300.0, clock=lambda: desk.now, monotonic=lambda: desk.now)
    outlet.tell(Kind.DEAD_LETTERS, "x")
    await outlet.flush()
    assert len(desk.journal.of(Event.ALERT_FAILED)) == 1
    assert "geheim" not in f"{desk.journal.events}"
