"""`terraform show -json`, of a plan or of a state: aws_ses_receipt_rule, …_rule_set, aws_ses_active_receipt_rule_set, …_filter -> a draft.

A plan does not know what only `apply` finds out; that stays Unresolved. Order is that of `after`, actions go by `position`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inbound.operate.importers.draft import Draft, Drafted, ImportRefused, Unresolved
from inbound.operate.importers.order import Placed, in_order

_ACTIONS = {  # block -> SES's name, and the names of its arguments in SES
    "add_header_action": ("AddHeaderAction", {"header_name": "HeaderName", "header_value": "HeaderValue"}),
    "bounce_action": ("BounceAction", {"message": "Message", "sender": "Sender", "smtp_reply_code": "SmtpReplyCode", "status_code": "StatusCode",
                                       "topic_arn": "TopicArn"}),
    "lambda_action": ("LambdaAction", {"function_arn": "FunctionArn", "invocation_type": "InvocationType", "topic_arn": "TopicArn"}),
    "s3_action": ("S3Action", {"bucket_name": "BucketName", "iam_role_arn": "IamRoleArn", "kms_key_arn": "KmsKeyArn",
                               "object_key_prefix": "ObjectKeyPrefix", "topic_arn": "TopicArn"}),
    "sns_action": ("SNSAction", {"topic_arn": "TopicArn", "encoding": "Encoding"}),
    "stop_action": ("StopAction", {"scope": "Scope", "topic_arn": "TopicArn"}),
    "workmail_action": ("WorkmailAction", {"organization_arn": "OrganizationArn", "topic_arn": "TopicArn"}),
}
_RULE = {"name": "Name", "enabled": "Enabled", "tls_policy": "TlsPolicy", "scan_enabled": "ScanEnabled"}
_COMPUTED = frozenset({"tls_policy", "invocation_type"})  # left to SES where the configuration does not set them, and unknown in the plan then
_OTHER = frozenset({"id", "arn", "region", "rule_set_name", "after", "recipients", *_RULE, *_ACTIONS})
_MEANT_EMPTY = frozenset({"header_value", "message"})  # elsewhere an empty text is how the provider writes that nothing is set
_IDENTITIES = {"aws_ses_domain_identity": "domain", "aws_ses_email_identity": "email", "aws_sesv2_email_identity": "email_identity"}


@dataclass(frozen=True, slots=True)
class _Resource:
    address: str
    kind: str
    values: Mapping[str, Any]
    unknown: Mapping[str, Any]
    left_to_ses: frozenset[str] = frozenset()

    def value(self, name: str) -> Any:
        """The argument; Unresolved where only `apply` tells it, None where it is not set."""
        return _known(self.values.get(name), self.unknown.get(name), f"{self.address}.{name}")

    def argument(self, value: Any, name: str) -> Any:
        """What the rule file gets of an argument's value; None where SES's default holds."""
        if isinstance(value, Unresolved) and name in self.left_to_ses:
            return None
        return None if value == "" and name not in _MEANT_EMPTY else value


def draft(data: Any, name: str) -> Draft:
    """The draft of what `terraform show -json` printed into the file of this name. Raises ImportRefused."""
    made = Draft("Terraform")
    resources = list(_resources(data, name))
    _sets(made, resources)
    for each in resources:
        if each.kind == "aws_ses_receipt_filter":
            made.filters.append(_filter(each))
        elif each.kind in _IDENTITIES:
            _identity(made, each)
    if not made.rule_sets and not made.filters:
        raise ImportRefused(f"{name}: has no aws_ses_receipt_rule, aws_ses_receipt_rule_set or aws_ses_receipt_filter")
    for each in (each for each in resources if each.kind == "aws_ses_active_receipt_rule_set"):
        active = each.value("rule_set_name")
        if isinstance(active, Unresolved):
            made.remarks.append(f"{each.address}: which rule set is active is not resolved: {active.why}; give --active")
        else:
            made.is_active(str(active))
    if not made.knows_active and len(made.rule_sets) == 1:
        made.is_active(next(iter(made.rule_sets)))
    return made


def _resources(data: Any, name: str) -> Iterator[_Resource]:
    if isinstance(data, dict) and "resources" in data and "version" in data:
        raise ImportRefused(f"{name}: is a state file; give what `terraform show -json` prints")
    planned = isinstance(data, dict) and "planned_values" in data
    values = data.get("planned_values" if planned else "values") if isinstance(data, dict) else None
    if not isinstance(values, dict) or "format_version" not in data:
        raise ImportRefused(f"{name}: is not what `terraform show -json` prints, of a plan or of a state")
    changes = data.get("resource_changes")
    unknown = {each["address"]: each["change"].get("after_unknown") for each in changes if _is_change(each)} if isinstance(changes, list) else {}
    expressions = _expressions(data.get("configuration"))
    waiting = [values.get("root_module")]
    while waiting:
        module = waiting.pop(0)
        if not isinstance(module, dict):
            continue
        for each in _objects(module.get("resources")):
            if each.get("mode") == "managed" and isinstance(each.get("values"), dict):
                address = str(each.get("address"))
                open_ = unknown.get(address)
                yield _Resource(address, str(each.get("type")), each["values"], open_ if isinstance(open_, dict) else {},
                                _left_to_ses(expressions.get((str(each.get("type")), str(each.get("name"))))))
        waiting += _objects(module.get("child_modules"))


def _expressions(configuration: Any) -> dict[tuple[str, str], str]:
    """What the configuration sets, as text, of each resource by its type and name, over all modules."""
    found: dict[tuple[str, str], str] = {}
    waiting = [configuration.get("root_module")] if isinstance(configuration, dict) else []
    while waiting:
        module = waiting.pop()
        if isinstance(module, dict):
            for each in _objects(module.get("resources")):
                key = str(each.get("type")), str(each.get("name"))
                found[key] = found.get(key, "") + json.dumps(each.get("expressions"))
            calls = module.get("module_calls")
            waiting += [call.get("module") for call in calls.values() if isinstance(call, dict)] if isinstance(calls, dict) else []
    return found


def _left_to_ses(expressions: str | None) -> frozenset[str]:
    return frozenset() if expressions is None else frozenset(name for name in _COMPUTED if f'"{name}":' not in expressions)


def _is_change(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("address"), str) and isinstance(each.get("change"), dict)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _known(value: Any, unknown: Any, address: str) -> Any:
    """The value, with Unresolved wherever the plan says that it is not known yet."""
    if unknown is True:
        return Unresolved(address, f"{address} is known only after apply; import the state afterwards, or write it in")
    if isinstance(unknown, list) and isinstance(value, list | None):
        known = value or []
        return [_known(known[number] if number < len(known) else None, unknown[number] if number < len(unknown) else None, f"{address}[{number}]")
                for number in range(max(len(known), len(unknown)))]
    if isinstance(unknown, dict) and isinstance(value, dict | None):
        known_items = value or {}
        return {key: _known(known_items.get(key), unknown.get(key), f"{address}.{key}") for key in {**known_items, **unknown}}
    return value


def _sets(made: Draft, resources: list[_Resource]) -> None:
    for each in resources:
        if each.kind == "aws_ses_receipt_rule_set":
            made.rule_sets.setdefault(_set_name(made, each), [])
    placed: dict[str, list[Placed]] = {}
    for each in resources:
        if each.kind == "aws_ses_receipt_rule":
            after = each.value("after") or None
            key = each.values.get("name")
            placed.setdefault(_set_name(made, each), []).append(Placed(str(key or each.address), after, _rule(each)))
    for name, rules in placed.items():
        made.rule_sets.setdefault(name, []).extend(in_order(rules))


def _set_name(made: Draft, resource: _Resource) -> str:
    name = resource.value("rule_set_name")
    if isinstance(name, Unresolved):
        made.remarks.append(f"{name.said} is not resolved: {name.why}")
        return f"!Unresolved {name.said}"
    return str(name)


def _rule(resource: _Resource) -> Drafted:
    made = Drafted({}, resource.address)
    for name, key in _RULE.items():
        if (value := resource.argument(resource.value(name), name)) is not None:
            made.data[key] = value
    recipients = resource.value("recipients")
    if recipients:
        made.data["Recipients"] = recipients
    made.data["Actions"] = _actions(resource, made)
    for name in resource.values:
        if name not in _OTHER and resource.values[name] not in (None, [], "", {}):
            made.remarks.append(f"{resource.address}.{name} is not known here and was left out")
    return made


def _actions(resource: _Resource, made: Drafted) -> Any:
    found: list[tuple[int, dict[str, Any]]] = []
    for block, (kind, arguments) in _ACTIONS.items():
        blocks = resource.value(block)
        if isinstance(blocks, Unresolved):
            return blocks
        for each in _objects(blocks):
            position = each.get("position")
            if not isinstance(position, int):
                made.remarks.append(f"{resource.address}.{block}: its position is not known, so it is last here")
            parameters = {key: value for name, key in arguments.items() if (value := resource.argument(each.get(name), name)) is not None}
            for name in each:
                if name != "position" and name not in arguments and each[name] not in (None, "", [], {}):
                    made.remarks.append(f"{resource.address}.{block}.{name} is not known here and was left out")
            found.append((position if isinstance(position, int) else len(_ACTIONS) * 1000, {kind: parameters}))
    found.sort(key=lambda each: each[0])
    positions = [position for position, _ in found]
    if len(set(positions)) < len(positions):
        made.remarks.append(f"{resource.address}: two actions have the same position, so their order is not known")
    return [action for _, action in found]


def _filter(resource: _Resource) -> Drafted:
    values = {key: value for key, name in (("Policy", "policy"), ("Cidr", "cidr")) if (value := resource.value(name)) is not None}
    return Drafted({"Name": resource.value("name"), "IpFilter": values}, resource.address)


def _identity(made: Draft, resource: _Resource) -> None:
    name = resource.value(_IDENTITIES[resource.kind])
    if isinstance(name, str):
        made.identities += [name] if name not in made.identities else []
    else:
        made.remarks.append(f"the identity {resource.address} is not known before apply; give --identity")
