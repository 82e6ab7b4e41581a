"""Our own trouble: a disk that fails or is full, once or for ever, is a SpoolError, keeps nothing by halves, and heals by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from letters import Clock, done, drafted, envelope, octets, put, read
from needs import missing, needs
from spools import THRESHOLD
from test_spool_crash import ENVIRONMENT

from inbound.accept.spool import Query, SpoolError, SpoolFull, State, Update, database, entries, together
from inbound.accept.spool.sqlite import SqliteSpool

NOW = 1_700_000_000.0
LARGE = octets(THRESHOLD * 10)


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as ordered")
    error.sqlite_errorcode = code
    return error


class Disk:
    """What is wrong with the disk: statements that begin with `statement` fail, `times` times, before or after they took effect."""

    def __init__(self) -> None:
        self.statement = ""
        self.code = sqlite3.SQLITE_IOERR_FSYNC
        self.times = 0
        self.takes_effect = False
        self.opened = 0

    def fail(self, statement: str, times: int = 1, *, code: int = sqlite3.SQLITE_IOERR_FSYNC, takes_effect: bool = False) -> None:
        self.statement, self.times, self.code, self.takes_effect = statement, times, code, takes_effect

    def strikes(self, statement: str, *, alone: bool) -> bool:
        if alone and statement.startswith("INSERT INTO together"):
            statement = "COMMIT"  # of the transaction that this statement is
        if not self.times or not statement.startswith(self.statement):
            return False
        self.times -= 1
        return True


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Disk:
    ordered = Disk()

    class Connection(database.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if not ordered.strikes(sql, alone=not self.in_transaction):
                return super().execute(sql, *parameters)
            if ordered.takes_effect:
                super().execute(sql, *parameters)
            raise sqlite_error(ordered.code)

    connect = sqlite3.connect

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        ordered.opened += 1
        return connect(*arguments, **options | {"factory": Connection})

    monkeypatch.setattr(database.sqlite3, "connect", connected)
    return ordered


@pytest_asyncio.fixture
async def hurt(trouble: Disk, tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteSpool]:
    """A spool on the disk that `trouble` rules."""
    spool = SqliteSpool(tmp_path / "spool", clock=clock, blob_threshold=THRESHOLD)
    await spool.start()
    yield spool
    trouble.times = 0
    await spool.stop()


class TestDatabase:
    @pytest.mark.parametrize("takes_effect", [False, True])
    @pytest.mark.parametrize("data", [b"small", LARGE])
    async def test_a_failed_commit_keeps_nothing_even_if_it_reached_the_disk(
        self, hurt: SqliteSpool, trouble: Disk, tmp_path: Path, takes_effect: bool, data: bytes
    ) -> None:
        before = await put(hurt)
        opened = trouble.opened
        trouble.fail("COMMIT", takes_effect=takes_effect)
        with pytest.raises(SpoolError):
            await put(hurt, data, message_id="failed")
        assert await hurt.get("failed") is None
        assert trouble.opened > opened, "nothing the old connection knew is trusted"
        after = await put(hurt, data)
        assert {entry.id for entry in await hurt.find(Query())} == {before.id, after.id}
        await hurt.stop()
        assert {path.name for path in (tmp_path / "spool" / "blobs").iterdir()} == ({after.id} if data == LARGE else set())

    async def test_everything_in_a_failed_commit_fails(self, hurt: SqliteSpool, trouble: Disk) -> None:
        entry = await put(hurt)
        trouble.fail("COMMIT", times=100)
        outcomes = await asyncio.gather(
            *(put(hurt) for _ in range(5)),
            hurt.update(entry.id, done(NOW)),
            hurt.update(entry.id, done(NOW), lazy=True),
            hurt.claim(NOW, 1),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [SpoolError] * 8
        trouble.times = 0
        assert await hurt.find(Query()) == [entry]

    async def test_a_probe_fails_while_messages_could_not_be_kept_and_leaves_nothing(self, hurt: SqliteSpool, trouble: Disk) -> None:
        trouble.fail("COMMIT", times=2, takes_effect=True)
        for _ in range(2):
            with pytest.raises(SpoolError):
                await hurt.probe()
        await hurt.probe()
        assert await hurt.revision("") is None

    async def test_a_claim_reported_as_failed_leases_nothing(self, hurt: SqliteSpool, trouble: Disk) -> None:
        entry = await put(hurt, held=False)
        trouble.fail("COMMIT", takes_effect=True)
        with pytest.raises(SpoolError):
            await hurt.claim(NOW, 1)
        assert [claimed.id for claimed in await hurt.claim(NOW, 1)] == [entry.id]

    async def test_a_lease_that_nobody_works_is_given_back_as_soon_as_that_is_possible(
        self, hurt: SqliteSpool, trouble: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inbound.accept.spool.sqlite.AGAIN", 0.0)
        cancelled = asyncio.ensure_future(put(hurt, message_id="a"))
        await asyncio.sleep(0)
        give_back, failures = entries.give_back, [2]

        def failing(*arguments: Any, **named: Any) -> None:
            if failures[0]:
                failures[0] -= 1
                raise sqlite_error(sqlite3.SQLITE_IOERR_WRITE)
            give_back(*arguments, **named)

        monkeypatch.setattr(entries, "give_back", failing)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        while (await hurt.counts())[State.DEFERRED] == 0:
            pass
        assert failures == [0]
        assert [claimed.id for claimed in await hurt.claim(NOW, 10)] == ["a"]

    async def test_a_rollback_that_fails_costs_the_connection(self, hurt: SqliteSpool, trouble: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = await put(hurt)
        opened = trouble.opened
        with monkeypatch.context() as patched:
            patched.setattr(entries, "change", lambda *_, **__: trouble.fail("ROLLBACK") or 1 / 0)
            with pytest.raises(SpoolError):
                await hurt.update(entry.id, Update(attempts=3))
        assert await hurt.get(entry.id) == entry
        assert trouble.opened > opened

    async def test_it_heals_by_itself_when_the_disk_does(self, hurt: SqliteSpool, trouble: Disk) -> None:
        entry = await put(hurt)
        trouble.fail("", times=10**6, code=sqlite3.SQLITE_IOERR_READ)
        for _ in range(3):
            with pytest.raises(SpoolError):
                await put(hurt)
            with pytest.raises(SpoolError):
                await hurt.get(entry.id)
            with pytest.raises(SpoolError):
                await hurt.counts()
        trouble.times = 0
        assert await hurt.get(entry.id) == entry
        await put(hurt)
        assert (await hurt.counts())[State.ACTIVE] == 2

    async def test_it_is_not_used_again_before_the_log_is_safely_in_the_file(self, hurt: SqliteSpool, trouble: Disk) -> None:
        await put(hurt)
        trouble.fail("COMMIT")
        with pytest.raises(SpoolError):
            await put(hurt)
        trouble.fail("PRAGMA wal_checkpoint", times=2)
        for _ in range(2):
            with pytest.raises(SpoolError):
                await put(hurt)
        await put(hurt)
        assert (await hurt.counts())[State.ACTIVE] == 2

    async def test_nor_while_a_reader_keeps_it_from_getting_there(
        self, hurt: SqliteSpool, trouble: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "BUSY_MS", 10)
        entry = await put(hurt)
        reader = sqlite3.connect(tmp_path / "spool" / "spool.sqlite3", isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (1,)
        await hurt.update(entry.id, done(NOW))
        trouble.fail("COMMIT")
        with pytest.raises(SpoolError):
            await put(hurt)
        with pytest.raises(SpoolError, match="visitor"):
            await put(hurt)
        reader.execute("ROLLBACK")
        reader.close()
        await put(hurt)

    async def test_a_full_disk_is_told_apart_and_leaves_the_connection_alone(self, hurt: SqliteSpool, trouble: Disk) -> None:
        entry = await put(hurt)
        opened = trouble.opened
        trouble.fail("COMMIT", code=sqlite3.SQLITE_FULL)
        with pytest.raises(SpoolFull):
            await put(hurt)
        await hurt.update(entry.id, done(NOW))
        assert trouble.opened == opened
        assert len(await hurt.find(Query())) == 1

    async def test_what_does_not_fit_fails_and_what_fits_does_not(self, hurt: SqliteSpool, trouble: Disk) -> None:
        await hurt.stop()
        connection = sqlite3.connect(hurt._folder.database.path)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.close()
        set_up = database._set_up

        def small(connection: sqlite3.Connection) -> None:
            set_up(connection)
            connection.execute(f"PRAGMA max_page_count = {pages + 4}")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(database, "_set_up", small)
            await hurt.start()
        assert THRESHOLD < 16384 * 2
        big = [put(hurt, octets(THRESHOLD), message_id=f"big{i}") for i in range(8)]
        outcomes = await asyncio.gather(put(hurt, message_id="first"), *big, put(hurt, message_id="last"), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, SpoolFull)]
        assert 4 <= len(refused) <= 8
        assert not isinstance(outcomes[0], Exception)
        assert not isinstance(outcomes[-1], Exception)
        assert len(await hurt.find(Query())) == len(outcomes) - len(refused)

    async def test_a_locked_file_is_our_trouble_for_as_long_as_it_is(self, trouble: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "BUSY_MS", 50)
        spool = SqliteSpool(tmp_path / "spool")
        await spool.start()
        other = sqlite3.connect(tmp_path / "spool" / "spool.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match="locked"):
            await put(spool)
        other.execute("ROLLBACK")
        other.close()
        await put(spool)
        await spool.stop()

    async def test_no_memory_is_our_trouble(self, hurt: SqliteSpool, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*_: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(together, "new_row", exhausted)
            with pytest.raises(SpoolError):
                await put(hurt)
        await put(hurt)

    async def test_stop_ends_although_the_disk_does_not_answer(self, hurt: SqliteSpool, trouble: Disk, tmp_path: Path, clock: Clock) -> None:
        entry = await put(hurt)
        trouble.fail("", times=10**6)
        await asyncio.wait_for(hurt.stop(), 10)
        trouble.times = 0
        again = SqliteSpool(tmp_path / "spool", clock=clock)
        await again.start()
        assert [claimed.id for claimed in await again.claim(clock.now, 1)] == [entry.id]
        assert again.recovered == 1
        await again.stop()

    async def test_a_start_that_fails_can_be_repeated(self, trouble: Disk, tmp_path: Path) -> None:
        spool = SqliteSpool(tmp_path / "spool")
        trouble.fail("CREATE", code=sqlite3.SQLITE_FULL)
        with pytest.raises(SpoolFull):
            await spool.start()
        await spool.start()
        await put(spool)
        await spool.stop()


def failing(number: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


class TestBlobFile:
    @pytest.mark.parametrize(
        ("number", "error"),
        [(errno.ENOSPC, SpoolFull), (errno.EDQUOT, SpoolFull), (errno.EIO, SpoolError), (errno.EROFS, SpoolError)],
    )
    @pytest.mark.parametrize("call", ["open", "write", "fsync", "fchmod"])
    async def test_what_fails_keeps_nothing(
        self, disk: SqliteSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[SpoolError], call: str
    ) -> None:
        message = envelope()
        draft = disk.draft(message.message_id)
        with monkeypatch.context() as patched:
            patched.setattr(f"inbound.accept.spool.blobs.os.{call}", failing(number))
            with pytest.raises(SpoolError) as raised:
                draft.add(LARGE)
                await draft.flush()
                await disk.put(message, draft)
        assert raised.type is error
        assert list((tmp_path / "spool" / "blobs").iterdir()) == []
        await draft.discard()
        assert await disk.find(Query()) == []
        assert await read(disk, (await put(disk, LARGE)).id) == LARGE

    async def test_a_failed_sync_is_never_tried_again(self, disk: SqliteSpool, monkeypatch: pytest.MonkeyPatch) -> None:
        message = envelope()
        draft = await drafted(disk, message.message_id, LARGE)
        with monkeypatch.context() as patched:
            patched.setattr("inbound.accept.spool.blobs.os.fsync", failing(errno.EIO))
            with pytest.raises(SpoolError):
                await disk.put(message, draft)
        with pytest.raises(ValueError, match="put before"):
            await disk.put(message, draft)

    async def test_a_draft_that_failed_stays_failed(self, disk: SqliteSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        message = envelope()
        draft = disk.draft(message.message_id)
        draft.add(LARGE)
        with monkeypatch.context() as patched:
            patched.setattr("inbound.accept.spool.blobs.os.write", failing(errno.EIO))
            with pytest.raises(SpoolError):
                await draft.flush()
        draft.add(LARGE)
        with pytest.raises(SpoolError):
            await draft.flush()
        with pytest.raises(SpoolError):
            await disk.put(message, draft)
        assert list((tmp_path / "spool" / "blobs").iterdir()) == []


SURVIVOR = """
import asyncio, os, resource, sys
from pathlib import Path
from inbound.accept.spool import Query, SpoolError, SpoolFull
from inbound.accept.spool.sqlite import SqliteSpool
from letters import octets, put, read

FOLDER, MODE = Path(sys.argv[1]), sys.argv[2]

async def attempt(spool, size):
    try:
        return (await put(spool, octets(size))).id
    except SpoolError as error:
        return error

async def main():
    spool = SqliteSpool(FOLDER, blob_threshold=20_000)
    await spool.start()
    kept, failed = {}, []
    def note(size, outcome):
        failed.append(outcome) if isinstance(outcome, SpoolError) else kept.__setitem__(outcome, size)
    for size in (1000, 60_000):
        note(size, await attempt(spool, size))
    assert not failed or MODE == "strace", failed
    if MODE == "fsize":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    if MODE == "nofile":
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
    for _ in range(12):
        for size in (1000, 18_000, 300_000):
            note(size, await attempt(spool, size))
    assert failed, "nothing failed"
    if MODE == "full":
        assert any(isinstance(error, SpoolFull) for error in failed), failed
        (FOLDER.parent / "ballast").unlink()
    if MODE == "fsize":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    if MODE == "nofile":
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
    for size in (1000, 18_000, 300_000):
        outcome = await attempt(spool, size)
        while MODE == "strace" and isinstance(outcome, SpoolError):  # it counts calls by thread: one that is new still fails
            failed.append(outcome)
            assert len(failed) < 60, failed
            outcome = await attempt(spool, size)
        assert not isinstance(outcome, SpoolError), outcome
        kept[outcome] = size
    for again in range(2):
        entries = await spool.find(Query(limit=10**6))
        assert {entry.id for entry in entries} == set(kept)
        for id_, size in kept.items():
            assert await read(spool, id_) == octets(size)
        assert {p.name for p in (FOLDER / "blobs").iterdir()} == {id_ for id_, size in kept.items() if size > 20_000}
        await spool.stop()
        if not again:
            await spool.start()
    print(len(kept), "kept,", len(failed), "failed:", sorted({type(error).__name__ + " " + str(error) for error in failed}))

asyncio.run(main())
"""


def survive(command: list[str], folder: Path, mode: str) -> str:
    """Run the script above under a command; it asserts that what was acknowledged is whole, and nothing else is kept."""
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([ENVIRONMENT["PYTHONPATH"], str(Path(__file__).parent)])}
    script = [*command, sys.executable, "-c", SURVIVOR, str(folder), mode]
    run = subprocess.run(script, check=False, capture_output=True, text=True, env=environment, timeout=60)
    if run.returncode and "unshare" in run.stderr:
        missing(f"no new mount namespace here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


class TestRealDisk:
    @pytest.mark.parametrize("mode", ["fsize", "nofile"])
    def test_limits_of_the_process(self, tmp_path: Path, mode: str) -> None:
        assert "SpoolError" in survive([], tmp_path / "spool", mode)

    def test_a_full_file_system(self, tmp_path: Path) -> None:
        unshare = needs("unshare", why="it gives the test a small file system of its own")
        script = f'mount -t tmpfs -o size=5m none {tmp_path} && head -c 3000000 /dev/zero >{tmp_path}/ballast && exec "$@"'
        own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
        assert "SpoolFull" in survive([unshare, "--mount", *own_user, "sh", "-c", script, "sh"], tmp_path / "spool", "full")

    @pytest.mark.parametrize(
        ("call", "when", "files"),
        [
            ("fdatasync", "20", ["spool.sqlite3-wal"]),
            ("fdatasync", "20..29", ["spool.sqlite3-wal", "spool.sqlite3"]),
            ("pwrite64", "100", ["spool.sqlite3-wal"]),
            ("pwrite64", "100..110", ["spool.sqlite3-wal", "spool.sqlite3"]),
            ("fsync", "1", ["blobs"]),
        ],
    )
    @pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
    def test_system_calls_that_fail_for_a_while(self, tmp_path: Path, call: str, when: str, files: list[str], error: str) -> None:
        strace = needs("strace", why="it makes system calls fail")
        paths = [option for name in files for option in ("-P", str(tmp_path / "spool" / name))]
        fail = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
        assert " failed: ['Spool" in survive([strace, "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, *paths, *fail], tmp_path / "spool", "strace")
