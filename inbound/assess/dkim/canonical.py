"""Header fields and bodies as DKIM hashes them (RFC 6376 §3.4): the body piece by piece, in one pass for all signatures of a message.

dkimpy wants the whole body at once, takes 40 ms for each MB, and quadratic time on long runs of white space; this is linear on any octets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

CRLF = b"\r\n"
_SPACES = re.compile(rb"[ \t]+")
_RUN = re.compile(rb"  +")
_EMPTY_LINES = CRLF * 32_768


class Canonicalization(StrEnum):
    """RFC 6376 §3.4.1 to §3.4.4."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


class BodyTerms(NamedTuple):
    """What a signature hashes of the body: all of it, or the first `limit` octets of its canonical form (RFC 6376 §3.5, l=)."""

    canonicalization: Canonicalization
    limit: int | None = None


class BodyHash(NamedTuple):
    """The SHA-256 of what a signature hashes, and how many octets the whole canonical body has."""

    digest: bytes
    length: int


def header_field(octets: bytes, canonicalization: Canonicalization) -> bytes:
    """One header field in canonical form, with its CRLF. `octets` is all of it, without the last line break; LF counts as CRLF."""
    if canonicalization is Canonicalization.SIMPLE:
        return _with_crlf(octets) + CRLF
    name, _, value = octets.partition(b":")
    if b"\n" in value:
        value = value.replace(CRLF, b"").replace(b"\n", b"")
    if b"\t" in value or b"  " in value:
        value = _SPACES.sub(b" ", value)
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" ") + CRLF


def body_hashes(pieces: Iterable[bytes], wanted: Iterable[BodyTerms]) -> Mapping[BodyTerms, BodyHash]:
    """The hashes that signatures want of one body. Each canonicalization is done and hashed once, whatever its limits."""
    limits: dict[Canonicalization, set[int]] = {}
    for terms in wanted:
        limits.setdefault(terms.canonicalization, set()).update(() if terms.limit is None else (terms.limit,))
    hashes = [(name, Body(name), _Hash(of)) for name, of in limits.items()]
    line_ends = LineEnds()
    for piece in pieces:
        text = line_ends.add(piece)
        for _, body, digest in hashes:
            digest.add(body.add(text))
    found: dict[BodyTerms, BodyHash] = {}
    for name, body, digest in hashes:
        digest.add(body.end(line_ends.rest))
        found |= {BodyTerms(name, limit): BodyHash(octets, digest.length) for limit, octets in digest.end().items()}
    return found


class LineEnds:
    """Turns LF into CRLF in a text that comes in pieces (RFC 6376 §5.3). What it gives never ends between CR and LF."""

    def __init__(self) -> None:
        self.rest = b""

    def add(self, piece: bytes) -> bytes:
        """The next piece; `rest` is what it leaves for later: a CR that may be half a line end, or nothing."""
        text = self.rest + piece
        self.rest = b"\r" if text.endswith(b"\r") else b""
        return _with_crlf(text[:-1] if self.rest else text)


class Body:
    """One body in canonical form, as its pieces come. White space and empty lines are held back until it is known what follows them."""

    def __init__(self, canonicalization: Canonicalization) -> None:
        self._relaxed = canonicalization is Canonicalization.RELAXED
        self._space = b""
        self._empty_lines = 0
        self._begun = False

    def add(self, text: bytes) -> list[bytes]:
        """What the next piece, which has CRLF line ends and ends between no CR and LF, adds to the canonical body."""
        return self._without_empty_lines(self._reduced(text) if self._relaxed else text)

    def end(self, rest: bytes) -> list[bytes]:
        """What `rest`, the very last octets, and the end of the body add: it ends with one CRLF (an empty relaxed body with none)."""
        last = self._without_empty_lines(self._space + rest)
        return [*last, CRLF] if self._begun or not self._relaxed else []

    def _reduced(self, text: bytes) -> bytes:
        """RFC 6376 §3.4.4: each run of white space is one space, and none at the end of a line."""
        text = (self._space + text).replace(b"\t", b" ")
        if b"  " in text:
            text = _RUN.sub(b" ", text)
        text = text.replace(b" \r\n", CRLF)
        self._space = b" " if text.endswith(b" ") else b""
        return text[:-1] if self._space else text

    def _without_empty_lines(self, text: bytes) -> list[bytes]:
        """The text but for the line ends at its end, after those held back if it is more than line ends."""
        end = _content_length(text)
        before, self._empty_lines = self._empty_lines, (len(text) - end) // 2
        if not end:
            self._empty_lines += before
            return []
        self._begun = True
        return [*_line_ends(before), text[:end]]


class _Hash:
    """The SHA-256 of a text and of its beginnings, in one pass."""

    def __init__(self, limits: Iterable[int]) -> None:
        self._limits = sorted(limits, reverse=True)
        self._sha256 = hashlib.sha256()
        self._digests: dict[int | None, bytes] = {}
        self.length = 0

    def add(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            start, self.length = self.length, self.length + len(piece)
            hashed = 0
            while self._limits and self._limits[-1] <= self.length:
                limit = self._limits.pop()
                self._sha256.update(piece[hashed : limit - start])
                hashed = limit - start
                self._digests[limit] = self._sha256.digest()
            self._sha256.update(piece[hashed:] if hashed else piece)

    def end(self) -> dict[int | None, bytes]:
        """The digests by limit; a limit beyond the end is the end."""
        return {**self._digests, **dict.fromkeys([*self._limits, None], self._sha256.digest())}


def _with_crlf(text: bytes) -> bytes:
    if text.count(b"\n") == text.count(CRLF):
        return text
    return text.replace(CRLF, b"\n").replace(b"\n", CRLF)


def _content_length(text: bytes) -> int:
    """How much of the text comes before the line ends at its end. A bare CR is no line end."""
    if not text.endswith(b"\n"):
        return len(text)
    before = len(text.rstrip(CRLF))
    last_bare = text.rfind(b"\r\r", before)
    return before if last_bare < 0 else last_bare + 1


def _line_ends(count: int) -> list[bytes]:
    whole, rest = divmod(count, len(_EMPTY_LINES) // 2)
    return [_EMPTY_LINES] * whole + [CRLF * rest] * bool(rest)
