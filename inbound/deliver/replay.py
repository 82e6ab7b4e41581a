"""What other rules would have done with a message that was received: its way then and its way now, and how the two differ.

Pure. It is the engine that walks; what a function answered then, it answers now. `replay_schema` says what the JSON holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inbound.accept.spool import Entry, Outcome, StepRecord
from inbound.accept.spool.replays import runs
from inbound.decide.change import Change, change
from inbound.decide.engine import Flow, Mail, Step, StopScope
from inbound.decide.routes import Difference, Flows, Route, difference, route, step_json
from inbound.decide.rules import Lambda, RuleSet
from inbound.decide.session_bounce import Certain
from inbound.deliver.trace import ACTION, TOPIC, notifies, stamp

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """A rule set, with what is certain under it where bounces are said in the session (None: none is)."""

    rule_set: RuleSet
    certain: Certain | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One message: its way by the rules that it was judged by, and by others. `difference` is None where nothing is different.

    `not_performed` are the steps of its way then that were never done: those of a dead letter, from the one that failed.
    """

    entry: Entry
    then: Route
    now: Route
    difference: Difference | None
    not_performed: tuple[dict[str, Any], ...]

    def takes_part(self, rule: str) -> bool:
        """Does the rule of this name do something with the message, then or now?"""
        return rule in self.then.rules or rule in self.now.rules

    def to_json(self) -> dict[str, Any]:
        """As `replay_schema.Message` tells it."""
        envelope = self.entry.envelope
        return {
            "id": self.entry.id, "received": stamp(envelope.received_at), "state": str(self.entry.state), "revision": envelope.revision,
            "sender": envelope.reverse_path, "recipients": list(envelope.forward_paths),
            "then": self.then.to_json(), "now": self.now.to_json(),
            "difference": self.difference.to_json() if self.difference else None,
            "not_performed": list(self.not_performed),
        }


def compare(entry: Entry, then: Rules, now: Rules, stop_scope: StopScope = StopScope.RECIPIENTS) -> Comparison:
    """The message with its steps under `then`, the rules it was judged by, and under `now`.

    A synchronous function gives the recorded answer of the very step, else its own last answer for this message, else CONTINUE, assumed.
    Whether a bounce is suppressed is not compared: that depends on what else was sent at the time.
    """
    envelope = entry.envelope
    mail = Mail(envelope.forward_paths, envelope.tls is not None, stop_scope)
    flows = recorded(entry.steps)
    before = route(then.rule_set, mail, envelope.peer.address, flows, then.certain)
    after = route(now.rule_set, mail, envelope.peer.address, flows, now.certain)
    return Comparison(entry, before, after, difference(before, after), tuple(_not_performed(before, runs(entry.steps)[1])))


def recorded(records: Iterable[StepRecord]) -> Flows:
    """What functions answered for a message: at the very step, else the last time that this function was asked."""
    by_digest: dict[str, Flow] = {}
    by_function: dict[str, Flow] = {}
    for record in records:
        if record.part == ACTION and record.outcome is Outcome.DONE and "answer" in record.detail:
            by_digest[record.digest] = by_function[record.detail["function"]] = Flow(record.flow)

    def flow(step: Step) -> Flow | None:
        function = step.action.FunctionArn if isinstance(step.action, Lambda) else ""
        return by_digest.get(step.digest, by_function.get(function))

    return flow


def _not_performed(then: Route, records: Iterable[StepRecord]) -> Iterator[dict[str, Any]]:
    done = {(record.digest, record.part) for record in records if record.outcome is Outcome.DONE}
    for step in then.steps:
        if (step.digest, ACTION) not in done:
            yield step_json(step)
        elif (topic := notifies(step)) and (step.digest, TOPIC) not in done:
            yield {"Rule": step.rule.Name, "Recipients": list(step.recipients), "TopicArn": topic}


# --- many messages ---


@dataclass(slots=True)
class Group:
    """Messages that differ in the same way, whomever they are for."""

    change: Change
    messages: int = 0
    examples: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As `replay_schema.Group` tells it."""
        return {**self.change.to_json(), "messages": self.messages, "examples": self.examples}


class Summary:
    """What came of all the comparisons, grouped by what differs."""

    def __init__(self) -> None:
        self.judged = 0
        self.different = 0
        self._groups: dict[str, Group] = {}

    def add(self, found: Comparison) -> None:
        """Count one more message."""
        self.judged += 1
        alike = change(found.then, found.now)
        if alike is None:
            return
        self.different += 1
        group = self._groups.setdefault(alike.kind, Group(alike))
        group.messages += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(found.entry.id)

    @property
    def groups(self) -> list[Group]:
        """The groups, those of most messages first."""
        return sorted(self._groups.values(), key=lambda group: -group.messages)
