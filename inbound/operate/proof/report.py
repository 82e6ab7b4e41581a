"""The outcome of a proof: how much was compared, how much was equal, and the differences by whose doing they are and by cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inbound.operate.proof.difference import Tally, Whose

KEPT = 1_000  # differences of one cause that are kept whole; the others are counted
_SHOWN = 3  # pairs of values of one cause that are shown to people
_VALUE = 160  # characters of a value that are shown to people


@dataclass(frozen=True, slots=True)
class Example:
    """A difference in one message: where it is, and both values."""

    where: str
    theirs: Any
    ours: Any


@dataclass(slots=True)
class Group:
    """All differences in one field for one cause: how many there are, and up to KEPT of them."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < KEPT:
            self.examples.append(example)


@dataclass(slots=True)
class Report:
    """What was found so far. `groups` by whose doing, field and cause; `skipped` is what was not judged, by why and where.

    `not_compared` tells of fields that nobody can compare here.
    """

    messages: int = 0
    equal: int = 0
    identical: int = 0
    groups: dict[tuple[Whose, str, str], Group] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    not_compared: list[str] = field(default_factory=list)

    def add(self, where: str, tally: Tally) -> None:
        """A message that was judged."""
        self.messages += 1
        self.equal += tally.equal
        self.identical += not tally.differences
        for each in tally.differences:
            self.groups.setdefault((each.whose, each.field, each.cause), Group()).add(Example(where, each.theirs, each.ours))

    def skip(self, where: str, why: str) -> None:
        """Something that was not judged."""
        self.skipped.setdefault(why, []).append(where)

    @property
    def compared(self) -> int:
        """How many fields were compared."""
        return self.equal + sum(group.count for group in self.groups.values())

    @property
    def ours(self) -> int:
        """How many differences speak against us."""
        return sum(group.count for (whose, _, _), group in self.groups.items() if whose is Whose.OURS)

    def to_json(self) -> dict[str, Any]:
        """For programs. `count` of a cause may be more than the messages that are listed for it."""
        return {
            "messages": self.messages, "identical": self.identical, "fields": {"compared": self.compared, "equal": self.equal},
            "not_compared": self.not_compared,
            "skipped": [{"where": where, "why": why} for why, places in self.skipped.items() for where in sorted(places)],
            "causes": [{"whose": str(whose), "field": name, "cause": cause, "count": group.count}
                       for (whose, name, cause), group in self._sorted()],
            "differences": [{"where": each.where, "field": name, "ses": each.theirs, "inbound": each.ours, "whose": str(whose), "cause": cause}
                            for (whose, name, cause), group in self._sorted() for each in group.examples],
        }

    def told(self) -> Iterator[str]:
        """For people: a line each."""
        yield f"{_many(self.messages, 'message')} judged, {self.identical} equal in every field"
        yield from (f"{len(places)} not judged: {why}" for why, places in self.skipped.items())
        yield f"{self.compared} fields compared, {self.equal} equal"
        yield from (f"not compared: {each}" for each in self.not_compared)
        for whose in Whose:
            groups = [(name, cause, group) for (doing, name, cause), group in self._sorted() if doing is whose]
            if groups:
                yield ""
                yield f"{whose}: {_many(sum(group.count for _, _, group in groups), 'difference')}"
                for name, cause, group in groups:
                    yield from _group(name, cause, group)

    def why_none(self) -> Iterator[str]:
        """In one text why nothing was judged, if there was anything."""
        if self.skipped:
            yield "; ".join(f"{min(places)}{f' and {len(places) - 1} more' * (len(places) > 1)}: {why}" for why, places in self.skipped.items())

    def _sorted(self) -> list[tuple[tuple[Whose, str, str], Group]]:
        """The most frequent cause first; in each the messages by name, whichever was judged first."""
        for group in self.groups.values():
            group.examples.sort(key=lambda example: example.where)
        return sorted(self.groups.items(), key=lambda item: (-item[1].count, item[0]))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _group(name: str, cause: str, group: Group) -> Iterator[str]:
    """The differences of one cause: each pair of values once, with the first message that has it."""
    yield f"  {group.count} x {name}: {cause}"
    places: dict[tuple[str, str], list[str]] = {}
    for each in group.examples:
        places.setdefault((_shown(each.theirs), _shown(each.ours)), []).append(each.where)
    for (theirs, ours), found in list(places.items())[:_SHOWN]:
        yield f"      {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        yield f"        SES      {theirs}"
        yield f"        inbound  {ours}"
    if len(places) > _SHOWN:
        yield f"      and {len(places) - _SHOWN} more pairs of values, see --json"


def _shown(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…"
