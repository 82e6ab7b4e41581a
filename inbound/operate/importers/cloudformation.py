"""A CloudFormation template's AWS::SES::ReceiptRuleSet, ReceiptRule, ReceiptFilter and EmailIdentity -> a draft.

The order of rules is that of the `After` chain. Names that CloudFormation makes up are not known; the logical id stands for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inbound.decide.problem import KeyPath
from inbound.operate.importers.draft import Draft, Drafted, ImportRefused, Unresolved, unresolved
from inbound.operate.importers.intrinsics import NO_VALUE, Given, Resolver
from inbound.operate.importers.order import Placed, in_order
from inbound.operate.importers.template import Template, read

_PREFIX = "AWS::SES::Receipt"
_UNEXPANDED = ("Fn::ForEach", "Fn::Transform")


def draft(text: str, name: str, given: Given) -> Draft:
    """The draft of the template in the text; `given` are the values of parameters. Raises ImportRefused."""
    template = read(text, name)
    found = _Reader(template, given).draft()
    if not found.rule_sets and not found.filters:
        missing = "; ".join(found.remarks) or f"has no resource of the type {_PREFIX}Rule, {_PREFIX}RuleSet or {_PREFIX}Filter"
        raise ImportRefused(f"{name}: {missing}")
    return found


class _Reader:
    def __init__(self, template: Template, given: Given) -> None:
        self._template = template
        self._resolver = Resolver(template, given)
        self._given = given
        self._draft = Draft("CloudFormation")

    def draft(self) -> Draft:
        """Everything of the template that is about receiving."""
        for key, resource in self._template.data["Resources"].items():
            body = resource if isinstance(resource, dict) else {}
            if body.get("Type") == "AWS::CloudFormation::Stack":
                self._draft.remarks.append(f"{key} is a stack of its own: what its template makes is missing; import that template, too")
            if str(key).startswith(_UNEXPANDED) or any(str(inner).startswith(_UNEXPANDED) for inner in body):
                self._draft.remarks.append(f"{key} is not expanded here: what it makes is missing; import the processed template "
                                           "(aws cloudformation get-template --template-stage Processed)")
        for logical_id, resource in self._of("AWS::SES::ReceiptRuleSet"):
            self._set_named(self._set_name(logical_id, resource))
        self._rules()
        for logical_id, resource in self._of("AWS::SES::ReceiptFilter"):
            self._filter(logical_id, resource)
        for logical_id, resource in self._of("AWS::SES::EmailIdentity"):
            self._identity(logical_id, resource)
        if len(self._draft.rule_sets) == 1:
            self._draft.is_active(next(iter(self._draft.rule_sets)))
        return self._draft

    def _of(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The resources of the type that exist, or may exist."""
        for logical_id, resource in self._template.data["Resources"].items():
            if isinstance(resource, dict) and resource.get("Type") == kind and self._exists(logical_id, resource) is not False:
                yield str(logical_id), resource

    def _exists(self, logical_id: str, resource: Mapping[str, Any]) -> Any:
        return self._resolver.exists(resource, ("Resources", logical_id))

    def _properties(self, logical_id: str, resource: Mapping[str, Any], name: str = "") -> Any:
        """The properties, evaluated, or one of them: None where it is not given."""
        path: KeyPath = ("Resources", logical_id, "Properties")
        properties = resource.get("Properties")
        if not isinstance(properties, dict):
            return None if name else {}
        if not name:
            return self._resolver.value(properties, path)
        found = self._resolver.value(properties.get(name), (*path, name))
        return None if found is NO_VALUE else found

    # --- rule sets ---

    def _set_name(self, logical_id: str, resource: Mapping[str, Any]) -> str:
        """The name of the set that the resource makes."""
        name = self._given.get(logical_id) or self._properties(logical_id, resource, "RuleSetName")
        if name is None:
            self._remark(f"CloudFormation makes up the name of the rule set {logical_id}; that id stands for it, --parameter {logical_id}=NAME "
                         "gives the real one")
            return logical_id
        return self._said(name, f"the name of the rule set {logical_id}")

    def _set_of(self, logical_id: str, rule: Mapping[str, Any]) -> str:
        """The name of the set that the rule is in."""
        properties = rule.get("Properties")
        named = properties.get("RuleSetName") if isinstance(properties, dict) else None
        target = named.get("Ref") if isinstance(named, dict) else None
        made = self._template.data["Resources"].get(target) if isinstance(target, str) else None
        if isinstance(target, str) and isinstance(made, dict) and made.get("Type") == "AWS::SES::ReceiptRuleSet":
            return self._set_name(target, made)
        name = self._properties(logical_id, rule, "RuleSetName")
        if name is None:
            raise ImportRefused(f"{self._place(logical_id)}: has no RuleSetName")
        return self._said(name, f"RuleSetName of {logical_id}")

    def _said(self, name: Any, what: str) -> str:
        """A rule set's name as text; of an unresolved one, what the template says: no check takes that for a name."""
        if isinstance(name, Unresolved):
            self._remark(f"{what} is not resolved: {name.why}")
            return f"!Unresolved {name.said}"
        return str(name)

    def _set_named(self, name: str) -> list[Drafted]:
        return self._draft.rule_sets.setdefault(name, [])

    # --- rules ---

    def _rules(self) -> None:
        sets: dict[str, list[Placed]] = {}
        for logical_id, resource in self._of("AWS::SES::ReceiptRule"):
            name = self._set_of(logical_id, resource)
            sets.setdefault(name, []).append(Placed(logical_id, None, self._rule(logical_id, resource)))
        for name, placed in sets.items():
            ids = {each.rule.name: each.key for each in placed}
            keyed = [Placed(each.key, self._after(each.key, ids), each.rule) for each in placed]
            self._set_named(name).extend(in_order(keyed))

    def _rule(self, logical_id: str, resource: Mapping[str, Any]) -> Drafted:
        data = self._properties(logical_id, resource, "Rule")
        if isinstance(data, Unresolved):
            data = {"Name": data}
        if not isinstance(data, dict):
            raise ImportRefused(f"{self._place(logical_id)}: has no Rule")
        made = Drafted(data, self._place(logical_id))
        if data.get("Name") is None:
            data["Name"] = self._given.get(logical_id, logical_id)
            if logical_id not in self._given:
                made.remarks.append("CloudFormation makes up its name; the logical id stands for it, "
                                    f"--parameter {logical_id}=NAME gives the real one")
        if isinstance(exists := self._exists(logical_id, resource), Unresolved):
            data["Enabled"] = Unresolved(exists.said, f"whether the rule exists at all depends on a condition: {exists.why}")
        return made

    def _after(self, logical_id: str, ids: Mapping[str, str]) -> str | Unresolved | None:
        """The logical id of the rule that this one follows, or the name where that is not in the template."""
        properties = self._template.data["Resources"][logical_id].get("Properties")
        after = properties.get("After") if isinstance(properties, dict) else None
        target = after.get("Ref") if isinstance(after, dict) else None
        if isinstance(target, str) and target in ids.values():
            return target
        name = self._properties(logical_id, self._template.data["Resources"][logical_id], "After")
        if name is None or isinstance(name, Unresolved):
            return name
        return ids.get(str(name), str(name))

    # --- filters and identities ---

    def _filter(self, logical_id: str, resource: Mapping[str, Any]) -> None:
        data = self._properties(logical_id, resource, "Filter")
        if not isinstance(data, dict):
            raise ImportRefused(f"{self._place(logical_id)}: has no Filter")
        made = Drafted({"Name": data.get("Name", self._given.get(logical_id)), **data}, self._place(logical_id))
        if made.data["Name"] is None:
            made.data["Name"] = logical_id
            made.remarks.append("CloudFormation makes up its name; the logical id stands for it")
        if isinstance(exists := self._exists(logical_id, resource), Unresolved):
            made.data["IpFilter"] = Unresolved(exists.said, f"whether the filter exists at all depends on a condition: {exists.why}")
        self._draft.filters.append(made)

    def _identity(self, logical_id: str, resource: Mapping[str, Any]) -> None:
        name = self._properties(logical_id, resource, "EmailIdentity")
        if isinstance(name, str) and not isinstance(self._exists(logical_id, resource), Unresolved):
            self._draft.identities.append(name)
        else:
            why = next((each.why for _, each in unresolved(name)), "whether it exists depends on a condition")
            self._remark(f"the identity {logical_id} is not resolved: {why}; give --identity")

    def _remark(self, text: str) -> None:
        if text not in self._draft.remarks:
            self._draft.remarks.append(text)

    def _place(self, logical_id: str) -> str:
        return self._template.place(("Resources", logical_id))
