"""How the way of a message under other rules differs from the way that it went, put so that messages with the same difference are alike.

Whom a message is for is left out of it: what many senders and recipients meet is one difference. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inbound.decide.routes import WHY, Route, difference


@dataclass(frozen=True, slots=True)
class Change:
    """What the other rules do differently. Steps are as in `routes.step_json`, without their recipients: those that are gone, those that are new,
    and those that are the same but for other recipients or in another order. `notes` are sentences.

    `refused` are the recipients that only the other rules would refuse.
    """

    removed: tuple[dict[str, Any], ...]
    added: tuple[dict[str, Any], ...]
    moved: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    refused: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same for all messages with this difference."""
        return {"removed": list(self.removed), "added": list(self.added), "moved": list(self.moved), "notes": list(self.notes)}

    @property
    def told(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    @property
    def kind(self) -> str:
        """A short name of the difference."""
        return hashlib.sha256(self.told.encode()).hexdigest()[:12]


def change(then: Route, now: Route) -> Change | None:
    """What is different in `now`, the route by the other rules; None where nothing is."""
    found = difference(then, now)
    if found is None:
        return None
    removed, added = list(map(_anyone, found.removed)), list(map(_anyone, found.added))
    moved = [step for step in removed if step in added]
    before = dict(then.refused)
    refused = tuple(recipient for recipient, why in now.refused if before.get(recipient) is not why)
    return Change(tuple(_without(removed, added)), tuple(_without(added, removed)), tuple(moved), tuple(_notes(then, now, refused)), refused)


def _anyone(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "Recipients"}


def _without(steps: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [step for step in steps if step not in others]


def _notes(then: Route, now: Route, refused: tuple[str, ...]) -> Iterator[str]:
    if now.shut and not then.shut:
        yield "an IP filter refuses the client"
    if then.shut and not now.shut:
        yield "no IP filter refuses the client"
    after = dict(now.refused)
    for why in dict.fromkeys(after[recipient] for recipient in refused):
        yield f"a recipient is refused: {WHY[why]}"
    if any(recipient not in after for recipient, _ in then.refused):
        yield "a recipient is not refused"
    if now.disposition is not then.disposition:
        yield f"ends {now.disposition}, not {then.disposition}"
    if now.scans != then.scans:
        yield "is looked through for spam and viruses" if now.scans else "is not looked through for spam and viruses"
    for function in now.assumed:
        yield f"supposes that {function} answers CONTINUE"
