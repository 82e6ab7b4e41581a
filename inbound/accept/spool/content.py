"""Content that is kept: small in memory, large in a blob file; and what a replay brought back, in a row of whatever size."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from inbound.accept.spool import SpoolDamaged
from inbound.accept.spool.database import trouble

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


class SpilledContent(FileContent):
    """Large content of a row, written to a file at `path` that `remove` is called for when this ends."""

    def __init__(self, path: Path, data: bytes, remove: Callable[[], None]) -> None:
        weakref.finalize(self, remove)
        path.touch(0o600, exist_ok=False)
        path.write_bytes(data)
        super().__init__(path, len(data))
