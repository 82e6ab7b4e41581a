"""The walk through a rule set: which steps, in which order, for whom, and what a stop stops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walks import ADD, ASK, FLOWS, MAILS, RECIPIENTS, RULES, S3, STOP, A, B, C, Told, answers, rule, rule_set, walk

from inbound.decide.engine import (
    Acceptance,
    Disposition,
    Flow,
    Mail,
    Reason,
    Seen,
    Step,
    StopScope,
    acceptance,
    evaluate,
    own_flow,
    unique,
)
from inbound.decide.rules import RuleSet


def test_every_matching_rule_runs_in_order_with_all_its_actions() -> None:
    rules = rule_set(rule("one", [A], ADD, S3), rule("two", [B], S3), rule("three", [], S3))
    assert walk(rules, Mail((A,))) == ([("one", 0, (A,)), ("one", 1, (A,)), ("three", 0, (A,))], Disposition.COMPLETED)


def test_a_rule_runs_once_for_the_message_and_sees_the_recipients_it_matches() -> None:
    rules = rule_set(rule("one", [A], S3), rule("two", [B], S3), rule("all", [], S3))
    assert walk(rules, Mail((B, A))) == ([("one", 0, (A,)), ("two", 0, (B,)), ("all", 0, (B, A))], Disposition.COMPLETED)


def test_no_rule_matches() -> None:
    assert walk(rule_set(rule("one", [A], S3)), Mail((B,))) == ([], Disposition.UNMATCHED)
    assert walk(RuleSet(name=None, rules=()), Mail((A,))) == ([], Disposition.UNMATCHED)


def test_a_rule_without_actions_matches_and_does_nothing() -> None:
    assert walk(rule_set(rule("one", [A])), Mail((A,))) == ([], Disposition.COMPLETED)


def test_disabled_rules_are_passed_by() -> None:
    assert walk(rule_set(rule("one", [A], S3, Enabled=False)), Mail((A,))) == ([], Disposition.UNMATCHED)


@pytest.mark.parametrize("tls", [True, False])
def test_a_rule_that_requires_tls_is_passed_by_without(tls: bool) -> None:
    rules = rule_set(rule("secret", [A], S3, TlsPolicy="Require"), rule("all", [], S3))
    steps = [("secret", 0, (A,))] if tls else []
    assert walk(rules, Mail((A,), tls=tls)) == ([*steps, ("all", 0, (A,))], Disposition.COMPLETED)


def test_stop_ends_the_rule_and_the_set_for_its_recipients() -> None:
    rules = rule_set(rule("one", [A], STOP, S3), rule("two", [], S3))
    assert walk(rules, Mail((A,))) == ([("one", 0, (A,))], Disposition.STOPPED)


def test_the_others_go_on_after_a_stop() -> None:
    """Spec §10 row 2: no accepted recipient is starved by a stop that another recipient's rule made."""
    rules = rule_set(rule("one", [A], S3, STOP), rule("two", [A, B], S3), rule("three", [A], S3), rule("all", [], S3))
    assert walk(rules, Mail((A, B, C))) == (
        [("one", 0, (A,)), ("one", 1, (A,)), ("two", 0, (B,)), ("all", 0, (B, C))], Disposition.COMPLETED)


def test_all_recipients_stopped_one_after_the_other() -> None:
    rules = rule_set(rule("one", [A], STOP), rule("two", [B], STOP), rule("all", [], S3))
    assert walk(rules, Mail((A, B))) == ([("one", 0, (A,)), ("two", 0, (B,))], Disposition.STOPPED)


def test_a_stop_may_be_set_to_end_the_whole_message() -> None:
    rules = rule_set(rule("one", [A], STOP), rule("two", [B], S3), rule("all", [], S3))
    assert walk(rules, Mail((A, B), stop_scope=StopScope.MESSAGE)) == ([("one", 0, (A,))], Disposition.STOPPED)


def test_stop_rule_skips_the_rest_of_the_rule_only() -> None:
    rules = rule_set(rule("one", [], ASK, S3), rule("two", [], S3))
    assert walk(rules, Mail((A,)), answers(Flow.STOP_RULE)) == ([("one", 0, (A,)), ("two", 0, (A,))], Disposition.COMPLETED)


def test_stop_rule_set_from_a_function_stops_like_a_stop() -> None:
    rules = rule_set(rule("one", [A], ASK, S3), rule("two", [], S3))
    assert walk(rules, Mail((A, B)), answers(Flow.STOP_RULE_SET)) == ([("one", 0, (A,)), ("two", 0, (B,))], Disposition.COMPLETED)


def test_a_stop_in_a_later_rule_is_for_those_still_open() -> None:
    rules = rule_set(rule("one", [A], STOP), rule("two", [A, B], STOP), rule("all", [], S3))
    assert walk(rules, Mail((A, B, C))) == ([("one", 0, (A,)), ("two", 0, (B,)), ("all", 0, (C,))], Disposition.COMPLETED)


@pytest.mark.parametrize(("given", "kept"), [
    ((A, A.upper(), A), (A,)),
    (("B@example.com", A, B), ("B@example.com", A)),
    (("x@bücher.example", "x@xn--bcher-kva.example"), ("x@bücher.example",)),
    (("a+1@example.com", "a+2@example.com"), ("a+1@example.com", "a+2@example.com")),
    (('"a"@example.com', A), ('"a"@example.com',)),
    (("not an address", "NOT AN ADDRESS"), ("not an address",)),
])
def test_a_repeated_recipient_counts_once_in_its_first_spelling(given: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert unique(given) == kept


def test_the_label_and_spelling_of_a_recipient_are_kept() -> None:
    assert walk(rule_set(rule("one", [A], S3)), Mail(("A+Label@Example.COM",)))[0] == [("one", 0, ("A+Label@Example.COM",))]


def test_tell_hears_of_every_rule_and_why() -> None:
    heard: list[Seen] = []
    rules = rule_set(rule("off", [], S3, Enabled=False), rule("other", [C], S3), rule("secret", [A], S3, TlsPolicy="Require"),
                     rule("stop", [A], STOP), rule("again", [A], S3), rule("all", [], S3))
    walk(rules, Mail((A, B)), tell=heard.append)
    told = [(seen.position, seen.reason, seen.recipients, seen.open, {r: s.rule.Name for r, s in seen.stopped.items()}) for seen in heard]
    assert told == [
        (0, Reason.DISABLED, (A, B), (A, B), {}),
        (1, Reason.NO_RECIPIENT, (), (), {}),
        (2, Reason.TLS_REQUIRED, (A,), (A,), {}),
        (3, Reason.MATCHED, (A,), (A,), {}),
        (4, Reason.STOPPED, (A,), (), {A: "stop"}),
        (5, Reason.MATCHED, (A, B), (B,), {A: "stop"}),
    ]


class TestAcceptance:
    """What RCPT is told. Spec §10 row 12."""

    def test_a_matching_rule(self) -> None:
        assert acceptance(rule_set(rule("one", [A], S3)), "A+x@example.com", tls=False) is Acceptance.ACCEPT

    def test_none(self) -> None:
        assert acceptance(rule_set(rule("one", [A], S3)), B, tls=True) is Acceptance.NO_RULE

    def test_a_disabled_one(self) -> None:
        assert acceptance(rule_set(rule("one", [A], S3, Enabled=False)), A, tls=True) is Acceptance.NO_RULE

    @pytest.mark.parametrize(("others", "answer"), [([], Acceptance.TLS_REQUIRED), ([rule("all", [], S3)], Acceptance.ACCEPT),
                                                    ([rule("all", [], S3, Enabled=False)], Acceptance.TLS_REQUIRED)])
    def test_tls_is_required_if_every_enabled_rule_requires_it(self, others: list[dict[str, Any]], answer: Acceptance) -> None:
        rules = rule_set(rule("secret", [A], S3, TlsPolicy="Require"), *others)
        assert acceptance(rules, A, tls=False) is answer
        assert acceptance(rules, A, tls=True) is Acceptance.ACCEPT


@given(RULES, MAILS, FLOWS)
def test_going_on_from_any_recorded_prefix_is_the_same_walk(rules: RuleSet, mail: Mail, flows: list[Flow]) -> None:
    """What recovery does: the flows that were recorded are replayed, and the walk goes on from the first step without one."""
    rules = RuleSet.model_validate_json(rules.text)
    recorded: list[tuple[str, Flow]] = []

    def answer(step: Step) -> Flow:
        flow = flows[len(recorded)] if len(recorded) < len(flows) else own_flow(step.action)
        recorded.append((step.digest, flow))
        return flow

    whole = walk(rules, mail, answer)
    for done in range(len(recorded) + 1):
        again = evaluate(RuleSet.model_validate_json(rules.text), mail)
        rest: list[Told] = []
        try:
            step = next(again)
            for digest, flow in recorded[:done]:
                assert step.digest == digest
                step = again.send(flow)
            for digest, flow in recorded[done:]:
                assert step.digest == digest
                rest.append((step.rule.Name, step.index, step.recipients))
                step = again.send(flow)
            raise AssertionError("a step more than before")
        except StopIteration as end:
            assert (whole[0][done:], whole[1]) == (rest, end.value)


@given(RULES, MAILS, FLOWS)
def test_listening_changes_nothing(rules: RuleSet, mail: Mail, flows: list[Flow]) -> None:
    assert walk(rules, mail, answers(*flows)) == walk(rules, mail, answers(*flows), tell=lambda _seen: None)


@given(RULES, RECIPIENTS, st.booleans(), FLOWS)
def test_what_a_recipient_meets_does_not_depend_on_the_others(rules: RuleSet, recipients: list[str], tls: bool, flows: list[Flow]) -> None:
    """With per-recipient stops, the steps that see a recipient are those it would meet alone, each step answering the same."""
    def flow_of(step: Step) -> Flow:
        return flows[(step.index + 7 * int(step.rule.Name[1:])) % len(flows)] if flows else own_flow(step.action)

    together = walk(rules, Mail(tuple(recipients), tls), flow_of)[0]
    for recipient in unique(tuple(recipients)):
        alone = walk(rules, Mail((recipient,), tls), flow_of)[0]
        assert [(name, index) for name, index, seen in together if recipient in seen] == [(name, index) for name, index, _ in alone]


def test_the_digest_tells_steps_apart() -> None:
    def first(rules: RuleSet, mail: Mail) -> str:
        return next(evaluate(rules, mail)).digest

    one = first(rule_set(rule("one", [], S3)), Mail((A,)))
    assert one == first(rule_set(rule("one", [A], S3, ScanEnabled=True)), Mail((A,)))
    others = [
        first(rule_set(rule("two", [], S3)), Mail((A,))),
        first(rule_set(rule("one", [], S3)), Mail((A, B))),
        first(rule_set(rule("one", [], {"S3Action": {"BucketName": "other"}})), Mail((A,))),
        first(rule_set(rule("one", [], STOP)), Mail((A,))),
    ]
    assert len({one, *others}) == 5


def test_1000_recipients_against_200_rules_that_match_them_all() -> None:
    rules = rule_set(*(rule(f"r{number}", [], S3) for number in range(200)))
    mail = Mail(tuple(f"user{number}@example.com" for number in range(1000)))
    assert len(walk(rules, mail)[0]) == 200
