"""`inbound serve` as a real process against a sink that answers like AWS: start, refusal to start, drain, outage, dead letters, reload."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process import Serve, clean_environment, connected, converse, message, reply
from sink import Sink

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: stored
      Recipients: [stored@example.com]
      Actions: [{S3Action: {BucketName: mail}}]
    - Name: published
      Recipients: [published@example.com]
      Actions: [{SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:inbound"}}]
"""
BODY = b"Subject: hi\r\n\r\nbody"
QUICK = {"retry_min": "0.2", "retry_max": "0.5", "retry_for": "1s"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


def inbound(serve: Serve, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command on the data of a service."""
    return subprocess.run([sys.executable, "-m", "inbound", *arguments], env=serve.environment, cwd=serve.folder, capture_output=True, text=True,
                          timeout=60, check=False)


async def command(serve: Serve, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same, while the sink goes on answering."""
    return await asyncio.to_thread(inbound, serve, *arguments)


async def send(serve: Serve, recipient: str, body: bytes = BODY) -> str:
    replies = await converse(serve.port, b"EHLO client.test\r\n", *message(recipient, body))
    assert replies[-1].startswith("250 2.0.0 OK "), replies
    return replies[-1].split()[-1]


async def test_a_message_of_ten_megabytes_is_one_put_and_exact(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    body = b"Subject: large\r\n\r\n" + b"\r\n".join(b"%08d" % n + b"x" * 60 for n in range(150_000))
    message_id = await send(serve, "stored@example.com", body)
    await sink.until(lambda: f"mail/{message_id}" in sink.objects)
    assert sink.puts[f"mail/{message_id}"] == 1
    head, _, stored = sink.objects[f"mail/{message_id}"].partition(b"Subject: large")
    assert head.startswith(b"Return-Path: <a@example.net>\r\nReceived: from client.test (unknown [127.0.0.1])\r\n by mx.test with SMTP id ")
    assert b"Subject: large" + stored == body + b"\r\n"
    assert await serve.kill(signal.SIGTERM) == 0


async def test_sigterm_lets_a_transaction_finish_and_tells_idle_sessions(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    async with connected(serve.port) as (idle, _), connected(serve.port) as (reader, writer):
        await reply(idle)
        await reply(reader)
        writer.write(b"EHLO x\r\n")
        await reply(reader)
        commands = message("stored@example.com", BODY)
        for line in commands[:3]:
            writer.write(line)
            answer = await reply(reader)
        assert answer.startswith("354")
        assert serve.process is not None
        serve.process.send_signal(signal.SIGTERM)
        assert (await reply(idle)).startswith("421 4.3.2 ")
        writer.write(commands[3])
        accepted = await reply(reader)
        assert accepted.startswith("250 2.0.0 OK ")
        assert (await reply(reader)).startswith("421 4.3.2 ")
        assert await serve.kill(0) == 0
    assert f"mail/{accepted.split()[-1]}" in sink.objects
    events = [e["event"] for e in serve.events]
    assert events.index("service.draining") < events.index("message.done") < events.index("service.stopped")


async def test_a_sink_that_hangs_does_not_hold_up_the_end(sink: Sink, tmp_path: Path) -> None:
    sink.hang = asyncio.Event()
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    message_id = await send(serve, "stored@example.com")
    await sink.until(lambda: sink.keys != [])
    assert serve.process is not None
    serve.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(serve.kill(0), 29) == 0
    sink.hang.set()
    sink.hang = None
    await serve.start()
    await sink.until(lambda: f"mail/{message_id}" in sink.objects)
    await serve.kill(signal.SIGTERM)


async def test_broken_rules_at_start_end_it_with_every_error_and_its_place(tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES.replace("BucketName", "BucketNam"), "http://127.0.0.1:9")
    done = await command(serve, "serve")
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"{serve.rules}:7:29: RuleSets.default[0].Actions[0].S3Action.BucketNam: unknown key; did you mean 'BucketName'?"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("name", "value", "said"), [
    ("INBOUND_LISTEN", "somewhere", "INBOUND_LISTEN: 'somewhere' is neither HOST:PORT nor"),
    ("INBOUND_RETRY_FOR", "soon", "INBOUND_RETRY_FOR: 'soon' is not a time"),
    ("INBOUND_TLS_CERT", "cert.pem", "INBOUND_TLS_CERT is set without INBOUND_TLS_KEY"),
    ("INBOUND_RULES", "nowhere.yaml", "nowhere.yaml: no such file"),
])
async def test_a_wrong_setting_gives_one_line_and_no_traceback(tmp_path: Path, name: str, value: str, said: str) -> None:
    serve = Serve(tmp_path, RULES, "http://127.0.0.1:9")
    serve.environment[name] = value
    done = await command(serve, "serve")
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_second_process_on_the_same_data_is_refused(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    done = await command(serve, "serve")
    assert done.returncode == 2
    assert serve.process is not None
    assert str(serve.process.pid) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    await send(serve, "stored@example.com")
    assert await serve.kill(signal.SIGTERM) == 0


async def test_an_outage_delays_only_its_messages_and_the_backlog_goes_at_once(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    sink.fails = 503
    held = [await send(serve, "stored@example.com") for _ in range(12)]
    down = await serve.until(lambda e: e["event"] == "sink.down")
    assert down["sink"] == "s3:mail"
    assert "told to fail" in down["error"]
    shown = json.loads((await command(serve, "queue", "list", "--json")).stdout)
    assert shown["counts"]["deferred"] + shown["counts"]["active"] == 12
    sink.fails = 0
    await sink.until(lambda: all(f"mail/{m}" in sink.objects for m in held), seconds=15)
    await serve.until(lambda e: e["event"] == "sink.up")
    assert await serve.kill(signal.SIGTERM) == 0


async def test_after_a_restart_the_backlog_goes_at_once(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    sink.fails = 503
    held = [await send(serve, "stored@example.com") for _ in range(8)]
    await serve.until(lambda e: e["event"] == "sink.down")
    await serve.kill()
    sink.fails = 0
    await serve.start()
    await sink.until(lambda: all(f"mail/{m}" in sink.objects for m in held), seconds=15)
    await serve.kill(signal.SIGTERM)


async def test_a_dead_letter_is_seen_and_tried_again_beside_the_running_service(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    sink.fails = 403
    message_id = await send(serve, "stored@example.com")
    dead = await serve.until(lambda e: e["event"] == "message.dead")
    assert dead["id"] == message_id
    listed = await command(serve, "queue", "list")
    assert f"{message_id}  dead" in listed.stdout
    assert "told to fail" in listed.stdout
    assert "1 dead" in listed.stdout.splitlines()[-1]
    shown = await command(serve, "queue", "show", message_id)
    assert "+ stored: stored@example.com matches stored@example.com" in shown.stdout
    assert "text/plain" in shown.stdout
    assert "attempt 1 of the action" in shown.stdout
    explained = await command(serve, "explain", message_id[:10])
    assert shown.stdout.startswith(explained.stdout.rstrip("\n")), "what queue show adds is the outline"
    sink.fails = 0
    retried = await command(serve, "queue", "retry", message_id)
    assert retried.stdout == f"{message_id} will be tried again\n"
    await sink.until(lambda: f"mail/{message_id}" in sink.objects)
    await serve.until(lambda e: e["event"] == "message.done" and e["id"] == message_id)
    again = await command(serve, "queue", "retry", message_id)
    assert (again.returncode, again.stderr) == (1, f"inbound: {message_id} is neither dead nor waiting\n")
    await serve.kill(signal.SIGTERM)


async def test_a_dropped_message_is_gone(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    sink.fails = 403
    ids = [await send(serve, "stored@example.com") for _ in range(2)]
    for message_id in ids:
        await serve.until(lambda e, m=message_id: e["event"] == "message.dead" and e["id"] == m)
    assert (await command(serve, "queue", "drop", ids[0])).stdout == f"{ids[0]} is gone\n"
    assert (await command(serve, "queue", "show", ids[0])).returncode == 1
    await serve.kill(signal.SIGTERM)
    assert (await command(serve, "queue", "drop", "--all")).stdout == f"{ids[1]} is gone\n", "without a running service too"
    assert json.loads((await command(serve, "queue", "list", "--json")).stdout)["entries"] == []


async def test_dead_letters_are_chosen_by_error_and_judged_anew_by_current_rules(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, **QUICK)
    await serve.start()
    sink.fails = 403
    stored, published = await send(serve, "stored@example.com"), await send(serve, "published@example.com")
    for message_id in (stored, published):
        await serve.until(lambda e, m=message_id: e["event"] == "message.dead" and e["id"] == m)
    listed = json.loads((await command(serve, "queue", "list", "--sink", "s3:mail", "--json")).stdout)
    assert [entry["id"] for entry in listed["entries"]] == [stored]
    assert json.loads((await command(serve, "queue", "list", "--older", "1h", "--json")).stdout)["entries"] == []
    assert len(json.loads((await command(serve, "queue", "list", "--newer", "1h", "--error", "TOLD to", "--json")).stdout)["entries"]) == 2
    sink.fails = 0
    serve.rules.write_text(RULES.replace("BucketName: mail", "BucketName: other"))
    await serve.until(lambda e: e["event"] == "rules.loaded" and e is not serve.events[0])
    retried = await command(serve, "queue", "retry", "--error", "s3:mail", "--current-rules")
    assert retried.stdout + retried.stderr == f"{stored} will be tried again\n"
    await sink.until(lambda: f"other/{stored}" in sink.objects)
    assert f"mail/{stored}" not in sink.objects
    assert (await command(serve, "queue", "retry", "--all")).stdout == f"{published} will be tried again\n"
    await sink.until(lambda: len(sink.published) == 1)
    assert (await command(serve, "queue", "retry")).returncode == 2
    await serve.kill(signal.SIGTERM)


async def test_queue_without_a_spool_or_with_an_unknown_id_says_so_in_one_line(tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, "http://127.0.0.1:9")
    done = await command(serve, "queue", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("inbound: there is no spool in ")
    assert len(done.stderr.splitlines()) == 1


async def test_a_message_keeps_the_revision_that_mail_pinned(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint)
    await serve.start()
    async with connected(serve.port) as (reader, writer):
        await reply(reader)
        commands = (b"EHLO x\r\n", *message("stored@example.com", BODY))
        for line in commands[:2]:
            writer.write(line)
            await reply(reader)
        serve.rules.write_text(RULES.replace("stored@example.com", "other@example.com"))
        await serve.until(lambda e: e["event"] == "rules.loaded", after=len([e for e in serve.events if e["event"] != "never"]))
        for line in commands[2:]:
            writer.write(line)
            answer = await reply(reader)
        assert answer.startswith("250 2.0.0 OK "), "RCPT and DATA are judged by the revision of MAIL"
        await sink.until(lambda: f"mail/{answer.split()[-1]}" in sink.objects)
    replies = await converse(serve.port, *commands[:3])
    assert replies[-1].startswith("550 5.1.1 "), "the next transaction by the new one"
    await serve.kill(signal.SIGTERM)


async def test_several_addresses_and_ipv6(sink: Sink, tmp_path: Path) -> None:
    serve = Serve(tmp_path, RULES, sink.endpoint, listen="127.0.0.1:0,[::1]:0")
    await serve.start()
    started = await serve.until(lambda e: e["event"] == "service.started")
    assert len(started["smtp"]) == 2
    port = int(started["smtp"][1].rsplit(":", 1)[1])
    assert started["smtp"][1] == f"[::1]:{port}"
    reader, writer = await asyncio.open_connection("::1", port)
    assert await reply(reader) == "220 mx.test ESMTP"
    writer.close()
    await writer.wait_closed()
    await serve.kill(signal.SIGTERM)


def test_help_is_for_strangers() -> None:
    done = subprocess.run([sys.executable, "-m", "inbound", "--help"], env=clean_environment(), capture_output=True, text=True, check=True)
    assert "inbound dev " in done.stdout
    for name in ("dev", "serve", "send", "check", "queue"):
        told = subprocess.run([sys.executable, "-m", "inbound", name, "--help"], env=clean_environment(), capture_output=True, text=True, check=True)
        assert len(told.stdout) > 200
