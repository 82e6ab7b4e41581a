"""What inbound.accept.spool promises, sentence by sentence, of every spool."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import SEEK_END

import pytest
from letters import Clock, dead, deferred, done, drafted, envelope, octets, put, read, step
from spools import THRESHOLD, Kept

from inbound.accept.spool import Entry, Outcome, Query, Spool, SpoolError, State, Update
from inbound.accept.spool.replays import Replay, Run, runs

SMALL = octets(3000)
LARGE = octets(THRESHOLD * 10)
NOW = 1_700_000_000.0


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


class TestDraft:
    async def test_size_counts_the_octets_added(self, spool: Spool) -> None:
        draft = spool.draft("a")
        assert draft.size == 0
        draft.add(b"12345")
        draft.add(b"")
        draft.add(b"678")
        assert draft.size == 8

    async def test_a_small_draft_never_asks_for_a_flush(self, spool: Spool) -> None:
        draft = spool.draft("a")
        assert not any(draft.add(b"x" * (THRESHOLD // 4)) for _ in range(4))

    async def test_a_large_draft_asks_for_a_flush_again_and_again(self, spool: Spool) -> None:
        draft = spool.draft("a")
        asked = 0
        for _ in range(10):
            if draft.add(b"x" * THRESHOLD):
                asked += 1
                await draft.flush()
        assert asked >= 9
        await draft.discard()

    async def test_a_draft_that_was_flushed_does_not_ask_at_once(self, spool: Spool) -> None:
        draft = spool.draft("a")
        assert draft.add(b"x" * THRESHOLD * 2)
        await draft.flush()
        assert not draft.add(b"x")
        await draft.discard()

    @pytest.mark.parametrize("size", [300, THRESHOLD * 3 + 5])
    async def test_its_content_can_be_read_before_it_is_put(self, spool: Spool, size: int) -> None:
        message, data = envelope(), octets(size)
        draft = await drafted(spool, message.message_id, data)
        content = await draft.content()
        with content.open() as reader:
            assert (content.size, content.head(10), reader.read()) == (size, data[:10], data)
        entry = await spool.put(message, draft, assessment='{"judged":true}')
        assert await read(spool, entry.id) == data
        found = await spool.get(entry.id)
        assert found is not None
        assert found.assessment == entry.assessment == '{"judged":true}'

    async def test_a_flush_of_a_small_draft_changes_nothing(self, spool: Spool) -> None:
        message = envelope()
        draft = spool.draft(message.message_id)
        draft.add(SMALL)
        await draft.flush()
        assert draft.head(10) == SMALL[:10]
        await spool.put(message, draft)
        assert await read(spool, message.message_id) == SMALL

    @pytest.mark.parametrize("flushed", [False, True])
    async def test_head_is_what_came_first(self, spool: Spool, flushed: bool) -> None:
        data = octets(200_000)
        draft = spool.draft("a")
        for start in range(0, len(data), 50_000):
            draft.add(data[start : start + 50_000])
            if flushed:
                await draft.flush()
        assert draft.head(0) == b""
        assert draft.head(10) == data[:10]
        assert draft.head(128 * 1024) == data[: 128 * 1024]
        await draft.discard()

    async def test_head_is_all_there_is_when_asked_for_more(self, spool: Spool) -> None:
        draft = spool.draft("a")
        draft.add(SMALL)
        assert draft.head(1_000_000) == SMALL

    @pytest.mark.parametrize("data", [b"", SMALL, LARGE])
    async def test_all_of_it_can_be_read_before_it_is_put(self, spool: Spool, data: bytes) -> None:
        message = envelope()
        draft = spool.draft(message.message_id)
        draft.add(data)
        content = await draft.content()
        with content.open() as file:
            assert file.read() == data
        assert (content.size, content.head(1000)) == (len(data), data[:1000])
        await spool.put(message, draft)
        assert await read(spool, message.message_id) == data

    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_a_discarded_draft_leaves_nothing(self, kept: Kept, spool: Spool, data: bytes) -> None:
        draft = await drafted(spool, "a", data)
        await draft.discard()
        await draft.discard()
        assert await spool.get("a") is None
        assert await spool.find(Query()) == []

    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_discard_is_harmless_after_put(self, spool: Spool, data: bytes) -> None:
        message = envelope()
        draft = await drafted(spool, message.message_id, data)
        await spool.put(message, draft)
        await draft.discard()
        await spool.update(message.message_id, deferred(NOW))
        assert await read(spool, message.message_id) == data

    async def test_discard_does_not_raise_after_stop(self, spool: Spool) -> None:
        draft = await drafted(spool, "a", LARGE)
        await spool.stop()
        await draft.discard()

    @pytest.mark.parametrize("message_id", ["", ".", "..", "a/b", "../a", "a\0", "a\n", "ä", "x" * 200])
    async def test_an_id_is_a_plain_file_name(self, spool: Spool, message_id: str) -> None:
        with pytest.raises(ValueError, match="not a message id"):
            spool.draft(message_id)


class TestPut:
    @pytest.mark.parametrize("data", [b"", SMALL, LARGE, octets(THRESHOLD), octets(THRESHOLD + 1)])
    async def test_what_was_put_is_there_octet_by_octet(self, kept: Kept, spool: Spool, data: bytes) -> None:
        entry = await put(spool, data)
        assert await read(spool, entry.id) == data
        after = await kept.crashed(spool)
        assert await read(after, entry.id) == data

    async def test_it_gives_the_entry(self, spool: Spool, clock: Clock) -> None:
        message = envelope(received=NOW - 3)
        entry = await spool.put(message, await drafted(spool, message.message_id, SMALL))
        assert entry == Entry(message.message_id, message, len(SMALL), State.ACTIVE, due=clock.now, since=NOW - 3)
        assert await spool.get(entry.id) == entry

    async def test_with_what_was_judged_before(self, kept: Kept, spool: Spool) -> None:
        message = envelope()
        entry = await spool.put(message, spool.draft(message.message_id), assessment='{"spf":"PASS"}')
        assert entry.assessment == '{"spf":"PASS"}'
        async for one in kept.now_and_after_a_crash(spool):
            found = await one.get(entry.id)
            assert found
            assert found.assessment == entry.assessment

    async def test_held_it_is_leased_to_us(self, spool: Spool, clock: Clock) -> None:
        entry = await put(spool)
        assert entry.state is State.ACTIVE
        assert await spool.claim(clock.now + 1e6, 10) == []

    async def test_not_held_it_is_due_at_once(self, spool: Spool, clock: Clock) -> None:
        entry = await put(spool, held=False)
        assert (entry.state, entry.due) == (State.DEFERRED, clock.now)
        assert ids(await spool.claim(clock.now, 10)) == [entry.id]

    async def test_large_content_need_not_be_flushed_before(self, spool: Spool) -> None:
        message = envelope()
        draft = spool.draft(message.message_id)
        draft.add(LARGE)
        await spool.put(message, draft)
        assert await read(spool, message.message_id) == LARGE

    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_an_id_that_is_taken_is_refused_and_the_first_stays_whole(self, spool: Spool, data: bytes) -> None:
        first = await put(spool, data)
        second = spool.draft(first.id)
        with pytest.raises(SpoolError):
            if second.add(octets(len(data), seed=9)):
                await second.flush()
            await spool.put(first.envelope, second)
        await second.discard()
        await spool.update(first.id, deferred(NOW))
        assert await read(spool, first.id) == data

    async def test_a_draft_of_another_message_is_refused(self, spool: Spool) -> None:
        with pytest.raises(ValueError, match="cannot be put"):
            await spool.put(envelope("one"), spool.draft("two"))

    async def test_a_draft_is_put_once(self, spool: Spool) -> None:
        message = envelope()
        draft = await drafted(spool, message.message_id, LARGE)
        await spool.put(message, draft)
        with pytest.raises(ValueError, match="put before"):
            await spool.put(message, draft)
        assert await read(spool, message.message_id) == LARGE

    async def test_a_draft_of_another_kind_of_spool_is_refused(self, spool: Spool) -> None:
        with pytest.raises(TypeError):
            await spool.put(envelope("one"), object())  # type: ignore[arg-type]

    async def test_a_cancelled_put_leaves_the_entry_whole_and_free_or_absent(self, kept: Kept, spool: Spool, clock: Clock) -> None:
        message = envelope()
        draft = await drafted(spool, message.message_id, LARGE)
        task = asyncio.ensure_future(spool.put(message, draft))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await draft.discard()
        after = await kept.restarted(spool)
        entry = await after.get(message.message_id)
        if entry:
            assert await read(after, entry.id) == LARGE
            assert ids(await after.claim(clock.now, 1)) == [entry.id]


class TestClaim:
    async def test_oldest_received_first(self, spool: Spool, clock: Clock) -> None:
        entries = [await put(spool, held=False, received=NOW + offset) for offset in (5, 1, 3, 2, 4)]
        claimed = await spool.claim(clock.now, 10)
        assert ids(claimed) == [entries[i].id for i in (1, 3, 2, 4, 0)]

    async def test_those_of_one_instant_in_the_order_of_arrival(self, spool: Spool, clock: Clock) -> None:
        entries = [await put(spool, held=False) for _ in range(5)]
        assert ids(await spool.claim(clock.now, 10)) == ids(entries)

    async def test_the_order_is_of_receipt_even_when_others_were_due_before(self, spool: Spool) -> None:
        young = await put(spool, received=NOW + 1)
        old = await put(spool, received=NOW)
        await spool.update(young.id, deferred(NOW + 10))
        await spool.update(old.id, deferred(NOW + 20))
        assert await spool.claim(NOW + 15, 0) == []
        assert ids(await spool.claim(NOW + 25, 10)) == [old.id, young.id]

    async def test_up_to_a_limit_and_no_entry_twice(self, spool: Spool, clock: Clock) -> None:
        entries = [await put(spool, held=False, received=NOW + i) for i in range(5)]
        assert ids(await spool.claim(clock.now, 2)) == ids(entries[:2])
        assert ids(await spool.claim(clock.now, 2)) == ids(entries[2:4])
        assert ids(await spool.claim(clock.now, 2)) == ids(entries[4:])
        assert await spool.claim(clock.now, 2) == []

    async def test_not_before_it_is_due(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.update(entry.id, deferred(NOW + 60))
        assert await spool.claim(NOW + 59.999, 10) == []
        assert ids(await spool.claim(NOW + 60, 10)) == [entry.id]

    async def test_not_when_the_clock_was_set_back(self, spool: Spool) -> None:
        for _ in range(2):
            entry = await put(spool)
            await spool.update(entry.id, deferred(NOW + 60))
        assert len(await spool.claim(NOW + 61, 1)) == 1
        assert await spool.claim(NOW, 10) == []
        assert len(await spool.claim(NOW + 61, 10)) == 1

    async def test_with_their_steps_in_order(self, spool: Spool) -> None:
        first, second = [await put(spool, received=NOW + i) for i in range(2)]
        for rule in ("a", "b", "c"):
            await spool.update(first.id, Update(steps=[step(rule), step(rule, 1)]))
        await spool.update(first.id, deferred(NOW))
        await spool.update(second.id, deferred(NOW, steps=[step("d")]))
        one, two = await spool.claim(NOW, 2)
        assert [(s.rule, s.index) for s in one.steps] == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)]
        assert two.steps == (step("d"),)
        assert one == await spool.get(first.id)
        assert one.state is State.ACTIVE

    async def test_two_at_once_share_nothing(self, spool: Spool, clock: Clock) -> None:
        entries = [await put(spool, held=False) for _ in range(20)]
        claimed = await asyncio.gather(*(spool.claim(clock.now, 3) for _ in range(8)))
        assert sorted(entry.id for some in claimed for entry in some) == sorted(ids(entries))

    async def test_dead_and_done_are_not_claimed(self, spool: Spool) -> None:
        one, two = await put(spool), await put(spool)
        await spool.update(one.id, done(NOW))
        await spool.update(two.id, dead(NOW))
        assert await spool.claim(NOW + 1e6, 10) == []

    @pytest.mark.parametrize("update", [dead(NOW), done(NOW), deferred(NOW + 5), Update(due=NOW + 5), Update(state=State.ACTIVE)])
    async def test_nor_what_was_changed_while_it_waited_to_be_claimed(self, spool: Spool, update: Update) -> None:
        first, second = [await put(spool, held=False) for _ in range(2)]
        assert ids(await spool.claim(NOW, 1)) == [first.id]
        await spool.update(second.id, update)
        assert await spool.claim(NOW, 10) == []


class TestUpdate:
    async def test_it_is_applied_whole_and_durable(self, kept: Kept, spool: Spool) -> None:
        entry = await put(spool)
        other = replace(entry.envelope, revision="r2", helo="other.example", received_at=NOW + 7)
        update = Update(
            steps=[step()],
            state=State.DEFERRED,
            due=NOW + 60,
            attempts=3,
            error="an error",
            sink="a sink",
            assessment='{"spf": 1}',
            disposition="COMPLETED",
            finished=5.0,
            envelope=other,
        )
        await spool.update(entry.id, update)
        after = await kept.crashed(spool)
        assert await after.get(entry.id) == Entry(
            entry.id,
            other,
            entry.size,
            State.DEFERRED,
            due=NOW + 60,
            since=entry.since,
            attempts=3,
            error="an error",
            sink="a sink",
            assessment='{"spf": 1}',
            disposition="COMPLETED",
            finished=5.0,
            steps=(step(),),
        )

    @pytest.mark.parametrize(
        "change",
        [
            Update(attempts=7),
            Update(attempts=0),
            Update(error="e"),
            Update(error=""),
            Update(sink="s"),
            Update(assessment="a"),
            Update(disposition="d"),
            Update(finished=3.5),
            Update(due=NOW + 9),
            Update(state=State.DEAD, finished=1.0),
            Update(state=State.DONE, finished=1.0),
            Update(state=State.DEFERRED, due=1.0),
            Update(),
        ],
    )
    async def test_none_leaves_a_field_as_it_is(self, spool: Spool, change: Update) -> None:
        entry = await put(spool)
        full = Update(attempts=1, error="error", sink="sink", assessment="assessment", disposition="disposition", finished=2.0)
        await spool.update(entry.id, full)
        before = await spool.get(entry.id)
        assert before
        await spool.update(entry.id, change)
        given = {
            name: value
            for name in ("state", "due", "attempts", "error", "sink", "assessment", "disposition", "finished")
            if (value := getattr(change, name)) is not None
        }
        assert await spool.get(entry.id) == replace(before, **given)

    async def test_steps_are_appended(self, spool: Spool) -> None:
        entry = await put(spool)
        records = [
            step("a", outcome=Outcome.FAILED, error="refused \u2013 später \0 \n", flow=""),
            step("a", attempt=2, part="topic", detail={}),
            step("b", 9, outcome=Outcome.FINAL, detail={"nested": {"x": [1.5, "\N{GRINNING FACE}", "\udc80"]}}),
        ]
        for record in records:
            await spool.update(entry.id, Update(steps=[record]))
        found = await spool.get(entry.id)
        assert found
        assert found.steps == tuple(records)

    async def test_steps_can_be_cleared_before_new_ones(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.update(entry.id, Update(steps=[step("a"), step("b")]))
        await spool.update(entry.id, Update(clear_steps=True, steps=[step("c")]))
        found = await spool.get(entry.id)
        assert found
        assert found.steps == (step("c"),)
        await spool.update(entry.id, Update(clear_steps=True))
        found = await spool.get(entry.id)
        assert found
        assert found.steps == ()

    @pytest.mark.parametrize("size", [100, THRESHOLD * 2])
    async def test_done_may_drop_the_content(self, kept: Kept, spool: Spool, size: int) -> None:
        entry = await put(spool, octets(size))
        await spool.update(entry.id, done(NOW, drop_content=True))
        async for one in kept.now_and_after_a_crash(spool):
            found = await one.get(entry.id)
            assert found
            assert (found.has_content, found.size) == (False, size)
            with pytest.raises(KeyError):
                await one.content(entry.id)

    @pytest.mark.parametrize("update", [done(NOW), dead(NOW), deferred(NOW)])
    async def test_any_other_keeps_it(self, spool: Spool, update: Update) -> None:
        for data in (SMALL, LARGE):
            entry = await put(spool, data)
            await spool.update(entry.id, update)
            assert await read(spool, entry.id) == data

    async def test_an_update_that_leaves_it_active_keeps_the_lease(self, spool: Spool) -> None:
        entry = await put(spool, held=False)
        await spool.claim(NOW, 1)
        await spool.update(entry.id, Update(due=NOW, steps=[step()]))
        assert await spool.claim(NOW, 1) == []

    async def test_deferred_gives_it_back(self, spool: Spool) -> None:
        entry = await put(spool)
        for due in (NOW, NOW + 1):
            await spool.update(entry.id, deferred(due))
            assert ids(await spool.claim(due, 1)) == [entry.id]

    async def test_an_entry_that_is_gone_is_a_key_error(self, spool: Spool) -> None:
        for lazy in (False, True):
            with pytest.raises(KeyError):
                await spool.update("gone", Update(attempts=1), lazy=lazy)

    @pytest.mark.parametrize(
        ("update", "says"),
        [
            (Update(state=State.DEFERRED), "needs `due`"),
            (Update(state=State.DONE), "needs `finished`"),
            (Update(state=State.DEAD), "needs `finished`"),
            (Update(drop_content=True), "only an update to DONE"),
            (Update(state=State.DEFERRED, due=1.0, drop_content=True), "only an update to DONE"),
            (Update(envelope=envelope("other")), "keeps its message id"),
        ],
    )
    async def test_senseless_ones_are_refused(self, spool: Spool, update: Update, says: str) -> None:
        entry = await put(spool)
        with pytest.raises(ValueError, match=says):
            await spool.update(entry.id, update)
        assert await spool.get(entry.id) == entry

    async def test_a_lazy_one_comes_with_the_next_operation(self, kept: Kept, spool: Spool) -> None:
        entry = await put(spool)
        lazy = asyncio.ensure_future(spool.update(entry.id, done(NOW), lazy=True))
        await asyncio.sleep(0)
        assert not lazy.done()
        await put(spool)
        await lazy
        found = await (await kept.crashed(spool)).get(entry.id)
        assert found
        assert found.state is State.DONE

    async def test_a_lazy_one_alone_does_not_wait_long(self, kept: Kept, spool: Spool) -> None:
        entry = await put(spool)
        start = asyncio.get_running_loop().time()
        await spool.update(entry.id, done(NOW), lazy=True)
        assert 0.03 < asyncio.get_running_loop().time() - start < 10.0
        found = await (await kept.crashed(spool)).get(entry.id)
        assert found
        assert found.state is State.DONE

    async def test_they_are_applied_in_order_lazy_or_not(self, spool: Spool) -> None:
        entry = await put(spool)
        await asyncio.gather(*(spool.update(entry.id, Update(steps=[step("r", i)]), lazy=i % 2 == 0) for i in range(10)))
        found = await spool.get(entry.id)
        assert found
        assert [record.index for record in found.steps] == list(range(10))

    async def test_a_lazy_one_that_still_waits_is_seen_by_what_comes_after(self, spool: Spool) -> None:
        entry = await put(spool)
        lazy = asyncio.ensure_future(spool.update(entry.id, deferred(NOW, attempts=4), lazy=True))
        await asyncio.sleep(0)
        (claimed,) = await spool.claim(NOW, 1)
        assert claimed.attempts == 4
        await lazy


class TestContent:
    @pytest.mark.parametrize("data", [b"", SMALL, LARGE, octets(200_000)])
    async def test_head_open_and_size(self, spool: Spool, data: bytes) -> None:
        entry = await put(spool, data)
        await spool.update(entry.id, deferred(NOW))
        content = await spool.content(entry.id)
        assert content.size == len(data)
        for limit in (0, 1, 4096, 128 * 1024, 150_000, 10**9):
            assert content.head(limit) == data[:limit]
        with content.open() as one, content.open() as other:
            assert one.seek(0, SEEK_END) == len(data)
            assert other.read() == data
            one.seek(len(data) // 2)
            assert one.read() == data[len(data) // 2 :]

    async def test_of_an_unknown_entry_is_a_key_error(self, spool: Spool) -> None:
        with pytest.raises(KeyError):
            await spool.content("gone")


class TestFind:
    async def filled(self, spool: Spool) -> dict[str, Entry]:
        entries = {name: await put(spool, received=NOW + i) for i, name in enumerate(("active", "deferred", "dead", "done"))}
        await spool.update(entries["deferred"].id, deferred(NOW, error="Connection REFUSED", sink="topic", steps=[step()]))
        await spool.update(entries["dead"].id, dead(NOW, error="straße 100% refused_x", sink="bucket"))
        await spool.update(entries["done"].id, done(NOW))
        return entries

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            (Query(), ["active", "deferred", "dead", "done"]),
            (Query(states=[State.DEAD]), ["dead"]),
            (Query(states=(State.DONE, State.ACTIVE)), ["active", "done"]),
            (Query(states=[State.DEAD, State.DEAD]), ["dead"]),
            (Query(error="refused"), ["deferred", "dead"]),
            (Query(error="STRASSE"), ["dead"]),
            (Query(error="100% refused_X"), ["dead"]),
            (Query(error="100x"), []),
            (Query(sink="topic"), ["deferred"]),
            (Query(sink="topi"), []),
            (Query(received_before=NOW + 1), ["active"]),
            (Query(received_after=NOW + 1), ["dead", "done"]),
            (Query(received_after=NOW, received_before=NOW + 2), ["deferred"]),
            (Query(limit=2), ["active", "deferred"]),
            (Query(limit=0), []),
            (Query(states=[State.DEAD], error="refused", sink="topic"), []),
        ],
    )
    async def test_all_restrictions_hold(self, spool: Spool, query: Query, names: list[str]) -> None:
        entries = await self.filled(spool)
        assert ids(await spool.find(query)) == [entries[name].id for name in names]

    async def test_oldest_received_first_without_steps(self, spool: Spool) -> None:
        entries = [await put(spool, received=NOW + offset) for offset in (3, 1, 2, 1)]
        await spool.update(entries[0].id, Update(steps=[step()]))
        found = await spool.find(Query())
        assert found == [entries[i] for i in (1, 3, 2, 0)]


class TestFigures:
    async def test_counts_name_every_state(self, spool: Spool) -> None:
        assert await spool.counts() == {State.ACTIVE: 0, State.DEFERRED: 0, State.DEAD: 0, State.DONE: 0}
        one, two, _ = [await put(spool) for _ in range(3)]
        await put(spool, held=False)
        await spool.update(one.id, dead(NOW))
        await spool.update(two.id, done(NOW))
        assert await spool.counts() == {State.ACTIVE: 1, State.DEFERRED: 1, State.DEAD: 1, State.DONE: 1}

    async def test_next_due_is_of_the_deferred(self, spool: Spool) -> None:
        assert await spool.next_due() is None
        entries = [await put(spool) for _ in range(4)]
        assert await spool.next_due() is None
        await spool.update(entries[0].id, deferred(NOW + 50))
        await spool.update(entries[1].id, deferred(NOW + 30))
        await spool.update(entries[2].id, dead(NOW))
        await spool.update(entries[3].id, done(NOW))
        assert await spool.next_due() == NOW + 30
        await spool.claim(NOW + 40, 10)
        assert await spool.next_due() == NOW + 50

    async def test_next_due_counts_those_that_were_due_and_not_claimed(self, spool: Spool) -> None:
        for offset in (3, 5, 4):
            await spool.update((await put(spool)).id, deferred(NOW + offset))
        await spool.claim(NOW + 10, 1)
        assert await spool.next_due() == NOW + 4

    async def test_waiting_counts_the_deferred_by_sink(self, spool: Spool) -> None:
        assert await spool.waiting() == {}
        for sink in ("a", "b", "a", ""):
            await spool.update((await put(spool)).id, deferred(NOW + 9, sink=sink))
        await spool.update((await put(spool)).id, dead(NOW, sink="c"))
        await spool.update((await put(spool)).id, Update(sink="d"))
        assert await spool.waiting() == {"a": 2, "b": 1}


class TestRelease:
    async def test_oldest_first_up_to_a_limit(self, spool: Spool) -> None:
        entries = [await put(spool, received=NOW + offset) for offset in (4, 2, 3, 1)]
        for entry in entries:
            await spool.update(entry.id, deferred(NOW + 900, sink="s"))
        assert await spool.release("s", NOW + 10, 2) == 2
        assert await spool.next_due() == NOW + 10
        assert ids(await spool.claim(NOW + 10, 10)) == [entries[3].id, entries[1].id]
        assert await spool.release("s", NOW + 10, 10) == 2
        assert await spool.release("s", NOW + 10, 10) == 0
        assert ids(await spool.claim(NOW + 10, 10)) == [entries[2].id, entries[0].id]

    async def test_those_tried_least_before_the_oldest(self, spool: Spool) -> None:
        tried, fresh = await put(spool, received=NOW), await put(spool, received=NOW + 1)
        await spool.update(tried.id, deferred(NOW + 900, sink="s", attempts=1))
        await spool.update(fresh.id, deferred(NOW + 900, sink="s"))
        assert await spool.release("s", NOW + 10, 1) == 1
        assert ids(await spool.claim(NOW + 10, 10)) == [fresh.id]

    async def test_what_was_released_is_not_released_again(self, spool: Spool) -> None:
        for _ in range(3):
            await spool.update((await put(spool)).id, deferred(NOW + 900, sink="s"))
        assert [await spool.release("s", NOW, 2) for _ in range(3)] == [2, 1, 0]

    async def test_only_those_that_wait_for_it(self, spool: Spool) -> None:
        entries = [await put(spool) for _ in range(4)]
        await spool.update(entries[0].id, deferred(NOW + 900, sink="other"))
        await spool.update(entries[1].id, deferred(NOW + 900))
        await spool.update(entries[2].id, dead(NOW, sink="s"))
        await spool.update(entries[3].id, Update(sink="s"))
        assert await spool.release("s", NOW, 10) == 0
        assert await spool.release("", NOW, 10) == 0
        assert await spool.claim(NOW, 10) == []


class TestRetry:
    async def test_a_dead_letter_begins_anew(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.update(entry.id, dead(NOW + 5, attempts=9, error="no", sink="s", steps=[step()]))
        before = await spool.get(entry.id)
        assert before
        assert await spool.retry([entry.id], NOW + 100) == [entry.id]
        expected = replace(before, state=State.DEFERRED, due=NOW + 100, since=NOW + 100, attempts=0, finished=0.0)
        assert await spool.get(entry.id) == expected
        assert await spool.claim(NOW + 100, 1) == [replace(expected, state=State.ACTIVE)]

    async def test_a_deferred_one_is_only_due(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.update(entry.id, deferred(NOW + 900, attempts=2))
        before = await spool.get(entry.id)
        assert before
        assert await spool.retry([entry.id], NOW + 1) == [entry.id]
        assert await spool.get(entry.id) == replace(before, due=NOW + 1)

    async def test_others_stay_as_they_are(self, spool: Spool) -> None:
        active, finished = await put(spool), await put(spool)
        await spool.update(finished.id, done(NOW))
        assert await spool.retry([active.id, finished.id, "gone"], NOW) == []
        assert (await spool.counts())[State.DEFERRED] == 0

    async def test_by_another_revision_what_was_done_is_forgotten(self, spool: Spool) -> None:
        gone, waits, active = [await put(spool, revision="old") for _ in range(3)]
        await spool.update(gone.id, dead(NOW, steps=[step()]))
        await spool.update(waits.id, deferred(NOW + 900, steps=[step()]))
        await spool.update(active.id, Update(steps=[step()]))
        assert await spool.retry([gone.id, waits.id, active.id], NOW, revision=("new", "text")) == [gone.id, waits.id]
        for entry in await spool.claim(NOW, 10):
            assert (entry.envelope.revision, entry.steps) == ("new", ())
        found = await spool.get(active.id)
        assert found
        assert (found.envelope.revision, found.steps) == ("old", (step(),))
        await spool.sweep(finished_before=0, content_before=0, keep_revisions=())
        assert await spool.revision("new") == "text"

    async def test_many(self, spool: Spool) -> None:
        entries = await asyncio.gather(*(put(spool, held=False) for _ in range(700)))
        assert sorted(await spool.retry(set(ids(entries)), NOW)) == sorted(ids(entries))
        assert sorted(await spool.drop(set(ids(entries)))) == sorted(ids(entries))


class TestReplay:
    @pytest.mark.parametrize("ended", [done(NOW + 5, disposition="STOPPED"), dead(NOW + 5, error="no", attempts=9)])
    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_it_is_due_and_all_that_was_recorded_stands_before_the_mark(self, kept: Kept, spool: Spool, data: bytes, ended: Update) -> None:
        entry = await put(spool, data, revision="old")
        await spool.update(entry.id, replace(ended, steps=[step(), step("other")], assessment="judged"))
        before = await spool.get(entry.id)
        assert before
        assert await spool.replay(entry.id, NOW + 100, Replay("new", "text"))
        await spool.sweep(finished_before=1e12, content_before=1e12, keep_revisions=())
        async for one in kept.now_and_after_a_crash(spool):
            found = await one.get(entry.id)
            assert found
            mark = found.steps[-1]
            assert found == replace(
                before, state=State.DEFERRED, due=NOW + 100, since=NOW + 100, attempts=0, error="", disposition="", finished=0.0,
                envelope=replace(before.envelope, revision="new"), steps=(*before.steps, mark))
            assert runs(found.steps) == (
                [Run("old", before.state, before.disposition, before.error, NOW + 5, NOW + 100, (step(), step("other")))], ())
            assert await one.revision("new") == "text"
            assert await read(one, entry.id) == data
        assert await one.claim(NOW + 100, 1) == [replace(found, state=State.ACTIVE)]

    async def test_a_second_time_and_what_comes_after(self, spool: Spool) -> None:
        entry = await put(spool, revision="r0")
        for number in range(1, 3):
            await spool.update(entry.id, done(NOW + number, steps=[step(f"run {number}")]))
            assert await spool.replay(entry.id, NOW + 10 * number, Replay(f"r{number}", "text"))
        await spool.update(entry.id, dead(NOW + 3, steps=[step("run 3")]))
        found = await spool.get(entry.id)
        assert found
        over, present = runs(found.steps)
        assert [(run.revision, run.finished, run.replayed, run.steps) for run in over] == [
            ("r0", NOW + 1, NOW + 10, (step("run 1"),)), ("r1", NOW + 2, NOW + 20, (step("run 2"),))]
        assert tuple(present) == (step("run 3"),)

    async def test_a_retry_by_other_rules_forgets_nothing_before_the_mark(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.update(entry.id, done(NOW, steps=[step("run 1")]))
        assert await spool.replay(entry.id, NOW, Replay("r1", "text"))
        await spool.update(entry.id, dead(NOW, steps=[step("run 2"), step("run 2")]))
        assert await spool.retry([entry.id], NOW, revision=("r2", "text")) == [entry.id]
        found = await spool.get(entry.id)
        assert found
        over, present = runs(found.steps)
        assert ([run.steps for run in over], tuple(present), found.envelope.revision) == ([(step("run 1"),)], (), "r2")

    async def test_what_is_not_finished_goes_its_way(self, spool: Spool) -> None:
        active, waits = await put(spool, revision="old"), await put(spool, revision="old")
        await spool.update(waits.id, deferred(NOW + 900))
        for entry_id in (active.id, waits.id, "gone"):
            assert not await spool.replay(entry_id, NOW, Replay("new", "text"))
        assert await spool.revision("new") is None
        found = await spool.get(waits.id)
        assert found
        assert (found.due, found.envelope.revision) == (NOW + 900, "old")

    @pytest.mark.parametrize("data", [SMALL, LARGE, b""])
    async def test_content_that_is_not_kept_has_to_be_given_whole(self, kept: Kept, spool: Spool, data: bytes) -> None:
        entry = await put(spool, data)
        await spool.update(entry.id, done(NOW, drop_content=True))
        for content in (None, data + b"x"):
            assert not await spool.replay(entry.id, NOW, Replay("new", "text", content))
        assert await spool.replay(entry.id, NOW, Replay("new", "text", data))
        async for one in kept.now_and_after_a_crash(spool):
            found = await one.get(entry.id)
            assert found
            assert found.has_content
            assert await read(one, entry.id) == data
        await one.claim(NOW, 1)
        await one.update(entry.id, done(NOW, drop_content=True))
        with pytest.raises(KeyError):
            await one.content(entry.id)

    async def test_content_that_is_kept_is_not_replaced(self, spool: Spool) -> None:
        entry = await put(spool, SMALL)
        await spool.update(entry.id, done(NOW))
        assert await spool.replay(entry.id, NOW, Replay("new", "text", b"x" * len(SMALL)))
        assert await read(spool, entry.id) == SMALL


class TestDrop:
    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_with_content_and_trace(self, kept: Kept, spool: Spool, data: bytes) -> None:
        entries = [await put(spool, data) for _ in range(3)]
        for entry, update in zip(entries, (dead(NOW), deferred(NOW), done(NOW)), strict=True):
            await spool.update(entry.id, replace(update, steps=[step()]))
        assert await spool.drop([*ids(entries), "gone"]) == ids(entries)
        async for one in kept.now_and_after_a_crash(spool):
            assert await one.find(Query()) == []
            with pytest.raises(KeyError):
                await one.content(entries[0].id)

    async def test_not_while_it_is_worked(self, spool: Spool) -> None:
        entry = await put(spool)
        assert await spool.drop([entry.id]) == []
        assert await spool.get(entry.id) == entry

    async def test_a_new_entry_has_nothing_of_a_dropped_one(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.update(entry.id, dead(NOW, steps=[step()]))
        await spool.drop([entry.id])
        again = await put(spool, message_id=entry.id)
        assert await spool.get(entry.id) == again


class TestRevisions:
    async def test_text_is_kept(self, kept: Kept, spool: Spool) -> None:
        assert await spool.revision("abc") is None
        await spool.keep_revision("abc", "Identities: [ä.example]\n")
        await spool.keep_revision("abc", "Identities: [ä.example]\n")
        assert await (await kept.crashed(spool)).revision("abc") == "Identities: [ä.example]\n"

    async def test_a_sweep_keeps_those_that_an_entry_names_or_the_caller(self, spool: Spool) -> None:
        for digest in ("named", "wanted", "neither", "renamed"):
            await spool.keep_revision(digest, digest)
        await put(spool, revision="named")
        entry = await put(spool, revision="neither")
        await spool.update(entry.id, Update(envelope=replace(entry.envelope, revision="renamed")))
        await spool.sweep(finished_before=0, content_before=0, keep_revisions={"wanted"})
        assert [await spool.revision(d) for d in ("named", "wanted", "neither", "renamed")] == ["named", "wanted", None, "renamed"]


class TestSweep:
    async def test_done_entries_go_when_their_time_is_over(self, kept: Kept, spool: Spool) -> None:
        old, edge, young = [await put(spool, LARGE) for _ in range(3)]
        await spool.update(old.id, done(NOW - 1, steps=[step()]))
        await spool.update(edge.id, done(NOW))
        await spool.update(young.id, done(NOW + 1))
        assert await spool.sweep(finished_before=NOW, content_before=0, keep_revisions=()) == 1
        async for one in kept.now_and_after_a_crash(spool):
            assert ids(await one.find(Query())) == [edge.id, young.id]
            assert await read(one, young.id) == LARGE

    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_content_goes_before_the_trace(self, kept: Kept, spool: Spool, data: bytes) -> None:
        old, young = await put(spool, data), await put(spool, data)
        await spool.update(old.id, done(NOW - 1, steps=[step()]))
        await spool.update(young.id, done(NOW))
        assert await spool.sweep(finished_before=0, content_before=NOW, keep_revisions=()) == 0
        async for one in kept.now_and_after_a_crash(spool):
            found = await one.get(old.id)
            assert found
            assert (found.has_content, found.steps) == (False, (step(),))
            with pytest.raises(KeyError):
                await one.content(old.id)
            assert await read(one, young.id) == data

    async def test_what_is_not_done_never_expires(self, spool: Spool) -> None:
        one, two, three = [await put(spool, SMALL) for _ in range(3)]
        await spool.update(one.id, dead(0.0))
        await spool.update(two.id, deferred(0.0, finished=0.0))
        assert await spool.sweep(finished_before=1e12, content_before=1e12, keep_revisions=()) == 0
        for entry in (one, two, three):
            assert await read(spool, entry.id) == SMALL

    async def test_more_than_one_stroke(self, spool: Spool) -> None:
        entries = await asyncio.gather(*(put(spool, b"x") for _ in range(1100)))
        await asyncio.gather(*(spool.update(entry.id, done(NOW)) for entry in entries))
        assert await spool.sweep(finished_before=0, content_before=NOW + 1, keep_revisions=()) == 0
        assert not any(entry.has_content for entry in await spool.find(Query(limit=2000)))
        assert await spool.sweep(finished_before=NOW + 1, content_before=0, keep_revisions=()) == 1100
        assert await spool.find(Query()) == []


class TestShed:
    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_what_was_finished_first_goes_first_and_no_more_than_is_asked_for(self, kept: Kept, spool: Spool, data: bytes) -> None:
        third, first, second = [await put(spool, data) for _ in range(3)]
        for entry, finished in ((third, NOW + 3), (first, NOW + 1), (second, NOW + 2)):
            await spool.update(entry.id, done(finished, steps=[step()]))
        assert await spool.shed(0) == 0
        assert await spool.shed(len(data) + 1) == 2 * len(data)
        async for one in kept.now_and_after_a_crash(spool):
            for entry in (first, second):
                found = await one.get(entry.id)
                assert found
                assert (found.has_content, found.steps) == (False, (step(),))
                with pytest.raises(KeyError):
                    await one.content(entry.id)
            assert await read(one, third.id) == data

    async def test_what_is_not_done_keeps_its_content(self, spool: Spool) -> None:
        active, dead_letter, waiting = [await put(spool, SMALL) for _ in range(3)]
        await spool.update(dead_letter.id, dead(0.0))
        await spool.update(waiting.id, deferred(0.0, finished=0.0))
        assert await spool.shed(10**9) == 0
        for entry in (active, dead_letter, waiting):
            assert await read(spool, entry.id) == SMALL

    async def test_more_than_one_stroke(self, spool: Spool) -> None:
        entries = await asyncio.gather(*(put(spool, b"x") for _ in range(1100)))
        await asyncio.gather(*(spool.update(entry.id, done(NOW)) for entry in entries))
        assert await spool.shed(1050) == 1050
        assert sum(entry.has_content for entry in await spool.find(Query(limit=2000))) == 50
        assert (await spool.shed(1050), await spool.shed(1)) == (50, 0)

    @pytest.mark.parametrize("data", [SMALL, LARGE])
    async def test_the_load_is_less_by_what_went(self, spool: Spool, data: bytes) -> None:
        for _ in range(20):
            await spool.update((await put(spool, data)).id, done(NOW))
        before = (await spool.load()).octets
        await spool.shed(10 * len(data))
        assert (await spool.load()).octets <= before - 8 * len(data)


class TestStartAndStop:
    async def test_leases_are_given_back_by_stop(self, kept: Kept, spool: Spool, clock: Clock) -> None:
        held = await put(spool, LARGE)
        clock.now += 5
        again = await kept.restarted(spool)
        assert await again.claim(clock.now, 1) == [replace(held, due=clock.now)]
        assert await read(again, held.id) == LARGE

    async def test_leases_of_a_dead_owner_are_given_back_by_start_oldest_first(self, kept: Kept, spool: Spool, clock: Clock) -> None:
        young, old = await put(spool, received=NOW + 1), await put(spool, received=NOW)
        waits = await put(spool)
        await spool.update(waits.id, deferred(NOW + 900))
        clock.now += 5
        after = await kept.crashed(spool)
        assert ids(await after.claim(clock.now, 10)) == [old.id, young.id]
        assert await after.next_due() == NOW + 900

    async def test_stop_commits_what_waits(self, kept: Kept, spool: Spool) -> None:
        entry = await put(spool)
        lazy = asyncio.ensure_future(spool.update(entry.id, done(NOW), lazy=True))
        await asyncio.sleep(0)
        again = await kept.restarted(spool)
        await lazy
        found = await again.get(entry.id)
        assert found
        assert found.state is State.DONE

    async def test_start_and_stop_are_harmless_when_there_is_nothing_to_do(self, spool: Spool) -> None:
        entry = await put(spool)
        await spool.start()
        assert await spool.get(entry.id) == entry
        await spool.stop()
        await spool.stop()

    async def test_a_closed_spool_says_so(self, spool: Spool) -> None:
        message = envelope()
        draft = await drafted(spool, message.message_id, SMALL)
        await spool.stop()
        with pytest.raises(SpoolError):
            spool.draft("a")
        for call in (
            spool.put(message, draft),
            spool.claim(NOW, 1),
            spool.update("a", Update(attempts=1)),
            spool.update("a", Update(attempts=1), lazy=True),
            spool.content("a"),
            spool.get("a"),
            spool.find(Query()),
            spool.counts(),
            spool.next_due(),
            spool.waiting(),
            spool.release("s", NOW, 1),
            spool.retry(["a"], NOW),
            spool.drop(["a"]),
            spool.keep_revision("a", "b"),
            spool.revision("a"),
            spool.sweep(finished_before=0, content_before=0, keep_revisions=()),
        ):
            with pytest.raises(SpoolError):
                await call


class TestClockSet:
    async def test_forward_moves_the_retry_time_of_what_entered_before(self, spool: Spool, clock: Clock) -> None:
        before = [await put(spool, received=clock.now - 3600), await put(spool, held=False, received=clock.now)]
        ended = await put(spool, received=clock.now - 3600)
        await spool.update(ended.id, dead(clock.now))
        clock.now += 10_000
        after = await put(spool, received=clock.now)
        await spool.clock_set(clock.now, forward=10_000, longest=900)
        since = {entry.id: entry.since for entry in await spool.find(Query())}
        assert since == {entry.id: entry.since + 10_000 for entry in before} | {entry.id: entry.since for entry in (ended, after)}

    async def test_what_is_due_too_late_is_due_now(self, spool: Spool, clock: Clock) -> None:
        entries = [await put(spool) for _ in range(3)]
        for entry, wait in zip(entries, (899, 901, 50_000), strict=True):
            await spool.update(entry.id, deferred(clock.now + wait))
        await spool.clock_set(clock.now, forward=0, longest=900)
        assert {entry.id for entry in await spool.claim(clock.now, 10)} == {entry.id for entry in entries[1:]}
        assert await spool.next_due() == clock.now + 899

    async def test_what_was_due_already_is_due_still(self, spool: Spool, clock: Clock) -> None:
        entries = [await put(spool, held=False) for _ in range(2)]
        [first] = await spool.claim(clock.now, 1)
        clock.now -= 50_000
        await spool.clock_set(clock.now, forward=0, longest=900)
        assert {first.id, *(entry.id for entry in await spool.claim(clock.now, 5))} == {entry.id for entry in entries}
