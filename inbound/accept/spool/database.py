"""The one door to sqlite3: a connection that is set up for durability, checked for its version, and migrated.

SQLite "Write-Ahead Logging", "PRAGMA synchronous": FULL in WAL mode syncs the log before a commit returns, so what is committed
survives a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from inbound.accept.spool import SpoolError, SpoolFull, SpoolShort, SpoolVersion, schema, view

__all__ = ["Connection", "Database", "is_doubtful", "is_of_database", "is_refusal", "is_shared", "is_violation", "trouble"]

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
DOUBTFUL = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
    }
)

BUSY_MS = 2000  # how long we wait for a visitor that is writing
CACHE_KIB = 16384
LOG_LIMIT = 64 << 20  # a write-ahead log that grew in a burst is cut back to this


def trouble(error: BaseException) -> SpoolError:
    """The SpoolError, SpoolFull or SpoolShort that tells of any error met on the way to the disk."""
    if isinstance(error, SpoolError):
        return error
    if isinstance(error, MemoryError):
        return SpoolShort("out of memory")
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
        return SpoolFull(text)
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) in FULL_CODES:
        return SpoolFull(text)
    return SpoolError(text)


def is_doubtful(error: BaseException) -> bool:
    """Does this error, met anywhere, leave in doubt what the file holds?"""
    return _primary_code(error) in DOUBTFUL


def is_shared(error: BaseException) -> bool:
    """Would every operation have met this error, whatever it does?"""
    return is_doubtful(error) or _primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_of_database(error: BaseException) -> bool:
    """Did a statement meet this error, and not what was made ready for it?"""
    return _primary_code(error) != 0 or isinstance(error, MemoryError)


def is_violation(error: BaseException) -> bool:
    """Did a statement go against a constraint, or was it aborted by a trigger? It has done nothing then."""
    return _primary_code(error) == sqlite3.SQLITE_CONSTRAINT


def is_refusal(error: BaseException) -> bool:
    """Did SQLite refuse a commit with nothing in doubt? On a full disk or a busy file it takes back what it wrote, and no sync failed."""
    return _primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}


def _primary_code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class Connection(sqlite3.Connection):
    """A connection that numbers new entries: a number is not looked for in the file each time."""

    last_number = 0  # of an entry, in the file or on its way there


class Database:
    """The spool's SQLite file. Every method runs in one thread, apart from `reading`, which may run anywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the file, readable by its owner only, unless it is there. Raises OSError."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        os.fchmod(fd, 0o600)
        os.close(fd)

    def open(self, *, migrate: bool) -> Connection:
        """A connection to the file at this version. Raises SpoolVersion, SpoolError and sqlite3.Error.

        With `migrate`, an empty or older file is brought to this version first; a newer or foreign one is not touched.
        """
        version = self._check()
        if version < len(schema.MIGRATIONS) and not migrate:
            raise SpoolError(f"the spool {self.path} is of an older version; start the service once to migrate it")
        connection = self._connect("rw")
        try:
            if version == 0:
                connection.execute(f"PRAGMA page_size = {schema.PAGE_SIZE}")
                connection.execute("PRAGMA auto_vacuum = NONE")
            _set_up(connection)
            _migrate(connection, version)
            for statement in view.STATEMENTS:
                connection.execute(statement)
            (connection.last_number,) = connection.execute("SELECT coalesce(max(number), 0) FROM entry").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection of one's own to what is committed, for reads that may take long."""
        connection = self._connect("ro")
        try:
            connection.create_function("casefold", 1, str.casefold, deterministic=True)
            connection.execute("PRAGMA temp_store = MEMORY")
            yield connection
        finally:
            connection.close()

    def _check(self) -> int:
        """The version of the file; read-only, so that a newer or foreign file stays as it is."""
        log = self.path.with_name(f"{self.path.name}-wal")
        connection = self._connect("ro" if log.exists() else "ro&immutable=1")  # which makes no log of its own
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
        if application != schema.APPLICATION_ID and (application or version or tables):
            raise SpoolError(f"{self.path} is not a spool")
        if version > len(schema.MIGRATIONS):
            raise SpoolVersion(f"the spool {self.path} has version {version}; this inbound knows {len(schema.MIGRATIONS)} and leaves it untouched")
        return int(version)

    def _connect(self, mode: str) -> Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_MS / 1000,
            check_same_thread=False,
            factory=Connection,
        )


def _set_up(connection: Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise SpoolError(f"this file system does not support SQLite's write-ahead log (journal mode {mode})")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA wal_autocheckpoint = 1000")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")


def _migrate(connection: Connection, version: int) -> None:
    if version == len(schema.MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in schema.MIGRATIONS[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
