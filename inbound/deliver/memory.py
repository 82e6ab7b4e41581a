"""The in-memory twins of AWS and of a smarthost, with fault knobs: for our tests and for users' own.

Objects, published messages and invocations are plain lists and dicts to look at; a sink can be made to fail, hang or answer.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Mapping

from inbound.deliver.aws import Answer, Body, DataKey, Published
from inbound.deliver.sinks import SinkFailure


class MemoryAws:
    """`Aws` in memory. `faults[sink]` is a list of what the next calls to that sink meet: an exception to raise, or an event to wait for.

    `down` holds sinks that fail every call with the given exception. Sinks are named `s3:BUCKET`, `sns:ARN`, `lambda:ARN`.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.metadata: dict[tuple[str, str], dict[str, str]] = {}
        self.keys: dict[bytes, tuple[bytes, dict[str, str]]] = {}
        self.roles: list[str | None] = []
        self.published: list[tuple[str, str, str]] = []
        self.invocations: list[tuple[str, str, bool]] = []
        self.calls: list[str] = []
        self.answers: dict[str, Callable[[str], bytes]] = {}
        self.faults: dict[str, list[SinkFailure | asyncio.Event]] = defaultdict(list)
        self.down: dict[str, SinkFailure] = {}
        self.closed = False
        self.called = asyncio.Condition()

    async def put_object(self, bucket: str, key: str, body: Body, *, metadata: Mapping[str, str] | None = None, role: str | None = None) -> None:
        """Keep the object and its metadata; the last put of a key wins."""
        await self._meet(f"s3:{bucket}")
        with body.open() as reader:
            data = reader.read()
        if len(data) != body.size:
            raise AssertionError(f"the body says it has {body.size} octets and gives {len(data)}")
        self.objects[bucket, key] = data
        self.metadata[bucket, key] = dict(metadata or {})
        self.roles.append(role)
        await self._tell()

    async def data_key(self, key_arn: str, context: Mapping[str, str], *, role: str | None = None) -> DataKey:
        """A new key; `keys[wrapped]` tells the key and the context it was asked for with."""
        await self._meet(f"kms:{key_arn}")
        self.roles.append(role)
        plain, wrapped = os.urandom(32), os.urandom(64)
        self.keys[wrapped] = (plain, dict(context))
        return DataKey(plain, wrapped)

    async def publish(self, topic_arn: str, subject: str, message: str, *, role: str | None = None) -> Published:
        """Keep (topic, subject, message)."""
        await self._meet(f"sns:{topic_arn}")
        self.published.append((topic_arn, subject, message))
        self.roles.append(role)
        await self._tell()
        return Published(f"00000000-0000-0000-0000-{len(self.published):012d}")

    async def invoke(self, function_arn: str, event: str, *, wait: bool) -> Answer:
        """Keep (function, event, wait); answer with `answers[function](event)`, else `null`."""
        await self._meet(f"lambda:{function_arn}")
        self.invocations.append((function_arn, event, wait))
        await self._tell()
        answer = self.answers.get(function_arn)
        return Answer(200, answer(event) if answer else b"null") if wait else Answer(202, b"")

    async def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition holds, looking again after every call."""
        async with self.called:
            await self.called.wait_for(holds)

    async def _meet(self, sink: str) -> None:
        self.calls.append(sink)
        if self.faults[sink]:
            fault = self.faults[sink].pop(0)
            if isinstance(fault, asyncio.Event):
                await self._tell()
                await fault.wait()
            else:
                await self._tell()
                raise fault
        if sink in self.down:
            await self._tell()
            raise self.down[sink]

    async def _tell(self) -> None:
        async with self.called:
            self.called.notify_all()


class MemorySmarthost:
    """`Smarthost` in memory. `sent` holds (recipient, message); `faults` is a list of what the next calls raise, `down` what every call raises."""

    def __init__(self, sink: str = "smtp:mail.test:25") -> None:
        self.sink = sink
        self.sent: list[tuple[str, bytes]] = []
        self.calls = 0
        self.faults: list[SinkFailure] = []
        self.down: SinkFailure | None = None

    async def send(self, message: bytes, recipient: str, *, name: str, smtputf8: bool) -> str:  # noqa: ARG002  # the protocol's signature
        """Keep the message."""
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        if self.down is not None:
            raise self.down
        self.sent.append((recipient, message))
        return f"250 2.0.0 OK {len(self.sent)}"
