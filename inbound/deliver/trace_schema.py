"""What the trace of a message holds, key by key: the contract with every program and page that shows one.

Later versions only add keys. Times are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Acceptance = Literal["accept", "no rule", "TLS required", "bounce", "refused"]
Flow = Literal["CONTINUE", "STOP_RULE", "STOP_RULE_SET"]
Status = Literal["PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED"]
StepState = Literal["done", "failed", "failed for good", "waiting", "not run", "supposed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Tls(_Part):
    """What TLS settled on, in OpenSSL's words."""

    version: str
    cipher: str


class Session(_Part):
    """The session that the message came in."""

    client: str
    """The client's IP address; empty where it is not told."""
    port: int | None
    """The client's; null for a message that nobody sent."""
    reverse_name: str
    """The name that DNS gives the client, if it also leads back to it; else empty."""
    helo: str
    esmtp: bool
    tls: Tls | None
    connected: str | None
    """When the session began; null for a message that nobody sent."""


class Envelope(_Part):
    """What MAIL and RCPT said."""

    sender: str
    """The reverse-path; empty for the null reverse-path."""
    recipients: list[str]
    """Those that were accepted, as the client spelled them: what the rules look at."""
    body: str
    parameters: list[str]
    received: str


class Recipient(_Part):
    """The answer to RCPT for one recipient. Of a message in the spool only those are known that were accepted."""

    recipient: str
    acceptance: Acceptance
    """`bounce`: nothing but a rule's bounce would come of it, and that is said at once; `refused`: for a reason that no rule has."""
    reply: str
    why: str


class Refused(_Part):
    """The message as a whole was refused."""

    command: Literal["connect", "MAIL", "RCPT", "DATA"]
    reply: str


class Verdict(_Part):
    """One verdict, and why."""

    status: Status
    reason: str


class Verdicts(_Part):
    """SES's verdicts."""

    spf: Verdict
    dkim: Verdict
    dmarc: Verdict
    spam: Verdict
    virus: Verdict
    dmarc_policy: str
    """The published policy that applied, only when dmarc is FAIL."""


class Attempt(_Part):
    """One attempt at an action (`part` action) or at its notification (`part` topic)."""

    part: Literal["action", "topic"]
    attempt: int
    """Counts from 1."""
    started: str
    milliseconds: int
    outcome: Literal["done", "failed", "final", "supposed"]
    """`failed`: time may cure it; `final`: no repetition could."""
    flow: Flow | Literal[""]
    sink: str
    """What was called: s3:BUCKET, sns:ARN, lambda:ARN, a smarthost; empty where nothing was."""
    error: str
    """The sink's own words."""
    detail: dict[str, Any]
    """What it did: bucket, key, size; topic, messageId; function, answer; header; of a bounce to, bounce (code, status, text), messageId and
    reply, or suppressed or refused with the reason; with unfit, why the action's own sink could not take the message."""


class Unexplained(Attempt):
    """A recorded attempt that no step of the rules fits: they are not known any more, or are not those that it was recorded under."""

    rule: str
    index: int
    action: str


class Earlier(_Part):
    """What came of a message until it was replayed."""

    revision: str
    """Of the rules that judged it till then."""
    state: Literal["dead", "done"]
    disposition: Literal["COMPLETED", "STOPPED", "UNMATCHED", ""]
    error: str
    finished: str | None
    replayed: str
    attempts: list[Unexplained]


class Topic(_Part):
    """The notification that an action's TopicArn asks for, a part of its own."""

    arn: str
    state: StepState


class Action(_Part):
    """One action of a rule."""

    index: int
    """Counts from 0."""
    action: Literal["S3", "SNS", "Lambda", "Bounce", "AddHeader", "Stop", "WorkMail", "Connect"]
    parameters: dict[str, Any]
    """In SES's words, as they are written in the rules."""
    recipients: list[str]
    """Those that it is done for; empty where the rules do not come to it."""
    flow: Flow | None
    """What follows; null where it was not run. Where `assumed`, nobody has answered, and this is supposed."""
    assumed: bool
    state: StepState
    """`failed`: it will be tried again; `waiting`: its turn is still to come; `supposed`: it would be done."""
    topic: Topic | None
    attempts: list[Attempt]


class StoppedBy(_Part):
    """The earlier action that ended the evaluation for a recipient."""

    rule: str
    index: int


class Match(_Part):
    """A recipient that the rule matches."""

    recipient: str
    entry: str
    """What matched it, as written in Recipients, or the identity for a rule without any."""
    stopped_by: StoppedBy | None = Field(alias="stoppedBy")


class Rule(_Part):
    """One rule of the set, in its order, whether it ran or not."""

    position: int
    """Counts from 0."""
    name: str
    reason: Literal["matched", "disabled", "no recipient matches", "requires TLS", "stopped before"]
    why: str
    """A sentence."""
    recipients: list[Match]
    actions: list[Action]


class Authentication(_Part):
    """What Received-SPF and Authentication-Results say."""

    spf: str
    explanation: str
    dkim: list[tuple[str, str]]
    """Of each signature the result, and the domain of its identity."""
    dmarc: str
    from_domain: str


class Trace(_Part):
    """All that is known of a message: the session, the verdicts, what every rule did and why, every attempt at every action."""

    id: str
    state: Literal["active", "deferred", "dead", "done", "supposed"]
    """`active`: in hand; `deferred`: waits until `due` or for `waits_for`; `dead`: a dead letter; `supposed`: nobody sent it."""
    disposition: Literal["COMPLETED", "STOPPED", "UNMATCHED", ""]
    """How the walk through the rules ended; empty while it has not."""
    error: str
    """The last failure; of a supposed message, why it would be a dead letter."""
    waits_for: str
    """The sink whose answer lets it go; empty where it waits for the time only."""
    attempts: int
    """Failed rounds since receipt, or since someone asked to retry it."""
    due: str | None
    finished: str | None
    size: int
    """Octets."""
    revision: str
    """Of the rules that judge it."""
    rules_known: bool
    """Whether that revision is still at hand; `rules` is empty without it."""
    rule_set: str | None
    """The name of the rule set; null where none was active, or it is not known."""
    stop_scope: Literal["recipients", "message"]
    """What a stop ends, by the settings of who tells this."""
    session: Session
    envelope: Envelope
    recipients: list[Recipient]
    refused: Refused | None
    verdicts: Verdicts
    authentication: Authentication | None
    rules: list[Rule]
    unexplained: list[Unexplained]
    replay: str | None
    """When it was last replayed: `rules`, `attempts` and the like tell what came of that; null where it never was."""
    earlier: list[Earlier]
    """What came of it before each replay, the first first."""


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a trace."""
    made = Trace.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "trace of a message in inbound"}
