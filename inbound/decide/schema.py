"""The JSON Schema of rules.yaml, for editors: completion, help on each key, and most errors while typing.

Made from the models. What it cannot say (recipients inside Identities, unique names, …) remains for the check.
"""

from __future__ import annotations

from typing import Any

from inbound.decide.rules import RuleFile

BOUNCE_TEMPLATES = {
    "Mailbox Does Not Exist": ("550", "5.1.1", "Mailbox does not exist"),
    "Message Too Large": ("552", "5.3.4", "Message too large"),
    "Mailbox Full": ("552", "5.2.2", "Mailbox full"),
    "Message Content Rejected": ("500", "5.6.1", "Message content rejected"),
    "Unknown Failure": ("554", "5.0.0", "Unknown failure"),
    "Temporary Failure": ("450", "4.0.0", "Temporary failure"),
}
"""The reply templates of SES's console ("Return bounce response action"), by name: SmtpReplyCode, StatusCode, Message."""


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12. Text may be written like a number or boolean, as in the file itself (`SmtpReplyCode: 550`)."""
    made = RuleFile.model_json_schema()
    for model in (made, *made["$defs"].values()):
        for name, field in model["properties"].items():
            model["properties"][name] = _field(name, field)
    made["$defs"]["Action"] |= {"minProperties": 1, "maxProperties": 1}
    for name, field in made["$defs"]["Action"]["properties"].items():
        made["$defs"][field["$ref"].rpartition("/")[2]]["title"] = name
    made["$defs"]["Bounce"] |= _templates(made["$defs"]["Bounce"]["description"])
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


def _templates(description: str) -> dict[str, Any]:
    """SES's bounces by name: for people who read the help, for tools, and as what an editor may fill in (`defaultSnippets`)."""
    names = ", ".join(f"{name} {code} {status}" for name, (code, status, _) in BOUNCE_TEMPLATES.items())
    bounces = {
        name: {"SmtpReplyCode": code, "StatusCode": status, "Message": message, "Sender": "postmaster@example.com"}
        for name, (code, status, message) in BOUNCE_TEMPLATES.items()
    }
    return {
        "description": f"{description} SES's templates: {names}.",
        "examples": list(bounces.values()),
        "defaultSnippets": [{"label": name, "body": body} for name, body in bounces.items()],
    }
