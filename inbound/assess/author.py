"""The author of a message as DMARC needs it: the one domain that every reader of its From field sees, or why there is none.

RFC 9989 §5.3.1 and §11.5; RFC 5322 §3.6.2. Whatever could be read in two ways ("Composition Kills", Chen et al. 2020) has no author.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from inbound.assess import addresses, encoded_words, forged
from inbound.assess.answers import domain_name
from inbound.assess.message import HEADER_LIMIT, Message

NAMED_LIMIT = 8  # domains whose policies are looked up where the From field names several

_FROM = re.compile(rb"[\r\n\v\f\x1c-\x1e\x85\xa8\xa9][\x00-\x08\x0e-\x1f\x7f-\xff]*+from[\x00-\x20\x7f-\xff]*+:", re.IGNORECASE)
_WIDE_BREAKS = (b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")  # what `_FROM` takes the last octets of for line breaks
_BLANK = bytes(range(0x21))
_FIELD_END = re.compile(rb"(?>\r\n|[\r\n\v\f])(?![ \t])")
_FIELD_LIMIT = 2_000  # octets of a From field that are read
_FOLD = re.compile(rb"\r?\n[ \t]++")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x80-\x9f\u2028\u2029]")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')
_NAMED = re.compile(r"@([^\s\x00-\x1f\x7f-\x9f<>()\[\],;:\\\"@]++)")


@dataclass(frozen=True, slots=True)
class Author:
    """Whom a message says it is from.

    `domain` is the Author Domain in A-labels. Where there is none, `problem` tells people why, and `named` holds the domains that some
    reader may take for it, at most `NAMED_LIMIT`.
    """

    domain: str = ""
    problem: str = ""
    named: tuple[str, ...] = ()


def author(head: bytes, message: Message) -> Author:
    """The author of the message that begins with `head`, which `message` was parsed from. Never raises.

    Several From addresses are one author if they share one domain.
    """
    length = forged.header_length(head)
    block = head[: HEADER_LIMIT if length is None else min(length, HEADER_LIMIT)]
    seen = _seen(block)
    fields = [each for each in message.fields if each.name.lower() == "from"]
    if message.truncated:
        problem = "its header is too large to know that it has only one From field"
    elif len(fields) > 1 or len(seen) > 1:
        problem = "it has several From fields, or what some reader takes for one"
    elif not fields:
        problem = "it has no From field"
    elif len(fields[0].raw) > _FIELD_LIMIT:
        problem = "its From field is too long"
    else:
        domain, problem = _domain(fields[0].raw)
        if domain:
            return Author(domain)
    return Author("", problem, _named(seen))


@functools.lru_cache(maxsize=512)  # who sends much has one From field; at most a megabyte
def _domain(raw: bytes) -> tuple[str, str]:
    """The one domain in the text of a From field of no more than `_FIELD_LIMIT` octets, or the problem with it."""
    text = _FOLD.sub(b" ", raw).decode("utf-8", "replace").strip(" \t")
    if _CONTROL.search(text):
        return "", "its From field holds control characters"
    domains, rest = set(), _QUOTED.sub('""', text)
    for item in addresses.read(text):
        if len(item.addresses) != 1 or not _is_plain(item, text):
            return "", "its From field can be read in several ways"
        address = item.addresses[0]
        domains.add(domain_name(address.rpartition("@")[2]))
        rest = rest.replace(address, " ")
    if not domains or "" in domains:
        return "", "its From field names no domain"
    domains.update(domain_name(name) for name in _NAMED.findall(rest))
    if len(domains) > 1 or "@" in _NAMED.sub(" ", rest):
        return "", "its From field names several domains"
    return domains.pop(), ""


def _is_plain(item: addresses.Item, text: str) -> bool:
    """One mailbox, no group; no comment, route or white space within its address or touching it; no @ in quotes before the one that counts."""
    address = item.addresses[0]
    if item.text != address and not item.text.endswith(f" <{address}>"):
        return False
    return "@" not in address.rpartition("@")[0] and _stands_alone(address, text)


def _stands_alone(address: str, text: str) -> bool:
    """Is the address in the text, and wherever it is, nothing touches it but what separates addresses?"""
    at = text.find(address)
    if at < 0:
        return False
    while at >= 0:
        before, after = text[:at][-1:], text[at + len(address) :][:1]
        if (before and before not in "<," and not before.isspace()) or (after and after not in ">," and not after.isspace()):
            return False
        at = text.find(address, at + 1)
    return True


def _seen(block: bytes) -> list[bytes]:
    """What follows the name of every From field that some reader may see: behind any octets that a parser breaks lines at, or leaves out."""
    text = b"\n" + block.lstrip(_BLANK)
    found = (match for match in _FROM.finditer(text) if text[match.start()] < 0x80 or text.endswith(_WIDE_BREAKS, 0, match.start() + 1))
    return [text[match.end() : match.end() + _FIELD_LIMIT] for match in found]


def _named(seen: list[bytes]) -> tuple[str, ...]:
    names = dict.fromkeys(name for value in seen for name in _domains(value) if name)
    return tuple(names)[:NAMED_LIMIT]


def _domains(value: bytes) -> Iterator[str]:
    end = _FIELD_END.search(value)
    text = _FOLD.sub(b" ", value[: end.start()] if end else value).decode("utf-8", "replace")
    for shown in (text, encoded_words.decode(text)):
        yield from map(domain_name, _NAMED.findall(shown))
