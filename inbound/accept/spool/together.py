"""Receptions and changes that share a transaction, each kind in a few statements: what `entries` does for one, here for many.

Around each statement the database's thread gives the interpreter away, and has to wait for the event loop to have it back.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from inbound.accept.spool import Entry, Update
from inbound.accept.spool.database import Connection
from inbound.accept.spool.entries import INSERTED, changed_columns, new_row
from inbound.accept.spool.rows import STEP_COLUMNS, step_row

ROWS = 32  # of one statement at most, else 16, 8, 4, 2 or 1: few enough statements for all to be kept prepared

_INSERT = f"INSERT INTO entry (number, {INSERTED}) VALUES %s"  # noqa: S608  # names are ours
_INSERT_CONTENT = "INSERT INTO content (entry, data) VALUES %s"
_DELETE_CONTENT = "DELETE FROM content WHERE entry IN (%s)"
_APPEND = f"""
    INSERT INTO step (entry, position, {STEP_COLUMNS})
    SELECT column1, column2 + (SELECT coalesce(max(position), 0) FROM step WHERE entry = column1),
           {", ".join(f"column{place}" for place, _ in enumerate(STEP_COLUMNS.split(","), 3))} FROM (VALUES %s)
"""  # noqa: S608  # names are ours
_SET = "UPDATE entry SET %s FROM (VALUES %%s) AS new WHERE entry.number = new.column1 AND entry.id = new.column2"

_Rows = Sequence[tuple[Any, ...]]


class Change(NamedTuple):
    """An update of an entry whose number is known."""

    entry_id: str
    update: Update
    number: int


def insert(connection: Connection, given: Sequence[tuple[Entry, bytes | None]]) -> list[int]:
    """`entries.insert` of each."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM entry").fetchone()
    numbered = list(enumerate(given, last + 1))
    _execute(connection, _INSERT, [(number, *new_row(*each)) for number, each in numbered])
    _execute(connection, _INSERT_CONTENT, [(number, data) for number, (_, data) in numbered if data is not None])
    return [number for number, _ in numbered]


def change(connection: Connection, given: Sequence[Change]) -> list[bool] | None:
    """`entries.change` of each; None where that has to take a look at each: one is gone, changed twice, counted in a tally, or loses its steps."""
    if len({each.number for each in given}) < len(given) or any(each.update.clear_steps or each.update.judged for each in given):
        return None
    alike: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for each in given:
        columns = changed_columns(each.update)
        alike.setdefault(tuple(columns), []).append((each.number, each.entry_id, *columns.values()))
    for names, rows in alike.items():
        if not names or _execute(connection, _setting(names), rows) < len(rows):
            return None
    _append_steps(connection, given)
    dropped = [(each.number,) for each in given if each.update.drop_content]
    some_had_no_row = _execute(connection, _DELETE_CONTENT, dropped) < len(dropped)
    return [each.update.drop_content and some_had_no_row for each in given]


def _append_steps(connection: Connection, given: Sequence[Change]) -> None:
    count: Counter[int] = Counter()
    rows = []
    for each in given:
        for record in each.update.steps:
            count[each.number] += 1
            rows.append((each.number, count[each.number], *step_row(record)))
    _execute(connection, _APPEND, rows)


@functools.lru_cache(maxsize=64)
def _setting(names: tuple[str, ...]) -> str:
    return _SET % ", ".join(f"{name} = new.column{place}" for place, name in enumerate(names, 3))


def _execute(connection: Connection, statement: str, rows: _Rows) -> int:
    """Carry out a statement for rows of values, in parts; how many rows of the table that concerned."""
    concerned, start = 0, 0
    while start < len(rows):
        size = min(ROWS, 1 << (len(rows) - start).bit_length() - 1)
        part = rows[start : start + size]
        values = [value for row in part for value in row]
        concerned += connection.execute(_for(statement, size, len(part[0])), values).rowcount
        start += size
    return concerned


@functools.lru_cache(maxsize=256)
def _for(statement: str, rows: int, values: int) -> str:
    row = f"({', '.join('?' * values)})" if values > 1 else "?"
    return statement % ", ".join([row] * rows)
