"""`inbound replay` beside a real service: real mail goes another way under changed rules, its content from the spool or from S3."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jsonschema
import pytest
from process import Serve, converse, message
from scanners import EICAR, ClamdAddresses
from sink import Sink
from test_processes import send_to_each
from test_serve import command

from inbound.deliver.replay_schema import schema
from inbound.deliver.trace_schema import schema as trace_schema

TOPIC = "arn:aws:sns:us-east-1:000000000000:inbound"
KEY = "arn:aws:kms:us-east-1:000000000000:key/k"
BODY = b"X-SES-Spam-Verdict: PASS\r\nSubject: hi\r\n\r\nbody"  # the first is renamed in what is stored
RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: support
      Recipients: [support@example.com, u@example.com]
      Actions: [{S3Action: {BucketName: mail, ObjectKeyPrefix: support/}}]
"""
CHANGED = f"""
Identities: [example.com]
RuleSets:
  default:
    - Name: support
      Recipients: [support@example.com, u@example.com]
      Actions:
        - AddHeaderAction: {{HeaderName: X-Route, HeaderValue: again}}
        - S3Action: {{BucketName: archive, ObjectKeyPrefix: again/}}
        - SNSAction: {{TopicArn: "{TOPIC}"}}
"""
KEPT = {"retain_content": "7d"}
QUICK = {"retry_min": "0.2", "retry_max": "0.5"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


async def send(serve: Serve, body: bytes = BODY, recipient: str = "support@example.com") -> str:
    """A message, and the end of all that is done with it; its id."""
    replies = await converse(serve.port, b"EHLO client.test\r\n", *message(recipient, body))
    assert replies[-1].startswith("250 2.0.0 OK "), replies
    message_id = replies[-1].split()[-1]
    await ended(serve, message_id)
    return message_id


async def ended(serve: Serve, message_id: str, after: int = 0) -> dict[str, Any]:
    return await serve.until(lambda e: e["event"] in ("message.done", "message.dead") and e["id"] == message_id, after=after)


async def replayed(serve: Serve, message_id: str, *arguments: str) -> dict[str, Any]:
    """Replay it; the event that it ended with."""
    position = len(serve.events)
    found = told(await command(serve, "replay", message_id, "--run", "--json", *arguments))
    assert [each["id"] for each in found["messages"] if each["run"]] == [message_id], found
    return await ended(serve, message_id, position)


def told(done: CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, schema())
    return found


def refused(done: CompletedProcess[str], says: str) -> None:
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("inbound: ")
    assert says in line


async def explained(serve: Serve, message_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await command(serve, "explain", message_id, "--json")).stdout)
    jsonschema.validate(found, trace_schema())
    return found


def done(attempts: list[dict[str, Any]]) -> list[str]:
    return [f"{each['rule']} {each['action']} {each['outcome']}" for each in attempts]


async def test_a_message_goes_its_new_way_and_explain_tells_both(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **KEPT)
    await serve.start()
    message_id = await send(serve)
    first = serve.events[-1]
    (tmp_path / "new.yaml").write_text(CHANGED)

    dry = await command(serve, "replay", message_id, "--rules", "new.yaml")
    assert (dry.returncode, dry.stdout.count("- support: S3Action"), dry.stdout.count("+ support: SNSAction")) == (0, 1, 1)
    assert (list(sink.objects), sink.published) == ([f"mail/support/{message_id}"], []), "nothing is done"

    event = await replayed(serve, message_id, "--rules", "new.yaml")
    assert ("replay" in first, event["replay"], event["steps"][0]) == (False, True, "support: AddHeader")
    assert sorted(sink.objects) == [f"archive/again/{message_id}", f"mail/support/{message_id}"]
    again, before = sink.objects[f"archive/again/{message_id}"], sink.objects[f"mail/support/{message_id}"]
    assert again == b"X-Route: again\r\n" + before
    assert BODY.split(b"\r\n\r\n")[1] in sink.published[0][1].encode()
    found = await explained(serve, message_id)
    (earlier,) = found["earlier"]
    assert ([action["state"] for rule in found["rules"] for action in rule["actions"]], found["unexplained"]) == (["done"] * 3, [])
    assert (earlier["disposition"], done(earlier["attempts"])) == ("COMPLETED", ["support S3 done"])
    people = (await command(serve, "explain", message_id)).stdout
    assert f"run 1, by revision {earlier['revision']}, until it was replayed at {found['replay']}" in people
    assert f"s3://mail/support/{message_id}" in people

    assert told(await command(serve, "replay", message_id, "--rules", "new.yaml", "--json"))["different"] == 0, "this is its way now"
    await serve.kill(15)


@pytest.mark.parametrize("body", [BODY, b"no header field\r\nat all", b"Subject: large\r\n\r\n" + b"large\r\n" * 60_000])
async def test_content_that_is_not_kept_comes_from_the_object(sink: Sink, tmp_path: Path, body: bytes) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    message_id = await send(serve, body)
    serve.rules.write_text(RULES.replace("support/", "again/"))
    found = told(await command(serve, "replay", "--since", "1h", "--run", "--json"))
    assert [each["run"] for each in found["messages"]] == [f"s3://mail/support/{message_id}"]
    await serve.until(lambda e: e["event"] == "message.done" and e.get("replay") is True)
    assert sink.objects[f"mail/again/{message_id}"] == sink.objects[f"mail/support/{message_id}"]
    assert not (await explained(serve, message_id))["unexplained"]
    await serve.kill(15)


async def test_content_that_cannot_be_had_is_one_line_and_nothing_is_done(sink: Sink, tmp_path: Path) -> None:
    published = CHANGED.replace("        - S3Action: {BucketName: archive, ObjectKeyPrefix: again/}\n", "")
    serve = Serve(tmp_path, published, sink.endpoint)
    await serve.start()
    only_published = await send(serve)
    refused(await command(serve, "replay", only_published, "--run"), "INBOUND_RETAIN_CONTENT keeps it), and no S3Action stored it")
    position = len(serve.events)
    serve.rules.write_text(RULES)
    await serve.until(lambda e: e["event"] == "rules.loaded", after=position)
    stored = await send(serve)
    object_key = f"mail/support/{stored}"
    sink.objects[object_key] += b"!"
    refused(await command(serve, "replay", stored, "--run"), f"s3://{object_key}: it does not hold the {len(BODY) + 2} octets of the message")
    sink.metadata[object_key] = {"x-amz-meta-x-amz-key-v2": "x"}
    refused(await command(serve, "replay", stored, "--run"), f"s3://{object_key} is encrypted with a KMS key")
    del sink.objects[object_key]
    refused(await command(serve, "replay", stored, "--run"), f"s3://{object_key} cannot be read: NoSuchKey: The specified key does not exist.")
    other = await command(serve, "replay", stored, "--run", "--rules", "other.yaml")
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    (tmp_path / "other.yaml").write_text("Identities: [example.com]\nRuleSets: {default: []}\n")
    refused(await command(serve, "replay", stored, "--run", "--rules", "other.yaml"), "no rule does anything with it now, so it is left as it is")
    assert sum(sink.puts.values()) == 1
    assert (await explained(serve, stored))["earlier"] == []
    await serve.kill(15)


@pytest.mark.parametrize("kept", [KEPT, {}], ids=["from the spool", "from S3"])
async def test_kill_9_in_the_midst_of_a_replay_loses_nothing(sink: Sink, tmp_path: Path, kept: dict[str, str]) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **kept, **QUICK)
    await serve.start()
    ids = [await send(serve) for _ in range(5)]
    (tmp_path / "new.yaml").write_text(CHANGED)
    sink.hang, sink.hangs = asyncio.Event(), b"Publish"
    found = told(await command(serve, "replay", *ids, "--run", "--json", "--rules", "new.yaml"))
    assert all(each["run"] for each in found["messages"])
    await sink.until(lambda: sum(count for key, count in sink.puts.items() if key.startswith("archive/")) == 5)
    await serve.kill(9)
    sink.hang.set()
    sink.hang = None
    position = len(serve.events)
    await serve.start()
    for message_id in ids:
        event = await ended(serve, message_id, position)
        assert (event["event"], event["replay"]) == ("message.done", True)
        assert f"archive/again/{message_id}" in sink.objects
        assert any(message_id in body for _, body in sink.published)
        (earlier,) = (await explained(serve, message_id))["earlier"]
        assert done(earlier["attempts"]) == ["support S3 done"]
    await serve.kill(15)


async def test_a_service_that_does_not_run_performs_it_when_it_starts(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **KEPT)
    await serve.start()
    message_id = await send(serve)
    await serve.kill(15)
    found = await command(serve, "replay", message_id, "--run")
    assert (found.returncode, found.stdout.count("to be performed again")) == (0, 2)
    waits = await command(serve, "replay", message_id, "--run")
    refused(waits, "still waits or is in hand")
    position = len(serve.events)
    await serve.start()
    assert (await ended(serve, message_id, position))["replay"] is True
    assert sink.puts[f"mail/support/{message_id}"] == 2
    await serve.kill(15)


async def test_a_dead_letter_that_no_retry_could_cure_goes_another_way(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK, retry_for="1")
    await serve.start()
    sink.fails, sink.code = 404, "NoSuchBucket"
    message_id = await send(serve)
    assert serve.events[-1]["event"] == "message.dead"
    sink.fails = 0
    serve.rules.write_text(CHANGED)
    event = await replayed(serve, message_id)
    assert event["event"] == "message.done"
    (earlier,) = (await explained(serve, message_id))["earlier"]
    assert (earlier["state"], "NoSuchBucket" in earlier["error"]) == ("dead", True)
    await serve.kill(15)


async def test_messages_of_several_processes(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, processes="2", **KEPT)
    await serve.start()
    taken = await send_to_each(serve)
    for message_id in taken.values():
        await ended(serve, message_id)
    (tmp_path / "new.yaml").write_text(CHANGED)
    position = len(serve.events)
    found = told(await command(serve, "replay", *taken.values(), "--run", "--json", "--rules", "new.yaml"))
    assert sorted(each["id"] for each in found["messages"] if each["run"] == "spool") == sorted(taken.values())
    for process, message_id in taken.items():
        event = await ended(serve, message_id, position)
        assert (event["replay"], event["process"]) == (True, process)
        assert f"archive/again/{message_id}" in sink.objects
    await serve.kill(15)


async def test_a_scan_that_only_the_new_rules_want_is_made_for_the_replay(sink: Sink, tmp_path: Path, clamd: ClamdAddresses) -> None:
    """And the verdicts formed at receipt stay: DNS is not asked again what it may not know any more."""
    serve = Serve(tmp_path, RULES, sink.endpoint, **KEPT, clamd=str(clamd.path))
    await serve.start()
    message_id = await send(serve, b"Subject: x\r\n\r\n" + EICAR)
    before = (await explained(serve, message_id))["verdicts"]
    (tmp_path / "new.yaml").write_text(CHANGED.replace("    - Name: support", "    - Name: support\n      ScanEnabled: true"))
    await replayed(serve, message_id, "--rules", "new.yaml")
    assert b"X-SES-Virus-Verdict: FAIL" in sink.objects[f"archive/again/{message_id}"]
    after = (await explained(serve, message_id))["verdicts"]
    assert (before["virus"]["status"], after["virus"]["status"]) == ("DISABLED", "FAIL")
    assert {name: after[name] for name in ("spf", "dkim", "dmarc")} == {name: before[name] for name in ("spf", "dkim", "dmarc")}
    await serve.kill(15)
