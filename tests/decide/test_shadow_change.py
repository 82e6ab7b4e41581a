"""A candidate's difference is told where there is one, and alike for all who meet the same one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from walks import ASK, MAILS, RULES, S3, STOP, A, B, C, rule, rule_set

from inbound.decide.change import Change, change
from inbound.decide.engine import Flow, Mail
from inbound.decide.routes import difference, route
from inbound.decide.rules import RuleSet

OTHER = {"S3Action": {"BucketName": "other"}}


def changed(then: RuleSet, now: RuleSet, *recipients: str, client: str = "192.0.2.1", tls: bool = False, flow: Flow | None = None) -> Change | None:
    mail = Mail(recipients, tls)
    return change(route(then, mail, client, lambda _: flow), route(now, mail, client, lambda _: flow))


def told(then: RuleSet, now: RuleSet, *recipients: str, **more: Any) -> dict[str, Any]:
    found = changed(then, now, *recipients, **more)
    assert found is not None
    return json.loads(found.told)


@given(RULES, RULES, MAILS, st.sampled_from([None, *Flow]))
def test_there_is_a_change_where_there_is_a_difference_and_it_says_something(then: RuleSet, now: RuleSet, mail: Mail, flow: Flow | None) -> None:
    routes = route(then, mail, "", lambda _: flow), route(now, mail, "", lambda _: flow)
    found = change(*routes)
    assert (found is None) == (difference(*routes) is None)
    assert found is None or any(json.loads(found.told).values())


def test_whom_the_message_is_for_makes_no_other_kind() -> None:
    then, now = rule_set(rule("r", [], S3)), rule_set(rule("r", [], OTHER))
    assert len({changed(then, now, *recipients).kind for recipients in ((A,), (B,), (A, B, C))}) == 1  # type: ignore[union-attr]
    assert told(then, now, A) == {"removed": [{"Rule": "r", "S3Action": {"BucketName": "mail"}}],
                                  "added": [{"Rule": "r", "S3Action": {"BucketName": "other"}}], "moved": [], "notes": []}


def test_a_step_for_fewer_recipients_is_the_same_step_for_others() -> None:
    then, now = rule_set(rule("r", [A, B], S3)), rule_set(rule("r", [A], S3), rule("s", [B], OTHER))
    assert told(then, now, A, B) == {"removed": [], "added": [{"Rule": "s", "S3Action": {"BucketName": "other"}}],
                                     "moved": [{"Rule": "r", "S3Action": {"BucketName": "mail"}}], "notes": []}


def test_a_recipient_that_would_be_refused_is_named_beside_the_kind() -> None:
    then, now = rule_set(rule("r", [], S3)), rule_set(rule("r", [A], S3), rule("t", [C], S3, TlsPolicy="Require"))
    found = changed(then, now, A, B, C)
    assert found is not None
    assert found.refused == (B, C)
    assert found.notes == ("a recipient is refused: no enabled rule matches it", "a recipient is refused: every rule that matches it requires TLS")
    assert B not in found.told


def test_a_recipient_that_both_refuse_is_not_new() -> None:
    """As with a message that is judged anew by other rules than those that accepted it."""
    then, now = rule_set(rule("r", [A], S3)), rule_set(rule("r", [A], OTHER))
    found = changed(then, now, A, B)
    assert found is not None
    assert (found.refused, found.notes) == ((), ())


def test_filters_scans_dispositions_and_supposed_answers_are_told() -> None:
    plain = rule_set(rule("r", [], S3))
    shut = plain.model_copy(update={"filters": RuleSet.model_validate(
        {"name": "d", "rules": [], "identities": [], "filters": [{"Name": "f", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.0/24"}}]}).filters})
    assert told(plain, shut, A)["notes"] == ["an IP filter refuses the client"]
    assert told(shut, plain, A)["notes"] == ["no IP filter refuses the client"]
    assert changed(plain, shut, A, client="") is None
    scanned = rule_set(rule("r", [], S3, ScanEnabled=True))
    assert told(plain, scanned, A)["notes"] == ["is looked through for spam and viruses"]
    assert told(scanned, plain, A)["notes"] == ["is not looked through for spam and viruses"]
    assert told(plain, rule_set(rule("r", [], S3, STOP)), A)["notes"] == ["ends STOPPED, not COMPLETED"]
    asked = rule_set(rule("r", [], S3, ASK))
    assert told(plain, asked, A)["notes"] == [f"supposes that {ASK['LambdaAction']['FunctionArn']} answers CONTINUE"]
    assert told(plain, asked, A, flow=Flow.CONTINUE)["notes"] == []
