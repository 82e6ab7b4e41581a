"""The spool in memory: a twin of the one on disk for tests, ours and those of users, with faults to order and a journal to read.

Everything happens at once, in the event loop; only a lazy update waits, and what it waits for a crash takes away, as on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from inbound.accept.envelope import Envelope
from inbound.accept.spool import KINDS, OTHERS, Backlog, Content, Draft, Entry, Judged, Load, Query, SpoolError, State, StepRecord, Tally, Update
from inbound.accept.spool.checks import check_message_id, check_put, check_update
from inbound.accept.spool.content import MemoryContent
from inbound.accept.spool.replays import Replay, is_possible, replayed, runs

LAZY_SECONDS = 0.05
BLOB_THRESHOLD = 256 * 1024
FIELDS = ("state", "due", "attempts", "error", "sink", "assessment", "disposition", "finished", "envelope")


@dataclass(slots=True)
class Fault:
    """An error to raise the next `times` times; None is every time."""

    error: Exception
    times: int | None = None


@dataclass(slots=True)
class Faults:
    """What shall go wrong, by operation; may be changed at any time. Until `hold_put` is set, no `put` gets any further."""

    put: Fault | None = None
    update: Fault | None = None
    claim: Fault | None = None
    flush: Fault | None = None
    hold_put: asyncio.Event | None = None

    def strike(self, operation: str) -> None:
        """Raise the error ordered for an operation, if one is."""
        fault: Fault | None = getattr(self, operation)
        if fault is None or fault.times == 0:
            return
        if fault.times is not None:
            fault.times -= 1
        raise type(fault.error)(*fault.error.args)


class MemoryDraft:
    """A draft of a `MemorySpool`, which asks for `flush` when one on disk would."""

    def __init__(self, message_id: str, threshold: int, faults: Faults, journal: list[tuple[str, str]]) -> None:
        self.message_id = message_id
        self._octets = bytearray()
        self._flushed = 0
        self._threshold = threshold
        self._faults = faults
        self._journal = journal
        self._taken = False

    @property
    def size(self) -> int:
        return len(self._octets)

    def add(self, piece: bytes) -> bool:
        self._octets += piece
        return self.size > self._threshold and self.size - self._flushed >= min(BLOB_THRESHOLD, self._threshold)

    async def flush(self) -> None:
        self._faults.strike("flush")
        self._flushed = self.size
        self._journal.append(("flush", self.message_id))

    def head(self, limit: int) -> bytes:
        return bytes(self._octets[:limit])

    async def content(self) -> Content:
        return MemoryContent(bytes(self._octets))

    def forget(self) -> None:
        if not self._taken:
            self._octets.clear()

    async def discard(self) -> None:
        if not self._taken:
            self._octets.clear()
            self._journal.append(("discard", self.message_id))

    def take(self) -> bytes:
        """All octets. The spool answers for them from now on. Raises ValueError when they were taken before."""
        if self._taken:
            raise ValueError(f"the draft of {self.message_id} was put before")
        self._taken = True
        return bytes(self._octets)


@dataclass(slots=True)
class _Store:
    """What survives a crash."""

    entries: dict[str, Entry] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict)  # by run, revision, kind
    counted: dict[str, Judged] = field(default_factory=dict)


class MemorySpool:
    """A `Spool` without a disk. `faults` orders what fails; `journal` lists (operation, message id) of what was done, in order."""

    def __init__(self, *, clock: Callable[[], float] = time.time, blob_threshold: int = BLOB_THRESHOLD) -> None:
        self.faults = Faults()
        self.journal: list[tuple[str, str]] = []
        self._clock = clock
        self._blob_threshold = blob_threshold
        self._store = _Store()
        self._lazy: list[tuple[asyncio.Future[None], str, Update]] = []
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._open = False

    def crash(self) -> MemorySpool:
        """The spool as a process started after kill -9 finds it: open, leases given back, lazy updates that waited lost.

        This one is dead from now on.
        """
        successor = MemorySpool(clock=self._clock, blob_threshold=self._blob_threshold)
        successor._store = self._store
        successor._open_up()
        self._store, self._open = _Store(), False
        for future, *_ in self._lazy:
            if not future.done():
                future.set_exception(SpoolError("the spool crashed"))
        self._lazy.clear()
        return successor

    async def start(self) -> None:
        if not self._open:
            self._open_up()

    async def stop(self) -> None:
        if self._open:
            self._commit()
            self._give_back()
            self._open = False

    def draft(self, message_id: str) -> Draft:
        self._check_open()
        check_message_id(message_id)
        return MemoryDraft(message_id, self._blob_threshold, self.faults, self.journal)

    async def put(self, envelope: Envelope, draft: Draft, *, held: bool = True, assessment: str = "") -> Entry:
        self._check_open()
        if not isinstance(draft, MemoryDraft):
            raise TypeError("the draft was made by another spool")
        check_put(envelope, draft.message_id)
        data = draft.take()
        if self.faults.hold_put:
            await self.faults.hold_put.wait()
        self.faults.strike("put")
        self._commit()
        id_ = envelope.message_id
        if id_ in self._store.entries:
            raise SpoolError(f"there is an entry {id_}")
        state = State.ACTIVE if held else State.DEFERRED
        entry = Entry(id_, envelope, len(data), state, due=self._clock(), since=envelope.received_at, assessment=assessment)
        self._store.entries[id_] = entry
        self._store.contents[id_] = data
        self.journal.append(("put", id_))
        return entry

    async def claim(self, now: float, limit: int) -> list[Entry]:
        self._commit()
        self.faults.strike("claim")
        due = [entry for entry in self._in_order() if entry.state is State.DEFERRED and entry.due <= now]
        claimed = [self._keep(replace(entry, state=State.ACTIVE)) for entry in due[: max(limit, 0)]]
        self.journal += [("claim", entry.id) for entry in claimed]
        return claimed

    async def update(self, entry_id: str, update: Update, *, lazy: bool = False) -> None:
        check_update(entry_id, update)
        self._check_open()
        self.faults.strike("update")
        future = asyncio.get_running_loop().create_future()
        self._lazy.append((future, entry_id, update))
        if not lazy:
            self._commit()
        elif self._lazy_timer is None:
            self._lazy_timer = asyncio.get_running_loop().call_later(LAZY_SECONDS, self._end_laziness)
        await future

    async def content(self, entry_id: str) -> Content:
        self._commit()
        return MemoryContent(self._store.contents[entry_id])

    async def get(self, entry_id: str) -> Entry | None:
        self._commit()
        return self._store.entries.get(entry_id)

    async def find(self, query: Query) -> list[Entry]:
        self._check_open()
        found = [replace(entry, steps=()) for entry in self._in_order() if _matches(entry, query)]
        return found[: max(query.limit, 0)]

    async def counts(self) -> dict[State, int]:
        self._check_open()
        found = Counter(entry.state for entry in self._store.entries.values())
        return {state: found[state] for state in State}

    async def next_due(self) -> float | None:
        self._commit()
        return min((entry.due for entry in self._in_order() if entry.state is State.DEFERRED), default=None)

    async def waiting(self) -> dict[str, int]:
        self._check_open()
        return dict(Counter(entry.sink for entry in self._in_order() if entry.state is State.DEFERRED and entry.sink))

    async def backlog(self) -> dict[str, Backlog]:
        self._check_open()
        held_up = [entry for entry in self._in_order() if entry.state is State.DEFERRED and entry.sink]
        counts = Counter(entry.sink for entry in held_up)
        oldest = {entry.sink: entry.envelope.received_at for entry in reversed(held_up)}
        return {sink: Backlog(count, oldest[sink]) for sink, count in counts.items()}

    async def load(self) -> Load:
        self._check_open()
        waiting = [e.since for e in self._in_order() if e.state in (State.DEFERRED, State.ACTIVE) and (e.sink or not e.attempts)]
        return Load(min(waiting, default=None), sum(map(len, self._store.contents.values())))

    async def probe(self) -> None:
        self._commit()
        self.faults.strike("put")

    async def release(self, sink: str, now: float, limit: int) -> int:
        self._commit()
        held_up = [e for e in self._in_order() if e.state is State.DEFERRED and e.sink and e.sink == sink and e.due > now]
        held_up.sort(key=lambda entry: entry.attempts)
        for entry in held_up[: max(limit, 0)]:
            self._keep(replace(entry, due=now))
        return len(held_up[: max(limit, 0)])

    async def clock_set(self, now: float, *, forward: float, longest: float) -> None:
        self._commit()
        for entry in list(self._store.entries.values()):
            if entry.state in (State.ACTIVE, State.DEFERRED):
                since = entry.since + forward if entry.since <= now - forward else entry.since
                due = now if entry.state is State.DEFERRED and entry.due > now + longest else entry.due
                self._keep(replace(entry, since=since, due=due))

    async def retry(self, entry_ids: Collection[str], now: float, *, revision: tuple[str, str] | None = None) -> list[str]:
        self._commit()
        return [entry_id for entry_id in entry_ids if self._retry(entry_id, now, revision)]

    async def replay(self, entry_id: str, now: float, replay: Replay) -> bool:
        self._commit()
        entry = self._store.entries.get(entry_id)
        if entry is None or not is_possible(entry, replay):
            return False
        if not entry.has_content:
            self._store.contents[entry_id] = replay.content or b""
        self._keep(replayed(entry, replay, now))
        self._store.revisions.setdefault(replay.revision, replay.text)
        self.journal.append(("replay", entry_id))
        return True

    async def drop(self, entry_ids: Collection[str]) -> list[str]:
        self._commit()
        return [entry_id for entry_id in entry_ids if self._drop(entry_id)]

    async def keep_revision(self, digest: str, text: str) -> None:
        self._commit()
        self._store.revisions.setdefault(digest, text)

    async def revision(self, digest: str) -> str | None:
        self._commit()
        return self._store.revisions.get(digest)

    async def open_tally(self, run: str, revision: str, now: float) -> None:
        self._commit()
        self._tally(run, Tally(revision, "", "", 0, now, now))
        self._store.tallies = {key: tally for key, tally in self._store.tallies.items() if key[0] == run}
        self._store.counted = {entry_id: judged for entry_id, judged in self._store.counted.items() if judged.run == run}

    async def tallies(self, run: str) -> list[Tally]:
        self._commit()
        return [tally for key, tally in sorted(self._store.tallies.items()) if key[0] == run]

    async def counted(self, run: str, revision: str, kind: str, limit: int) -> list[tuple[Entry, tuple[str, ...]]]:
        self._check_open()
        meant = run, revision, kind
        found = [(self._store.entries[entry_id], judged) for entry_id, judged in self._store.counted.items()
                 if (judged.run, judged.revision, judged.kind) == meant]
        arrival = {entry_id: number for number, entry_id in enumerate(self._store.entries)}
        found.sort(key=lambda each: arrival[each[0].id], reverse=True)
        return [(replace(entry, steps=()), judged.refused) for entry, judged in found[: max(limit, 0)]]

    async def sweep(self, *, finished_before: float, content_before: float, keep_revisions: Collection[str]) -> int:
        self._commit()
        done = [entry for entry in self._in_order() if entry.state is State.DONE]
        old = [entry for entry in done if entry.finished < finished_before]
        for entry in old:
            self._forget(entry.id)
        for entry in done:
            if entry.finished < content_before and entry not in old:
                self._store.contents.pop(entry.id, None)
                self._keep(replace(entry, has_content=False))
        named = {entry.envelope.revision for entry in self._in_order()} | set(keep_revisions)
        self._store.revisions = {digest: text for digest, text in self._store.revisions.items() if digest in named}
        return len(old)

    async def shed(self, octets: int) -> int:
        self._commit()
        gone = 0
        for entry in sorted((e for e in self._store.entries.values() if e.state is State.DONE and e.has_content), key=lambda e: e.finished):
            if gone >= octets:
                break
            gone += entry.size
            self._store.contents.pop(entry.id)
            self._keep(replace(entry, has_content=False))
        return gone

    def _check_open(self) -> None:
        if not self._open:
            raise SpoolError("the spool is not open")

    def _open_up(self) -> None:
        self._open = True
        self._give_back()

    def _give_back(self) -> None:
        for entry in self._in_order():
            if entry.state is State.ACTIVE:
                self._keep(replace(entry, state=State.DEFERRED, due=self._clock()))

    def _end_laziness(self) -> None:
        self._lazy_timer = None
        if self._open:
            self._commit()

    def _commit(self) -> None:
        """Apply the updates that waited; every operation that would begin a transaction on disk does."""
        self._check_open()
        waiting, self._lazy = self._lazy, []
        for future, entry_id, update in waiting:
            error = self._apply(entry_id, update)
            if future.done():
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)

    def _apply(self, entry_id: str, update: Update) -> KeyError | None:
        entry = self._store.entries.get(entry_id)
        if entry is None:
            return KeyError(entry_id)
        self._keep(_changed(entry, update))
        if update.judged is not None:
            self._count(entry_id, update.judged, update.finished or 0.0, again=update.state is State.DEAD)
        if update.drop_content:
            self._store.contents.pop(entry_id, None)
        self.journal.append(("update", entry_id))
        return None

    def _count(self, entry_id: str, judged: Judged, now: float, *, again: bool) -> None:
        before = self._store.counted.pop(entry_id, None)
        if before is not None and (before.run, before.revision) == (judged.run, judged.revision):
            key = before.run, before.revision, before.kind
            tally = self._store.tallies[key]
            self._store.tallies[key] = replace(tally, messages=tally.messages - 1)
        if (judged.run, judged.revision, judged.kind) not in self._store.tallies:
            kinds = [key for key in self._store.tallies if key[:2] == (judged.run, judged.revision)]
            judged = replace(judged, kind=OTHERS, told="") if judged.kind and len(kinds) >= KINDS else judged
        self._tally(judged.run, Tally(judged.revision, judged.kind, judged.told, 1, now, now))
        if judged.kind or again:
            self._store.counted[entry_id] = judged

    def _tally(self, run: str, more: Tally) -> None:
        key = run, more.revision, more.kind
        before = self._store.tallies.get(key, replace(more, messages=0))
        self._store.tallies[key] = replace(before, messages=before.messages + more.messages, last=more.last)

    def _retry(self, entry_id: str, now: float, revision: tuple[str, str] | None) -> bool:
        entry = self._store.entries.get(entry_id)
        if entry is None or entry.state not in (State.DEAD, State.DEFERRED):
            return False
        if entry.state is State.DEAD:
            entry = replace(entry, since=now, attempts=0, finished=0.0)
        if revision is not None:
            self._store.revisions.setdefault(*revision)
            entry = replace(entry, envelope=replace(entry.envelope, revision=revision[0]), steps=_before_replay(entry.steps))
        self._keep(replace(entry, state=State.DEFERRED, due=now))
        self.journal.append(("retry", entry_id))
        return True

    def _drop(self, entry_id: str) -> bool:
        entry = self._store.entries.get(entry_id)
        if entry is None or entry.state is State.ACTIVE:
            return False
        self._forget(entry_id)
        self.journal.append(("drop", entry_id))
        return True

    def _forget(self, entry_id: str) -> None:
        del self._store.entries[entry_id]
        self._store.contents.pop(entry_id, None)
        self._store.counted.pop(entry_id, None)

    def _keep(self, entry: Entry) -> Entry:
        self._store.entries[entry.id] = entry
        return entry

    def _in_order(self) -> list[Entry]:
        """All entries, oldest received first; those of one instant in the order of their arrival."""
        return sorted(self._store.entries.values(), key=lambda entry: entry.envelope.received_at)


def _changed(entry: Entry, update: Update) -> Entry:
    given = {name: value for name in FIELDS if (value := getattr(update, name)) is not None}
    steps = (*(() if update.clear_steps else entry.steps), *update.steps)
    return replace(entry, **given, steps=steps, has_content=entry.has_content and not update.drop_content)


def _before_replay(steps: tuple[StepRecord, ...]) -> tuple[StepRecord, ...]:
    """What is recorded up to the last mark of a replay."""
    _, present = runs(steps)
    return steps[: len(steps) - len(present)]


def _matches(entry: Entry, query: Query) -> bool:
    received = entry.envelope.received_at
    return (
        (not query.states or entry.state in query.states)
        and (not query.sink or entry.sink == query.sink)
        and query.error.casefold() in entry.error.casefold()
        and (query.received_before is None or received < query.received_before)
        and (query.received_after is None or received > query.received_after)
    )
