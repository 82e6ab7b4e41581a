"""What an operator sees of `inbound serve`: numbers, readiness, alerts; a real process, SMTP from outside, the numbers read by Prometheus' parser."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from process import Serve, converse, message
from prometheus_client.parser import text_string_to_metric_families
from sink import Sink

from inbound.metrics import ALL

TOPIC = "arn:aws:sns:us-east-1:000000000000:alerts"
STORED = "arn:aws:sns:us-east-1:000000000000:stored"
RULES = f"""
Identities: [example.com]
RuleSets:
  default:
    - Name: stored
      Recipients: [stored@example.com]
      Actions:
        - AddHeaderAction: {{HeaderName: X-A, HeaderValue: b}}
        - S3Action: {{BucketName: mail, TopicArn: "{STORED}"}}
"""
BODY = b"Subject: hi\r\n\r\nbody"
TO = "stored@example.com"
QUICK = {"retry_min": "0.2", "retry_max": "0.5"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


@asynccontextmanager
async def serving(folder: Path, endpoint: str, rules: str = RULES, **told: str) -> AsyncIterator[Serve]:
    serve = Serve(folder, rules, endpoint, **told)
    await serve.start()
    try:
        yield serve
    except BaseException:
        await serve.kill()
        raise
    assert await serve.kill(signal.SIGTERM) == 0, serve.errors


async def got(serve: Serve, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(serve.http + path) as answer:
        return answer.status, await answer.text()


async def ready(serve: Serve) -> tuple[int, dict[str, Any]]:
    status, text = await got(serve, "/readyz")
    return status, json.loads(text)


class Numbers:
    """What /metrics says at one moment."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {(s.name, frozenset(s.labels.items())): s.value for family in self.families.values() for s in family.samples}

    def get(self, name: str, **labels: str) -> float:
        return self._samples.get((f"inbound_{name}", frozenset(labels.items())), 0.0)


async def numbers(serve: Serve) -> Numbers:
    status, text = await got(serve, "/metrics")
    assert status == 200
    return Numbers(text)


async def until(serve: Serve, holds: Any) -> Numbers:
    """The numbers as soon as something holds of them; nothing announces them."""
    async with asyncio.timeout(30):
        while not holds(found := await numbers(serve)):  # noqa: ASYNC110  # as the docstring says
            await asyncio.sleep(0.05)
    return found


async def send(serve: Serve, body: bytes = BODY) -> str:
    return (await converse(serve.port, b"EHLO client.test\r\n", *message(TO, body)))[-1]


async def mail(serve: Serve) -> str:
    return (await converse(serve.port, b"EHLO client.test\r\n", b"MAIL FROM:<a@example.net>\r\n"))[-1]


async def test_the_numbers_tell_of_reception_refusals_verdicts_actions_and_commits(sink: Sink, tmp_path: Path) -> None:
    async with serving(tmp_path, sink.endpoint) as serve:
        for _ in range(3):
            assert (await send(serve)).startswith("250 ")
        for _ in range(2):
            replies = await converse(serve.port, b"EHLO c\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<no@example.com>\r\n", b"JUNK\r\n")
            assert [answer[:3] for answer in replies[-2:]] == ["550", "500"]
        found = await until(serve, lambda n: n.get("messages_done_total", disposition="COMPLETED") == 3 and n.get("sessions") == 0)
        assert {name.removesuffix("_total") for name in ALL} <= {name.removesuffix("_total") for name in found.families}
        assert found.get("messages_received_total") == 3
        assert (found.get("message_size_bytes_count"), found.get("message_size_bytes_sum")) == (3, 3 * (len(BODY) + 2))
        assert found.get("refusals_total", reason="no rule", code="550") == 2
        assert found.get("refusals_total", reason="unknown command", code="500") == 2
        assert (found.get("connections_total"), found.get("sessions")) == (5, 0)
        assert found.get("verdicts_total", verdict="spf", status="GRAY") == 3
        assert found.get("verdicts_total", verdict="virus", status="DISABLED") == 3
        for action, part in (("AddHeader", "action"), ("S3", "action"), ("S3", "topic")):
            assert found.get("actions_total", rule="stored", action=action, part=part, outcome="success") == 3
        assert found.get("action_seconds_count", rule="stored", action="S3", part="topic") == 3
        assert found.get("action_seconds_sum", rule="stored", action="S3", part="action") > 0
        assert found.get("message_seconds_count") == 3
        assert found.get("spool_messages", state="done") == 3
        assert found.get("commit_operations_sum") >= 6
        assert found.get("commit_seconds_count") >= 1
        assert found.get("sink_breaker", sink="s3:mail", state="closed") == 1
        assert found.get("rule_reloads_total", outcome="loaded") == 1
        assert (found.get("rules_good"), found.get("ready"), found.get("backpressure", reason="disk full")) == (1, 1, 0)
        assert found.get("disk_free_bytes") > found.get("disk_reserve_bytes") == 64 * 2**20


async def test_nothing_that_a_stranger_says_is_in_the_numbers(sink: Sink, tmp_path: Path) -> None:
    async with serving(tmp_path, sink.endpoint) as serve:
        await converse(serve.port, b"EHLO stranger.example\r\n", *message(TO, b"Subject: stranger\r\n\r\nstranger", "stranger@stranger.example"))
        await converse(serve.port, b"EHLO stranger\r\n", b"STRANGER\r\n", b"MAIL FROM:<stranger>\r\n", b"MAIL FROM:<a@b.example>\r\n",
                       b"RCPT TO:<stranger@example.com>\r\n")
        await until(serve, lambda n: n.get("messages_done_total", disposition="COMPLETED") == 1)
        _, text = await got(serve, "/metrics")
        assert "stranger" not in text.lower()
        assert "127.0.0.1" not in text


async def test_an_outage_shows_as_queue_and_breaker_then_as_451_and_unready_and_heals(sink: Sink, tmp_path: Path) -> None:
    async with serving(tmp_path, sink.endpoint, spool_age="8s", **QUICK) as serve:
        assert (await ready(serve))[0] == 200
        sink.fails = 503
        for answer in await asyncio.gather(*(send(serve) for _ in range(6))):
            assert answer.startswith("250 ")
        found = await until(serve, lambda n: n.get("queue_messages", sink="s3:mail") >= 5)
        assert found.get("queue_oldest_seconds", sink="s3:mail") > 0
        await serve.until(lambda e: e["event"] == "intake.closed")
        assert await mail(serve) == "451 4.3.2 Mail is held up here, try again later"
        status, told = await ready(serve)
        assert (status, told["status"]) == (503, "backlog")
        assert "INBOUND_SPOOL_AGE is 8 s" in told["error"]
        assert (await got(serve, "/healthz"))[0] == 200, "alive all the same"
        found = await numbers(serve)
        assert (found.get("ready"), found.get("backpressure", reason="backlog")) == (0, 1)
        assert found.get("refusals_total", reason="backlog", code="451") == 1
        assert found.get("actions_total", rule="stored", action="S3", part="action", outcome="failure") >= 5
        assert found.get("sink_breaker", sink="s3:mail", state="closed") == 0
        assert found.get("oldest_waiting_seconds") > 8
        sink.fails = 0
        await serve.until(lambda e: e["event"] == "intake.opened")
        assert (await send(serve)).startswith("250 ")
        assert (await ready(serve))[0] == 200
        await until(serve, lambda n: n.get("messages_done_total", disposition="COMPLETED") == 7)


async def test_a_spool_over_its_size_is_452_and_unready(sink: Sink, tmp_path: Path) -> None:
    sink.fails = 503
    async with serving(tmp_path, sink.endpoint, spool_max="1m", **QUICK) as serve:
        for _ in range(4):
            assert (await send(serve, b"Subject: large\r\n\r\n" + b"x" * 80 * 1000 * 4)).startswith("250 ")
        await serve.until(lambda e: e["event"] == "intake.closed")
        assert await mail(serve) == "452 4.3.1 Insufficient storage, try again later"
        status, told = await ready(serve)
        assert (status, told["status"]) == (503, "spool size")
        sink.fails = 0
        await serve.until(lambda e: e["event"] == "intake.opened")
        assert (await send(serve)).startswith("250 ")


async def test_without_an_active_rule_set_it_is_not_ready(tmp_path: Path) -> None:
    async with serving(tmp_path, "http://127.0.0.1:9", "RuleSets: {}\n") as serve:
        status, told = await ready(serve)
        assert (status, told) == (503, {"status": "no rules", "error": "no rule set is active: every recipient is refused"})
        assert (await numbers(serve)).get("ready") == 0
        serve.rules.write_text(RULES)
        await until(serve, lambda n: n.get("ready") == 1)
        assert (await ready(serve))[0] == 200


async def test_dead_letters_and_refused_rules_are_told_to_topic_and_hook_and_the_hook_is_shown_nowhere(sink: Sink, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    arrived = asyncio.Event()

    async def hear(request: web.Request) -> web.Response:
        assert request.path_qs == "/geheim?token=geheim"
        heard.append(await request.json())
        arrived.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/{path:.*}", hear)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/geheim?token=geheim"
    try:
        async with serving(tmp_path, sink.endpoint, retry_for="1s", alert_topic=TOPIC, alert_hook=hook, log_level="debug", **QUICK) as serve:
            serve.rules.write_text(RULES.replace("BucketName", "BucketNam"))
            await serve.until(lambda e: e["event"] == "rules.rejected")
            found = await until(serve, lambda n: n.get("rules_good") == 0)
            assert found.get("rule_reloads_total", outcome="rejected") == 1
            serve.rules.write_text(RULES)
            await until(serve, lambda n: n.get("rules_good") == 1)
            sink.fails = 404
            accepted = [(await send(serve)).split()[-1] for _ in range(2)]
            await until(serve, lambda n: n.get("dead_letters_total") == 2)
            sink.fails = 0
            while not {("rules_rejected", False), ("rules_rejected", True), ("dead_letters", False)} <= {(a["kind"], a["over"]) for a in heard}:
                arrived.clear()
                await asyncio.wait_for(arrived.wait(), 30)
            await sink.until(lambda: len({json.loads(text)["kind"] for topic, text in sink.published if topic == TOPIC}) == 2)
            found = await numbers(serve)
            assert found.get("spool_messages", state="dead") == 2
            assert found.get("actions_total", rule="stored", action="S3", part="action", outcome="expired") == 2
            assert found.get("alerts_total", kind="dead_letters", channel="hook", outcome="sent") >= 1
            _, text = await got(serve, "/metrics")
        rejected, mended = (alert for alert in heard if alert["kind"] == "rules_rejected")
        assert "unknown key" in rejected["details"][0]
        assert (mended["over"], mended["summary"]) == (True, "the rule file is good again")
        dead = [detail for alert in heard if alert["kind"] == "dead_letters" for detail in alert["details"]]
        assert {detail.split(":")[0] for detail in dead} <= set(accepted)
        assert dead
        assert "geheim" not in json.dumps(serve.events) + serve.errors + text
    finally:
        await runner.cleanup()
