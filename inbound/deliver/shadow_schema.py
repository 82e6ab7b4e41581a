"""What `inbound shadow --json` and `inbound shadow report --json` hold, key by key: the contract with every program that reads them.

Later versions only add keys. Times are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class State(_Part):
    """Which candidate is tried, and how far it came. `inbound shadow --json` prints this."""

    state: Literal["on", "stopped", "off"]
    """`stopped`: what was counted is kept until the next candidate; `off`: there never was one."""
    file: str
    """The candidate rule file; empty where there never was one."""
    started: str | None
    stopped: str | None
    running: bool
    """Whether a service runs on the data folder now."""
    revision: str
    """The revision of the candidate that counts, the last one that a service took; empty while none was taken."""
    trouble: str
    """Why the file as it is now is not what counts, or is not followed: an error in it, a service that does not see it or has yet to take it;
    empty where nothing is wrong."""
    judged: int
    """How many messages were judged by this revision: those that are done, and dead letters. A message that was refused is none."""
    differ: int
    """How many of them would have gone another way."""


class Refused(_Part):
    """A recipient that the candidate would refuse at RCPT."""

    recipient: str
    messages: int


class Example(_Part):
    """A message that would have gone another way; `inbound explain ID` tells the way that it went."""

    id: str
    received: str
    sender: str
    """The reverse-path; empty for the null reverse-path."""
    recipients: list[str]


class Group(_Part):
    """Messages that the candidate sends another way, with the same difference. Steps are in the words of a case file of `inbound test`:
    `Rule`, and the action's parameters under SES's name for its type."""

    kind: str
    """Names the difference; `others` holds what came after the first thousand kinds, and says no more of it."""
    messages: int
    first: str
    last: str
    """When such a message ended, first and last."""
    removed: list[dict[str, Any]]
    """Steps that only the rules in force take."""
    added: list[dict[str, Any]]
    """Steps that only the candidate takes."""
    moved: list[dict[str, Any]]
    """Steps that both take, the candidate for other recipients or in another order."""
    notes: list[str]
    """What is not seen in steps: a recipient or a client that is refused, how the walk through the rules ends, an answer that is supposed."""
    refused: list[Refused]
    """The recipients that most messages of the group would lose, as far as their traces are kept."""
    examples: list[Example]
    """The newest, as far as their traces are kept."""


class Earlier(_Part):
    """What an earlier revision of the candidate counted."""

    revision: str
    judged: int
    differ: int


class Report(State):
    """What would be different. `inbound shadow report --json` prints this."""

    groups: list[Group]
    """Those with most messages first."""
    earlier: list[Earlier]


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a report; what `inbound shadow --json` prints is its beginning."""
    made = Report.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "report of a shadow of inbound"}
