"""The trace of one message as JSON: the session it came in, its verdicts, what each rule did and why, and every attempt at every step.

Pure. The shape is what `inbound send`, `inbound queue show`, `/messages/ID` and later pages show; keys are added, never changed:
`id, state, disposition, error, waits_for, attempts, due, finished, size, revision, session, envelope, verdicts, authentication, rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from inbound.accept.spool import Entry, Outcome, State, StepRecord
from inbound.assess.verdicts import Assessment
from inbound.decide.engine import Flow, Mail, Step, StopScope, own_flow
from inbound.decide.explain import explain
from inbound.decide.rules import RuleSet


def trace(entry: Entry, rule_set: RuleSet | None, stop_scope: StopScope = StopScope.RECIPIENTS) -> dict[str, Any]:
    """The trace of `entry`, judged by `rule_set`, the revision it came under (None where the spool no longer holds it: no rules then)."""
    envelope = entry.envelope
    judged = Assessment.from_json(entry.assessment) if entry.assessment else Assessment()
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
        "session": {
            "client": envelope.peer.address, "port": envelope.peer.port, "reverse_name": envelope.peer.reverse_name or judged.client_name,
            "helo": envelope.helo,
            "esmtp": envelope.esmtp, "tls": asdict(envelope.tls) if envelope.tls else None, "connected": stamp(envelope.connected_at),
        },
        "envelope": {
            "sender": envelope.reverse_path, "recipients": list(envelope.forward_paths), "body": envelope.body,
            "parameters": list(envelope.parameters), "received": stamp(envelope.received_at),
        },
        "verdicts": {**{name: asdict(verdict) for name, verdict in judged.verdicts().items()}, "dmarc_policy": judged.dmarc_policy},
        "authentication": asdict(judged.authentication) if judged.authentication else None,
        "rules": rules(entry, rule_set, stop_scope) if rule_set else [],
    }


def rules(entry: Entry, rule_set: RuleSet, stop_scope: StopScope) -> list[dict[str, Any]]:
    """Each rule of the set in order, as `explain` tells it, with what was recorded of each of its actions."""
    recorded: dict[tuple[str, int], list[StepRecord]] = {}
    for record in entry.steps:
        recorded.setdefault((record.rule, record.index), []).append(record)

    def flow(step: Step) -> Flow:
        done = [r for r in recorded.get((step.rule.Name, step.index), ()) if r.part == "action" and r.outcome is Outcome.DONE]
        return Flow(done[-1].flow) if done else own_flow(step.action)

    mail = Mail(entry.envelope.forward_paths, entry.envelope.tls is not None, stop_scope)
    told: list[dict[str, Any]] = explain(rule_set, mail, flow).to_json()["rules"]
    for rule in told:
        for action in rule["actions"]:
            records = recorded.get((rule["name"], action["index"]), ())
            own = [record for record in records if record.part == "action"]
            action["state"] = _state(own, reached=action["flow"] is not None, entry=entry)
            action["attempts"] = [attempt(record) for record in records]
    return told


def _state(records: Sequence[StepRecord], *, reached: bool, entry: Entry) -> str:
    """`done`, `failed` (will be tried again) or `failed for good`; without a record `waiting`, or `not run` where it never will be."""
    if records:
        outcome = records[-1].outcome
        return "failed for good" if entry.state is State.DEAD and outcome is not Outcome.DONE else str(outcome)
    return "waiting" if reached and entry.state in (State.ACTIVE, State.DEFERRED) else "not run"


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
