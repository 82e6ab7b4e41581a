"""CloudFormation's intrinsic functions, as far as the template and the given parameters determine them; what they do not stays Unresolved.

AWS CloudFormation User Guide, "Intrinsic function reference". `--parameter NAME=VALUE` gives the value of `Ref NAME`, NAME.ATTRIBUTE that of
a GetAtt, and an export's name that of an ImportValue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from inbound.decide.problem import KeyPath
from inbound.operate.importers.draft import Unresolved, unresolved
from inbound.operate.importers.template import Template

Given = Mapping[str, str]
_VARIABLE = re.compile(r"\$\{(!?)([^{}]+)\}")
_AT = " (at "
_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("us-iso-", "aws-iso"), ("us-isob-", "aws-iso-b"), ("eusc-", "aws-eusc"))


class _NoValue:
    """What `AWS::NoValue` stands for: the property is not there."""


NO_VALUE = _NoValue()

_NAMES = {  # what Ref gives, where that is a property of the resource
    "AWS::SES::ReceiptRuleSet": "RuleSetName", "AWS::S3::Bucket": "BucketName", "AWS::Lambda::Function": "FunctionName",
    "AWS::Serverless::Function": "FunctionName", "AWS::IAM::Role": "RoleName", "AWS::SES::EmailIdentity": "EmailIdentity",
}
_TOPIC = "arn:${AWS::Partition}:sns:${AWS::Region}:${AWS::AccountId}:${TopicName}"
_FUNCTION = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${FunctionName}"
_ARNS = {  # (type, attribute; '' is Ref) -> the value, in which the other names are the resource's own properties
    ("AWS::SNS::Topic", ""): _TOPIC, ("AWS::SNS::Topic", "TopicArn"): _TOPIC, ("AWS::SNS::Topic", "TopicName"): "${TopicName}",
    ("AWS::Lambda::Function", "Arn"): _FUNCTION, ("AWS::Serverless::Function", "Arn"): _FUNCTION,
    ("AWS::IAM::Role", "Arn"): "arn:${AWS::Partition}:iam::${AWS::AccountId}:role${Path}${RoleName}",
    ("AWS::S3::Bucket", "Arn"): "arn:${AWS::Partition}:s3:::${BucketName}",
}


class Resolver:
    """Evaluates values of one template."""

    def __init__(self, template: Template, given: Given) -> None:
        self._template = template
        self._given = given
        self._under_way: set[tuple[str, str]] = set()
        self._functions: dict[str, Callable[[Any, KeyPath], Any]] = {
            "Ref": self._ref, "Fn::GetAtt": self._get_att, "Fn::Sub": self._sub, "Fn::Join": self._join, "Fn::Select": self._select,
            "Fn::Split": self._split, "Fn::FindInMap": self._find_in_map, "Fn::If": self._if, "Fn::ImportValue": self._import_value,
            "Fn::Equals": self._equals, "Fn::And": self._and, "Fn::Or": self._or, "Fn::Not": self._not, "Condition": self._condition,
        }

    def value(self, node: Any, path: KeyPath) -> Any:
        """The value of the node, with Unresolved in it where it is not known; NO_VALUE for a property that is to be left out."""
        if isinstance(node, list):
            return [item for number, each in enumerate(node) if (item := self.value(each, (*path, number))) is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if name in self._functions and (name != "Condition" or isinstance(argument, str)):
                return self._functions[name](argument, (*path, name))
            if name.startswith("Fn::"):
                return self._open({name: argument}, (*path, name), f"{name} is not evaluated here; write the value into the template")
        return {key: item for key, each in node.items() if (item := self.value(each, (*path, key))) is not NO_VALUE}

    def exists(self, resource: Mapping[str, Any], path: KeyPath) -> Any:
        """Whether the resource's Condition holds: True, False or Unresolved."""
        name = resource.get("Condition")
        return True if name is None else self._condition(name, (*path, "Condition"))

    # --- references ---

    def _ref(self, name: Any, path: KeyPath) -> Any:
        if not isinstance(name, str):
            return self._open({"Ref": name}, path, "Ref takes a name")
        if name in self._given:
            return self._parameter_value(name, self._given[name])
        if name.startswith("AWS::"):
            return self._pseudo_parameter(name, path)
        parameter = self._section("Parameters").get(name)
        if isinstance(parameter, dict):
            return self._default(name, parameter, path)
        resource = self._section("Resources").get(name)
        if isinstance(resource, dict):
            return self._of_resource(name, resource, "", path)
        return self._open({"Ref": name}, path, f"there is neither a parameter nor a resource {name}")

    def _pseudo_parameter(self, name: str, path: KeyPath) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name == "AWS::Partition" and "AWS::Region" in self._given:
            return next((partition for prefix, partition in _PARTITIONS if self._given["AWS::Region"].startswith(prefix)), "aws")
        wanted = "AWS::Region" if name == "AWS::Partition" else name
        return self._open({"Ref": name}, path, f"give --parameter {wanted}=VALUE")

    def _default(self, name: str, parameter: Mapping[str, Any], path: KeyPath) -> Any:
        kind = str(parameter.get("Type", ""))
        if "Default" not in parameter:
            return self._open({"Ref": name}, path, f"the parameter {name} has no Default; give --parameter {name}=VALUE")
        if kind.startswith("AWS::SSM::Parameter::Value"):
            return self._open({"Ref": name}, path, f"the parameter {name} is kept in SSM; give --parameter {name}=VALUE")
        if str(parameter.get("NoEcho", "")).lower() == "true":
            why = f"the parameter {name} is secret (NoEcho), and may not have its Default; give --parameter {name}=VALUE"
            return self._open({"Ref": name}, path, why)
        return self._parameter_value(name, str(parameter["Default"]))

    def _parameter_value(self, name: str, text: str) -> Any:
        parameter = self._section("Parameters").get(name)
        kind = str(parameter.get("Type", "")) if isinstance(parameter, dict) else ""
        return [part.strip() for part in text.split(",")] if kind == "CommaDelimitedList" or "List<" in kind else text

    def _get_att(self, argument: Any, path: KeyPath) -> Any:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        parts = self.value(parts, path) if isinstance(parts, list) else parts
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            return self._open({"Fn::GetAtt": argument}, path, "GetAtt takes a resource and an attribute")
        name, attribute = parts
        if f"{name}.{attribute}" in self._given:
            return self._given[f"{name}.{attribute}"]
        resource = self._section("Resources").get(name)
        if isinstance(resource, dict):
            return self._of_resource(name, resource, attribute, path)
        return self._open({"Fn::GetAtt": parts}, path, f"there is no resource {name}")

    def _of_resource(self, name: str, resource: Mapping[str, Any], attribute: str, path: KeyPath) -> Any:
        """What Ref (no attribute) or GetAtt gives for a resource that the template names; CloudFormation's generated names are not known."""
        kind, said = str(resource.get("Type")), {"Fn::GetAtt": [name, attribute]} if attribute else {"Ref": name}
        form = _ARNS.get((kind, attribute)) or (f"${{{_NAMES[kind]}}}" if kind in _NAMES and not attribute else None)
        rule_name = kind == "AWS::SES::ReceiptRule" and not attribute
        if form is None and not rule_name:
            return self._open(said, path, f"it is known only once {name} exists; give --parameter {_key(name, attribute)}=VALUE")
        if (name, attribute) in self._under_way:
            return self._open(said, path, f"{name} refers to itself")
        self._under_way.add((name, attribute))
        try:
            found = self.rule_name(name) if rule_name else self._filled(form or "", name, resource)
        finally:
            self._under_way.discard((name, attribute))
        if isinstance(found, Unresolved):
            return self._open(said, path, f"{found.why.partition(_AT)[0]}; or give --parameter {_key(name, attribute)}=VALUE")
        return found

    def rule_name(self, logical_id: str) -> Any:
        """The name of the AWS::SES::ReceiptRule with this logical id: that very id where CloudFormation makes one up."""
        path: KeyPath = ("Resources", logical_id, "Properties", "Rule", "Name")
        properties = self._section("Resources")[logical_id].get("Properties")
        rule = properties.get("Rule") if isinstance(properties, dict) else None
        name = rule.get("Name") if isinstance(rule, dict) else None
        return logical_id if name is None else self.value(name, path)

    def _filled(self, form: str, name: str, resource: Mapping[str, Any]) -> Any:
        properties = resource.get("Properties")
        own: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
        values: dict[str, Any] = {}
        for _, variable in _VARIABLE.findall(form):
            path: KeyPath = ("Resources", name, "Properties", variable)
            if variable.startswith("AWS::"):
                values[variable] = self._ref(variable, path)
            elif variable == _NAMES.get(str(resource.get("Type"))) and name in self._given:
                values[variable] = self._given[name]
            elif variable in own:
                values[variable] = self.value(own[variable], path)
            elif variable == "Path":
                values[variable] = "/"
            else:
                values[variable] = Unresolved(name, f"{name} has no {variable}, so CloudFormation makes one up")
        return _substituted(form, values)

    def _import_value(self, argument: Any, path: KeyPath) -> Any:
        name = self.value(argument, path)
        if isinstance(name, str) and name in self._given:
            return self._given[name]
        why = f"give --parameter {name}=VALUE" if isinstance(name, str) else "the name of the export is not resolved"
        return self._open({"Fn::ImportValue": argument}, path, f"another stack exports it; {why}")

    # --- texts and lists ---

    def _sub(self, argument: Any, path: KeyPath) -> Any:
        text, own = argument if isinstance(argument, list) and len(argument) == 2 else (argument, {})
        if not isinstance(text, str) or not isinstance(own, dict):
            return self._open({"Fn::Sub": argument}, path, "Sub takes a text, or a list of a text and a mapping")
        values: dict[str, Any] = {}
        for literal, variable in _VARIABLE.findall(text):
            name = variable.strip()
            if literal:
                continue
            if name in own:
                values[variable] = self.value(own[name], (*path, 1, name))
            elif "." in name:
                values[variable] = self._get_att(name, path)
            else:
                values[variable] = self._ref(name, path)
        found = _substituted(text, values)
        return self._open({"Fn::Sub": argument}, path, found.why) if isinstance(found, Unresolved) else found

    def _join(self, argument: Any, path: KeyPath) -> Any:
        parts = self.value(argument, path)
        if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[0], str):
            return self._open({"Fn::Join": argument}, path, "Join takes a delimiter and a list")
        items = parts[1]
        if (first := next(unresolved(items), None)) is not None:
            return self._open({"Fn::Join": argument}, path, first[1].why)
        if not isinstance(items, list) or not all(isinstance(item, str | int | float) for item in items):
            return self._open({"Fn::Join": argument}, path, "Join takes a list of texts")
        return parts[0].join(str(item) for item in items)

    def _select(self, argument: Any, path: KeyPath) -> Any:
        parts = self.value(argument, path)
        if isinstance(parts, list) and len(parts) == 2 and isinstance(parts[1], list) and re.fullmatch(r"[0-9]{1,6}", str(parts[0])):
            index = int(parts[0])
            if index < len(parts[1]):
                return parts[1][index]
        return self._open({"Fn::Select": argument}, path, _first_why(parts, "Select takes an index and a list that reaches to it"))

    def _split(self, argument: Any, path: KeyPath) -> Any:
        parts = self.value(argument, path)
        if isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts) and parts[0]:
            return parts[1].split(parts[0])
        return self._open({"Fn::Split": argument}, path, _first_why(parts, "Split takes a delimiter and a text"))

    def _find_in_map(self, argument: Any, path: KeyPath) -> Any:
        parts = self.value(argument, path)
        if not isinstance(parts, list) or len(parts) not in (3, 4) or not all(isinstance(part, str) for part in parts[:3]):
            return self._open({"Fn::FindInMap": argument}, path, _first_why(parts, "FindInMap takes a map and two keys"))
        found: Any = self._section("Mappings")
        for key in parts[:3]:
            found = found.get(key) if isinstance(found, dict) else None
        if found is None and len(parts) == 4 and isinstance(parts[3], dict) and "DefaultValue" in parts[3]:
            return parts[3]["DefaultValue"]
        return found if found is not None else self._open({"Fn::FindInMap": argument}, path, f"Mappings has no {'.'.join(parts[:3])}")

    # --- conditions ---

    def _if(self, argument: Any, path: KeyPath) -> Any:
        if not isinstance(argument, list) or len(argument) != 3:
            return self._open({"Fn::If": argument}, path, "If takes a condition and two values")
        holds = self._condition(argument[0], path)
        if isinstance(holds, Unresolved):
            return self._open({"Fn::If": argument}, path, holds.why)
        return self.value(argument[1 if holds else 2], (*path, 1 if holds else 2))

    def _condition(self, name: Any, path: KeyPath) -> Any:
        conditions = self._section("Conditions")
        if not isinstance(name, str) or name not in conditions:
            return self._open({"Condition": name}, path, f"there is no condition {name}")
        if ("Condition", name) in self._under_way:
            return self._open({"Condition": name}, path, f"the condition {name} refers to itself")
        self._under_way.add(("Condition", name))
        try:
            found = self.value(conditions[name], ("Conditions", name))
        finally:
            self._under_way.discard(("Condition", name))
        return found if isinstance(found, bool | Unresolved) else self._open({"Condition": name}, path, f"the condition {name} is not one")

    def _equals(self, argument: Any, path: KeyPath) -> Any:
        parts = self.value(argument, path)
        if not isinstance(parts, list) or len(parts) != 2 or next(unresolved(parts), None) is not None:
            return self._open({"Fn::Equals": argument}, path, _first_why(parts, "Equals takes two values"))
        return _text(parts[0]) == _text(parts[1])

    def _and(self, argument: Any, path: KeyPath) -> Any:
        return self._decided(argument, path, "Fn::And", decisive=False)

    def _or(self, argument: Any, path: KeyPath) -> Any:
        return self._decided(argument, path, "Fn::Or", decisive=True)

    def _decided(self, argument: Any, path: KeyPath, name: str, *, decisive: bool) -> Any:
        """And and Or: one decisive part is enough, else all parts must be known."""
        parts = self.value(argument, path)
        if not isinstance(parts, list) or not all(isinstance(part, bool | Unresolved) for part in parts):
            return self._open({name: argument}, path, f"{name} takes conditions")
        if decisive in parts:
            return decisive
        open_ = next((part for part in parts if isinstance(part, Unresolved)), None)
        return not decisive if open_ is None else self._open({name: argument}, path, open_.why)

    def _not(self, argument: Any, path: KeyPath) -> Any:
        parts = self.value(argument, path)
        if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], bool):
            return not parts[0]
        return self._open({"Fn::Not": argument}, path, _first_why(parts, "Not takes one condition"))

    # --- parts ---

    def _section(self, name: str) -> dict[str, Any]:
        found = self._template.data.get(name)
        return found if isinstance(found, dict) else {}

    def _open(self, said: Any, path: KeyPath, why: str) -> Unresolved:
        place = self._template.place(path[:-1])
        return Unresolved(_shortened(said), why if _AT in why else f"{why}{_AT}{place})")


def _key(name: str, attribute: str) -> str:
    return f"{name}.{attribute}" if attribute else name


def _substituted(text: str, values: Mapping[str, Any]) -> Any:
    """The text with its variables replaced, or one Unresolved for all that are."""
    whys = dict.fromkeys(value.why.partition(_AT)[0] for value in values.values() if isinstance(value, Unresolved))
    if whys:
        return Unresolved(text, "; ".join(whys))
    for name, value in values.items():
        if not isinstance(value, str | int | float):
            return Unresolved(text, f"{name} is not a text")
    return _VARIABLE.sub(lambda found: f"${{{found[2]}}}" if found[1] else str(values[found[2]]), text)


def _first_why(parts: Any, otherwise: str) -> str:
    first = next(unresolved(parts), None)
    return first[1].why if first else otherwise


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value


def _shortened(said: Any) -> str:
    text = json.dumps(said, ensure_ascii=False, default=str)
    return text if len(text) <= 160 else f"{text[:157]}..."
