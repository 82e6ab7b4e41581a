"""Older spools are migrated, newer and foreign ones left as they are."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from letters import octets, put, read
from spools import THRESHOLD

from inbound.accept.spool import SpoolError, SpoolVersion, schema
from inbound.accept.spool.sqlite import SqliteSpool

TEXT_AND_DEFAULT = ("ALTER TABLE entry ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",)
INDEX = ("CREATE INDEX entry_note ON entry (note)", "UPDATE entry SET note = 'migrated'")


def state_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def pragma(folder: Path, name: str) -> int:
    connection = sqlite3.connect(folder / "spool.sqlite3")
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    connection.close()
    return int(value)


async def filled(folder: Path) -> list[str]:
    spool = SqliteSpool(folder, blob_threshold=THRESHOLD)
    await spool.start()
    ids = [(await put(spool, octets(size))).id for size in (10, THRESHOLD * 2)]
    await spool.stop()
    return ids


async def test_a_new_spool_says_what_it_is(tmp_path: Path) -> None:
    await filled(tmp_path)
    assert pragma(tmp_path, "user_version") == len(schema.MIGRATIONS)
    assert pragma(tmp_path, "application_id") == schema.APPLICATION_ID
    assert pragma(tmp_path, "page_size") == 16384
    assert pragma(tmp_path, "auto_vacuum") == 0


async def test_an_older_one_is_migrated_through_every_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await filled(tmp_path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, TEXT_AND_DEFAULT, INDEX))
    spool = SqliteSpool(tmp_path, blob_threshold=THRESHOLD)
    await spool.start()
    assert [await read(spool, id_) for id_ in ids] == [octets(10), octets(THRESHOLD * 2)]
    await put(spool)
    await spool.stop()
    assert pragma(tmp_path, "user_version") == len(schema.MIGRATIONS)
    connection = sqlite3.connect(tmp_path / "spool.sqlite3")
    assert connection.execute("SELECT note FROM entry ORDER BY number").fetchall() == [("migrated",), ("migrated",), ("none",)]
    connection.close()


async def test_a_migration_that_fails_leaves_the_version_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await filled(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, TEXT_AND_DEFAULT, ("CREATE NONSENSE",)))
        with pytest.raises(SpoolError, match="NONSENSE"):
            await SqliteSpool(tmp_path).start()
    spool = SqliteSpool(tmp_path)
    await spool.start()
    assert await read(spool, ids[0]) == octets(10)
    await spool.stop()


async def test_a_newer_one_is_refused_and_left_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, TEXT_AND_DEFAULT))
        await filled(tmp_path)
    before = state_of(tmp_path)
    for visitor in (False, True):
        with pytest.raises(SpoolVersion, match=f"version {len(schema.MIGRATIONS) + 1}"):
            await SqliteSpool(tmp_path, visitor=visitor).start()
        assert state_of(tmp_path) == before


@pytest.mark.parametrize("statement", ["CREATE TABLE other (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"])
async def test_a_foreign_file_is_refused_and_left_untouched(tmp_path: Path, statement: str) -> None:
    connection = sqlite3.connect(tmp_path / "spool.sqlite3")
    connection.execute(statement)
    connection.close()
    before = (tmp_path / "spool.sqlite3").read_bytes()
    with pytest.raises(SpoolError, match="not a spool"):
        await SqliteSpool(tmp_path).start()
    assert (tmp_path / "spool.sqlite3").read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite3").write_text("Dear diary, " * 1000)
    with pytest.raises(SpoolError):
        await SqliteSpool(tmp_path).start()


async def test_a_visitor_migrates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(tmp_path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, TEXT_AND_DEFAULT))
    with pytest.raises(SpoolError, match="older version"):
        await SqliteSpool(tmp_path, visitor=True).start()
    assert pragma(tmp_path, "user_version") == len(schema.MIGRATIONS) - 1


async def test_a_refused_start_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, TEXT_AND_DEFAULT))
        await filled(tmp_path)
        spool = SqliteSpool(tmp_path)
        patched.undo()
        with pytest.raises(SpoolVersion):
            await spool.start()
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, TEXT_AND_DEFAULT))
        await spool.start()
        await spool.stop()
