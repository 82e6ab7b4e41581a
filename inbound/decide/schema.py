"""The JSON Schema of rules.yaml, for editors: completion, help on each key, and most errors while typing.

Made from the models. What it cannot say (recipients inside Identities, unique names, …) remains for the check.
"""

from __future__ import annotations

from typing import Any

from inbound.decide.rules import RuleFile


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12. Text may be written like a number or boolean, as in the file itself (`SmtpReplyCode: 550`)."""
    made = RuleFile.model_json_schema()
    for model in (made, *made["$defs"].values()):
        for name, field in model["properties"].items():
            model["properties"][name] = _field(name, field)
    made["$defs"]["Action"] |= {"minProperties": 1, "maxProperties": 1}
    for name, field in made["$defs"]["Action"]["properties"].items():
        made["$defs"][field["$ref"].rpartition("/")[2]]["title"] = name
    made["properties"]["ActiveRuleSet"]["type"].append("null")
    made["properties"]["RuleSets"]["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "rules.yaml of inbound"}


def _field(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field as people write it: no null in place of leaving it out, its own name as the title, text also where YAML sees a number."""
    shape = field.pop("anyOf", [{}])[0]
    if field.get("default", ...) is None:
        del field["default"]
    made = {**field, **shape, "title": name}
    if made.get("type") == "string" and "enum" not in made and "const" not in made and "arn:" not in made.get("pattern", ""):
        made["type"] = ["string", "number", "boolean"]
    return made
