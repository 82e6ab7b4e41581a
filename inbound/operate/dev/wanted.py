"""What a rule set names in AWS, read from its enabled rules: the buckets, topics, functions and keys that `inbound dev` creates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from inbound.decide.rules import S3, Lambda, RuleSet

DEFAULT_ACCOUNT = "000000000000"
DEFAULT_REGION = "us-east-1"
QUEUE_NAME_LIMIT = 80


@dataclass(frozen=True)
class Arn:
    """The parts of an ARN that rules name (AWS General Reference, "Amazon Resource Names")."""

    text: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Arn:
        """From `arn:partition:service:region:account:resource`, which the rule models have checked."""
        _, _, _, region, account, resource = text.split(":", 5)
        return cls(text, region, account, resource)


@dataclass(frozen=True)
class Wanted:
    """Each resource once, in the order in which the rules first name it."""

    buckets: tuple[str, ...]
    topics: tuple[Arn, ...]
    functions: tuple[Arn, ...]
    keys: tuple[Arn, ...]

    @property
    def arns(self) -> tuple[Arn, ...]:
        """Every ARN; buckets have none of their own here."""
        return (*self.topics, *self.functions, *self.keys)

    @property
    def account(self) -> str:
        """The account the local AWS should stand for: the first one named; 000000000000 when none is."""
        return next((arn.account for arn in self.arns), DEFAULT_ACCOUNT)

    @property
    def region(self) -> str:
        """Where what has no region of its own (the buckets) goes: the first region named; us-east-1 when none is."""
        return next((arn.region for arn in self.arns), DEFAULT_REGION)


def wanted(rule_set: RuleSet) -> Wanted:
    """What the enabled rules name."""
    named = list(_named(rule_set))

    def arns(kind: str) -> tuple[Arn, ...]:
        return tuple(Arn.parse(text) for text in dict.fromkeys(text for k, text in named if k == kind))

    return Wanted(tuple(dict.fromkeys(name for kind, name in named if kind == "bucket")), arns("topic"), arns("function"), arns("key"))


def _named(rule_set: RuleSet) -> Iterator[tuple[str, str]]:
    for action in (action.only for rule in rule_set.rules if rule.Enabled for action in rule.Actions):
        if isinstance(action, S3):
            yield "bucket", action.BucketName
            if action.KmsKeyArn:
                yield "key", action.KmsKeyArn
        if isinstance(action, Lambda):
            yield "function", action.FunctionArn
        if action.TopicArn:
            yield "topic", action.TopicArn


def queue_name(topic: str) -> str:
    """The queue that shows what a topic publishes: NAME-dev; the middle of a name too long for SQS (80) gives way to a digest."""
    if len(topic) + len("-dev") <= QUEUE_NAME_LIMIT:
        return f"{topic}-dev"
    return f"{topic[:67]}-{hashlib.sha256(topic.encode()).hexdigest()[:8]}-dev"
