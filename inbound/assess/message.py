"""The header of a message as SES shows it, read from the raw octets: ordered fields, decoded values, addresses.

Never more than the first 100 KiB of a header block is read, in time and memory linear in it, and no octets whatever raise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from inbound.accept.spool import Content
from inbound.assess import addresses, encoded_words, forged
from inbound.assess.turns import INLINE

HEADER_LIMIT = 102_400
FIELDS = 8_192  # read of one header; real messages have some dozens, and each takes memory far beyond its octets
HEAD = HEADER_LIMIT + 4  # how much of a message `parse` wants to see: an empty line may follow right after the limit
FIRST = 1_024  # how much of it `begins_with_field` wants to see: no name of a field is longer than a line may be

FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)
"""One header field without its last line break: its name, and what stands after the colon."""
_FOLD = re.compile(rb"\r?\n[ \t]++")
_MBOX = b"From "

_ADDRESSES = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc"})
_COMMON = {
    "from": "from", "sender": "sender", "replyTo": "reply-to", "date": "date", "to": "to", "cc": "cc", "bcc": "bcc",
    "messageId": "message-id", "subject": "subject",
}  # fmt: skip


_Lists = Mapping[str, Sequence[Sequence[addresses.Item]]]


class Field(NamedTuple):
    """One header field. `raw` is what stands after the colon, folds included, without the last line break; `value` is what SES shows.

    `value` is unfolded (a line break and the white space after it become one space), its octets are UTF-8 or U+FFFD, its encoded words
    decoded. What was encoded may hold CR, LF and NUL, so `value` belongs in JSON, never in a header field.
    """

    name: str
    raw: bytes
    value: str


@dataclass(frozen=True, slots=True)
class Message:
    """The header of one message. Names of forged fields already carry `X-Forged-`, as consumers see them.

    `common` holds SES's commonHeaders in SES's order, without returnPath and without absent ones; the first of duplicates fills each.
    `destination` holds the bare addresses of all To and Cc fields. `truncated`: the header block is larger than `HEADER_LIMIT`, or has more
    than `FIELDS` fields.
    """

    fields: tuple[Field, ...] = ()
    truncated: bool = False
    common: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    destination: tuple[str, ...] = ()


def parse(head: bytes, *, authserv_id: str = "") -> Message:
    """The header of the message that begins with `head`: at least its first `HEAD` octets, or all of it.

    CRLF and LF end a line; the header block ends at the first empty line. A line that is no field (RFC 5322 §2.2) is left out with its
    continuation lines, and so is an mbox `From ` line; but a message whose first line is no field has no header. Of a block over
    `HEADER_LIMIT` the whole fields within it are read, of more than `FIELDS` fields the first.
    """
    block, truncated = _marked(head, authserv_id)
    found = list(islice(FIELD.finditer(block), FIELDS + 1))
    fields = tuple(map(_field, found[:FIELDS]))
    lists = {name: [addresses.read(_unfolded(each.raw)) for each in group] for name, group in _address_fields(fields).items()}
    return Message(fields, truncated or len(found) > FIELDS, _common(fields, lists), _destination(lists))


def parse_only(name: str, head: bytes) -> Message:
    """`parse` for who asks about one field, named in lower case: the fields of that name as they came, with no values and no addresses."""
    block, truncated = _marked(head, "")
    wanted = name.encode()
    found = [match for match in FIELD.finditer(block) if match[1].lower() == wanted]
    return Message(tuple(Field(match[1].decode("ascii"), match[2].removesuffix(b"\r"), "") for match in found), truncated)


def beginning(content: Content) -> bytes:
    """How the message begins: more than its header block, or the first `HEAD` octets of a longer one. Raises SpoolError."""
    head = content.head(INLINE)
    return head if forged.header_length(head) is not None else content.head(HEAD)


def begins_with_field(head: bytes) -> bool:
    """Does the message begin with a header field (or an mbox line, an empty header block, or not at all)?

    `head` holds at least its first `FIRST` octets, or all of it. If it does not, whatever is put above it needs an empty line in between:
    else its first line would be taken for a part of our last field.
    """
    first = head[:FIRST]
    return not first or first.startswith((_MBOX, b"\n", b"\r\n")) or FIELD.match(first) is not None


def header_block(head: bytes) -> tuple[bytes, bool]:
    """The header block that `parse` reads, as it came, and whether it is truncated. `head` as for `parse`."""
    if not begins_with_field(head):
        return b"", False
    length = forged.header_length(head)
    if length is None:
        length = len(head)
    if length <= HEADER_LIMIT:
        return head[:length], False
    end = head.rfind(b"\n", 0, HEADER_LIMIT)
    while end >= 0 and head[end + 1 : end + 2] in (b" ", b"\t"):
        end = head.rfind(b"\n", 0, end)
    return head[: end + 1], True


def _marked(head: bytes, authserv_id: str) -> tuple[bytes, bool]:
    block, truncated = header_block(head)
    return _mark(block, forged.offsets_in(block, authserv_id=authserv_id)), truncated


def _mark(block: bytes, offsets: Sequence[int]) -> bytes:
    if not offsets:
        return block
    ends = [*offsets[1:], len(block)]
    pieces = [forged.INSERTION + block[start:end] for start, end in zip(offsets, ends, strict=True)]
    return block[: offsets[0]] + b"".join(pieces)


def _field(match: re.Match[bytes]) -> Field:
    raw = match[2].removesuffix(b"\r")
    return Field(match[1].decode("ascii"), raw, encoded_words.decode(_unfolded(raw)))


def _unfolded(raw: bytes) -> str:
    line = _FOLD.sub(b" ", raw) if b"\n" in raw else raw
    return line.lstrip(b" \t").decode("utf-8", "replace")


def _address_fields(fields: tuple[Field, ...]) -> dict[str, list[Field]]:
    found: dict[str, list[Field]] = {}
    for each in fields:
        name = each.name.lower()
        if name in _ADDRESSES:
            found.setdefault(name, []).append(each)
    return found


def _common(fields: tuple[Field, ...], lists: _Lists) -> dict[str, str | Sequence[str]]:
    first = {each.name.lower(): each for each in reversed(fields)}
    common: dict[str, str | Sequence[str]] = {}
    for key, name in _COMMON.items():
        if name in lists:
            texts = tuple(item.text for item in lists[name][0])
            common[key] = ", ".join(texts) if key == "sender" else texts
        elif name in first:
            common[key] = first[name].value.strip()
    return common


def _destination(lists: _Lists) -> tuple[str, ...]:
    return tuple(address for name in ("to", "cc") for items in lists.get(name, ()) for item in items for address in item.addresses)
