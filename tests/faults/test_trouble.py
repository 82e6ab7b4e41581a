"""Promise 4: our own trouble is a 4yz, heals without a restart, and leaves nothing behind; what was acknowledged stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ledger import RULES, Ledger, Receiver, left
from needs import missing, needs
from process import EndedError, Serve, connected, reply
from strace import attached, failing

SIZES = (60, 100_000, 700_000)
LARGE = SIZES[-1:]
OURS = ("451 4.3.0 Could not store the message, try again later", "452 4.3.1 Insufficient storage, try again later")


class Troubled:
    """A service, its sink and the ledger."""

    def __init__(self, folder: Path, sink: Receiver, **settings: str) -> None:
        self.serve = Serve(folder, RULES, sink.endpoint, **settings)
        self.sink = sink
        self.ledger = Ledger()
        self.spool = folder / "data" / "spool"
        self.log = folder / "trace"

    @property
    def pid(self) -> int:
        assert self.serve.process is not None
        return self.serve.process.pid

    async def refused(self, sizes: tuple[int, ...] = SIZES) -> list[str]:
        """Send these while something is wrong; every answer is our own trouble, in our own words."""
        replies = [answer for size in sizes for answer in await self.ledger.send(self.serve.port, size)]
        assert set(replies) <= set(OURS), replies
        await self.removes_its_files()
        return replies

    async def heals(self) -> None:
        """Everything is taken again, and arrives, with what came before."""
        for size in SIZES:
            [answer] = await self.ledger.send(self.serve.port, size)
            assert answer.startswith("250 "), answer
        await self.ledger.settled(self.sink)
        self.ledger.check(self.sink)
        await self.removes_its_files()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A session that is past its EHLO."""
        async with connected(self.serve.port) as (reader, writer):
            await reply(reader)
            writer.write(b"EHLO client.test\r\n")
            await reply(reader)
            yield reader, writer

    def database_size(self) -> int:
        """Octets that the database and its log take."""
        return sum((self.spool / f"spool.sqlite3{suffix}").stat().st_size for suffix in ("", "-wal"))

    async def removes_its_files(self) -> None:
        """Soon, no blob file is left: neither of what was refused nor of what was delivered."""
        async with asyncio.timeout(10):
            while self.blobs():  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.02)

    def blobs(self) -> list[str]:
        """The names of the blob files."""
        return [path.name for path in (self.spool / "blobs").iterdir()]

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def address_space(self) -> int:
        """Octets of it."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.asynccontextmanager
async def troubled(folder: Path, **settings: str) -> AsyncIterator[Troubled]:
    """A service in which something goes wrong, and which is well in the end."""
    async with Receiver() as sink:
        case = Troubled(folder, sink, **settings)
        await case.serve.start()
        await case.heals()
        yield case
        await case.heals()
        assert await case.serve.kill(15) == 0
        assert left(case.serve) == {}


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EROFS"])
async def test_a_disk_that_fails_is_a_4yz_and_heals(tmp_path: Path, error: str) -> None:
    """Sync, write and the making of files, each once and for as long as it lasts."""
    async with troubled(tmp_path) as case:
        database = (case.spool / "spool.sqlite3-wal", case.spool / "spool.sqlite3")
        for call, when, paths, sizes in [
            ("fdatasync", "1", database, SIZES[:1]), ("fdatasync", "1+", database, SIZES),
            ("pwrite64", "1", database, SIZES[:1]), ("pwrite64", "1+", database, SIZES), ("openat", "1+", (), LARGE),
            ("fsync", "1", (), LARGE), ("fsync", "1+", (), LARGE), ("fsync", "1+", (case.spool / "blobs",), LARGE),
        ]:
            async with attached(case.pid, case.log, failing(call, error, when=when, paths=paths)):
                await case.refused(sizes)
            await case.heals()
    assert not any("Traceback" in str(event) for event in case.serve.events)


async def test_a_full_file_system_is_a_452_and_heals_when_there_is_room(tmp_path: Path) -> None:
    async with mounted(tmp_path / "data", "90m"), troubled(tmp_path) as case:
        ballast = tmp_path / "data" / "ballast"
        fill(ballast)
        replies = await case.refused(SIZES * 3)
        assert {reply[:9] for reply in replies} == {"452 4.3.1"}
        await case.serve.until(lambda e: e["event"] == "intake.closed")
        size = case.database_size()
        await case.refused(SIZES * 3)
        assert case.database_size() == size, "it grows although nothing fits"
        ballast.unlink()
        await case.serve.until(lambda e: e["event"] == "intake.opened")


def fill(ballast: Path) -> None:
    """Take all the room there is."""
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))


@contextlib.asynccontextmanager
async def mounted(folder: Path, size: str) -> AsyncIterator[None]:
    """A small file system of its own on the folder."""
    mount, umount = needs("mount"), needs("umount")
    if os.geteuid() != 0:
        missing("only root mounts")
    await asyncio.to_thread(folder.mkdir)
    if await run(mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)) != 0:
        missing("this machine mounts no tmpfs")
    try:
        yield
    finally:
        assert await run(umount, "-l", str(folder)) == 0


async def run(*command: str) -> int:
    """The exit status of a command."""
    return await (await asyncio.create_subprocess_exec(*command)).wait()


@contextlib.asynccontextmanager
async def read_only(folder: Path) -> AsyncIterator[None]:
    """Nothing can be made or removed below a mounted folder: its file system is mounted over it once more, and only to be read.

    Files that are open stay writable. Linux makes no file system read-only while one is (EBUSY), but after an error of the disk, and then no
    write succeeds: test_a_disk_that_fails_is_a_4yz_and_heals[EROFS].
    """
    mount, umount = needs("mount"), needs("umount")
    assert await run(mount, "--bind", str(folder), str(folder)) == 0
    try:
        assert await run(mount, "-o", "remount,bind,ro", str(folder)) == 0
        yield
    finally:
        assert await run(umount, "-l", str(folder)) == 0


async def test_a_folder_that_is_read_only_is_a_451_for_what_needs_a_file_and_heals(tmp_path: Path) -> None:
    async with mounted(tmp_path / "data", "120m"), troubled(tmp_path) as case:
        case.sink.fails = 503
        (waiting,) = await case.ledger.send(case.serve.port, LARGE[0])
        async with read_only(tmp_path / "data"):
            for _ in range(3):
                assert await case.ledger.send(case.serve.port, LARGE[0]) == [OURS[0]]
            case.sink.fails = 0
            await case.ledger.settled(case.sink)
            (small,) = await case.ledger.send(case.serve.port, SIZES[0])
            assert small.startswith("250 "), "it needs no file of its own"
            assert case.blobs() == [waiting.split()[-1]], "it is delivered and cannot be removed yet"


async def test_no_start_on_a_read_only_folder_and_none_of_what_waits_is_lost(tmp_path: Path) -> None:
    async with mounted(tmp_path / "data", "120m"), troubled(tmp_path) as case:
        case.sink.fails = 503
        await case.ledger.send(case.serve.port, *SIZES)
        await case.serve.kill()
        assert await run(needs("mount"), "-o", "remount,ro", str(tmp_path / "data")) == 0
        with pytest.raises(EndedError) as ended:
            await case.serve.start()
        (line,) = str(ended.value).splitlines()
        assert "ended with 2: " in line
        assert "read-only" in line.lower()
        assert await run(needs("mount"), "-o", "remount,rw", str(tmp_path / "data")) == 0
        case.sink.fails = 0
        await case.serve.start()


async def test_no_file_descriptors_is_a_451_and_heals(tmp_path: Path) -> None:
    async with troubled(tmp_path) as case, case.session() as (reader, writer):
        before = resource.prlimit(case.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(case.pid, resource.RLIMIT_NOFILE, (case.descriptors() - 8, before[1]))  # the highest may be open for this moment only
        for _ in range(3):
            assert (await case.ledger.one(reader, writer, LARGE[0])).startswith("451 4.3.0 ")
        assert (await case.ledger.one(reader, writer, SIZES[0])).startswith("250 "), "what needs no descriptor is taken"
        with pytest.raises(ConnectionError):
            await case.ledger.send(case.serve.port, SIZES[0])
        resource.prlimit(case.pid, resource.RLIMIT_NOFILE, before)
        assert (await case.ledger.one(reader, writer, LARGE[0])).startswith("250 ")


async def test_no_memory_is_never_final_and_heals(tmp_path: Path) -> None:
    async with troubled(tmp_path, retry_min="0.1", retry_max="0.2") as case:
        before = resource.prlimit(case.pid, resource.RLIMIT_AS)
        resource.prlimit(case.pid, resource.RLIMIT_AS, (case.address_space() + 65_536, before[1]))
        stop = asyncio.Event()
        clients: list[asyncio.Task[None]] = []

        def is_short() -> bool:
            return bool(case.ledger.refused) or any(client.done() for client in clients) or any(e["level"] == "error" for e in case.serve.events)

        while not is_short() and len(clients) < 400:  # as many as it takes and no more: where nothing at all is left, the interpreter itself dies
            clients += [asyncio.create_task(case.ledger.load(case.serve.port, stop, (250_000,))) for _ in range(20)]
            await asyncio.wait(clients, timeout=1)
        assert is_short(), "memory was not short"
        stop.set()
        await asyncio.gather(*clients)
        resource.prlimit(case.pid, resource.RLIMIT_AS, before)
        await case.serve.until(lambda _: is_open(case.serve.events))
        assert all(reply[0] == "4" for reply in case.ledger.refused), case.ledger.refused


@pytest.mark.soak
@pytest.mark.parametrize("clients", [60, 190])
async def test_no_memory_for_many_at_once_loses_nothing(tmp_path: Path, clients: int) -> None:
    """All of them want 250 kB of the same moment. Where even Python gets no memory for itself it dies, and is started again as a supervisor would."""
    async with troubled(tmp_path, retry_min="0.1", retry_max="0.2") as case:
        before = resource.prlimit(case.pid, resource.RLIMIT_AS)
        resource.prlimit(case.pid, resource.RLIMIT_AS, (case.address_space() + 65_536, before[1]))
        stop = asyncio.Event()
        loads = [asyncio.create_task(case.ledger.load(case.serve.port, stop, (250_000,))) for _ in range(clients)]
        await asyncio.wait(loads, timeout=4)
        stop.set()
        _, unanswered = await asyncio.wait(loads, timeout=10)  # a session whose callback found no memory has its time-out
        for load in unanswered:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        assert all(reply[0] == "4" for reply in case.ledger.refused), case.ledger.refused
        assert case.serve.process is not None
        if case.serve.process.returncode is None:
            resource.prlimit(case.pid, resource.RLIMIT_AS, before)
            await case.serve.until(lambda _: is_open(case.serve.events))
        else:
            await case.serve.kill()
            await case.serve.start()


def is_open(events: list[dict[str, Any]]) -> bool:
    """Is mail taken, as the log has it?"""
    turns = [event["event"] for event in events if event["event"].startswith("intake.")]
    return not turns or turns[-1] == "intake.opened"


async def test_a_locked_database_is_a_451_for_as_long_as_it_is(tmp_path: Path) -> None:
    async with troubled(tmp_path) as case:
        with contextlib.closing(sqlite3.connect(case.spool / "spool.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await case.refused(SIZES)
            other.execute("ROLLBACK")


async def test_a_spool_that_cannot_be_read_for_a_while_delays_what_waits(tmp_path: Path) -> None:
    async with troubled(tmp_path, retry_min="0.1", retry_max="0.2") as case:
        case.sink.fails = 503
        large = (await case.ledger.send(case.serve.port, *SIZES))[-1].split()[-1]
        for message_id in case.ledger.acknowledged:
            if f"mail/{message_id}" not in case.sink.objects:
                await case.serve.until(lambda e, i=message_id: e["event"] == "message.deferred" and e["id"] == i)
        async with attached(case.pid, case.log, failing("read", "EIO", paths=(case.spool / "blobs" / large,))):
            case.sink.fails = 0
            await case.serve.until(lambda e: e["event"] == "message.deferred" and e["id"] == large and "Input/output error" in e["error"])
            await case.sink.until(lambda: case.ledger.lost(case.sink) == {large})


@pytest.mark.parametrize("damage", ["gone", "empty", "short", "long"])
async def test_content_damaged_while_the_service_was_down_is_a_dead_letter_and_the_rest_flows(tmp_path: Path, damage: str) -> None:
    async with Receiver() as sink:
        case = Troubled(tmp_path, sink)
        await case.serve.start()
        sink.fails = 503
        hurt, *others = [(await case.ledger.send(case.serve.port, size))[0].split()[-1] for size in (700_000, *SIZES)]
        await case.serve.kill()
        path = case.spool / "blobs" / hurt
        octets = path.read_bytes()
        path.write_bytes({"gone": b"", "empty": b"", "short": octets[:-1], "long": octets + b"x"}[damage])
        if damage == "gone":
            path.unlink()
        for name in ("README.txt", "half-written"):
            (case.spool / "blobs" / name).write_bytes(b"")
        (case.spool / "notes").write_text("not ours")
        sink.fails = 0
        await case.serve.start()
        dead = await case.serve.until(lambda e: e["event"] == "message.dead")
        assert (dead["id"], hurt in dead["error"]) == (hurt, True)
        await sink.until(lambda: case.ledger.lost(sink) == {hurt})
        assert set(others) <= sink.stored.keys()
        assert await case.serve.kill(15) == 0
        assert left(case.serve) == {"dead": 1, "blobs/README.txt": 1, "notes": 1} | ({} if damage == "gone" else {f"blobs/{hurt}": 1})
    assert not [e for e in case.serve.events if "exception" in e]
