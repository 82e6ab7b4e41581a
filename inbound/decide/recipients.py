"""SES's recipient grammar, compiled to a lookup: 100,000 entries cost a message no more than one.

SES "Receipt rules": an address, a domain, or `.domain` for every subdomain. `user@d` also takes `user+label@d`; no wildcards.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

import idna

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LITERAL = re.compile(r"\[[0-9a-fA-F:.xIPvipv]+\]")


class InvalidRecipient(ValueError):
    """The text is neither an address, nor a domain, nor `.domain`."""


@functools.lru_cache(maxsize=4096)
def canonical_domain(domain: str) -> str:
    """The domain as compared: A-labels, lower case (UTS 46 mapping for U-labels). Raises InvalidRecipient."""
    if domain.isascii():
        text = domain.lower()
    else:
        try:
            text = idna.encode(domain, uts46=True).decode("ascii").lower()
        except idna.IDNAError as error:
            raise InvalidRecipient(f"{domain!r} is not a domain name: {error}") from None
    if _LITERAL.fullmatch(text):
        return text
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidRecipient(f"{domain!r} is not a domain name")
    return text


def split(address: str) -> tuple[str, str]:
    """(local-part, domain) as compared: without case, domain in A-labels. Raises InvalidRecipient."""
    local, at, domain = address.rpartition("@")
    if not at or not local or any(c in local for c in "\r\n\0") or (" " in local and not local.startswith('"')):
        raise InvalidRecipient(f"{address!r} is not an address")
    return local.casefold(), canonical_domain(domain)


def canonical_entry(entry: str) -> str:
    """An entry of a rule's Recipients as compared. Raises InvalidRecipient."""
    if "*" in entry:
        raise InvalidRecipient(f"{entry!r}: SES knows no wildcards; write 'example.com' for every address of the domain, "
                               "'.example.com' for its subdomains")
    if "@" in entry:
        local, domain = split(entry)
        return f"{local}@{domain}"
    if entry.startswith("."):
        return "." + canonical_domain(entry[1:])
    return canonical_domain(entry)


def matching_entries(address: str) -> tuple[str, ...]:
    """Every entry, in compared form, that matches the address: itself, without its label, its domain, `.parent` of each parent."""
    try:
        local, domain = split(address)
    except InvalidRecipient:
        return ()
    found = [f"{local}@{domain}"]
    base, plus, _ = local.partition("+")
    if plus and base:
        found.append(f"{base}@{domain}")
    found.append(domain)
    at = domain.find(".")
    while at >= 0:
        found.append(domain[at:])
        at = domain.find(".", at + 1)
    return tuple(found)


class Lookup:
    """Which of an ordered list of entry lists match an address. An empty list matches every address that `identities` cover."""

    def __init__(self, lists: Iterable[Sequence[str]], identities: Sequence[str]) -> None:
        self._positions: dict[str, list[int]] = {}
        self._any: list[int] = []
        self._identities = frozenset(canonical_entry(i) for i in identities)
        for position, entries in enumerate(lists):
            if not entries:
                self._any.append(position)
            for entry in dict.fromkeys(canonical_entry(e) for e in entries):
                self._positions.setdefault(entry, []).append(position)

    def covered(self, address: str) -> bool:
        """Is the address under an identity? A listed domain covers its subdomains, a listed address itself and its labels."""
        return any(entry.lstrip(".") in self._identities for entry in matching_entries(address))

    def match(self, address: str) -> tuple[int, ...]:
        """The positions, ascending, of the lists that match the address."""
        found: set[int] = set()
        for entry in matching_entries(address):
            found.update(self._positions.get(entry, ()))
        if self._any and self.covered(address):
            found.update(self._any)
        return tuple(sorted(found))
