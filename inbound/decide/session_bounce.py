"""What the rules say of a message before it is seen: a bounce that is certain is better said in the session than sent (RFC 5321 §6.1).

It is certain when nothing else comes of the message for that recipient. So who is refused in the session is bounced by the engine as well,
and loses nothing that the engine would have done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from inbound.decide.engine import Acceptance, Mail, Step, StopScope, acceptance, evaluate, own_flow, unique
from inbound.decide.rules import AddHeader, AnyAction, Bounce, Lambda, ReceiptRule, RuleSet, Sns, Stop

CLOSING = "421"  # RFC 5321 §3.8: as a reply it ends the session, for the other recipients as well


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rules say to a recipient at RCPT; `step` is the one that bounces it where that is said at once."""

    acceptance: Acceptance
    step: Step | None = None

    @property
    def bounce(self) -> Bounce | None:
        """What it bounces with."""
        return self.step.action if self.step is not None and isinstance(self.step.action, Bounce) else None


def answer(rule_set: RuleSet, recipient: str, *, tls: bool, certain: Certain | None) -> Answer:
    """The answer at RCPT. `certain` is None where no bounce is said in the session."""
    found = acceptance(rule_set, recipient, tls=tls)
    step = certain.step(recipient, tls=tls) if certain is not None and found is Acceptance.ACCEPT else None
    return Answer(Acceptance.BOUNCE, step) if step is not None else Answer(found)


class Certain:
    """What is certain under one rule set: which recipients bounce, and which messages are too long for whoever they are for."""

    def __init__(self, rule_set: RuleSet, stop_scope: StopScope) -> None:
        self._rule_set = rule_set
        self._stop_scope = stop_scope

    def bounce(self, recipient: str, *, tls: bool) -> Bounce | None:
        """The bounce that this recipient gets in any case, and nothing else: no other action has an effect, no topic hears of it."""
        step = self.step(recipient, tls=tls)
        return step.action if step is not None and isinstance(step.action, Bounce) else None

    def step(self, recipient: str, *, tls: bool) -> Step | None:
        """The step that makes this bounce."""
        if not self._bounces or self._depends_on_others:
            return None
        effects = list(self._effects((recipient,), tls=tls))
        certain = all(isinstance(each.action, Bounce) and each.action.TopicArn is None and each.action.SmtpReplyCode != CLOSING for each in effects)
        return effects[0] if certain and effects else None

    def goes_to_topics_only(self, recipients: tuple[str, ...], *, tls: bool) -> bool:
        """Is all that comes of the message, for every one of its recipients, that SNSActions publish it?"""
        steps = list(self._effects(recipients, tls=tls))
        reached = {recipient for step in steps for recipient in step.recipients}
        return bool(steps) and all(isinstance(step.action, Sns) for step in steps) and reached >= set(unique(recipients))

    def any_message_goes_to_topics_only(self, *, tls: bool) -> bool:
        """Does `goes_to_topics_only` hold whoever the recipients are?"""
        rules = [rule for rule in self._rule_set.rules if rule.Enabled and (tls or rule.TlsPolicy == "Optional")]
        return bool(rules) and not self._depends_on_others and all(_publishes_only(rule) for rule in rules)

    @cached_property
    def _bounces(self) -> bool:
        return any(isinstance(action.only, Bounce) for rule in self._rule_set.rules if rule.Enabled for action in rule.Actions)

    @cached_property
    def _depends_on_others(self) -> bool:
        """May what one recipient gets depend on who the others are? Where a stop ends the whole message, and something may stop."""
        if self._stop_scope is not StopScope.MESSAGE:
            return False
        return any(_may_stop(action.only) for rule in self._rule_set.rules if rule.Enabled for action in rule.Actions)

    def _effects(self, recipients: tuple[str, ...], *, tls: bool) -> Iterator[Step]:
        """The engine's own steps, as far as something comes of them. After one that asks somebody, they are only possible ones."""
        walk = evaluate(self._rule_set, Mail(recipients, tls, self._stop_scope))
        try:
            step = next(walk)
            while True:
                if _has_effect(step.action):
                    yield step
                step = walk.send(own_flow(step.action))
        except StopIteration:
            return


def _publishes_only(rule: ReceiptRule) -> bool:
    effects = [action for action in _until_stop(rule) if _has_effect(action)]
    return bool(effects) and all(isinstance(action, Sns) for action in effects)


def _until_stop(rule: ReceiptRule) -> Iterable[AnyAction]:
    for action in rule.Actions:
        yield action.only
        if isinstance(action.only, Stop):
            return


def _has_effect(action: AnyAction) -> bool:
    """Does anybody outside notice? A header field alone is not seen by anyone, nor is a stop that tells no topic."""
    return not isinstance(action, AddHeader) and (not isinstance(action, Stop) or action.TopicArn is not None)


def _may_stop(action: AnyAction) -> bool:
    return isinstance(action, Stop) or (isinstance(action, Lambda) and action.InvocationType == "RequestResponse")
