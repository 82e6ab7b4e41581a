"""SES's recipient grammar, compiled to a lookup: 100,000 entries cost a message no more than one.

SES "Receipt rules": an address, a domain, or `.domain` for every subdomain. `user@d` also takes `user+label@d`; no wildcards.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import idna

from inbound.decide.problem import shown

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LITERAL = re.compile(r"\[[0-9a-z:.]{1,60}\]", re.ASCII)
_LOCAL_PART = re.compile(r'[^\s"(),:;<>@\[\\\]\x00-\x1f\x7f]+|"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"')
_DOMAIN_LIMIT = 253


class InvalidRecipient(ValueError):  # it names what the text is
    """The text is neither an address, nor a domain, nor `.domain`."""


@functools.lru_cache(maxsize=4096)
def canonical_domain(domain: str) -> str:
    """The domain as compared: A-labels, lower case (UTS 46 mapping for U-labels). Raises InvalidRecipient."""
    text = domain.lower() if domain.isascii() else _a_labels(domain)
    if _LITERAL.fullmatch(text):
        return text
    if len(text) > _DOMAIN_LIMIT or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise InvalidRecipient(f"{shown(domain)} is not a domain name")
    return text


def _a_labels(domain: str) -> str:
    if len(domain) > _DOMAIN_LIMIT:
        raise InvalidRecipient(f"{shown(domain)} is not a domain name")
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except idna.IDNAError as error:
        raise InvalidRecipient(f"{shown(domain)} is not a domain name: {error}") from None


@functools.lru_cache(maxsize=4096)
def split(address: str) -> tuple[str, str]:
    """(local-part, domain) as compared: without case, quotes that are not needed gone, domain in A-labels. Raises InvalidRecipient."""
    local, at, domain = address.rpartition("@")
    if not at or not domain or not _LOCAL_PART.fullmatch(local):
        raise InvalidRecipient(f"{shown(address)} is not an address (user@example.com)")
    return _canonical_local(local), canonical_domain(domain)


def _canonical_local(local: str) -> str:
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return local.lower() if local.isascii() else unicodedata.normalize("NFC", local.casefold())


def canonical_address(address: str) -> str:
    """The address as compared: addresses are one recipient if this is the same. Text that is no address is compared without case."""
    try:
        local, domain = split(address)
    except InvalidRecipient:
        return address.casefold()
    return f"{local}@{domain}"


def canonical_entry(entry: str) -> str:
    """An entry of a rule's Recipients as compared. Raises InvalidRecipient."""
    if "*" in entry:
        raise InvalidRecipient(f"{shown(entry)}: SES knows no wildcards; write 'example.com' for every address of the domain, "
                               "'.example.com' for its subdomains")
    if "@" in entry:
        local, domain = split(entry)
        return f"{local}@{domain}"
    if entry.startswith("."):
        return "." + canonical_domain(entry[1:])
    return canonical_domain(entry)


@functools.lru_cache(maxsize=4096)
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
    return (*found, domain, *_parents(domain))


def supersets(entry: str) -> tuple[str, ...]:
    """Every entry that matches all addresses that this one matches; both in compared form. It may miss some, it never names a wrong one."""
    if "@" in entry:
        return matching_entries(entry)
    return (entry, *_parents(entry.removeprefix(".")))


def _parents(domain: str) -> list[str]:
    """`.parent` for each parent of the domain, the nearest first."""
    return [domain[at:] for at, character in enumerate(domain) if character == "."]


class Lookup:
    """Which of an ordered list of entry lists match an address. An empty list matches every address that `identities` cover."""

    def __init__(self, lists: Iterable[Sequence[str]], identities: Sequence[str]) -> None:
        self._positions: dict[str, list[int]] = {}
        self._any: list[int] = []
        self._identities = frozenset(canonical_entry(i) for i in identities)
        self.match = functools.lru_cache(maxsize=1024)(self._match)  # asked at RCPT, before the scan, and by the engine
        for position, entries in enumerate(lists):
            if not entries:
                self._any.append(position)
            for entry in dict.fromkeys(canonical_entry(e) for e in entries):
                self._positions.setdefault(entry, []).append(position)

    def covered(self, address: str) -> bool:
        """Is the address under an identity? A listed domain covers its subdomains, a listed address itself and its labels."""
        return self.identity(address) is not None

    def identity(self, address: str) -> str | None:
        """The identity, in compared form, that covers the address: the most specific one."""
        found = (entry if "@" in entry else entry.removeprefix(".") for entry in matching_entries(address))
        return next((identity for identity in found if identity in self._identities), None)

    def covers(self, entry: str) -> bool:
        """Is every address that the entry matches under an identity? Raises InvalidRecipient."""
        canonical = canonical_entry(entry)
        return self.covers_compared(canonical) or ("@" in canonical and self.covered(entry))

    def covers_compared(self, entry: str) -> bool:
        """As `covers`, of an entry in compared form. It may miss one whose local part needs its quotes, and does not raise."""
        domain = entry.rpartition("@")[2].removeprefix(".")
        if domain in self._identities or any(parent[1:] in self._identities for parent in _parents(domain)):
            return True
        return "@" in entry and (entry in self._identities or self.covered(entry))

    def _match(self, address: str) -> tuple[int, ...]:
        """The positions, ascending, of the lists that match the address."""
        found: set[int] = set()
        for entry in matching_entries(address):
            found.update(self._positions.get(entry, ()))
        if self._any and self.covered(address):
            found.update(self._any)
        return tuple(sorted(found))
