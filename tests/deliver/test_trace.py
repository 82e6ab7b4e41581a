"""What people are told of a message is what the worker did with it, and what they are told beforehand is what it would do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worker_bench import MESSAGE, Bench

from inbound.accept.envelope import Envelope, Peer, Tls
from inbound.accept.spool import State
from inbound.assess.rendering import BytesContent
from inbound.decide.engine import Disposition, Flow, StopScope
from inbound.decide.rules import RuleSet
from inbound.decide.session_bounce import Certain
from inbound.deliver.memory import MemorySmarthost
from inbound.deliver.rehearsal import House, rehearse
from inbound.deliver.retry import Schedule
from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown, SinkFailure
from inbound.deliver.trace import trace
from inbound.deliver.trace_schema import schema
from inbound.deliver.work import Identity
from inbound.deliver.worker import Terms

TOPICS = [f"arn:aws:sns:us-east-1:000000000000:t{number}" for number in range(2)]
FUNCTIONS = [f"arn:aws:lambda:us-east-1:000000000000:function:f{number}" for number in range(2)]
SMARTHOST = "smtp:mail.test:25"
SINKS = ["s3:mail", *(f"sns:{topic}" for topic in TOPICS), *(f"lambda:{function}" for function in FUNCTIONS), SMARTHOST]
ADDRESSES = ["a@example.com", "b@example.com", "a+x@example.com", "c@sub.example.com", "A@EXAMPLE.COM"]
LONG = MESSAGE + b"long line\r\n" * 14_000

topics = st.sampled_from([{}, {"TopicArn": TOPICS[0]}, {"TopicArn": TOPICS[1]}])
actions = st.one_of(
    topics.map(lambda more: {"S3Action": {"BucketName": "mail", **more}}),
    st.sampled_from(TOPICS).map(lambda topic: {"SNSAction": {"TopicArn": topic}}),
    st.builds(lambda function, kind, more: {"LambdaAction": {"FunctionArn": function, "InvocationType": kind, **more}},
              st.sampled_from(FUNCTIONS), st.sampled_from(["RequestResponse", "Event"]), topics),
    topics.map(lambda more: {"BounceAction": {"SmtpReplyCode": "550", "Message": "gone", "Sender": "postmaster@example.com", **more}}),
    st.just({"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": "a"}}),
    topics.map(lambda more: {"StopAction": {"Scope": "RuleSet", **more}}),
)
rules = st.lists(
    st.fixed_dictionaries({
        "Recipients": st.sampled_from([[], ["example.com"], ["a@example.com"], ["b@example.com", ".example.com"], ["a+x@example.com"]]),
        "Actions": st.lists(actions, min_size=1, max_size=3),
        "Enabled": st.sampled_from([True, True, True, False]),
        "TlsPolicy": st.sampled_from(["Optional", "Optional", "Optional", "Require"]),
    }), min_size=1, max_size=5,
).map(lambda made: RuleSet.model_validate({"name": "default", "identities": ["example.com"],
                                           "rules": [{"Name": f"r{number}", **each} for number, each in enumerate(made)]}))
recipients = st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4).map(tuple)
contents = st.sampled_from([MESSAGE, MESSAGE, MESSAGE, LONG])
encrypted = st.sampled_from([None, Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")])
failures = st.sampled_from([SinkDown("refused"), MessageFailed("boom"), SinkDown("timed out"), MessageFailed("error"), MessageRefused("too large")])
faults = st.dictionaries(st.sampled_from(SINKS), st.lists(failures, max_size=3), max_size=2)
flows = st.fixed_dictionaries({function: st.sampled_from(["STOP_RULE", "STOP_RULE_SET", "CONTINUE"]).map(Flow) for function in FUNCTIONS})
scopes = st.sampled_from(StopScope)
SHAPE = jsonschema.Draft202012Validator(schema())
SLOW = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


class Smarthost(MemorySmarthost):
    """Tells its calls where those to AWS are told."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__(SMARTHOST)
        self._calls = calls

    async def send(self, message: bytes, recipient: str, *, name: str, smtputf8: bool) -> str:
        self._calls.append(SMARTHOST)
        return await super().send(message, recipient, name=name, smtputf8=smtputf8)


class Watched(Bench):
    """A bench whose sinks fail so often at first, and whose functions answer so."""

    def __init__(self, rule_set: RuleSet, troubles: dict[str, list[SinkFailure]], answers: dict[str, Flow], scope: StopScope) -> None:
        smarthost = Smarthost([])
        super().__init__(smarthost=smarthost, stop_scope=scope)
        self.rules = rule_set
        smarthost._calls = self.aws.calls
        for sink, told in troubles.items():
            if sink == SMARTHOST:
                smarthost.faults = list(told)
            else:
                self.aws.faults[sink] = [*told]
        self.aws.answers = {function: lambda _, flow=flow: json.dumps({"disposition": flow}).encode() for function, flow in answers.items()}

    async def receive(self, envelope: Envelope, content: bytes) -> None:
        draft = self.spool.draft(envelope.message_id)
        draft.add(content)
        self.worker.take(await self.spool.put(envelope, draft))
        await self.worker.idle()


def envelope(rule_set: RuleSet, to: tuple[str, ...], tls: Tls | None) -> Envelope:
    return Envelope("0" * 40, Peer("192.0.2.1"), "client.test", "a@example.net", to, 1_000_000.0, revision=rule_set.revision, tls=tls)


def actions_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [action for rule in told["rules"] for action in rule["actions"]]


def attempts_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [attempt for action in actions_of(told) for attempt in action["attempts"]]


def agrees(told: dict[str, Any], bench: Watched) -> None:
    """The trace tells each call to a sink, in its order, and to whom the message was told to go; nothing else, and nothing less."""
    SHAPE.validate(told)
    assert told["unexplained"] == []
    assert [attempt["sink"] for attempt in attempts_of(told) if attempt["sink"]] == bench.aws.calls
    heard = [json.loads(text)["receipt"]["recipients"] for _, _, text in bench.aws.published]
    published = [action["recipients"] for action in actions_of(told) for attempt in action["attempts"]
                 if attempt["sink"].startswith("sns:") and attempt["outcome"] == "done"]
    assert published == heard
    invoked = [action["recipients"] for action in actions_of(told) for attempt in action["attempts"]
               if attempt["sink"].startswith("lambda:") and attempt["outcome"] == "done"]
    assert invoked == [json.loads(event)["Records"][0]["ses"]["receipt"]["recipients"] for _, event, _ in bench.aws.invocations]
    states = [state for action in actions_of(told) for state in (action["state"], (action["topic"] or {"state": "not run"})["state"])]
    settled = [state for state in states if state != "not run"]
    for action in actions_of(told):
        answered = [attempt["flow"] for attempt in action["attempts"] if attempt["part"] == "action" and attempt["outcome"] == "done"]
        assert (action["state"] == "done") == bool(answered)
        assert not answered or action["flow"] == answered[-1]
    match told["state"]:
        case "done":
            assert set(settled) <= {"done"}
            assert all((action["state"] == "done") == bool(action["recipients"]) for action in actions_of(told))
        case "dead":
            assert settled[-1:] == ["failed for good"]
            assert set(settled[:-1]) <= {"done"}
        case "deferred":
            undone = settled[len([state for state in settled if state == "done"]):]
            assert undone[0] == "failed"
            assert set(undone[1:]) <= {"waiting"}


@SLOW
@given(rules, recipients, contents, encrypted, faults, flows, scopes)
def test_the_trace_tells_what_the_worker_did(rule_set: RuleSet, to: tuple[str, ...], content: bytes, tls: Tls | None,
                                             troubles: dict[str, list[SinkFailure]], answers: dict[str, Flow], scope: StopScope) -> None:
    """At every stop on its way: after each failure, as a dead letter, when it is done."""
    async def go() -> None:
        async with Watched(rule_set, troubles, answers, scope) as bench:
            await bench.receive(envelope(rule_set, to, tls), content)
            for _ in range(40):
                entry = await bench.entry("0" * 40)
                agrees(trace(entry, rule_set, scope), bench)
                if entry.state is not State.DEFERRED:
                    return
                await bench.later(900)
            raise AssertionError("it is not done after 40 rounds")

    asyncio.run(go())


@SLOW
@given(rules, recipients, contents, encrypted, flows, scopes, st.booleans())
def test_what_is_told_beforehand_is_what_the_worker_does(rule_set: RuleSet, to: tuple[str, ...], content: bytes, tls: Tls | None,
                                                         answers: dict[str, Flow], scope: StopScope, in_session: bool) -> None:
    async def go() -> None:
        terms = Terms(Identity("mx.test", "mx.test"), Schedule(), scope)
        certain = Certain(rule_set, scope) if in_session else None
        told = await rehearse(rule_set, envelope(rule_set, to, tls), BytesContent(content), House(terms, certain=certain, answers=answers))
        SHAPE.validate(told)
        if told["refused"]:
            assert all(action["state"] == "not run" and not action["attempts"] for action in actions_of(told))
            return
        accepted = tuple(told["envelope"]["recipients"])
        async with Watched(rule_set, {}, answers, scope) as bench:
            await bench.receive(envelope(rule_set, accepted, tls), content)
            did = trace(await bench.entry("0" * 40), rule_set, scope)
        assert did["state"] == "done"
        for mine, its in zip(actions_of(told), actions_of(did), strict=True):
            assert (mine["action"], mine["recipients"], mine["flow"]) == (its["action"], its["recipients"], its["flow"])
            assert (mine["state"], its["state"]) in (("supposed", "done"), ("not run", "not run"))
            assert not mine["assumed"]
            detail = [{key: value for key, value in each["detail"].items() if key not in ("messageId", "reply", "answer", "status")}
                      for each in its["attempts"]]
            assert [each["detail"] for each in mine["attempts"]] == detail
        assert [(rule["name"], rule["reason"], rule["why"]) for rule in told["rules"]] == [
            (rule["name"], rule["reason"], rule["why"]) for rule in did["rules"]]
        assert told["disposition"] == did["disposition"]

    asyncio.run(go())


CLIENTS = st.sampled_from(["", "192.0.2.1", "::ffff:192.0.2.1"])
STRANGE = st.one_of(st.text(max_size=40), st.sampled_from([
    "a@example.com", '"a b"@example.com', "postmaster", "a@[192.0.2.1]", "\udcff@example.com",
]))


@SLOW
@given(rules, st.lists(STRANGE, min_size=1, max_size=4).map(tuple), STRANGE, st.binary(max_size=200), CLIENTS)
def test_whatever_is_supposed_is_told(rule_set: RuleSet, to: tuple[str, ...], sender: str, content: bytes, ip: str) -> None:
    """No address and no content makes it fail; what is refused runs no rule."""
    async def go() -> None:
        supposed = replace(envelope(rule_set, to, None), reverse_path=sender, peer=Peer(ip))
        told = await rehearse(rule_set, supposed, BytesContent(content), HOUSE)
        SHAPE.validate(json.loads(json.dumps(told)))
        assert len(told["recipients"]) == len(to)
        assert bool(told["refused"]) >= (not told["envelope"]["recipients"])

    asyncio.run(go())


def rule_set(*made: dict[str, Any]) -> RuleSet:
    return RuleSet.model_validate({"name": "default", "identities": ["example.com"], "rules": made})


GONE = {"Name": "gone", "Recipients": ["gone@example.com"], "Actions": [
    {"BounceAction": {"SmtpReplyCode": "550", "StatusCode": "5.1.1", "Message": "gone", "Sender": "p@example.com"}},
    {"StopAction": {"Scope": "RuleSet"}}]}
ASK = {"Name": "ask", "Recipients": ["a@example.com"], "Actions": [
    {"LambdaAction": {"FunctionArn": FUNCTIONS[0], "InvocationType": "RequestResponse"}}]}
HOUSE = House(Terms(Identity("mx.test", "mx.test"), Schedule()))


async def rehearsed(made: RuleSet, *to: str, content: bytes = MESSAGE, tls: Tls | None = None, **more: Any) -> dict[str, Any]:
    house = House(HOUSE.terms, **more)
    return await rehearse(made, envelope(made, to, tls), BytesContent(content), house)


async def test_a_recipient_that_a_rule_bounces_is_shown_with_the_reply_of_the_session() -> None:
    """It was told as accepted, though the session refuses it."""
    made = rule_set(GONE, {"Name": "all", "Actions": [{"S3Action": {"BucketName": "mail"}}]})
    told = await rehearsed(made, "gone@example.com", "a@example.com", certain=Certain(made, StopScope.RECIPIENTS))
    assert told["recipients"] == [
        {"recipient": "gone@example.com", "acceptance": "bounce", "reply": "550 5.1.1 gone",
         "why": "nothing comes of it but the bounce of gone (action 1)"},
        {"recipient": "a@example.com", "acceptance": "accept", "reply": "250 2.1.5 Recipient OK", "why": ""},
    ]
    assert told["envelope"]["recipients"] == ["a@example.com"]
    told = await rehearsed(made, "gone@example.com")
    assert told["recipients"][0]["acceptance"] == "accept"
    assert told["rules"][0]["actions"][0]["attempts"][0]["detail"] == {"to": "a@example.net", "bounce": "550 5.1.1 gone"}


@pytest.mark.parametrize(("to", "acceptance", "reply", "why"), [
    ("x@other.example", "no rule", "550 5.1.1 ", "no rule matches it"),
    ("off@example.com", "no rule", "550 5.1.1 ", "only disabled rules match it: off"),
    ("secret@example.com", "TLS required", "530 5.7.0 ", "every enabled rule that matches it requires TLS: secret"),
    ("not an address", "refused", "501 5.1.3 ", "Bad recipient address syntax; expected RCPT TO:<address>"),
    ("jörg@example.com", "refused", "553 5.6.7 ", "Non-ASCII address without SMTPUTF8"),
])
async def test_why_a_recipient_is_refused(to: str, acceptance: str, reply: str, why: str) -> None:
    store = [{"S3Action": {"BucketName": "mail"}}]
    made = rule_set({"Name": "off", "Enabled": False, "Recipients": ["off@example.com"], "Actions": store},
                    {"Name": "secret", "TlsPolicy": "Require", "Recipients": ["secret@example.com"], "Actions": store})
    told = await rehearsed(made, to)
    (recipient,) = told["recipients"]
    assert (recipient["acceptance"], recipient["why"]) == (acceptance, why)
    assert recipient["reply"].startswith(reply)
    assert told["refused"] == {"command": "RCPT", "reply": "554 5.5.1 No valid recipients"}


async def test_postmaster_without_a_domain_is_the_one_of_the_first_identity() -> None:
    told = await rehearsed(rule_set({"Name": "all", "Actions": [{"S3Action": {"BucketName": "mail"}}]}), "postmaster")
    assert told["envelope"]["recipients"] == ["postmaster@example.com"]


async def test_a_functions_answer_is_assumed_unless_it_is_given() -> None:
    made = rule_set(ASK, {"Name": "all", "Actions": [{"S3Action": {"BucketName": "mail"}}]})
    told = await rehearsed(made, "a@example.com")
    assert [(action["flow"], action["assumed"], action["state"]) for action in actions_of(told)] == [
        ("CONTINUE", True, "supposed"), ("CONTINUE", False, "supposed")]
    told = await rehearsed(made, "a@example.com", answers={FUNCTIONS[0]: Flow.STOP_RULE_SET})
    assert [(action["flow"], action["assumed"], action["state"]) for action in actions_of(told)] == [
        ("STOP_RULE_SET", False, "supposed"), (None, False, "not run")]
    assert told["disposition"] == Disposition.STOPPED


async def test_a_message_refused_at_connect_or_after_data_runs_no_rule() -> None:
    block = {"Name": "block", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.0/24"}}
    store = {"Name": "all", "Actions": [{"S3Action": {"BucketName": "mail"}}]}
    blocked = RuleSet.model_validate({"name": "default", "identities": ["example.com"], "rules": [store], "filters": [block]})
    told = await rehearsed(blocked, "a@example.com")
    assert told["refused"] == {"command": "connect", "reply": "554 5.7.1 192.0.2.1 blocked"}
    told = await rehearsed(rule_set(store), "a@example.com", content=b"Received: x\r\n" * 60 + MESSAGE)
    assert told["refused"] == {"command": "DATA", "reply": "554 5.4.6 Too many hops, this looks like a mail loop"}
    assert [rule["reason"] for rule in told["rules"]] == ["matched"]
    assert [action["state"] for action in actions_of(told)] == ["not run"]


async def test_a_revision_that_is_missing_reads_well() -> None:
    """It was told as an internal error: LookupError."""
    async with Bench({"Name": "all", "Recipients": ["example.com"], "Actions": [{"S3Action": {"BucketName": "mail"}}]}) as bench:
        bench.aws.faults["s3:mail"] = [SinkDown("refused")]
        message = await bench.send()
        bench.spool._store.revisions.clear()
        await bench.crash()
        await bench.later(60)
        entry = await bench.entry(message)
        assert entry.error == (
            f"the spool does not hold revision {bench.rules.revision} of the rules, by which it is to be judged; "
            f"to judge it by the rules as they are: inbound queue retry {message} --current-rules")
        told = trace(entry, None)
        SHAPE.validate(told)
        assert (told["rules_known"], told["rules"]) == (False, [])
        recorded = [(each["rule"], each["action"], each["outcome"], each["error"]) for each in told["unexplained"]]
        assert recorded == [("all", "S3", "failed", "refused")]
        await bench.spool.keep_revision(bench.rules.revision, "{}")
        await bench.later(900)
        assert (await bench.entry(message)).error.startswith("the spool holds in another version's form revision ")


async def test_records_of_other_rules_are_told_apart() -> None:
    one = {"Name": "all", "Recipients": ["example.com"], "Actions": [{"S3Action": {"BucketName": "mail"}}]}
    async with Bench(one) as bench:
        entry = await bench.entry(await bench.send())
        other = rule_set({**one, "Actions": [{"S3Action": {"BucketName": "other"}}]})
        told = trace(entry, other)
        assert [each["detail"]["bucket"] for each in told["unexplained"]] == ["mail"]
        assert actions_of(told)[0]["attempts"] == []


def test_the_schema_names_and_describes_every_key() -> None:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    assert set(made["required"]) == set(made["properties"])
    assert all(part["description"] for part in made["$defs"].values())
