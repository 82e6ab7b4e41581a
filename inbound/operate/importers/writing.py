"""A draft -> the text of a rules.yaml: readable, with comments on where each part came from.

A text is quoted wherever YAML (1.1 or 1.2) would take it for something else, so that any reader finds the same strings as ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from inbound.decide.document import UNRESOLVED
from inbound.operate.importers.draft import Draft, Drafted, Unresolved, unresolved

_PLAIN = re.compile(r"[A-Za-z_/.](?:[A-Za-z0-9_/.@+=-]|:(?=[A-Za-z0-9_/]))*")
_TYPED = re.compile(r"(?:y|n|yes|no|on|off|true|false|null|\.inf|\.nan|\.[0-9_.+e-]*|\.+)", re.IGNORECASE)
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def write(draft: Draft, sources: Sequence[str]) -> str:
    """The text of the rule file. `sources` are named in its first line."""
    lines = [_comment(f"Imported from {draft.source}: {', '.join(sources)}. SES's default for Enabled is false, so it is written everywhere.")]
    lines += [_comment(f"ATTENTION: {remark}") for remark in draft.remarks]
    lines += ["", *_identities(draft)]
    if draft.knows_active:
        lines.append(f"ActiveRuleSet: {'null' if draft.active is None else scalar(draft.active)}")
    lines += ["RuleSets:" if draft.rule_sets else "RuleSets: {}"]
    for name, rules in draft.rule_sets.items():
        lines.append(f"  {scalar(name)}:" + ("" if rules else " []"))
        for rule in rules:
            lines += ["", *_item(rule, "    ")]
    if draft.filters:
        lines += ["", "Filters:"]
        for each in draft.filters:
            lines += _item(each, "  ")
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """The text as a YAML scalar on one line."""
    if _PLAIN.fullmatch(text) and not _TYPED.fullmatch(text):
        return text
    return _UNPRINTABLE.sub(_escaped, json.dumps(text, ensure_ascii=False))


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _comment(text: str, indent: str = "") -> str:
    return f"{indent}# {_UNPRINTABLE.sub('?', text)}"


def _identities(draft: Draft) -> Iterator[str]:
    if draft.identities:
        yield "Identities:"
        yield from (f"  - {scalar(identity)}" for identity in draft.identities)
    else:
        yield "# Identities: [example.com]   # the domains and addresses that SES has verified, see: aws ses list-identities"


def _item(drafted: Drafted, indent: str) -> Iterator[str]:
    """One rule or filter of a list, below its comments."""
    yield _comment(drafted.origin, indent)
    for remark in drafted.remarks:
        yield _comment(f"ATTENTION: {remark}", indent)
    for path, each in unresolved(drafted.data):
        yield _comment(f"ATTENTION: {path} is not resolved: {each.why}", indent)
    yield from _listed(drafted.data, indent)


def _listed(value: Any, indent: str) -> Iterator[str]:
    """The value as an entry of a list."""
    if not isinstance(value, dict | list) or not value:
        yield f"{indent}- {_inline(value)}"
        return
    if isinstance(value, list):
        yield f"{indent}-"
        for item in value:
            yield from _listed(item, indent + "  ")
        return
    first, *rest = _mapping(value, indent + "  ")
    yield f"{indent}- {first[len(indent) + 2:]}"
    yield from rest


def _mapping(data: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in data.items():
        name = f"{indent}{scalar(str(key))}:"
        if isinstance(value, dict) and value:
            yield name
            yield from _mapping(value, indent + "  ")
        elif isinstance(value, list) and value:
            yield name
            for item in value:
                yield from _listed(item, indent + "  ")
        else:
            yield f"{name} {_inline(value)}"


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Unresolved):
        quoted = _UNPRINTABLE.sub("?", value.said).replace("'", "''")
        return f"{UNRESOLVED} '{quoted}'"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    return scalar(str(value))
