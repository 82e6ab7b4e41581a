"""The warnings about a good rule file: each with its place and its code, silenced by a comment; and none about a rule that can match."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import ADD, ADDRESSES, ASK, FLOWS, S3, STOP, A, B, C, answers, rule, rule_set, walk

from inbound.decide.codes import CODES
from inbound.decide.engine import Flow, Mail, Reason, Seen, StopScope, own_flow
from inbound.decide.load import parse
from inbound.decide.reach import Reach
from inbound.decide.rules import Lambda, RuleSet

ROOT = Path(__file__).parents[2]
TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
ENTRIES = [A, B, "a+x@example.com", "example.com", ".example.com", "sub.example.com", ".sub.example.com", "x@sub.example.com"]
MORE = [*ADDRESSES, "x@deep.sub.example.com", "x+1@sub.example.com", "a+y@example.com"]
ENDING = st.lists(
    st.builds(
        lambda recipients, actions, enabled, tls: rule("r", recipients, *actions, Enabled=enabled, TlsPolicy=tls),
        st.lists(st.sampled_from(ENTRIES), max_size=3),
        st.lists(st.sampled_from([STOP, STOP, S3, ADD, ASK]), min_size=1, max_size=3),
        st.sampled_from([True, True, True, False]),
        st.sampled_from(["Optional", "Optional", "Require"]),
    ), min_size=2, max_size=6,
).map(lambda rules: rule_set(*({**each, "Name": f"r{number}"} for number, each in enumerate(rules))))


@settings(max_examples=400, deadline=None)
@given(ENDING, st.lists(st.lists(st.sampled_from(MORE), min_size=1, max_size=3), min_size=1, max_size=6), FLOWS)
def test_no_rule_that_can_match_is_said_not_to(rules: RuleSet, mails: list[list[str]], flows: list[Flow]) -> None:
    """Whoever the recipients are, over TLS or not, whatever functions answer and whatever a stop ends."""
    reach = Reach(rules.rules, rules.identities)
    never = {position for position in range(len(rules.rules)) if reach.stopped(position)}
    ran: set[int] = set()

    def tell(seen: Seen) -> None:
        if seen.reason is Reason.MATCHED:
            ran.add(seen.position)

    for recipients in [*mails, *([each] for each in MORE)]:
        for tls in (False, True):
            for scope in StopScope:
                asked = answers(*flows)
                walk(rules, Mail(tuple(recipients), tls, scope),
                     lambda step, asked=asked: asked(step) if isinstance(step.action, Lambda) else own_flow(step.action), tell)
                walk(rules, Mail(tuple(recipients), tls, scope), tell=tell)
    assert not never & ran


@given(ENDING)
def test_a_rule_that_never_matches_is_found_where_each_stop_is_alone(rules: RuleSet) -> None:
    """With whole rules of one entry and a Stop each, what the engine never comes to is what is told."""
    alone = [rule(each.Name, each.Recipients[:1], STOP, Enabled=each.Enabled) for each in rules.rules]
    made = rule_set(*alone)
    ran: set[int] = set()
    for address in [*MORE, "z@example.com", "z@deep.sub.example.com", "z@sub.example.com", "z@other.example.com"]:
        walk(made, Mail((address,), tls=True), tell=lambda seen: ran.add(seen.position) if seen.reason is Reason.MATCHED else None)
    reach = Reach(made.rules, made.identities)
    never = {position for position, each in enumerate(made.rules) if each.Enabled and reach.stopped(position)}
    assert never == {position for position, each in enumerate(made.rules) if each.Enabled} - ran


@pytest.mark.parametrize(("first", "second", "never"), [
    (rule("e", ["example.com"], STOP), rule("r", [A]), True),
    (rule("e", ["a@example.com"], S3, STOP), rule("r", ["A+label@example.com"]), True),
    (rule("e", ["a+x@example.com"], STOP), rule("r", [A]), False),
    (rule("e", [], STOP), rule("r", [".example.com"]), True),
    (rule("e", ["example.com"], STOP), rule("r", []), False),
    (rule("e", ["example.com", ".example.com"], STOP), rule("r", []), True),
    (rule("e", [A], ASK, STOP), rule("r", [A]), False),
    (rule("e", [A], STOP, ASK), rule("r", [A]), True),
    (rule("e", [A], STOP, TlsPolicy="Require"), rule("r", [A]), False),
    (rule("e", [A], STOP, TlsPolicy="Require"), rule("r", [A], TlsPolicy="Require"), True),
    (rule("e", [A], STOP), rule("r", [A], TlsPolicy="Require"), True),
    (rule("e", [A], STOP, Enabled=False), rule("r", [A]), False),
    (rule("e", [A], STOP), rule("r", [A], Enabled=False), False),
    (rule("e", [A], STOP), rule("r", [A, B]), False),
])
def test_what_stops_what(first: dict[str, object], second: dict[str, object], never: bool) -> None:
    rules = rule_set(first, second)
    assert bool(Reach(rules.rules, rules.identities).stopped(1)) is never


def test_several_rules_together_stop_all_that_one_is_for() -> None:
    rules = rule_set(rule("e", [A], STOP), rule("other", [C], S3), rule("f", [B], STOP), rule("r", [A, B]))
    assert Reach(rules.rules, rules.identities).stopped(3) == (0, 2)


@pytest.mark.parametrize(("first", "second", "taken"), [
    (rule("all", [], S3), rule("r", [A], S3), True),
    (rule("all", ["example.com", ".example.com"], S3), rule("r", [A], S3), True),
    (rule("all", [], ADD), rule("r", [A], S3), False),
    (rule("all", [], ASK, S3), rule("r", [A], S3), False),
    (rule("all", [], S3, STOP), rule("r", [A], S3), False),
    (rule("all", ["example.com"], S3), rule("r", [A], S3), False),
    (rule("all", [], S3, TlsPolicy="Require"), rule("r", [A], S3), False),
    (rule("all", [], S3), rule("r", [A], S3, Enabled=False), False),
    (rule("all", [], S3), rule("again", [], S3), False),
    (rule("r", [A], S3), rule("all", [], S3), False),
])
def test_what_takes_what_along(first: dict[str, object], second: dict[str, object], taken: bool) -> None:
    rules = rule_set(first, second)
    assert bool(Reach(rules.rules, rules.identities).taken_along(0)) is taken


def warnings(body: str, top: str = "Identities: [example.com]") -> list[str]:
    return [f"{w.line}:{w.column} {w.code}: {w.message.partition(': ')[2]}" for w in parse(f"{top}\nRuleSets:\n  default:\n{body}", "r").warnings]


def one(actions: str, name: str = "a", more: str = "") -> str:
    return f"    - Name: {name}\n{more}      Actions:\n" + "".join(f"        - {action}\n" for action in actions.split(" | "))


VERIFIED = "SES takes only verified identities here, and the world only mail that SPF and DKIM of that domain allow us to send"
STORE = "S3Action: {BucketName: mail}"
END = "StopAction: {Scope: RuleSet}"


@pytest.mark.parametrize(("body", "told"), [
    (one(f"{END} | {STORE}"), ["7:11 after-stop: never runs; it comes after a StopAction"]),
    (one(f"SNSAction: {{TopicArn: '{TOPIC}'}}"),
     ["6:11 sns-alone: takes at most 150 KB; longer messages bounce, and no S3Action of this rule keeps them"]),
    (one(f"SNSAction: {{TopicArn: '{TOPIC}'}} | {STORE}"), []),
    (one(f"SNSAction: {{TopicArn: '{TOPIC}'}}", more="      Enabled: false\n")
     + one(STORE, "b"), []),
    (one(STORE, more="      Recipients: [a@example.com, A@Example.com, a+1@example.com]\n"),
     ["5:35 duplicate-recipient: 'A@Example.com' is listed twice ('a@example.com': letter case does not matter)"]),
    (one(STORE, more="      Recipients: []\n") + one(END, "b"),
     ["5:7 empty-recipients: is empty, and so matches every address of Identities, not none; leave the key out if that is meant"]),
    (one(STORE, more="      Recipients: []\n"), []),
    (one(STORE) + one(STORE, "b"), []),
    (one(STORE) + one(STORE, "b", "      Recipients: [a@example.com]\n"),
     ["4:7 catch-all-first: is for everybody, and acts first on what 'b' (line 7) is for; put it last, and end those with a StopAction"]),
    (one(END) + one(STORE, "b"), ["7:7 never-matches: can never match: 'a' (line 4) stops all that it is for; put it before, or remove it"]),
    (one(f"S3Action: {{BucketName: mail, TopicArn: '{TOPIC}'}} | "
         f"S3Action: {{BucketName: mail, TopicArn: '{TOPIC}'}} | S3Action: {{BucketName: mail, TopicArn: 'arn:aws:sns:eu-west-1:111111111111:t'}}"),
     ["8:50 other-region: is in the account 111111111111, most of this file in 000000000000",
      "8:50 other-region: is in the region eu-west-1, most of this file in us-east-1"]),
    (one(f"S3Action: {{BucketName: mail, TopicArn: '{TOPIC}', IamRoleArn: 'arn:aws:iam::000000000000:role/r'}}"), []),
    (one("BounceAction: {SmtpReplyCode: 550, StatusCode: 5.1.1, Message: gone, Sender: a@other.example}"),
     ["6:88 bounce-sender: 'a@other.example' is outside Identities; " + VERIFIED]),
])
def test_each_warning_has_its_place_and_its_code(body: str, told: list[str]) -> None:
    assert warnings(body) == told


class TestAllow:
    """`# inbound: allow CODE` on the line that the warning names."""

    @pytest.mark.parametrize("comment", [
        "# inbound: allow after-stop", "#inbound:allow after-stop", "# kept for later; # inbound: allow after-stop",
        "# inbound: allow after-stop - it is kept for the day we need it", "# inbound: allow sns-alone, after-stop (both meant)",
    ])
    def test_it_silences_its_line(self, comment: str) -> None:
        told = warnings(one(f"{END} | SNSAction: {{TopicArn: '{TOPIC}'}}  {comment}"))
        assert [each.split()[1] for each in told] == ([] if "sns-alone" in comment else ["sns-alone:"])

    @pytest.mark.parametrize("comment", [
        "# inbound: allow sns-alone after-stop", "# inbound: allow sns-alone after-stop - both are meant",
        "# inbound: allow after-stop   sns-alone it is",
        "# inbound: allow after-stop sns-alone, needs-smarthost because of the test", "# inbound: allow sns-alone ,after-stop",
    ])
    def test_codes_after_spaces_are_honoured_as_those_after_commas(self, comment: str) -> None:
        assert warnings(one(f"{END} | SNSAction: {{TopicArn: '{TOPIC}'}}  {comment}")) == []

    @pytest.mark.parametrize(("comment", "told"), [
        ("after-stop sns-alne", "'sns-alne'; did you mean 'sns-alone'?"), ("after-stop, kept", "'kept'; there is receiving-off"),
    ])
    def test_a_code_after_another_that_there_is_not_is_told_of(self, comment: str, told: str) -> None:
        found = warnings(one(f"{END} | {STORE}  # inbound: allow {comment}"))
        assert [each for each in found if "unknown-allow" in each and told in each], found

    @pytest.mark.parametrize("reason", ["it is kept", "- sns-alone is not meant", "(no need, as I said)", "short-lived pages, and few"])
    def test_the_reason_is_no_code(self, reason: str) -> None:
        assert warnings(one(f"{END} | {STORE}  # inbound: allow after-stop {reason}")) == []

    def test_not_another_line(self) -> None:
        told = warnings(one(f"{END}  # inbound: allow after-stop | {STORE}"))
        assert [each.split(":")[0] + each.split(" ")[1] for each in told] == ["6unused-allow:", "7after-stop:"]

    @pytest.mark.parametrize(("comment", "told"), [
        ("# inbound: allow", "unknown-allow: allow: names no code: # inbound: allow receiving-off"),
        ("# inbound: allow after-stp", "unknown-allow: allow: there is no warning 'after-stp'; did you mean 'after-stop'?"),
        ("# inbound: allow no-actions", "unused-allow: allow: nothing on this line is warned of as no-actions; remove it"),
    ])
    def test_one_that_silences_nothing_is_a_warning(self, comment: str, told: str) -> None:
        assert warnings(one(f"{STORE}  {comment}")) == [f"6:41 {told}"]

    @pytest.mark.parametrize("comment", ["# inbound: allow needs-smarthost", "# inbound: allow unsigned-bounce, needs-certificate"])
    def test_one_that_depends_on_the_service_is_never_unused(self, comment: str) -> None:
        assert warnings(one(f"{STORE}  {comment}")) == []

    @pytest.mark.parametrize("value", ["'x # inbound: allow nonsense'", '"x # inbound: allow nonsense"',
                                       "|\n                # inbound: allow nonsense"])
    def test_within_a_value_it_is_no_comment(self, value: str) -> None:
        body = one("AddHeaderAction:\n            HeaderName: X-A\n            HeaderValue: " + value)
        if "|" in value:
            body = one("AddHeaderAction:\n            HeaderName: X-A\n            HeaderValue: >-\n" + value[2:])
        assert warnings(body) == []


def test_the_sample_is_clean() -> None:
    assert parse((ROOT / "rules.yaml").read_text(), "rules.yaml").warnings == ()


def test_the_readme_lists_every_code() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", (ROOT / "README.md").read_text().partition("<!-- warnings -->")[2].partition(
        "<!-- /warnings -->")[0], re.MULTILINE)
    assert dict(listed) == CODES


def test_the_largest_of_rule_sets_is_looked_through_once() -> None:
    """It took two and a half minutes, at every reload: each rule was compared with each before it, entry by entry."""
    rules = [rule(f"r{number}", [f"u{number}x{each}@d{(number * 300 + each) % 10_000}.example" for each in range(300)] if number % 4 else [], STOP)
             for number in range(199, -1, -1)]
    made = RuleSet.model_validate({"name": "default", "rules": rules, "identities": [f"d{number}.example" for number in range(10_000)]})
    reach = Reach(made.rules, made.identities)
    last = next(position for position, each in enumerate(made.rules) if not each.Recipients)
    assert [reach.stopped(position) for position in range(200)] == [()] * (last + 1) + [(last,)] * (199 - last)
