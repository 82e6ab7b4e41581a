"""The header of a message as DKIM sees it: every field as it came, by the rules that consumers see it by, and whether it can be trusted.

A header that another parser could read in another way is no subject for a signature, however valid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from inbound.assess import forged
from inbound.assess.dkim.canonical import Canonicalization, header_field
from inbound.assess.dkim.results import Result
from inbound.assess.message import FIELD, HEADER_LIMIT, header_block

_SIGNATURE = b"dkim-signature"
_MBOX_LINE = re.compile(rb"From [^\n]*+(?:\n|\Z)")
_FROM = re.compile(rb"from[\x00-\x20\x7f]*+:")
_BREAK = re.compile(rb"(?:[\r\n\v\f\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9])\Z")


class Header:
    """The header block of the message that begins with `head`: at least its first `message.HEAD` octets, or all of it.

    `signatures` are the places of its DKIM-Signature fields, `body` is where the body begins. `flaw` tells why no signature may pass.
    """

    def __init__(self, head: bytes) -> None:
        block, truncated = header_block(head)
        found = list(FIELD.finditer(block))
        self._fields = [match[0].removesuffix(b"\r") for match in found]
        self._places: dict[bytes, list[int]] = {}
        for place, match in enumerate(found):
            self._places.setdefault(match[1].lower(), []).append(place)
        self._canonical: dict[tuple[int, Canonicalization], bytes] = {}
        self.signatures = tuple(self._places.get(_SIGNATURE, ()))
        self.body = _body_start(head)
        self.flaw = _flaw(block, found, truncated=truncated) if self.signatures else None

    def __getitem__(self, place: int) -> bytes:
        """All of a field but its last line break."""
        return self._fields[place]

    def digest(self, names: Iterable[bytes], canonicalization: Canonicalization, *, signature: int, unsigned: bytes) -> bytes:
        """The SHA-256 that the signature at this place signs (RFC 6376 §3.7): the fields of these names, then its own with an empty b=."""
        sha256 = hashlib.sha256()
        for place in self._selected(names, signature):
            sha256.update(self._in_canonical_form(place, canonicalization))
        sha256.update(header_field(unsigned, canonicalization)[:-2])
        return sha256.digest()

    def _selected(self, names: Iterable[bytes], signature: int) -> Iterator[int]:
        """RFC 6376 §5.4.2: of several fields with one name the last first; a name too many stands for a field that must not be there."""
        left: dict[bytes, Iterator[int]] = {}
        for name in names:
            places = left.get(name)
            if places is None:
                places = left[name] = (place for place in reversed(self._places.get(name, ())) if place != signature)
            place = next(places, None)
            if place is not None:
                yield place

    def _in_canonical_form(self, place: int, canonicalization: Canonicalization) -> bytes:
        key = (place, canonicalization)
        if key not in self._canonical:
            self._canonical[key] = header_field(self._fields[place], canonicalization)
        return self._canonical[key]


def _body_start(head: bytes) -> int:
    length = forged.header_length(head)
    if length is None:
        return len(head)
    return length + (2 if head.startswith(b"\r\n", length) else 1)


def _flaw(block: bytes, fields: list[re.Match[bytes]], *, truncated: bool) -> tuple[Result, str] | None:
    if truncated:
        return Result.POLICY, f"the header is larger than {HEADER_LIMIT} octets"
    if _has_strays(block, fields):
        return Result.PERMERROR, "the header has a line that is no header field"
    senders = _from_fields(block)
    if senders != 1:
        return Result.PERMERROR, f"the header has {senders or 'no'} From fields, where RFC 5322 wants one"
    return None


def _from_fields(block: bytes) -> int:
    """How many From fields some parser might see: after a bare CR, and after other octets that parsers break lines at."""
    starts = [match.start() for match in _FROM.finditer(block.lower())]
    return sum(not start or _BREAK.search(block, max(0, start - 3), start) is not None for start in starts)


def _has_strays(block: bytes, fields: list[re.Match[bytes]]) -> bool:
    """Is there anything in the block but fields, one after another, and an mbox line before them?"""
    mbox = None if FIELD.match(block) else _MBOX_LINE.match(block)
    end = mbox.end() if mbox else 0
    for field in fields:
        if field.start() != end:
            return True
        end = field.end() + 1
    return end < len(block)
