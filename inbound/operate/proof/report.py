"""The outcome of a proof: how much was compared, how much was equal, and the differences by whose doing they are and by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inbound.operate.proof.difference import Difference, Tally, Whose

_EXAMPLES = 3
_VALUE = 160  # characters of a value that are shown to people


@dataclass(slots=True)
class Report:
    """What was found so far. `skipped` counts what was not judged, by why; `not_compared` tells of fields that nobody can compare here."""

    messages: int = 0
    equal: int = 0
    identical: int = 0
    found: list[tuple[str, Difference]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_places: list[tuple[str, str]] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    def add(self, where: str, tally: Tally) -> None:
        """A message that was judged."""
        self.messages += 1
        self.equal += tally.equal
        self.identical += not tally.differences
        self.found += ((where, each) for each in tally.differences)

    def skip(self, where: str, why: str) -> None:
        """Something that was not judged."""
        self.skipped[why] += 1
        self.skipped_places.append((where, why))

    @property
    def ours(self) -> int:
        """How many differences speak against us."""
        return sum(each.whose is Whose.OURS for _, each in self.found)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "messages": self.messages, "identical": self.identical,
            "skipped": [{"where": where, "why": why} for where, why in self.skipped_places], "not_compared": self.not_compared,
            "fields": {"compared": self.equal + len(self.found), "equal": self.equal},
            "differences": [{"where": where, "field": each.field, "ses": each.theirs, "inbound": each.ours, "whose": str(each.whose),
                             "cause": each.cause} for where, each in self._sorted()],
        }

    def told(self) -> Iterator[str]:
        """For people: a line each."""
        yield f"{self.messages} message{'s' * (self.messages != 1)} judged, {self.identical} equal in every field"
        for why, count in self.skipped.most_common():
            yield f"{count} not judged: {why}"
        yield f"{self.equal + len(self.found)} fields compared, {self.equal} equal"
        yield from (f"not compared: {each}" for each in self.not_compared)
        for whose in Whose:
            groups = self._groups(whose)
            if groups:
                yield ""
                yield f"{whose}: {sum(map(len, groups.values()))} difference{'s' * (sum(map(len, groups.values())) != 1)}"
                for (name, cause), examples in groups.items():
                    yield from _group(name, cause, examples)

    def _sorted(self) -> list[tuple[str, Difference]]:
        """By message, whichever was judged first."""
        return sorted(self.found, key=lambda item: item[0])

    def _groups(self, whose: Whose) -> dict[tuple[str, str], list[tuple[str, Difference]]]:
        """The differences by field and cause, the most frequent first."""
        groups: dict[tuple[str, str], list[tuple[str, Difference]]] = {}
        for where, each in self._sorted():
            if each.whose is whose:
                groups.setdefault((each.field, each.cause), []).append((where, each))
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _group(name: str, cause: str, examples: list[tuple[str, Difference]]) -> Iterator[str]:
    """The differences of one cause: each pair of values once, with the first message that has it."""
    yield f"  {len(examples)} x {name}: {cause}"
    places: dict[tuple[str, str], list[str]] = {}
    for where, each in examples:
        places.setdefault((_shown(each.theirs), _shown(each.ours)), []).append(where)
    for (theirs, ours), found in list(places.items())[:_EXAMPLES]:
        yield f"      {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        yield f"        SES      {theirs}"
        yield f"        inbound  {ours}"
    if len(places) > _EXAMPLES:
        yield f"      and {len(places) - _EXAMPLES} more pairs of values, see --json"


def _shown(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…"
