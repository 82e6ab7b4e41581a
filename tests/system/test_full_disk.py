"""A disk that is really full, on a small file system of its own: nothing is lost, mail is put off, and all goes on when there is room."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing, needs
from process import Serve, converse, message
from sink import Sink

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: stored
      Recipients: [stored@example.com]
      Actions: [{S3Action: {BucketName: mail}}]
"""
MB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 90 MB."""
    if os.geteuid() != 0:
        missing("only root mounts a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run([needs("mount"), "-t", "tmpfs", "-o", "size=90m", "none", str(folder)], capture_output=True, check=False).returncode:
        missing("this machine lets nobody mount a file system")
    yield folder
    subprocess.run([needs("umount"), "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves so many octets free."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        while (free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - leave) > 0:
            file.write(bytes(min(free, MB)))
    return ballast


async def send(serve: Serve) -> str:
    return (await converse(serve.port, b"EHLO x\r\n", *message("stored@example.com", b"Subject: x\r\n\r\n" + b"y" * 9000)))[-1]


async def mail(serve: Serve) -> str:
    return (await converse(serve.port, b"EHLO x\r\n", b"MAIL FROM:<a@example.net>\r\n"))[-1]


async def begun(serve: Serve) -> asyncio.Task[None]:
    """A start that has a process, and no end yet."""
    before = serve.process
    starting = asyncio.create_task(serve.start())
    async with asyncio.timeout(30):
        while serve.process is before:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.01)
    return starting


async def test_a_disk_that_fills_up_puts_mail_off_and_a_start_on_it_waits_for_room(disk: Path, tmp_path: Path) -> None:
    async with Sink() as sink:
        sink.fails = 503
        serve = Serve(tmp_path, RULES, sink.endpoint, data=str(disk / "data"))
        await serve.start()
        accepted = {(await send(serve)).removeprefix("250 2.0.0 OK ") for _ in range(20)}
        ballast = fill(disk, 20 * MB)
        closed = await serve.until(lambda e: e["event"] == "intake.closed")
        assert closed["reason"] == "disk full"
        assert await mail(serve) == "452 4.3.1 Insufficient storage, try again later"
        fill(disk, 0)
        await serve.kill(signal.SIGKILL)
        sink.fails = 0
        before = len(serve.events)
        starting = await begun(serve)
        waits = await serve.until(lambda e: e["event"] == "spool.failed", after=before)
        assert waits["error"].endswith("the start waits for space")
        assert not sink.objects
        ballast.unlink()
        await starting
        await sink.until(lambda: {key.partition("/")[2] for key in sink.objects} == accepted)
        assert (await mail(serve)).startswith("250 ")
        assert await serve.kill(signal.SIGTERM) == 0
        assert [e["event"] for e in serve.events[before:]].count("spool.failed") == 1


async def test_a_start_that_waits_for_room_can_be_stopped(disk: Path, tmp_path: Path) -> None:
    fill(disk, 0)
    serve = Serve(tmp_path, RULES, "http://127.0.0.1:9", data=str(disk / "data"))
    starting = await begun(serve)
    await serve.until(lambda e: e["event"] == "spool.failed")
    assert await serve.kill(signal.SIGTERM) == 0
    await asyncio.gather(starting, return_exceptions=True)
