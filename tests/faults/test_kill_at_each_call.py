"""Promises 1 and 2: kill -9 in the N-th call of each kind that touches a file or a socket; after the restart nothing acknowledged is lost.

strace counts for every thread by itself, so the load keeps to one message at a time, which gives each kind of work one thread. It is
attached when the content of the first, large message is about to come: then a thread's first write is one to the blob file.

The service never calls rename, renameat or renameat2: a blob file has its name from the start, and it counts only once the database
names it. It never calls sendto: uvloop writes to sockets by write and sendmsg. It calls writev only for replies that a client does not read
in time; the soak run looks for them all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from ledger import RULES, Ledger, Receiver, emptied, left
from process import EndedError, Serve, connected, message, reply
from strace import attached, fatal, hit, letting_the_dead_go, starting

SIZES = (600_000, 4_000)
EVERY = range(1, 10**6)

# the class of calls, and those of its calls that CI tries: each up to the last there is, or a sample
LOAD = [("fsync", EVERY), ("fdatasync", EVERY), ("unlink", EVERY), ("connect", EVERY),
        ("pwrite64", (1, 7, 23)), ("write", (1, 2, 8, 12)), ("sendmsg", (1,))]
START_AND_STOP = [("fsync", EVERY), ("unlink", EVERY), ("ftruncate", EVERY)]
NEVER = ("rename", "renameat", "renameat2", "sendto", "sendmmsg", "writev", "unlinkat")
SOAK = ("fsync", "fdatasync", "pwrite64", "write", "unlink", "ftruncate", "connect", "sendmsg", "fchmod", *NEVER)
SEEN = {"fsync": {"blobs", "blobs/*"}, "fdatasync": {"spool.sqlite3-wal"}, "unlink": {"blobs/*"}, "write": {"blobs/*", "socket"},
                "pwrite64": {"spool.sqlite3-wal"}, "connect": {"socket"}, "sendmsg": {"socket"}}
SEEN_AT_THE_ENDS = {"fsync": {"spool"}, "unlink": {"blobs/*", "spool.sqlite3-wal", "spool.sqlite3-shm"}, "ftruncate": {"lock", "spool.sqlite3-shm"}}


class Lives:
    """One spool through many lives of its service. `on` tells by kind of call on what it was made when it ended a life."""

    def __init__(self, folder: Path, sink: Receiver) -> None:
        self.serve = Serve(folder, RULES, sink.endpoint)
        self.sink = sink
        self.ledger = Ledger()
        self.log = folder / "trace"
        self.on: dict[str, list[str]] = {}

    async def begin(self) -> None:
        """A life begins, and brings what the one before owed."""
        await self.serve.start()
        await self.ledger.settled(self.sink)
        self.ledger.check(self.sink)

    async def idle(self) -> None:
        """Nothing is left to do: no call of a life that only starts and stops is of a message."""
        await self.ledger.settled(self.sink)
        await emptied(self.serve)
        async with asyncio.timeout(10):
            while list((self.serve.folder / "data" / "spool" / "blobs").iterdir()):  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.02)

    async def end_at(self, call: str, when: int) -> bool:
        """Does this life end in that call under load?"""
        assert self.serve.process is not None
        with contextlib.suppress(ConnectionError, EndedError):
            async with connected(self.serve.port) as (reader, writer):
                await reply(reader)
                writer.write(b"EHLO client.test\r\n")
                await reply(reader)
                sent, last = await self._envelope(reader, writer, SIZES[0])
                async with attached(self.serve.process.pid, self.log, fatal(call, when)):
                    await self._content(reader, writer, sent, last)
                    for size in SIZES[1:]:
                        sent, last = await self._envelope(reader, writer, size)
                        await self._content(reader, writer, sent, last)
        return await self._ended(call)

    async def _envelope(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> tuple[bytes, bytes]:
        sent = self.ledger.new(size)
        *commands, last = message("u@example.com", sent.replace(b"\r\n.", b"\r\n..")[:-2])
        for command in commands:
            writer.write(command)
            await reply(reader)
        return sent, last

    async def _content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes, last: bytes) -> None:
        """Content and acknowledgement, and all that comes of them."""
        writer.write(last)
        answer = await reply(reader)
        self.ledger.note(answer, sent)
        await self.serve.until(lambda e: e["event"] == "message.done" and e["id"] == answer.split()[-1])

    async def _ended(self, call: str) -> bool:
        """Was it that call that ended it? Else it is ended in good order, to begin anew."""
        status, text = await self.serve.kill(15), hit(self.log)
        assert status == (-9 if text else 0), text
        if text:
            self.on.setdefault(call, []).append(object_of(text))
        return bool(text)

    async def end_at_start_or_stop(self, call: str, when: int) -> bool:
        """Does a life with nothing to do end in that call, at its start or its stop?"""
        self.serve.under = starting(self.log, fatal(call, when))
        (self.serve.folder / "data" / "spool" / "blobs" / "half-written").write_bytes(b"x" * 1000)
        try:
            before = len(self.serve.events)
            await self.serve.spawn()
            assert self.serve.process is not None
            async with letting_the_dead_go(self.serve.process.pid):
                with contextlib.suppress(EndedError):
                    await self.serve.until(lambda e: e["event"] == "service.started", after=before)
                return await self._ended(call)
        finally:
            self.serve.under = ()


def object_of(text: str) -> str:
    """What a call was made on, without what differs from message to message."""
    if re.search(r"/spool>\)\s+= \?$", text):
        return "spool"
    for name in ("spool.sqlite3-wal", "spool.sqlite3-shm", "spool.sqlite3", "lock"):
        if f"spool/{name}" in text:
            return name
    if re.search(r"\(1<(pipe|/dev/null)", text):
        return "log"
    return "blobs/*" if "/blobs/" in text else "blobs" if "/blobs" in text else "socket" if "<socket:" in text or "<TCP" in text else "other"


async def walked(lives: Lives, call: str, whens: Iterable[int]) -> int:
    """End lives at these calls until one is not reached; how many were."""
    reached = 0
    for when in whens:
        await lives.begin()
        if not await lives.end_at(call, when):
            break
        reached += 1
    return reached


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("call", "whens"), [pytest.param(*case, id=case[0]) for case in LOAD])
async def test_killed_in_a_call_under_load(tmp_path: Path, call: str, whens: Iterable[int]) -> None:
    async with Receiver() as sink:
        lives = Lives(tmp_path, sink)
        reached = await walked(lives, call, whens)
        await lives.begin()
        await emptied(lives.serve)
        assert await lives.serve.kill(15) == 0
        assert left(lives.serve) == {}
    assert reached
    assert SEEN[call] <= set(lives.on[call]), lives.on[call]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("call", "whens"), [pytest.param(*case, id=case[0]) for case in START_AND_STOP])
async def test_killed_in_a_call_of_start_or_stop(tmp_path: Path, call: str, whens: Iterable[int]) -> None:
    async with Receiver() as sink:
        lives = Lives(tmp_path, sink)
        await lives.begin()
        await lives.ledger.send(lives.serve.port, *SIZES)
        await lives.idle()
        await lives.serve.kill()
        for when in whens:
            if not await lives.end_at_start_or_stop(call, when):
                break
        await lives.begin()
        await emptied(lives.serve)
        assert await lives.serve.kill(15) == 0
        assert left(lives.serve) == {}
    assert SEEN_AT_THE_ENDS[call] <= set(lives.on[call]), lives.on[call]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", SOAK)
async def test_killed_in_every_call_there_is(tmp_path: Path, call: str) -> None:
    async with Receiver() as sink:
        lives = Lives(tmp_path, sink)
        reached = await walked(lives, call, EVERY)
        await lives.begin()
        assert await lives.serve.kill(15) == 0
        for when in EVERY:
            if not await lives.end_at_start_or_stop(call, when):
                break
            await lives.ledger.settled(sink)
        await lives.begin()
        await emptied(lives.serve)
        await lives.serve.kill(15)
        assert left(lives.serve) == {}
    sys.stdout.write(f"{call}: {reached} under load, {lives.on.get(call, [])}\n")
    assert (call in lives.on) == (call not in NEVER), f"{call} was reached {reached} times under load: {lives.on.get(call)}"
