"""A visitor may look at a spool that another process owns, and retry and drop; it never stands in the owner's way."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from letters import Clock, dead, deferred, envelope, octets, put, read, step
from spools import THRESHOLD

from inbound.accept.spool import Query, SpoolError, State, Update
from inbound.accept.spool.sqlite import SqliteSpool

NOW = 1_700_000_000.0
LARGE = octets(THRESHOLD * 3)


@pytest_asyncio.fixture
async def visitor(disk: SqliteSpool, tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteSpool]:
    """A visitor beside the owner `disk`, as `inbound queue` is beside a running service."""
    visitor = SqliteSpool(tmp_path / "spool", clock=clock, visitor=True)
    await visitor.start()
    yield visitor
    await visitor.stop()


async def test_it_sees_what_there_is(disk: SqliteSpool, visitor: SqliteSpool) -> None:
    small, large = await put(disk), await put(disk, LARGE)
    await disk.update(small.id, deferred(NOW + 60, error="refused", sink="s", steps=[step()]))
    await disk.keep_revision("r", "text")
    assert await visitor.get(small.id) == await disk.get(small.id)
    assert [entry.id for entry in await visitor.find(Query(error="refused"))] == [small.id]
    assert await read(visitor, large.id) == LARGE
    assert await read(visitor, small.id) == await read(disk, small.id)
    assert await visitor.counts() == await disk.counts()
    assert await visitor.next_due() == NOW + 60
    assert await visitor.waiting() == {"s": 1}
    assert await visitor.revision("r") == "text"


async def test_what_it_makes_due_is_claimed_next(disk: SqliteSpool, visitor: SqliteSpool) -> None:
    entries = [await put(disk, received=NOW + i) for i in range(2)]
    await disk.update(entries[0].id, dead(NOW))
    await disk.update(entries[1].id, deferred(NOW + 900))
    assert await disk.claim(NOW + 5, 10) == []
    assert len(await visitor.retry([entry.id for entry in entries], NOW + 5)) == 2
    assert [entry.id for entry in await disk.claim(NOW + 5, 10)] == [entry.id for entry in entries]


async def test_what_it_drops_is_gone(disk: SqliteSpool, visitor: SqliteSpool, tmp_path: Path) -> None:
    entry = await put(disk, LARGE)
    await disk.update(entry.id, dead(NOW))
    assert await visitor.drop([entry.id]) == [entry.id]
    assert await disk.get(entry.id) is None
    with pytest.raises(KeyError):
        await disk.update(entry.id, Update(attempts=1))
    await visitor.stop()
    assert list((tmp_path / "spool" / "blobs").iterdir()) == []


async def test_it_drops_what_is_worked_only_when_nobody_lives(disk: SqliteSpool, visitor: SqliteSpool, tmp_path: Path) -> None:
    entry = await put(disk)
    assert await visitor.drop([entry.id]) == []
    disk._folder.lock.release()  # as the kernel does when the owner is killed
    assert await visitor.drop([entry.id]) == [entry.id]


async def test_it_may_not_do_the_owners_work(disk: SqliteSpool, visitor: SqliteSpool) -> None:
    entry = await put(disk, held=False)
    with pytest.raises(SpoolError, match="visitor"):
        visitor.draft("a")
    message = envelope("other")
    for call in (
        visitor.put(message, disk.draft("other")),
        visitor.claim(NOW, 1),
        visitor.update(entry.id, Update(attempts=1)),
        visitor.release("s", NOW, 1),
        visitor.sweep(finished_before=0, content_before=0, keep_revisions=()),
        visitor.shed(1),
        visitor.keep_revision("new", "rules"),
    ):
        with pytest.raises(SpoolError, match="visitor"):
            await call
    assert await disk.get(entry.id) == entry


async def test_it_recovers_and_cleans_nothing(disk: SqliteSpool, tmp_path: Path) -> None:
    entry = await put(disk)
    orphan = tmp_path / "spool" / "blobs" / "orphan"
    orphan.write_text("half")
    visitor = SqliteSpool(tmp_path / "spool", visitor=True)
    await visitor.start()
    await visitor.stop()
    assert await disk.get(entry.id) == entry
    assert orphan.exists()
    assert (await disk.counts())[State.ACTIVE] == 1


@pytest.mark.parametrize("made", [False, True])
async def test_it_creates_nothing(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "spool"
    if made:
        folder.mkdir()
    visitor = SqliteSpool(folder, visitor=True)
    with pytest.raises(FileNotFoundError):
        await visitor.start()
    assert sorted(os.walk(tmp_path)) == ([(str(tmp_path), ["spool"], []), (str(folder), [], [])] if made else [(str(tmp_path), [], [])])


async def test_it_can_be_the_only_one(disk: SqliteSpool, tmp_path: Path, clock: Clock) -> None:
    entry = await put(disk)
    await disk.stop()
    visitor = SqliteSpool(tmp_path / "spool", visitor=True, clock=clock)
    await visitor.start()
    assert [found.id for found in await visitor.find(Query())] == [entry.id]
    assert await visitor.drop([entry.id]) == [entry.id]
    await visitor.stop()
    assert {path.name for path in (tmp_path / "spool").iterdir()} == {"blobs", "lock", "spool.sqlite3"}


async def test_what_it_has_judged_anew_starts_afresh_under_the_revision_it_brings(disk: SqliteSpool, visitor: SqliteSpool) -> None:
    entry = await put(disk)
    await disk.update(entry.id, dead(NOW, steps=[step()]))
    assert await visitor.retry([entry.id], NOW, revision=("new", "rules")) == [entry.id]
    [again] = await disk.claim(NOW, 1)
    assert (again.envelope.revision, again.steps, await disk.revision("new")) == ("new", (), "rules")
