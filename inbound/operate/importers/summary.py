"""What to tell after an import: what came, what needs a person, and whether the result passes `inbound check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inbound.decide.document import NOT_RESOLVED, UNRESOLVED
from inbound.decide.load import OCTETS, RulesError, parse
from inbound.decide.problem import Problem
from inbound.operate.importers.draft import Draft

NO_IDENTITIES = ("Identities are not told: SES keeps them apart from the rules. Give --identity, or the file that `aws ses list-identities` prints; "
                 "a rule without Recipients takes what they name")


@dataclass(frozen=True, slots=True)
class Summary:
    """The lines, and whether the rules can be used as they are."""

    lines: tuple[str, ...]
    passes: bool


def summary(draft: Draft, text: str, name: str) -> Summary:
    """The summary of the draft and of the text of the rule file that was made of it; `name` stands for that file."""
    remarks = [f"{about}: {remark}" if about else remark for about, remark in draft.remarked()]
    if not draft.identities:
        remarks.append(NO_IDENTITIES)
    problems, warnings = _checked(text, name)
    marked = [problem for problem in problems if problem.message.endswith(NOT_RESOLVED)]
    lines = [_counted(draft), *(f"attention: {remark}" for remark in remarks), *(f"warning: {warning} [{warning.code}]" for warning in warnings),
             *(str(problem) for problem in problems if problem not in marked)]
    lines.append(f"{name} does not pass inbound check yet{_marked(marked)}" if problems else f"{name} passes inbound check")
    return Summary(tuple(lines), not problems)


def _marked(problems: Sequence[Problem]) -> str:
    """Of the values that are told of already: how many there are, and on which lines."""
    if not problems:
        return ""
    places = ", ".join(str(problem.line) for problem in problems[:20]) + (", …" if len(problems) > 20 else "")
    return f": {len(problems)} value{'s' * (len(problems) != 1)} to write in place of {UNRESOLVED}, line {places}"


def _counted(draft: Draft) -> str:
    rules = sum(len(rules) for rules in draft.rule_sets.values())
    counts = ((len(draft.rule_sets), "rule set"), (rules, "rule"), (len(draft.filters), "filter"))
    active = f"; active: {draft.active or 'none'}" if draft.knows_active else ""
    return f"imported from {draft.source}: " + ", ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts) + active


def _checked(text: str, name: str) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """The errors and the warnings that `inbound check` tells of the text."""
    octets = len(text.encode())
    if octets > OCTETS:
        return (Problem(name, 0, 0, f"has {octets} octets; a rule file may have {OCTETS}"),), ()
    try:
        loaded = parse(text, name)
    except RulesError as error:
        return error.problems, ()
    return (), tuple(sorted((*loaded.warnings, *loaded.needs_certificate, *loaded.needs_smarthost)))
