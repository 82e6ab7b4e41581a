"""The text of a CloudFormation template, YAML or JSON -> plain data with places; short forms (`!Ref`) become long ones (`{"Ref": …}`).

Every scalar keeps its source text, since SES types nearly everything as string (`SmtpReplyCode: 550`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from inbound.decide.problem import KeyPath, written
from inbound.operate.importers.draft import ImportRefused

DEPTH = 60
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BARE = frozenset({"!Ref", "!Condition"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(slots=True)
class Template:
    """A template. `places` gives line and column (from 1) of the value at a path, where the text was YAML."""

    name: str
    data: dict[str, Any]
    places: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where the value at the path stands, for people."""
        at = self.places.get(path)
        return f"{self.name}:{at[0]}:{at[1]} {written(path)}" if at else f"{self.name}: {written(path)}"


def read(text: str, name: str) -> Template:
    """The template in the text. Raises ImportRefused for what is none."""
    template = Template(name, {})
    data = _json(text, name) if text.lstrip().startswith("{") else _yaml(text, template)
    if isinstance(data, dict) and "TemplateBody" in data:  # what `aws cloudformation get-template` prints
        body = data["TemplateBody"]
        return read(body, name) if isinstance(body, str) else read(json.dumps(body), name)
    if not isinstance(data, dict) or not isinstance(data.get("Resources"), dict):
        raise ImportRefused(f"{name}: is no CloudFormation template: it has no Resources")
    template.data = data
    return template


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ImportRefused(f"{name}: begins as JSON, and is not: {error}") from None
    except RecursionError:
        raise ImportRefused(f"{name}: is nested too deeply") from None


def _yaml(text: str, template: Template) -> Any:
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                raise ImportRefused(f"{template.name}:{line}: has a YAML alias, which CloudFormation does not know")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ImportRefused(f"{template.name}:{line}: is nested too deeply")
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{template.name}:{mark.line + 1}:{mark.column + 1}" if mark else template.name
        raise ImportRefused(f"{where}: not YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}") from None
    return _value(node, (), template) if node is not None else None


def _value(node: yaml.Node, path: KeyPath, template: Template) -> Any:
    template.places[path] = node.start_mark.line + 1, node.start_mark.column + 1
    short = node.tag if node.tag.startswith("!") and len(node.tag) > 1 else ""
    function = short[1:] if short in _BARE else f"Fn::{short[1:]}"
    inner = (*path, function) if short else path
    data = _content(node, inner, template)
    if short == "!GetAtt" and isinstance(data, str):
        data = data.split(".", 1)
    return {function: data} if short else data


def _content(node: yaml.Node, path: KeyPath, template: Template) -> Any:
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            found[name] = _value(value, (*path, name), template)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, number), template) for number, item in enumerate(node.value)]
    return None if node.tag == "tag:yaml.org,2002:null" and node.value in _NULL else node.value
