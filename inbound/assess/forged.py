"""Where the sender wrote verdicts in our name: header fields that a consumer could take for ours.

Found wherever any consumer's parser might see a field: after CRLF, LF, a bare CR and the other octets that parsers break lines at, in the
whole header block however long, in time linear in it and in bounded memory.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence

from inbound.accept.spool import Content

INSERTION = b"X-Forged-"

_WINDOW = 65_536
_LOOK = 1_024  # octets looked at after a field name, for its colon and the authserv-id
_VERDICT = re.compile(rb"x-ses-(?:spam|virus)-verdict")
_RESULTS = re.compile(rb"authentication-results")
_BREAK = re.compile(rb"(?:[\r\n\v\f\x1c-\x1e\x85]|\xe2\x80[\xa8\xa9])\Z")
_COLON = re.compile(rb"[\x00-\x20\x7f]*+(:|\Z)")
_COMMENTS = re.compile(rb"(?:[\x00-\x20\x7f]++|\([^()\\=]*+\))*+")
_AUTHSERV_ID = re.compile(rb'"([\w.@: \x80-\xff-]*+)"|([\w.\x80-\xff-]++)')


def header_length(octets: bytes) -> int | None:
    """The length of the header block: up to the first empty line, ended by CRLF or LF. None if `octets` do not reach it."""
    if octets.startswith((b"\n", b"\r\n")):
        return 0
    return _next_empty_line(octets)


def offsets_in(block: bytes, *, authserv_id: str = "") -> list[int]:
    """`offsets` for a header block that is in memory."""
    lowered = block.lower()
    ours = authserv_id.lower().encode()
    found = [match.start() for match in _VERDICT.finditer(lowered) if _begins_line(block, match) and _is_field(lowered, match)]
    found += [match.start() for match in _RESULTS.finditer(lowered) if _begins_line(block, match) and _claims(lowered, match, ours)]
    return sorted(found)


def offsets(content: Content, *, authserv_id: str = "") -> Sequence[int]:
    """Where in the message `X-Forged-` is to be inserted, ascending.

    Before every X-SES-Spam-Verdict and X-SES-Virus-Verdict, in any case, and every Authentication-Results (RFC 8601) whose authserv-id is
    ours, compared without case. An authserv-id that is not plain to read (behind a nested comment, encoded) counts as ours.
    """
    found = array("Q")
    with content.open() as reader:
        window = reader.read(_WINDOW)
        length, base, begin = header_length(window), 0, 0
        while length is None and (piece := reader.read(_WINDOW)):
            end = max(begin, len(window) - _LOOK - len("authentication-results"))
            found.extend(base + place for place in offsets_in(window, authserv_id=authserv_id) if begin <= place < end)
            keep = max(0, end - 3)
            window, base, begin = window[keep:] + piece, base + keep, end - keep
            length = _next_empty_line(window)
    rest = window if length is None else window[:length]
    found.extend(base + place for place in offsets_in(rest, authserv_id=authserv_id) if begin <= place)
    return found


def _next_empty_line(octets: bytes) -> int | None:
    crlf = octets.find(b"\n\r\n")
    bare = octets.find(b"\n\n", 0, crlf + 1 if crlf >= 0 else len(octets))  # not through the whole body for a line end it does not use
    return bare + 1 if bare >= 0 else crlf + 1 if crlf >= 0 else None


def _begins_line(block: bytes, name: re.Match[bytes]) -> bool:
    return name.start() == 0 or _BREAK.search(block, max(0, name.start() - 3), name.start()) is not None


def _is_field(block: bytes, name: re.Match[bytes]) -> bool:
    return _value_start(block, name) is not None


def _value_start(block: bytes, name: re.Match[bytes]) -> int | None:
    """Where the value begins, if a colon follows the name, or nothing but white space as far as we look."""
    colon = _COLON.match(block, name.end(), name.end() + _LOOK)
    return colon.end() if colon and (colon[1] or colon.end() == name.end() + _LOOK) else None


def _claims(block: bytes, name: re.Match[bytes], ours: bytes) -> bool:
    """Is it an Authentication-Results whose authserv-id is `ours`, or cannot plainly be told from it?"""
    start, stop = _value_start(block, name), min(len(block), name.end() + _LOOK)
    if start is None or not ours:
        return False
    comments = _COMMENTS.match(block, start, stop)
    start = comments.end() if comments else start
    if start == len(block) or block[start : start + 1] == b";":
        return False
    named = _AUTHSERV_ID.match(block, start, stop)
    if named is None or named.end() == stop < len(block):
        return True
    return (named[1] or named[2] or b"").strip(b" .") == ours
