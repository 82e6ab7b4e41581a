"""What a shadow counts, in the spool's tables: how many messages a candidate would send another way, and which. Knows nothing of rules.

As in `entries`, each function is one operation inside somebody else's transaction; what is counted is so with the message's own last update.
"""

from __future__ import annotations

import json

from inbound.accept.spool import KINDS, OTHERS, Entry, Judged, Tally
from inbound.accept.spool.database import Connection
from inbound.accept.spool.rows import ENTRY_COLUMNS, entry_shown, storable


def begin(connection: Connection, run: str, revision: str, now: float) -> None:
    """A tally of what has no difference, empty unless it is there."""
    _add(connection, Judged(run, storable(revision)), 0, now)


def count(connection: Connection, number: int, judged: Judged, now: float, *, again: bool) -> None:
    """Count an entry, and no more where it was counted before under the same revision. `again`: it may be judged once more."""
    run, revision, kind = judged.run, storable(judged.revision), judged.kind
    before = connection.execute("SELECT run, revision, kind FROM counted WHERE entry = ?", (number,)).fetchone()
    if before is not None:
        connection.execute("DELETE FROM counted WHERE entry = ?", (number,))
        if before[:2] == (run, revision):
            connection.execute("UPDATE tally SET messages = messages - 1 WHERE run = ? AND revision = ? AND kind = ?", before)
    kind = _add(connection, judged, 1, now)
    if kind or again:
        connection.execute("INSERT INTO counted (entry, run, revision, kind, refused) VALUES (?, ?, ?, ?, ?)",
                           (number, run, revision, kind, json.dumps(judged.refused)))


def _add(connection: Connection, judged: Judged, messages: int, now: float) -> str:
    """One message more, or none; the kind it is counted as."""
    key = judged.run, storable(judged.revision), judged.kind
    raised = "UPDATE tally SET messages = messages + ?, last = ? WHERE run = ? AND revision = ? AND kind = ?"
    if connection.execute(raised, (messages, now, *key)).rowcount:
        return judged.kind
    kind, told = judged.kind, judged.told
    if kind and connection.execute("SELECT count(*) FROM tally WHERE run = ? AND revision = ?", key[:2]).fetchone()[0] >= KINDS:
        kind, told = OTHERS, ""
    connection.execute(
        "INSERT INTO tally (run, revision, kind, told, messages, first, last) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run, revision, kind) DO UPDATE SET messages = messages + excluded.messages, last = excluded.last",
        (*key[:2], kind, storable(told), messages, now, now),
    )
    return kind


def of_run(connection: Connection, run: str) -> list[Tally]:
    """What was counted in a run."""
    rows = connection.execute("SELECT revision, kind, told, messages, first, last FROM tally WHERE run = ? ORDER BY revision, kind", (run,))
    return [Tally(*row) for row in rows]


def counted(connection: Connection, run: str, revision: str, kind: str, limit: int) -> list[tuple[Entry, tuple[str, ...]]]:
    """The entries of one kind, newest first."""
    rows = connection.execute(
        f"SELECT refused, {ENTRY_COLUMNS} FROM counted INDEXED BY counted_kind"  # noqa: S608  # names are ours
        " JOIN entry ON entry.number = counted.entry"
        " WHERE run = ? AND counted.revision = ? AND kind = ? ORDER BY counted.entry DESC LIMIT ?",
        (run, storable(revision), kind, limit),
    )
    return [(entry_shown(row), tuple(json.loads(refused))) for refused, *row in rows]


def forget_others(connection: Connection, run: str, limit: int) -> bool:
    """Remove some of what was counted in other runs; True when more remains."""
    connection.execute("DELETE FROM tally WHERE run <> ?", (run,))
    gone = connection.execute("DELETE FROM counted WHERE entry IN (SELECT entry FROM counted WHERE run <> ? LIMIT ?)", (run, limit)).rowcount
    return gone == limit
