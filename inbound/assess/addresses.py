"""Address lists of header fields (RFC 5322 §3.4), read in linear time.

The standard library's readers are quadratic on hostile lists, and take `alice@trusted.example <bob@evil.example>` for alice's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from inbound.assess import encoded_words

TOKEN_LIMIT = 16_384  # what 100 KiB of ordinary mailboxes hold

_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+'
_ATOMS = r'[^\x00-\x20\x7f"(),:;<>@\[\]\\]++'
_TOKEN = re.compile(
    rf"""
      (?P<word>{encoded_words.PATTERN})
    | (?P<quoted>{_QUOTED}")
    | (?P<open>{_QUOTED}\\?\Z)
    | (?P<angle><[^<>"]*+(?:{_QUOTED}"[^<>"]*+)*+>)
    | (?P<bracket>\[[^\[\]\\]*+\])
    | (?P<plain>(?:[^"(),:;<>=\[\]\\]++|=(?!\?))++|=)
    | (?P<comment>\()
    | (?P<separator>[,:;])
    | (?P<stray>[)>\]\\]++|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PHRASE = frozenset({"word", "quoted", "bracket", "plain", "comment"})
_IN_COMMENT = re.compile(r"[^()\\]*+(\\.|[()])", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ROUTE = re.compile(r"\A@[^:]*+:")
_ADDRESS = re.compile(rf'(?:"(?:[^\x00-\x1f\x7f"\\]|\\[ -~])*+"|{_ATOMS})@(?:{_ATOMS}|\[[^\x00-\x20\x7f\[\]\\]*+\])')
_NEEDS_QUOTES = re.compile(r'[\x00-\x1f\x7f()<>\[\]:;@\\,."]')


class Item(NamedTuple):
    """One entry of an address list: its text as SES shows it, and the bare addresses in it (a group may hold several, or none)."""

    text: str
    addresses: tuple[str, ...]


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def read(text: str) -> list[Item]:
    """The entries of an unfolded address list, in order; empty ones are skipped.

    A mailbox is written anew: `Peter <a@b>` for `"Peter" <a@b>`, quotes only where the name needs them, encoded words decoded, `a@b` for
    `<a@b>`, the comment of `a@b (Peter)` as the name. A group, and what is no mailbox, keeps its own text as one entry.
    After `TOKEN_LIMIT` tokens the rest of the text is one last entry.
    """
    items: list[Item] = []
    tokens: list[_Token] = []
    start, in_group = 0, False
    for token in islice(_tokens(text), TOKEN_LIMIT):
        if token.kind == "," and not in_group:
            items += _items(tokens, text[start : token.start])
            tokens, start = [], token.end
            continue
        in_group = token.kind == ":" or (in_group and token.kind != ";")
        tokens.append(token)
    if tokens and tokens[-1].end < len(text):
        return [*items, Item(text[start:].strip(), ())]
    return items + _items(tokens, text[start:])


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while found := _TOKEN.match(text, position):
        kind, end = str(found.lastgroup), found.end()
        if kind == "comment":
            closed = _comment_end(text, end)
            kind, end = (kind, closed) if closed else ("open", len(text))
        elif kind == "separator":
            kind = found[0]
        yield _Token(kind, text[position:end], position, end)
        position = end


def _comment_end(text: str, position: int) -> int:
    """Where the comment ends whose first parenthesis stands before `position`; 0 if it never does."""
    depth = 1
    while depth:
        found = _IN_COMMENT.match(text, position)
        if not found:
            return 0
        depth += {"(": 1, ")": -1}.get(found[1], 0)
        position = found.end()
    return position


def _items(tokens: list[_Token], written: str) -> list[Item]:
    written = written.strip()
    if not written:
        return []
    if any(token.kind in ":;" for token in tokens):
        return [Item(written, _members(tokens))]
    mailbox = _mailbox(tokens)
    if not mailbox:
        return [Item(written, ())]
    name, address = mailbox
    return [Item(f"{_phrase(name)} <{address}>" if name else address, (address,))]


def _members(tokens: list[_Token]) -> tuple[str, ...]:
    """The addresses in a group (`name: a@b, c@d;`); none unless it is one well-formed group."""
    marks = [(place, token.kind) for place, token in enumerate(tokens) if token.kind in ":;"]
    if [kind for _, kind in marks] != [":", ";"]:
        return ()
    (first, _), (last, _) = marks
    if any(token.kind not in _PHRASE for token in tokens[:first]) or not all(_is_blank(token) for token in tokens[last + 1 :]):
        return ()
    found, member = [], list[_Token]()
    for token in [*tokens[first + 1 : last], _Token(",", ",", 0, 0)]:
        if token.kind != ",":
            member.append(token)
            continue
        mailbox = _mailbox(member)
        if mailbox:
            found.append(mailbox[1])
        member = []
    return tuple(found)


def _mailbox(tokens: list[_Token]) -> tuple[str, str] | None:
    """Name and address; None for everything that could be read in two ways."""
    if any(token.kind in {"stray", "open"} for token in tokens):
        return None
    comments = " ".join(_unescaped(token) for token in tokens if token.kind == "comment")
    words = [token for token in tokens if not _is_blank(token)]
    if words and words[-1].kind == "angle":
        phrase = tokens[: tokens.index(words[-1])]
        if any(token.kind == "angle" for token in phrase):
            return None
        address = _ROUTE.sub("", words[-1].text[1:-1].strip()).strip()
        name = "".join(_unescaped(token) for token in phrase if token.kind != "comment")
    else:
        address, name = "".join(token.text for token in tokens if token.kind != "comment").strip(), ""
    if not _ADDRESS.fullmatch(address):
        return None
    return encoded_words.decode(name.strip() or comments).strip(), address


def _is_blank(token: _Token) -> bool:
    return token.kind == "comment" or token.text.isspace()


def _unescaped(token: _Token) -> str:
    return _ESCAPED.sub(r"\1", token.text[1:-1]) if token.kind in {"quoted", "comment"} else token.text


def _phrase(name: str) -> str:
    if not _NEEDS_QUOTES.search(name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
