"""Bounces made without a worker: a message at one step of a rule set, and a smarthost in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inbound.accept.envelope import Envelope, Peer
from inbound.accept.rate import Rate
from inbound.assess.rendering import BytesContent
from inbound.assess.verdicts import Assessment
from inbound.decide.engine import Mail, Step, evaluate, own_flow
from inbound.decide.rules import RuleSet
from inbound.deliver.backscatter import Caps
from inbound.deliver.bounces import Bounces, BounceTerms
from inbound.deliver.memory import MemorySmarthost
from inbound.deliver.work import Identity, Work

HOST = "mx.example.org"
MESSAGE_ID = "o2h3vbd0i5q1r8ud0c5k4b8a1n7e6tq0fls9gmp1"
RECEIVED = 1_755_105_366.2509
NOW = 1_755_105_370.0
GONE: dict[str, Any] = {"SmtpReplyCode": "550", "StatusCode": "5.1.1", "Message": "Mailbox does not exist", "Sender": "postmaster@example.com"}


def envelope(**told: Any) -> Envelope:
    """What SMTP told, as far as it is told otherwise."""
    usual: dict[str, Any] = {
        "message_id": MESSAGE_ID, "peer": Peer("192.0.2.10", 51234, "mail.sender.example"), "helo": "mail.sender.example",
        "reverse_path": "ann@sender.example", "forward_paths": ("gone@example.com",), "received_at": RECEIVED,
    }
    return Envelope(**usual | told)


def steps(rules: list[dict[str, Any]], recipients: tuple[str, ...]) -> Iterator[Step]:
    """The engine's steps for these recipients."""
    walk = evaluate(RuleSet.model_validate({"name": "default", "rules": rules, "identities": ["example.com"]}), Mail(recipients))
    step = next(walk, None)
    while step is not None:
        yield step
        try:
            step = walk.send(own_flow(step.action))
        except StopIteration:
            return


def step(**bounce: Any) -> Step:
    """The step of a rule that bounces for gone@example.com."""
    rule = {"Name": "gone", "Recipients": ["gone@example.com"], "Actions": [{"BounceAction": GONE | bounce}]}
    return next(steps([rule], ("gone@example.com",)))


async def work(raw: bytes, told: Envelope | None = None, assessment: Assessment | None = None) -> Work:
    """The message in the worker's hands."""
    made = Work(told or envelope(), assessment or Assessment(), Identity(HOST, HOST), clock=lambda: NOW)
    await made.open(BytesContent(raw))
    return made


def bounces(smarthost: MemorySmarthost, *, each: int = 1000, monotonic: Any = lambda: 0.0, **terms: Any) -> Bounces:
    """The way out, to a smarthost in memory; `each` a minute to one reverse-path."""
    return Bounces(smarthost, BounceTerms(HOST, **terms), Caps(Rate(1000, 60.0), Rate(each, 60.0)), monotonic=monotonic)
