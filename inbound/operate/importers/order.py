"""`After` -> order: SES puts a new rule behind the one it names, or first of all where it names none (SES API CreateReceiptRule).

So what the source tells is a tree; where two rules name the same, only the order of their creation decides, and that is not written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inbound.operate.importers.draft import Drafted, Unresolved


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule, and the key of the one that it follows: None for none, Unresolved where it is not known which."""

    key: str
    after: str | Unresolved | None
    rule: Drafted


def in_order(placed: Sequence[Placed]) -> list[Drafted]:
    """The rules in their order, each with a remark where the source leaves it open; of those, the one that comes first here stays first."""
    followers: dict[str | None, list[Placed]] = {}
    known = {each.key for each in placed}
    for each in placed:
        if each.after is None or (isinstance(each.after, str) and each.after in known):
            followers.setdefault(each.after, []).append(each)
    for after, group in followers.items():
        if len(group) > 1:
            _remark_on(group, after, placed)
    ordered = _chain(followers.pop(None, []), followers)
    astray = [each for each in placed if isinstance(each.after, Unresolved) or (each.after is not None and each.after not in known)]
    behind = _chain(astray, followers)
    reached = {id(each) for each in (*ordered, *behind)}
    circling = [each for each in placed if id(each) not in reached]
    for each in behind:
        each.rule.remarks.append(_why_astray(each, known))
    for each in circling:
        each.rule.remarks.append(_why_circling(each, placed))
    return [each.rule for each in (*ordered, *behind, *circling)]


def _chain(first: Sequence[Placed], followers: dict[str | None, list[Placed]]) -> list[Placed]:
    """These, each with all that follow it, which are taken out of `followers`: once, even where two rules have one name."""
    ordered: list[Placed] = []
    waiting = list(reversed(first))
    while waiting:
        each = waiting.pop()
        ordered.append(each)
        waiting += reversed(followers.pop(each.key, []))
    return ordered


def _remark_on(group: Sequence[Placed], after: str | None, placed: Sequence[Placed]) -> None:
    names = ", ".join(each.rule.name for each in group)
    leader = next((each.rule.name for each in placed if each.key == after), after)
    what = "have no After" if after is None else f"all come after {leader}"
    group[0].rule.remarks.append(f"{names} {what}, so the source does not tell their order; it is that of the source here: "
                                 "compare it with aws ses describe-receipt-rule-set")


def _why_astray(each: Placed, known: set[str]) -> str:
    if isinstance(each.after, Unresolved):
        return f"its place is not resolved, so it is last here: {each.after.why}"
    if each.after not in known:
        return f"comes after {each.after}, which is not in the source, so it is last here"
    return f"comes after {each.after}, whose own place is not known, so it is last here as well, behind that one"


def _why_circling(each: Placed, placed: Sequence[Placed]) -> str:
    after = {other.key: other.after for other in placed}
    passed = [each.after]
    while (following := after.get(str(passed[-1]))) not in passed:
        passed.append(following)
    if each.key in passed:
        return f"comes after {each.after} in a circle, so its place is not known and it is last here"
    return f"comes after {each.after}, which leads to rules that come after each other in a circle, so its place is not known and it is last here"
