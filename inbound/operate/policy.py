"""The least permissions that a rule file needs in AWS, as IAM policies. Pure.

Policies written for SES name `ses.amazonaws.com` as the principal, which we are not: we call with our own identity, or with the role that
an S3Action names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from inbound.decide.rules import S3, AnyAction, Lambda, RuleSet, Sns

Statement = dict[str, Any]
VERSION = "2012-10-17"


@dataclass(frozen=True, slots=True)
class Need:
    """One permission: `role` is empty for our own identity; `on` says what it is on: bucket, topic, key, function or role."""

    role: str
    action: str
    resource: str
    on: str
    name: str  # of the bucket, or the ARN


def needs(rule_set: RuleSet, alert_topic: str | None = None) -> list[Need]:
    """What the enabled rules need, each permission once, in the order in which the rules first need it; then what alerts need."""
    partition = _partition(rule_set)
    found = [need for rule in rule_set.rules if rule.Enabled for action in rule.Actions for need in _of(action.only, partition)]
    alerts = [Need("", "sns:Publish", alert_topic, "topic", alert_topic)] if alert_topic else []
    return list(dict.fromkeys([*found, *alerts]))


def policies(rule_set: RuleSet, principal: str, alert_topic: str | None = None) -> dict[str, Any]:
    """`identity`: the policy of our own identity; `roles`: that of each role an S3Action names, and whom it trusts; `resources`: the
    statement for each bucket, topic, key and function, needed where it is of another account; `principal` is the ARN of our identity.
    """
    wanted = needs(rule_set, alert_topic)
    roles = dict.fromkeys(need.role for need in wanted if need.role)
    return {
        "identity": _policy(_allow(need for need in wanted if not need.role)),
        "roles": {
            role: {
                "policy": _policy(_allow(need for need in wanted if need.role == role)),
                "trust": _policy([{"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}]),
            }
            for role in roles
        },
        "resources": _resources(wanted, principal),
    }


def _of(action: AnyAction, partition: str) -> Iterator[Need]:
    role = (action.IamRoleArn or "") if isinstance(action, S3) else ""
    if role:
        yield Need("", "sts:AssumeRole", role, "role", role)
    if isinstance(action, S3):
        prefix = action.key("")
        yield Need(role, "s3:PutObject", f"arn:{partition}:s3:::{action.BucketName}/{prefix}*", "bucket", action.BucketName)
        if action.KmsKeyArn:
            yield Need(role, "kms:GenerateDataKey", action.KmsKeyArn, "key", action.KmsKeyArn)
    if isinstance(action, Lambda):
        yield Need(role, "lambda:InvokeFunction", action.FunctionArn, "function", action.FunctionArn)
    if isinstance(action, Sns) or action.TopicArn:
        topic = action.TopicArn or ""
        yield Need(role, "sns:Publish", topic, "topic", topic)


def _partition(rule_set: RuleSet) -> str:
    """Of the first ARN in the rules: buckets have none of their own."""
    for rule in rule_set.rules:
        for action in rule.Actions:
            for value in action.only.model_dump().values():
                if isinstance(value, str) and value.startswith("arn:"):
                    return value.split(":")[1]
    return "aws"


def _allow(wanted: Iterable[Need]) -> list[Statement]:
    """One statement an action, its resources sorted."""
    resources: dict[str, set[str]] = {}
    for need in wanted:
        resources.setdefault(need.action, set()).add(need.resource)
    return [{"Effect": "Allow", "Action": action, "Resource": sorted(found)} for action, found in resources.items()]


def _resources(wanted: list[Need], principal: str) -> dict[str, Statement]:
    statements: dict[str, Statement] = {}
    for need in wanted:
        if need.on == "role":
            continue
        resource = "*" if need.on == "key" else need.resource  # a key's own policy speaks of that key only
        statement = statements.setdefault(f"{need.on} {need.name}", {
            "Sid": "inbound", "Effect": "Allow", "Principal": {"AWS": []}, "Action": need.action, "Resource": [],
        })
        for key, value in (("Resource", resource), ("AWS", need.role or principal)):
            held = statement["Principal"]["AWS"] if key == "AWS" else statement["Resource"]
            if value not in held:
                held.append(value)
    return statements


def _policy(statements: list[Statement]) -> dict[str, Any]:
    return {"Version": VERSION, "Statement": statements}
