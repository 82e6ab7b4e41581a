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

    def stopped(self, position: int) -> tuple[int, ...]:
        """The earlier rules that together stop all that this one is for, so that it can never match; empty if it may."""
        rule, parts = self._rules[position], self._parts(position)
        if not rule.Enabled or not parts:
            return ()
        ending = [each for each in range(position) if _ends(self._rules[each]) and _runs_with(self._rules[each], rule)]
        found = [next((each for each in ending if self._covers(each, part)), None) for part in sorted(parts)]
        return () if None in found else tuple(sorted({each for each in found if each is not None}))

    def taken_along(self, position: int) -> tuple[int, ...]:
        """The later rules for some recipients whose mail this one, which is for all, acts on before them, without stopping it."""
        rule = self._rules[position]
        acts = any(not isinstance(action.only, AddHeader) for action in rule.Actions)
        decides = any(_asks(action.only) for action in rule.Actions)
        if not rule.Enabled or not acts or decides or _ends(rule) or not self._is_for_all(position):
            return ()
        later = range(position + 1, len(self._rules))
        return tuple(each for each in later if self._rules[each].Enabled and not self._is_for_all(each) and _runs_with(rule, self._rules[each]))

    def _parts(self, position: int) -> frozenset[str]:
        return self._entries[position] or self._everything

    def _is_for_all(self, position: int) -> bool:
        return bool(self._everything) and all(self._covers(position, part) for part in self._everything)

    def _covers(self, position: int, part: str) -> bool:
        """Does the rule match every address that the entry `part` matches?"""
        entries = self._entries[position]
        return not entries.isdisjoint(supersets(part)) if entries else self._lookup.covers(part)


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
