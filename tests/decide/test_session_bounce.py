"""What is certain before a message is seen: who is refused in the session loses nothing, and whoever is not gets what the engine gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from walks import ADD, ADDRESSES, ASK, RECIPIENTS, S3, STOP, A, B, rule, rule_set, walk

from inbound.decide.engine import Acceptance, Flow, Mail, Step, StopScope, acceptance, own_flow, unique
from inbound.decide.rules import AnyAction, Bounce, Lambda, RuleSet, Sns
from inbound.decide.session_bounce import Certain

TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
BOUNCE: dict[str, Any] = {"BounceAction": {"SmtpReplyCode": "550", "StatusCode": "5.1.1", "Message": "gone", "Sender": "postmaster@example.com"}}
TOLD_BOUNCE = {"BounceAction": BOUNCE["BounceAction"] | {"TopicArn": TOPIC}}
LATER = {"BounceAction": BOUNCE["BounceAction"] | {"SmtpReplyCode": "450", "StatusCode": "4.0.0"}}
CLOSING = {"BounceAction": BOUNCE["BounceAction"] | {"SmtpReplyCode": "421", "StatusCode": "4.3.2"}}
SNS = {"SNSAction": {"TopicArn": TOPIC}}
TOLD_STOP = {"StopAction": {"Scope": "RuleSet", "TopicArn": TOPIC}}
EVENT = {"LambdaAction": {"FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f"}}


def sets(*actions: dict[str, Any]) -> st.SearchStrategy[RuleSet]:
    rules = st.lists(st.builds(
        lambda recipients, actions, enabled, tls: rule("r", recipients, *actions, Enabled=enabled, TlsPolicy=tls),
        st.lists(st.sampled_from([A, B, "a+x@example.com", "example.com", ".example.com"]), max_size=3),
        st.lists(st.sampled_from(actions), max_size=4),
        st.sampled_from([True, True, True, False]),
        st.sampled_from(["Optional", "Optional", "Require"]),
    ), max_size=5)
    return rules.map(lambda made: rule_set(*({**each, "Name": f"r{number}"} for number, each in enumerate(made))))


ANY = st.one_of(sets(BOUNCE, LATER, CLOSING, TOLD_BOUNCE, ADD, STOP, TOLD_STOP, SNS, S3, ASK, EVENT), sets(BOUNCE, BOUNCE, ADD, STOP, LATER, S3),
                sets(SNS, SNS, ADD, STOP, BOUNCE), sets(SNS, STOP, ADD))
PUBLISHING = sets(STOP, ADD, SNS).map(
    lambda rules: rule_set(*(rule(each.Name, each.Recipients, SNS, *({f"{a.only.kind}Action": a.only.model_dump()} for a in each.Actions))
                             for each in rules.rules)))
FLOWS = st.dictionaries(st.tuples(st.sampled_from([f"r{n}" for n in range(5)]), st.integers(0, 3)), st.sampled_from(Flow))


def noticed(action: AnyAction) -> bool:
    """Does anybody outside notice the action?"""
    return action.kind not in ("AddHeader", "Stop") or action.TopicArn is not None


def effects(rules: RuleSet, mail: Mail, flows: dict[tuple[str, int], Flow]) -> dict[str, list[tuple[str, int, AnyAction]]]:
    """What the engine makes of the message for each recipient, when functions that are asked answer with `flows`."""
    found: dict[str, list[tuple[str, int, AnyAction]]] = {recipient: [] for recipient in unique(mail.recipients)}

    def answer(step: Step) -> Flow:
        if noticed(step.action):
            for recipient in step.recipients:
                found[recipient].append((step.rule.Name, step.index, step.action))
        asked = isinstance(step.action, Lambda) and step.action.InvocationType == "RequestResponse"
        return flows.get((step.rule.Name, step.index), Flow.CONTINUE) if asked else own_flow(step.action)

    walk(rules, mail, answer)
    return found


@given(ANY, RECIPIENTS, st.booleans(), st.sampled_from(StopScope), FLOWS)
@example(rule_set(rule("r0", [A], BOUNCE, STOP), rule("r1", [], S3)), [A, B], False, StopScope.RECIPIENTS, {})
@example(rule_set(rule("r0", [A], BOUNCE), rule("r1", [], S3)), [A, B], False, StopScope.RECIPIENTS, {})
@example(rule_set(rule("r0", [A], BOUNCE, STOP), rule("r1", [B], S3)), [A, B], False, StopScope.MESSAGE, {})
@example(rule_set(rule("r0", [A, B], ASK), rule("r1", [A], BOUNCE)), [A, B], False, StopScope.MESSAGE, {("r0", 0): Flow.STOP_RULE_SET})
@example(rule_set(rule("r0", [A], S3, TlsPolicy="Require"), rule("r1", [A], BOUNCE)), [A], True, StopScope.RECIPIENTS, {})
def test_for_each_recipient_the_outcome_is_the_engines(
    rules: RuleSet, recipients: list[str], tls: bool, scope: StopScope, flows: dict[tuple[str, int], Flow],
) -> None:
    certain = Certain(rules, scope)
    welcome = [r for r in unique(tuple(recipients)) if acceptance(rules, r, tls=tls) is Acceptance.ACCEPT]
    refused = {r: bounce for r in welcome if (bounce := certain.bounce(r, tls=tls)) is not None}
    engine = effects(rules, Mail(tuple(welcome), tls, scope), flows)
    rest = effects(rules, Mail(tuple(r for r in welcome if r not in refused), tls, scope), flows)
    for recipient, bounce in refused.items():
        assert all(isinstance(action, Bounce) and action.TopicArn is None for _, _, action in engine[recipient])
        assert engine[recipient][0][2] == bounce
    for recipient, found in rest.items():
        assert found == engine[recipient]


@given(ANY, st.sampled_from(ADDRESSES), st.booleans(), FLOWS)
def test_nothing_that_is_certain_is_missed(rules: RuleSet, recipient: str, tls: bool, flows: dict[tuple[str, int], Flow]) -> None:
    found = [action for _, _, action in effects(rules, Mail((recipient,), tls), flows)[recipient]]
    only_bounces = bool(found) and all(isinstance(a, Bounce) and a.TopicArn is None and a.SmtpReplyCode != "421" for a in found)
    assert (Certain(rules, StopScope.RECIPIENTS).bounce(recipient, tls=tls) is not None) == only_bounces


@given(ANY, RECIPIENTS, st.booleans(), st.sampled_from(StopScope), FLOWS)
@example(rule_set(rule("r0", [A], SNS), rule("r1", [B], SNS)), ["A@EXAMPLE.COM", A, B], False, StopScope.RECIPIENTS, {})
@example(rule_set(rule("r0", [A], SNS, STOP), rule("r1", [B], SNS)), [A, B], False, StopScope.MESSAGE, {})
def test_a_message_goes_to_topics_only_if_the_engine_sends_it_nowhere_else(
    rules: RuleSet, recipients: list[str], tls: bool, scope: StopScope, flows: dict[tuple[str, int], Flow],
) -> None:
    found = effects(rules, Mail(tuple(recipients), tls, scope), flows).values()
    only_topics = all(each and all(isinstance(action, Sns) for _, _, action in each) for each in found)
    assert Certain(rules, scope).goes_to_topics_only(tuple(recipients), tls=tls) == only_topics


@given(st.one_of(PUBLISHING, ANY), RECIPIENTS, st.booleans(), st.sampled_from(StopScope))
@example(rule_set(rule("r0", [A], SNS, STOP), rule("r1", [], SNS)), [A, B], False, StopScope.RECIPIENTS)
@example(rule_set(rule("r0", [A], SNS, STOP), rule("r1", [B], SNS)), [A, B], False, StopScope.MESSAGE)
def test_what_is_said_of_any_message_holds_whoever_it_is_for(rules: RuleSet, recipients: list[str], tls: bool, scope: StopScope) -> None:
    certain = Certain(rules, scope)
    welcome = tuple(r for r in recipients if acceptance(rules, r, tls=tls) is Acceptance.ACCEPT)
    if welcome and certain.any_message_goes_to_topics_only(tls=tls):
        assert certain.goes_to_topics_only(welcome, tls=tls)


@pytest.mark.parametrize(("actions", "certain"), [
    ((BOUNCE,), True), ((BOUNCE, STOP), True), ((ADD, BOUNCE), True), ((BOUNCE, BOUNCE), True), ((LATER, STOP), True), ((STOP, BOUNCE), False),
    ((CLOSING,), False), ((TOLD_BOUNCE,), False), ((BOUNCE, TOLD_BOUNCE), False), ((BOUNCE, S3), False), ((S3, BOUNCE), False),
    ((BOUNCE, STOP, S3), True), ((BOUNCE, TOLD_STOP), False), ((ASK, BOUNCE), False), ((EVENT, BOUNCE), False), ((BOUNCE, SNS), False),
    ((ADD,), False),
])
def test_the_actions_of_a_rule(actions: tuple[dict[str, Any], ...], certain: bool) -> None:
    assert (Certain(rule_set(rule("one", [A], *actions)), StopScope.RECIPIENTS).bounce(A, tls=False) is not None) == certain


def test_a_later_rule_counts_unless_something_stops_before() -> None:
    stored = rule("all", [], S3)
    assert Certain(rule_set(rule("gone", [A], BOUNCE), stored), StopScope.RECIPIENTS).bounce(A, tls=False) is None
    assert Certain(rule_set(rule("gone", [A], BOUNCE, STOP), stored), StopScope.RECIPIENTS).bounce(A, tls=False) is not None
    assert Certain(rule_set(rule("gone", [A], BOUNCE), {**stored, "Enabled": False}), StopScope.RECIPIENTS).bounce(A, tls=False) is not None


def test_a_rule_that_needs_tls_counts_where_there_is_tls() -> None:
    certain = Certain(rule_set(rule("secret", [A], S3, TlsPolicy="Require"), rule("gone", [A], BOUNCE)), StopScope.RECIPIENTS)
    assert certain.bounce(A, tls=False) is not None
    assert certain.bounce(A, tls=True) is None


def test_where_a_stop_ends_the_whole_message_nothing_is_certain_if_something_may_stop() -> None:
    gone = rule("gone", [A], BOUNCE)
    assert Certain(rule_set(gone), StopScope.MESSAGE).bounce(A, tls=False) is not None
    assert Certain(rule_set(gone, rule("b", [B], STOP)), StopScope.MESSAGE).bounce(A, tls=False) is None
    assert Certain(rule_set(gone, rule("b", [B], ASK)), StopScope.MESSAGE).bounce(A, tls=False) is None
    assert Certain(rule_set(gone, rule("b", [B], EVENT)), StopScope.MESSAGE).bounce(A, tls=False) is not None


def test_the_first_of_several_bounces_is_the_answer() -> None:
    found = Certain(rule_set(rule("one", [A], LATER), rule("two", [A], BOUNCE)), StopScope.RECIPIENTS).bounce(A, tls=False)
    assert found is not None
    assert found.SmtpReplyCode == "450"


@pytest.mark.parametrize(("rules", "certain"), [
    ([rule("a", [A], SNS)], True), ([rule("a", [A], ADD, SNS, STOP, S3)], True), ([rule("a", [A], SNS), rule("b", [B], SNS, SNS)], True),
    ([rule("a", [A], SNS), rule("b", [B], S3)], False), ([rule("a", [A], SNS), rule("b", [B], ADD)], False), ([rule("a", [A], STOP, SNS)], False),
    ([rule("a", [A], SNS), rule("b", [B], S3, Enabled=False)], True), ([rule("a", [A], SNS), rule("b", [B], S3, TlsPolicy="Require")], True),
    ([], False), ([rule("a", [A], SNS, BOUNCE)], False),
])
def test_rules_that_only_publish(rules: list[dict[str, Any]], certain: bool) -> None:
    assert Certain(rule_set(*rules), StopScope.RECIPIENTS).any_message_goes_to_topics_only(tls=False) is certain
