"""Rule sets and walks through them, for the tests of the engine and of its explanation: short spellings, and strategies for hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from inbound.decide.engine import Disposition, Flow, Mail, Seen, Step, StopScope, evaluate, own_flow
from inbound.decide.rules import RuleSet

ADD = {"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": "a"}}
S3 = {"S3Action": {"BucketName": "mail"}}
ASK = {"LambdaAction": {"FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f", "InvocationType": "RequestResponse"}}
STOP = {"StopAction": {"Scope": "RuleSet"}}

A, B, C = "a@example.com", "b@example.com", "c@example.com"


def rule(name: str, recipients: Sequence[str] = (), *actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Name": name, "Recipients": list(recipients), "Actions": list(actions), **more}


def rule_set(*rules: dict[str, Any]) -> RuleSet:
    return RuleSet.model_validate({"name": "default", "rules": rules, "identities": ["example.com"]})


Told = tuple[str, int, tuple[str, ...]]


def walk(rules: RuleSet, mail: Mail, answer: Callable[[Step], Flow] = lambda step: own_flow(step.action),
         tell: Callable[[Seen], None] | None = None) -> tuple[list[Told], Disposition]:
    steps = []
    generator = evaluate(rules, mail, tell)
    try:
        step = next(generator)
        while True:
            steps.append((step.rule.Name, step.index, step.recipients))
            step = generator.send(answer(step))
    except StopIteration as end:
        return steps, end.value


def answers(*told: Flow) -> Callable[[Step], Flow]:
    flows = iter(told)
    return lambda _step: next(flows, Flow.CONTINUE)


ADDRESSES = [A, B, C, "a+x@example.com", "A@EXAMPLE.COM", "x@sub.example.com", "x@other.example"]
RECIPIENTS = st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=5)
RULES = st.lists(
    st.builds(
        lambda recipients, actions, enabled, tls: rule("r", recipients, *actions, Enabled=enabled, TlsPolicy=tls),
        st.lists(st.sampled_from([A, B, C, "a+x@example.com", "example.com", ".example.com"]), max_size=3),
        st.lists(st.sampled_from([ADD, S3, ASK, STOP]), max_size=4),
        st.sampled_from([True, True, True, False]),
        st.sampled_from(["Optional", "Optional", "Require"]),
    ),
    max_size=6,
).map(lambda rules: rule_set(*({**each, "Name": f"r{number}"} for number, each in enumerate(rules))))
MAILS = st.builds(Mail, RECIPIENTS.map(tuple), st.booleans(), st.sampled_from(StopScope))
FLOWS = st.lists(st.sampled_from(Flow), max_size=24)
