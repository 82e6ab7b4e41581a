"""The view that rows of every kind can be inserted into by one statement; its triggers put them where they belong.

It is temporary, each connection's own: nothing of it is in the file. A row is its kind, the number of its entry, and the values v1, v2, …
"""

from __future__ import annotations

from inbound.accept.spool.rows import INSERTED, STEP_COLUMNS

IDLE, ENTRY, STEP, CHANGE, NOTE = range(5)
"""Kinds of rows. IDLE: nothing is done. ENTRY: v1 to v10 are INSERTED, v11 the content, NULL when it has no row. STEP: v1 to v12 are STEP_COLUMNS.
CHANGE: v1 is the id, v2 to v10 are CHANGED, where NULL changes nothing; content that becomes empty is deleted. NOTE: v1 is the id, v2 the
assessment or NULL. The last two abort the statement when there is no such entry."""

VALUES = 13
CHANGED = ("state", "due", "attempts", "finished", "error", "sink", "disposition", "assessment", "content")


def _new(values: int) -> str:
    return ", ".join(f"NEW.v{place}" for place in range(1, values + 1))


def _assignments() -> str:
    return ", ".join(f"{name} = coalesce(NEW.v{place}, {name})" for place, name in enumerate(CHANGED, 2))


def _trigger(kind: int, body: str) -> str:
    return f"CREATE TEMP TRIGGER together_{kind} INSTEAD OF INSERT ON together WHEN NEW.kind = {kind} BEGIN {body} END"


_EXISTS = "SELECT RAISE(ABORT, 'no such entry') WHERE NOT EXISTS (SELECT 1 FROM entry WHERE number = NEW.number AND id = NEW.v1);"

STATEMENTS = (
    f"CREATE TEMP VIEW together AS SELECT 0 AS kind, 0 AS number, {', '.join(f'NULL AS v{place}' for place in range(1, VALUES + 1))}",
    _trigger(ENTRY, f"INSERT INTO entry (number, {INSERTED}) VALUES (NEW.number, {_new(10)});"  # noqa: S608  # names are ours
                    " INSERT INTO content (entry, data) SELECT NEW.number, NEW.v11 WHERE NEW.v11 IS NOT NULL;"),
    _trigger(STEP, f"INSERT INTO step (entry, position, {STEP_COLUMNS})"  # noqa: S608  # names are ours
                   f" SELECT NEW.number, coalesce(max(position), 0) + 1, {_new(12)} FROM step WHERE entry = NEW.number;"),
    _trigger(CHANGE, f"{_EXISTS} UPDATE entry SET ready = 0, {_assignments()} WHERE number = NEW.number;"  # noqa: S608  # names are ours
                     " DELETE FROM content WHERE entry = NEW.number AND NEW.v10 = '';"),
    _trigger(NOTE, f"{_EXISTS} UPDATE entry SET assessment = NEW.v2 WHERE number = NEW.number AND NEW.v2 IS NOT NULL;"),  # noqa: S608  # names are ours
)
