"""The engine's own walk, told with reasons: for each rule whether it ran and why, for each action what came of it.

It is `evaluate` with someone listening; what rules do is decided there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inbound.decide.engine import Acceptance, Disposition, Flow, Mail, Reason, Seen, Step, evaluate, own_flow, unique
from inbound.decide.recipients import Lookup, canonical_entry, matching_entries
from inbound.decide.rules import ReceiptRule, RuleSet
from inbound.decide.session_bounce import Answer, Certain, answer

SHOWN = 5  # entries or recipients named in a sentence


@dataclass(frozen=True, slots=True)
class Match:
    """A recipient that a rule matches. `entry` is what matched it, as written in Recipients, or the identity for a rule without any.

    `stopped_by` is the earlier step that ended the evaluation for this recipient.
    """

    recipient: str
    entry: str
    stopped_by: Step | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step that was yielded, and the flow that was the answer."""

    step: Step
    flow: Flow


@dataclass(frozen=True, slots=True)
class Passage:
    """One rule as the message passed it. `outcomes` are its steps so far as they were reached."""

    position: int
    rule: ReceiptRule
    reason: Reason
    matches: tuple[Match, ...]
    outcomes: tuple[Outcome, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the rules do with a message, and why. `answers` are what they say at RCPT, by recipient, `whys` a sentence for each refusal."""

    rule_set: str | None
    revision: str
    mail: Mail
    disposition: Disposition
    answers: dict[str, Answer]
    whys: dict[str, str]
    passages: tuple[Passage, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types, of this shape, which later versions only add to:

        `ruleSet` (null: receiving is off), `revision`, `tls`, `disposition`: COMPLETED, STOPPED or UNMATCHED;
        `recipients`: [{`recipient`, `acceptance`: "accept", "no rule", "TLS required" or "bounce", `why`: a sentence, empty for "accept"}];
        `rules`, every rule in order: [{`position` from 0, `name`,
        `reason`: "matched", "disabled", "no recipient matches", "requires TLS" or "stopped before", `why`: a sentence,
        `recipients`: [{`recipient`, `entry`, `stoppedBy`: null or {`rule`, `index`}}],
        `actions`, every action in order: [{`index`, `action`: its type, `parameters`: in SES's words, as written,
        `recipients`, `flow`: CONTINUE, STOP_RULE, STOP_RULE_SET; null: not run}]}].
        """
        return {
            "ruleSet": self.rule_set,
            "revision": self.revision,
            "tls": self.mail.tls,
            "disposition": str(self.disposition),
            "recipients": [{"recipient": recipient, "acceptance": str(told.acceptance), "why": self.whys[recipient]}
                           for recipient, told in self.answers.items()],
            "rules": [_passage_json(passage) for passage in self.passages],
        }


def explain(rule_set: RuleSet, mail: Mail, flows: Callable[[Step], Flow] = lambda step: own_flow(step.action),
            certain: Certain | None = None) -> Explanation:
    """Walk the rule set for the message; `flows` answers each step, by default as actions do that ask nobody.

    `certain` says which bounces are said in the session; None: none is.
    """
    seen: list[Seen] = []
    outcomes: list[list[Outcome]] = []

    def tell(passed: Seen) -> None:
        seen.append(passed)
        outcomes.append([])

    walk = evaluate(rule_set, mail, tell)
    try:
        step = next(walk)
        while True:
            flow = flows(step)
            outcomes[-1].append(Outcome(step, flow))
            step = walk.send(flow)
    except StopIteration as end:
        disposition: Disposition = end.value
    passages = tuple(_passage(rule_set, passed, tuple(reached), mail) for passed, reached in zip(seen, outcomes, strict=True))
    answers = {recipient: answer(rule_set, recipient, tls=mail.tls, certain=certain) for recipient in unique(mail.recipients)}
    whys = {recipient: why_refused(rule_set, recipient, told) for recipient, told in answers.items()}
    return Explanation(rule_set.name, rule_set.revision, mail, disposition, answers, whys, passages)


def why_refused(rule_set: RuleSet, recipient: str, told: Answer) -> str:
    """Why the rules refuse a recipient at RCPT, in a sentence; empty if they accept it."""
    if told.acceptance is Acceptance.ACCEPT:
        return ""
    if told.step is not None:
        return f"nothing comes of it but the bounce of {told.step.rule.Name} (action {told.step.index + 1})"
    rules = [rule_set.rules[position] for position in rule_set.lookup.match(recipient)]
    if told.acceptance is Acceptance.TLS_REQUIRED:
        return f"every enabled rule that matches it requires TLS: {_some([rule.Name for rule in rules if rule.Enabled])}"
    if rule_set.name is None:
        return "no rule set is active"
    return f"only disabled rules match it: {_some([rule.Name for rule in rules])}" if rules else "no rule matches it"


def _passage(rule_set: RuleSet, seen: Seen, outcomes: tuple[Outcome, ...], mail: Mail) -> Passage:
    written = {canonical_entry(entry): entry for entry in reversed(seen.rule.Recipients)}
    matches = tuple(Match(r, _entry(rule_set.lookup, written, r), seen.stopped.get(r)) for r in seen.recipients)
    return Passage(seen.position, seen.rule, seen.reason, matches, outcomes, _why(seen, matches, mail))


def _entry(lookup: Lookup, written: dict[str, str], recipient: str) -> str:
    if not written:
        return lookup.identity(recipient) or ""
    return next(written[entry] for entry in matching_entries(recipient) if entry in written)


def _why(seen: Seen, matches: tuple[Match, ...], mail: Mail) -> str:
    rule = seen.rule
    if seen.reason is Reason.DISABLED:
        return "Enabled is false"
    if seen.reason is Reason.NO_RECIPIENT:
        if not mail.recipients:
            return "there is no recipient"
        entries = _some(rule.Recipients) if rule.Recipients else "any identity"
        return f"no recipient ({_some(unique(mail.recipients))}) matches {entries}"
    if seen.reason is Reason.TLS_REQUIRED:
        return "TlsPolicy is Require, and the session was not encrypted"
    told = [_matched(rule, match) for match in matches if match.stopped_by is None]
    told += [_stopped(match.recipient, match.stopped_by) for match in matches if match.stopped_by is not None]
    return _some(told)


def _matched(rule: ReceiptRule, match: Match) -> str:
    return f"{match.recipient} matches {match.entry if rule.Recipients else f'the identity {match.entry}'}"


def _stopped(recipient: str, step: Step) -> str:
    return f"{recipient} was stopped by {step.action.kind} (action {step.index + 1}) of {step.rule.Name}"


def _some(texts: tuple[str, ...] | list[str]) -> str:
    rest = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _passage_json(passage: Passage) -> dict[str, Any]:
    return {
        "position": passage.position,
        "name": passage.rule.Name,
        "reason": str(passage.reason),
        "why": passage.why,
        "recipients": [
            {"recipient": match.recipient, "entry": match.entry,
             "stoppedBy": {"rule": match.stopped_by.rule.Name, "index": match.stopped_by.index} if match.stopped_by else None}
            for match in passage.matches
        ],
        "actions": [_action_json(passage, index) for index in range(len(passage.rule.Actions))],
    }


def _action_json(passage: Passage, index: int) -> dict[str, Any]:
    reached = next((outcome for outcome in passage.outcomes if outcome.step.index == index), None)
    return {
        "index": index,
        "action": passage.rule.Actions[index].only.kind,
        "parameters": passage.rule.Actions[index].only.model_dump(mode="json", exclude_unset=True),
        "recipients": list(reached.step.recipients) if reached else [],
        "flow": str(reached.flow) if reached else None,
    }
