"""What the spool asks of its tables: each function is one operation inside somebody else's transaction.

A KeyError is raised before anything is written, so that it spoils no transaction shared with others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Backlog, Entry, Load, Query, State, StepRecord, Update, tallies
from inbound.accept.spool.database import Connection
from inbound.accept.spool.replays import PART, Replay, is_possible, replayed
from inbound.accept.spool.rows import (
    ENTRY_COLUMNS,
    INSERTED,
    STEP_COLUMNS,
    UNREADABLE,
    Row,
    UnreadableError,
    entry_from,
    entry_shown,
    envelope_from,
    envelope_text,
    step_row,
    storable,
)
from inbound.accept.spool.schema import BUCKET

IN_ROW = "row"
IN_BLOB = "blob"
SMALL = 16_384  # octets of content that are read with their entry: a whole claim of them may be in memory at once
STROKE_SECONDS = 0.02  # work on many entries lets others have the thread after this long

# see schema: ids are indexed in buckets, and only buckets that hold something are looked into
BY_ID = f"""
    WITH RECURSIVE bucket (at) AS (
        SELECT max(number) / {BUCKET} FROM entry
        UNION ALL
        SELECT (SELECT max(number) FROM entry WHERE number < at * {BUCKET}) / {BUCKET} FROM bucket WHERE at IS NOT NULL
    )
    SELECT number, state, content FROM bucket CROSS JOIN entry INDEXED BY entry_id WHERE number / {BUCKET} = at AND id = ? LIMIT 1
"""  # noqa: S608  # a number of ours


class Place(NamedTuple):
    """Where the content of an entry is: `size` octets in a blob file or in a row, and these themselves unless they are too many to be told."""

    size: int
    in_blob: bool
    data: bytes | None = None


class Swept(NamedTuple):
    """One stroke of a sweep: how many entries it removed or emptied, the ids whose blob files are to go, and whether more remain."""

    entries: int
    blobs: list[str]
    more: bool


class Shed(NamedTuple):
    """One stroke of making room: how many octets of content it removed, the ids whose blob files are to go, and whether there is more."""

    octets: int
    blobs: list[str]
    more: bool


class Stroke(NamedTuple):
    """One stroke of work on the entries of a list: the ids it was done to, and how many of the list it has looked at."""

    ids: list[str]
    looked_at: int


class Claimed(NamedTuple):
    """An entry that is leased from now on, its number, and its content where that is small and has a row."""

    number: int
    entry: Entry
    data: bytes | None


class Found(NamedTuple):
    """Where an entry is: its number, its state, and what holds its content."""

    number: int
    state: str
    content: str


def insert(connection: Connection, entry: Entry, data: bytes | None) -> int:
    """A new entry, and its number; `data` is its content, None when that lies in a blob file."""
    cursor = connection.execute(f"INSERT INTO entry ({INSERTED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new_row(entry, data))  # noqa: S608  # names are ours
    number = cursor.lastrowid or 0
    connection.last_number = max(number, connection.last_number)
    if data is not None:
        connection.execute("INSERT INTO content (entry, data) VALUES (?, ?)", (number, data))
    return number


def new_row(entry: Entry, data: bytes | None) -> tuple[Any, ...]:
    """The values of INSERTED."""
    envelope = entry.envelope
    return (entry.id, entry.state.value, envelope.received_at, entry.due, entry.since, entry.size, IN_BLOB if data is None else IN_ROW,
            storable(entry.assessment), storable(envelope.revision), envelope_text(envelope))


def _find(connection: Connection, entry_id: str, number: int | None = None) -> Found | None:
    """The entry with this id; `number` is where it should be, if that is known."""
    row = None
    if number is not None:
        row = connection.execute("SELECT number, state, content FROM entry WHERE number = ? AND id = ?", (number, entry_id)).fetchone()
    row = row or connection.execute(BY_ID, (entry_id,)).fetchone()
    return Found(*row) if row else None


def change(connection: Connection, entry_id: str, update: Update, number: int | None) -> bool:
    """Apply an update; True when the entry's blob file is to go, if it has one. `number` is the entry's, if known. Raises KeyError.

    As few statements as can be: after each one this thread waits for the interpreter again.
    """
    columns = changed_columns(update)
    if number is None or not _set(connection, number, entry_id, columns):
        found = _find(connection, entry_id)
        if found is None:
            raise KeyError(entry_id)
        number = found.number
        _set(connection, number, entry_id, columns)
    if update.clear_steps:
        connection.execute("DELETE FROM step WHERE entry = ?", (number,))
    if update.steps:
        _append_steps(connection, number, update.steps)
    if update.judged is not None:
        tallies.count(connection, number, update.judged, update.finished or 0.0, again=update.state is State.DEAD)
    return update.drop_content and not connection.execute("DELETE FROM content WHERE entry = ?", (number,)).rowcount


def _set(connection: Connection, number: int, entry_id: str, columns: Mapping[str, Any]) -> bool:
    """Is there such an entry? Then it has these values now."""
    if not columns:
        return connection.execute("SELECT 1 FROM entry WHERE number = ? AND id = ?", (number, entry_id)).fetchone() is not None
    assignments = ", ".join(f"{name} = ?" for name in columns)
    statement = f"UPDATE entry SET {assignments} WHERE number = ? AND id = ?"  # noqa: S608  # names are ours
    return connection.execute(statement, (*columns.values(), number, entry_id)).rowcount == 1


def changed_columns(update: Update) -> dict[str, Any]:
    """The columns of an entry that an update sets, by name."""
    columns: dict[str, Any] = {
        name: storable(text) for name in ("error", "sink", "assessment", "disposition") if (text := getattr(update, name)) is not None
    }
    for name in ("due", "attempts", "finished"):
        if (value := getattr(update, name)) is not None:
            columns[name] = value
    if update.state is not None:
        columns["state"] = update.state.value
    if update.state is not None or update.due is not None:
        columns["ready"] = 0
    if update.envelope is not None:
        columns |= _envelope_columns(update.envelope)
    if update.drop_content:
        columns["content"] = ""
    return columns


def _envelope_columns(envelope: Envelope) -> dict[str, Any]:
    return {
        "envelope": envelope_text(envelope),
        "received": envelope.received_at,
        "revision": storable(envelope.revision),
    }


def _append_steps(connection: Connection, number: int, steps: Sequence[StepRecord]) -> None:
    for record in steps:
        connection.execute(
            f"INSERT INTO step (entry, position, {STEP_COLUMNS})"  # noqa: S608  # names are ours
            " SELECT ?, coalesce(max(position), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM step WHERE entry = ?",
            (number, *step_row(record), number),
        )


def claim(connection: Connection, now: float, limit: int) -> list[Claimed]:
    """Lease due entries, oldest received first. One that cannot be read becomes a dead letter instead."""
    connection.execute("UPDATE entry INDEXED BY entry_due SET ready = 1 WHERE state = 'deferred' AND ready = 0 AND due <= ?", (now,))
    rows = connection.execute(
        f"SELECT number, CASE WHEN size <= {SMALL} THEN (SELECT data FROM content WHERE entry = number) END, {ENTRY_COLUMNS}"  # noqa: S608  # names are ours
        " FROM entry INDEXED BY entry_ready WHERE ready = 1 AND due <= ? ORDER BY received, number LIMIT ?",
        (now, limit),
    ).fetchall()
    steps = _steps_of(connection, [row[0] for row in rows])
    numbers = json.dumps([row[0] for row in rows])
    connection.execute("UPDATE entry SET state = 'active', ready = 0 WHERE number IN (SELECT value FROM json_each(?))", (numbers,))
    claimed = []
    for number, data, id_, _deferred, *rest in rows:
        try:
            claimed.append(Claimed(number, entry_from((id_, State.ACTIVE, *rest), steps.get(number, ())), data))
        except UnreadableError:
            connection.execute("UPDATE entry SET state = 'dead', finished = ?, error = ? WHERE number = ?", (now, UNREADABLE, number))
    return claimed


def _steps_of(connection: Connection, numbers: Sequence[int]) -> dict[int, list[Row]]:
    steps: dict[int, list[Row]] = {}
    for number, *row in connection.execute(
        f"SELECT entry, {STEP_COLUMNS} FROM step WHERE entry IN (SELECT value FROM json_each(?)) ORDER BY entry, position",  # noqa: S608  # names are ours
        (json.dumps(numbers),),
    ):
        steps.setdefault(number, []).append(row)
    return steps


def place(connection: Connection, entry_id: str, number: int | None, most: int | None = None) -> Place:
    """Where the content is; of a row with more than `most` octets without them. Raises KeyError where it is not kept."""
    found = _find(connection, entry_id, number)
    if found is None or not found.content:
        raise KeyError(entry_id)
    (size,) = connection.execute("SELECT size FROM entry WHERE number = ?", (found.number,)).fetchone()
    if found.content == IN_BLOB or (most is not None and size > most):
        return Place(size, found.content == IN_BLOB)
    row = connection.execute("SELECT data FROM content WHERE entry = ?", (found.number,)).fetchone()
    return Place(size, in_blob=False, data=row[0] if row else b"")


def get(connection: Connection, entry_id: str, number: int | None) -> Entry | None:
    """One entry with its steps."""
    found = _find(connection, entry_id, number)
    if found is None:
        return None
    row = connection.execute(f"SELECT {ENTRY_COLUMNS} FROM entry WHERE number = ?", (found.number,)).fetchone()  # noqa: S608  # names are ours
    return entry_shown(row, _steps_of(connection, [found.number]).get(found.number, ()))


def find(connection: Connection, query: Query) -> list[Entry]:
    """The entries that match, oldest received first. Needs a connection that knows casefold()."""
    condition, parameters = _condition(query)
    rows: list[Row] = []
    for state in set(query.states) or State:  # one index walk a state, each already in order
        rows += connection.execute(
            f"SELECT number, {ENTRY_COLUMNS} FROM entry WHERE state = ?{condition} ORDER BY received, number LIMIT ?",  # noqa: S608  # names are ours
            (state.value, *parameters, max(query.limit, 0)),
        )
    rows.sort(key=lambda row: (row[-2], row[0]))
    return [entry_shown(row[1:]) for row in rows[: max(query.limit, 0)]]


def _condition(query: Query) -> tuple[str, list[Any]]:
    restrictions = (
        (" AND received < ?", query.received_before),
        (" AND received > ?", query.received_after),
        (" AND sink = ?", query.sink or None),
        (" AND error <> '' AND instr(casefold(error), ?) > 0", query.error.casefold() or None),
    )
    given = [(text, value) for text, value in restrictions if value is not None]
    return "".join(text for text, _ in given), [value for _, value in given]


def counts(connection: Connection) -> dict[State, int]:
    """How many entries are in each state."""
    found = dict(connection.execute("SELECT state, count(*) FROM entry GROUP BY state").fetchall())
    return {state: found.get(state.value, 0) for state in State}


def waiting(connection: Connection) -> dict[str, int]:
    """How many DEFERRED entries wait for each sink."""
    return dict(
        connection.execute("SELECT sink, count(*) FROM entry INDEXED BY entry_sink WHERE state = 'deferred' AND sink <> '' GROUP BY sink").fetchall()
    )


def backlog(connection: Connection) -> dict[str, Backlog]:
    """What waits for each sink."""
    rows = connection.execute(
        "SELECT sink, count(*), min(received) FROM entry INDEXED BY entry_sink WHERE state = 'deferred' AND sink <> '' GROUP BY sink"
    )
    return {sink: Backlog(count, oldest) for sink, count, oldest in rows}


def load(connection: Connection) -> Load:
    """How full the spool is: pages in use, and blob files."""
    found = [since for state in (State.DEFERRED, State.ACTIVE) if (since := _earliest(connection, state)) is not None]
    (pages, free, size), (blobs,) = (
        [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")],
        connection.execute("SELECT coalesce(sum(size), 0) FROM entry INDEXED BY entry_blob WHERE content = 'blob'").fetchone(),
    )
    return Load(min(found, default=None), (pages - free) * size + blobs, free * size)


def _earliest(connection: Connection, state: State) -> float | None:
    """The earliest `since` of what waits in this state. It never lies before the receipt, so the walk in that order ends early."""
    earliest: float | None = None
    for received, since in connection.execute(
        "SELECT received, since FROM entry INDEXED BY entry_state WHERE state = ? AND (sink <> '' OR attempts = 0) ORDER BY received", (state.value,)
    ):
        if earliest is not None and received >= earliest:
            break
        earliest = since if earliest is None else min(earliest, since)
    return earliest


def probe(connection: Connection) -> None:
    """Write a row and take it out again: the page is written all the same."""
    connection.execute("INSERT OR REPLACE INTO revision (digest, text) VALUES ('', '')")
    connection.execute("DELETE FROM revision WHERE digest = ''")


def next_due(connection: Connection) -> float | None:
    """When the next DEFERRED entry is due."""
    found = [connection.execute("SELECT min(due) FROM entry WHERE state = 'deferred' AND ready = ?", (ready,)).fetchone()[0] for ready in (0, 1)]
    return min((due for due in found if due is not None), default=None)


def release(connection: Connection, sink: str, now: float, limit: int) -> int:
    """Make entries that wait for `sink` due, those tried least first, and of these the oldest; how many."""
    rows = connection.execute(
        "SELECT number FROM entry INDEXED BY entry_sink"
        " WHERE state = 'deferred' AND sink <> '' AND sink = ? AND ready = 0 AND due > ? ORDER BY attempts, received, number LIMIT ?",
        (sink, now, limit),
    ).fetchall()
    connection.executemany("UPDATE entry SET due = ?, ready = 1 WHERE number = ?", [(now, number) for (number,) in rows])
    return len(rows)


def clock_set(connection: Connection, now: float, forward: float, longest: float) -> None:
    """See `Spool.clock_set`."""
    if forward > 0:
        connection.execute("UPDATE entry SET since = since + ? WHERE state IN ('active', 'deferred') AND since <= ?", (forward, now - forward))
    connection.execute("UPDATE entry INDEXED BY entry_due SET due = ? WHERE state = 'deferred' AND ready = 0 AND due > ?", (now, now + longest))
    connection.execute("UPDATE entry INDEXED BY entry_ready SET due = ? WHERE ready = 1 AND due > ?", (now, now))


def retry(connection: Connection, entry_ids: Sequence[str], now: float, revision: tuple[str, str] | None = None) -> Stroke:
    """Make DEAD and DEFERRED entries due at `now`, to be judged anew by `revision`, a digest and its text, if it is given."""

    def make_due(entry_id: str) -> bool:
        found = _find(connection, entry_id)
        if found is None or found.state not in (State.DEAD.value, State.DEFERRED.value):
            return False
        if found.state == State.DEAD.value:
            connection.execute("UPDATE entry SET since = ?, attempts = 0, finished = 0.0 WHERE number = ?", (now, found.number))
        connection.execute("UPDATE entry SET state = 'deferred', ready = 0, due = ? WHERE number = ?", (now, found.number))
        if revision is not None:
            _judge_anew(connection, found.number, revision[0])
            keep_revision(connection, *revision)
        return True

    return _stroke(entry_ids, make_due)


def _judge_anew(connection: Connection, number: int, revision: str) -> None:
    (text,) = connection.execute("SELECT envelope FROM entry WHERE number = ?", (number,)).fetchone()
    try:
        envelope = replace(envelope_from(text), revision=revision)
    except UnreadableError:
        return  # the claim that comes next makes it a dead letter again
    connection.execute("UPDATE entry SET envelope = ?, revision = ? WHERE number = ?", (envelope_text(envelope), storable(revision), number))
    connection.execute(
        "DELETE FROM step WHERE entry = ? AND position > (SELECT coalesce(max(position), -1) FROM step WHERE entry = ? AND part = ?)",
        (number, number, PART))


def replay(connection: Connection, entry_id: str, now: float, replay: Replay) -> bool:
    """See `Spool.replay`."""
    found = _find(connection, entry_id)
    if found is None:
        return False
    row = connection.execute(f"SELECT {ENTRY_COLUMNS} FROM entry WHERE number = ?", (found.number,)).fetchone()  # noqa: S608  # names are ours
    try:
        entry = entry_from(row, _steps_of(connection, [found.number]).get(found.number, ()))
    except UnreadableError:
        return False
    if not is_possible(entry, replay):
        return False
    if not found.content:
        connection.execute("INSERT INTO content (entry, data) VALUES (?, ?)", (found.number, replay.content))
    again = replayed(entry, replay, now)
    columns = {
        "state": again.state.value, "ready": 0, "due": again.due, "since": again.since, "attempts": 0, "error": "", "sink": "", "disposition": "",
        "finished": 0.0, "content": found.content or IN_ROW, **_envelope_columns(again.envelope),
    }
    _set(connection, found.number, entry_id, columns)
    _append_steps(connection, found.number, again.steps[-1:])
    keep_revision(connection, replay.revision, replay.text)
    return True


def drop(connection: Connection, entry_ids: Sequence[str], *, active: bool) -> Stroke:
    """Remove entries, ACTIVE ones only if `active`. Blob files are the caller's to remove."""

    def remove(entry_id: str) -> bool:
        found = _find(connection, entry_id)
        if found is None or (found.state == State.ACTIVE.value and not active):
            return False
        _remove(connection, found.number)
        return True

    return _stroke(entry_ids, remove)


def _stroke(entry_ids: Sequence[str], work: Callable[[str], bool]) -> Stroke:
    deadline = time.monotonic() + STROKE_SECONDS
    done: list[str] = []
    for looked_at, entry_id in enumerate(entry_ids, 1):
        if work(entry_id):
            done.append(entry_id)
        if time.monotonic() >= deadline:
            return Stroke(done, looked_at)
    return Stroke(done, len(entry_ids))


def _remove(connection: Connection, number: int) -> None:
    connection.execute("DELETE FROM step WHERE entry = ?", (number,))
    connection.execute("DELETE FROM content WHERE entry = ?", (number,))
    connection.execute("DELETE FROM counted WHERE entry = ?", (number,))
    connection.execute("DELETE FROM entry WHERE number = ?", (number,))


def give_back_all(connection: Connection, now: float) -> int:
    """End every lease: DEFERRED and due at `now`; how many there were."""
    return connection.execute("UPDATE entry SET state = 'deferred', ready = 0, due = ? WHERE state = 'active'", (now,)).rowcount


def give_back(connection: Connection, now: float, numbers: Iterable[int]) -> None:
    """End the leases of these entries."""
    connection.executemany(
        "UPDATE entry SET state = 'deferred', ready = 0, due = ? WHERE number = ? AND state = 'active'", [(now, number) for number in numbers]
    )


def without_blob(connection: Connection, names: Iterable[str]) -> list[str]:
    """Those of the names that are not the id of an entry whose content lies in a blob file."""
    query = "SELECT 1 FROM entry INDEXED BY entry_blob WHERE content = 'blob' AND id = ?"
    return [name for name in names if not connection.execute(query, (name,)).fetchone()]


def keep_revision(connection: Connection, digest: str, text: str) -> None:
    """Store a revision's text, unless it is there."""
    connection.execute("INSERT OR IGNORE INTO revision (digest, text) VALUES (?, ?)", (storable(digest), storable(text)))


def revision(connection: Connection, digest: str) -> str | None:
    """A revision's text."""
    row = connection.execute("SELECT text FROM revision WHERE digest = ?", (storable(digest),)).fetchone()
    return row[0] if row else None


def sweep_entries(connection: Connection, finished_before: float, limit: int) -> Swept:
    """Remove some DONE entries finished before that time."""
    rows = connection.execute(
        "SELECT number, id, content FROM entry INDEXED BY entry_finished WHERE state = 'done' AND finished < ? LIMIT ?",
        (finished_before, limit),
    )
    return _swept(rows.fetchall(), lambda number: _remove(connection, number), limit)


def sweep_content(connection: Connection, finished_before: float, limit: int) -> Swept:
    """Remove the content of some DONE entries finished before that time."""

    rows = connection.execute(
        "SELECT number, id, content FROM entry INDEXED BY entry_finished_content WHERE state = 'done' AND content <> '' AND finished < ? LIMIT ?",
        (finished_before, limit),
    )
    return _swept(rows.fetchall(), lambda number: _empty(connection, number), limit)


def shed_content(connection: Connection, octets: int, limit: int) -> Shed:
    """Remove the content of some DONE entries, of those finished first, until `octets` of it are gone."""
    rows = connection.execute(
        "SELECT number, id, content, size FROM entry INDEXED BY entry_finished_content WHERE state = 'done' AND content <> ''"
        " ORDER BY finished, number LIMIT ?", (limit,),
    ).fetchall()
    chosen, shed = [], 0
    for number, id_, content, size in rows:
        if shed >= octets:
            break
        chosen.append((number, id_, content))
        shed += size
    swept = _swept(chosen, lambda number: _empty(connection, number), limit)
    shed = sum(size for *_, size in rows[: swept.entries])
    return Shed(shed, swept.blobs, more=swept.more and shed < octets)


def _empty(connection: Connection, number: int) -> None:
    connection.execute("DELETE FROM content WHERE entry = ?", (number,))
    connection.execute("UPDATE entry SET content = '' WHERE number = ?", (number,))


def _swept(rows: Sequence[tuple[int, str, str]], remove: Callable[[int], None], limit: int) -> Swept:
    deadline = time.monotonic() + STROKE_SECONDS
    blobs: list[str] = []
    count = 0
    for number, id_, content in rows:
        remove(number)
        count += 1
        if content == IN_BLOB:
            blobs.append(id_)
        if time.monotonic() >= deadline:
            break
    return Swept(count, blobs, more=count < len(rows) or count == limit)


def sweep_revisions(connection: Connection, keep: Collection[str]) -> None:
    """Remove the revisions that no entry names and `keep` does not hold."""
    connection.execute(
        "DELETE FROM revision WHERE digest NOT IN (SELECT value FROM json_each(?))"
        " AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.revision = revision.digest)",
        (json.dumps([storable(digest) for digest in keep]),),
    )
