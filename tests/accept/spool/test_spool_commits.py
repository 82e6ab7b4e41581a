"""What shares a commit, what does not spoil it for others, and who is told when nobody waits any more."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from letters import Clock, deferred, done, drafted, envelope, octets, put, read, step
from spools import THRESHOLD

from inbound.accept.spool import Outcome, Query, SpoolError, State, StepRecord, Update, database, entries, together
from inbound.accept.spool.folder import SpoolFolder
from inbound.accept.spool.leases import Leases
from inbound.accept.spool.sqlite import SqliteSpool

NOW = 1_700_000_000.0


async def test_what_arrives_while_the_database_is_busy_shares_the_next_commit(disk: SqliteSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def busy(*_: Any) -> None:
        entered.set()
        gate.wait(10)

    monkeypatch.setattr(entries, "next_due", busy)
    blocked = asyncio.ensure_future(disk.next_due())
    await asyncio.to_thread(entered.wait, 10)
    before = disk.commits
    puts = [asyncio.ensure_future(put(disk)) for _ in range(100)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(blocked, *puts)
    assert disk.commits - before == 1


async def test_a_commit_of_messages_taken_and_done_is_one_statement(disk: SqliteSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each statement the database's thread waits for the event loop: a dozen of them took ten times what the disk did."""
    executed: list[str] = []

    class Counted(database.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            executed.append(sql)
            return super().execute(sql, *parameters)

    monkeypatch.setattr(database, "Connection", Counted)
    await disk.stop()
    await disk.start()
    entries = await asyncio.gather(*(put(disk) for _ in range(20)))
    executed.clear()
    await asyncio.gather(*(disk.update(entry.id, done(NOW, steps=[step()])) for entry in entries), *(put(disk) for _ in range(20)))
    assert [sql[:20] for sql in executed] == ["INSERT INTO together"]


async def test_lazy_updates_and_the_put_that_takes_them_along_are_one_commit(disk: SqliteSpool) -> None:
    entries = await asyncio.gather(*(put(disk) for _ in range(10)))
    before = disk.commits
    lazy = [asyncio.ensure_future(disk.update(entry.id, done(NOW, steps=[step()]), lazy=True)) for entry in entries]
    await asyncio.sleep(0)
    await put(disk)
    assert disk.commits - before == 1
    assert all(task.done() for task in lazy)


async def test_lazy_updates_wait_for_each_other_but_not_long(disk: SqliteSpool) -> None:
    entries = await asyncio.gather(*(put(disk) for _ in range(10)))
    before, start = disk.commits, asyncio.get_running_loop().time()
    await asyncio.gather(*(disk.update(entry.id, done(NOW), lazy=True) for entry in entries))
    assert disk.commits - before == 1
    assert 0.04 < asyncio.get_running_loop().time() - start < 10.0


async def test_reading_commits_nothing(disk: SqliteSpool) -> None:
    entry = await put(disk)
    before = disk.commits
    await disk.get(entry.id)
    await disk.find(Query())
    await disk.counts()
    await disk.next_due()
    await disk.content(entry.id)
    assert disk.commits == before


async def test_one_that_fails_does_not_fail_those_it_shares_a_transaction_with(disk: SqliteSpool) -> None:
    first = await put(disk)
    twin = disk.draft(first.id)
    messages = [envelope() for _ in range(6)]
    puts = [disk.put(message, await drafted(disk, message.message_id, octets(50))) for message in messages]
    outcomes = await asyncio.gather(
        *puts[:3],
        disk.put(first.envelope, twin),
        disk.update(first.id, Update(due=float("nan"))),
        disk.update(first.id, Update(attempts=10**30)),
        disk.update("gone", Update(attempts=1)),
        *puts[3:],
        disk.update(first.id, Update(attempts=5)),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        *["Entry"] * 3,
        *["SpoolError"] * 3,
        "KeyError",
        *["Entry"] * 3,
        "NoneType",
    ]
    for message in messages:
        assert await read(disk, message.message_id) == octets(50)
    found = await disk.get(first.id)
    assert found
    assert found.attempts == 5


@pytest.mark.parametrize("size", [100, THRESHOLD * 5])
async def test_a_put_cancelled_in_its_commit_is_carried_out_and_free_for_a_claim(
    disk: SqliteSpool, clock: Clock, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = threading.Event(), threading.Event()
    run = together.run

    def slow(*arguments: Any) -> Any:
        entered.set()
        gate.wait(10)
        return run(*arguments)

    monkeypatch.setattr(together, "run", slow)
    message = envelope()
    draft = await drafted(disk, message.message_id, octets(size))
    task = asyncio.ensure_future(disk.put(message, draft))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await draft.discard()
    gate.set()
    assert await disk.get(message.message_id)
    assert [entry.id for entry in await disk.claim(clock.now, 10)] == [message.message_id]
    assert await read(disk, message.message_id) == octets(size)


@pytest.mark.parametrize("operation", ["put", "claim"])
async def test_what_is_cancelled_when_its_answer_has_just_come_is_free_for_a_claim(
    disk: SqliteSpool, clock: Clock, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased: list[str] = []
    begin = Leases.begin

    def noted(self: Leases, entry_id: str, *arguments: Any) -> None:
        begin(self, entry_id, *arguments)
        leased.append(entry_id)

    monkeypatch.setattr(Leases, "begin", noted)
    task = asyncio.ensure_future(put(disk, message_id="a", held=operation == "put"))
    if operation == "claim":
        await task
        task = asyncio.ensure_future(disk.claim(clock.now, 1))
    while not leased:  # noqa: ASYNC110  # the instant between the answer and the task that awaits it
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert disk.cached == 0
    await disk.get("a")
    assert [entry.id for entry in await disk.claim(clock.now, 10)] == ["a"]


async def test_a_put_cancelled_while_its_file_is_synced_leaves_nothing(disk: SqliteSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        entered.set()
        gate.wait(10)
        fsync(fd)

    monkeypatch.setattr("inbound.accept.spool.blobs.os.fsync", slow)
    message = envelope()
    task = asyncio.ensure_future(disk.put(message, await drafted(disk, message.message_id, octets(THRESHOLD * 5))))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await disk.get(message.message_id) is None
    await disk.stop()
    assert list((tmp_path / "spool" / "blobs").iterdir()) == []


async def test_a_cancelled_claim_leases_nothing(disk: SqliteSpool, clock: Clock) -> None:
    entry = await put(disk, held=False)
    task = asyncio.ensure_future(disk.claim(clock.now, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await disk.get(entry.id)
    assert [claimed.id for claimed in await disk.claim(clock.now, 10)] == [entry.id]


async def test_a_cancelled_update_is_carried_out(disk: SqliteSpool) -> None:
    entry = await put(disk)
    task = asyncio.ensure_future(disk.update(entry.id, deferred(NOW)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await disk.get(entry.id)
    assert found
    assert found.state is State.DEFERRED
    assert disk.cached == 0


async def test_everything_ends_when_stop_comes_between(disk: SqliteSpool) -> None:
    messages = [envelope() for _ in range(40)]
    drafts = [await drafted(disk, message.message_id, octets(THRESHOLD * 2 if i % 2 else 200)) for i, message in enumerate(messages)]
    tasks = [asyncio.ensure_future(disk.put(message, draft)) for message, draft in zip(messages, drafts, strict=True)]
    await asyncio.sleep(0)
    await disk.stop()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    await disk.start()
    for message, outcome in zip(messages, outcomes, strict=True):
        if isinstance(outcome, SpoolError):
            assert await disk.get(message.message_id) is None
        else:
            assert len(await read(disk, message.message_id)) == outcome.size
    assert any(not isinstance(outcome, SpoolError) for outcome in outcomes)


async def test_a_large_put_that_stop_overtakes_leaves_no_file(disk: SqliteSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        entered.set()
        gate.wait(10)
        fsync(fd)

    monkeypatch.setattr("inbound.accept.spool.blobs.os.fsync", slow)
    late = asyncio.ensure_future(put(disk, octets(THRESHOLD * 5)))
    await asyncio.to_thread(entered.wait, 10)
    stopping = asyncio.ensure_future(disk.stop())
    await asyncio.sleep(0)
    gate.set()
    await stopping
    with pytest.raises(SpoolError):
        await late
    assert list((tmp_path / "spool" / "blobs").iterdir()) == []


async def test_a_cancelled_start_lets_go_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()
    recover = SpoolFolder._recover

    def slow(*arguments: Any) -> int:
        entered.set()
        gate.wait(10)
        return recover(*arguments)

    spool = SqliteSpool(tmp_path / "spool")
    with monkeypatch.context() as patched:
        patched.setattr(SpoolFolder, "_recover", slow)
        starting = asyncio.ensure_future(spool.start())
        await asyncio.to_thread(entered.wait, 10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        gate.set()
    await spool.start()
    await put(spool)
    await spool.stop()


async def test_it_may_be_left_behind_without_stop(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A loop that ends without stop() leaves a thread that waits in vain, and no error."""
    folder = tmp_path_factory.mktemp("spool")

    async def abandon() -> SqliteSpool:
        spool = SqliteSpool(folder)
        await spool.start()
        await put(spool)
        return spool

    spool = await asyncio.to_thread(lambda: asyncio.run(abandon()))
    assert spool.commits >= 1


async def test_forty_that_share_a_transaction_are_each_what_they_would_be_alone(disk: SqliteSpool) -> None:
    """Forty take statements of several sizes; half of the contents are blob files, and each entry has its own steps and columns."""
    messages = [envelope() for _ in range(40)]
    contents = [octets(THRESHOLD * 5 if n % 2 else 60 + n) for n in range(40)]
    drafts = [await drafted(disk, message.message_id, content) for message, content in zip(messages, contents, strict=True)]
    before = disk.commits
    await asyncio.gather(*(disk.put(message, draft) for message, draft in zip(messages, drafts, strict=True)))
    for message, content in zip(messages, contents, strict=True):
        assert await read(disk, message.message_id) == content

    def tried(rule: str, attempt: int) -> StepRecord:
        return StepRecord(rule, 0, "action", "0" * 16, attempt, 1.5, 2, Outcome.FAILED, "", "s3:b", "down", {"n": attempt})

    for round_ in (1, 2):
        await asyncio.gather(*(disk.update(message.message_id, Update(steps=[tried(f"rule {n}", round_)] * (n % 3), attempts=n + round_))
                               for n, message in enumerate(messages)))
    await asyncio.gather(*(
        disk.update(message.message_id, Update(steps=[tried("last", 3)], state=State.DONE, finished=9.0, disposition=f"d{n}", drop_content=n < 30),
                    lazy=True)
        for n, message in enumerate(messages)
    ), *(disk.update(name, Update(attempts=1)) for name in ("gone", "gone too")), return_exceptions=True)
    assert disk.commits - before < 40 + 40  # blob files come one by one
    for n, message in enumerate(messages):
        found = await disk.get(message.message_id)
        assert found
        assert (found.state, found.attempts, found.disposition, found.has_content) == (State.DONE, n + 2, f"d{n}", n >= 30)
        assert list(found.steps) == [*[tried(f"rule {n}", 1)] * (n % 3), *[tried(f"rule {n}", 2)] * (n % 3), tried("last", 3)]
    assert await read(disk, messages[31].message_id) == contents[31]
    with pytest.raises(KeyError):
        await disk.content(messages[0].message_id)


async def test_one_that_is_gone_does_not_fail_those_it_is_done_together_with(disk: SqliteSpool) -> None:
    kept, gone = await put(disk), await put(disk)
    number = disk._leases.number(gone.id)
    assert number
    await disk._write(partial(entries.drop, entry_ids=[gone.id], active=True))  # as a visitor would who thinks us dead
    outcomes = await asyncio.gather(
        disk.update(kept.id, Update(attempts=3)),
        disk.update(gone.id, Update(attempts=3)),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "KeyError"]
    found = await disk.get(kept.id)
    assert found
    assert found.attempts == 3


def test_a_change_made_together_with_others_leaves_out_nothing_that_an_update_may_hold() -> None:
    """A new field of Update has to be thought of in `together.takes` and `view.CHANGED` too."""
    columns = {"state", "due", "attempts", "error", "sink", "assessment", "disposition", "finished", "envelope"}
    assert {each.name for each in fields(Update)} == columns | {"steps", "drop_content"} | {"clear_steps", "judged"}
