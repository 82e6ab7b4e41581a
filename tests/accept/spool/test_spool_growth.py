"""Nothing that is asked often looks at more rows than it answers with, however many wait and however many are done."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from letters import dead, deferred, done, put

from inbound.accept.spool import State, database, entries
from inbound.accept.spool.sqlite import SqliteSpool

NOW = 1_700_000_000.0
ROWS = 20_000  # ten buckets of ids

COPY = """INSERT INTO entry (id, state, received, due, since, size, content, revision, envelope, finished, sink)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
    SELECT id || i, state, received + i, due, since, size, content, revision, envelope, finished, sink FROM entry, n WHERE id = '{id}'"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts SQLite's virtual machine in hundreds of instructions."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    connect = database.Database._connect

    def connected(self: database.Database, mode: str) -> sqlite3.Connection:
        connection = connect(self, mode)
        connection.set_progress_handler(count, 100)
        return connection

    monkeypatch.setattr(database.Database, "_connect", connected)
    return counted


async def test_work_on_many_entries_is_done_in_strokes_that_let_others_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "STROKE_SECONDS", 0.0)
    spool = SqliteSpool(tmp_path)
    await spool.start()
    ids = [(await put(spool)).id for _ in range(6)]
    for id_ in ids:
        await spool.update(id_, dead(NOW))
    before = spool.commits
    assert await spool.retry([*ids, "gone"], NOW) == ids
    assert spool.commits - before == 7
    for id_ in ids[:4]:
        await spool.update(id_, done(NOW))
    assert await spool.sweep(finished_before=0, content_before=NOW + 1, keep_revisions=()) == 0
    assert await spool.sweep(finished_before=NOW + 1, content_before=0, keep_revisions=()) == 4
    assert await spool.drop(ids) == ids[4:]
    assert set((await spool.counts()).values()) == {0}
    await spool.stop()


async def test_with_many_waiting_and_many_done(tmp_path: Path, steps: list[int]) -> None:
    spool = SqliteSpool(tmp_path)
    await spool.start()
    waits = await put(spool, message_id="waits")
    await spool.update(waits.id, deferred(NOW + 900, sink="down"))
    ends = await put(spool, message_id="ends")
    await spool.update(ends.id, done(NOW, drop_content=True))
    await spool.stop()
    connection = sqlite3.connect(tmp_path / "spool.sqlite3")
    for id_ in ("waits", "ends"):
        connection.execute(COPY.format(rows=ROWS, id=id_))
    connection.commit()
    connection.close()
    await spool.start()
    assert (await spool.counts())[State.DEFERRED] == ROWS + 1

    async def three_are_due() -> None:
        for _ in range(3):
            entry = await put(spool, received=NOW + 1e6)
            await spool.update(entry.id, deferred(NOW, sink="up"))

    await three_are_due()
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "claim those that are due": lambda: spool.claim(NOW, 2),
        "claim what is left of them": lambda: spool.claim(NOW, 2),
        "claim when nothing is due": lambda: spool.claim(NOW, 2),
        "next_due": spool.next_due,
        "get": lambda: spool.get("waits500"),
        "release": lambda: spool.release("down", NOW, 2),
        "claim those released": lambda: spool.claim(NOW, 2),
        "retry": lambda: spool.retry(["waits7"], NOW),
        "drop": lambda: spool.drop(["waits9"]),
        "sweep": lambda: spool.sweep(finished_before=0, content_before=NOW + 1, keep_revisions=()),
        "put and update": three_are_due,
    }
    for name, ask in questions.items():
        before = steps[0]
        await ask()
        assert steps[0] - before < 20, name
    await spool.stop()
