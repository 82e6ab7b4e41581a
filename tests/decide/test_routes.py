"""A route is the engine's walk, and two routes differ exactly where their walks do."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from walks import ADD, ASK, FLOWS, MAILS, RULES, S3, STOP, A, B, answers, rule, rule_set, walk

from inbound.decide.engine import Acceptance, Disposition, Flow, Mail, StopScope
from inbound.decide.routes import Route, asks, difference, route
from inbound.decide.rules import RuleSet
from inbound.decide.session_bounce import Certain

ARN = ASK["LambdaAction"]["FunctionArn"]
BOUNCE = {"BounceAction": {"SmtpReplyCode": "550", "StatusCode": "5.1.1", "Message": "No such mailbox", "Sender": "postmaster@example.com"}}
OTHER = {"S3Action": {"BucketName": "archive"}}


def of(rules: RuleSet, mail: Mail, flow: Flow | None = None, client: str = "", certain: Certain | None = None) -> Route:
    return route(rules, mail, client, lambda _step: flow, certain)


def told(then: Route, now: Route) -> dict[str, Any]:
    found = difference(then, now)
    assert found is not None
    return found.to_json()


def names(steps: list[dict[str, Any]]) -> list[str]:
    return [f"{step['Rule']} {next(key for key in step if key.endswith('Action'))}" for step in steps]


@given(RULES, MAILS, FLOWS)
def test_a_route_is_the_walk_of_the_engine(rules: RuleSet, mail: Mail, flows: list[Flow]) -> None:
    """Asked functions answer as they are told to, all else flows as it does by itself."""
    answer = answers(*flows)
    given_flows: list[Flow] = []

    def flow(step: Any) -> Flow:
        given_flows.append(answer(step))
        return given_flows[-1]

    found = route(rules, mail, "", flow)
    replayed = iter(given_flows)
    steps, disposition = walk(rules, mail, lambda step: next(replayed) if asks(step) else Flow.STOP_RULE_SET if step.action.kind == "Stop" else
                              Flow.CONTINUE)
    assert [(step.rule.Name, step.index, step.recipients) for step in found.steps] == steps
    assert found.disposition is disposition
    assert not found.assumed


@given(RULES, RULES, MAILS, st.sampled_from([None, *Flow]))
def test_no_difference_is_told_of_equal_routes_only(one: RuleSet, other: RuleSet, mail: Mail, flow: Flow | None) -> None:
    """A difference is told exactly where a step, its recipients, its order, the disposition, a refusal or a scan is another; with words for it."""
    then, now = of(one, mail, flow), of(other, mail, flow)
    found = difference(then, now)
    assert (found is None) == (then.sign == now.sign)
    assert found is None or found.removed or found.added or found.notes
    assert difference(then, then) is None


@given(RULES, RULES, MAILS)
def test_a_difference_undoes_itself_the_other_way_round(one: RuleSet, other: RuleSet, mail: Mail) -> None:
    """What is added one way is removed the other way, as often."""
    forth, back = difference(of(one, mail), of(other, mail)), difference(of(other, mail), of(one, mail))
    assert (forth is None) == (back is None)
    if forth and back:
        assert len(forth.added) - len(forth.removed) == len(back.removed) - len(back.added)


def test_the_steps_that_come_and_go_are_told_with_their_parameters_and_recipients() -> None:
    mail = Mail((A, B))
    before, after = rule_set(rule("a", [A], S3), rule("all", [], ADD)), rule_set(rule("a", [A], OTHER), rule("all", [], ADD, S3))
    assert told(of(before, mail), of(after, mail)) == {
        "removed": [{"Rule": "a", "Recipients": [A], "S3Action": {"BucketName": "mail"}}],
        "added": [{"Rule": "a", "Recipients": [A], "S3Action": {"BucketName": "archive"}},
                  {"Rule": "all", "Recipients": [A, B], "S3Action": {"BucketName": "mail"}}],
        "notes": [],
    }


def test_an_action_put_first_is_all_that_is_told() -> None:
    """The others move one place on, and do what they did."""
    found = told(of(rule_set(rule("a", [A], S3)), Mail((A,))), of(rule_set(rule("a", [A], ADD, S3)), Mail((A,))))
    assert (names(found["removed"]), names(found["added"])) == ([], ["a AddHeaderAction"])


def test_a_stop_ends_the_message_otherwise() -> None:
    found = told(of(rule_set(rule("a", [A], S3)), Mail((A,))), of(rule_set(rule("a", [A], S3, STOP)), Mail((A,))))
    assert (names(found["added"]), found["notes"]) == (["a StopAction"], ["ends STOPPED, not COMPLETED"])


def test_an_unknown_answer_is_continue_and_is_named() -> None:
    rules = rule_set(rule("ask", [A], ASK, S3))
    found = of(rules, Mail((A,)))
    assert (found.assumed, found.rules, found.disposition) == ((ARN,), ("ask",), Disposition.COMPLETED)
    assert not of(rules, Mail((A,)), Flow.CONTINUE).assumed
    assert [step.action.kind for step in of(rules, Mail((A,)), Flow.STOP_RULE).steps] == ["Lambda"]


def test_an_assumed_answer_makes_no_difference_by_itself() -> None:
    rules = rule_set(rule("ask", [A], ASK))
    assert difference(of(rules, Mail((A,)), Flow.CONTINUE), of(rules, Mail((A,)))) is None


def test_a_refusal_at_rcpt_is_told_with_its_reason() -> None:
    mail = Mail((A, B))
    then = of(rule_set(rule("a", [], S3)), mail)
    gone = told(then, of(rule_set(rule("a", [A], S3)), mail))
    assert gone["notes"] == ["b@example.com is refused: no enabled rule matches it"]
    secret = told(then, of(rule_set(rule("a", [], S3, TlsPolicy="Require")), mail))
    assert "a@example.com is refused: every rule that matches it requires TLS" in secret["notes"]
    assert told(of(rule_set(rule("a", [A], S3)), mail), then)["notes"] == ["b@example.com is not refused"]


def test_a_bounce_that_the_session_says_is_a_refusal_only_where_it_says_any() -> None:
    rules, mail = rule_set(rule("a", [A], BOUNCE)), Mail((A,))
    assert of(rules, mail).refused == ()
    assert of(rules, mail, certain=Certain(rules, StopScope.RECIPIENTS)).refused == ((A, Acceptance.BOUNCE),)


def test_an_ip_filter_shuts_a_known_client_out() -> None:
    filtered = RuleSet.model_validate({
        "name": "default", "identities": ["example.com"], "rules": [rule("a", [A], S3)],
        "filters": [{"Name": "no", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.0/24"}}],
    })
    then = of(rule_set(rule("a", [A], S3)), Mail((A,)), client="192.0.2.1")
    assert told(then, of(filtered, Mail((A,)), client="192.0.2.1"))["notes"] == ["an IP filter refuses the client"]
    assert told(of(filtered, Mail((A,)), client="192.0.2.1"), then)["notes"] == ["no IP filter refuses the client"]
    assert not of(filtered, Mail((A,))).shut, "a client that nobody knows is not refused"


def test_a_scan_more_or_less_is_told() -> None:
    scanned, plain = rule_set(rule("a", [A], S3, ScanEnabled=True)), rule_set(rule("a", [A], S3))
    found = told(of(plain, Mail((A,))), of(scanned, Mail((A,))))
    assert "is looked through for spam and viruses" in found["notes"]


def test_its_json_names_rules_steps_and_refusals() -> None:
    assert of(rule_set(rule("ask", [A], ASK)), Mail((A, B))).to_json() == {
        "rules": ["ask"],
        "steps": [{"Rule": "ask", "Recipients": [A], "LambdaAction": {"FunctionArn": ARN, "InvocationType": "RequestResponse"}}],
        "disposition": "COMPLETED",
        "refused": [{"recipient": B, "acceptance": "no rule"}],
        "shut": False, "scans": False, "assumed": [ARN],
    }
