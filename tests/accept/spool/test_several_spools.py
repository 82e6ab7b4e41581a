"""The spools of several processes, looked at as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool import Judged, Query, State, Update
from inbound.accept.spool.replays import Replay
from inbound.accept.spool.several import SeveralSpools, spool_folder, spool_numbers
from inbound.accept.spool.sqlite import SqliteSpool


async def put(spool: SqliteSpool, received_at: float) -> str:
    envelope = Envelope(new_message_id(), Peer("192.0.2.1"), "x", "a@x", ("u@example.com",), received_at)
    draft = spool.draft(envelope.message_id)
    draft.add(b"octets of %d" % received_at)
    await spool.put(envelope, draft, held=False)
    return envelope.message_id


async def test_a_visitor_sees_all_of_them_as_one_and_acts_where_the_entry_is(tmp_path: Path) -> None:
    owners = [SqliteSpool(spool_folder(tmp_path, number)) for number in (1, 2, 11)]
    for owner in owners:
        await owner.start()
    first, second, third = [await put(owner, when) for owner, when in zip(owners, (30.0, 10.0, 20.0), strict=True)]
    (tmp_path / "spool-x").mkdir()
    (tmp_path / "spool-3").mkdir()
    assert spool_numbers(tmp_path) == [1, 2, 11]
    visitor = SeveralSpools(tmp_path)
    await visitor.start()
    assert [entry.id for entry in await visitor.find(Query())] == [second, third, first]
    assert [entry.id for entry in await visitor.find(Query(limit=2))] == [second, third]
    assert (await visitor.counts())[State.DEFERRED] == 3
    found = await visitor.get(third)
    assert found is not None
    assert found.id == third
    assert (await visitor.content(second)).head(100) == b"octets of 10"
    assert await visitor.get("0" * 40) is None
    with pytest.raises(KeyError):
        await visitor.content("0" * 40)
    await owners[1].keep_revision("r", "text")
    assert await visitor.revision("r") == "text"
    assert await visitor.revision("s") is None
    assert sorted(await visitor.retry([first, third, "0" * 40], 1.0)) == sorted([first, third])
    assert await visitor.drop([second]) == [second]
    assert (await visitor.counts())[State.DEFERRED] == 2
    for owner, entry_id in ((owners[0], first), (owners[2], third)):
        await owner.open_tally("run", "r", 40.0)
        await owner.update(entry_id, Update(state=State.DEAD, finished=50.0, judged=Judged("run", "r", "k", "{}")))
    assert [[tally.messages for tally in each] for each in await visitor.tallies("run")] == [[0, 1], [], [0, 1]]
    assert [entry.id for entry, _ in await visitor.counted("run", "r", "k", 2)] == [first, third]
    assert [entry.id for entry, _ in await visitor.counted("run", "r", "k", 1)] == [first]
    assert [await visitor.replay(each, 60.0, Replay("n", "new text")) for each in (third, third, "0" * 40)] == [True, False, False]
    assert ((await owners[2].claim(60.0, 10))[0].id, await owners[0].revision("n"), await owners[2].revision("n")) == (third, None, "new text")
    await visitor.stop()
    for owner in owners:
        await owner.stop()


async def test_without_a_spool_there_is_nothing_to_visit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await SeveralSpools(tmp_path).start()
