"""Promises 1, 2 and 4 as SQLite tests its own files: the N-th operation on the spool's files fails, for N = 1, 2, … until there is none.

A message is received, delivered and removed meanwhile. Whatever fails, its sender gets 250 or our 4yz (or the connection ends), the service
is killed in the end, and the next life has what was acknowledged, as it was sent, and no file too many.

strace counts for every thread by itself. Calls that only files see fail wherever they come; those that sockets see too (write, read, close)
fail on the blob file alone, which is there when half of a large message has come. fcntl is left out: no local file system fails to unlock,
and SQLite, told that one did, holds its own lock until the process ends ("locking protocol", mail is put off with 451).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from ledger import RULES, Ledger, Receiver, emptied, left
from process import EndedError, Serve, connected, message, reply
from strace import attached, calls, failing

EVERY = range(1, 10**6)
SIZES = {"small": 4_000, "large": 700_000}
OF_FILES = "openat,pread64,pwrite64,fsync,fdatasync,ftruncate,unlink,newfstatat,statfs,fchmod"
OF_THE_BLOB = "write,read,lseek,newfstatat,fsync,close,unlink"


class Lives:
    """One spool through many lives, in each of which one step fails. `hit` counts the calls that failed, by name; `answers` what was said."""

    def __init__(self, folder: Path, sink: Receiver) -> None:
        self.serve = Serve(folder, RULES, sink.endpoint, retry_min="0.1", retry_max="0.2")
        self.sink, self.ledger, self.log = sink, Ledger(), folder / "trace"
        self.blobs = folder / "data" / "spool" / "blobs"
        self.hit: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    async def live(self, size: str, call: str, error: str, when: int, *, of_the_blob: bool = False) -> bool:
        """A life in which the `when`-th of these calls fails. Was there one?"""
        await self.serve.start()
        await self.ledger.settled(self.sink)
        await emptied(self.serve)
        async with asyncio.timeout(10):
            while list(self.blobs.iterdir()):  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.02)
        answer = ""
        with contextlib.suppress(ConnectionError):
            answer = await self._send(SIZES[size], call, error, when, of_the_blob=of_the_blob)
        assert not answer or answer.startswith(("250 2.0.0 OK ", "451 4.3.0 ", "452 4.3.1 ")), answer
        self.answers[answer[:9]] += 1
        await self.serve.kill()
        failed = [call.name for call in calls(self.log.read_text()) if call.text.endswith("(INJECTED)")]
        self.hit.update(failed)
        return bool(failed)

    async def _send(self, size: int, call: str, error: str, when: int, *, of_the_blob: bool) -> str:
        assert self.serve.process is not None
        sent = self.ledger.new(size)
        *commands, content = message("u@example.com", sent.replace(b"\r\n.", b"\r\n..")[:-2])
        half = len(content) // 2 if of_the_blob else 0
        async with connected(self.serve.port) as (reader, writer):
            await reply(reader)
            for command in (b"EHLO client.test\r\n", *commands):
                writer.write(command)
                await reply(reader)
            writer.write(content[:half])
            paths = (await self._blob(),) if of_the_blob else ()
            async with attached(self.serve.process.pid, self.log, failing(call, error, when=str(when), paths=paths)):
                before = len(self.serve.events)
                writer.write(content[half:])
                answer = await reply(reader)
                self.ledger.note(answer, sent)
                if answer.startswith("250"):
                    await self._dealt_with(answer.split()[-1], before)
            return answer

    async def _blob(self) -> Path:
        async with asyncio.timeout(10):
            while not (found := list(self.blobs.iterdir())):  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.01)
        return found[0]

    async def _dealt_with(self, message_id: str, before: int) -> None:
        """Delivered, or put off since something failed, while things fail."""
        with contextlib.suppress(EndedError):
            try:
                await self.serve.until(lambda e: e.get("id") == message_id and e["event"] in ("message.done", "message.deferred"), after=before)
            except TimeoutError:
                raise AssertionError(f"{message_id}: {self.serve.events[before:]}") from None

    async def conclude(self) -> None:
        """The last life, in which nothing fails."""
        await self.serve.start()
        await self.ledger.settled(self.sink)
        await emptied(self.serve)
        self.ledger.check(self.sink)
        assert await self.serve.kill(15) == 0
        assert left(self.serve) == {}
        assert not (odd := [e for e in self.serve.events if "exception" in e]), "\n".join(f"{e}" for e in odd)
        sys.stdout.write(f"{sum(self.hit.values())} failed: {dict(self.hit)}; answers {dict(self.answers)}\n")


async def failed_at(folder: Path, size: str, error: str, whens: Iterable[int], *, of_the_blob: bool = False) -> Lives:
    async with Receiver() as sink:
        lives = Lives(folder, sink)
        for when in whens:
            if not await lives.live(size, OF_THE_BLOB if of_the_blob else OF_FILES, error, when, of_the_blob=of_the_blob):
                break
        await lives.conclude()
    return lives


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("size", "of_the_blob"), [("small", False), ("large", False), ("large", True)])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_the_nth_operation_fails_until_there_is_none(tmp_path: Path, size: str, error: str, of_the_blob: bool) -> None:
    lives = await failed_at(tmp_path, size, error, EVERY, of_the_blob=of_the_blob)
    assert lives.hit


@pytest.mark.parametrize(("size", "error", "of_the_blob", "whens"), [
    ("small", "EIO", False, (1, 15)), ("large", "ENOSPC", False, (3,)), ("large", "EIO", True, (2,)),
])
async def test_some_operations_fail(tmp_path: Path, size: str, error: str, of_the_blob: bool, whens: tuple[int, ...]) -> None:
    lives = await failed_at(tmp_path, size, error, whens, of_the_blob=of_the_blob)
    assert sum(lives.answers.values()) == len(whens)
    assert lives.hit
