"""The trace of one message as JSON: the session it came in, its verdicts, what each rule did and why, and every attempt at every step.

Pure. What the document holds is said by `trace_schema`; `explain`, `send`, `queue show`, `/messages/ID` and later pages show it unchanged,
and later versions only add keys to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from inbound.accept import reply
from inbound.accept.spool import Entry, Outcome, State, StepRecord
from inbound.accept.spool.replays import Run, runs
from inbound.assess.verdicts import Assessment
from inbound.decide.engine import Flow, Mail, Step, StopScope, own_flow
from inbound.decide.explain import explain
from inbound.decide.routes import asks
from inbound.decide.rules import RuleSet, Sns

ACTION = "action"
TOPIC = "topic"
NOT_RUN = "not run"


def trace(entry: Entry, rule_set: RuleSet | None, stop_scope: StopScope = StopScope.RECIPIENTS) -> dict[str, Any]:
    """The trace of `entry`, judged by `rule_set`, the revision it came under (None where the spool no longer holds it: no rules then)."""
    envelope = entry.envelope
    judged = Assessment.from_json(entry.assessment) if entry.assessment else Assessment()
    earlier, present = runs(entry.steps)
    told, unexplained = _rules(entry, present, rule_set, stop_scope) if rule_set else ([], list(present))
    return {
        "id": entry.id,
        "state": str(entry.state),
        "disposition": entry.disposition,
        "error": entry.error,
        "waits_for": entry.sink,
        "attempts": entry.attempts,
        "due": stamp(entry.due) if entry.state is State.DEFERRED else None,
        "finished": stamp(entry.finished) if entry.finished else None,
        "size": entry.size,
        "revision": envelope.revision,
        "rules_known": rule_set is not None,
        "rule_set": rule_set.name if rule_set else None,
        "stop_scope": str(stop_scope),
        "session": {
            "client": envelope.peer.address, "port": envelope.peer.port or None, "reverse_name": envelope.peer.reverse_name or judged.client_name,
            "helo": envelope.helo,
            "esmtp": envelope.esmtp, "tls": asdict(envelope.tls) if envelope.tls else None,
            "connected": stamp(envelope.connected_at) if envelope.connected_at else None,
        },
        "envelope": {
            "sender": envelope.reverse_path, "recipients": list(envelope.forward_paths), "body": envelope.body,
            "parameters": list(envelope.parameters), "received": stamp(envelope.received_at),
        },
        "recipients": [{"recipient": each, "acceptance": "accept", "reply": str(reply.RCPT_OK), "why": ""} for each in envelope.forward_paths],
        "refused": None,
        "verdicts": {**{name: asdict(verdict) for name, verdict in judged.verdicts().items()}, "dmarc_policy": judged.dmarc_policy},
        "authentication": asdict(judged.authentication) if judged.authentication else None,
        "rules": told,
        "unexplained": [_of_rule(record) for record in unexplained],
        "replay": stamp(earlier[-1].replayed) if earlier else None,
        "earlier": [_earlier(run) for run in earlier],
    }


def _earlier(run: Run) -> dict[str, Any]:
    return {
        "revision": run.revision, "state": run.state, "disposition": run.disposition, "error": run.error,
        "finished": stamp(run.finished) if run.finished else None, "replayed": stamp(run.replayed),
        "attempts": [_of_rule(step) for step in run.steps],
    }


def _of_rule(record: StepRecord) -> dict[str, Any]:
    return {"rule": record.rule, "index": record.index, "action": record.detail.get("action", ""), **attempt(record)}


def _rules(entry: Entry, present: Sequence[StepRecord], rule_set: RuleSet, stop_scope: StopScope) -> tuple[list[dict[str, Any]], list[StepRecord]]:
    """Each rule of the set in order, as `explain` tells it, with what was recorded of each of its actions; and the records of no such step."""
    recorded: dict[tuple[str, int], list[StepRecord]] = {}
    for record in present:
        recorded.setdefault((record.rule, record.index), []).append(record)
    reached: dict[tuple[str, int], Step] = {}

    def records(step: Step) -> list[StepRecord]:
        return [record for record in recorded.get((step.rule.Name, step.index), ()) if record.digest == step.digest]

    def flow(step: Step) -> Flow:
        reached[step.rule.Name, step.index] = step
        done = [r for r in records(step) if r.part == ACTION and r.outcome is Outcome.DONE]
        return Flow(done[-1].flow) if done else own_flow(step.action)

    mail = Mail(entry.envelope.forward_paths, entry.envelope.tls is not None, stop_scope)
    told: list[dict[str, Any]] = explain(rule_set, mail, flow).to_json()["rules"]
    explained: set[int] = set()
    for rule in told:
        for action in rule["actions"]:
            step = reached.get((rule["name"], action["index"]))
            found = records(step) if step else []
            explained.update(map(id, found))
            action.update(_recorded(step, found, entry.state))
            action["flow"] = None if action["state"] == NOT_RUN else action["flow"]
    return told, [record for record in present if id(record) not in explained]


def _recorded(step: Step | None, records: Sequence[StepRecord], state: State) -> dict[str, Any]:
    """What was recorded of one action, and of its notification; `step` is None for an action that the walk does not reach."""
    own = [record for record in records if record.part == ACTION]
    state_of_it = _state(own, reached=step is not None, state=state)
    topic = notifies(step) if step else None
    notification = None
    if topic is not None:
        of_topic = [record for record in records if record.part == TOPIC]
        notification = {"arn": topic, "state": _state(of_topic, reached=True, state=state)}
    return {
        "assumed": step is not None and asks(step) and state_of_it != str(Outcome.DONE),
        "state": state_of_it,
        "topic": notification,
        "attempts": [attempt(record) for record in records],
    }


def notifies(step: Step) -> str | None:
    """The topic that hears, in a part of its own, that the action was done. What an SNSAction publishes is its action."""
    return None if isinstance(step.action, Sns) else step.action.TopicArn


def _state(records: Sequence[StepRecord], *, reached: bool, state: State) -> str:
    """`done`, `failed` (will be tried again) or `failed for good`; without a record `waiting`, or `not run` where it never will be."""
    if records:
        outcome = records[-1].outcome
        return "failed for good" if state is State.DEAD and outcome is not Outcome.DONE else str(outcome)
    return "waiting" if reached and state in (State.ACTIVE, State.DEFERRED) else NOT_RUN


def attempt(record: StepRecord) -> dict[str, Any]:
    """One attempt: `part` is `action`, or `topic` for its notification. `detail` of a bounce: `to`, `bounce` (code, status, text), then
    `messageId` and `reply`, or `suppressed` or `refused` with the reason; with `unfit`, why the action's own sink could not take the message.
    """
    return {
        "part": record.part, "attempt": record.attempt, "started": stamp(record.started), "milliseconds": record.milliseconds,
        "outcome": str(record.outcome), "flow": record.flow, "sink": record.sink, "error": record.error,
        "detail": {key: value for key, value in record.detail.items() if key != "action"},
    }


def stamp(seconds: float) -> str:
    """RFC 3339, UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
