"""The JSON Schema for editors: what the loader takes it takes, and it sees what an editor can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from inbound.decide.rules import Bounce, Model
from inbound.decide.schema import schema

HERE = Path(__file__).parent
SEEN = [
    "action-as-text", "action-outside-actions", "action-without-parameters", "actions-11", "actions-as-mapping", "active-as-list",
    "add-header-topic", "boolean-number", "boolean-quoted", "bounce-values", "bucket-name", "connect-arns", "empty-action",
    "filter-policy", "filters-101", "function-arn", "header-name", "header-value-too-long", "identities-as-text", "invocation-type",
    "kms-and-role-arns", "metadata-pasted", "missing-name", "missing-parameters", "parameters-not-indented", "recipient-as-mapping",
    "recipients-501", "recipients-as-text", "rule-as-text", "rule-name", "rule-set-name", "rule-set-name-too-long", "rule-sets-41",
    "rule-sets-as-list", "rules-201", "rules-as-mapping", "snake-case-key", "sns-encoding", "stop-scope", "tls-policy", "topic-arn",
    "topic-fifo", "two-actions-in-one", "unknown-action", "unknown-key-without-likeness", "unknown-rule-key", "unknown-top-key",
    "workmail-arn",
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


def test_the_sample_is_valid(validator: Draft202012Validator) -> None:
    validator.validate(yaml.safe_load((HERE.parents[1] / "rules.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", SEEN)
def test_what_an_editor_sees(validator: Draft202012Validator, name: str) -> None:
    assert not validator.is_valid(yaml.safe_load((HERE / "bad" / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", [
    "ActiveRuleSet: null",
    "RuleSets: {a: [{Name: 2026, Enabled: false, Actions: [{BounceAction: {SmtpReplyCode: 550, Message: 1, Sender: a@b.c}}]}]}",
    "RuleSets: {a: [{Name: x, Actions: [{AddHeaderAction: {HeaderName: X-A, HeaderValue: true}}]}]}",
    "{Identities: [example.com], ActiveRuleSet: a, RuleSets: {a: [], b: []}, Filters: [{Name: f, IpFilter: {Policy: Allow, Cidr: '::1'}}]}",
])
def test_text_may_look_like_a_number_or_a_boolean(validator: Draft202012Validator, text: str) -> None:
    validator.validate(yaml.safe_load(text))


def test_the_bounces_of_ses_are_told_by_name() -> None:
    bounce = schema()["$defs"]["Bounce"]
    named = {"Mailbox Does Not Exist": "550 5.1.1", "Message Too Large": "552 5.3.4", "Mailbox Full": "552 5.2.2",
             "Message Content Rejected": "500 5.6.1", "Unknown Failure": "554 5.0.0", "Temporary Failure": "450 4.0.0"}
    for name, codes in named.items():
        assert f"{name} {codes}" in bounce["description"]
    assert {s["label"]: f"{s['body']['SmtpReplyCode']} {s['body']['StatusCode']}" for s in bounce["defaultSnippets"]} == named
    assert [Bounce.model_validate(example).kind for example in bounce["examples"]] == ["Bounce"] * 6


def test_every_key_has_its_name_and_its_help() -> None:
    made = schema()
    models: list[dict[str, Any]] = [made, *made["$defs"].values()]
    assert len(models) == len(Model.__subclasses__())
    for model in models:
        assert model["additionalProperties"] is False
        assert model["description"]
        for name, field in model["properties"].items():
            assert field["title"] == name
            assert field["description"]
            assert "anyOf" not in field
