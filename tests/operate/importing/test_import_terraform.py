"""`inbound import terraform`: plans and states as `terraform show -json` prints them (provider hashicorp/aws)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inbound.decide.load import parse
from inbound.operate.cli import cli

TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"
NOTHING: dict[str, Any] = {"add_header_action": [], "bounce_action": [], "lambda_action": [], "s3_action": [], "sns_action": [], "stop_action": [],
                           "workmail_action": []}


def resource(kind: str, label: str = "x", address: str = "", /, **values: Any) -> dict[str, Any]:
    return {"address": address or f"{kind}.{label}", "mode": "managed", "type": kind, "name": label, "schema_version": 0,
            "provider_name": "registry.terraform.io/hashicorp/aws", "values": values, "sensitive_values": {}}


def rule(name: str, after: str | None = None, address: str = "", **values: Any) -> dict[str, Any]:
    return resource("aws_ses_receipt_rule", name, address, **{
        "after": after, "enabled": True, "id": name, "arn": "arn:x", "name": name, "recipients": ["example.com"], "rule_set_name": "main",
        "scan_enabled": False, "tls_policy": "Optional", **NOTHING, **values})


def state(*resources: dict[str, Any], modules: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"format_version": "1.0", "terraform_version": "1.9.5", "values": {"root_module": {
        "resources": list(resources), "child_modules": modules or []}}}


def plan(*planned: tuple[dict[str, Any], dict[str, Any]], configuration: Any = None) -> dict[str, Any]:
    changes = [{"address": each["address"], "change": {"actions": ["create"], "after": each["values"], "after_unknown": unknown}}
               for each, unknown in planned]
    return {"format_version": "1.2", "planned_values": {"root_module": {"resources": [each for each, _ in planned]}},
            "resource_changes": changes, "configuration": {"root_module": configuration or {}}}


def run(tmp_path: Path, data: Any, *arguments: str) -> Result:
    (tmp_path / "show.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return CliRunner().invoke(cli, ["import", "terraform", str(tmp_path / "show.json"), *arguments])


def test_a_state(tmp_path: Path) -> None:
    """Unset optional arguments are empty texts or null in a state; actions lie by type, and their position tells the order."""
    store = rule("store", after="first", enabled=None, tls_policy="Require", scan_enabled=True, recipients=[],
                 s3_action=[{"bucket_name": "mail", "iam_role_arn": "", "kms_key_arn": "", "object_key_prefix": "in/", "topic_arn": "",
                             "position": 2}],
                 add_header_action=[{"header_name": "X-A", "header_value": "", "position": 1}],
                 stop_action=[{"scope": "RuleSet", "topic_arn": TOPIC, "position": 5}],
                 lambda_action=[{"function_arn": "arn:aws:lambda:eu-west-1:123456789012:function:f", "invocation_type": "Event", "topic_arn": "",
                                 "position": 4}],
                 sns_action=[{"topic_arn": TOPIC, "encoding": "Base64", "position": 3}])
    first = rule("first", address='module.mail.aws_ses_receipt_rule.first["a"]', bounce_action=[
        {"message": "No", "sender": "no@example.com", "smtp_reply_code": "550", "status_code": "", "topic_arn": None, "position": 1}])
    workmail = rule("workmail", after="store", workmail_action=[
        {"organization_arn": "arn:aws:workmail:eu-west-1:123456789012:organization/m-abc", "topic_arn": "", "position": 1}])
    result = run(tmp_path, state(
        store, workmail, resource("aws_ses_receipt_rule_set", rule_set_name="main"), resource("aws_ses_receipt_rule_set", "y", rule_set_name="old"),
        resource("aws_ses_active_receipt_rule_set", rule_set_name="main"), resource("aws_s3_bucket", bucket="mail"),
        resource("aws_ses_receipt_filter", name="f", cidr="10.10.10.10", policy="Block", arn="x", id="f"),
        resource("aws_ses_domain_identity", domain="example.com"), {**resource("aws_ses_receipt_filter", name="data"), "mode": "data"},
        modules=[{"address": "module.mail", "resources": [first]}]))
    assert result.exit_code == 0, result.stderr
    found = parse(result.stdout, "r").rule_file
    assert (found.ActiveRuleSet, list(found.RuleSets), found.Identities) == ("main", ["main", "old"], ("example.com",))
    assert [each.model_dump(exclude_unset=True, mode="json") for each in found.RuleSets["main"]] == [
        {"Name": "first", "Enabled": True, "TlsPolicy": "Optional", "ScanEnabled": False, "Recipients": ["example.com"],
         "Actions": [{"BounceAction": {"Message": "No", "Sender": "no@example.com", "SmtpReplyCode": "550"}}]},
        {"Name": "store", "Enabled": False, "TlsPolicy": "Require", "ScanEnabled": True, "Actions": [
            {"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": ""}}, {"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "in/"}},
            {"SNSAction": {"TopicArn": TOPIC, "Encoding": "Base64"}},
            {"LambdaAction": {"FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:f", "InvocationType": "Event"}},
            {"StopAction": {"Scope": "RuleSet", "TopicArn": TOPIC}}]},
        {"Name": "workmail", "Enabled": False, "TlsPolicy": "Optional", "ScanEnabled": False, "Recipients": ["example.com"],
         "Actions": [{"WorkmailAction": {"OrganizationArn": "arn:aws:workmail:eu-west-1:123456789012:organization/m-abc"}}]},
    ]
    assert [each.model_dump() for each in found.Filters] == [{"Name": "f", "IpFilter": {"Policy": "Block", "Cidr": "10.10.10.10"}}]
    assert '# module.mail.aws_ses_receipt_rule.first["a"]\n' in result.stdout
    assert "attention: main/workmail: WorkmailAction is not supported yet" in result.stderr


def test_a_plan_before_apply(tmp_path: Path) -> None:
    planned = rule("store", s3_action=[{"bucket_name": "mail", "position": 1}], lambda_action=[{"function_arn": "arn:x", "position": 2}])
    del planned["values"]["tls_policy"], planned["values"]["lambda_action"][0]["function_arn"]
    unknown = {"id": True, "arn": True, "tls_policy": True, "recipients": [False], "s3_action": [{"topic_arn": True}],
               "lambda_action": [{"function_arn": True, "invocation_type": True}]}
    configuration = {"resources": [{"type": "aws_ses_receipt_rule", "name": "store", "expressions": {"name": {"constant_value": "store"}}}]}
    result = run(tmp_path, plan((planned, unknown), configuration=configuration))
    assert result.exit_code == 1
    assert "TlsPolicy" not in result.stdout, "nobody sets it, so SES's default holds"
    assert "InvocationType" not in result.stdout
    assert "            TopicArn: !Unresolved 'aws_ses_receipt_rule.store.s3_action[0].topic_arn'\n" in result.stdout
    assert "            FunctionArn: !Unresolved 'aws_ses_receipt_rule.store.lambda_action[0].function_arn'\n" in result.stdout
    assert ("attention: main/store: Actions[0].S3Action.TopicArn is not resolved: aws_ses_receipt_rule.store.s3_action[0].topic_arn is known only "
            "after apply; import the state afterwards, or write it in\n") in result.stderr


def test_a_policy_that_somebody_sets_is_not_taken_for_the_default(tmp_path: Path) -> None:
    planned = rule("store")
    del planned["values"]["tls_policy"]
    configuration = {"module_calls": {"m": {"module": {"resources": [
        {"type": "aws_ses_receipt_rule", "name": "store", "expressions": {"tls_policy": {"references": ["data.x.y"]}}}]}}}}
    for given in (configuration, None):
        result = run(tmp_path, plan((planned, {"tls_policy": True}), configuration=given))
        assert "TlsPolicy: !Unresolved 'aws_ses_receipt_rule.store.tls_policy'" in result.stdout


def test_recipients_that_are_not_known_never_take_everything(tmp_path: Path) -> None:
    planned = rule("store")
    for unknown, written in ((True, "Recipients: !Unresolved"), ([True], "Recipients:\n        - !Unresolved")):
        del planned["values"]["recipients"]
        result = run(tmp_path, plan((planned, {"recipients": unknown})), "--identity", "example.com")
        planned["values"]["recipients"] = []
        assert result.exit_code == 1
        assert written in result.stdout


def test_the_order_is_that_of_after(tmp_path: Path) -> None:
    result = run(tmp_path, state(rule("c", after="b"), rule("a"), rule("b", after="a")))
    assert [each.Name for each in parse(result.stdout, "r").rule_set.rules] == ["a", "b", "c"]
    assert "order" not in result.stderr
    open_ = run(tmp_path, state(rule("b"), rule("a")))
    assert "attention: main/b: b, a have no After, so the source does not tell their order" in open_.stderr


def test_a_name_of_a_set_that_is_not_known(tmp_path: Path) -> None:
    planned = rule("a")
    del planned["values"]["rule_set_name"]
    result = run(tmp_path, plan((planned, {"rule_set_name": True})))
    assert result.exit_code == 1
    assert "attention: aws_ses_receipt_rule.a.rule_set_name is not resolved" in result.stderr


def test_an_argument_of_a_newer_provider_is_told(tmp_path: Path) -> None:
    result = run(tmp_path, state(rule("a", priority=3, connect_action=[{"instance_arn": "x", "position": 1}],
                                      stop_action=[{"scope": "RuleSet", "position": 1, "reason": "x"}])))
    for name in ("priority", "connect_action", "stop_action.reason"):
        assert f"aws_ses_receipt_rule.a.{name} is not known here and was left out\n" in result.stderr


def test_two_actions_at_one_position(tmp_path: Path) -> None:
    result = run(tmp_path, state(rule("a", stop_action=[{"scope": "RuleSet", "position": 1}], sns_action=[{"topic_arn": TOPIC, "position": 1}])))
    assert "two actions have the same position, so their order is not known" in result.stderr


@pytest.mark.parametrize(("data", "says"), [
    ("", "is not what `terraform show -json` prints"), ("[]", "is not what"), ({"values": {}}, "is not what"),
    ({"version": 4, "resources": []}, "is a state file; give what `terraform show -json` prints"), ("not JSON", "not JSON"),
    (state(), "has no aws_ses_receipt_rule"), ({"format_version": "1.0", "values": {"root_module": {"resources": 3}}}, "has no aws_ses_receipt_rule"),
    ({"format_version": "1.0", "values": {"root_module": [1]}}, "has no aws_ses_receipt_rule"),
])
def test_bad_input_is_one_line(tmp_path: Path, data: Any, says: str) -> None:
    result = run(tmp_path, data)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_two_active_rule_sets(tmp_path: Path) -> None:
    active = [resource("aws_ses_active_receipt_rule_set", name, rule_set_name=name) for name in ("main", "old")]
    result = run(tmp_path, state(rule("a"), *active))
    assert (result.exit_code, result.stderr) == (2, "inbound: two rule sets are said to be active: main and old; name one with --active\n")
