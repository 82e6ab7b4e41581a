"""One live process at a time owns a spool: it holds an flock on the file `lock` in the spool's folder, which names its pid.

The kernel gives the lock back however the process ends, so a crashed owner never keeps its successor out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from pathlib import Path

from inbound.accept.spool import SpoolLocked

PATIENCE = 1.0  # seconds; a visitor that asks whether anyone holds the lock holds it for an instant itself
PAUSE = 0.02


class Lock:
    """The lock on one spool. Not for use from several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def take(self, patience: float = PATIENCE) -> None:
        """Hold the lock until `release`. Raises SpoolLocked when another process does, OSError when the file cannot be used."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            deadline = time.monotonic() + patience
            while not _locked(fd):
                if time.monotonic() >= deadline:
                    raise SpoolLocked(f"the spool {self._path.parent} is in use by {_owner(fd)}")
                time.sleep(PAUSE)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        _held.add(self)

    def is_free(self) -> bool:
        """Does no live process hold the lock? Creates nothing."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            return _locked(fd)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        _held.discard(self)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # the name in the file is only a courtesy to people
                os.ftruncate(fd, 0)
            os.close(fd)

    def forget(self) -> None:
        """Close our copy of the lock in a forked child, so that it does not outlive its owner there."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> str:
    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return f"process {pid}" if pid.isdigit() else "another process"


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
