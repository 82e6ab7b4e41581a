"""Operations carried out in shared transactions: what a failure of one, of a commit or of the disk means for the others.

After a failed sync the kernel may have dropped the data and calls the next sync a success (fsyncgate), so a commit is never repeated:
the connection is given up, and the next one begins by moving the whole log into the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from inbound.accept.spool import SpoolError
from inbound.accept.spool.database import Connection, is_doubtful, is_of_database, is_refusal, is_shared, trouble

Work = Callable[[Connection], Any]
Together = Callable[[Connection, Sequence[Any]], Sequence[Any] | None]
"""Does in one statement what several operations do, and gives their results in order; None: that cannot be, and nothing has been done."""


class Operation:
    """Work for a transaction. It may run more than once, and raises KeyError only before it wrote anything.

    `undo`, given the result (None when the work never ended), takes out of the file again what a transaction may have left there
    although it was reported as failed. Of operations that stand together, those with the same `together` are done at once: it is told the
    `given` of each. Where they are all that is to be done, its statement is the transaction.
    """

    __slots__ = ("given", "result", "together", "undo", "work", "writes")

    def __init__(self, work: Work, *, writes: bool = True, undo: Callable[[Connection, Any], object] | None = None,
                 together: Together | None = None, given: Any = None) -> None:
        self.work = work
        self.writes = writes
        self.undo = undo
        self.together = together
        self.given = given
        self.result: Any = None

    def run(self, connection: Connection) -> Any:
        """The result, or the KeyError that is one."""
        try:
            self.result = self.work(connection)
        except KeyError as unknown:
            return unknown
        except Exception as error:
            raise error if is_shared(error) else _OneFailedError from error
        return self.result


def _run(connection: Connection, operations: Sequence[Operation]) -> list[Any]:
    """The outcome of each, in order."""
    outcomes = {operation: outcome for group in _groups(operations) for operation, outcome in zip(group, _run_group(connection, group), strict=True)}
    return [outcomes[operation] for operation in operations]


def _groups(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Those that may be done together, then the next; what cannot be done together with others keeps its place among them."""
    waiting: dict[Together, list[Operation]] = {}
    for operation in operations:
        if operation.together is not None:
            waiting.setdefault(operation.together, []).append(operation)
            continue
        yield from waiting.values()
        waiting = {}
        yield [operation]
    yield from waiting.values()


def _run_group(connection: Connection, group: Sequence[Operation]) -> list[Any]:
    """The outcomes of what may be done together; what stands in the way of that is found by halves."""
    if len(group) == 1:
        return [group[0].run(connection)]
    outcomes = _at_once(connection, group)
    if outcomes is None:
        half = len(group) // 2
        outcomes = _run_group(connection, group[:half]) + _run_group(connection, group[half:])
    return outcomes


def _at_once(connection: Connection, group: Sequence[Operation]) -> list[Any] | None:
    together = group[0].together
    if together is None:
        return None
    try:
        results = together(connection, [operation.given for operation in group])
    except Exception as error:
        nothing_done = not is_of_database(error) or (is_refusal(error) and not is_shared(error))  # of them less may fit on the disk
        raise _OneFailedError if nothing_done else error from error
    if results is None:
        return None
    for operation, result in zip(group, results, strict=True):
        operation.result = result
    return list(results)


class _OneFailedError(Exception):
    """An operation could not be carried out; this says nothing of those that shared its transaction."""


class Transactions:
    """The connection and what runs on it. `count` is the number of transactions that were committed with writes."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.count = 0
        self._connect = connect
        self._connection: Connection | None = None
        self._doubtful: list[Operation] = []

    def begin_with(self, connection: Connection) -> None:
        """Take the first connection, already open."""
        self._connection = connection

    def run(self, operations: Sequence[Operation]) -> list[Any]:
        """The outcome of each, in order: its result when that is durable, else the exception it ends with. Never raises."""
        try:
            return self._transact(operations)
        except _OneFailedError as failure:
            if len(operations) > 1:
                return [outcome for operation in operations for outcome in self.run([operation])]
            return [trouble(failure.__cause__ or failure)]
        except Exception as error:
            cause = trouble(error)
            return [type(cause)(str(cause)) for _ in operations]

    def close(self) -> None:
        """Close the connection; the last one moves the log into the database."""
        connection, self._connection = self._connection, None
        if connection:
            with contextlib.suppress(Exception):  # what was committed is in the log, and stays there
                connection.close()

    def _transact(self, operations: Sequence[Operation]) -> list[Any]:
        connection = self._connected()
        committing = all(operation.together is operations[0].together for operation in operations)  # one statement is a transaction of its own
        try:
            outcomes = _at_once(connection, operations) if committing else None
            if outcomes is not None:
                self.count += 1
                return outcomes
            committing = False
            writes = any(operation.writes for operation in operations)
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            outcomes = _run(connection, operations)
            if writes:
                committing = True
                connection.execute("COMMIT")
        except Exception as error:
            doubtful = is_doubtful(error) or (committing and not isinstance(error, _OneFailedError) and not is_refusal(error))
            if not _rolled_back(connection) or doubtful:
                self._doubtful += operations
                self.close()
            raise
        self.count += writes
        return outcomes

    def _connected(self) -> Connection:
        """The connection; after trouble a new one, once the disk takes the log and what was reported as failed is not in it."""
        if self._connection is None:
            connection = self._connect()
            try:
                self._settle_doubts(connection)
            except BaseException:
                connection.close()
                raise
            self._doubtful.clear()
            self._connection = connection
        return self._connection

    def _settle_doubts(self, connection: Connection) -> None:
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise SpoolError("the spool is in use by a visitor; it is opened again when that is done")
        connection.execute("BEGIN IMMEDIATE")
        for operation in self._doubtful:
            if operation.undo:
                operation.undo(connection, operation.result)
        connection.execute("COMMIT")


def _rolled_back(connection: Connection) -> bool:
    try:
        if connection.in_transaction:  # SQLite itself has already ended it after some errors
            connection.execute("ROLLBACK")
    except Exception:  # whatever it is, the connection is of no use any more
        return False
    return True
