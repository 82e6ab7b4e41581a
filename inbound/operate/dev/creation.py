"""Creates what is wanted at one AWS endpoint, by plain boto3 calls that block. Importing it loads boto3.

It knows no particular emulator: whatever answers S3, SNS, SQS, KMS, Lambda, IAM and STS calls will do.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from inbound.operate.dev.functions import FunctionSource, bundle, sample
from inbound.operate.dev.session import NO_PROXIES, dev_session
from inbound.operate.dev.wanted import Arn, Wanted, queue_name

FUNCTION_TIMEOUT = 300
"""Seconds a function may run: well over the 30 of a RequestResponse action, so that the action's own limit is what people meet."""

_ROLE = "inbound-dev"

_NOT_AWS = (BotoCoreError, ResponseParserError)
"""What boto3 raises where nothing answers, and where what answers is no AWS."""


class NoAnswerError(Exception):
    """Nothing usable answers at the endpoint; the text is one line for people."""


class Creation:
    """Its generators yield one line for each thing created or changed, and one, said once, for each that cannot be.

    They may be run again and again, one at a time, and never delete or empty anything. They raise NoAnswerError.
    """

    def __init__(self, endpoint: str, sources: Mapping[str, FunctionSource]) -> None:
        self._endpoint = endpoint
        self._sources = sources
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._said: set[str] = set()

    def everything(self, wanted: Wanted) -> Iterator[str]:
        """Create what is wanted and not there, and bring changed code in place."""
        account = self._account(wanted)
        for other in dict.fromkeys(arn.account for arn in wanted.arns if arn.account != account):
            yield from self._once(f"rules.yaml names account {other}, but the AWS at {self._endpoint} is account {account}: "
                                  f"what is named there cannot work; write {account} in those ARNs")
        for name in wanted.buckets:
            yield from self._try(partial(self._bucket, name, wanted.region), f"bucket {name}")
        for create, arns in ((self._topic, wanted.topics), (self._key, wanted.keys)):
            for arn in arns:
                if arn.account == account:
                    yield from self._try(partial(create, arn), arn.text)
        yield from self.functions(wanted)
        for name in self._sources:
            if name not in {_function_name(arn) for arn in wanted.functions}:
                yield from self._once(f"--function {name}: no enabled rule names a function {name}")

    def functions(self, wanted: Wanted) -> Iterator[str]:
        """The same for the functions alone."""
        account = self._account(wanted)
        for arn in wanted.functions:
            if arn.account == account:
                yield from self._try(partial(self._function, arn), arn.text)

    def _account(self, wanted: Wanted) -> str:
        try:
            account: str = self._client("sts", wanted.region).get_caller_identity()["Account"]
        except (ClientError, KeyError, ValueError, *_NOT_AWS) as error:  # ValueError: a URL that is none
            raise self._no_answer(error) from None
        return account

    def _try(self, create: Callable[[], Iterator[str]], what: str) -> Iterator[str]:
        """One thing that cannot be created does not keep the others from it."""
        try:
            yield from create()
        except (ClientError, OSError) as error:
            yield from self._once(f"cannot create {what}: {error}")
        except _NOT_AWS as error:
            raise self._no_answer(error) from None

    def _no_answer(self, error: Exception) -> NoAnswerError:
        return NoAnswerError(f"no AWS answers at {self._endpoint}: {next(iter(str(error).splitlines()), repr(error))}")

    def _once(self, line: str) -> Iterator[str]:
        if line not in self._said:
            self._said.add(line)
            yield line

    def _client(self, service: str, region: str) -> Any:
        if self._session is None:
            self._session = dev_session(region)
        if (service, region) not in self._clients:
            config = Config(proxies=NO_PROXIES, connect_timeout=5, read_timeout=30, s3={"addressing_style": "path"})
            self._clients[service, region] = self._session.client(
                service, region_name=region, endpoint_url=self._endpoint, config=config)
        return self._clients[service, region]

    def _bucket(self, name: str, region: str) -> Iterator[str]:
        s3 = self._client("s3", region)
        if _missing(lambda: s3.head_bucket(Bucket=name)):
            place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            s3.create_bucket(Bucket=name, **place)
            yield f"created bucket {name}"

    def _topic(self, topic: Arn) -> Iterator[str]:
        sns, sqs = self._client("sns", topic.region), self._client("sqs", topic.region)
        is_new = _missing(lambda: sns.get_topic_attributes(TopicArn=topic.text))
        created = sns.create_topic(Name=topic.resource)["TopicArn"]
        if created != topic.text:
            yield from self._once(f"rules.yaml names {topic.text}, but the AWS at {self._endpoint} can only create {created}")
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
        if not key.resource.startswith("alias/"):
            yield from self._once(f"cannot create KMS key {key.text}: AWS chooses the ids of keys; "
                                  "name an alias (…:alias/NAME) in rules.yaml")
            return
        created = kms.create_key(Description="created by inbound dev")["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=key.resource, TargetKeyId=created)
        yield f"created KMS key {key.resource}"

    def _function(self, function: Arn) -> Iterator[str]:
        name = _function_name(function)
        client = self._client("lambda", function.region)
        source = self._sources.get(name) or sample(name)
        code = bundle(source)
        if _missing(lambda: client.get_function_configuration(FunctionName=name)):
            client.create_function(
                FunctionName=name, Runtime=source.runtime, Role=self._role(function.region), Handler="inbound_entry.handler",
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
        is_other_runtime: bool = there["Runtime"] != source.runtime
        is_other_code: bool = there["CodeSha256"] != base64.b64encode(hashlib.sha256(code).digest()).decode()
        if is_other_runtime:
            client.update_function_configuration(FunctionName=source.name, Runtime=source.runtime)
        if is_other_code:
            client.update_function_code(FunctionName=source.name, ZipFile=code)
        return is_other_runtime or is_other_code

    def _role(self, region: str) -> str:
        """A role that Lambda may take: some emulators want one that exists."""
        iam = self._client("iam", region)
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


def _function_name(function: Arn) -> str:
    return function.resource.split(":")[1]


def _missing(look: Callable[[], object]) -> bool:
    """Does looking for it say that it is not there? Raises ClientError when looking fails in another way."""
    try:
        look()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404 or "NotFound" in error.response["Error"]["Code"]:
            return True
        raise
    return False
