"""AWS as the actions see it: the contract. `client` keeps it over HTTP, `deliver.memory` is its twin for tests.

One way leads to S3, SNS and Lambda. botocore says where a call goes (`routes`) and as whom (`sessions`, `credentials`), for it knows
profiles, roles, endpoints and regions; once it has said so, we write the request (`objects`, `topics`, `functions`), sign it (`signing`)
and send it ourselves (`http`), for its own calls cost five times as much. What goes there seldom (KMS, STS, the doctor) is botocore's call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol


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
    """Where AWS is and who we are to it, when botocore shall not find out by itself (`inbound dev`).

    `session` makes the botocore session; `region` is that of what has none in its ARN (the buckets).
    """

    endpoint_url: str | None = None
    region: str | None = None
    session: Callable[[], Any] | None = None
    proxies: bool = True
