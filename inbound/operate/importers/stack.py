"""What a deployed stack tells that its template does not: the JSON of `aws cloudformation describe-stacks`, `describe-stack-resources` and
`list-stack-resources` -> values of parameters, of Ref, and of the pseudo parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inbound.operate.importers.draft import ImportRefused

_RESOURCES = ("StackResources", "StackResourceSummaries")


def values(data: Any, name: str) -> dict[str, str]:
    """The values by the names that --parameter would give them. `name` is that of the file. Raises ImportRefused."""
    if not isinstance(data, dict) or not any(isinstance(data.get(key), list) for key in ("Stacks", *_RESOURCES)):
        raise ImportRefused(f"{name}: is none of describe-stacks, describe-stack-resources and list-stack-resources")
    stacks = list(_objects(data.get("Stacks")))
    if len(stacks) > 1:
        raise ImportRefused(f"{name}: tells of {len(stacks)} stacks; ask for one with --stack-name")
    found: dict[str, str] = {}
    for stack in stacks:
        found |= _pseudo_parameters(stack)
        for each in _objects(stack.get("Parameters")):
            found |= _pair(each.get("ParameterKey"), each.get("ResolvedValue", each.get("ParameterValue")))
    for key in _RESOURCES:
        for each in _objects(data.get(key)):
            found |= _pseudo_parameters(each)
            found |= _pair(each.get("LogicalResourceId"), each.get("PhysicalResourceId"))
    return found


def _pseudo_parameters(told: Mapping[str, Any]) -> dict[str, str]:
    """From arn:aws:cloudformation:eu-west-1:123456789012:stack/NAME/ID."""
    parts = str(told.get("StackId", "")).split(":")
    if len(parts) != 6:
        return {}
    _, partition, _, region, account, stack = parts
    return {"AWS::Partition": partition, "AWS::Region": region, "AWS::AccountId": account, "AWS::StackId": ":".join(parts),
            "AWS::StackName": stack.split("/")[1] if stack.count("/") else stack}


def _pair(key: Any, value: Any) -> dict[str, str]:
    """A value that is hidden (NoEcho) is none."""
    return {key: value} if isinstance(key, str) and isinstance(value, str) and value != "****" else {}


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (each for each in value if isinstance(each, dict)) if isinstance(value, list) else iter(())
