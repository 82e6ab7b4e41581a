"""What a shadow counts: once a message, with the update that ends it, however often it is judged; and what is left of it."""

from __future__ import annotations

import pytest
from letters import dead, deferred, done, put
from spools import Kept

from inbound.accept import spool as contract
from inbound.accept.spool import OTHERS, Judged, Spool

NOW = 1_700_000_000.0
LIKE = Judged("run", "r1")
OTHER_WAY = Judged("run", "r1", "k", '{"removed":[]}', ("a@example.com", "b@example.com"))


async def counts(spool: Spool, run: str = "run") -> dict[tuple[str, str], int]:
    return {(tally.revision, tally.kind): tally.messages for tally in await spool.tallies(run)}


async def test_a_message_is_counted_with_the_update_that_ends_it(kept: Kept, spool: Spool) -> None:
    await spool.open_tally("run", "r1", NOW)
    first, second, third = [await put(spool) for _ in range(3)]
    await spool.update(first.id, done(NOW + 1, judged=LIKE))
    await spool.update(second.id, done(NOW + 2, judged=OTHER_WAY))
    await spool.update(third.id, dead(NOW + 3, judged=OTHER_WAY))
    async for seen in kept.now_and_after_a_crash(spool):
        like, other = await seen.tallies("run")
        assert (like.kind, like.messages, like.first, like.last) == ("", 1, NOW, NOW + 1)
        assert (other.kind, other.told, other.messages, other.first, other.last) == ("k", OTHER_WAY.told, 2, NOW + 2, NOW + 3)
        found = await seen.counted("run", "r1", "k", 10)
        assert [(entry.id, refused) for entry, refused in found] == [(third.id, OTHER_WAY.refused), (second.id, OTHER_WAY.refused)]
        assert [entry.id for entry, _ in await seen.counted("run", "r1", "k", 1)] == [third.id]
        assert not await seen.counted("run", "r1", "k", 0)


async def test_a_dead_letter_that_is_tried_again_is_counted_once(spool: Spool) -> None:
    entry = await put(spool)
    for judged in (LIKE, OTHER_WAY, LIKE):
        await spool.update(entry.id, dead(NOW, judged=judged))
        assert sum((await counts(spool)).values()) == 1
        await spool.update(entry.id, deferred(NOW))
    await spool.update(entry.id, done(NOW, judged=OTHER_WAY))
    assert await counts(spool) == {("r1", ""): 0, ("r1", "k"): 1}
    await spool.update(entry.id, done(NOW, judged=LIKE))
    assert await counts(spool) == {("r1", ""): 1, ("r1", "k"): 0}
    assert not await spool.counted("run", "r1", "k", 10)


async def test_what_another_revision_made_of_it_stays_counted(spool: Spool) -> None:
    entry = await put(spool)
    await spool.update(entry.id, dead(NOW, judged=OTHER_WAY))
    await spool.update(entry.id, done(NOW, judged=Judged("run", "r2")))
    assert await counts(spool) == {("r1", "k"): 1, ("r2", ""): 1}


async def test_entries_that_go_leave_their_count(spool: Spool) -> None:
    swept, dropped = await put(spool), await put(spool)
    await spool.update(swept.id, done(NOW, judged=OTHER_WAY))
    await spool.update(dropped.id, dead(NOW, judged=OTHER_WAY))
    await spool.sweep(finished_before=NOW + 1, content_before=NOW, keep_revisions=[])
    await spool.drop([dropped.id])
    assert await counts(spool) == {("r1", "k"): 2}
    assert not await spool.counted("run", "r1", "k", 10)


async def test_an_entry_that_takes_the_place_of_a_dropped_one_is_not_counted_for_it(spool: Spool) -> None:
    """SQLite gives the number of the last row anew once it is deleted."""
    dropped = await put(spool)
    await spool.update(dropped.id, dead(NOW, judged=OTHER_WAY))
    await spool.drop([dropped.id])
    entry = await put(spool)
    assert not await spool.counted("run", "r1", "k", 10)
    await spool.update(entry.id, done(NOW, judged=LIKE))
    assert await counts(spool) == {("r1", "k"): 1, ("r1", ""): 1}


async def test_a_new_run_begins_from_nothing(spool: Spool) -> None:
    entry = await put(spool)
    await spool.update(entry.id, dead(NOW, judged=OTHER_WAY))
    await spool.open_tally("new", "r1", NOW + 5)
    assert await counts(spool) == {}
    assert await counts(spool, "new") == {("r1", ""): 0}
    assert not await spool.counted("run", "r1", "k", 10)
    await spool.update(entry.id, done(NOW + 6, judged=Judged("new", "r1", "k", "{}")))
    assert await counts(spool, "new") == {("r1", ""): 0, ("r1", "k"): 1}


async def test_a_revision_that_is_taken_again_counts_on(spool: Spool) -> None:
    await spool.open_tally("run", "r1", NOW)
    await spool.update((await put(spool)).id, done(NOW + 1, judged=LIKE))
    await spool.open_tally("run", "r2", NOW + 2)
    await spool.open_tally("run", "r1", NOW + 3)
    assert {t.revision: (t.messages, t.first, t.last) for t in await spool.tallies("run")} == {"r1": (1, NOW, NOW + 3), "r2": (0, NOW + 2, NOW + 2)}


async def test_kinds_of_difference_do_not_grow_without_end(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tallies", "memory"):
        monkeypatch.setattr(f"{contract.__name__}.{module}.KINDS", 3)
    await spool.open_tally("run", "r1", NOW)
    entries = [await put(spool) for _ in range(6)]
    for number, entry in enumerate(entries):
        await spool.update(entry.id, done(NOW, judged=Judged("run", "r1", f"k{number % 5}", "{}")))
    assert await counts(spool) == {("r1", ""): 0, ("r1", "k0"): 2, ("r1", "k1"): 1, ("r1", OTHERS): 3}
    assert len(await spool.counted("run", "r1", OTHERS, 10)) == 3
