"""A spool's folder, mode 0700: `spool.sqlite3`, `blobs/` and `lock`; how it is opened by its owner, and by a visitor."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from inbound.accept.spool import entries
from inbound.accept.spool.blobs import Blobs, make_private, sync_folder
from inbound.accept.spool.database import Connection, Database, trouble
from inbound.accept.spool.lock import Lock


class SpoolFolder:
    """The files of one spool. Its methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path / "spool.sqlite3")
        self.blobs = Blobs(path / "blobs")
        self.lock = Lock(path / "lock")

    def open_as_owner(self, now: float) -> tuple[Connection, int]:
        """Create what is missing, take the lock, migrate, end the leases of a dead owner, remove blob files that nothing names.

        Returns the connection and how many leases there were. Raises SpoolLocked, SpoolVersion, SpoolError; then nothing is held.
        """
        try:
            with contextlib.ExitStack() as undo:
                make_private(self.path)
                self.lock.take()
                undo.callback(self.lock.release)
                make_private(self.blobs.folder)
                self.database.create()
                sync_folder(self.path)
                connection = self.database.open(migrate=True)
                undo.callback(connection.close)
                recovered = self._recover(connection, now)
                undo.pop_all()
        except Exception as error:
            raise trouble(error) from error
        return connection, recovered

    def open_as_visitor(self) -> Connection:
        """A connection to a spool that is there, whoever owns it. Raises FileNotFoundError, SpoolVersion, SpoolError."""
        if not self.database.path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.database.path))
        try:
            return self.database.open(migrate=False)
        except Exception as error:
            raise trouble(error) from error

    def _recover(self, connection: Connection, now: float) -> int:
        connection.execute("BEGIN IMMEDIATE")
        recovered = entries.give_back_all(connection, now)
        connection.execute("COMMIT")
        self.blobs.remove(entries.without_blob(connection, self.blobs.names()))
        return recovered
