"""What shares a statement has the effect, row by row, of each by itself: a batch is run on two files, one of which takes no statement for several."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from letters import envelope, step

from inbound.accept.spool import Entry, Judged, State, Update, entries, together
from inbound.accept.spool.database import Connection, Database
from inbound.accept.spool.sqlite import BLOB_THRESHOLD
from inbound.accept.spool.transactions import Operation, Transactions

NAMES = [f"m{n}" for n in range(6)]
NOWHERE = 1_000_000  # no entry has this number


@dataclass(frozen=True)
class Put:
    """`data` None: in a blob file."""

    name: str
    data: bytes | None
    received: float = 1.0
    held: bool = True


@dataclass(frozen=True)
class Change:
    """`lease` is the name of the entry whose number is taken for this one's."""

    name: str
    update: Update
    lease: str


@dataclass(frozen=True)
class Drop:
    name: str


@dataclass(frozen=True)
class Look:
    """Marks what is due."""


Action = Put | Change | Drop | Look

texts = st.sampled_from(["", "a", "1", "1e3", "\udc80", "nul\0nul", "straße"])
times = st.sampled_from([0.0, 2, 3.5, -1.0, float("inf")]) | st.sampled_from([7.25, float("nan")])
updates = st.builds(
    Update,
    steps=st.lists(st.builds(step, texts, started=times, error=texts), max_size=3),
    state=st.none() | st.sampled_from(State),
    due=st.none() | times,
    attempts=st.sampled_from([None, None, 0, 3, 2.5, 10**30]),
    error=st.none() | texts,
    sink=st.none() | texts,
    assessment=st.none() | texts,
    disposition=st.none() | texts,
    finished=st.none() | times,
    envelope=st.sampled_from([None, None, None, envelope("m0", received=5.0, revision="r5")]),
    drop_content=st.booleans(),
    clear_steps=st.sampled_from([False, False, False, True]),
    judged=st.sampled_from([None, None, None, Judged("run", "r", "k", "t")]),
)
usual = st.builds(
    lambda update, at, drop: Update(update.steps, State.DONE, attempts=1, error=update.error, finished=at, drop_content=drop),
    updates, st.sampled_from([1.5, 2.5]), st.booleans(),
)
names = st.sampled_from(NAMES)
leases = st.sampled_from([""] * 6 + [*NAMES[:2], "?"])
changes = st.builds(lambda name, update, lease: Change(name, update, lease or name), names, usual | updates, leases)
puts = st.builds(Put, names, st.sampled_from([None, b"", b"some"]), st.sampled_from([1.0, 4.0, 9.0, float("nan")]), st.booleans())
batches = st.lists(puts | changes | changes | changes | changes | st.builds(Drop, names) | st.just(Look()), min_size=1, max_size=12)


class File:
    """A spool's file, and what is known of its leases."""

    def __init__(self, path: Path, run: Any) -> None:
        database = Database(path)
        database.create()
        self.connection = database.open(migrate=True)
        self.transactions = Transactions(self._never)
        self.transactions.begin_with(self.connection)
        self.numbers: dict[str, int] = {}
        self._run = run

    def _never(self) -> Connection:
        raise AssertionError("nothing here leaves a doubt")

    def do(self, actions: Sequence[Action]) -> list[Any]:
        """What came of each: the type of an exception, True for a number."""
        outcomes = self.transactions.run([self._operation(action) for action in actions])
        for action, outcome in zip(actions, outcomes, strict=True):
            if isinstance(action, Put) and isinstance(outcome, int):
                self.numbers[action.name] = outcome
        return [type(outcome) if isinstance(outcome, Exception) else True if isinstance(action, Put) else outcome
                for action, outcome in zip(actions, outcomes, strict=True)]

    def _operation(self, action: Action) -> Operation:
        if isinstance(action, Look):
            return Operation(partial(entries.claim, now=10.0, limit=0))
        if isinstance(action, Drop):
            return Operation(partial(entries.drop, entry_ids=[action.name], active=True))
        if isinstance(action, Put):
            state = State.ACTIVE if action.held else State.DEFERRED
            message, size = envelope(action.name, received=action.received), len(action.data or b"")
            entry = Entry(action.name, message, size, state, due=3.0, since=action.received)
            return Operation(lambda connection: entries.insert(connection, entry, action.data), together=self._run,
                             given=together.Reception(entry, action.data))
        number = self.numbers.get(action.lease, NOWHERE)
        return Operation(partial(entries.change, entry_id=action.name, update=action.update, number=number),
                         together=self._run if together.takes(action.update) else None, given=together.Change(action.name, action.update, number))

    def rows(self) -> list[Any]:
        """All there is; an entry's number is its rank."""
        rank = "(SELECT count(*) FROM entry AS e WHERE e.number <= {0}.{1})"
        tables = {"entry": "number", "content": "entry", "step": "entry", "counted": "entry"}
        found: list[Any] = []
        for table, number in tables.items():
            columns = [row[1] for row in self.connection.execute(f"PRAGMA table_info({table})")]
            shown = ", ".join(rank.format(table, number) if name == number else f"{name}, typeof({name})" for name in columns)
            order = f"{number}, position" if table == "step" else number
            found.append(self.connection.execute(f"SELECT {shown} FROM {table} ORDER BY {order}").fetchall())
        (last,) = self.connection.execute("SELECT coalesce(max(number), 0) FROM entry").fetchone()
        assert last <= self.connection.last_number
        assert not self.connection.in_transaction
        return [*found, self.connection.execute("SELECT run, revision, kind, messages FROM tally ORDER BY run, revision, kind").fetchall()]


class Twins:
    def __init__(self, folder: Path) -> None:
        self.together = File(folder / "together", together.run)
        self.single = File(folder / "single", lambda *_: None)

    def do(self, actions: Sequence[Action]) -> list[Any]:
        """What came of each, the same for both; one blob file that is over may have others looked for that never were."""
        found, expected = self.together.do(actions), self.single.do(actions)
        assert self.together.rows() == self.single.rows()
        for action, outcome, alone in zip(actions, found, expected, strict=True):
            if alone is False and outcome is True:
                assert isinstance(action, Change)
                assert action.update.drop_content
            else:
                assert outcome == alone
        return found

    def close(self) -> None:
        for file in (self.together, self.single):
            file.transactions.close()


@settings(max_examples=100)
@given(st.lists(batches, min_size=1, max_size=4))
def test_what_shares_a_statement_has_the_effect_of_each_by_itself(given: list[list[Action]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="together"))
    twins = Twins(folder)
    try:
        twins.do([*(Put(name, None if n % 2 else b"content", held=n > 1) for n, name in enumerate(NAMES[:4])), Look()])
        for batch in given:
            twins.do(batch)
    finally:
        twins.close()
        shutil.rmtree(folder)


def test_what_prepared_statements_keep_of_contents_is_no_more_than_one_spool_may_hold() -> None:
    """Python's sqlite3 clears no bindings: the statement of each size holds the contents it was given last until it is used again."""
    kept = sum(min(together.OCTETS, size * BLOB_THRESHOLD) for size in together.SIZES)
    assert kept <= 16 << 20
