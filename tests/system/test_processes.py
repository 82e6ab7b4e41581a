"""INBOUND_PROCESSES: several processes receive as one service; one that dies, rules that change, spools that are left over, a parent that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from process import Serve, connected, message, reply
from prometheus_client.parser import text_string_to_metric_families
from sink import Sink
from test_serve import command

RULES = """
RuleSets:
  default:
    - Name: all
      Recipients: [example.com]
      Actions: [{S3Action: {BucketName: mail}}]
"""
QUICK = {"retry_min": "0.2", "retry_max": "0.5"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


def served(folder: Path, sink: Sink, processes: int = 2, **more: str) -> Serve:
    return Serve(folder, RULES, sink.endpoint, processes=str(processes), **QUICK, **more)


async def send(port: int) -> str:
    """A message over a connection of its own; its id."""
    async with connected(port) as (reader, writer):
        await reply(reader)
        for line in (b"EHLO x\r\n", *message("u@example.com", b"Subject: hi\r\n\r\nbody")):
            writer.write(line)
            answer = await reply(reader)
    assert answer.startswith("250 2.0.0 OK "), answer
    return answer.split()[-1]


def process_of(serve: Serve, message_id: str) -> int:
    return next(e["process"] for e in serve.events if e["event"] == "message.received" and e["id"] == message_id)


async def send_to_each(serve: Serve, processes: int = 2) -> dict[int, str]:
    """A message that each of the processes took: connections go to whichever is there first, so as many are held as it needs."""
    taken: dict[int, str] = {}
    while len(taken) < processes:
        for message_id in await asyncio.gather(*(send(serve.port) for _ in range(8))):
            received = await serve.until(lambda e, i=message_id: e["event"] == "message.received" and e["id"] == i)
            taken.setdefault(received["process"], message_id)
    return taken


def received(text: str) -> float:
    """How many messages /metrics has counted."""
    numbers = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples if not sample.labels}
    return numbers["inbound_messages_received_total"]


async def get(serve: Serve, path: str) -> tuple[int, str]:
    started = next(e for e in reversed(serve.events) if e["event"] == "service.started")
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(f"http://{started['http']}{path}") as answer:
        return answer.status, await answer.text()


async def test_two_processes_receive_as_one_and_the_parent_answers_for_both(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink)
    await serve.start()
    taken = await send_to_each(serve)
    count = len([e for e in serve.events if e["event"] == "message.received"])
    await sink.until(lambda: len(sink.objects) == count)
    await serve.until(lambda _: len([e for e in serve.events if e["event"] == "message.done"]) == count)
    assert sorted(path.name for path in (tmp_path / "data").glob("spool*")) == ["spool", "spool-2"]
    status, text = await get(serve, "/readyz")
    assert (status, '"status": "ready"' in text) == (200, True)
    _, text = await get(serve, "/metrics")
    assert received(text) == count
    for message_id in taken.values():
        status, text = await get(serve, f"/messages/{message_id}?wait=10")
        assert (status, message_id in text) == (200, True)
        assert (await command(serve, "queue", "show", message_id)).returncode == 0
    assert (await get(serve, "/messages/" + "0" * 40))[0] == 404
    listed = await command(serve, "queue", "list", "--state", "done")
    assert all(message_id in listed.stdout for message_id in taken.values())
    assert f"{count} done" in listed.stdout
    assert await serve.kill(signal.SIGTERM) == 0
    assert [e["event"] for e in serve.events if e["event"].startswith("service.") and e["level"] == "info"] == \
        ["service.started", "service.draining", "service.stopped"]


async def test_a_process_that_is_killed_is_started_anew_and_loses_nothing(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink)
    sink.fails = 503
    await serve.start()
    taken = await send_to_each(serve)
    count = len([e for e in serve.events if e["event"] == "message.received"])
    assert received((await get(serve, "/metrics"))[1]) == count
    os.kill(pid_of(serve, min(taken)), signal.SIGKILL)
    ended = await serve.until(lambda e: e["event"] == "process.ended")
    assert (ended["process"], ended["status"]) == (min(taken), -signal.SIGKILL)
    assert received((await get(serve, "/metrics"))[1]) == count, "a counter that falls looks like many new messages"
    sink.fails = 0
    await sink.until(lambda: len(sink.objects) == count)
    assert set(await send_to_each(serve)) == {1, 2}
    assert await serve.kill(signal.SIGTERM) == 0


async def test_ctrl_c_reaches_the_parent_alone_even_before_a_child_has_begun_to_run(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink)
    await serve.start()
    assert serve.process is not None
    assert os.getsid(serve.process.pid) not in {os.getsid(pid) for pid in children(serve)}
    assert await serve.kill(signal.SIGTERM) == 0


async def test_a_process_that_hangs_delays_no_answer_of_the_others(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink)
    await serve.start()
    taken = await send_to_each(serve)
    count = len([e for e in serve.events if e["event"] == "message.received"])
    assert received((await get(serve, "/metrics"))[1]) == count
    hung = pid_of(serve, 1)
    os.kill(hung, signal.SIGSTOP)
    try:
        async with asyncio.timeout(15):
            assert (await get(serve, "/readyz"))[0] == 200
            assert received((await get(serve, "/metrics"))[1]) == count
            assert (await get(serve, f"/messages/{taken[2]}?wait=5"))[0] == 200
    finally:
        os.kill(hung, signal.SIGCONT)
    assert await serve.kill(signal.SIGTERM) == 0


async def test_new_rules_reach_every_process_and_broken_ones_none(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink)
    await serve.start()
    serve.rules.write_text("RuleSets: [")
    await serve.until(lambda e: e["event"] == "rules.rejected")
    await send_to_each(serve)
    before = len(serve.events)
    serve.rules.write_text(RULES.replace("BucketName: mail", "BucketName: other"))
    loaded = await serve.until(lambda e: e["event"] == "rules.loaded", after=before)
    await until_answered(serve, loaded["revision"])
    before = len(serve.events)
    await send_to_each(serve)
    assert {e["revision"] for e in serve.events[before:] if e["event"] == "message.received"} == {loaded["revision"]}
    assert len([e for e in serve.events if e["event"] == "rules.rejected"]) == 1
    assert len([e for e in serve.events if e["event"] == "rules.loaded"]) == 2
    assert await serve.kill(signal.SIGTERM) == 0


async def until_answered(serve: Serve, revision: str) -> None:
    """Wait until the parent's revision is the one that counts."""
    while revision not in (await get(serve, "/readyz"))[1]:
        pass


async def test_children_of_a_parent_that_was_killed_end_and_the_next_one_goes_on(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink)
    sink.fails = 503
    await serve.start()
    await send_to_each(serve)
    orphans = [os.pidfd_open(pid) for pid in children(serve)]
    await serve.kill(signal.SIGKILL)
    for orphan in orphans:
        await readable(orphan)
    sink.fails = 0
    await serve.start()
    count = len([e for e in serve.events if e["event"] == "message.received"])
    await sink.until(lambda: len(sink.objects) == count)
    assert await serve.kill(signal.SIGTERM) == 0


async def test_fewer_processes_work_off_what_more_left_behind(tmp_path: Path, sink: Sink) -> None:
    many = served(tmp_path, sink, 3)
    sink.fails = 503
    await many.start()
    await send_to_each(many, 3)
    count = len([e for e in many.events if e["event"] == "message.received"])
    assert await many.kill(signal.SIGTERM) == 0
    sink.fails = 0
    one = served(tmp_path, sink, 1)
    await one.start()
    await sink.until(lambda: len(sink.objects) == count)
    await send_to_each(one, 1)
    assert {e["process"] for e in one.events if e["event"] == "message.received"} == {1}
    assert await one.kill(signal.SIGTERM) == 0


async def test_a_process_that_cannot_start_keeps_the_service_from_it_in_one_line(tmp_path: Path, sink: Sink) -> None:
    serve = served(tmp_path, sink, clamd="/nonexistent/clamd.sock")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spool-2").write_text("in the way")
    with pytest.raises(AssertionError, match=r"ended with 2: inbound: cannot use the data folder .*spool-2.*\n'?$"):
        await serve.start()
    assert "Traceback" not in serve.errors
    assert len(serve.errors.splitlines()) == 1


def pid_of(serve: Serve, number: int) -> int:
    return next(pid for pid in children(serve) if f"child\0{number}\0" in command_line(pid))


def children(serve: Serve) -> list[int]:
    assert serve.process is not None
    path = Path(f"/proc/{serve.process.pid}/task/{serve.process.pid}/children")
    return [pid for pid in map(int, path.read_text().split()) if "processes.child" in command_line(pid)]


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read, and close it."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(30):
            await ready.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


