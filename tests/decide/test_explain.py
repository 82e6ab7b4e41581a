"""The explanation is the engine's walk, and its JSON has the documented shape."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from walks import ADD, ASK, FLOWS, MAILS, RULES, S3, STOP, A, B, C, answers, rule, rule_set, walk

from inbound.decide.engine import Disposition, Flow, Mail, Reason, StopScope
from inbound.decide.explain import explain
from inbound.decide.rules import RuleSet


@given(RULES, MAILS, FLOWS)
def test_the_explanation_agrees_with_the_engine(rules: RuleSet, mail: Mail, flows: list[Flow]) -> None:
    """Same steps, same recipients, same order, same disposition, whatever the steps answer; and every rule is told."""
    steps, disposition = walk(rules, mail, answers(*flows))
    told = explain(rules, mail, answers(*flows))
    outcomes = [outcome for passage in told.passages for outcome in passage.outcomes]
    assert [(outcome.step.rule.Name, outcome.step.index, outcome.step.recipients) for outcome in outcomes] == steps
    assert [outcome.flow for outcome in outcomes] == [*flows, *[Flow.CONTINUE] * len(steps)][: len(steps)]
    assert told.disposition is disposition
    assert [passage.position for passage in told.passages] == list(range(len(rules.rules)))
    assert all(bool(passage.outcomes) <= (passage.reason is Reason.MATCHED) for passage in told.passages)
    assert all(passage.why for passage in told.passages)


@given(RULES, MAILS, FLOWS)
def test_its_json_is_json_and_names_the_entry_of_each_match(rules: RuleSet, mail: Mail, flows: list[Flow]) -> None:
    data = explain(rules, mail, answers(*flows)).to_json()
    assert json.loads(json.dumps(data)) == data
    for told, each in zip(data["rules"], rules.rules, strict=True):
        for match in told["recipients"]:
            assert match["entry"] in (each.Recipients or rules.identities)
        assert [action["index"] for action in told["actions"]] == list(range(len(each.Actions)))
        for action in told["actions"]:
            assert bool(action["recipients"]) == (action["flow"] is not None)


def sentences(rules: RuleSet, mail: Mail, *flows: Flow) -> dict[str, str]:
    told = explain(rules, mail, answers(*flows)) if flows else explain(rules, mail)
    return {passage.rule.Name: passage.why for passage in told.passages}


def test_the_reasons_in_words() -> None:
    rules = rule_set(
        rule("off", [], S3, Enabled=False),
        rule("other", [C, ".example.org"], S3),
        rule("secret", [A], S3, TlsPolicy="Require"),
        rule("stop", ["example.com", A], ADD, STOP),
        rule("again", [A], S3),
        rule("all", [], S3),
    )
    assert sentences(rules, Mail(("a+x@Example.com", "b@sub.example.com"))) == {
        "off": "Enabled is false",
        "other": "no recipient (a+x@Example.com, b@sub.example.com) matches c@example.com, .example.org",
        "secret": "TlsPolicy is Require, and the session was not encrypted",
        "stop": "a+x@Example.com matches a@example.com",
        "again": "a+x@Example.com was stopped by Stop (action 2) of stop",
        "all": "b@sub.example.com matches the identity example.com, a+x@Example.com was stopped by Stop (action 2) of stop",
    }


def test_a_function_that_stops_is_named() -> None:
    rules = rule_set(rule("ask", [A], ASK, S3), rule("all", [], S3))
    assert sentences(rules, Mail((A,)), Flow.STOP_RULE_SET)["all"] == "a@example.com was stopped by Lambda (action 1) of ask"


def test_a_stop_for_the_whole_message_stops_all() -> None:
    rules = rule_set(rule("stop", [A], STOP), rule("all", [], S3))
    assert sentences(rules, Mail((A, B), stop_scope=StopScope.MESSAGE))["all"] == (
        "a@example.com was stopped by Stop (action 1) of stop, b@example.com was stopped by Stop (action 1) of stop")


def test_the_first_spelling_of_an_entry_is_named() -> None:
    assert sentences(rule_set(rule("one", ["A@Example.com", A], S3)), Mail((A,)))["one"] == "a@example.com matches A@Example.com"


def test_long_lists_are_cut() -> None:
    rules = rule_set(rule("many", [f"u{number}@example.com" for number in range(500)], S3))
    assert sentences(rules, Mail((A,)))["many"] == (
        "no recipient (a@example.com) matches " + ", ".join(f"u{number}@example.com" for number in range(5)) + " and 495 more")


def test_a_rule_set_that_receives_nothing() -> None:
    told = explain(RuleSet(name=None, rules=()), Mail((A,)))
    assert told.disposition is Disposition.UNMATCHED
    assert told.to_json()["recipients"] == [{"recipient": A, "acceptance": "no rule", "why": "no rule set is active"}]


def test_the_shape_of_the_json() -> None:
    rules = rule_set(rule("secret", [C], S3, TlsPolicy="Require"), rule("stop", [A], ASK, STOP, S3), rule("all", [A, ".example.com"], S3))
    expected: dict[str, Any] = {
        "ruleSet": "default",
        "revision": rules.revision,
        "tls": False,
        "disposition": "STOPPED",
        "recipients": [
            {"recipient": A, "acceptance": "accept", "why": ""},
            {"recipient": C, "acceptance": "TLS required", "why": "every enabled rule that matches it requires TLS: secret"},
        ],
        "rules": [
            {"position": 0, "name": "secret", "reason": "requires TLS", "why": "TlsPolicy is Require, and the session was not encrypted",
             "recipients": [{"recipient": C, "entry": C, "stoppedBy": None}],
             "actions": [{"index": 0, "action": "S3", "parameters": {"BucketName": "mail"}, "recipients": [], "flow": None}]},
            {"position": 1, "name": "stop", "reason": "matched", "why": "a@example.com matches a@example.com",
             "recipients": [{"recipient": A, "entry": A, "stoppedBy": None}],
             "actions": [{"index": 0, "action": "Lambda", "parameters": ASK["LambdaAction"], "recipients": [A], "flow": "CONTINUE"},
                         {"index": 1, "action": "Stop", "parameters": {"Scope": "RuleSet"}, "recipients": [A], "flow": "STOP_RULE_SET"},
                         {"index": 2, "action": "S3", "parameters": {"BucketName": "mail"}, "recipients": [], "flow": None}]},
            {"position": 2, "name": "all", "reason": "stopped before", "why": "a@example.com was stopped by Stop (action 2) of stop",
             "recipients": [{"recipient": A, "entry": A, "stoppedBy": {"rule": "stop", "index": 1}}],
             "actions": [{"index": 0, "action": "S3", "parameters": {"BucketName": "mail"}, "recipients": [], "flow": None}]},
        ],
    }
    told = explain(rules, Mail((A, C, A.upper()))).to_json()
    assert told == {**expected, "disposition": "COMPLETED"}
    assert explain(rules, Mail((A,))).to_json()["disposition"] == "STOPPED"


@given(st.lists(st.sampled_from([A, B]), max_size=3))
def test_flows_default_to_those_of_actions_that_ask_nobody(recipients: list[str]) -> None:
    rules = rule_set(rule("one", [A], ASK, STOP, S3), rule("all", [], S3))
    mail = Mail(tuple(recipients))
    told = [(o.step.rule.Name, o.step.index, o.step.recipients) for p in explain(rules, mail).passages for o in p.outcomes]
    assert told == walk(rules, mail)[0]
