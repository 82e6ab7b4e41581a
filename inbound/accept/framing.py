"""Framing: where the content ends, and what its octets are, over pieces of any size; in DATA by its final dot, in BDAT by counting.

RFC 5321 §4.1.1.4 and §4.5.2: only CRLF.CRLF ends the data; a dot that begins a line is taken away. Bare CR and bare LF are content:
they neither end a line here nor the message, which is what keeps SMTP smuggling out.
"""

from __future__ import annotations

import re

from inbound.accept.reply import BAD_CHUNK, Refusal

DOTS = 32  # within lines of a piece, after which it is searched for dots that begin one

_LINE_END = b"\r\n"
_CHUNK = re.compile(rb"[ \t]*([0-9]{1,20})(?:[ \t]+(LAST))?[ \t]*", re.IGNORECASE)
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_FIRST_LINE = re.compile(rb"From |[!-9;-~]+[ \t]*:")
_HEADER_END = re.compile(rb"(?:\A|\r?\n)\r?\n")


class Framer:
    """Feed it what the client sends after 354; it gives back the content, and at the end the octets that follow it in `rest`."""

    __slots__ = ("_held", "_start", "ended", "rest")

    def __init__(self) -> None:
        self._held = _LINE_END  # as if a line had just ended: a dot may be the very first octet
        self._start = True
        self.ended = False
        self.rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """The content that is certain after this chunk; `ended` tells whether the final dot has come."""
        if self._start and self._held == _LINE_END and len(chunk) > 2 and not chunk.startswith(b"."):
            self._start, data = False, chunk  # the first, and no dot begins it: what is large is copied less
        else:
            data = self._held + chunk
        pieces = []
        position = 0
        while True:
            dot = _dotted_line(data, position)
            if dot < 0:
                keep = len(data) - _partial(data, position)
                break
            follows = data[dot + 3 : dot + 5]
            if follows == b"\r\n":
                pieces.append(data[position : dot + 2])
                self.ended, self.rest, self._held = True, data[dot + 5 :], b""
                return self._content(pieces)
            if follows in (b"", b"\r"):
                keep = dot
                break
            pieces.append(data[position : dot + 2])
            position = dot + 3
        pieces.append(data[position:keep])
        self._held = data[keep:]
        return self._content(pieces)

    def _content(self, pieces: list[bytes]) -> bytes:
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._start and content:
            self._start = False
            return content[2:]
        return content


def _dotted_line(data: bytes, position: int) -> int:
    """`data.find(b"\\r\\n.", position)`. To look for a dot alone takes a fiftieth of the time, and what is large is Base64, which has none."""
    at = position + 1
    for _ in range(DOTS):
        at = data.find(b".", at + 1)
        if at < 0:
            return -1
        if data.startswith(b"\r\n", at - 2):
            return at - 2
    return data.find(b"\r\n.", at - 1)


def _partial(data: bytes, position: int) -> int:
    if data.endswith(b"\r\n") and len(data) - position >= 2:
        return 2
    return 1 if data.endswith(b"\r") and len(data) > position else 0


def chunk(argument: bytes) -> tuple[int, bool]:
    """How many octets a BDAT command announces, and whether they are the last (RFC 3030 §2). Raises Refusal."""
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise Refusal(BAD_CHUNK)
    return int(match[1]), match[2] is not None


class LineEnds:
    """Feed it content; it tells whether every CR and LF in it is one half of a CRLF (RFC 5321 §2.3.8)."""

    __slots__ = ("_held", "_mixed")

    def __init__(self) -> None:
        self._held = False  # a CR that ended the last piece
        self._mixed = False

    def feed(self, piece: bytes) -> None:
        """The next piece of the content."""
        if self._mixed or not piece:
            return
        data = b"\r" + piece if self._held else piece
        self._held = data.endswith(b"\r")
        pairs = data.count(b"\r\n")
        self._mixed = data.count(b"\n") != pairs or data.count(b"\r") - self._held != pairs

    @property
    def has_bare(self) -> bool:
        """Is there a bare CR or LF in what came so far?"""
        return self._mixed or self._held


class HeaderLength:
    """Feed it content; it tells how long the header block is that begins it, without the empty line (RFC 5322 §2.1)."""

    __slots__ = ("_held", "ended", "octets")

    def __init__(self) -> None:
        self.octets = 0
        self.ended = False
        self._held = b"\n"  # as if a line had just ended: the empty line may be the first

    def feed(self, piece: bytes) -> None:
        """The next piece of the content."""
        if self.ended:
            return
        data = self._held + piece
        end = _EMPTY_LINE.search(data)
        if end is None:
            self.octets += len(piece)
            self._held = data[-2:]
        else:
            self.octets += end.start() + 1 - len(self._held)
            self.ended = True


def begins_with_field(head: bytes) -> bool:
    """Is the first line of a message a header field, or an mbox line above one? If it is not, there is no header block."""
    return _FIRST_LINE.match(head) is not None


def received_count(head: bytes) -> int:
    """How many Received fields the header block in `head` has: the hops of RFC 5321 §6.3."""
    end = _HEADER_END.search(head)
    return len(_RECEIVED.findall(head, 0, end.start() if end else len(head)))
