"""Rules against what SES did: is the action that SES tells of, or the object that it stored, what the rules come to for this message?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inbound.decide.engine import Mail, Step, evaluate, own_flow
from inbound.decide.rules import S3, AddHeader, Connect, RuleSet
from inbound.deliver.notification import action_object
from inbound.operate.proof.difference import Tally
from inbound.operate.proof.stored import Stored
from inbound.operate.proof.told import Told


def steps(rule_set: RuleSet, recipients: Sequence[str]) -> list[Step]:
    """What the rules do for these recipients, over TLS; a synchronous function is taken to answer CONTINUE."""
    found: list[Step] = []
    engine = evaluate(rule_set, Mail(tuple(recipients), tls=True))
    try:
        step = next(engine)
        while True:
            found.append(step)
            step = engine.send(own_flow(step.action))
    except StopIteration:
        return found


def compare_told(tally: Tally, rule_set: RuleSet, told: Told) -> None:
    """Count whether a step of the rules is the action that SES tells of, for the recipients that it tells of."""
    theirs = {**told.action, "recipients": list(told.recipients)}
    found = [_seen(step, told.message_id) for step in steps(rule_set, told.recipients)
             if not isinstance(step.action, AddHeader | Connect)]
    near = next((each for each in found if each.get("type") == theirs.get("type")), found)
    tally.compare("rules: action", theirs, theirs if theirs in found else near, "the rules do something else for these recipients")


def _seen(step: Step, message_id: str) -> dict[str, Any]:
    return {**action_object(step.action, message_id=message_id), "recipients": list(step.recipients)}


def compare_key(tally: Tally, rule_set: RuleSet, stored: Stored, key: str) -> None:
    """Count whether the rules store the message where SES stored it; `key` is as much of it as is known."""
    found = [step.action.key(stored.id) for step in steps(rule_set, stored.envelope.forward_paths) if isinstance(step.action, S3)]
    ours = next((each for each in found if each == key or key.endswith(f"/{each}")), None)
    tally.compare("rules: object key", key, key if ours else found, "the rules store it elsewhere, or not at all")
