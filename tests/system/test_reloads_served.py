"""Promise 8 through a real process: whatever becomes of the rule file, the last good revision stays in force, and trouble is told once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from process import Serve, converse, message
from sink import Sink

from inbound.decide.load import parse

RULES = """
RuleSets:
  default:
    - Name: all
      Recipients: [example.com]
      Actions: [{S3Action: {BucketName: BUCKET}}]
"""
GOOD = RULES.replace("BUCKET", "mail")


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


async def send(serve: Serve) -> str:
    replies = await converse(serve.port, b"EHLO x\r\n", *message("u@example.com", b"Subject: hi\r\n\r\nbody"))
    assert replies[-1].startswith("250 2.0.0 OK "), replies
    return replies[-1].split()[-1]


def put(path: Path, text: str) -> None:
    """A whole file at once."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.rename(path)


def revision_of(text: str) -> str:
    return parse(text, "rules.yaml").rule_set.revision


def gone(path: Path) -> None:
    path.unlink()


def fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fresh"))
    path.with_name("fresh").rename(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.with_name("fresh").symlink_to(path)
    path.with_name("fresh").rename(path)


def endless(path: Path) -> None:
    path.with_name("fresh").symlink_to("/dev/zero")
    path.with_name("fresh").rename(path)


def half(path: Path) -> None:
    path.write_text(GOOD[:60])


def bomb(path: Path) -> None:
    put(path, "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)))


def huge(path: Path) -> None:
    put(path, "# " + "x" * 10_000_000)


def nul(path: Path) -> None:
    put(path, GOOD + "\0")


BROKEN: list[Callable[[Path], None]] = [gone, fifo, folder, loop, endless, half, bomb, huge, nul]


async def test_a_rule_file_that_is_none_changes_nothing_and_is_told_of_once(tmp_path: Path, sink: Sink) -> None:
    serve = Serve(tmp_path, GOOD, sink.endpoint)
    await serve.start()
    for number, become in enumerate(BROKEN, 1):
        before = len(serve.events)
        become(serve.rules)
        rejected = await serve.until(lambda e: e["event"] == "rules.rejected", after=before)
        assert str(serve.rules) in rejected["errors"][0], become.__name__
        message_id = await send(serve)
        await sink.until(lambda i=message_id: f"mail/{i}" in sink.objects)
        if serve.rules.is_dir() and not serve.rules.is_symlink():
            serve.rules.rmdir()
        put(serve.rules, f"# {number}\n{GOOD}")
        await serve.until(lambda e: e["event"] == "rules.loaded", after=before)
        told = [e["errors"] for e in serve.events[before:] if e["event"] == "rules.rejected"]
        if become is folder and len(told) == 2:  # no file becomes a folder at once: in between there is none
            assert "no such file" in told.pop(0)[0]
        assert len(told) == 1, become.__name__
    assert await serve.kill(15) == 0


async def test_under_load_a_hundred_reloads_half_of_them_broken_lose_nothing_and_mix_nothing(tmp_path: Path, sink: Sink) -> None:
    serve = Serve(tmp_path, GOOD, sink.endpoint)
    await serve.start()
    over = asyncio.Event()

    async def load() -> list[str]:
        sent = []
        while not over.is_set():
            sent.append(await send(serve))
        return sent

    clients = [asyncio.create_task(load()) for _ in range(4)]
    for number in range(100):
        text = "RuleSets: [" if number % 2 else RULES.replace("BUCKET", f"mail-{number}")
        await asyncio.to_thread(put, serve.rules, text)
        await asyncio.to_thread(put, tmp_path / "paced", text)  # no pause but that of the disk: about a hundred a second
    final = RULES.replace("BUCKET", "last")
    put(serve.rules, final)
    await serve.until(lambda e: e["event"] == "rules.loaded" and e["revision"] == revision_of(final))  # one from before may still be loaded
    over.set()
    sent = [message_id for found in await asyncio.gather(*clients) for message_id in found]
    last = await send(serve)
    await sink.until(lambda: {key.partition("/")[2] for key in sink.objects} == {*sent, last})
    assert f"last/{last}" in sink.objects
    assert await serve.kill(15) == 0
    loaded = {e["revision"] for e in serve.events if e["event"] == "rules.loaded"}
    received = {e["id"]: e["revision"] for e in serve.events if e["event"] == "message.received"}
    assert received.keys() == {*sent, last}
    assert set(received.values()) <= loaded
    buckets: dict[str, set[str]] = {}
    for key in sink.objects:
        bucket, _, message_id = key.partition("/")
        buckets.setdefault(received[message_id], set()).add(bucket)
    assert all(len(found) == 1 for found in buckets.values()), "one revision has one bucket"
    assert max(sink.puts.values()) == 1


async def test_what_was_accepted_goes_by_its_own_rules_though_they_are_gone(tmp_path: Path, sink: Sink) -> None:
    serve = Serve(tmp_path, GOOD, sink.endpoint, retry_min="0.2", retry_max="0.5")
    sink.fails = 503
    await serve.start()
    old = await send(serve)
    before = len(serve.events)
    put(serve.rules, RULES.replace("BUCKET", "other"))
    await serve.until(lambda e: e["event"] == "rules.loaded", after=before)
    new = await send(serve)
    await serve.kill()
    sink.fails = 0
    await serve.start()
    await sink.until(lambda: len(sink.objects) == 2)
    assert sink.objects.keys() == {f"mail/{old}", f"other/{new}"}
    assert await serve.kill(15) == 0
