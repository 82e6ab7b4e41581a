"""The engine: walks a rule set for one message and says which step comes next. It performs nothing and knows no clock.

SES "Receipt rules": every rule that matches at least one recipient runs, in order, with all its actions, once per message. What a
stop ends is the evaluation for the recipients that the stopping rule matched; the others go on through later rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from inbound.decide.recipients import canonical_address
from inbound.decide.rules import AnyAction, ReceiptRule, RuleSet, Stop


class Flow(StrEnum):
    """What follows a step: SES's dispositions of a synchronous Lambda function."""

    CONTINUE = "CONTINUE"
    STOP_RULE = "STOP_RULE"
    STOP_RULE_SET = "STOP_RULE_SET"


class Disposition(StrEnum):
    """What became of the message: every matching rule ran; a stop ended it for all recipients; no rule matched."""

    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    UNMATCHED = "UNMATCHED"


class StopScope(StrEnum):
    """What a stop ends: the evaluation for the recipients its rule matched, or for the whole message."""

    RECIPIENTS = "recipients"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Mail:
    """What rules look at: the envelope's recipients as spelled, and whether the session was encrypted."""

    recipients: tuple[str, ...]
    tls: bool = False
    stop_scope: StopScope = StopScope.RECIPIENTS


@dataclass(frozen=True, slots=True)
class Step:
    """One action of one rule, to be performed on the message; `recipients` are those that the rule matched and are still open."""

    rule: ReceiptRule
    index: int
    action: AnyAction
    recipients: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Identifies rule, place, action and recipients: records of another revision or recipient list cannot drive this step."""
        return _digest(self.rule.Name, self.index, self.action, self.recipients)


@lru_cache(maxsize=1024)  # it is asked for several times as the step is performed and recorded
def _digest(rule: str, index: int, action: AnyAction, recipients: tuple[str, ...]) -> str:
    parts = [rule, index, action.kind, action.model_dump(mode="json", exclude_defaults=True), recipients]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Reason(StrEnum):
    """Why a rule runs or not."""

    MATCHED = "matched"
    DISABLED = "disabled"
    NO_RECIPIENT = "no recipient matches"
    TLS_REQUIRED = "requires TLS"
    STOPPED = "stopped before"


@dataclass(frozen=True, slots=True)
class Seen:
    """How the engine came to run a rule or pass it by; `recipients` are those it matches, stopped ones included.

    `open` are those of them that go on into the rule, `stopped` those that do not, each with the step that stopped it.
    """

    position: int
    rule: ReceiptRule
    reason: Reason
    recipients: tuple[str, ...]
    open: tuple[str, ...]
    stopped: Mapping[str, Step] = field(default_factory=dict)


def unique(recipients: tuple[str, ...]) -> tuple[str, ...]:
    """A recipient repeated in one transaction counts once, compared as rules compare it; the first spelling stays."""
    first: dict[str, str] = {}
    for recipient in recipients:
        first.setdefault(canonical_address(recipient), recipient)
    return tuple(first.values())


def evaluate(rule_set: RuleSet, mail: Mail, tell: Callable[[Seen], None] | None = None) -> Generator[Step, Flow, Disposition]:
    """Yield each step in order and be sent its flow; return the disposition.

    `tell` hears of every rule in the order of the set (without it, rules that match no recipient cost nothing).
    """
    recipients = unique(mail.recipients)
    matches = _matches(rule_set, recipients)
    stopped: dict[str, Step] = {}
    ran = False
    for position in range(len(rule_set.rules)) if tell else sorted(matches):
        rule = rule_set.rules[position]
        matched = matches.get(position, ())
        still_open = tuple(r for r in matched if r not in stopped)
        reason = _reason(rule, mail, matched, still_open)
        if tell:
            tell(Seen(position, rule, reason, matched, still_open, {r: stopped[r] for r in matched if r in stopped}))
        if reason is not Reason.MATCHED:
            continue
        ran = True
        for index, action in enumerate(rule.Actions):
            step = Step(rule, index, action.only, still_open)
            flow = yield step
            if flow is Flow.STOP_RULE_SET:
                for recipient in recipients if mail.stop_scope is StopScope.MESSAGE else still_open:
                    stopped.setdefault(recipient, step)
            if flow is not Flow.CONTINUE:
                break
    if not ran:
        return Disposition.UNMATCHED
    return Disposition.STOPPED if len(stopped) == len(recipients) else Disposition.COMPLETED


def _matches(rule_set: RuleSet, recipients: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
    """Position of a rule -> the recipients it matches, in their order; only rules that match any."""
    found: dict[int, list[str]] = {}
    for recipient in recipients:
        for position in rule_set.lookup.match(recipient):
            found.setdefault(position, []).append(recipient)
    return {position: tuple(matched) for position, matched in found.items()}


def _reason(rule: ReceiptRule, mail: Mail, matched: tuple[str, ...], still_open: tuple[str, ...]) -> Reason:
    if not rule.Enabled:
        return Reason.DISABLED
    if not matched:
        return Reason.NO_RECIPIENT
    if rule.TlsPolicy == "Require" and not mail.tls:
        return Reason.TLS_REQUIRED
    return Reason.MATCHED if still_open else Reason.STOPPED


def own_flow(action: AnyAction) -> Flow:
    """The flow of an action that does not ask anyone: a Stop stops, all others go on."""
    return Flow.STOP_RULE_SET if isinstance(action, Stop) else Flow.CONTINUE


def scan_wanted(rule_set: RuleSet, mail: Mail) -> bool:
    """Does any rule that may run for this message have ScanEnabled? Then it is scanned, once, before the first step."""
    found = {p for r in unique(mail.recipients) for p in rule_set.lookup.match(r)}
    return any(rule.Enabled and rule.ScanEnabled and (mail.tls or rule.TlsPolicy == "Optional") for rule in (rule_set.rules[p] for p in found))


class Acceptance(StrEnum):
    """What the rules say to a recipient at RCPT."""

    ACCEPT = "accept"
    NO_RULE = "no rule"
    TLS_REQUIRED = "TLS required"
    BOUNCE = "bounce"  # nothing but a rule's bounce would come of it, and that is said at once, see session_bounce


def acceptance(rule_set: RuleSet, recipient: str, *, tls: bool) -> Acceptance:
    """May this recipient be accepted? Only if an enabled rule matches it; TLS is required if every such rule requires it."""
    rules = [rule_set.rules[p] for p in rule_set.lookup.match(recipient)]
    enabled = [rule for rule in rules if rule.Enabled]
    if not enabled:
        return Acceptance.NO_RULE
    if tls or any(rule.TlsPolicy == "Optional" for rule in enabled):
        return Acceptance.ACCEPT
    return Acceptance.TLS_REQUIRED
