"""`inbound shadow` beside a real service: real mail, a candidate that changes, breaks and goes, restarts, several processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from process import Serve, converse, message
from sink import Sink
from test_processes import pid_of, send_to_each
from test_serve import command, inbound

from inbound.deliver.shadow_schema import Report

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: support
      Recipients: [support@example.com]
      Actions: [{S3Action: {BucketName: mail, ObjectKeyPrefix: support/}}, {StopAction: {Scope: RuleSet}}]
    - Name: all
      Actions: [{S3Action: {BucketName: mail, ObjectKeyPrefix: all/}}]
"""
ELSEWHERE = RULES.replace("support/", "elsewhere/")
NARROW = RULES[: RULES.index("    - Name: all")]
QUICK = {"retry_min": "0.2", "retry_max": "0.5"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    (tmp_path / "candidate.yaml").write_text(ELSEWHERE)
    return tmp_path / "candidate.yaml"


def put(path: Path, text: str) -> None:
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


async def send(serve: Serve, *recipients: str) -> str:
    """A message, and the end of all that is done with it; its id."""
    first, *more = recipients
    mail, rcpt, data, body = message(first, b"Subject: hi\r\n\r\nbody")
    replies = await converse(serve.port, b"EHLO client.test\r\n", mail, rcpt, *(b"RCPT TO:<%b>\r\n" % each.encode() for each in more), data, body)
    assert replies[-1].startswith("250 2.0.0 OK "), replies
    message_id = replies[-1].split()[-1]
    await serve.until(lambda e: e["event"] in ("message.done", "message.dead") and e["id"] == message_id)
    return message_id


async def tell(serve: Serve, *arguments: str) -> dict[str, Any]:
    """What --json prints, held to its schema."""
    told = await command(serve, "shadow", *arguments, "--json")
    assert (told.returncode, told.stderr) == (0, "")
    found: dict[str, Any] = json.loads(told.stdout)
    if "report" in arguments:
        Report.model_validate(found)
    else:
        Report.model_validate(found | {"groups": [], "earlier": []})
    return found


async def report(serve: Serve) -> list[tuple[int, list[str], list[str], list[str]]]:
    """Of each group how many messages, the steps that go and those that come, the notes."""
    def steps(listed: list[dict[str, Any]]) -> list[str]:
        return [f"{step['Rule']} {step['S3Action']['ObjectKeyPrefix']}" if "S3Action" in step else f"{step['Rule']} Stop" for step in listed]

    told = await tell(serve, "report")
    return [(group["messages"], steps(group["removed"]), steps(group["added"]), group["notes"]) for group in told["groups"]]


async def test_a_candidate_is_tried_on_real_mail_and_the_report_groups_what_differs(tmp_path: Path, sink: Sink, candidate: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    assert (await tell(serve))["state"] == "off"
    before = await send(serve, "support@example.com")
    started = await command(serve, "shadow", "candidate.yaml")
    assert (started.returncode, started.stderr) == (0, "")
    assert f"{candidate}: tried since" in started.stdout
    loaded = await serve.until(lambda e: e["event"] == "shadow.loaded")
    sent = [await send(serve, "support@example.com"), await send(serve, "support@example.com", "x@example.com"), await send(serve, "x@example.com")]
    told = await tell(serve, "report")
    assert (told["state"], told["file"], told["running"], told["revision"]) == ("on", str(candidate), True, loaded["revision"])
    assert (told["judged"], told["differ"], told["trouble"], told["earlier"]) == (3, 2, "", [])
    (group,) = told["groups"]
    assert [each["id"] for each in group["examples"]] == [sent[1], sent[0]]
    assert group["examples"][0]["recipients"] == ["support@example.com", "x@example.com"]
    assert await report(serve) == [(2, ["support support/"], ["support elsewhere/"], [])]
    keys = [f"support/{before}", f"support/{sent[0]}", f"support/{sent[1]}", f"all/{sent[1]}", f"all/{sent[2]}"]
    assert sorted(sink.objects) == sorted(f"mail/{key}" for key in keys), "the candidate acts on nothing"
    for each in sent[:2]:
        assert (await command(serve, "explain", each)).returncode == 0

    position = len(serve.events)
    put(candidate, NARROW)
    narrow = await serve.until(lambda e: e["event"] == "shadow.loaded", after=position)
    for recipient in ("x@example.com", "y@example.com", "x@example.com", "support@example.com"):
        await send(serve, recipient)
    told = await tell(serve, "report")
    assert (told["revision"], told["judged"], told["differ"]) == (narrow["revision"], 4, 3)
    assert told["earlier"] == [{"revision": loaded["revision"], "judged": 3, "differ": 2}]
    (group,) = told["groups"]
    assert group["refused"] == [{"recipient": "x@example.com", "messages": 2}, {"recipient": "y@example.com", "messages": 1}]
    assert await report(serve) == [(3, ["all all/"], [], ["a recipient is refused: no enabled rule matches it", "ends UNMATCHED, not COMPLETED"])]

    position = len(serve.events)
    put(serve.rules, NARROW)
    await serve.until(lambda e: e["event"] == "rules.loaded", after=position)
    await send(serve, "support@example.com")
    assert ((await tell(serve))["judged"], (await tell(serve))["differ"]) == (5, 3), "the rules are what the candidate is now"
    people = (await command(serve, "shadow", "report")).stdout
    assert "5 messages judged, 3 would have gone another way" in people
    assert "x@example.com  2 messages" in people
    assert await serve.kill(signal.SIGTERM) == 0


async def test_a_broken_edit_or_a_candidate_that_is_gone_changes_nothing_and_is_told_of_once(tmp_path: Path, sink: Sink, candidate: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    await tell(serve, "candidate.yaml")
    revision = (await serve.until(lambda e: e["event"] == "shadow.loaded"))["revision"]
    position = len(serve.events)
    put(candidate, "RuleSets: [")
    rejected = await serve.until(lambda e: e["event"] == "shadow.rejected", after=position)
    assert (rejected["file"], rejected["kept"]) == (str(candidate), revision)
    assert rejected["errors"][0].startswith(f"{candidate}:2:1: ")
    await send(serve, "support@example.com")
    told = await tell(serve, "report")
    assert (told["revision"], told["judged"], told["differ"]) == (revision, 1, 1)
    assert told["trouble"].startswith(f"{candidate}:2:1: ")
    remove(candidate)
    gone = await serve.until(lambda e: e["event"] == "shadow.rejected" and "no such file" in e["errors"][0], after=position)
    assert gone["kept"] == revision
    await send(serve, "support@example.com")
    assert f"{candidate}: no such file; revision {revision} counts on" in (await command(serve, "shadow")).stdout
    assert len([e for e in serve.events[position:] if e["event"] == "shadow.rejected"]) == 2
    assert not [e for e in serve.events if e["event"] == "rules.rejected"]

    await serve.kill()
    await serve.start()
    await send(serve, "support@example.com")
    assert ((await tell(serve))["judged"], (await tell(serve))["revision"]) == (3, revision), "a restart finds no file, and goes on all the same"
    position = len(serve.events)
    put(candidate, ELSEWHERE)
    await serve.until(lambda e: e["event"] == "shadow.loaded" and e["revision"] == revision, after=position)
    assert (await tell(serve))["trouble"] == ""
    assert await serve.kill(signal.SIGTERM) == 0


async def test_several_processes_count_as_one_through_a_crash_and_a_restart(tmp_path: Path, sink: Sink, candidate: Path) -> None:
    rules = RULES.replace("support@example.com", "u@example.com")
    put(candidate, rules.replace("support/", "elsewhere/"))
    serve = Serve(tmp_path, rules, sink.endpoint, processes="2", **QUICK)
    await serve.start()
    await tell(serve, "candidate.yaml")

    def count() -> int:
        return len([e for e in serve.events if e["event"] == "message.done"])

    async def all_done() -> None:
        await serve.until(lambda _: count() == len([e for e in serve.events if e["event"] == "message.received"]))

    await send_to_each(serve)
    await all_done()
    told = await tell(serve, "report", "--examples", "1000")
    assert (told["judged"], told["differ"]) == (count(), count())
    ids = {e["id"] for e in serve.events if e["event"] == "message.done"}
    assert {each["id"] for each in told["groups"][0]["examples"]} == ids
    assert len([e for e in serve.events if e["event"] == "shadow.loaded"]) == 1, "one process tells the log"
    os.kill(pid_of(serve, 2), signal.SIGKILL)
    await serve.until(lambda e: e["event"] == "process.ended")
    await send_to_each(serve)
    await all_done()
    assert (await tell(serve))["judged"] == count()
    assert await serve.kill(signal.SIGTERM) == 0
    at_rest = (await command(serve, "shadow")).stdout
    assert "no service runs on this data folder now" in at_rest
    assert f"{count()} messages judged" in at_rest
    await serve.start()
    await send_to_each(serve)
    await all_done()
    assert (await tell(serve))["judged"] == count()
    assert await serve.kill(signal.SIGTERM) == 0


async def test_started_before_the_service_and_stopped_beside_it(tmp_path: Path, sink: Sink, candidate: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    assert await serve.kill(signal.SIGTERM) == 0
    told = await tell(serve, "candidate.yaml")
    assert (told["state"], told["running"], told["revision"]) == ("on", False, "")
    assert "which no service has taken yet" in told["trouble"]
    remove(candidate)
    await serve.start()
    await send(serve, "support@example.com")
    assert (await tell(serve))["differ"] == 1, "the text of the beginning is kept"
    put(candidate, ELSEWHERE)
    again = await command(serve, "shadow", "candidate.yaml")
    assert again.stdout.startswith("candidate.yaml is tried already, and followed")
    assert (await tell(serve))["differ"] == 1, "and counts on"
    stopped = await tell(serve, "stop")
    assert (stopped["state"], stopped["differ"]) == ("stopped", 1)
    assert stopped["stopped"] is not None
    await serve.until(lambda e: e["event"] == "shadow.stopped")
    await send(serve, "support@example.com")
    assert (await tell(serve, "report"))["judged"] == 1
    await asyncio.to_thread(inbound, serve, "shadow", "candidate.yaml")
    assert (await tell(serve))["judged"] == 0, "a new run counts from nothing"
    await send(serve, "support@example.com")
    assert (await tell(serve))["judged"] == 1
    assert await serve.kill(signal.SIGTERM) == 0


async def test_the_rule_file_itself_as_candidate_is_said_to_differ_in_nothing(tmp_path: Path, sink: Sink) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    started = await command(serve, "shadow", "rules.yaml")
    assert (started.returncode, started.stderr) == (0, "inbound: rules.yaml is the rule file in force itself: nothing will differ\n")
    for recipient in ("support@example.com", "x@example.com"):
        await send(serve, recipient)
    told = await tell(serve, "report")
    assert (told["judged"], told["differ"], told["groups"]) == (2, 0, [])
    assert await serve.kill(signal.SIGTERM) == 0
