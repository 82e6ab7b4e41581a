"""`inbound import ses` and `inbound export ses`: nothing is lost either way, and a new field of SES does not go unnoticed."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import botocore.session
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import example, given
from operate.importing.ses_documents import RULE_SETS

from inbound.decide.load import parse
from inbound.decide.rules import Model, ReceiptFilter, ReceiptRule
from inbound.operate.cli import cli
from inbound.operate.importers.ses import export, read
from inbound.operate.importers.writing import scalar, write

RULE = {"Name": "store", "Enabled": True, "Recipients": ["example.com"], "Actions": [{"S3Action": {"BucketName": "mail"}}]}
ACTIVE = {"Metadata": {"Name": "default", "CreatedTimestamp": "2016-07-15T16:25:59.607Z"}, "Rules": [RULE]}


def run(tmp_path: Path, *arguments: str, given: str | None = None, **files: Any) -> Result:
    for name, data in files.items():
        (tmp_path / f"{name}.json").write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    paths = [str(tmp_path / f"{name}.json") for name in files]
    return CliRunner().invoke(cli, ["import", "ses", *paths, *arguments], input=given)


# --- every field of SES ---


def models() -> list[tuple[str, Any, type[Model]]]:
    """Each structure of SES's own model of receipt rules and filters, beside the model here."""
    service = botocore.session.get_session().get_service_model("ses")
    found: list[tuple[str, Any, type[Model]]] = []
    waiting: list[tuple[Any, type[Model]]] = [(service.shape_for("ReceiptRule"), ReceiptRule), (service.shape_for("ReceiptFilter"), ReceiptFilter)]
    while waiting:
        shape, model = waiting.pop()
        found.append((shape.name, shape, model))
        for name, member in shape.members.items():
            inner = member.member if member.type_name == "list" else member
            if inner.type_name == "structure" and name in model.model_fields:
                waiting.append((inner, model_of(model.model_fields[name].annotation)))
    return found


def model_of(annotation: Any) -> type[Model]:
    while get_origin(annotation) is not None:
        annotation = next(arg for arg in get_args(annotation) if arg not in (type(None), Ellipsis))
    assert issubclass(annotation, Model)
    return annotation


def choices(annotation: Any) -> set[str]:
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*(choices(arg) for arg in get_args(annotation)))
    return set()


@pytest.mark.parametrize(("shape", "model"), [pytest.param(shape, model, id=name) for name, shape, model in models()])
def test_our_models_have_every_field_of_ses(shape: Any, model: type[Model]) -> None:
    assert set(model.model_fields) == set(shape.members)
    assert {name for name, field in model.model_fields.items() if field.is_required()} == set(shape.required_members)
    for name, member in shape.members.items():
        assert choices(model.model_fields[name].annotation) == set(getattr(member, "enum", ())), name


def test_all_structures_were_compared() -> None:
    assert {"ReceiptRule", "ReceiptAction", "S3Action", "ConnectAction", "AddHeaderAction", "ReceiptIpFilter"} <= {name for name, _, _ in models()}


# --- there and back ---


@given(RULE_SETS)
@example({"Metadata": {"Name": "x"}, "Rules": []})
def test_ses_to_rules_and_back_is_the_identity(document: dict[str, Any]) -> None:
    draft = read([("active.json", json.loads(json.dumps(document)))])
    draft.identities = ["example.com", "123.example", "münchen.example", "x_y.example"]
    draft.settle()
    text = write(draft, ["active.json"])
    assert export(parse(text, "rules.yaml").rule_file, document["Metadata"]["Name"]) == document
    plain = yaml.safe_load(text)
    assert plain["RuleSets"][document["Metadata"]["Name"]] == document["Rules"], "another YAML reader finds other values"
    assert plain.get("Filters", []) == document.get("Filters", [])


def test_the_commands_go_there_and_back(tmp_path: Path) -> None:
    filters = {"Filters": [{"Name": "f", "IpFilter": {"Policy": "Block", "Cidr": "10.0.0.1/24"}}]}
    result = run(tmp_path, "-o", str(tmp_path / "rules.yaml"), active=ACTIVE, filters=filters, identities={"Identities": ["example.com"]})
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == ("imported from SES: 1 rule set, 1 rule, 1 filter; active: default\n"
                             f"{tmp_path}/rules.yaml passes inbound check\n")
    assert CliRunner().invoke(cli, ["check", str(tmp_path / "rules.yaml")]).exit_code == 0
    back = json.loads(CliRunner().invoke(cli, ["export", "ses", str(tmp_path / "rules.yaml")]).stdout)
    assert back == {"Metadata": {"Name": "default"}, "Rules": [RULE], **filters}


def test_the_file_reads_well(tmp_path: Path) -> None:
    rules = [RULE, {"Name": "2", "Actions": [{"BounceAction": {"SmtpReplyCode": "550", "Message": "No: such # user", "Sender": "a@example.com"}}]}]
    result = run(tmp_path, "--identity", "example.com", active={**ACTIVE, "Rules": rules})
    assert result.stdout == f"""\
# Imported from SES: {tmp_path}/active.json. SES's default for Enabled is false, so it is written everywhere.

Identities:
  - example.com
ActiveRuleSet: default
RuleSets:
  default:

    # {tmp_path}/active.json: Rules[0] of default
    - Name: store
      Enabled: true
      Recipients:
        - example.com
      Actions:
        - S3Action:
            BucketName: mail

    # {tmp_path}/active.json: Rules[1] of default
    - Name: "2"
      Enabled: false
      Actions:
        - BounceAction:
            SmtpReplyCode: "550"
            Message: "No: such # user"
            Sender: a@example.com
"""
    assert result.exit_code == 0


def test_the_default_of_enabled_is_that_of_ses(tmp_path: Path) -> None:
    result = run(tmp_path, active={**ACTIVE, "Rules": [{"Name": "quiet", "Recipients": ["example.com"], "Actions": []}]})
    assert [rule.Enabled for rule in parse(result.stdout, "r").rule_file.RuleSets["default"]] == [False]


def test_null_of_an_sdk_means_absent(tmp_path: Path) -> None:
    action = {"S3Action": {"BucketName": "mail", "TopicArn": None}, "BounceAction": None}
    result = run(tmp_path, active={**ACTIVE, "Rules": [{**RULE, "TlsPolicy": None, "Actions": [action]}]})
    assert result.exit_code == 0
    assert parse(result.stdout, "r").rule_file.RuleSets["default"][0].model_dump(exclude_unset=True)["Actions"] == (
        {"S3Action": {"BucketName": "mail"}},)


@pytest.mark.parametrize("text", ["true", "No", "1", "0x1f", "1e3", ".5", ".inf", "~", "", " x",
                                  "x: y", "x #y", "-", "2001-01-01", "12:30", "=", "<<"])
def test_what_yaml_takes_for_something_else_is_quoted(text: str) -> None:
    assert scalar(text).startswith('"')


@pytest.mark.parametrize("text", ["support@example.com", ".example.com", "arn:aws:sns:eu-west-1:123456789012:a", "in/", "RuleSet", "X-A"])
def test_what_is_plain_stays_readable(text: str) -> None:
    assert scalar(text) == text


# --- what needs a person ---


def test_an_action_that_is_not_supported_comes_in_disabled(tmp_path: Path) -> None:
    arn = "arn:aws:workmail:eu-west-1:123456789012:organization/m-68755160c4cb4e29a2b2f8fb58f359d7"
    rule = {**RULE, "Name": "workmail", "Actions": [{"WorkmailAction": {"OrganizationArn": arn}}]}
    result = run(tmp_path, "--identity", "example.com", active={**ACTIVE, "Rules": [rule, RULE]})
    assert result.exit_code == 0
    told = "WorkmailAction is not supported yet, so the rule comes in disabled (in the source Enabled is true)"
    assert f"    # ATTENTION: {told}\n    - Name: workmail\n      Enabled: false\n" in result.stdout
    assert f"attention: default/workmail: {told}\n" in result.stderr


def test_identities_are_asked_for(tmp_path: Path) -> None:
    catch_all = {"Name": "all", "Enabled": True, "Actions": [{"StopAction": {"Scope": "RuleSet"}}]}
    result = run(tmp_path, active={**ACTIVE, "Rules": [catch_all]})
    assert result.exit_code == 1
    assert "attention: Identities are not told" in result.stderr
    assert "has no Recipients, so it takes what Identities name" in result.stderr
    assert result.stderr.endswith("rules.yaml does not pass inbound check yet\n")


def test_a_field_that_we_do_not_know_is_kept_and_told(tmp_path: Path) -> None:
    result = run(tmp_path, active={**ACTIVE, "Rules": [{**RULE, "Priority": 7}]})
    assert result.exit_code == 1
    assert '      Priority: "7"\n' in result.stdout
    assert "Priority: unknown key" in result.stderr


def test_several_rule_sets_need_one_that_is_active(tmp_path: Path) -> None:
    other = {"Metadata": {"Name": "other"}, "Rules": []}
    result = run(tmp_path, active=ACTIVE, other=other)
    assert result.exit_code == 1
    assert "ActiveRuleSet: is missing; name the rule set in use: default, other" in result.stderr
    chosen = run(tmp_path, "--active", "other", active=ACTIVE, other=other)
    assert chosen.exit_code == 0
    assert "ActiveRuleSet: other\n" in chosen.stdout


def test_the_same_rule_set_twice_is_one(tmp_path: Path) -> None:
    assert run(tmp_path, active=ACTIVE, again=ACTIVE).exit_code == 0
    result = run(tmp_path, active=ACTIVE, again={**ACTIVE, "Rules": []})
    assert (result.exit_code, result.stdout) == (2, "")
    assert "again.json: the rule set default is given twice, and not the same" in result.stderr


def test_no_active_rule_set_receives_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, active="")  # what the AWS CLI prints then
    assert result.exit_code == 0
    assert parse(result.stdout, "r").rule_set.name is None
    assert "attention: no rule set is active: nothing is received\n" in result.stderr


def test_standard_input(tmp_path: Path) -> None:
    result = run(tmp_path, "-", given=json.dumps(ACTIVE))
    assert result.exit_code == 0
    assert "# standard input: Rules[0] of default\n" in result.stdout


def test_powershell_writes_utf_16(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps(ACTIVE).encode("utf-16"))
    assert CliRunner().invoke(cli, ["import", "ses", str(tmp_path / "a.json")]).exit_code == 0


def test_a_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    target = tmp_path / "rules.yaml"
    target.write_text("mine\n")
    target.chmod(0o640)
    refused = run(tmp_path, "-o", str(target), active=ACTIVE)
    assert (refused.exit_code, refused.stderr) == (2, f"inbound: {target} exists; --force overwrites it\n")
    assert target.read_text() == "mine\n"
    assert run(tmp_path, "-o", str(target), "--force", active=ACTIVE).exit_code == 0
    assert "Name: store" in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["active.json", "rules.yaml"]


@pytest.mark.parametrize(("target", "why"), [("nowhere/rules.yaml", "No such file or directory"), ("folder", "Is a directory"),
                                             ("active.json/rules.yaml", "Not a directory")])
def test_an_output_that_cannot_be_written_is_named_and_not_the_file_on_the_way_to_it(tmp_path: Path, target: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "active.json").write_text(json.dumps(ACTIVE))
    result = run(tmp_path, "-o", str(tmp_path / target), "--force", active=ACTIVE)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"inbound: cannot write {tmp_path / target}: {why}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["active.json", "folder"]


@pytest.mark.parametrize(("text", "says"), [
    ("{", "not JSON"),
    ("[]", "it holds a list"),
    ('{"Resources": {}}', "it holds the key 'Resources'"),
    ('{"Rules": []}', "Metadata.Name is missing"),
    ('{"Metadata": {"Name": "x"}, "Rules": {}}', "Rules is not a list"),
    ('{"Metadata": {"Name": "x"}, "Rules": [1]}', "Rules[0] is not an object"),
    ('{"Filters": [1]}', "Filters[0] is not an object"),
    ("[" * 100_000, "too deeply"),
], ids=lambda value: value[:30])
def test_bad_input_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    result = run(tmp_path, bad=text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("rules", [
    [{"Name": "x\ud800\n\x1b[31m", "Actions": [{"S3Action": {"BucketName": {"a": [[], {}]}}}]}], [{}], [{"Actions": "x"}], [{"Actions": [[1, [2]]]}],
    [{"Actions": [3], "Recipients": {"a": {"b": None}}}], [{"Name": 5, "Enabled": "maybe"}], [{"": {"": ""}}],
])
def test_nonsense_within_is_told_by_the_check(tmp_path: Path, rules: Any) -> None:
    result = run(tmp_path, bad={"Metadata": {"Name": "x\ny"}, "Rules": rules})
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert all(line.isprintable() for line in result.stderr.splitlines())


def test_no_file_and_not_live() -> None:
    for arguments in (["ses"], ["ses", "--live", "x.json"], ["ses", "x.json", "--region", "eu-west-1"]):
        assert CliRunner().invoke(cli, ["import", *arguments]).exit_code == 2
    missing = CliRunner().invoke(cli, ["import", "ses", "none.json"])
    assert (missing.exit_code, missing.stderr) == (2, "inbound: cannot read none.json: No such file or directory\n")


# --- export ---


def exported(tmp_path: Path, text: str, *arguments: str) -> Result:
    (tmp_path / "rules.yaml").write_text(text)
    return CliRunner().invoke(cli, ["export", "ses", str(tmp_path / "rules.yaml"), *arguments])


def test_export_writes_enabled_out(tmp_path: Path) -> None:
    result = exported(tmp_path, "RuleSets:\n  a:\n    - {Name: x, Recipients: [example.com]}\n")
    assert json.loads(result.stdout) == {"Metadata": {"Name": "a"}, "Rules": [{"Name": "x", "Enabled": True, "Recipients": ["example.com"]}]}


def test_export_of_a_rule_set_that_is_not_there(tmp_path: Path) -> None:
    text = "RuleSets: {a: []}\nActiveRuleSet: null\n"
    assert "has no rule set 'b'; there is a" in exported(tmp_path, text, "--rule-set", "b").stderr
    result = exported(tmp_path, text)
    assert result.exit_code == 2
    assert "no rule set is active; name one with --rule-set: a" in result.stderr


def test_export_of_bad_rules_is_told_as_check_does(tmp_path: Path) -> None:
    result = exported(tmp_path, "RuleSets:\n  a:\n    - {Nam: x}\n")
    assert result.exit_code == 1
    assert "rules.yaml:3:8" in result.stderr
