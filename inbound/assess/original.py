"""The message as it came, out of an object that we stored of it: our own header fields taken off, and renamed fields given their names back.

Pure. What cannot be told for certain is refused: a replay that guesses would hand out another message under the same id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from inbound.assess.forged import INSERTION, header_length, offsets_in
from inbound.assess.message import FIELD, HEAD

_OURS = frozenset((b"x-ses-spam-verdict", b"x-ses-virus-verdict", b"received-spf", b"authentication-results"))
_RENAMED = re.compile(
    rb"(?:\A|(?<=[\r\n\v\f\x1c-\x1e\x85])|(?<=\xe2\x80[\xa8\xa9]))" + INSERTION + rb"(?=(?i:x-ses-(?:spam|virus)-verdict|authentication-results))")


class NotOriginal(ValueError):
    """The octets are not such an object, or the message cannot be told from them for certain: why, in one line."""


def original(octets: bytes, message_id: str, size: int) -> bytes:
    """The message of `size` octets that was received with this id. Raises NotOriginal.

    It is the end of the object, and begins right after our fields (or an empty line after them); `X-Forged-` was put into its header so often
    as there are octets over.
    """
    found: set[bytes] = set()
    for start in _starts(octets, message_id):
        over = len(octets) - start - size
        renamed, rest = divmod(over, len(INSERTION))
        if over < 0 or rest:
            continue
        message = octets[start:]
        length = header_length(message)
        header, body = (message, b"") if length is None else (message[:length], message[length:])
        if offsets_in(header):
            continue  # what begins here has a field that we would have renamed: it is our own
        names = len(_RENAMED.findall(header)) if renamed else 0
        if names > renamed:
            raise NotOriginal(f"{names} of its fields are named X-Forged-, and {renamed} of them were by us: which, cannot be told")
        if names == renamed:
            found.add(_RENAMED.sub(b"", header) + body if renamed else message)
    if len(found) != 1:
        raise NotOriginal(f"it does not hold the {size} octets of the message in the form in which we store it")
    return found.pop()


def _starts(octets: bytes, message_id: str) -> Iterator[int]:
    """Where the message may begin: after the Received field that we wrote with this id, and after each field of ours that follows."""
    ours = re.compile(rb"\swith SMTP id " + re.escape(message_id.encode()) + rb"[;\s]")
    length = header_length(octets[:HEAD])
    fields = FIELD.finditer(octets[:HEAD] if length is None else octets[:length])
    if not any(field[1].lower() == b"received" and (last := field) and ours.search(field[2]) for field in fields):
        raise NotOriginal("it has no Received field with this id that we wrote")
    end = octets.find(b"\n", last.end()) + 1
    yield from _after(octets, end)
    for field in fields:
        if field[1].lower() not in _OURS or field.start() != end:
            return
        end = octets.find(b"\n", field.end()) + 1
        yield from _after(octets, end)


def _after(octets: bytes, end: int) -> Iterator[int]:
    yield end
    if octets.startswith(b"\r\n", end):
        yield end + 2
