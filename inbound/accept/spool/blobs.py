"""Content too large for the database: one file a message in the folder `blobs`, named by the message id.

ALICE (OSDI 2014) and fsyncgate: a file is synced, then its folder, before anything says that it is there; after a failed write or
sync the file is given up, never synced again. Everything here blocks and is called from executor threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from inbound.accept.spool.checks import MESSAGE_ID, check_message_id

TRIED_AGAIN = 1_000  # files that could not be removed, with each removal
REMEMBERED = 10_000  # of them; more are left to the next start


class Blobs:
    """The folder of blob files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left: set[str] = set()
        self._lock = threading.Lock()

    def path(self, message_id: str) -> Path:
        """The blob file of a message. Raises ValueError for an id that is no plain file name."""
        check_message_id(message_id)
        return self.folder / message_id

    def names(self) -> list[str]:
        """All blob files there are, half-written ones included; other files are not ours. Raises OSError."""
        with os.scandir(self.folder) as found:
            return [file.name for file in found if MESSAGE_ID.fullmatch(file.name) and file.is_file(follow_symlinks=False)]

    def remove(self, message_ids: list[str]) -> None:
        """Remove blob files. What cannot be removed (a file system may be read-only for a while) is tried again with every later removal."""
        with self._lock:
            before = [self._left.pop() for _ in range(min(TRIED_AGAIN, len(self._left)))]
        for message_id in (*message_ids, *before):
            try:
                self.path(message_id).unlink(missing_ok=True)
            except OSError:
                self.leave(message_id)

    def leave(self, message_id: str) -> None:
        """Remember a file that could not be removed."""
        with self._lock:
            if len(self._left) < REMEMBERED:
                self._left.add(message_id)


class Blob:
    """The blob file of one message, being written. Its methods may be called from any thread; a removal waits for a write under way.

    Raises ValueError for an id that is no plain file name.
    """

    def __init__(self, blobs: Blobs, message_id: str) -> None:
        check_message_id(message_id)
        self._blobs = blobs
        self._message_id = message_id
        self._lock = threading.Lock()
        self._fd = -1
        self._created = False
        self._given_up = False

    @property
    def path(self) -> Path:
        """Where it lies. Made when it is needed, since most drafts stay small."""
        return self._blobs.path(self._message_id)

    def write(self, pieces: list[bytes]) -> None:
        """Append; the first call creates the file. Raises OSError, and then the file is gone."""
        with self._lock, self._removed_on_error():
            self._append(pieces)

    def seal(self, pieces: list[bytes]) -> None:
        """Append the last, make file and folder durable, close the file. Raises OSError, and then the file is gone."""
        with self._lock, self._removed_on_error():
            self._append(pieces)
            os.fsync(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
            sync_folder(self._blobs.folder)

    def remove(self) -> None:
        """Give the file up."""
        with self._lock:
            self._remove()

    def _append(self, pieces: list[bytes]) -> None:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._created = True
            os.fchmod(self._fd, 0o600)
        rest = memoryview(b"".join(pieces))
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    @contextlib.contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        if self._given_up:
            raise OSError(errno.ESTALE, "the draft was given up", str(self.path))
        try:
            yield
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        self._given_up = True
        fd, self._fd = self._fd, -1
        if self._created:  # else it is another message's file
            try:
                self.path.unlink(missing_ok=True)
            except OSError:
                self._blobs.leave(self._message_id)
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def make_private(folder: Path) -> None:
    """Make the folder, with its parents, for its owner only whatever the umask, and durably so. Raises OSError."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        with contextlib.suppress(FileExistsError):
            parent.mkdir(0o700 if parent == folder else 0o777)
        sync_folder(parent.parent)
    if folder.stat().st_mode & 0o777 != 0o700:
        folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
