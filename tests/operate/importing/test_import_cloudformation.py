"""`inbound import cloudformation`: what a template determines is there, what it does not is told with its place and never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inbound.decide.load import parse
from inbound.operate.cli import cli
from inbound.operate.importers.cloudformation import draft
from inbound.operate.importers.draft import Unresolved
from inbound.operate.importers.intrinsics import NO_VALUE, Resolver
from inbound.operate.importers.template import read

KNOWN = ["--parameter", "AWS::Region=eu-west-1", "--parameter", "AWS::AccountId=123456789012"]
TEMPLATE = """\
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  Stage: {Type: String, Default: prod}
  Domains: {Type: CommaDelimitedList, Default: "example.com, .example.com"}
  Reply: {Type: Number, Default: 550}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsTest: !Not [!Condition IsProd]
Resources:
  Rules:
    Type: AWS::SES::ReceiptRuleSet
    Properties: {RuleSetName: !Sub "mail-${Stage}"}
  Topic:
    Type: AWS::SNS::Topic
    Properties: {TopicName: stored}
  Last:
    Type: AWS::SES::ReceiptRule
    Properties:
      RuleSetName: !Ref Rules
      After: !Ref Store
      Rule:
        Name: last
        Recipients: [example.com]
        Actions: [StopAction: {Scope: RuleSet}]
  Store:
    Type: AWS::SES::ReceiptRule
    Properties:
      RuleSetName: !Ref Rules
      After: first
      Rule:
        Name: store
        Enabled: true
        ScanEnabled: "true"
        TlsPolicy: !If [IsProd, Require, Optional]
        Recipients: !Ref Domains
        Actions:
          - S3Action:
              BucketName: !Join ["-", [mail, !Ref Stage]]
              ObjectKeyPrefix: !If [IsTest, x, !Ref "AWS::NoValue"]
              TopicArn: !Ref Topic
          - BounceAction: {SmtpReplyCode: !Ref Reply, StatusCode: 5.1.1, Message: no, Sender: no@example.com}
  First:
    Type: AWS::SES::ReceiptRule
    Properties:
      RuleSetName: !Sub "mail-${Stage}"
      Rule:
        Name: first
        Enabled: true
        Recipients: [example.com]
        Actions:
          - AddHeaderAction: {HeaderName: X-Stage, HeaderValue: !Sub ["${S}/${!literal}", {S: !Ref Stage}]}
  OnlyTest:
    Type: AWS::SES::ReceiptRule
    Condition: IsTest
    Properties: {RuleSetName: !Ref Rules, Rule: {Name: test}}
  Block:
    Type: AWS::SES::ReceiptFilter
    Properties: {Filter: {Name: block, IpFilter: {Policy: Block, Cidr: 10.0.0.1/24}}}
  Domain:
    Type: AWS::SES::EmailIdentity
    Properties: {EmailIdentity: example.com}
"""


def run(tmp_path: Path, text: str, *arguments: str) -> Result:
    (tmp_path / "template").write_text(text)
    return CliRunner().invoke(cli, ["import", "cloudformation", str(tmp_path / "template"), *arguments])


def in_template(rule: str, more: str = "") -> str:
    return f"Resources:\n  R:\n    Type: AWS::SES::ReceiptRule\n    Properties:\n      RuleSetName: s\n      Rule: {rule}\n{more}"


def test_a_whole_template(tmp_path: Path) -> None:
    result = run(tmp_path, TEMPLATE, *KNOWN)
    assert result.exit_code == 0, result.stderr
    found = parse(result.stdout, "r").rule_file
    assert found.active_name == "mail-prod"
    assert found.Identities == ("example.com",)
    assert [rule.model_dump(exclude_unset=True, mode="json") for rule in found.RuleSets["mail-prod"]] == [
        {"Name": "first", "Enabled": True, "Recipients": ["example.com"],
         "Actions": [{"AddHeaderAction": {"HeaderName": "X-Stage", "HeaderValue": "prod/${literal}"}}]},
        {"Name": "store", "Enabled": True, "TlsPolicy": "Require", "ScanEnabled": True, "Recipients": ["example.com", ".example.com"], "Actions": [
            {"S3Action": {"BucketName": "mail-prod", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:stored"}},
            {"BounceAction": {"SmtpReplyCode": "550", "StatusCode": "5.1.1", "Message": "no", "Sender": "no@example.com"}}]},
        {"Name": "last", "Enabled": False, "Recipients": ["example.com"], "Actions": [{"StopAction": {"Scope": "RuleSet"}}]},
    ]
    assert [each.model_dump() for each in found.Filters] == [{"Name": "block", "IpFilter": {"Policy": "Block", "Cidr": "10.0.0.1/24"}}]
    line = TEMPLATE.splitlines().index("  First:") + 2
    assert f"    # {tmp_path}/template:{line}:5 Resources.First\n    - Name: first\n" in result.stdout


def test_the_same_template_as_json_and_as_get_template_prints_it(tmp_path: Path) -> None:
    as_json = json.dumps(read(TEMPLATE, "t").data)
    expected = parse(run(tmp_path, TEMPLATE, *KNOWN).stdout, "r").rule_file
    for text in (as_json, json.dumps({"TemplateBody": json.loads(as_json), "StagesAvailable": []}), json.dumps({"TemplateBody": TEMPLATE})):
        result = run(tmp_path, text, *KNOWN)
        assert result.exit_code == 0, result.stderr
        assert parse(result.stdout, "r").rule_file == expected


def test_a_value_of_the_command_line_beats_the_default(tmp_path: Path) -> None:
    result = run(tmp_path, TEMPLATE, *KNOWN, "--parameter", "Stage=test", "--parameter", "Domains=a.example.com", "--active", "mail-test")
    rules = parse(result.stdout, "r").rule_file.RuleSets["mail-test"]
    assert rules[[rule.Name for rule in rules].index("store")].Recipients == ("a.example.com",)
    assert "test" in [rule.Name for rule in rules], "the condition holds now"


def test_what_is_not_known_is_marked_and_told_with_its_place(tmp_path: Path) -> None:
    result = run(tmp_path, TEMPLATE)
    assert result.exit_code == 1
    assert """            TopicArn: !Unresolved '{"Ref": "Topic"}'\n""" in result.stdout
    assert (f"attention: mail-prod/store: Actions[0].S3Action.TopicArn is not resolved: give --parameter AWS::Region=VALUE; "
            f"give --parameter AWS::AccountId=VALUE; or give --parameter Topic=VALUE "
            f"(at {tmp_path}/template:40:25 Resources.Store.Properties.Rule.Actions[0].S3Action.TopicArn)\n") in result.stderr
    line = result.stdout.splitlines().index("            TopicArn: !Unresolved '{\"Ref\": \"Topic\"}'") + 1
    assert result.stderr.endswith(f"rules.yaml does not pass inbound check yet: 1 value to write in place of !Unresolved, line {line}\n")
    assert "could not resolve" not in result.stderr


def test_no_value_is_ever_made_up_for_a_recipient(tmp_path: Path) -> None:
    """A recipient that is not known must not leave an empty list: that would take everything."""
    text = in_template("{Name: a, Enabled: true, Recipients: [!Ref Address], Actions: []}", "Parameters: {Address: {Type: String}}")
    result = run(tmp_path, text, "--identity", "example.com")
    assert result.exit_code == 1
    assert """Recipients:\n        - !Unresolved '{"Ref": "Address"}'\n""" in result.stdout
    whole = run(tmp_path, text.replace("[!Ref Address]", "!Ref Address"), "--identity", "example.com")
    assert whole.exit_code == 1
    assert """Recipients: !Unresolved '{"Ref": "Address"}'\n""" in whole.stdout


def test_names_that_cloudformation_makes_up(tmp_path: Path) -> None:
    """As `cdk synth` writes them: neither the set nor the rules have names."""
    text = """
Resources:
  RuleSetE30C6C48: {Type: AWS::SES::ReceiptRuleSet}
  RuleSetDrop: {Type: AWS::SES::ReceiptRule, Properties: {Rule: {Enabled: true, Recipients: [example.com]}, RuleSetName: {Ref: RuleSetE30C6C48}}}
  RuleSetKeep:
    Type: AWS::SES::ReceiptRule
    Properties: {Rule: {Enabled: true, Recipients: [example.com]}, RuleSetName: {Ref: RuleSetE30C6C48}, After: {Ref: RuleSetDrop}}
"""
    result = run(tmp_path, text)
    assert result.exit_code == 0
    assert [rule.Name for rule in parse(result.stdout, "r").rule_set.rules] == ["RuleSetDrop", "RuleSetKeep"]
    assert "attention: RuleSetE30C6C48/RuleSetKeep: CloudFormation makes up its name" in result.stderr
    real = run(tmp_path, text, "--parameter", "RuleSetE30C6C48=mail-1A2B", "--parameter", "RuleSetDrop=drop-3C4D", "--parameter", "RuleSetKeep=k")
    found = parse(real.stdout, "r").rule_file
    assert (found.active_name, [rule.Name for rule in found.RuleSets["mail-1A2B"]]) == ("mail-1A2B", ["drop-3C4D", "k"])
    assert "makes up" not in real.stderr


def rule_with(after: str) -> str:
    return f"{{Type: AWS::SES::ReceiptRule, Properties: {{RuleSetName: s, {after} Rule: {{Recipients: [example.com]}}}}}}"


@pytest.mark.parametrize(("rules", "order", "says"), [
    ({"A": "After: {Ref: B},", "B": "After: {Ref: C},", "C": ""}, ["C", "B", "A"], ""),
    ({"A": "", "B": "", "C": "After: A,"}, ["A", "C", "B"], "A, B have no After, so the source does not tell their order"),
    ({"A": "", "B": "After: A,", "C": "After: A,"}, ["A", "B", "C"], "B, C all come after A, so the source does not tell their order"),
    ({"A": "After: elsewhere,", "B": ""}, ["B", "A"], "comes after elsewhere, which is not in the source, so it is last here"),
    ({"A": "After: B,", "B": "After: A,", "C": ""}, ["C", "A", "B"], "in a circle"),
    ({"A": "After: {Ref: X},", "B": ""}, ["B", "A"], "its place is not resolved, so it is last here: there is neither a parameter nor a resource X"),
])
def test_the_order_of_rules(tmp_path: Path, rules: dict[str, str], order: list[str], says: str) -> None:
    text = "Resources:\n" + "".join(f"  {name}: {rule_with(after)}\n" for name, after in rules.items())
    result = run(tmp_path, text)
    assert [rule.Name for rule in parse(result.stdout, "r").rule_set.rules] == order
    assert says in result.stderr
    assert ("order" in result.stderr or "last" in result.stderr) is bool(says)


@pytest.mark.parametrize(("rules", "order", "says"), [
    ({"B": "After: A,", "C": "After: B,", "A": "After: {Ref: X},", "D": ""}, ["D", "A", "B", "C"], {
        "A": "its place is not resolved, so it is last here: there is neither a parameter nor a resource X",
        "B": "comes after A, whose own place is not known, so it is last here as well, behind that one",
        "C": "comes after B, whose own place is not known, so it is last here as well, behind that one"}),
    ({"B": "After: A,", "A": "After: elsewhere,"}, ["A", "B"], {
        "A": "comes after elsewhere, which is not in the source, so it is last here",
        "B": "comes after A, whose own place is not known, so it is last here as well, behind that one"}),
    ({"A": "After: B,", "B": "After: A,", "C": "After: B,"}, ["A", "B", "C"], {
        "A": "comes after B in a circle, so its place is not known and it is last here",
        "B": "comes after A in a circle, so its place is not known and it is last here",
        "C": "comes after B, which leads to rules that come after each other in a circle, so its place is not known and it is last here"}),
    ({"A": "After: A,", "B": ""}, ["B", "A"], {"A": "comes after A in a circle, so its place is not known and it is last here"}),
])
def test_only_rules_in_a_circle_are_told_to_be_in_one(tmp_path: Path, rules: dict[str, str], order: list[str], says: dict[str, str]) -> None:
    """A rule behind one with an unresolved place was told so, too."""
    result = run(tmp_path, "Resources:\n" + "".join(f"  {name}: {rule_with(after)}\n" for name, after in rules.items()))
    assert [rule.Name for rule in parse(result.stdout, "r").rule_set.rules] == order
    for name, why in says.items():
        assert [line for line in result.stderr.splitlines() if f"{name}: {why}" in line], result.stderr
    assert result.stderr.count("last here") == len(says)


def test_a_rule_under_a_condition_that_is_not_known(tmp_path: Path) -> None:
    text = in_template("{Name: a, Enabled: true, Recipients: [example.com]}").replace("    Type", "    Condition: C\n    Type", 1)
    text += "Parameters: {P: {Type: String}}\nConditions: {C: !Equals [!Ref P, x]}\n"
    result = run(tmp_path, text)
    assert result.exit_code == 1
    assert """Enabled: !Unresolved '{"Fn::Equals": [{"Ref": "P"}, "x"]}'""" in result.stdout
    assert "whether the rule exists at all depends on a condition: the parameter P has no Default" in result.stderr
    assert run(tmp_path, text, "--parameter", "P=x").exit_code == 0
    assert "has no resource" in run(tmp_path, text, "--parameter", "P=y").stderr


def test_what_is_expanded_elsewhere_is_told(tmp_path: Path) -> None:
    result = run(tmp_path, in_template("{Name: a, Recipients: [example.com]}", "  Fn::ForEach::X: [A, [b], {}]\n"))
    assert "attention: Fn::ForEach::X is not expanded here: what it makes is missing" in result.stderr


def test_a_nested_stack_and_a_resource_that_is_included_are_told(tmp_path: Path) -> None:
    more = ("  Inner: {Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: x}}\n"
            "  Other: {Fn::Transform: {Name: 'AWS::Include', Parameters: {Location: x}}}\n")
    result = run(tmp_path, in_template("{Name: a, Recipients: [example.com]}", more))
    assert "attention: Inner is a stack of its own: what its template makes is missing" in result.stderr
    assert "attention: Other is not expanded here: what it makes is missing" in result.stderr


def test_a_template_of_nothing_but_loops_is_told_where_its_rules_are(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("Resources:\n  Fn::ForEach::X: [A, [b], {}]\n")
    result = CliRunner().invoke(cli, ["import", "cloudformation", str(tmp_path / "t.yaml")])
    assert result.exit_code == 2
    assert "Fn::ForEach::X is not expanded here" in result.stderr
    assert "--template-stage Processed" in result.stderr


# --- intrinsic functions ---

RESOURCES = """
Parameters:
  Plain: {Type: String, Default: plain}
  List: {Type: CommaDelimitedList, Default: "a, b"}
  Secret: {Type: "AWS::SSM::Parameter::Value<String>", Default: /path}
  Open: {Type: String}
Mappings: {M: {eu: {size: big}}}
Conditions:
  Yes: !Equals [a, a]
  Unknown: !Equals [!Ref Open, a]
  Loop: !Condition Loop
Resources:
  Bucket: {Type: AWS::S3::Bucket, Properties: {BucketName: mail}}
  Nameless: {Type: AWS::S3::Bucket}
  Fn: {Type: AWS::Lambda::Function, Properties: {FunctionName: f}}
  Role: {Type: AWS::IAM::Role, Properties: {RoleName: r, Path: /x/}}
  Plainrole: {Type: AWS::IAM::Role, Properties: {RoleName: r}}
  Key: {Type: AWS::KMS::Key}
  Self: {Type: AWS::S3::Bucket, Properties: {BucketName: !Ref Self}}
  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: t}}
"""
GIVEN = {"AWS::Region": "us-gov-west-1", "AWS::AccountId": "123456789012", "Exported": "value", "Key.Arn": "arn:key"}


def evaluated(expression: str) -> Any:
    template = read(f"{RESOURCES}Outputs: {{X: {expression}}}\n", "t.yaml")
    return Resolver(template, GIVEN).value(template.data["Outputs"]["X"], ("Outputs", "X"))


@pytest.mark.parametrize(("expression", "value"), [
    ("!Ref Plain", "plain"), ("!Ref List", ["a", "b"]), ("!Ref Bucket", "mail"), ("!Ref AWS::Region", "us-gov-west-1"),
    ("!Ref AWS::Partition", "aws-us-gov"), ("{Ref: AWS::NoValue}", NO_VALUE), ("[x, !Ref AWS::NoValue]", ["x"]),
    ("!GetAtt Fn.Arn", "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f"), ("!GetAtt [Bucket, Arn]", "arn:aws-us-gov:s3:::mail"),
    ("!GetAtt Role.Arn", "arn:aws-us-gov:iam::123456789012:role/x/r"), ("!GetAtt Plainrole.Arn", "arn:aws-us-gov:iam::123456789012:role/r"),
    ("!GetAtt Key.Arn", "arn:key"), ("!Ref Topic", "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t"), ("!GetAtt Topic.TopicName", "t"),
    ('!Sub "${Plain}-${Bucket}-${Fn.Arn}-${!Plain}"', "plain-mail-arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f-${Plain}"),
    ('!Sub ["${a}${Plain}", {a: !Select [1, !Ref List]}]', "bplain"), ('!Join [",", !Ref List]', "a,b"), ('!Split ["-", a-b]', ["a", "b"]),
    ('!Select [0, !Split ["-", a-b]]', "a"), ("!FindInMap [M, eu, size]", "big"), ("!FindInMap [M, us, size, {DefaultValue: small}]", "small"),
    ("!If [Yes, 1, 2]", "1"), ("!ImportValue Exported", "value"), ("{Fn::Equals: [a, b]}", False), ("!And [!Condition Yes, !Equals [a, b]]", False),
    ("!Or [!Condition Unknown, !Condition Yes]", True), ("!And [!Condition Unknown, !Equals [a, b]]", False), ("!Not [!Condition Yes]", False),
    ("{Condition: {StringEquals: x}}", {"Condition": {"StringEquals": "x"}}), ("{a: {Ref: Plain, more: 1}}", {"a": {"Ref": "Plain", "more": "1"}}),
])
def test_a_function_that_the_template_determines(expression: str, value: Any) -> None:
    assert evaluated(expression) == value


@pytest.mark.parametrize(("expression", "why"), [
    ("!Ref Open", "the parameter Open has no Default; give --parameter Open=VALUE"), ("!Ref Secret", "is kept in SSM"),
    ("!Ref Nothing", "there is neither a parameter nor a resource Nothing"), ("!Ref AWS::StackName", "give --parameter AWS::StackName=VALUE"),
    ("!Ref Nameless", "Nameless has no BucketName, so CloudFormation makes one up; or give --parameter Nameless=VALUE"),
    ("!Ref Key", "it is known only once Key exists; give --parameter Key=VALUE"), ("!Ref Self", "refers to itself"),
    ("!Ref [a]", "Ref takes a name"), ("!GetAtt Nothing.Arn", "there is no resource Nothing"), ("!GetAtt Fn", "GetAtt takes"),
    ('!Sub "x${Open}"', "the parameter Open has no Default"), ("!Sub [a]", "Sub takes"), ('!Sub "${List}"', "List is not a text"),
    ('!Join ["", [a, !Ref Open]]', "the parameter Open has no Default"), ('!Join ["", [[a]]]', "Join takes"), ("!Join a", "Join takes"),
    ("!Select [2, [a, b]]", "Select takes"), ("!Select [-1, [a]]", "Select takes"), ('!Split ["", a]', "Split takes"),
    ("!Split [\",\", !Ref Open]", "the parameter Open has no Default"), ("!FindInMap [M, us, size]", "Mappings has no M.us.size"),
    ("!If [Unknown, a, b]", "the parameter Open has no Default"), ("!If [Nothing, a, b]", "there is no condition Nothing"), ("!If [Yes]", "If takes"),
    ("!Condition Loop", "the condition Loop refers to itself"), ("!ImportValue Else", "another stack exports it; give --parameter Else=VALUE"),
    ("!GetAZs eu-west-1", "Fn::GetAZs is not evaluated here"), ("!Transform {Name: x}", "Fn::Transform is not evaluated here"),
    ("!Not [!Condition Unknown]", "the parameter Open has no Default"), ("!Not x", "Not takes"), ("!Or [a]", "Fn::Or takes conditions"),
    ("!Equals [!Ref Open, a]", "the parameter Open has no Default"),
])
def test_a_function_that_stays_open_says_why_and_where(expression: str, why: str) -> None:
    found = evaluated(expression)
    assert isinstance(found, Unresolved)
    assert why in found.why
    assert "(at t.yaml:" in found.why


# --- what the deployed stack tells ---

STACK_ID = "arn:aws-us-gov:cloudformation:us-gov-west-1:123456789012:stack/mail/51af3dc0-da77-11e4-872e-1234567db123"
SYNTHESISED = """
Parameters:
  Domain: {Type: String}
  Secret: {Type: String, NoEcho: true, Default: x}
  Kept: {Type: "AWS::SSM::Parameter::Value<String>", Default: /path}
Resources:
  Set: {Type: AWS::SES::ReceiptRuleSet}
  Topic: {Type: AWS::SNS::Topic}
  Fn: {Type: AWS::Lambda::Function}
  Rule:
    Type: AWS::SES::ReceiptRule
    Properties:
      RuleSetName: {Ref: Set}
      Rule:
        Recipients: [!Ref Domain]
        Actions:
          - S3Action: {BucketName: !Ref Kept, TopicArn: !Ref Topic, ObjectKeyPrefix: !Ref Secret}
          - LambdaAction: {FunctionArn: !GetAtt Fn.Arn}
"""


def test_a_deployed_stack_resolves_what_the_template_leaves_open(tmp_path: Path) -> None:
    assert run(tmp_path, SYNTHESISED).exit_code == 1
    (tmp_path / "stacks.json").write_text(json.dumps({"Stacks": [{"StackId": STACK_ID, "StackName": "mail", "Parameters": [
        {"ParameterKey": "Domain", "ParameterValue": "example.com"}, {"ParameterKey": "Secret", "ParameterValue": "****"},
        {"ParameterKey": "Kept", "ParameterValue": "/path", "ResolvedValue": "mail-bucket"}]}]}))
    (tmp_path / "resources.json").write_text(json.dumps({"StackResourceSummaries": [
        {"LogicalResourceId": name, "PhysicalResourceId": value, "ResourceType": "x"} for name, value in {
            "Set": "mail-Set-1A2B", "Rule": "mail-Rule-3C4D", "Fn": "mail-Fn-5E6F",
            "Topic": "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t"}.items()]}))
    told = ["--stack", str(tmp_path / "stacks.json"), "--stack", str(tmp_path / "resources.json")]
    hidden = run(tmp_path, SYNTHESISED, *told)
    assert hidden.exit_code == 1
    assert "the parameter Secret is secret (NoEcho), and may not have its Default" in hidden.stderr
    result = run(tmp_path, SYNTHESISED, *told, "--parameter", "Secret=x")
    assert result.exit_code == 0, result.stderr
    found = parse(result.stdout, "r").rule_file
    assert found.active_name == "mail-Set-1A2B"
    assert [rule.model_dump(exclude_unset=True, mode="json") for rule in found.RuleSets["mail-Set-1A2B"]] == [
        {"Name": "mail-Rule-3C4D", "Enabled": False, "Recipients": ["example.com"], "Actions": [
            {"S3Action": {"BucketName": "mail-bucket", "TopicArn": "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t", "ObjectKeyPrefix": "x"}},
            {"LambdaAction": {"FunctionArn": "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:mail-Fn-5E6F"}}]}]


@pytest.mark.parametrize(("data", "says"), [
    ({}, "is none of describe-stacks"), ([], "is none of describe-stacks"), ({"Stacks": [{}, {}]}, "tells of 2 stacks"),
])
def test_what_is_no_stack(tmp_path: Path, data: Any, says: str) -> None:
    (tmp_path / "stack.json").write_text(json.dumps(data))
    result = run(tmp_path, TEMPLATE, "--stack", str(tmp_path / "stack.json"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


# --- bad input ---


@pytest.mark.parametrize(("text", "says"), [
    ("", "is no CloudFormation template: it has no Resources"), ("[]", "has no Resources"), ("{", "begins as JSON, and is not"),
    ("a: [", "not YAML"), ("Resources: {}", "has no resource of the type AWS::SES::ReceiptRule"), ("x: &a 1\ny: *a\n", ":2: has a YAML alias"),
    ("[" * 100, "is nested too deeply"), ('{"a":' * 100_000, "is nested too deeply"), ("\x00", "not YAML"),
    ("Resources: {R: {Type: AWS::SES::ReceiptRule}}", "has no RuleSetName"),
    ("Resources: {R: {Type: AWS::SES::ReceiptRule, Properties: {RuleSetName: s}}}", "has no Rule"),
    ("Resources: {R: {Type: AWS::SES::ReceiptFilter}}", "has no Filter"), ("Resources: {R: 1, 2: [a]}", "has no resource of the type"),
    ("? [a]\n: b\n", "has no Resources"),
], ids=lambda value: value[:30])
def test_bad_input_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    result = run(tmp_path, text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_parameter_without_a_value(tmp_path: Path) -> None:
    result = run(tmp_path, TEMPLATE, "--parameter", "Stage")
    assert result.exit_code == 2
    assert "--parameter Stage: is not NAME=VALUE" in result.stderr


def test_shapes_that_are_wrong_are_told_by_the_check(tmp_path: Path) -> None:
    for rule in ("{Name: [a], Actions: x}", "{Actions: [[a]], Enabled: {a: b}}", "{Name: {Ref: [x]}}"):
        result = run(tmp_path, in_template(rule))
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit), rule


def test_draft_tells_each_remark_once() -> None:
    found = draft(TEMPLATE.replace("{RuleSetName: !Sub \"mail-${Stage}\"}", "{}"), "t.yaml", {"AWS::Region": "r", "AWS::AccountId": "1"})
    assert len([remark for remark in found.remarks if "rule set Rules" in remark]) == 1
