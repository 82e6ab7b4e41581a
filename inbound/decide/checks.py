"""What no single value shows: contradictions between the parts of a rule file, what is not supported yet, what is probably not meant.

They read the plain data and pass by what has not the shape they expect, so that they can be told together with the models' errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from inbound.decide.document import Document
from inbound.decide.problem import KeyPath, Problem
from inbound.decide.recipients import InvalidRecipient, Lookup
from inbound.decide.wording import near

UNSUPPORTED_ACTIONS = ("WorkmailAction", "ConnectAction")


class _Rule(NamedTuple):
    path: KeyPath
    data: dict[str, Any]

    @property
    def enabled(self) -> bool:
        return self.data.get("Enabled") in (None, True)

    @property
    def matches_all(self) -> bool:
        recipients = self.data.get("Recipients", [])
        return isinstance(recipients, list) and not recipients

    @property
    def actions(self) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
        for index, action in enumerate(_listed(self.data.get("Actions"))):
            if isinstance(action, dict):
                yield (*self.path, "Actions", index), action


def contradictions(document: Document) -> Iterator[Problem]:
    """The errors."""
    if not isinstance(document.data, dict):
        return
    yield from _active_set(document)
    for _, rules in _rule_sets(document):
        yield from _name_twice(document, "rules", ((rule.path, rule.data) for rule in rules))
        for rule in rules:
            yield from _unsupported(document, rule)
    filters = enumerate(_listed(document.data.get("Filters")))
    yield from _name_twice(document, "filters", ((("Filters", index), data) for index, data in filters if isinstance(data, dict)))
    yield from _outside_identities(document)


def without_certificate(document: Document) -> Iterator[Problem]:
    """What is wrong where there is no certificate: the enabled rules of the active set that require TLS."""
    for rule in _active_rules(document):
        if rule.enabled and rule.data.get("TlsPolicy") == "Require":
            yield document.problem((*rule.path, "TlsPolicy"), "needs a certificate; "
                                   "set INBOUND_TLS_CERT and INBOUND_TLS_KEY, or write Optional")


def without_smarthost(document: Document) -> Iterator[Problem]:
    """What is wrong where there is no way to send bounces: those of the enabled rules of the active set."""
    for rule in _active_rules(document):
        for path, action in rule.actions if rule.enabled else ():
            if "BounceAction" in action:
                yield document.problem((*path, "BounceAction"), "needs a server to send bounces through; set INBOUND_SMARTHOST "
                                       "(smtp://mail.example.com:587), or 'Enabled: false' keeps the rule in the file", key=True)


def doubts(document: Document) -> Iterator[Problem]:
    """The warnings: what is allowed, and seldom meant."""
    if _active_name(document) is None:
        yield document.problem(("ActiveRuleSet",), "receiving is off; every recipient is refused")
    elif not any(rule.enabled for rule in _active_rules(document)):
        path = ("RuleSets", str(_active_name(document)))
        yield document.problem(path, "the active rule set has no enabled rule; every recipient is refused", key=True)
    for _, rules in _rule_sets(document):
        for rule in rules:
            yield from _idle(document, rule)
            yield from _odd_bounces(document, rule)


def _active_name(document: Document) -> str | None:
    if "ActiveRuleSet" in document.data:
        name: str | None = document.data["ActiveRuleSet"]
        return name
    return next((name for name, _ in _rule_sets(document)), None)


def _active_rules(document: Document) -> list[_Rule]:
    if not isinstance(document.data, dict):
        return []
    return dict(_rule_sets(document)).get(str(_active_name(document)), [])


def _rule_sets(document: Document) -> Iterator[tuple[str, list[_Rule]]]:
    sets = document.data.get("RuleSets")
    for name, rules in sets.items() if isinstance(sets, dict) else ():
        found = [_Rule(("RuleSets", name, index), data) for index, data in enumerate(_listed(rules)) if isinstance(data, dict)]
        yield name, [rule for rule in found if document.knows(rule.path)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _active_set(document: Document) -> Iterator[Problem]:
    sets = document.data.get("RuleSets") or {}
    if not isinstance(sets, dict) or not document.knows(()):
        return
    if "ActiveRuleSet" in document.data:
        active = document.data["ActiveRuleSet"]
        if isinstance(active, str) and active not in sets:
            meant = near(active, list(sets))
            instead = f"did you mean {meant!r}?" if meant else f"there is {', '.join(sets) or 'none'}"
            yield document.problem(("ActiveRuleSet",), f"there is no rule set {active!r}; {instead}")
    elif not sets and not any(near(key, ["RuleSets"]) for key in document.data):
        yield document.problem(("RuleSets",), "no rule set is given; to receive nothing, write 'ActiveRuleSet: null'")
    elif len(sets) > 1:
        yield document.problem(("ActiveRuleSet",), f"is missing; name the rule set in use: {', '.join(sets)}")


def _name_twice(document: Document, kind: str, named: Iterable[tuple[KeyPath, dict[str, Any]]]) -> Iterator[Problem]:
    first: dict[str, KeyPath] = {}
    for path, data in named:
        name = data.get("Name")
        if not isinstance(name, str):
            continue
        if name in first:
            line, _ = document.place((*first[name], "Name"))
            yield document.problem((*path, "Name"), f"two {kind} have the name {name!r}, the first at line {line}")
        first.setdefault(name, path)


def _unsupported(document: Document, rule: _Rule) -> Iterator[Problem]:
    if not rule.enabled:
        return
    for path, action in rule.actions:
        for key in (key for key in UNSUPPORTED_ACTIONS if key in action):
            yield document.problem((*path, key), "is not supported yet; 'Enabled: false' keeps the rule in the file", key=True)


def _outside_identities(document: Document) -> Iterator[Problem]:
    identities = document.data.get("Identities") or []
    if not isinstance(identities, list):
        return
    try:
        lookup = Lookup([], [str(identity) for identity in identities])
    except InvalidRecipient:
        return
    for _, rules in _rule_sets(document):
        for rule in rules:
            if rule.matches_all and not identities:
                yield document.problem(rule.path, "has no Recipients, so it takes what Identities name; list your domains under Identities")
            if identities:
                yield from _outside(document, lookup, rule)


def _outside(document: Document, lookup: Lookup, rule: _Rule) -> Iterator[Problem]:
    for index, entry in enumerate(_listed(rule.data.get("Recipients"))):
        try:
            inside = not isinstance(entry, str) or lookup.covers(entry)
        except InvalidRecipient:
            continue
        if not inside:
            yield document.problem((*rule.path, "Recipients", index), f"{entry!r} is outside Identities; add its domain there")


def _idle(document: Document, rule: _Rule) -> Iterator[Problem]:
    actions = list(rule.actions)
    if rule.enabled and not actions:
        yield document.problem(rule.path, "has no actions; it accepts mail and does nothing with it")
    stops = [index for index, (_, action) in enumerate(actions) if "StopAction" in action]
    if stops and stops[0] < len(actions) - 1:
        yield document.problem(actions[stops[0] + 1][0], "never runs; it comes after a StopAction")


def _odd_bounces(document: Document, rule: _Rule) -> Iterator[Problem]:
    identities = document.data.get("Identities") or []
    for path, action in rule.actions if rule.enabled else ():
        bounce = action.get("BounceAction")
        if not isinstance(bounce, dict):
            continue
        code, status = str(bounce.get("SmtpReplyCode")), bounce.get("StatusCode")
        if status is not None and str(status)[:1] != code[:1]:
            yield document.problem((*path, "BounceAction", "StatusCode"), f"{str(status)!r} is of another class than SmtpReplyCode {code!r}; "
                                   "both begin with 5 for a permanent failure, with 4 for a temporary one")
        if identities and not Lookup([], identities).covered(str(bounce.get("Sender"))):
            yield document.problem((*path, "BounceAction", "Sender"), f"{bounce.get('Sender')!r} is outside Identities; SES takes only verified "
                                   "identities here, and the world only mail that SPF and DKIM of that domain allow us to send")
