"""`inbound test`, and pytest with the same files: what is as expected, what differs, what is recorded, and what is no case file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from inbound.decide import cases
from inbound.decide.document import read
from inbound.operate.cli import cli

ROOT = Path(__file__).parents[2]
RULES = """Identities: [example.com]
RuleSets:
  default:
    - Name: gone
      Recipients: [gone@example.com]
      Actions:
        - BounceAction: {SmtpReplyCode: 550, StatusCode: 5.1.1, Message: gone, Sender: postmaster@example.com}
        - StopAction: {Scope: RuleSet}
    - Name: ask
      Recipients: [ask@example.com]
      Actions:
        - LambdaAction: {FunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:f", InvocationType: RequestResponse}
    - Name: secret
      Recipients: [secret@example.com]
      TlsPolicy: Require
      Actions: [{S3Action: {BucketName: secret}}, {StopAction: {Scope: RuleSet}}]
    - Name: all
      Actions: [{S3Action: {BucketName: mail}}]
Filters:
  - Name: no-testnet
    IpFilter: {Policy: Block, Cidr: 192.0.2.0/24}
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(RULES)
    Path("tests/rules").mkdir(parents=True)
    yield


def write(text: str, name: str = "a.yaml") -> Path:
    path = Path("tests/rules", name)
    path.write_text(text)
    return path


def inbound_test(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["test", *arguments])


def case(body: str) -> str:
    return "Cases:\n  - Name: one\n" + "".join(f"    {line}\n" for line in body.splitlines())


@pytest.mark.parametrize("body", [
    "To: [x@example.com]\nExpect: {Rules: [all]}",
    "To: [gone@example.com]\nExpect: {Replies: {gone@example.com: 550 5.1.1 gone}, Refused: 554, Rules: []}",
    "To: [secret@example.com]\nExpect: {Rules: [all]}",
    "To: [secret@example.com]\nTls: true\nExpect: {Rules: [secret], Disposition: STOPPED}",
    "To: [x@example.com]\nIp: 192.0.2.1\nExpect: {Refused: 554 5.7.1 192.0.2.1 blocked}",
    "To: [x@example.com]\nIp: ::ffff:192.0.2.1\nExpect: {Refused: 554 5.7.1 192.0.2.1 blocked}",
    "To: [x@example.com]\nFrom: no address\nExpect: {Refused: 501 5.1.7, Rules: []}",
    "To: [ask@example.com]\nAnswers: {f: STOP_RULE_SET}\nExpect: {Rules: [ask]}",
    "To: [ask@example.com]\nExpect: {Rules: [ask, all]}",
    "To: [gone@example.com, x@example.com]\nExpect: {Replies: {gone@example.com: 550, x@example.com: 250 2.1.5}, Bounces: [], Rules: [all]}",
    "To: [x@example.com]\nExpect: {Steps: [{Rule: all, S3Action: {BucketName: mail}, Recipients: [x@example.com]}]}",
    "To: [x@example.com]\nExpect: {Steps: [{Rule: all, Action: S3}]}",
])
def test_what_is_as_expected(body: str) -> None:
    write(case(body))
    done = inbound_test()
    assert (done.exit_code, done.stdout) == (0, "ok    tests/rules/a.yaml:2: one\n1 case, all as expected\n")


@pytest.mark.parametrize(("body", "difference"), [
    ("To: [x@example.com]\nExpect: {Rules: [ask, all]}", ["-Rules: [ask, all]", "+Rules: [all]"]),
    ("To: [gone@example.com]\nExpect: {Replies: {gone@example.com: 550 5.1.10}, Rules: []}",
     [" Replies:", "-  gone@example.com: 550 5.1.10", "+  gone@example.com: 550 5.1.1 gone", " Rules: []"]),
    ("To: [x@example.com]\nExpect: {Refused: 554}", ["-Refused: 554", "+Refused: null"]),
    ("To: [x@example.com]\nExpect: {Steps: [{Rule: all, S3Action: {BucketName: mail, ObjectKeyPrefix: x/}}, {Rule: all, Action: Stop}]}",
     [" Steps:", "   - Rule: all", "-    S3Action: {BucketName: mail, ObjectKeyPrefix: x/}", "-  - Rule: all", "-    Action: Stop",
      "+    S3Action: {BucketName: mail}"]),
    ("To: [x@example.com]\nExpect: {Steps: [{Rule: all, Action: S3, Recipients: [y@example.com]}]}",
     [" Steps:", "   - Rule: all", "-    Recipients: [y@example.com]", "+    Recipients: [x@example.com]", "     Action: S3"]),
    ("To: [x@example.com]\nExpect: {Bounces: [550 5.1.1 gone]}", ["-Bounces:", "-  - 550 5.1.1 gone", "+Bounces: []"]),
    ("To: [x@example.com]",
     ["nothing is expected; this happens:", "+Rules: [all]", "+Steps:", "+  - Rule: all", "+    S3Action: {BucketName: mail}"]),
])
def test_what_differs_is_shown(body: str, difference: list[str]) -> None:
    write(case(body))
    done = inbound_test()
    shown = [line[4:] for line in done.stdout.splitlines()[1:-1]]
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, "1 case, 1 differs")
    assert [line for line in shown if not line.startswith(("---", "+++", "@@"))] == difference


def test_bounces_where_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_BOUNCE", "dsn")
    write("Cases:\n"
          "  - {Name: one, To: [gone@example.com], From: a@example.net, Expect: {Bounces: [550 5.1.1 gone]}}\n"
          "  - {Name: null, To: [gone@example.com], From: '', Expect: {Bounces: ['suppressed: the reverse-path is null']}}\n"
          "  - Name: list\n    To: [gone@example.com]\n    Message: |\n      From: a@example.net\n      List-Id: <l.example.net>\n\n      x\n"
          "    Expect: {Bounces: ['suppressed: it is list mail (List-Id)']}\n"
          "  - {Name: forged, To: [gone@example.com], Verdicts: {spf: FAIL, dmarc: FAIL},\n"
          "     Expect: {Bounces: ['suppressed: the sender may be forged: neither SPF nor DMARC passes']}}\n")
    done = inbound_test()
    assert done.exit_code == 1
    assert done.stderr.startswith("tests/rules/a.yaml:3:12: Cases[1].Name: has no value; ")
    write(Path("tests/rules/a.yaml").read_text().replace("Name: null", "Name: 'null'"))
    assert inbound_test().stdout.splitlines()[-1] == "4 cases, all as expected"


def test_recording_writes_what_happens_and_touches_nothing_else() -> None:
    text = ("# mine\nCases:\n  # first\n  - Name: new   # a name\n    To: [x@example.com]   # to\n    Message: |\n      From: a@example.net\n\n"
            "      # text, no comment\n\n  # second\n  - Name: wrong\n    Expect:\n      # old\n      Rules: [ask]\n    To: [gone@example.com]\n"
            "  - Name: right\n    To: [x@example.com]\n    Expect: {Rules: [all]}  # by hand\n")
    path = write(text)
    done = inbound_test("--record")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "3 cases, 2 recorded; look at what was written before you keep it")
    new = "    Expect:\n      Rules: [all]\n      Steps:\n        - Rule: all\n          S3Action: {BucketName: mail}\n"
    wrong = "    Expect:\n      Refused: 554 5.5.1 No valid recipients\n      Replies:\n        gone@example.com: 550 5.1.1 gone\n      Rules: []\n"
    assert path.read_text() == text.replace("      # text, no comment\n", "      # text, no comment\n" + new).replace(
        "    Expect:\n      # old\n      Rules: [ask]\n", wrong)
    again = path.read_text()
    assert inbound_test("--record").stdout.splitlines()[-1] == "3 cases, all as expected"
    assert path.read_text() == again
    assert inbound_test().exit_code == 0


def test_recording_at_the_end_of_a_file_without_a_line_break() -> None:
    path = write("Cases:\n- Name: one\n  To: [x@example.com]")
    assert inbound_test("--record").exit_code == 0
    assert path.read_text().startswith("Cases:\n- Name: one\n  To: [x@example.com]\n  Expect:\n    Rules: [all]\n")
    assert inbound_test().exit_code == 0


def test_a_case_in_one_line_is_not_recorded() -> None:
    path = write("Cases:\n  - {Name: one, To: [x@example.com]}\n")
    done = inbound_test("--record")
    assert (done.exit_code, done.stderr) == (
        1, "tests/rules/a.yaml:2:12: Cases[0].Name: to record it, write each key of the case on a line of its own\n")
    assert "Expect" not in path.read_text()


def test_files_and_their_own_rules_and_messages() -> None:
    Path("other.yaml").write_text(RULES.replace("Name: all", "Name: other"))
    Path("tests/rules/sub").mkdir()
    Path("tests/rules/sub/a.eml").write_bytes(b"Return-Path: <>\r\nSubject: x\r\n\r\ny\r\n")
    write("Rules: ../../../other.yaml\n" + case("To: [x@example.com]\nEml: a.eml\nExpect: {Rules: [other]}"), "sub/b.yml")
    write(case("To: [x@example.com]\nExpect: {Rules: [all]}"))
    assert inbound_test().stdout.splitlines() == [
        "ok    tests/rules/a.yaml:2: one", "ok    tests/rules/sub/b.yml:3: one", "2 cases, all as expected"]
    assert inbound_test("tests/rules/a.yaml", "--rules", "other.yaml").exit_code == 1


def test_results_for_programs() -> None:
    write("Cases:\n  - {Name: good, To: [x@example.com], Expect: {Rules: [all]}}\n  - {Name: bad \x7f, To: [x@example.com], Expect: {Rules: []}}\n"
          .replace(" \x7f", ' <"&>'))
    done = inbound_test("--junit", "junit.xml", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert ([(each["name"], each["ok"], each["line"]) for each in told["cases"]], told["differ"]) == ([("good", True, 2), ('bad <"&>', False, 3)], 1)
    suite = ElementTree.parse("junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [(each.get("name"), each.findtext("failure")) for each in suite] == [
        ("good", None), ('bad <"&>', "--- expected\n+++ happens\n@@ -1 +1 @@\n-Rules: []\n+Rules: [all]")]


@pytest.mark.parametrize(("text", "says"), [
    ("", "1:1: is empty; it needs Cases"),
    ("Cases: []\n", "1:8: Cases: "),
    (case("To: [x@example.com]\nExpekt: {}"), "4:5: Cases[0].Expekt: unknown key; did you mean 'Expect'?"),
    (case("To: [x@example.com]\nExpect: {}"), "4:13: Cases[0].Expect: expects nothing; write one of Refused, "),
    (case("To: [x@example.com]\nExpect: {Steps: [{Rule: all, S3Action: {Bucket: x}}]}"),
     "4:45: Cases[0].Expect.Steps[0].S3Action.Bucket: unknown key"),
    (case("To: [x@example.com]\nExpect: {Steps: [{Rule: all}]}"), "4:22: Cases[0].Expect.Steps[0]: a step is exactly one of S3Action, "),
    (case("To: x@example.com\nExpect: {Rules: [all]}"), "3:9: Cases[0].To: is 'x@example.com'; write a list: [x@example.com]"),
    (case("To: [x@example.com]\nVerdicts: {spf: WRONG}\nExpect: {Rules: [all]}"), "4:21: Cases[0].Verdicts.spf: is 'WRONG'; write 'PASS', "),
    (case("To: [x@example.com]\nEml: none.eml\nExpect: {Rules: [all]}"), "4:10: Cases[0].Eml: cannot read 'none.eml': No such file or directory"),
    (case("To: [x@example.com]\nEml: a\nMessage: b"), "2:5: Cases[0]: has both Message and Eml; write one of them"),
    (case("To: [x@example.com]\nAnswers: {g: CONTINUE}\nExpect: {Rules: [all]}"),
     "4:14: Cases[0].Answers: no rule invokes a function 'g' with RequestResponse; there is f"),
    (case("To: [x@example.com]\nExpect: {Replies: {y@example.com: 550}}"), "4:24: Cases[0].Expect.Replies.\"y@example.com\": is not among To"),
    ("Cases:\n  - {Name: a, To: [x]}\n  - {Name: a, To: [x]}\n", "3:12: Cases[1].Name: two cases have the name 'a', the first at line 2"),
    (case("To: [x@example.com]\nIp: nonsense"), "4:9: Cases[0].Ip: 'nonsense' is not an IP address (192.0.2.1, 2001:db8::1)"),
    (case("To: [x@example.com]\nHelo: a b"), "4:11: Cases[0].Helo: 'a b' is not one word of printable ASCII (client.example)"),
    (case('To: [x@example.com]\nEml: "a\\0b"\nExpect: {Rules: []}'), "4:10: Cases[0].Eml: cannot read 'a\\x00b': embedded null byte"),
    ("Cases: &a [*a]\n", "1:8: Cases: anchors (&a) are not supported"),
])
def test_an_error_has_its_place(text: str, says: str) -> None:
    write(text)
    done = inbound_test()
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"tests/rules/a.yaml:{says}"), done.stderr


def test_bad_input_is_told_in_a_line() -> None:
    done = inbound_test("nowhere")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (
        2, "inbound: there is no folder nowhere. A case file begins so, and --record writes the rest:")
    assert inbound_test().stderr.startswith("inbound: there are no cases (*.yaml) in tests/rules. ")
    write(case("To: [x@example.com]\nExpect: {Rules: [all]}"))
    assert (inbound_test("--rules", "none.yaml").exit_code, inbound_test("--rules", "none.yaml").stderr) == (2, "inbound: none.yaml: no such file\n")
    Path("rules.yaml").write_text("RuleSets: 1\n")
    assert inbound_test().exit_code == 1
    assert inbound_test().stderr.startswith("rules.yaml:1:11: RuleSets: ")


@given(st.dictionaries(st.text(st.characters(min_codepoint=32, max_codepoint=0x2000, exclude_categories=["C", "Z"]), min_size=1),
                       st.text(st.characters(min_codepoint=32, max_codepoint=0x2000, exclude_categories=["C", "Zl", "Zp"])), min_size=1))
def test_what_is_recorded_reads_back(replies: dict[str, str]) -> None:
    text = "\n".join(cases.lines({"Replies": replies, "Bounces": [*replies.values()]})) + "\n"
    assert read(text, "a").data == {"Replies": replies, "Bounces": [*replies.values()]}


def pytest_run(ini: str) -> subprocess.CompletedProcess[str]:
    Path("pytest.ini").write_text(f"[pytest]\n{ini}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "inbound.operate.pytest_plugin"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def test_pytest_runs_them_where_its_ini_file_says_so() -> None:
    write("Cases:\n  - {Name: good, To: [x@example.com], Expect: {Rules: [all]}}\n  - {Name: bad, To: [x@example.com], Expect: {Rules: []}}\n")
    write("Cases: 1\n", "broken.yaml")
    done = pytest_run("inbound_cases = tests/rules\naddopts = --continue-on-collection-errors")
    assert done.returncode == 1
    assert "tests/rules/a.yaml:3: bad\n--- expected\n+++ happens\n@@ -1 +1 @@\n-Rules: []\n+Rules: [all]" in done.stdout
    assert "broken.yaml:1:8: Cases: is '1'; write a list: [1]" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 failed, 1 passed, 1 error in ")
    assert "Traceback" not in done.stdout


def test_pytest_leaves_them_alone_where_it_does_not() -> None:
    write("Rules: of another program\n")
    done = pytest_run("")
    assert (done.returncode, done.stdout.splitlines()[-1][:16]) == (5, "no tests ran in ")


def test_the_plugin_brings_in_nothing_else_until_it_is_asked() -> None:
    code = ("import sys, inbound.operate.pytest_plugin; "
            "print(sorted(name for name in sys.modules if name.startswith(('inbound.', 'pydantic', 'click'))))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['inbound.operate', 'inbound.operate.pytest_plugin']\n"


def test_the_entry_point_has_the_name_that_our_own_option_gives_it() -> None:
    """Else pytest would load it twice here, and refuse to."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"inbound.operate.pytest_plugin": "inbound.operate.pytest_plugin"}


def test_the_example_of_the_readme_holds_for_the_sample_rules() -> None:
    example, = re.findall(r"```yaml\n(Cases:.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    write(example)
    Path("rules.yaml").write_text((ROOT / "rules.yaml").read_text())
    assert inbound_test().stdout.splitlines()[-1] == "2 cases, all as expected"
