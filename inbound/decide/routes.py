"""The way a message goes through a rule set, short enough to be compared: the steps in order, and what is refused before any of them.

It is the engine's walk and the session's answers, without a word of why; `explain` has those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from inbound.decide.cases import TYPES, parameters
from inbound.decide.engine import Acceptance, Disposition, Flow, Mail, Step, evaluate, own_flow, scan_wanted, unique
from inbound.decide.rules import Lambda, RuleSet
from inbound.decide.session_bounce import Certain, answer

Flows = Callable[[Step], Flow | None]
"""What came of a step, as far as that is known; None where somebody would have to be asked."""


@dataclass(frozen=True, slots=True)
class Route:
    """The steps of a message in order, and how the walk ends. `assumed` are the functions whose answer CONTINUE is only supposed.

    `refused` are the recipients that the session would refuse, each with why; `shut` says that an IP filter would not let the client in.
    A route with refusals is that of the whole message all the same: it was accepted. `scans` says whether a rule wants it scanned.
    """

    steps: tuple[Step, ...]
    disposition: Disposition
    assumed: tuple[str, ...] = ()
    refused: tuple[tuple[str, Acceptance], ...] = ()
    shut: bool = False
    scans: bool = False

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that do something, in their order."""
        return tuple(dict.fromkeys(step.rule.Name for step in self.steps))

    @property
    def sign(self) -> tuple[Any, ...]:
        """Equal for routes that are the same."""
        return tuple(step.digest for step in self.steps), self.disposition, self.refused, self.shut, self.scans

    def to_json(self) -> dict[str, Any]:
        """As `replay_schema.Route` tells it."""
        return {
            "rules": list(self.rules), "steps": [step_json(step) for step in self.steps], "disposition": str(self.disposition),
            "refused": [{"recipient": recipient, "acceptance": str(why)} for recipient, why in self.refused],
            "shut": self.shut, "scans": self.scans, "assumed": list(self.assumed),
        }


def route(rule_set: RuleSet, mail: Mail, client: str, flows: Flows, certain: Certain | None = None) -> Route:
    """The way of `mail` from a client with this address (empty: not known). `certain`: see `session_bounce`; None: no bounce is said there."""
    steps: list[Step] = []
    assumed: dict[str, None] = {}
    walk = evaluate(rule_set, mail)
    try:
        step = next(walk)
        while True:
            steps.append(step)
            flow = flows(step) if asks(step) else own_flow(step.action)
            if flow is None and isinstance(step.action, Lambda):
                assumed[step.action.FunctionArn] = None
            step = walk.send(flow or Flow.CONTINUE)
    except StopIteration as end:
        disposition: Disposition = end.value
    answers = ((recipient, answer(rule_set, recipient, tls=mail.tls, certain=certain).acceptance) for recipient in unique(mail.recipients))
    refused = tuple((recipient, said) for recipient, said in answers if said is not Acceptance.ACCEPT)
    return Route(tuple(steps), disposition, tuple(assumed), refused, bool(client) and not rule_set.admits(client), scan_wanted(rule_set, mail))


def asks(step: Step) -> bool:
    """Does the flow of this step depend on what somebody answers?"""
    return isinstance(step.action, Lambda) and step.action.InvocationType == "RequestResponse"


def step_json(step: Step) -> dict[str, Any]:
    """A step in the words of a case file: its rule, whom it is for, and its parameters under SES's name for its type."""
    key, _ = TYPES[step.action.kind]
    return {"Rule": step.rule.Name, "Recipients": list(step.recipients), key: parameters(step.action)}


@dataclass(frozen=True, slots=True)
class Difference:
    """What one route has and another has not. `notes` are sentences on what is not seen in steps."""

    removed: tuple[dict[str, Any], ...]
    added: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `replay_schema.Difference` tells it."""
        return {"removed": list(self.removed), "added": list(self.added), "notes": list(self.notes)}


def difference(then: Route, now: Route) -> Difference | None:
    """What `now` does differently; None where nothing is different. The order of steps counts."""
    if then.sign == now.sign:
        return None
    removed: list[dict[str, Any]] = []
    added: list[dict[str, Any]] = []
    before, after = [step_json(step) for step in then.steps], [step_json(step) for step in now.steps]
    for change, *(old_from, old_to, new_from, new_to) in SequenceMatcher(None, list(map(str, before)), list(map(str, after)), False).get_opcodes():
        if change != "equal":
            removed += before[old_from:old_to]
            added += after[new_from:new_to]
    return Difference(tuple(removed), tuple(added), tuple(_notes(then, now)))


def _notes(then: Route, now: Route) -> list[str]:
    notes: list[str] = []
    if now.shut != then.shut:
        notes.append("an IP filter refuses the client" if now.shut else "no IP filter refuses the client")
    before, after = dict(then.refused), dict(now.refused)
    notes += [f"{recipient} is refused: {WHY[said]}" for recipient, said in after.items() if before.get(recipient) is not said]
    notes += [f"{recipient} is not refused" for recipient in before if recipient not in after]
    if now.scans != then.scans:
        notes.append("is looked through for spam and viruses" if now.scans else "is not looked through for spam and viruses")
    if now.disposition is not then.disposition:
        notes.append(f"ends {now.disposition}, not {then.disposition}")
    return notes


WHY = {
    Acceptance.NO_RULE: "no enabled rule matches it", Acceptance.TLS_REQUIRED: "every rule that matches it requires TLS",
    Acceptance.BOUNCE: "nothing but a rule's bounce would come of it",
}
