"""The octets that consumers get: our header fields, then the message as it came, forged copies of ours renamed.

Nothing is copied: a rendering is read through a reader that takes each octet from where it is.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header
from typing import TYPE_CHECKING, BinaryIO, cast

from inbound.accept.spool import Content
from inbound.assess import encoded_words
from inbound.assess.forged import INSERTION
from inbound.assess.message import FIRST, Message, begins_with_field

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HeaderField = tuple[str, str]

_BLOCK = 1 << 20  # octets of the content that are read at once at most

_BREAKS_OUT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Rendering:
    """`prefix`, then `content` with `X-Forged-` inserted at each of the ascending offsets `insertions` into it. `size` in octets."""

    prefix: bytes
    content: Content
    insertions: Sequence[int] = ()

    @property
    def size(self) -> int:
        return len(self.prefix) + self.content.size + len(INSERTION) * len(self.insertions)

    def open(self) -> BinaryIO:
        """A new seekable reader over all octets, fit for a boto3 Body; the caller closes it."""
        return cast("BinaryIO", _Reader(self))

    def read(self) -> bytes:
        """All octets at once: for small messages."""
        with self.open() as reader:
            return reader.read()


def render(
    content: Content, *, added: Sequence[HeaderField] = (), trace: Sequence[HeaderField] = (), forged: Sequence[int] = ()
) -> Rendering:
    """The message for consumers: `added` header fields, the last one added on top, then `trace`, then the content.

    A content that does not begin with a header field gets an empty line above it, or its first line would read as a part of ours.
    """
    separator = b"" if begins_with_field(content.head(FIRST)) else b"\r\n"
    lines = [*(field_line(name, value) for name, value in reversed(added)), *(_trace_line(name, value) for name, value in trace)]
    return Rendering(b"".join(lines) + separator, content, forged)


def visible_fields(
    message: Message, *, added: Sequence[HeaderField] = (), trace: Sequence[HeaderField] = ()
) -> tuple[HeaderField, ...]:
    """Names and values of all header fields of that rendering, in order, as SES shows them: unfolded, encoded words decoded.

    `trace` is shown undecoded: what a client put into it must not turn into something else.
    """
    on_top = [(name, encoded_words.decode(value) if value.isascii() else value) for name, value in reversed(added)]
    ours = [(name, value.replace("\r\n ", " ")) for name, value in trace]
    return (*on_top, *ours, *((each.name, each.value) for each in message.fields))


def field_line(name: str, value: str) -> bytes:
    """One header field with its CRLF. `value` may be folded with CRLF and a space; any other control character becomes `?`.

    A value that is not ASCII becomes encoded words (RFC 2047).
    """
    safe = _safe(value)
    if not safe.isascii():
        safe = Header(safe.replace("\r\n ", " "), "utf-8", header_name=name).encode(linesep="\r\n")
    return f"{name}: {safe}\r\n".encode("ascii")


def _trace_line(name: str, value: str) -> bytes:
    """Trace is beyond ASCII only in a message that came by SMTPUTF8; there it is UTF-8 (RFC 6531 §3.7.3)."""
    return f"{name}: {_safe(value)}\r\n".encode()


@dataclass(frozen=True, slots=True)
class BytesContent:
    """A message that is in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def head(self, limit: int) -> bytes:
        """The first `limit` octets."""
        return self.data[:limit]

    def open(self) -> BinaryIO:
        """A new reader."""
        return io.BytesIO(self.data)


class _Reader(io.RawIOBase):
    """Reads a rendering. A read is short only at its end."""

    def __init__(self, rendering: Rendering) -> None:
        super().__init__()
        self._rendering = rendering
        self._starts = _Starts(rendering.insertions)
        self._source = rendering.content.open()
        self._source_position = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._must_be_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._must_be_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._rendering.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._must_be_open()
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (piece := self._next(len(view) - filled)):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def readall(self) -> bytes:
        rest = bytearray(max(0, self._rendering.size - self._position))
        return bytes(memoryview(rest)[: self.readinto(rest)])

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _must_be_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed rendering")

    def _next(self, limit: int) -> bytes:
        """Up to `limit` octets from where the position is: the prefix, or the content."""
        prefix = self._rendering.prefix
        if self._position < len(prefix):
            piece = prefix[self._position : self._position + limit]
        else:
            piece = self._from_content(self._position - len(prefix), limit)
        self._position += len(piece)
        return piece

    def _from_content(self, position: int, limit: int) -> bytes:
        """A block of the content with its insertions made: one read, since a header may have a million of them."""
        insertions, passed = self._rendering.insertions, bisect_right(self._starts, position)
        unread = max(0, self._starts[passed - 1] + len(INSERTION) - position) if passed else 0  # of the insertion that the position is in
        offset = insertions[passed - 1] if unread else position - passed * len(INSERTION)
        source = self._read_source(offset, min(limit, _BLOCK))
        following = bisect_left(insertions, offset + len(source), passed)
        if not unread and following == passed:
            return source
        pieces, begin = [INSERTION[len(INSERTION) - unread :]], 0
        for insertion in insertions[passed:following]:
            pieces += source[begin : insertion - offset], INSERTION
            begin = insertion - offset
        return b"".join((*pieces, source[begin:]))[:limit]

    def _read_source(self, offset: int, limit: int) -> bytes:
        if self._source_position != offset:
            self._source.seek(offset)
        piece = self._source.read(limit)
        self._source_position = offset + len(piece)
        return piece


class _Starts(Sequence[int]):
    """Where each insertion begins in the content with all insertions made."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # nobody takes slices of it
        return self._offsets[index] + index * len(INSERTION)


def _safe(value: str) -> str:
    return "\r\n ".join(_BREAKS_OUT.sub("?", line) for line in value.split("\r\n "))
