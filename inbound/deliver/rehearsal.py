"""What would come of a message that nobody sent: the session's own answers, then the worker itself, on sinks that take all and keep nothing.

So it cannot say anything else than what would happen; what only the outside could tell (a function's answer) is supposed, and marked so.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inbound import log
from inbound.accept import policy, reply
from inbound.accept.address import forward_path, reverse_path
from inbound.accept.envelope import Envelope
from inbound.accept.inspection import Inspection
from inbound.accept.policy import Limits
from inbound.accept.rate import Rate
from inbound.accept.reply import Reply, ReplyError
from inbound.accept.spool import Content, Entry, State
from inbound.accept.spool.memory import MemorySpool
from inbound.assess.message import HEAD
from inbound.assess.refusal import refusal
from inbound.assess.verdicts import Assessment, Status, Verdict
from inbound.decide.engine import Flow, Mail, scan_wanted, unique
from inbound.decide.explain import why_refused
from inbound.decide.rules import RuleSet
from inbound.decide.session_bounce import Certain, answer
from inbound.deliver.aws import Answer, Body, DataKey, Published
from inbound.deliver.backscatter import Caps
from inbound.deliver.bounces import Bounces, BounceTerms
from inbound.deliver.intake import PinnedRules
from inbound.deliver.timekeeper import Timekeeper
from inbound.deliver.trace import trace
from inbound.deliver.worker import Terms, Worker

SUPPOSED = "supposed"
"""The state of a message that nobody sent, of what would be done with it, and the outcome of such an attempt."""

PIECE = 1024 * 1024
_UNKNOWN = ("messageId", "reply", "answer", "status")  # what only a sink could have told
_NEITHER = Verdict(Status.DISABLED, "no rule that matches has ScanEnabled")

Judge = Callable[[Envelope, Content, bool], Awaitable[Assessment]]
"""Forms the verdicts on an envelope with its content; the third says whether spam and viruses are looked for."""


@dataclass(frozen=True, slots=True)
class House:
    """The settings under which a message is received. `certain` None: no bounce is said in the session; `reject` is INBOUND_REJECT.

    `answers` are what synchronous functions say, by ARN; those that are not named are supposed to say CONTINUE.
    """

    terms: Terms
    limits: Limits = field(default_factory=Limits)
    certain: Certain | None = None
    reject: Collection[str] = ()
    smtputf8: bool = False
    answers: Mapping[str, Flow] = field(default_factory=dict)


async def not_judged(_envelope: Envelope, _content: Content, scan: bool) -> Assessment:
    """The verdicts where neither DNS nor a scanner is asked."""
    return Assessment() if scan else Assessment(spam=_NEITHER, virus=_NEITHER)


async def rehearse(rule_set: RuleSet, envelope: Envelope, content: Content, house: House, judge: Judge = not_judged) -> dict[str, Any]:
    """The document of `trace_schema` for a message, were it sent now to the envelope's forward-paths. Nothing leaves the process."""
    address = envelope.peer.address
    envelope = replace(envelope, peer=replace(envelope.peer, address=policy.client_address(address) if address else ""))
    session = _Session(rule_set, envelope, content, house)
    recipients = [session.rcpt(address) for address in envelope.forward_paths]
    accepted = tuple(session.accepted)
    known = replace(envelope, forward_paths=accepted or tuple(session.spelled), revision=rule_set.revision)
    found = await judge(known, content, scan_wanted(rule_set, Mail(known.forward_paths, envelope.tls is not None, house.terms.stop_scope)))
    refused = session.refused(accepted, found)
    entry = _unsent(known, content, found) if refused else await _worked(rule_set, known, content, found, house)
    told = trace(entry, rule_set, house.terms.stop_scope)
    told |= {"state": SUPPOSED, "due": None, "finished": None, "attempts": 0, "recipients": recipients, "refused": refused}
    told["envelope"]["recipients"] = list(accepted)
    for action in (action for rule in told["rules"] for action in rule["actions"]):
        _suppose(action, house.answers)
    return told


class _Session:
    """What the session would answer, in the order in which a client asks."""

    def __init__(self, rule_set: RuleSet, envelope: Envelope, content: Content, house: House) -> None:
        self._rule_set = rule_set
        self._envelope = envelope
        self._content = content
        self._house = house
        self._tls = envelope.tls is not None
        self._pinned = PinnedRules(rule_set, tls_works=lambda: True, certain=house.certain)
        self.accepted: list[str] = []
        self.spelled: list[str] = []  # all that are addresses, refused or not

    def rcpt(self, address: str) -> dict[str, Any]:
        """The answer to RCPT for this address; who is accepted is one more of `accepted`."""
        meant, said = address, reply.RCPT_OK
        try:
            meant, _ = forward_path(f"TO:<{address}>".encode(errors="surrogateescape"), utf8=self._house.smtputf8)
            self.spelled.append(meant)
            meant = policy.recipient(meant, self._pinned, self._house.limits, accepted=len(self.accepted), tls=self._tls)
            self.accepted.append(meant)
        except ReplyError as error:
            said = error.reply
        found = answer(self._rule_set, meant, tls=self._tls, certain=self._house.certain)
        by_rules = meant in self.spelled and str(found.acceptance) != "accept"
        acceptance = "accept" if not said.is_refusal else str(found.acceptance) if by_rules else "refused"
        why = why_refused(self._rule_set, meant, found) if by_rules else said.text if said.is_refusal else ""
        return {"recipient": meant, "acceptance": acceptance, "reply": str(said), "why": why}

    def refused(self, accepted: tuple[str, ...], found: Assessment) -> dict[str, str] | None:
        """At which command the message is refused as a whole, and the reply; None for one that is accepted."""
        after = "DATA" if accepted else "RCPT"
        for command, said in (("connect", self._connect()), ("MAIL", self._mail()), (after, self._data(accepted, found))):
            if said is not None:
                return {"command": command, "reply": str(said)}
        return None

    def _connect(self) -> Reply | None:
        address = self._envelope.peer.address
        return policy.connection(address, self._pinned, self._house.limits, connections=1, of_client=1) if address else None

    def _mail(self) -> Reply | None:
        try:
            reverse_path(f"FROM:<{self._envelope.reverse_path}>".encode(errors="surrogateescape"), utf8=self._house.smtputf8)
        except ReplyError as error:
            return error.reply
        return None

    def _data(self, accepted: tuple[str, ...], found: Assessment) -> Reply | None:
        if not accepted:
            return reply.NO_RECIPIENTS
        size = self._content.size
        if size > self._house.limits.message_size or self._pinned.too_long(size, unique(accepted), tls=self._tls):
            return reply.TOO_LARGE
        inspection = Inspection(self._house.limits)
        with self._content.open() as octets:
            while piece := octets.read(PIECE):
                inspection.feed(piece)
        return inspection.refusal(self._content.head(HEAD)) or refusal(found, self._house.reject)


def _unsent(envelope: Envelope, content: Content, found: Assessment) -> Entry:
    return Entry(envelope.message_id, envelope, content.size, State.DONE, envelope.received_at, assessment=found.to_json())


async def _worked(rule_set: RuleSet, envelope: Envelope, content: Content, found: Assessment, house: House) -> Entry:
    """The entry as the worker leaves it."""
    spool = MemorySpool(clock=lambda: envelope.received_at)
    await spool.start()
    many = Rate(1_000_000, 1.0)
    bounces = Bounces(_Nobody(), BounceTerms(house.terms.identity.hostname), Caps(many, many), monotonic=lambda: 0.0)
    worker = Worker(spool, _Nowhere(house.answers), house.terms, log.silent(), monotonic=lambda: 0.0, bounces=bounces,
                    clock=Timekeeper(lambda: envelope.received_at, lambda: 0.0))
    worker.know(rule_set)
    draft = spool.draft(envelope.message_id)
    with content.open() as reader:
        draft.add(reader.read())
    entry = await spool.put(envelope, draft, assessment=found.to_json())
    worker.take(entry)
    await worker.idle()
    await worker.stop(0.0)
    done = await spool.get(entry.id)
    await spool.stop()
    return done or entry


def _suppose(action: dict[str, Any], answers: Mapping[str, Flow]) -> None:
    """Mark what is only supposed."""
    synchronous = action["parameters"].get("InvocationType") == "RequestResponse"
    ran = action["state"] == "done"
    action["assumed"] = synchronous and ran and action["parameters"]["FunctionArn"] not in answers
    for each in (action, action["topic"] or {}):
        each.update({"state": SUPPOSED} if each.get("state") == "done" else {})
    for attempt in action["attempts"]:
        attempt["milliseconds"] = 0
        attempt["outcome"] = SUPPOSED if attempt["outcome"] == "done" else attempt["outcome"]
        attempt["detail"] = {key: value for key, value in attempt["detail"].items() if key not in _UNKNOWN}


class _Nowhere:
    """`Aws` that takes everything, keeps nothing and calls nobody."""

    def __init__(self, answers: Mapping[str, Flow]) -> None:
        self._answers = answers

    async def put_object(self, bucket: str, key: str, body: Body, *, metadata: Mapping[str, str] | None = None, role: str | None = None) -> None:
        pass

    async def publish(self, topic_arn: str, subject: str, message: str, *, role: str | None = None) -> Published:  # noqa: ARG002  # the protocol's
        return Published("")

    async def data_key(self, key_arn: str, context: Mapping[str, str], *, role: str | None = None) -> DataKey:  # noqa: ARG002  # the protocol's
        return DataKey(bytes(32), b"")

    async def invoke(self, function_arn: str, event: str, *, wait: bool) -> Answer:  # noqa: ARG002  # the protocol's signature
        return Answer(200, json.dumps({"disposition": self._answers.get(function_arn, Flow.CONTINUE)}).encode())

    async def close(self) -> None:
        pass


class _Nobody:
    """A smarthost that takes every bounce and sends none."""

    sink = "smtp"

    async def send(self, message: bytes, recipient: str, *, name: str, smtputf8: bool) -> str:  # noqa: ARG002  # the protocol's signature
        return ""
