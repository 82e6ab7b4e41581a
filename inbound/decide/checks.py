"""What no single value shows: contradictions between the parts of a rule file, what is not supported yet, what is probably not meant.

They read the plain data and pass by what has not the shape they expect, so that they can be told together with the models' errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from inbound.decide.document import Document
from inbound.decide.problem import KeyPath, Problem
from inbound.decide.reach import Reach
from inbound.decide.recipients import InvalidRecipient, Lookup, canonical_entry
from inbound.decide.rules import ReceiptRule, RuleFile
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
                                   "set INBOUND_TLS_CERT and INBOUND_TLS_KEY, or write Optional", code="needs-certificate")


def without_smarthost(document: Document) -> Iterator[Problem]:
    """What is wrong where there is no way to send bounces: those of the enabled rules of the active set."""
    for rule in _active_rules(document):
        for path, action in rule.actions if rule.enabled else ():
            if "BounceAction" in action:
                yield document.problem((*path, "BounceAction"), "needs a server to send bounces through; set INBOUND_SMARTHOST "
                                       "(smtp://mail.example.com:587), or 'Enabled: false' keeps the rule in the file", key=True,
                                       code="needs-smarthost")


def doubts(document: Document, rule_file: RuleFile) -> Iterator[Problem]:
    """The warnings about a document without errors, and the models made of it: what is allowed, and seldom meant."""
    if _active_name(document) is None:
        yield document.problem(("ActiveRuleSet",), "receiving is off; every recipient is refused", code="receiving-off")
    elif not any(rule.enabled for rule in _active_rules(document)):
        path = ("RuleSets", str(_active_name(document)))
        yield document.problem(path, "the active rule set has no enabled rule; every recipient is refused", key=True, code="no-enabled-rule")
    for name, rules in _rule_sets(document):
        for rule in rules:
            yield from _idle(document, rule)
            yield from _odd_bounces(document, rule)
            yield from _odd_recipients(document, rule, rules)
            yield from _sns_alone(document, rule)
        yield from _reach(document, rules, rule_file.RuleSets[name], rule_file.Identities)
    yield from _elsewhere(document)


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
        yield document.problem(rule.path, "has no actions; it accepts mail and does nothing with it", code="no-actions")
    stops = [index for index, (_, action) in enumerate(actions) if "StopAction" in action]
    if stops and stops[0] < len(actions) - 1:
        yield document.problem(actions[stops[0] + 1][0], "never runs; it comes after a StopAction", code="after-stop")


def _odd_bounces(document: Document, rule: _Rule) -> Iterator[Problem]:
    identities = document.data.get("Identities") or []
    for path, action in rule.actions if rule.enabled else ():
        bounce = action.get("BounceAction")
        if not isinstance(bounce, dict):
            continue
        code, status = str(bounce.get("SmtpReplyCode")), bounce.get("StatusCode")
        if status is not None and str(status)[:1] != code[:1]:
            yield document.problem((*path, "BounceAction", "StatusCode"), f"{str(status)!r} is of another class than SmtpReplyCode {code!r}; "
                                   "both begin with 5 for a permanent failure, with 4 for a temporary one", code="bounce-status")
        if identities and not Lookup([], identities).covered(str(bounce.get("Sender"))):
            yield document.problem((*path, "BounceAction", "Sender"), f"{bounce.get('Sender')!r} is outside Identities; SES takes only verified "
                                   "identities here, and the world only mail that SPF and DKIM of that domain allow us to send", code="bounce-sender")


def _odd_recipients(document: Document, rule: _Rule, rules: list[_Rule]) -> Iterator[Problem]:
    recipients = rule.data.get("Recipients")
    if recipients == [] and rule.enabled and any(other.enabled for other in rules if other is not rule):
        yield document.problem((*rule.path, "Recipients"), "is empty, and so matches every address of Identities, not none; "
                               "leave the key out if that is meant", key=True, code="empty-recipients")
    first: dict[str, str] = {}
    for index, entry in enumerate(_listed(recipients)):
        canonical = canonical_entry(entry)
        if canonical in first:
            same = f" ({first[canonical]!r}: letter case does not matter)" if first[canonical] != entry else ""
            yield document.problem((*rule.path, "Recipients", index), f"{entry!r} is listed twice{same}", code="duplicate-recipient")
        first.setdefault(canonical, entry)


def _sns_alone(document: Document, rule: _Rule) -> Iterator[Problem]:
    actions = list(rule.actions)
    if rule.enabled and not any("S3Action" in action for _, action in actions):
        for path, _ in (each for each in actions if "SNSAction" in each[1]):
            yield document.problem((*path, "SNSAction"), "takes at most 150 KB; longer messages bounce, and no S3Action of this rule keeps them",
                                   key=True, code="sns-alone")


def _reach(document: Document, rules: list[_Rule], models: Sequence[ReceiptRule], identities: Sequence[str]) -> Iterator[Problem]:
    """What earlier rules leave of a rule, and what a rule for everybody takes of later ones."""
    reach = Reach(models, identities)

    def named(positions: tuple[int, ...]) -> str:
        told = [f"{models[each].Name!r} (line {document.place(rules[each].path)[0]})" for each in positions[:3]]
        return ", ".join(told) + (f" and {len(positions) - 3} more" if len(positions) > 3 else "")

    for position, rule in enumerate(rules):
        if stopped := reach.stopped(position):
            yield document.problem(rule.path, f"can never match: {named(stopped)} {'stops' if len(stopped) == 1 else 'stop'} all that it is for; "
                                   "put it before, or remove it", code="never-matches")
        elif taken := reach.taken_along(position):
            yield document.problem(rule.path, f"is for everybody, and acts first on what {named(taken)} {'is' if len(taken) == 1 else 'are'} for; "
                                   "put it last, and end those with a StopAction", code="catch-all-first")


def _elsewhere(document: Document) -> Iterator[Problem]:
    """ARNs of another region or account than most."""
    found = [(path, value.split(":")) for _, rules in _rule_sets(document) for rule in rules for path, value in _arns(rule)]
    for place, kind in ((3, "region"), (4, "account")):
        counted = Counter(parts[place] for _, parts in found if parts[place])
        usual = counted.most_common(1)[0][0] if counted else ""
        for path, parts in found:
            if parts[place] and parts[place] != usual:
                yield document.problem(path, f"is in the {kind} {parts[place]}, most of this file in {usual}", code="other-region")


def _arns(rule: _Rule) -> Iterator[tuple[KeyPath, str]]:
    for path, action in rule.actions:
        for name, parameters in action.items():
            for key, value in parameters.items():
                if isinstance(value, str) and key.lower().endswith("arn"):
                    yield (*path, name, key), value
