"""Receptions and changes that share a transaction, in one statement: what `entries` does for each, here for all at once.

Around each statement the database's thread gives the interpreter away, and has to wait for the event loop to have it back: that was
most of the time of a commit. So there is one, and it is the whole transaction.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from inbound.accept.spool import Entry, Update
from inbound.accept.spool.database import Connection, is_violation
from inbound.accept.spool.entries import changed_columns, new_row
from inbound.accept.spool.rows import step_row
from inbound.accept.spool.view import CHANGE, CHANGED, ENTRY, IDLE, NOTE, STEP, VALUES

ROWS = 512  # of one statement at most
OCTETS = 1 << 20  # of content in one statement at most: the prepared statement of each size keeps those it was given last
SIZES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, ROWS)  # rows of a statement; idle ones fill it up

_PLACES = f"({', '.join('?' * (VALUES + 2))})"

_Row = tuple[Any, ...]
_IDLE_ROW: _Row = (IDLE, 0, *[None] * VALUES)


class Reception(NamedTuple):
    """A new entry; `data` is its content, None when that lies in a blob file."""

    entry: Entry
    data: bytes | None


class Change(NamedTuple):
    """An update of an entry whose number is known."""

    entry_id: str
    update: Update
    number: int


def run(connection: Connection, given: Sequence[Reception | Change]) -> list[Any] | None:
    """`entries.insert` or `entries.change` of each, in order, in one statement, which is a transaction of its own if none is open.

    None, and nothing is done, where that needs more than a statement: there is too much, one is gone, or one changes what is seldom changed.
    Raises sqlite3.Error.
    """
    if not _fits(given):
        return None
    rows: list[_Row] = []
    number = connection.last_number
    for each in given:
        if isinstance(each, Reception):
            number += 1
            rows.append((ENTRY, number, *new_row(each.entry, each.data), each.data, None, None))
            continue
        changed = _rows_of(each)
        if changed is None:
            return None
        rows += changed
    before, size = connection.total_changes, _size(len(rows))
    try:
        connection.execute(_statement(size), _values(rows, size))
    except Exception as error:
        if is_violation(error):
            return None
        raise
    some_had_no_row = connection.total_changes - before < sum(map(_changes, rows))
    numbers = itertools.count(connection.last_number + 1)
    connection.last_number = number
    return [next(numbers) if isinstance(each, Reception) else each.update.drop_content and some_had_no_row for each in given]


def _fits(given: Sequence[Reception | Change]) -> bool:
    rows = octets = 0
    for each in given:
        if isinstance(each, Reception):
            rows, octets = rows + 1, octets + len(each.data or b"")
        else:
            rows += 1 + len(each.update.steps)
    return rows <= ROWS and octets <= OCTETS


def takes(update: Update) -> bool:
    """May this be done together with others? Not what is counted in a tally, or loses its steps."""
    return not update.clear_steps and update.judged is None


def _rows_of(change: Change) -> list[_Row] | None:
    update = change.update
    columns = changed_columns(update)
    values = [columns.get(name) for name in CHANGED]
    if "state" in columns and "envelope" not in columns and all(value == value for value in values):  # noqa: PLR0124  # SQLite takes NaN for NULL
        row = (CHANGE, change.number, change.entry_id, *values, None, None, None)
    elif columns.keys() <= {"assessment"}:
        row = (NOTE, change.number, change.entry_id, columns.get("assessment"), *[None] * (VALUES - 2))
    else:
        return None
    return [row, *((STEP, change.number, *step_row(record), None) for record in update.steps)]


def _changes(row: _Row) -> int:
    """How many rows of tables a row writes, or deletes when it drops content that has one."""
    kind = row[0]
    if kind == ENTRY:
        return 1 if row[12] is None else 2
    if kind == CHANGE:
        return 2 if row[11] == "" else 1
    return 0 if kind == NOTE and row[3] is None else 1


def _size(rows: int) -> int:
    return SIZES[bisect.bisect_left(SIZES, rows)]


@functools.cache
def _statement(rows: int) -> str:
    return f"INSERT INTO together VALUES {', '.join([_PLACES] * rows)}"  # noqa: S608  # nothing but places


def _values(rows: list[_Row], size: int) -> list[Any]:
    values = list(itertools.chain.from_iterable(rows))
    values += _IDLE_ROW * (size - len(rows))
    return values
