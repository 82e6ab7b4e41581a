"""`inbound check`, from outside: what it prints where, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inbound.decide.load import parse
from inbound.operate.cli.check import check

GOOD = "Identities: [example.com]\nRuleSets:\n  a:\n    - Name: x\n      Actions: [{StopAction: {Scope: RuleSet}}]\n"
REQUIRE = GOOD.replace("Name: x\n", "Name: x\n      TlsPolicy: Require\n")
REVISION = parse(GOOD, "rules.yaml").rule_set.revision
BAD = "Identities: [example.com]\nRuleSets:\n  a:\n    - Nam: x\n    - Name: y y\n"


def run(tmp_path: Path, text: str, *arguments: str) -> Result:
    (tmp_path / "rules.yaml").write_text(text)
    return CliRunner().invoke(check, [str(tmp_path / "rules.yaml"), *arguments])


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(GOOD)
    result = CliRunner().invoke(check)
    assert result.exit_code == 0
    assert result.stdout == f"rules.yaml: OK, 1 rule set, 1 rule, active: a (revision {REVISION})\n"
    assert result.stderr == ""


def test_several_sets_and_none_active(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD + "    - Name: y\n      Actions: [{StopAction: {Scope: RuleSet}}]\n  b: []\nActiveRuleSet: null\n")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{tmp_path}/rules.yaml: OK, 2 rule sets, 2 rules, active: none (revision ")
    never = "RuleSets.a[1]: can never match: 'x' (line 4) stops all that it is for; put it before, or remove it [never-matches]"
    assert result.stderr.splitlines() == [
        f"{tmp_path}/rules.yaml:6:7: warning: {never}",
        f"{tmp_path}/rules.yaml:9:16: warning: ActiveRuleSet: receiving is off; every recipient is refused [receiving-off]"]


def test_errors_one_a_line_on_stderr(tmp_path: Path) -> None:
    result = run(tmp_path, BAD)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [f"{tmp_path}/rules.yaml:4:7:", f"{tmp_path}/rules.yaml:5:13:"]


def test_no_file_is_a_matter_of_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(check, [str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert result.stderr == f"inbound: {tmp_path}/none.yaml: no such file\n"


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(GOOD)
    result = CliRunner().invoke(check, env={"INBOUND_RULES": str(tmp_path / "other.yaml")})
    assert result.stdout.startswith(f"{tmp_path}/other.yaml: OK")


def test_json_of_a_good_file(tmp_path: Path) -> None:
    result = run(tmp_path, REQUIRE, "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [(warning["line"], warning["column"], warning["code"]) for warning in data.pop("warnings")] == [(5, 18, "needs-certificate")]
    assert data == {"file": f"{tmp_path}/rules.yaml", "ok": True, "ruleSets": 1, "rules": 1, "active": "a",
                    "revision": parse(REQUIRE, "").rule_set.revision, "errors": []}


def test_json_of_a_bad_file(tmp_path: Path) -> None:
    result = run(tmp_path, BAD, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"file": f"{tmp_path}/rules.yaml", "ok": False, "warnings": [], "errors": [
        {"line": 4, "column": 7, "message": "RuleSets.a[0].Nam: unknown key; did you mean 'Name'?"},
        {"line": 5, "column": 13, "message": "RuleSets.a[1].Name: 'y y' is not a name: 1 to 64 letters, digits, '.', '_' or '-', "
                                             "the first and the last a letter or digit"}]}


@pytest.mark.parametrize(("allow", "code", "lines"), [("", 1, 1), ("  # inbound: allow needs-certificate - the proxy has one", 0, 0)])
def test_strict_counts_warnings_and_a_comment_silences_one(tmp_path: Path, allow: str, code: int, lines: int) -> None:
    result = run(tmp_path, REQUIRE.replace("Require", f"Require{allow}"), "--strict")
    assert (result.exit_code, len(result.stderr.splitlines())) == (code, lines)
    assert run(tmp_path, REQUIRE.replace("Require", f"Require{allow}"), "--strict", "--tls").exit_code == 0, "it depends on the service"
    assert run(tmp_path, REQUIRE.replace("Require", f"Require{allow}"), "--no-tls").exit_code == 1, "an error cannot be silenced"


@pytest.mark.parametrize(("told", "code", "lines"), [((), 0, 1), (("--tls",), 0, 0), (("--no-tls",), 1, 1)])
def test_rules_that_require_tls(tmp_path: Path, told: tuple[str, ...], code: int, lines: int) -> None:
    result = run(tmp_path, REQUIRE, *told)
    assert result.exit_code == code
    assert len(result.stderr.splitlines()) == lines
    assert result.stderr.count("needs a certificate") == lines


@pytest.mark.parametrize(("told", "code", "says"), [
    ((), 0, ["is not DKIM-signed", "needs a server to send bounces through"]),
    (("--smarthost",), 0, ["is not DKIM-signed"]),
    (("--no-smarthost",), 1, ["needs a server to send bounces through"]),
    (("--smarthost", "--dkim-domain", "example.com"), 0, []),
    (("--smarthost", "--dkim-domain", "example.net"), 0, ["is DKIM-signed for example.net, which says nothing for its Sender a@example.com"]),
])
def test_rules_that_bounce(tmp_path: Path, told: tuple[str, ...], code: int, says: list[str]) -> None:
    bounce = "{BounceAction: {SmtpReplyCode: 550, Message: gone, Sender: a@example.com}}"
    result = run(tmp_path, GOOD.replace("{StopAction: {Scope: RuleSet}}", bounce), *told)
    assert result.exit_code == code
    lines = result.stderr.splitlines()
    assert [word in line for word, line in zip(says, lines, strict=True)] == [True] * len(says), lines


def test_the_environment_tells_what_bounces_are_signed_for(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(GOOD.replace("StopAction: {Scope: RuleSet}",
                                                      "BounceAction: {SmtpReplyCode: 550, Message: gone, Sender: a@example.com}"))
    result = CliRunner().invoke(check, [str(tmp_path / "rules.yaml"), "--smarthost"], env={"INBOUND_DKIM_DOMAIN": "example.com"})
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_schema_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(check, ["--schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_it_is_quick_and_takes_in_nothing_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(GOOD)
    code = ("import sys; from inbound.operate.cli.check import check; check.main(['rules.yaml'], standalone_mode=False); "
            "print(sorted({'boto3', 'aiosmtpd', 'aiohttp', 'watchfiles', 'structlog', 'asyncio', 'jsonschema'} & set(sys.modules)))")
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert time.perf_counter() - began < 5  # 0.4 s on an idle machine
    assert done.stdout.splitlines()[-1] == "[]"
