"""The folder on disk: who may read it, what is removed from it and when."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from letters import Clock, dead, deferred, done, drafted, envelope, octets, put, read
from spools import THRESHOLD

from inbound.accept.spool import SpoolError, State
from inbound.accept.spool.blobs import Blob, Blobs
from inbound.accept.spool.replays import Replay
from inbound.accept.spool.sqlite import SqliteSpool

LARGE = octets(THRESHOLD * 10)
NOW = 1_700_000_000.0


def blobs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").iterdir()}


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


async def test_only_the_owner_can_read_it_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    folder = tmp_path / "spool"
    spool = SqliteSpool(folder, blob_threshold=THRESHOLD)
    await spool.start()
    for data in (b"x", LARGE):
        await put(spool, data)
    found = {
        path.relative_to(tmp_path).as_posix().replace(path.name, "*" if path.parent.name == "blobs" else path.name): path
        for path in (folder, *folder.rglob("*"))
    }
    assert {name: oct(path.stat().st_mode & 0o7777) for name, path in found.items()} == {
        "spool": "0o700",
        "spool/blobs": "0o700",
        "spool/blobs/*": "0o600",
        "spool/lock": "0o600",
        "spool/spool.sqlite3": "0o600",
        "spool/spool.sqlite3-shm": "0o600",
        "spool/spool.sqlite3-wal": "0o600",
    }
    await spool.stop()


async def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(0o755)
    spool = SqliteSpool(folder)
    await spool.start()
    assert folder.stat().st_mode & 0o777 == 0o700
    await spool.stop()


async def test_parents_are_made(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "a" / "b" / "spool")
    await spool.start()
    await put(spool)
    await spool.stop()


async def test_small_content_makes_no_file(disk: SqliteSpool, tmp_path: Path) -> None:
    await put(disk, octets(THRESHOLD))
    assert blobs(tmp_path / "spool") == set()


async def test_a_blob_file_goes_with_its_content(disk: SqliteSpool, tmp_path: Path) -> None:
    names = ["finished", "dropped", "swept", "emptied", "stays"]
    for name in names:
        await put(disk, LARGE, message_id=name)
    assert blobs(tmp_path / "spool") == set(names)
    await disk.update("finished", done(NOW, drop_content=True))
    await disk.update("dropped", dead(NOW))
    await disk.drop(["dropped"])
    await disk.update("swept", done(NOW))
    await disk.sweep(finished_before=NOW + 1, content_before=0, keep_revisions=())
    await disk.update("emptied", done(NOW))
    await disk.sweep(finished_before=0, content_before=NOW + 1, keep_revisions=())
    await disk.update("stays", dead(NOW))
    await disk.stop()
    assert blobs(tmp_path / "spool") == {"stays"}


async def test_a_draft_discarded_while_it_is_written_leaves_no_file(disk: SqliteSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, entered = threading.Event(), threading.Event()
    real = os.write

    def slow(fd: int, data: bytes) -> int:
        entered.set()
        gate.wait(10)
        return real(fd, data)

    monkeypatch.setattr("inbound.accept.spool.blobs.os.write", slow)
    draft = disk.draft("a")
    draft.add(LARGE)
    flush = asyncio.ensure_future(draft.flush())
    await asyncio.to_thread(entered.wait, 10)
    flush.cancel()
    discard = asyncio.ensure_future(draft.discard())
    early, _ = await asyncio.wait({discard}, timeout=0.1)
    assert not early, "the file was closed under a write that might then go to another file"
    gate.set()
    await discard
    assert blobs(tmp_path / "spool") == set()


def test_files_that_cannot_be_removed_for_a_while_go_with_a_later_removal(tmp_path: Path) -> None:
    folder = Blobs(tmp_path)
    delivered, refused = "d" * 40, "r" * 40
    draft = Blob(folder, refused)
    draft.write([b"x"])
    (tmp_path / refused).unlink()
    for name in (delivered, refused):
        (tmp_path / name).mkdir()  # which is no file to be removed, whoever tries
    folder.remove([delivered])
    draft.remove()
    for name in (delivered, refused):
        (tmp_path / name).rmdir()
        (tmp_path / name).write_bytes(b"x")
    folder.remove([])
    assert list(tmp_path.iterdir()) == []


async def test_blob_files_that_nothing_names_are_removed_at_start(disk: SqliteSpool, tmp_path: Path) -> None:
    whole = await put(disk, LARGE)
    emptied = await put(disk, LARGE)
    await disk.update(emptied.id, done(NOW, drop_content=True))
    await drafted(disk, "half-written", LARGE)
    await disk.stop()
    folder = tmp_path / "spool"
    assert blobs(folder) == {whole.id, "half-written"}
    (folder / "blobs" / emptied.id).write_bytes(LARGE)
    (folder / "blobs" / "README.txt").write_text("not ours")
    await disk.start()
    assert blobs(folder) == {whole.id, "README.txt"}
    assert await read(disk, whole.id) == LARGE


async def test_a_link_where_a_blob_should_be_is_not_followed(disk: SqliteSpool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "spool" / "blobs" / "a").symlink_to(victim)
    draft = disk.draft("a")
    draft.add(LARGE)
    with pytest.raises(SpoolError):
        await draft.flush()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("damage", ["gone", "short", "long"])
async def test_damaged_content_is_an_error_of_that_entry_alone(disk: SqliteSpool, tmp_path: Path, damage: str) -> None:
    hurt, well = await put(disk, LARGE), await put(disk, LARGE)
    path = tmp_path / "spool" / "blobs" / hurt.id
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(LARGE[:-1])
    else:
        path.write_bytes(LARGE + b"x")
    with pytest.raises(SpoolError):
        await disk.content(hurt.id)
    assert await read(disk, well.id) == LARGE


async def test_small_content_that_was_damaged_is_an_error_too(disk: SqliteSpool, tmp_path: Path) -> None:
    hurt, well = await put(disk, octets(100)), await put(disk, octets(100))
    for entry in (hurt, well):
        await disk.update(entry.id, deferred(NOW))
    await disk.stop()
    with sqlite3.connect(tmp_path / "spool" / "spool.sqlite3") as connection:
        connection.execute("UPDATE content SET data = x'00' WHERE entry = (SELECT number FROM entry WHERE id = ?)", (hurt.id,))
    connection.close()
    await disk.start()
    with pytest.raises(SpoolError, match="1 octets"):
        await disk.content(hurt.id)
    assert await read(disk, well.id) == octets(100)


async def test_a_damaged_record_does_not_stand_in_the_way(disk: SqliteSpool, tmp_path: Path, clock: Clock) -> None:
    hurt, well = [await put(disk, held=False) for _ in range(2)]
    await disk.stop()
    with sqlite3.connect(tmp_path / "spool" / "spool.sqlite3") as connection:
        connection.execute("UPDATE entry SET envelope = '{' WHERE id = ?", (hurt.id,))
    connection.close()
    await disk.start()
    assert [entry.id for entry in await disk.claim(clock.now, 10)] == [well.id]
    shown = await disk.get(hurt.id)
    assert shown
    assert shown.state is State.DEAD
    assert "damaged" in shown.error
    assert await disk.retry([hurt.id], clock.now, revision=("new", "rules")) == [hurt.id]
    assert await disk.claim(clock.now, 10) == []
    assert await disk.drop([hurt.id]) == [hurt.id]


async def test_content_of_active_entries_is_not_read_back(disk: SqliteSpool) -> None:
    entry = await put(disk, octets(5000))
    assert disk.cached == 5000
    await disk.update(entry.id, deferred(NOW))
    assert disk.cached == 0
    assert await read(disk, entry.id) == octets(5000)


async def test_memory_for_content_is_bounded(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "spool", memory=10_000)
    await spool.start()
    entries = [await put(spool, octets(4000, seed=i)) for i in range(5)]
    assert spool.cached == 8000
    for i, entry in enumerate(entries):
        assert await read(spool, entry.id) == octets(4000, seed=i)
    await spool.stop()


async def test_a_large_draft_costs_little_memory(disk: SqliteSpool) -> None:
    piece = octets(65_536)
    message = envelope()
    draft = disk.draft(message.message_id)
    tracemalloc.start()
    for _ in range(160):
        if draft.add(bytes(bytearray(piece))):
            await draft.flush()
    await disk.put(message, draft)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


async def test_large_content_that_replays_brought_back_costs_little_memory_however_many_are_in_hand(disk: SqliteSpool) -> None:
    """It is in rows, where a command puts it; a few hundred of 10 MB each ended the process again and again."""
    data = octets(1 << 20)
    ids = [(await put(disk, data)).id for _ in range(16)]
    for each in ids:
        await disk.update(each, done(NOW, drop_content=True))
        assert await disk.replay(each, NOW, Replay("new", "text", data))
    assert len(await disk.claim(NOW, 100)) == len(ids)
    tracemalloc.start()
    try:
        contents = await asyncio.gather(*map(disk.content, ids))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, (held, peak)  # each thread that read one may keep it until its next work
    for content in contents:
        assert (content.size, content.head(10), content.head(1 << 19)) == (len(data), data[:10], data[: 1 << 19])
    with contents[0].open() as one, contents[0].open() as other:
        assert one.read(5) == data[:5]
        assert other.read() == data
        assert one.seek(-7, os.SEEK_END) == len(data) - 7
        assert (one.read(), other.read()) == (data[-7:], b"")
    assert len(blobs(disk._folder.path)) == len(ids)
    del content, contents
    assert await read(disk, ids[1]) == data
    await disk.stop()
    assert blobs(disk._folder.path) == set()


async def test_neither_the_loop_nor_other_messages_wait_for_the_sync_of_a_large_one(disk: SqliteSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, entered = threading.Event(), threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        entered.set()
        gate.wait(10)
        real(fd)

    monkeypatch.setattr("inbound.accept.spool.blobs.os.fsync", slow)
    large = asyncio.ensure_future(put(disk, LARGE))
    await asyncio.to_thread(entered.wait, 10)
    small = await put(disk, b"small")
    assert not large.done()
    gate.set()
    await large
    assert await read(disk, small.id) == b"small"
