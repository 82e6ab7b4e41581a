"""The settings as a rehearsal needs them: how a message is received here, and who forms the verdicts on one that nobody sent."""

from __future__ import annotations

from collections.abc import Mapping

from inbound import log
from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess.trial import overruled
from inbound.assess.verdicts import Assessment, Status
from inbound.decide.engine import Flow
from inbound.decide.rules import Lambda, RuleSet
from inbound.deliver.rehearsal import House, Judge, not_judged
from inbound.service import assessor, certain, limits, terms
from inbound.settings import Settings


def house(settings: Settings, rule_set: RuleSet, answers: Mapping[str, str]) -> House:
    """How a message is received here under these rules. `answers` are those of functions, by name or ARN. Raises ValueError for others."""
    say = certain(settings)
    return House(terms(settings), limits(settings), say(rule_set) if say else None, settings.reject, settings.smtputf8,
                 answered(rule_set, answers))


def answered(rule_set: RuleSet, answers: Mapping[str, str]) -> dict[str, Flow]:
    """The answers by ARN. Raises ValueError for a name that no synchronous LambdaAction of the rules has."""
    arns = {action.only.FunctionArn for rule in rule_set.rules for action in rule.Actions
            if isinstance(action.only, Lambda) and action.only.InvocationType == "RequestResponse"}
    found: dict[str, Flow] = {}
    for name, flow in answers.items():
        meant = [arn for arn in arns if name in (arn, arn.split(":")[6])]
        if not meant:
            known = ", ".join(sorted(arn.split(":")[6] for arn in arns)) or "none"
            raise ValueError(f"no rule invokes a function {name!r} with RequestResponse; there is {known}")
        found.update(dict.fromkeys(meant, Flow(flow)))
    return found


def judge(settings: Settings, verdicts: Mapping[str, str], *, ask: bool) -> Judge:
    """Who forms the verdicts: DNS and the scanners of the settings where we `ask`, overruled by `verdicts` (name: status)."""
    ordered = {name: Status(status) for name, status in verdicts.items()}

    async def form(envelope: Envelope, content: Content, scan: bool) -> Assessment:
        found = await (_asked(settings, envelope, content, scan=scan) if ask else not_judged(envelope, content, scan))
        return overruled(found, ordered, "supposed")

    return form


async def _asked(settings: Settings, envelope: Envelope, content: Content, *, scan: bool) -> Assessment:
    checks = assessor(settings.model_copy(update={"scan_failure": "continue"}), log.silent())
    try:
        return await checks(envelope, content, scan=scan)
    finally:
        await checks.close()
