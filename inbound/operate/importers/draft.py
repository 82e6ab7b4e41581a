"""A rule file in the making: what a source told, in SES's own shapes, with where each part came from and what it left open.

A value that a source does not tell is `Unresolved`, never a guess; it makes the written file one that `inbound check` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inbound.decide.checks import UNSUPPORTED_ACTIONS

BOOLEANS = frozenset({"Enabled", "ScanEnabled"})
_KEYS = ("Name", "Enabled", "TlsPolicy", "ScanEnabled", "Recipients", "Actions")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class ImportRefused(Exception):
    """The source is not what it should be, or AWS does not answer: one line for the person who imports."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Stands for a value: `said` is how the source writes it, `why` what is missing and how to give it."""

    said: str
    why: str


@dataclass(slots=True)
class Drafted:
    """One rule or filter in SES's keys; its data may hold Unresolved. `origin` tells where it came from."""

    data: dict[str, Any]
    origin: str
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name, or what stands for it."""
        name = self.data.get("Name", "without a name")
        return name.said if isinstance(name, Unresolved) else str(name)


@dataclass(slots=True)
class Draft:
    """A rule file in the making. `remarks` concern the whole of it.

    `active` is told by `knows_active`: the name of the rule set in use, None where receiving is off.
    """

    source: str
    rule_sets: dict[str, list[Drafted]] = field(default_factory=dict)
    filters: list[Drafted] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)
    active: str | None = None
    knows_active: bool = False
    remarks: list[str] = field(default_factory=list)

    def is_active(self, name: str | None) -> None:
        """Note the rule set in use. Raises ImportRefused where that contradicts what is known."""
        if self.knows_active and self.active != name:
            raise ImportRefused(f"two rule sets are said to be active: {self.active} and {name}; name one with --active")
        self.active, self.knows_active = name, True

    def settle(self) -> None:
        """Make it fit for a rule file: SES's defaults are written out, what is not supported is disabled, nulls are gone."""
        for rules in self.rule_sets.values():
            for rule in rules:
                rule.data = _rule(rule.data)
                self._disable(rule)
        for each in self.filters:
            each.data = {"Name": "", **_plain(each.data)}

    @staticmethod
    def _disable(rule: Drafted) -> None:
        actions = rule.data.get("Actions")
        kinds = [key for action in actions if isinstance(action, dict) for key in action] if isinstance(actions, list) else []
        for kind in (kind for kind in UNSUPPORTED_ACTIONS if kind in kinds):
            if rule.data["Enabled"] is not False:
                rule.remarks.append(f"{kind} is not supported yet, so the rule comes in disabled (in the source Enabled is true)")
                rule.data["Enabled"] = False

    def remarked(self) -> Iterator[tuple[str, str]]:
        """Every remark, with the part it is about."""
        for remark in self.remarks:
            yield "", remark
        for name, rules in self.rule_sets.items():
            for rule in rules:
                yield from ((f"{name}/{rule.name}", remark) for remark in (*rule.remarks, *_open(rule.data)))
        for each in self.filters:
            yield from ((f"filter {each.name}", remark) for remark in (*each.remarks, *_open(each.data)))


def unresolved(value: Any, path: str = "") -> Iterator[tuple[str, Unresolved]]:
    """What is unresolved in the value, each with its path."""
    if isinstance(value, Unresolved):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from unresolved(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from unresolved(inner, f"{path}[{number}]")


def _open(data: dict[str, Any]) -> Iterator[str]:
    return (f"{path} is not resolved: {each.why}" for path, each in unresolved(data))


def _rule(data: dict[str, Any]) -> dict[str, Any]:
    """The rule with its keys in the order that people read them in, and Enabled written out: SES's default is false."""
    plain = {"Name": "", "Enabled": False, **_plain(data)}
    return {**{key: plain[key] for key in _KEYS if key in plain}, **plain}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _value(key, value) for key, value in data.items() if value is not None}


def _value(key: str, value: Any) -> Any:
    """A value as a rule file holds it: booleans where SES has booleans, else text; a key that is null is one that is not there."""
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list):
        return [_value("", item) for item in value if item is not None]
    if key in BOOLEANS and isinstance(value, str):
        return _TRUTH.get(value.lower(), value)
    if isinstance(value, bool):
        return value if key in BOOLEANS else str(value).lower()
    return str(value) if isinstance(value, int | float) else value
