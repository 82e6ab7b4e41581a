"""A worker on the in-memory twins, with a clock that only tests move."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import structlog

from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.rate import Rate
from inbound.accept.spool import Entry, State
from inbound.accept.spool.memory import MemorySpool
from inbound.decide.engine import StopScope
from inbound.decide.rules import RuleFile, RuleSet
from inbound.deliver.backscatter import Caps
from inbound.deliver.bounces import Bounces, BounceTerms
from inbound.deliver.memory import MemoryAws, MemorySmarthost
from inbound.deliver.retry import Schedule
from inbound.deliver.shadow import Shadow
from inbound.deliver.timekeeper import Timekeeper
from inbound.deliver.work import Identity
from inbound.deliver.worker import Terms, Worker

TOPIC = "arn:aws:sns:us-east-1:000000000000:inbound"
OTHER_TOPIC = "arn:aws:sns:us-east-1:000000000000:other"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:handler"
MESSAGE = b"From: a@example.net\r\nTo: u@example.com\r\nSubject: hi\r\n\r\nbody\r\n"

S3 = {"S3Action": {"BucketName": "mail"}}
S3_TOPIC = {"S3Action": {"BucketName": "mail", "TopicArn": TOPIC}}
SNS = {"SNSAction": {"TopicArn": OTHER_TOPIC}}
EVENT = {"LambdaAction": {"FunctionArn": FUNCTION}}
REQUEST = {"LambdaAction": {"FunctionArn": FUNCTION, "InvocationType": "RequestResponse"}}
STOP = {"StopAction": {"Scope": "RuleSet"}}


def header(name: str, value: str = "x") -> dict[str, Any]:
    return {"AddHeaderAction": {"HeaderName": name, "HeaderValue": value}}


def rule(name: str, *actions: dict[str, Any], to: str = "example.com", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Recipients": [to], "Actions": list(actions), **more}


def rule_set(*rules: dict[str, Any]) -> RuleSet:
    return RuleFile.model_validate({"RuleSets": {"default": rules}}).active()


class Bench:
    """`send` puts a message into the spool and hands it to the worker, as the intake does."""

    def __init__(self, *rules: dict[str, Any], spool: MemorySpool | None = None, smarthost: MemorySmarthost | None = None,
                 shadow: Path | None = None, **terms: Any) -> None:
        self.now = 1_000_000.0
        self.ticks = 0.0
        self.set = 0.0
        self.rules = rule_set(*rules)
        self.spool = spool or MemorySpool(clock=lambda: self.now)
        self.aws = MemoryAws()
        caps = Caps(Rate(1000, 3600.0), Rate(20, 3600.0))
        self.bounces = Bounces(smarthost, BounceTerms("mx.test"), caps, monotonic=lambda: self.ticks) if smarthost else None
        self.shadow_state = shadow
        terms = {"schedule": Schedule(60, 900, 4 * 3600)} | terms
        self.worker = self.new_worker(terms)
        self.terms = terms

    def new_worker(self, terms: dict[str, Any]) -> Worker:
        self.shadow = Shadow(self.spool, self.shadow_state or Path("nowhere"), structlog.get_logger(), clock=lambda: self.now,
                             stop_scope=terms.get("stop_scope", StopScope.RECIPIENTS))
        return Worker(self.spool, self.aws, Terms(Identity("mx.test", "mx.test"), **terms), structlog.get_logger(),
                      clock=Timekeeper(lambda: self.now, lambda: self.now - self.set), monotonic=lambda: self.ticks, bounces=self.bounces,
                      shadow=self.shadow)

    async def __aenter__(self) -> Bench:
        await self.spool.start()
        await self.spool.keep_revision(self.rules.revision, self.rules.text)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.stop(1)
        await self.spool.stop()

    async def send(self, *recipients: str, content: bytes = MESSAGE, work: bool = True) -> str:
        envelope = Envelope(new_message_id(), Peer("192.0.2.1"), "client.test", "a@example.net", recipients or ("u@example.com",), self.now,
                            revision=self.rules.revision)
        draft = self.spool.draft(envelope.message_id)
        draft.add(content)
        entry = await self.spool.put(envelope, draft)
        self.worker.take(entry)
        if work:
            await self.worker.idle()
        return entry.id

    def set_clock(self, seconds: float) -> None:
        """Set the wall clock; no time passes."""
        self.now += seconds
        self.set += seconds

    async def later(self, seconds: float) -> None:
        """Let time pass, and work what has come due."""
        self.now += seconds
        self.ticks += seconds
        for entry in await self.spool.claim(self.now, 100):
            self.worker.take(entry)
        await self.worker.idle()

    async def crash(self) -> None:
        """End the process without a word and start another on what the disk holds."""
        for task in list(self.worker._tasks.values()):
            task.cancel()
        await asyncio.gather(*self.worker._tasks.values(), return_exceptions=True)
        self.spool = self.spool.crash()
        await self.spool.start()
        self.worker = self.new_worker(self.terms)
        for entry in await self.spool.claim(self.now, 100):
            self.worker.take(entry)
        await self.worker.idle()

    async def entry(self, message_id: str) -> Entry:
        found = await self.spool.get(message_id)
        assert found is not None
        return found

    async def state(self, message_id: str) -> State:
        return (await self.entry(message_id)).state

    def notified(self) -> list[tuple[str, str]]:
        """(topic name, action type) of every notification."""
        return [(topic.rsplit(":", 1)[1], json.loads(message)["receipt"]["action"]["type"]) for topic, _, message in self.aws.published]
