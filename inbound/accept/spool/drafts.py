"""Content while it arrives: in memory while small, then a blob file, with no more in memory than a session may cost."""

from __future__ import annotations

import contextlib

from inbound.accept.spool import Content, SpoolError
from inbound.accept.spool.blobs import Blob
from inbound.accept.spool.content import FileContent, MemoryContent
from inbound.accept.spool.threads import FileThreads

HEAD = 128 * 1024  # octets that stay at hand: more than any header block we look at
FLUSH = 256 * 1024  # octets that make a write to the blob file worth a thread
SMALL = 4096  # pieces are joined up to this: content that drips in by twos would cost twenty times its size


class DiskDraft:
    """A draft that moves to a blob file once it is larger than `threshold` octets."""

    def __init__(self, message_id: str, blob: Blob, threshold: int, threads: FileThreads) -> None:
        self.message_id = message_id
        self._size = 0
        self._blob = blob
        self._threshold = threshold
        self._threads = threads
        self._pieces: list[bytes] = []
        self._held = 0  # octets in _pieces
        self._head = b""  # of what has left _pieces for the file
        self._taken = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def is_large(self) -> bool:
        """Does it belong into a blob file?"""
        return self._size > self._threshold

    def add(self, piece: bytes) -> bool:
        if self._pieces and len(piece) + len(self._pieces[-1]) <= SMALL:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self._held += len(piece)
        self._size += len(piece)
        return self.is_large and self._held >= min(FLUSH, self._threshold)

    async def flush(self) -> None:
        if self.is_large and self._pieces:
            await self._threads.run(self._blob.write, self._handed_over())

    def head(self, limit: int) -> bytes:
        if limit <= len(self._head):
            return self._head[:limit]
        return b"".join((self._head, *self._pieces) if self._head else self._pieces)[:limit]

    async def content(self) -> Content:
        if not self.is_large:
            return MemoryContent(b"".join(self._pieces))
        await self.flush()
        return await self._threads.run(FileContent, self._blob.path, self._size)

    def take(self) -> bytes:
        """All octets of a small draft. The spool answers for it from now on. Raises ValueError when it was taken before."""
        self._take()
        return b"".join(self._pieces)

    async def take_blob(self) -> None:
        """Make the blob file of a large draft durable. The spool answers for it from now on.

        Raises SpoolError, and then the file is gone; ValueError when it was taken before.
        """
        self._take()
        try:
            await self._threads.run(self._blob.seal, self._handed_over())
        except BaseException:
            self.give_up()
            raise

    def give_up(self) -> None:
        """Remove the blob file soon."""
        self._threads.send(self._blob.remove)

    def forget(self) -> None:
        if not self._taken:
            self._pieces.clear()
            self._head = b""

    async def discard(self) -> None:
        if self._taken:
            return
        self._pieces.clear()
        if self.is_large:
            with contextlib.suppress(SpoolError):
                await self._threads.run(self._blob.remove)

    def _take(self) -> None:
        if self._taken:
            raise ValueError(f"the draft of {self.message_id} was put before")
        self._taken = True

    def _handed_over(self) -> list[bytes]:
        pieces, self._pieces, self._held = self._pieces, [], 0
        if len(self._head) < HEAD:
            self._head = b"".join((self._head, *pieces))[:HEAD]
        return pieces
