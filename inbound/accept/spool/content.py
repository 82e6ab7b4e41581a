"""Content that is kept: small in memory, large in a blob file; and what a replay brought back, in a row of whatever size."""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from inbound.accept.spool import SpoolDamaged
from inbound.accept.spool.database import trouble

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD = 128 * 1024  # octets read at once, so that a look at the headers never waits for the disk


class MemoryContent:
    """Content held in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def head(self, limit: int) -> bytes:
        return self._data[:limit]

    def open(self) -> BinaryIO:
        return io.BytesIO(self._data)


class FileContent:
    """Content in a blob file, with its beginning in memory. Raises SpoolDamaged when the file is not what was stored."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        with self.open() as file:
            found = file.seek(0, io.SEEK_END)
            if found != size:
                raise SpoolDamaged(f"{path} holds {found} octets instead of {size}")
            file.seek(0)
            self._head = file.read(HEAD)

    @property
    def size(self) -> int:
        return self._size

    def head(self, limit: int) -> bytes:
        if limit <= len(self._head):
            return self._head[:limit]
        try:
            with self.open() as file:
                return file.read(limit)
        except OSError as error:
            raise trouble(error) from error

    def open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except FileNotFoundError as error:
            raise SpoolDamaged(f"{self._path} is gone") from error
        except OSError as error:
            raise trouble(error) from error


def whole(entry_id: str, data: bytes, size: int) -> bytes:
    """The octets, if they are as many as there should be. Raises SpoolDamaged."""
    if len(data) != size:
        raise SpoolDamaged(f"the spool holds {len(data)} octets of {entry_id} instead of {size}")
    return data


class SpilledContent:
    """Large content of a row, in a file in `folder` that has no name, and ends with this and its readers."""

    def __init__(self, folder: Path, data: bytes) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(data)
            file.flush()
            self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)
        self._size = len(data)
        self._head = data[:HEAD]

    @property
    def size(self) -> int:
        return self._size

    def head(self, limit: int) -> bytes:
        return self._head[:limit] if limit <= len(self._head) else self.read(limit, 0)

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Reader(self))

    def read(self, limit: int, offset: int) -> bytes:
        """Some octets from there, at least one except at the end."""
        return os.pread(self._fd, limit, offset)


class _Reader(io.RawIOBase):
    """Reads from a place of its own what others read too."""

    def __init__(self, content: SpilledContent) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._content.size}[whence] + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        found = self._content.read(len(view), self._at)
        view[: len(found)] = found
        self._at += len(found)
        return len(found)
