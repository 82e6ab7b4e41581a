"""What a good rule file becomes, and what reading it does with anything else that may stand at its path."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inbound.decide.load import Loaded, RulesError, RulesUnreadableError, load, parse
from inbound.decide.problem import Problem
from inbound.decide.rules import S3, AddHeader, AnyAction, Bounce, ReceiptRule
from inbound.decide.unsigned import unsigned

SAMPLE = Path(__file__).parents[2] / "rules.yaml"


def rules(body: str, top: str = "Identities: [example.com]") -> Loaded:
    return parse(f"{top}\nRuleSets:\n  default:\n{body}", "rules.yaml")


def action(written: str, *, enabled: str = "true") -> AnyAction:
    rule = only(rules(f"    - Name: 2026\n      Enabled: {enabled}\n      Actions: [{{{written}}}]\n"))
    return rule.Actions[0].only


def only(loaded: Loaded) -> ReceiptRule:
    (rule,) = loaded.rule_set.rules
    return rule


def problems(text: str, *, tls: bool = True, smarthost: bool = True) -> list[str]:
    with pytest.raises(RulesError) as raised:
        parse(text, "r", tls=tls, smarthost=smarthost)
    return [str(problem) for problem in raised.value.problems]


class TestScalars:
    """Spec §10 row 34: text is what stands in the file."""

    @pytest.mark.parametrize("written", ["550", "5.10", "0777", "1e3", "1:30", "2026-01-02", "true", "yes", "0x1F", ".5", "+1", "1_000"])
    def test_text_keeps_its_source(self, written: str) -> None:
        assert action(f"AddHeaderAction: {{HeaderName: X-A, HeaderValue: {written}}}") == AddHeader(HeaderName="X-A", HeaderValue=written)

    def test_reply_and_status_codes_need_no_quotes(self) -> None:
        bounce = action("BounceAction: {SmtpReplyCode: 550, StatusCode: 5.10.0, Message: gone, Sender: a@example.com}", enabled="false")
        assert bounce == Bounce(SmtpReplyCode="550", StatusCode="5.10.0", Message="gone", Sender="a@example.com")

    @pytest.mark.parametrize("written", ["true", "True", "TRUE"])
    def test_true(self, written: str) -> None:
        assert only(rules(f"    - Name: a\n      ScanEnabled: {written}\n")).ScanEnabled is True

    @pytest.mark.parametrize("written", ["false", "False", "FALSE"])
    def test_false(self, written: str) -> None:
        assert only(rules(f"    - Name: a\n      Enabled: {written}\n")).Enabled is False

    @pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
    def test_an_optional_key_without_a_value_counts_as_not_written(self, null: str) -> None:
        keys = "".join(f"      {key}: {null}\n" for key in ("Enabled", "TlsPolicy", "ScanEnabled", "Actions"))
        assert only(rules(f"    - Name: a\n{keys}")) == ReceiptRule(Name="a")
        assert action(f"S3Action: {{BucketName: mail, ObjectKeyPrefix: {null}, TopicArn: {null}}}") == S3(BucketName="mail")

    def test_quoted_null_is_text(self) -> None:
        assert action("AddHeaderAction: {HeaderName: X-A, HeaderValue: 'null'}") == AddHeader(HeaderName="X-A", HeaderValue="null")


class TestTheActiveRuleSet:
    """Spec §10 row 29."""

    ONE = "Identities: [example.com]\nRuleSets:\n  a:\n    - Name: x\n"

    def test_absent_with_one_set_is_that_one(self) -> None:
        assert parse(self.ONE, "r").rule_set.name == "a"

    def test_named(self) -> None:
        assert parse(self.ONE + "  b: []\nActiveRuleSet: b\n", "r").rule_set.name == "b"

    @pytest.mark.parametrize("text", [ONE + "ActiveRuleSet: null\n", "ActiveRuleSet:\n"])
    def test_null_receives_nothing(self, text: str) -> None:
        loaded = parse(text, "r")
        assert (loaded.rule_set.name, loaded.rule_set.rules) == (None, ())
        assert "ActiveRuleSet: receiving is off; every recipient is refused" in [warning.message for warning in loaded.warnings]

    def test_a_set_without_rules(self) -> None:
        loaded = parse("Identities: [example.com]\nRuleSets:\n  a:\n", "r")
        assert loaded.rule_set.rules == ()
        assert [str(warning) for warning in loaded.warnings] == [
            "r:3:3: RuleSets.a: the active rule set has no enabled rule; every recipient is refused"]


class TestCertificate:
    """Spec §10 row 12."""

    REQUIRE = "Identities: [example.com]\nRuleSets:\n  a:\n    - Name: x\n      TlsPolicy: Require\n"
    SAYS = "r:5:18: RuleSets.a[0].TlsPolicy: needs a certificate; set INBOUND_TLS_CERT and INBOUND_TLS_KEY, or write Optional"

    def test_a_rule_that_requires_tls_is_an_error_without_one(self) -> None:
        assert problems(self.REQUIRE, tls=False) == [self.SAYS]

    def test_it_is_told_with_the_other_errors(self) -> None:
        assert problems(self.REQUIRE + "      Recipents: []\n", tls=False) == [
            self.SAYS, "r:6:7: RuleSets.a[0].Recipents: unknown key; did you mean 'Recipients'?"]

    def test_with_one_it_is_told_apart(self) -> None:
        assert [str(problem) for problem in parse(self.REQUIRE, "r").needs_certificate] == [self.SAYS]

    @pytest.mark.parametrize("harmless", [REQUIRE + "      Enabled: false\n", REQUIRE + "  b: []\nActiveRuleSet: b\n",
                                          REQUIRE + "ActiveRuleSet: null\n"])
    def test_rules_that_do_not_run_need_none(self, harmless: str) -> None:
        assert parse(harmless, "r", tls=False).needs_certificate == ()


class TestSmarthost:
    """Where bounces cannot be sent, a rule that bounces is an error."""

    BOUNCE = """\
Identities: [example.com]
RuleSets:
  a:
    - Name: x
      Actions:
        - BounceAction: {SmtpReplyCode: 550, StatusCode: 5.1.1, Message: Mailbox does not exist, Sender: postmaster@example.com}
"""
    SAYS = ("r:6:11: RuleSets.a[0].Actions[0].BounceAction: needs a server to send bounces through; set INBOUND_SMARTHOST "
            "(smtp://mail.example.com:587), or 'Enabled: false' keeps the rule in the file")

    def test_a_rule_that_bounces_is_an_error_without_one(self) -> None:
        assert problems(self.BOUNCE, smarthost=False) == [self.SAYS]

    def test_with_one_it_is_told_apart(self) -> None:
        loaded = parse(self.BOUNCE, "r")
        assert [str(problem) for problem in loaded.needs_smarthost] == [self.SAYS]
        assert loaded.warnings == ()

    @pytest.mark.parametrize("harmless", [BOUNCE.replace("Name: x", "Name: x\n      Enabled: false"), BOUNCE + "  b: []\nActiveRuleSet: b\n",
                                          BOUNCE + "ActiveRuleSet: null\n"])
    def test_rules_that_do_not_run_need_none(self, harmless: str) -> None:
        assert parse(harmless, "r", smarthost=False).needs_smarthost == ()

    @pytest.mark.parametrize(("was", "becomes", "doubt"), [
        ("StatusCode: 5.1.1", "StatusCode: 4.1.1", "r:6:58: RuleSets.a[0].Actions[0].BounceAction.StatusCode: '4.1.1' is of another class"),
        ("Sender: postmaster@example.com", "Sender: postmaster@example.net",
         "r:6:106: RuleSets.a[0].Actions[0].BounceAction.Sender: 'postmaster@example.net' is outside Identities"),
    ])
    def test_odd_bounces_are_doubted(self, was: str, becomes: str, doubt: str) -> None:
        assert was in self.BOUNCE
        warnings = parse(self.BOUNCE.replace(was, becomes), "r").warnings
        assert [str(warning).startswith(doubt) for warning in warnings] == [True], warnings

    @pytest.mark.parametrize(("domain", "says"), [
        ("", "is not DKIM-signed; "), ("example.net", "is DKIM-signed for example.net, which says nothing for its Sender "),
        ("ample.com", "is DKIM-signed for ample.com"),
    ])
    def test_a_bounce_without_a_signature_that_vouches_for_it_is_told(self, domain: str, says: str) -> None:
        told = unsigned(parse(self.BOUNCE, "r"), domain)
        assert [(t.line, t.column, t.message.startswith(f"RuleSets.a[0].Actions[0].BounceAction: {says}")) for t in told] == [(6, 11, True)]

    @pytest.mark.parametrize("domain", ["example.com", "Example.COM", "bounces.example.com", "com"])
    def test_a_signature_for_the_domain_or_one_above_or_below_vouches(self, domain: str) -> None:
        assert unsigned(parse(self.BOUNCE, "r"), domain) == ()


def test_warnings_have_a_place_too() -> None:
    loaded = rules("    - Name: a\n    - Name: b\n      Actions:\n"
                   "        - StopAction: {Scope: RuleSet}\n        - S3Action: {BucketName: mail}\n")
    assert [str(warning) for warning in loaded.warnings] == [
        "rules.yaml:4:7: RuleSets.default[0]: has no actions; it accepts mail and does nothing with it",
        "rules.yaml:8:11: RuleSets.default[1].Actions[1]: never runs; it comes after a StopAction"]


def test_what_ses_describes_can_be_pasted() -> None:
    loaded = parse("""{"Identities": ["example.com"], "RuleSets": {"default": [
\t{"Name": "r", "Enabled": true, "TlsPolicy": "Optional", "Recipients": ["a@example.com"], "ScanEnabled": false,
\t "Actions": [{"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "p"}}]}]}}""", "r")
    assert only(loaded).Recipients == ("a@example.com",)


def test_places_of_sets_rules_and_actions() -> None:
    loaded = rules("    - Name: a\n      Actions:\n        - StopAction: {Scope: RuleSet}\n    - Name: b\n")
    assert loaded.places == {("RuleSets", "default"): (4, 5), ("RuleSets", "default", 0): (4, 7), ("RuleSets", "default", 1): (7, 7),
                             ("RuleSets", "default", 0, "Actions", 0): (6, 11)}


def test_the_sample_is_good_and_doubtless() -> None:
    loaded = load(SAMPLE, tls=False)
    assert loaded.warnings == ()
    assert [rule.Name for rule in loaded.rule_set.rules if rule.Enabled] == ["support", "everything"]


def test_comments_and_order_of_keys_do_not_make_a_revision_but_a_digest() -> None:
    one = parse("Identities: [example.com]\nRuleSets:\n  a:\n    - {Name: x, ScanEnabled: true}\n", "r")
    two = parse("# hello\nRuleSets:\n  a:\n    - {ScanEnabled: true, Name: x}\nIdentities:\n  - example.com\n", "r")
    assert one.rule_set.revision == two.rule_set.revision
    assert one.digest != two.digest


class TestBounds:
    def test_200_rules_of_500_recipients_load_quickly(self) -> None:
        text = "Identities: [ab.io]\nRuleSets:\n  d:\n" + "".join(
            f"  - Name: r{rule}\n    Recipients: [{','.join(f'{number}@ab.io' for number in range(500))}]\n" for rule in range(200))
        began = time.perf_counter()
        loaded = parse(text, "r")
        assert time.perf_counter() - began < 10  # 0.7 s on an idle machine
        assert loaded.rule_set.lookup.match("499@ab.io") == tuple(range(200))
        assert loaded.rule_set.lookup.match("500@ab.io") == ()

    def test_a_full_set_of_addresses_is_not_too_large(self, tmp_path: Path) -> None:
        names = [", ".join(f"first.last-{rule}-{n}@bench.test" for n in range(500)) for rule in range(200)]
        rules = "".join(f"    - {{Name: r{rule}, Recipients: [{each}]}}\n" for rule, each in enumerate(names))
        path = tmp_path / "rules.yaml"
        path.write_text(f"Identities: [bench.test]\nRuleSets:\n  default:\n{rules}")
        assert path.stat().st_size > 2 * 1024 * 1024
        assert load(path).rule_set.lookup.match("first.last-199-499@bench.test") == (199,)

    def test_larger_than_4_mb(self, tmp_path: Path) -> None:
        path = tmp_path / "rules.yaml"
        path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
        with pytest.raises(RulesError, match=r"rules.yaml: is larger than 4 MB \(4194304 octets\)"):
            load(path)
        path.write_bytes(SAMPLE.read_bytes() + b"#" * (4 * 1024 * 1024 - len(SAMPLE.read_bytes())))
        load(path)

    @pytest.mark.parametrize("bomb", [
        "[" * 1_000_000, "{" * 1_000_000, "- " * 500_000, "? " * 500_000, "a: " + "[" * 999_000, "[{a: " * 200_000])
    def test_nesting_bombs(self, bomb: str) -> None:
        assert "nested deeper than 20 levels" in problems(bomb)[-1]

    def test_an_alias_bomb_is_never_unfolded(self) -> None:
        text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        assert any("aliases (*a10) are not supported" in problem for problem in problems(text))

    def test_what_is_refused_in_the_text_is_told_200_times_at_most(self) -> None:
        told = problems("".join(f"k{number}: *x\n" for number in range(1000)))
        assert len(told) == 200
        assert told[-1] == "r:200:7: k199: aliases (*x) are not supported; write the value out"

    def test_not_more_than_200_errors_are_told(self) -> None:
        told = problems("Identities: [example.com]\nRuleSets:\n  a:\n" + "".join(f"    - Nam: r{n}\n" for n in range(150))
                        + "".join(f"k{n}: 1\n" for n in range(2000)))
        assert len(told) == 201
        assert told[-1] == "r: and 1950 more"


class TestReading:
    """Whatever stands at the path, one clear line and no waiting."""

    def told(self, path: Path) -> str:
        with pytest.raises(RulesUnreadableError) as raised:
            load(path)
        (problem,) = raised.value.problems
        assert (problem.file, problem.line) == (str(path), 0)
        assert str(problem) == f"{path}: {problem.message}"
        return problem.message

    def test_no_file(self, tmp_path: Path) -> None:
        assert self.told(tmp_path / "rules.yaml") == "no such file"
        assert self.told(tmp_path / "none" / "rules.yaml") == "no such file"

    def test_a_directory(self, tmp_path: Path) -> None:
        assert self.told(tmp_path) == "is a directory"

    def test_a_fifo(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "rules.yaml")
        assert self.told(tmp_path / "rules.yaml") == "is not a regular file"

    def test_a_device(self) -> None:
        assert self.told(Path("/dev/zero")) == "is not a regular file"

    def test_a_symbolic_link_to_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "rules.yaml").symlink_to("gone.yaml")
        assert self.told(tmp_path / "rules.yaml") == "is a symbolic link to gone.yaml, where there is no file"

    def test_a_symbolic_link_to_itself(self, tmp_path: Path) -> None:
        (tmp_path / "rules.yaml").symlink_to("rules.yaml")
        assert self.told(tmp_path / "rules.yaml") == "is a symbolic link that leads back to itself"

    def test_a_file_for_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.told(tmp_path / "file" / "rules.yaml") == "cannot be read: not a directory"

    def test_a_path_that_is_none(self) -> None:
        assert self.told(Path("a\0b")) == "is not a path: it holds a NUL"
        assert self.told(Path("a" * 300)) == "cannot be read: file name too long"

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(name: Path, _flags: int) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))  # root, who may run this, is denied nothing

        (tmp_path / "rules.yaml").touch(mode=0)
        monkeypatch.setattr(os, "open", denied)
        assert self.told(tmp_path / "rules.yaml") == "cannot be read: permission denied"

    def test_a_fifo_that_takes_the_files_place_while_it_is_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "rules.yaml"
        path.touch()
        real = os.open

        def swapped(name: Path, flags: int) -> int:
            path.unlink()
            os.mkfifo(path)
            return real(name, flags)

        monkeypatch.setattr(os, "open", swapped)
        assert self.told(path) == "is not a regular file"


LINES = [
    "Identities: [example.com]", "RuleSets:", "  default:", "    - Name: a", "      Recipients: [a@example.com, .example.com]",
    "      Actions:", "        - S3Action: {BucketName: mail}", "        - StopAction: {Scope: RuleSet}", "ActiveRuleSet: default",
    "Filters:", "  - {Name: f, IpFilter: {Policy: Block, Cidr: 192.0.2.1}}",
]
PIECES = [
    *LINES, "  ", "- ", ": ", "? ", "[", "]", "{", "}", "'", '"', "&a ", "*a", "!!str ", "<<: ", "---\n", "\t", "\n", "#", "null", "~",
    "yes", "|\n", ">\n", "%", "@", "\\", "\ufeff", "\x00", "\x85", "\u2028", "\ud800", "ä", "*.", "a@b",
]
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.lists(st.sampled_from(LINES), max_size=14).map("\n".join),
                  st.text(max_size=60))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
def test_any_text_is_either_rules_or_told_with_its_place(text: str) -> None:
    """It either loads, or raises RulesError with places inside the text, never anything else."""
    try:
        loaded = parse(text, "r", tls=False)
    except RulesError as error:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for problem in error.problems:
            assert problem.message
            assert 1 <= problem.line <= len(lines) + 1
            assert problem.column >= 1
    else:
        assert type(loaded.rule_set).model_validate_json(loaded.rule_set.text) == loaded.rule_set


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_octets_are_either_rules_or_told(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(octets)
    with pytest.raises(RulesError):
        load(path)


@given(st.lists(st.sampled_from([*LINES[:2], "Filters: []", "x: 1"]), unique=True))
def test_a_key_that_is_misspelt_keeps_its_column(lines: list[str]) -> None:
    text = "\n".join([*lines, "  ", "Identitys: []"])
    assert Problem("r", len(lines) + 2, 1, "Identitys: unknown key; did you mean 'Identities'?") in _all(text)


def _all(text: str) -> tuple[Problem, ...]:
    with pytest.raises(RulesError) as raised:
        parse(text, "r")
    return raised.value.problems


def test_a_quoted_local_part_behind_a_rule_that_stops_everything_is_loaded() -> None:
    """It raised InvalidRecipient: the search for rules that never match read the compared form, which has lost its quotes, as an address."""
    stop = "Actions: [{StopAction: {Scope: RuleSet}}]"
    rules = f"{{Name: all, {stop}}}, {{Name: quoted, Recipients: ['\"a b\"@example.com'], {stop}}}"
    loaded = parse(f"Identities: [example.com]\nRuleSets: {{default: [{rules}]}}\n", "rules.yaml")
    assert any("never" in str(warning) for warning in loaded.warnings)
