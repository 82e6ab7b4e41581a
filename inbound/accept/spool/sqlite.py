"""The spool on disk: a SQLite file for entries, steps and small content, and a file a message for large content.

When `put` returns, envelope and content survive a power cut: the blob file is synced, then its folder, then the row is committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

from inbound.accept.envelope import Envelope, new_message_id
from inbound.accept.spool import (
    Backlog,
    Content,
    Draft,
    Entry,
    Load,
    Query,
    SpoolError,
    State,
    Tally,
    Update,
    entries,
    tallies,
    together,
)
from inbound.accept.spool.blobs import Blob
from inbound.accept.spool.checks import check_put, check_update
from inbound.accept.spool.commits import GroupCommit
from inbound.accept.spool.content import FileContent, MemoryContent, SpilledContent, whole
from inbound.accept.spool.database import Connection
from inbound.accept.spool.drafts import DiskDraft
from inbound.accept.spool.folder import SpoolFolder
from inbound.accept.spool.leases import Leases
from inbound.accept.spool.replays import Replay
from inbound.accept.spool.threads import FileThreads
from inbound.accept.spool.transactions import Operation, Transactions
from inbound.metrics import COMMIT_SIZE, COMMITS, Metrics

T = TypeVar("T")

BLOB_THRESHOLD = 256 * 1024
MEMORY = 64 << 20
CHUNK = 500  # entries that one stroke of a sweep takes at most
AGAIN = 1.0  # seconds until a lease is given back again that could not be


class SqliteSpool:
    """A `Spool` in `folder`. Content of more than `blob_threshold` octets becomes a blob file; smaller content of ACTIVE entries is
    held in memory, up to `memory` octets in all.

    A `visitor` looks at a spool that another process may own, and may retry, replay and drop: it takes no lock, recovers and cleans nothing,
    creates nothing (`start` raises FileNotFoundError), and everything else raises SpoolError. It drops ACTIVE entries only when no
    live process owns the spool.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        blob_threshold: int = BLOB_THRESHOLD,
        memory: int = MEMORY,
        visitor: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self.recovered = 0  # leases of a dead owner that `start` gave back
        self._folder = SpoolFolder(folder)
        self._clock = clock
        self._blob_threshold = blob_threshold
        self._visitor = visitor
        self._metrics = metrics or Metrics()
        self._transactions = Transactions(partial(self._folder.database.open, migrate=False))
        self._commits: GroupCommit | None = None
        self._threads = FileThreads()
        self._leases = Leases(memory)
        self._spilling = asyncio.Lock()

    @property
    def cached(self) -> int:
        """How many octets of content are held in memory."""
        return self._leases.octets

    @property
    def commits(self) -> int:
        """How many transactions that write were committed: what shares one counts once."""
        return self._transactions.count

    async def start(self) -> None:
        if self._commits:
            return
        threads = FileThreads()
        commits = GroupCommit(self._transactions, self._committed)
        await commits.start(self._open, partial(self._close, threads))
        self._threads, self._commits = threads, commits

    def _committed(self, operations: int, seconds: float) -> None:
        self._metrics.observe(COMMIT_SIZE, operations)
        self._metrics.observe(COMMITS, seconds)

    def _open(self) -> Connection:
        if self._visitor:
            return self._folder.open_as_visitor()
        connection, self.recovered = self._folder.open_as_owner(self._clock())
        return connection

    def _close(self, threads: FileThreads) -> None:
        threads.close()
        self._folder.lock.release()

    async def stop(self) -> None:
        commits, self._commits = self._commits, None
        if commits is None:
            return
        try:
            if not self._visitor:
                await commits.submit(Operation(partial(entries.give_back_all, now=self._clock())))
        except SpoolError:
            pass  # the next start gives the leases back
        finally:
            await commits.stop()
            self._leases.end_all()

    def draft(self, message_id: str) -> Draft:
        self._owned()
        return DiskDraft(message_id, Blob(self._folder.blobs, message_id), self._blob_threshold, self._threads)

    async def put(self, envelope: Envelope, draft: Draft, *, held: bool = True, assessment: str = "") -> Entry:
        self._owned()
        if not isinstance(draft, DiskDraft):
            raise TypeError("the draft was made by another spool")
        check_put(envelope, draft.message_id)
        state = State.ACTIVE if held else State.DEFERRED
        entry = Entry(envelope.message_id, envelope, draft.size, state, due=self._clock(), since=envelope.received_at, assessment=assessment)
        if draft.is_large:
            await self._put_large(entry, draft)
        else:
            await self._insert(entry, draft.take())
        return entry

    async def _put_large(self, entry: Entry, draft: DiskDraft) -> None:
        await draft.take_blob()
        if self._commits is None:
            draft.give_up()
        await self._insert(entry, None, draft.give_up)

    async def _insert(self, entry: Entry, data: bytes | None, failed: Callable[[], object] | None = None) -> None:
        def committed(number: int, awaited: bool) -> None:
            if not awaited:
                give_back(number)
            elif entry.state is State.ACTIVE:
                self._leases.begin(entry.id, number, data)

        def give_back(number: int) -> None:
            if entry.state is State.ACTIVE:
                self._give_back([(number, entry)])

        insert = Operation(
            lambda connection: entries.insert(connection, entry, data),
            undo=lambda connection, _: entries.drop(connection, [entry.id], active=True),
            together=together.run,
            given=together.Reception(entry, data),
        )
        await _wanted(self._owned().submit(insert, committed=committed, failed=failed), give_back)

    async def claim(self, now: float, limit: int) -> list[Entry]:
        def committed(claimed: list[entries.Claimed], awaited: bool) -> None:
            if not awaited:
                give_back(claimed)
                return
            for number, entry, data in claimed:
                self._leases.begin(entry.id, number, data if data is not None and len(data) == entry.size else None)

        def give_back(claimed: list[entries.Claimed]) -> None:
            self._give_back([(number, entry) for number, entry, _ in claimed])

        def undo(connection: Connection, claimed: list[entries.Claimed] | None) -> None:
            entries.give_back(connection, now, [each.number for each in claimed or ()])

        claim = Operation(partial(entries.claim, now=now, limit=max(limit, 0)), undo=undo)
        claimed: list[entries.Claimed] = await _wanted(self._owned().submit(claim, committed=committed), give_back)
        return [each.entry for each in claimed]

    def _give_back(self, unwanted: list[tuple[int, Entry]]) -> None:
        """End leases that nobody here will work, whatever it takes."""
        if self._commits is None:
            return  # `stop` gives everything back

        def failed() -> None:
            asyncio.get_running_loop().call_later(AGAIN, self._give_back, unwanted)

        for _, entry in unwanted:
            self._leases.end(entry.id)
        operation = Operation(partial(entries.give_back, now=self._clock(), numbers=[number for number, _ in unwanted]))
        self._commits.submit(operation, failed=failed).add_done_callback(asyncio.Future.exception)

    async def update(self, entry_id: str, update: Update, *, lazy: bool = False) -> None:
        check_update(entry_id, update)

        def committed(blob_is_over: bool, _: bool) -> None:
            if update.state not in (None, State.ACTIVE):
                self._leases.end(entry_id)
            if blob_is_over:
                self._threads.send(self._folder.blobs.remove, [entry_id])

        number = self._leases.number(entry_id)
        change = Operation(
            partial(entries.change, entry_id=entry_id, update=update, number=number),
            together=together.run if number is not None and together.takes(update) else None,
            given=together.Change(entry_id, update, number or 0),
        )
        await self._owned().submit(change, lazy=lazy, committed=committed)

    async def content(self, entry_id: str) -> Content:
        cached = self._leases.content(entry_id)
        if cached is not None:
            return MemoryContent(cached)
        place = partial(entries.place, entry_id=entry_id, number=self._leases.number(entry_id))
        size, in_blob, data = await self._read(partial(place, most=self._blob_threshold))
        if in_blob:
            return await self._threads.run(FileContent, self._folder.blobs.path(entry_id), size)
        if data is not None:
            return MemoryContent(whole(entry_id, data, size))
        async with self._spilling:  # one after the other, for all that are in hand would not fit into memory
            _, _, data = await self._read(place)
            name = new_message_id()  # of no entry: the next start removes what a crash leaves
            path, remove = self._folder.blobs.path(name), partial(self._folder.blobs.remove, [name])
            return await self._threads.run(SpilledContent, path, whole(entry_id, data or b"", size), remove)

    async def get(self, entry_id: str) -> Entry | None:
        return await self._read(partial(entries.get, entry_id=entry_id, number=self._leases.number(entry_id)))

    async def find(self, query: Query) -> list[Entry]:
        return await self._look(partial(entries.find, query=query))

    async def counts(self) -> dict[State, int]:
        return await self._look(entries.counts)

    async def next_due(self) -> float | None:
        return await self._read(entries.next_due)

    async def waiting(self) -> dict[str, int]:
        return await self._look(entries.waiting)

    async def backlog(self) -> dict[str, Backlog]:
        return await self._look(entries.backlog)

    async def load(self) -> Load:
        return await self._look(entries.load)

    async def probe(self) -> None:
        await self._write(entries.probe)

    async def release(self, sink: str, now: float, limit: int) -> int:
        return await self._write(partial(entries.release, sink=sink, now=now, limit=max(limit, 0)))

    async def retry(self, entry_ids: Collection[str], now: float, *, revision: tuple[str, str] | None = None) -> list[str]:
        return await self._stroke_by_stroke(entry_ids, partial(entries.retry, now=now, revision=revision))

    async def replay(self, entry_id: str, now: float, replay: Replay) -> bool:
        return await self._change(partial(entries.replay, entry_id=entry_id, now=now, replay=replay))

    async def drop(self, entry_ids: Collection[str]) -> list[str]:
        def drop(connection: Connection, entry_ids: list[str]) -> entries.Stroke:
            return entries.drop(connection, entry_ids, active=self._visitor and self._folder.lock.is_free())

        def committed(stroke: entries.Stroke, _: bool) -> None:
            self._threads.send(self._folder.blobs.remove, stroke.ids)

        return await self._stroke_by_stroke(entry_ids, drop, committed)

    async def _stroke_by_stroke(
        self,
        entry_ids: Collection[str],
        work: Callable[..., entries.Stroke],
        committed: Callable[[entries.Stroke, bool], None] | None = None,
    ) -> list[str]:
        remaining = list(entry_ids)
        done: list[str] = []
        while remaining:
            operation = Operation(partial(work, entry_ids=remaining))
            stroke: entries.Stroke = await self._started().submit(operation, committed=committed)
            done += stroke.ids
            remaining = remaining[stroke.looked_at :]
        return done

    async def clock_set(self, now: float, *, forward: float, longest: float) -> None:
        await self._write(partial(entries.clock_set, now=now, forward=forward, longest=longest))

    async def keep_revision(self, digest: str, text: str) -> None:
        await self._write(partial(entries.keep_revision, digest=digest, text=text))

    async def revision(self, digest: str) -> str | None:
        return await self._read(partial(entries.revision, digest=digest))

    async def open_tally(self, run: str, revision: str, now: float) -> None:
        await self._write(partial(tallies.begin, run=run, revision=revision, now=now))
        while await self._write(partial(tallies.forget_others, run=run, limit=CHUNK)):
            pass

    async def tallies(self, run: str) -> list[Tally]:
        return await self._read(partial(tallies.of_run, run=run))

    async def counted(self, run: str, revision: str, kind: str, limit: int) -> list[tuple[Entry, tuple[str, ...]]]:
        return await self._look(partial(tallies.counted, run=run, revision=revision, kind=kind, limit=max(limit, 0)))

    async def sweep(self, *, finished_before: float, content_before: float, keep_revisions: Collection[str]) -> int:
        swept = await self._sweep(partial(entries.sweep_entries, finished_before=finished_before, limit=CHUNK))
        await self._sweep(partial(entries.sweep_content, finished_before=content_before, limit=CHUNK))
        await self._write(partial(entries.sweep_revisions, keep=frozenset(keep_revisions)))
        return swept

    async def shed(self, octets: int) -> int:
        def committed(shed: entries.Shed, _: bool) -> None:
            self._threads.send(self._folder.blobs.remove, shed.blobs)

        gone = 0
        while gone < octets:
            stroke = partial(entries.shed_content, octets=octets - gone, limit=CHUNK)
            shed: entries.Shed = await self._owned().submit(Operation(stroke), committed=committed)
            gone += shed.octets
            if not shed.more:
                break
        return gone

    async def _sweep(self, stroke: Callable[[Connection], entries.Swept]) -> int:
        def committed(swept: entries.Swept, _: bool) -> None:
            self._threads.send(self._folder.blobs.remove, swept.blobs)

        count = 0
        while True:
            swept: entries.Swept = await self._owned().submit(Operation(stroke), committed=committed)
            count += swept.entries
            if not swept.more:
                return count

    def _started(self) -> GroupCommit:
        if self._commits is None:
            raise SpoolError("the spool is not open")
        return self._commits

    def _owned(self) -> GroupCommit:
        if self._visitor:
            raise SpoolError("the spool was opened by a visitor, who may only look, retry, replay and drop")
        return self._started()

    async def _read(self, work: Callable[[Connection], T]) -> T:
        result: T = await self._started().submit(Operation(work, writes=False))
        return result

    async def _write(self, work: Callable[[Connection], T]) -> T:
        result: T = await self._owned().submit(Operation(work))
        return result

    async def _change(self, work: Callable[[Connection], T]) -> T:
        """A write that a visitor may ask for too."""
        result: T = await self._started().submit(Operation(work))
        return result

    async def _look(self, work: Callable[[Connection], T]) -> T:
        """A read that may take long: on a connection of its own, so that commits go on."""
        self._started()

        def look() -> T:
            with self._folder.database.reading() as connection:
                return work(connection)

        return await self._threads.run(look)


async def _wanted(future: asyncio.Future[T], give_back: Callable[[T], None]) -> T:
    """The result; `give_back` gets it when the caller was cancelled just after it had come."""
    try:
        return await future
    except asyncio.CancelledError:
        if not future.cancelled() and future.exception() is None:
            give_back(future.result())
        raise
