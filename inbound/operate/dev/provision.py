"""Creates in a local AWS what the rules name, so that a rule set just works: at start and again at every reload.

It knows no particular emulator: whatever answers S3, SNS, SQS, KMS and Lambda calls at an endpoint will do.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import watchfiles

from inbound.decide.rules import RuleSet
from inbound.operate.dev.credentials import NO_PROXIES, dev_session
from inbound.operate.dev.functions import FunctionSource, bundle, by_name, sample
from inbound.operate.dev.wanted import Arn, Wanted, wanted

QUEUE_NAME_LIMIT = 80
FUNCTION_TIMEOUT = 300
"""Seconds a function may run: well over the 30 of a RequestResponse action, so that the action's own limit is what people meet."""

_ROLE = "inbound-dev"


class ProvisionError(Exception):
    """Nothing usable answers at the endpoint; the text is one line for people."""


class Provision:
    """Buckets, topics (each with a queue), keys and functions at one endpoint. Safe to repeat; it never deletes or empties anything."""

    def __init__(self, *, endpoint: str, functions: Sequence[FunctionSource] = ()) -> None:
        """`endpoint` is the URL of the local AWS. Raises ValueError when two functions have the same name."""
        self._endpoint = endpoint
        self._sources = by_name(functions)
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._said: set[str] = set()
        self._in_turn = asyncio.Lock()
        self._now = Wanted((), (), (), ())

    async def ensure(self, rule_set: RuleSet) -> list[str]:
        """Create what the enabled rules name and is not there; bring changed code in place.

        Returns a line for each thing created or changed, and one, said once, for each that cannot be. Raises ProvisionError when the
        endpoint does not answer.
        """
        self._now = wanted(rule_set)
        return await self._do(self._all)

    async def follow(self) -> AsyncIterator[list[str]]:
        """While iterated over: bring each function's code in place as soon as it changes on disk, and yield the lines that tell so.

        Seen are FILE and the sources beside it; what changes in sub-folders is loaded at the next start.
        """
        folders = {source.file.parent for source in self._sources.values()}
        if not folders:
            return
        async for _ in watchfiles.awatch(*folders, recursive=False):
            try:
                lines = await self._do(self._functions)
            except ProvisionError as error:
                lines = [str(error)]
            if lines:
                yield lines

    async def _do(self, steps: Callable[[], Iterator[str]]) -> list[str]:
        async with self._in_turn:
            return await asyncio.to_thread(lambda: list(steps()))

    # What follows runs in a thread, one call at a time.

    def _all(self) -> Iterator[str]:
        account = self._account()
        yield from self._once(
            f"rules.yaml names account {other}, but the AWS at {self._endpoint} is account {account}: what is named there cannot work; "
            f"write {account} in those ARNs" for other in dict.fromkeys(arn.account for arn in self._now.arns) if other != account)
        yield from self._each(self._bucket, self._now.buckets)
        for create, arns in ((self._topic, self._now.topics), (self._key, self._now.keys), (self._function, self._now.functions)):
            yield from self._each(create, [arn for arn in arns if arn.account == account])
        yield from self._once(f"--function {name}: no enabled rule names a function {name}"
                              for name in self._sources if name not in map(_function_name, self._now.functions))

    def _functions(self) -> Iterator[str]:
        account = self._account()
        yield from self._each(self._function, [arn for arn in self._now.functions if arn.account == account])

    def _account(self) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            account: str = self._client("sts", self._now.region).get_caller_identity()["Account"]
        except (BotoCoreError, ClientError) as error:
            raise ProvisionError(f"no AWS answers at {self._endpoint}: {error}") from None
        return account

    def _each(self, create: Callable[[Any], Iterator[str]], things: Iterable[Any]) -> Iterator[str]:
        """Go on to the next thing when one cannot be created; give up only when nothing answers."""
        from botocore.exceptions import BotoCoreError, ClientError

        for thing in things:
            try:
                yield from create(thing)
            except (ClientError, OSError) as error:
                yield from self._once([f"cannot create {getattr(thing, 'text', thing)}: {error}"])
            except BotoCoreError as error:
                raise ProvisionError(f"no AWS answers at {self._endpoint}: {error}") from None

    def _once(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                yield line

    def _client(self, service: str, region: str) -> Any:
        from botocore.config import Config

        if self._session is None:
            self._session = dev_session(region)
        if (service, region) not in self._clients:
            config = Config(proxies=NO_PROXIES, connect_timeout=5, read_timeout=30, s3={"addressing_style": "path"})
            self._clients[service, region] = self._session.client(
                service, region_name=region, endpoint_url=self._endpoint, config=config)
        return self._clients[service, region]

    def _bucket(self, name: str) -> Iterator[str]:
        region = self._now.region
        s3 = self._client("s3", region)
        if not _missing(lambda: s3.head_bucket(Bucket=name)):
            return
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **place)
        yield f"created bucket {name}"

    def _topic(self, topic: Arn) -> Iterator[str]:
        sns, sqs = self._client("sns", topic.region), self._client("sqs", topic.region)
        is_new = _missing(lambda: sns.get_topic_attributes(TopicArn=topic.text))
        created = sns.create_topic(Name=topic.resource)["TopicArn"]
        if created != topic.text:
            yield from self._once([f"rules.yaml names {topic.text}, but the AWS at {self._endpoint} can only create {created}"])
            return
        name = queue_name(topic.resource)
        queue = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic.text, Protocol="sqs", Endpoint=arn)
        if is_new:
            yield f"created topic {topic.resource}, with queue {name} subscribed to it"

    def _key(self, key: Arn) -> Iterator[str]:
        kms = self._client("kms", key.region)
        if not _missing(lambda: kms.describe_key(KeyId=key.text)):
            return
        kind, _, _ = key.resource.partition("/")
        if kind == "key":
            yield from self._once(
                [f"cannot create KMS key {key.text}: AWS chooses the ids of keys; name an alias (…:alias/NAME) in rules.yaml"])
            return
        created = kms.create_key(Description="created by inbound dev")["KeyMetadata"]
        kms.create_alias(AliasName=key.resource, TargetKeyId=created["KeyId"])
        yield f"created KMS key {key.resource}"

    def _function(self, function: Arn) -> Iterator[str]:
        name = _function_name(function)
        client = self._client("lambda", function.region)
        source = self._sources.get(name) or sample(name)
        code = bundle(source)
        if _missing(lambda: client.get_function_configuration(FunctionName=name)):
            client.create_function(
                FunctionName=name, Runtime=source.runtime, Role=self._role(function), Handler="inbound_entry.handler",
                Code={"ZipFile": code}, Timeout=FUNCTION_TIMEOUT, MemorySize=512, Description="created by inbound dev")
            yield f"created function {name} ({source})"
        elif self._refresh(client, source, code):
            yield f"updated function {name} ({source})"
        for qualifier in function.resource.split(":")[2:]:
            yield from self._qualifier(client, name, qualifier)

    @staticmethod
    def _refresh(client: Any, source: FunctionSource, code: bytes) -> bool:
        """Bring runtime and code of a function in place; was there anything to do?"""
        there = client.get_function_configuration(FunctionName=source.name)
        is_other_runtime = there["Runtime"] != source.runtime
        is_other_code = there["CodeSha256"] != base64.b64encode(hashlib.sha256(code).digest()).decode()
        if is_other_runtime:
            client.update_function_configuration(FunctionName=source.name, Runtime=source.runtime)
        if is_other_code:
            client.update_function_code(FunctionName=source.name, ZipFile=code)
        return is_other_runtime or is_other_code

    def _role(self, function: Arn) -> str:
        """A role that Lambda may take: some emulators want one that exists."""
        iam = self._client("iam", function.region)
        if _missing(lambda: iam.get_role(RoleName=_ROLE)):
            trusts = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [trusts]})
            iam.create_role(RoleName=_ROLE, AssumeRolePolicyDocument=policy)
        arn: str = iam.get_role(RoleName=_ROLE)["Role"]["Arn"]
        return arn

    @staticmethod
    def _qualifier(client: Any, name: str, qualifier: str) -> Iterator[str]:
        """An alias to the newest code, even for a version: which number AWS would give it cannot be chosen, nor would its code change."""
        if qualifier != "$LATEST" and _missing(lambda: client.get_function_configuration(FunctionName=name, Qualifier=qualifier)):
            client.create_alias(FunctionName=name, Name=qualifier, FunctionVersion="$LATEST")
            yield f"created function {name}:{qualifier}, which is always the newest code"


def queue_name(topic: str) -> str:
    """The queue that shows what a topic publishes: NAME-dev; the middle of a name too long for SQS (80) gives way to a digest."""
    if len(topic) + 4 <= QUEUE_NAME_LIMIT:
        return f"{topic}-dev"
    return f"{topic[:67]}-{hashlib.sha256(topic.encode()).hexdigest()[:8]}-dev"


def _function_name(function: Arn) -> str:
    return function.resource.split(":")[1]


def _missing(look: Callable[[], object]) -> bool:
    """Does looking for it say that it is not there? Raises ClientError when looking fails in another way."""
    from botocore.exceptions import ClientError

    try:
        look()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404 or "NotFound" in error.response["Error"]["Code"]:
            return True
        raise
    return False
