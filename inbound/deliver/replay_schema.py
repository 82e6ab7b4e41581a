"""What `inbound replay --json` prints, key by key: the contract with programs that read it. Later versions only add keys.

Steps are in the words of a case file: the rule, the recipients, and the action's parameters under SES's name for its type.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Refused(_Part):
    """A recipient that the session would refuse."""

    recipient: str
    acceptance: Literal["no rule", "TLS required", "bounce"]


class Route(_Part):
    """The way of a message by one revision of the rules."""

    rules: list[str]
    """Those that do something, in their order."""
    steps: list[dict[str, Any]]
    """Each with Rule, Recipients, and S3Action, SNSAction, LambdaAction, BounceAction, AddHeaderAction, StopAction, … with its parameters."""
    disposition: Literal["COMPLETED", "STOPPED", "UNMATCHED"]
    refused: list[Refused]
    shut: bool
    """An IP filter would not let the client in."""
    scans: bool
    """A rule wants it looked through for spam and viruses."""
    assumed: list[str]
    """The functions that never answered for this message; CONTINUE is supposed of them."""


class Difference(_Part):
    """What one way has and the other has not."""

    removed: list[dict[str, Any]]
    added: list[dict[str, Any]]
    notes: list[str]
    """Sentences on what is not seen in steps."""


class Message(_Part):
    """One message, by the rules that it was judged by (`then`) and by the others (`now`)."""

    id: str
    received: str
    state: Literal["dead", "done"]
    revision: str
    """Of the rules that it was judged by."""
    sender: str
    recipients: list[str]
    then: Route
    now: Route
    difference: Difference | None
    """null: nothing is different."""
    not_performed: list[dict[str, Any]]
    """Steps of `then` that were never done, of a dead letter; with TopicArn instead of an action: only its notification was not."""
    run: str | None
    """With --run: where the content is from with which its actions are performed again, `spool` or an S3 object; null: they are not."""


class Group(Difference):
    """Messages that differ in the same way; steps and sentences are without their recipients. `removed` and `added` hold what `moved` does not."""

    moved: list[dict[str, Any]]
    """Steps that are the same but for other recipients, or in another order."""
    messages: int
    examples: list[str]
    """Up to five ids."""


class Problem(_Part):
    """A message that could not be compared, and why."""

    id: str
    problem: str


class Replay(_Part):
    """Messages of the spool and its history, judged by other rules than those they came under."""

    rules: str
    """The rule file."""
    revision: str
    """Of the rules in it."""
    stop_scope: Literal["recipients", "message"]
    messages: list[Message]
    judged: int
    different: int
    unfinished: int
    """Messages of the chosen time that still wait or are in hand; they are left out."""
    groups: list[Group]
    problems: list[Problem]


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a replay."""
    made = Replay.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "replay of messages in inbound"}
