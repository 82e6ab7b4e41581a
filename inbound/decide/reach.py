"""Which rules can never match, since earlier ones stop all that they are for; and which take what later ones are for as well.

Pure, and careful: what is said of a rule holds for every message, over TLS or not, whatever functions answer and whatever a stop ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from inbound.decide.recipients import Lookup, canonical_entry, supersets
from inbound.decide.rules import AddHeader, Lambda, ReceiptRule, Stop


class Reach:
    """What the rules of a set are for, compared with each other. Disabled rules count for nothing."""

    def __init__(self, rules: Sequence[ReceiptRule], identities: Sequence[str]) -> None:
        self._rules = rules
        self._lookup = Lookup([], identities)
        self._everything = frozenset(part for identity in map(canonical_entry, identities) for part in _whole(identity))
        self._entries = [frozenset(map(canonical_entry, rule.Recipients)) for rule in rules]
        self._for_all = [self._is_for_all(position) for position in range(len(rules))]
        self._stopped = self._find_stopped()

    def stopped(self, position: int) -> tuple[int, ...]:
        """The earlier rules that together stop all that this one is for, so that it can never match; empty if it may."""
        return self._stopped[position]

    def taken_along(self, position: int) -> tuple[int, ...]:
        """The later rules for some recipients whose mail this one, which is for all, acts on before them, without stopping it."""
        rule = self._rules[position]
        acts = any(not isinstance(action.only, AddHeader) for action in rule.Actions)
        decides = any(_asks(action.only) for action in rule.Actions)
        if not rule.Enabled or not acts or decides or _ends(rule) or not self._for_all[position]:
            return ()
        later = range(position + 1, len(self._rules))
        return tuple(each for each in later if self._rules[each].Enabled and not self._for_all[each] and _runs_with(rule, self._rules[each]))

    def _is_for_all(self, position: int) -> bool:
        """Are its entries, or the lack of any, for every address of the identities?"""
        entries = self._entries[position]
        return bool(self._everything) and (not entries or all(not entries.isdisjoint(supersets(part)) for part in self._everything))

    def _find_stopped(self) -> list[tuple[int, ...]]:
        """One walk: what the rules so far stop over TLS, and what they stop without it as well."""
        always, over_tls = _Stops(self._lookup), _Stops(self._lookup)
        found: list[tuple[int, ...]] = []
        for rule, entries in zip(self._rules, self._entries, strict=True):
            earlier = over_tls if rule.TlsPolicy == "Require" else always
            found.append(earlier.of(entries or self._everything) if rule.Enabled else ())
            for stops in (over_tls, *([always] if rule.TlsPolicy == "Optional" else [])):
                stops.add(len(found) - 1, entries, ends=_ends(rule))
        return found


class _Stops:
    """What is stopped, and by which rule first: by its entries, or all that the identities cover by a rule without any."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._first: dict[str, int] = {}
        self._all: int | None = None
        self._open = ""  # an entry that was not stopped when last asked

    def add(self, position: int, entries: frozenset[str], *, ends: bool) -> None:
        """One more rule."""
        if ends and not entries and self._all is None:
            self._all = position
        for entry in entries if ends else ():
            self._first.setdefault(entry, position)

    def of(self, parts: frozenset[str]) -> tuple[int, ...]:
        """The rules that stop these entries; empty if one of them is open."""
        if self._open in parts and self._by(self._open) is None:
            return ()
        found: set[int] = set()
        for part in parts:
            position = self._by(part)
            if position is None:
                self._open = part
                return ()
            found.add(position)
        return tuple(sorted(found))

    def _by(self, part: str) -> int | None:
        """The first rule that stops every address that the entry matches."""
        found = [position for entry in supersets(part) if (position := self._first.get(entry)) is not None]
        if self._all is not None and self._lookup.covers_compared(part):
            found.append(self._all)
        return min(found, default=None)


def _whole(identity: str) -> tuple[str, ...]:
    """The entries that match what the identity covers: a domain covers its subdomains."""
    return (identity,) if "@" in identity else (identity, f".{identity}")


def _runs_with(rule: ReceiptRule, other: ReceiptRule) -> bool:
    """Does TLS let it run whenever it lets the other?"""
    return rule.TlsPolicy == "Optional" or other.TlsPolicy == "Require"


def _asks(action: object) -> bool:
    return isinstance(action, Lambda) and action.InvocationType == "RequestResponse"


def _ends(rule: ReceiptRule) -> bool:
    """Does it stop the rule set in any case? A function that is asked before the Stop may end the rule alone."""
    if not rule.Enabled:
        return False
    deciding = (action.only for action in rule.Actions if isinstance(action.only, Stop) or _asks(action.only))
    return isinstance(next(deciding, None), Stop)
