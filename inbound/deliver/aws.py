"""The one door to boto3: S3, SNS, Lambda and KMS as ports, a client per region, and which of their errors time can cure.

Credentials, profiles, regions and AWS_ENDPOINT_URL[_SERVICE] are boto3's own. It is imported on first use, in a thread: it weighs
90 MB and half a second.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar

from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown

T = TypeVar("T")
THREADS = 1024  # made as needed; more than calls are ever under way, so that slow sinks cannot take them all
SYNCHRONOUS_TIMEOUT = 30.0  # SES: a RequestResponse function has 30 seconds
_TOO_LARGE = frozenset(("EntityTooLarge", "RequestEntityTooLargeException", "RequestTooLargeException", "413"))


@dataclass(frozen=True, slots=True)
class Published:
    """SNS's id of a published message."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function answered: the HTTP status of Invoke, and the payload (empty for Event)."""

    status: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key that KMS made: 32 octets, and the same wrapped under the KMS key."""

    plain: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return "DataKey(…)"  # never in a log


class Body(Protocol):
    """The octets of an object."""

    @property
    def size(self) -> int:
        """How many octets."""
        ...

    def open(self) -> BinaryIO:
        """A new seekable reader over all octets; the caller closes it."""
        ...


class Aws(Protocol):
    """What the actions need of AWS. Every method raises SinkDown, MessageFailed or MessageRefused."""

    async def put_object(self, bucket: str, key: str, body: Body, *, metadata: Mapping[str, str] | None = None, role: str | None = None) -> None:
        """One PutObject, whatever the size. `role` is the ARN of a role to assume for it."""
        ...

    async def publish(self, topic_arn: str, subject: str, message: str, *, role: str | None = None) -> Published:
        """Publish to a standard topic, in the ARN's region."""
        ...

    async def data_key(self, key_arn: str, context: Mapping[str, str], *, role: str | None = None) -> DataKey:
        """A new AES-256 data key under a KMS key, in the ARN's region, bound to the encryption context."""
        ...

    async def invoke(self, function_arn: str, event: str, *, wait: bool) -> Answer:
        """Invoke a function, in the ARN's region: `wait` is RequestResponse, with 30 seconds and no client retries; else Event."""
        ...

    async def close(self) -> None:
        """Wait for no more calls."""
        ...


@dataclass(frozen=True)
class Access:
    """Where AWS is and who we are to it, when boto3 shall not find out by itself (`inbound dev`).

    `session` makes the boto3 session; `region` is that of what has none in its ARN (the buckets).
    """

    endpoint_url: str | None = None
    region: str | None = None
    session: Callable[[], Any] | None = None
    proxies: bool = True


class Boto3:
    """`Aws` by boto3, in threads."""

    def __init__(self, access: Access | None = None) -> None:
        self._access = access or Access()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")
        self._lock = threading.Lock()
        self._sessions: dict[str | None, Any] = {}
        self._clients: dict[tuple[str, str | None, bool, str | None], Any] = {}

    async def put_object(self, bucket: str, key: str, body: Body, *, metadata: Mapping[str, str] | None = None, role: str | None = None) -> None:
        def put() -> None:
            with body.open() as reader:
                answer = self._client("s3", self._access.region, role=role).put_object(
                    Bucket=bucket, Key=key, Body=reader, ContentLength=body.size, Metadata=dict(metadata or {}))
            if not answer.get("ETag"):
                raise SinkDown("the endpoint does not answer as S3 does (PutObject without ETag)")

        await self._call(put)

    async def publish(self, topic_arn: str, subject: str, message: str, *, role: str | None = None) -> Published:
        def publish() -> Published:
            answer = self._client("sns", _region(topic_arn), role=role).publish(TopicArn=topic_arn, Subject=subject, Message=message)
            return Published(answer["MessageId"])

        return await self._call(publish)

    async def data_key(self, key_arn: str, context: Mapping[str, str], *, role: str | None = None) -> DataKey:
        def generate() -> DataKey:
            client = self._client("kms", _region(key_arn), role=role)
            answer = client.generate_data_key(KeyId=key_arn, KeySpec="AES_256", EncryptionContext=dict(context))
            return DataKey(answer["Plaintext"], answer["CiphertextBlob"])

        return await self._call(generate)

    async def invoke(self, function_arn: str, event: str, *, wait: bool) -> Answer:
        def invoke() -> Answer:
            client = self._client("lambda", _region(function_arn), single=True)
            answer = client.invoke(FunctionName=function_arn, InvocationType="RequestResponse" if wait else "Event", Payload=event.encode())
            payload: bytes = answer["Payload"].read()
            if answer["StatusCode"] not in ((200,) if wait else (200, 202)):
                raise SinkDown(f"the endpoint does not answer as Lambda does ({answer['StatusCode']} to Invoke)")
            if answer.get("FunctionError"):
                raise MessageFailed(f"the function failed ({answer['FunctionError']}): {_function_error(payload)}")
            return Answer(int(answer["StatusCode"]), payload)

        return await self._call(invoke)

    async def look(self, on: str, name: str, *, role: str | None = None) -> None:
        """Is the bucket, topic, key, function or role there, and ours to use? Harmless: changes nothing. Raises SinkDown."""
        def head() -> None:
            if on == "bucket":
                self._client("s3", self._access.region, role=role).head_bucket(Bucket=name)
            elif on == "topic":
                self._client("sns", _region(name), role=role).get_topic_attributes(TopicArn=name)
            elif on == "key":
                self._client("kms", _region(name), role=role).describe_key(KeyId=name)
            elif on == "function":
                self._client("lambda", _region(name), single=True).invoke(FunctionName=name, InvocationType="DryRun")
            else:
                self._client("sts", None).assume_role(RoleArn=name, RoleSessionName="inbound")

        await self._call(head)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _call(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return work()
            except (SinkDown, MessageFailed, MessageRefused):
                raise
            except Exception as error:
                raise _failure(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, guarded)

    def _client(self, service: str, region: str | None, *, single: bool = False, role: str | None = None) -> Any:
        key = (service, region, single, role)
        client = self._clients.get(key)
        if client is None:
            with self._lock:
                client = self._clients.get(key)
                if client is None:
                    client = self._clients[key] = self._make(self._as(role), service, region, single=single)
        return client

    def _as(self, role: str | None) -> Any:
        """The session of a role; credentials are renewed well before they expire. Without a role our own."""
        if role not in self._sessions:
            import boto3  # noqa: PLC0415  # on first use, see above

            if role is None:
                self._sessions[role] = self._access.session() if self._access.session else boto3.session.Session()
            else:
                self._sessions[role] = _assumed(self._as(None), role, self._make(self._as(None), "sts", None, single=False))
        return self._sessions[role]

    def _make(self, session: Any, service: str, region: str | None, *, single: bool) -> Any:
        from botocore.config import Config  # noqa: PLC0415  # on first use, see above

        config = Config(
            connect_timeout=5, read_timeout=SYNCHRONOUS_TIMEOUT if single else 60, max_pool_connections=64,
            retries={"mode": "standard", "total_max_attempts": 1 if single else 2}, user_agent_extra="inbound",
            proxies=None if self._access.proxies else {},
        )
        region = region or self._access.region or session.region_name or "us-east-1"
        return session.client(service, region_name=region, endpoint_url=self._access.endpoint_url, config=config)


def _assumed(session: Any, role: str, sts: Any) -> Any:
    """A boto3 session whose credentials are the role's, taken from STS when they are needed and again before they end."""
    import boto3  # noqa: PLC0415  # on first use, see above
    import botocore.session  # noqa: PLC0415
    from botocore.credentials import DeferredRefreshableCredentials  # noqa: PLC0415

    def fetch() -> dict[str, str]:
        found = sts.assume_role(RoleArn=role, RoleSessionName="inbound")["Credentials"]
        return {"access_key": found["AccessKeyId"], "secret_key": found["SecretAccessKey"], "token": found["SessionToken"],
                "expiry_time": found["Expiration"].isoformat()}

    core = botocore.session.Session()
    renewed = DeferredRefreshableCredentials(refresh_using=fetch, method="sts-assume-role")
    core._credentials = renewed  # type: ignore[attr-defined]  # botocore has no public way to set credentials that renew themselves
    return boto3.session.Session(botocore_session=core, region_name=session.region_name)


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _function_error(payload: bytes) -> str:
    try:
        data = json.loads(payload)
        return f"{data.get('errorType', '')}: {data.get('errorMessage', '')}"[:500]
    except (ValueError, AttributeError):
        return payload[:500].decode("utf-8", "replace")


def _failure(error: Exception) -> SinkDown | MessageRefused:
    """Final is only what no repetition could cure; everything that an operator or time can repair is retried."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
        text = str(response.get("Error", {}).get("Message", "")).strip()
        too_long = code == "InvalidParameter" and "too long" in text.lower()
        if code in _TOO_LARGE or too_long or response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 413:
            return MessageRefused(f"{code}: {text}")
        return SinkDown(f"{code}: {text}" if code else str(error))
    if isinstance(error, KeyError | RecursionError):  # boto3 met something that it takes for an answer
        return SinkDown("the endpoint does not answer as AWS does")
    return SinkDown(" ".join(f"{type(error).__name__}: {error}".split()))
