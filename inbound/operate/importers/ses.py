"""SES's own JSON: what `aws ses describe-active-receipt-rule-set`, `describe-receipt-rule-set`, `list-receipt-filters` and `list-identities`
print -> a draft; and rules back into the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inbound.decide.problem import shown
from inbound.decide.rules import RuleFile
from inbound.operate.importers.draft import Draft, Drafted, ImportRefused

_KNOWN = ("Metadata", "Rules", "Filters", "Identities")
_ANSWER = ("ResponseMetadata", "NextToken")


def read(documents: Iterable[tuple[str, Any]]) -> Draft:
    """The draft of all documents together, each with the name of its file. Raises ImportRefused."""
    draft = Draft("SES")
    for name, data in documents:
        _take(draft, name, data)
    if not draft.rule_sets:
        draft.is_active(None)
        draft.remarks.append("no rule set is active: nothing is received")
    elif len(draft.rule_sets) == 1:
        draft.is_active(next(iter(draft.rule_sets)))
    return draft


def _take(draft: Draft, name: str, data: Any) -> None:
    if not isinstance(data, dict) or (unknown := [key for key in data if key not in (*_KNOWN, *_ANSWER)]):
        held = f"the key {shown(unknown[0])}" if isinstance(data, dict) else f"a {type(data).__name__}"
        raise ImportRefused(f"{name}: is none of describe-active-receipt-rule-set, describe-receipt-rule-set, list-receipt-filters and "
                            f"list-identities (aws ses … --output json); it holds {held}")
    if data.get("NextToken"):
        draft.remarks.append(f"{name} is one page of several (it has a NextToken): the rest is missing")
    if "Rules" in data or "Metadata" in data:
        _rule_set(draft, name, data)
    draft.filters += [Drafted(_object(each, f"{name}: Filters[{number}]"), f"{name}: Filters[{number}]")
                      for number, each in enumerate(_list(data.get("Filters"), f"{name}: Filters"))]
    draft.identities += [str(each) for each in _list(data.get("Identities"), f"{name}: Identities") if str(each) not in draft.identities]


def _rule_set(draft: Draft, name: str, data: Mapping[str, Any]) -> None:
    metadata = data.get("Metadata")
    title = metadata.get("Name") if isinstance(metadata, dict) else None
    if not isinstance(title, str):
        raise ImportRefused(f"{name}: Metadata.Name is missing; give the whole answer, not its Rules alone")
    rules = [Drafted(_object(each, f"{name}: Rules[{number}]"), f"{name}: Rules[{number}] of {title}")
             for number, each in enumerate(_list(data.get("Rules"), f"{name}: Rules"))]
    known = draft.rule_sets.get(title)
    if known is not None and [rule.data for rule in known] != [rule.data for rule in rules]:
        raise ImportRefused(f"{name}: the rule set {title} is given twice, and not the same; leave out the older file")
    if known is None:
        draft.rule_sets[title] = rules


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ImportRefused(f"{where} is not a list")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImportRefused(f"{where} is not an object")
    return value


def export(rule_file: RuleFile, name: str) -> dict[str, Any]:
    """The rule set as `describe-active-receipt-rule-set` answers, and the filters as `list-receipt-filters` does, in one object.

    What the file leaves to SES's defaults is left out; Enabled, whose default differs, is always there. CreatedTimestamp is SES's own.
    """
    rules: list[dict[str, Any]] = []
    for rule in rule_file.RuleSets[name]:
        data = rule.model_dump(mode="json", exclude_unset=True)
        rules.append({"Name": data.pop("Name"), "Enabled": rule.Enabled, **data})
    told: dict[str, Any] = {"Metadata": {"Name": name}, "Rules": rules}
    if rule_file.Filters:
        told["Filters"] = [each.model_dump(mode="json") for each in rule_file.Filters]
    return told
