"""Publish: what goes to one topic at the same moment goes together (PublishBatch), and each message has its own outcome.

A batch never decides that a message fails. What it does not say was published is published by itself, and that answer counts: so one bad
message harms no other, and the words for people are those of Publish.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from inbound.deliver.aws import Published
from inbound.deliver.aws.calls import Calls, Failed
from inbound.deliver.aws.errors import elements
from inbound.deliver.aws.form import form
from inbound.deliver.aws.routes import Route, Routes
from inbound.deliver.sinks import SinkDown, SinkFailure

MOMENT = 0.001  # seconds for which a message waits for company after a quiet time
GATHER = 0.01  # seconds from one call for a topic to the next, unless a batch is full: a call costs more than a message
TOGETHER = 10  # SNS's limit for a batch
OCTETS = 262_144  # SNS's limit for all messages of a batch
_UNKNOWN = frozenset(("InvalidAction", "UnknownOperationException", "UnknownOperation", "NotImplemented", "UnsupportedOperation"))


@dataclass(slots=True, eq=False)
class Letter:
    """A message to publish, and who waits for its outcome."""

    subject: str
    message: bytes
    outcome: asyncio.Future[Published]

    @property
    def octets(self) -> int:
        """What it counts in a batch."""
        return len(self.subject) + len(self.message)


class Topics:
    """All topics."""

    def __init__(self, calls: Calls, routes: Routes) -> None:
        self._calls = calls
        self._routes = routes
        self._gathering: dict[tuple[str, str | None], list[Letter]] = {}
        self._went: dict[tuple[str, str | None], float] = {}  # when the last call was made, by the loop's clock
        self._knows_no_batches: set[str] = set()  # origins
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, topic_arn: str, subject: str, message: str, *, role: str | None) -> Published:
        """Publish it. Raises SinkFailure, Failed."""
        loop = asyncio.get_running_loop()
        letter = Letter(subject, message.encode("utf-8", "replace"), loop.create_future())
        gathered = self._gathering.setdefault((topic_arn, role), [])
        gathered.append(letter)
        if len(gathered) == 1:
            wait = self._went.get((topic_arn, role), 0.0) + GATHER - loop.time()
            loop.call_later(max(MOMENT, wait), self._go, topic_arn, role, gathered)
        elif len(gathered) == TOGETHER:
            self._go(topic_arn, role, gathered)
        return await letter.outcome

    async def close(self) -> None:
        """Publish nothing more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _go(self, topic_arn: str, role: str | None, gathered: list[Letter]) -> None:
        if self._gathering.get((topic_arn, role)) is not gathered:
            return  # they went when they were enough
        del self._gathering[topic_arn, role]
        self._went[topic_arn, role] = asyncio.get_running_loop().time()
        letters = [letter for letter in gathered if not letter.outcome.done()]
        for batch in batches(letters):
            self._spawn(self._publish(topic_arn, batch, role), batch)

    def _spawn(self, work: Coroutine[None, None, None], letters: Sequence[Letter]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for letter in letters:
                if not letter.outcome.done():
                    letter.outcome.cancel()

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def _publish(self, topic_arn: str, letters: Sequence[Letter], role: str | None) -> None:
        """Settle the outcome of every letter."""
        try:
            route = await self._routes.topics(topic_arn.split(":")[3])
            if len(letters) == 1:
                await self._alone(route, topic_arn, letters[0], role)
            elif route.origin in self._knows_no_batches:
                await asyncio.gather(*(self._alone(route, topic_arn, letter, role) for letter in letters))
            else:
                await self._together(route, topic_arn, letters, role)
        except (SinkFailure, Failed) as error:
            _fail(letters, error)

    async def _together(self, route: Route, topic_arn: str, letters: Sequence[Letter], role: str | None) -> None:
        """One PublishBatch, and a Publish for whatever that did not take. Raises SinkDown, Failed when none of them shall be tried now."""
        published, is_unknown = await self._batch(route, topic_arn, letters, role)
        for number, message_id in published.items():
            _settle(letters[number], Published(message_id))
        left = [letter for letter in letters if not letter.outcome.done()]
        if not left:
            return
        await asyncio.gather(*(self._alone(route, topic_arn, letter, role) for letter in left))
        if is_unknown or (not published and all(not each.outcome.cancelled() and not each.outcome.exception() for each in letters)):
            self._knows_no_batches.add(route.origin)

    async def _batch(self, route: Route, topic_arn: str, letters: Sequence[Letter], role: str | None) -> tuple[dict[int, str], bool]:
        """The ids of the messages that were published, by their place; and does the endpoint say that it knows no batches?"""
        fields: list[tuple[bytes, str | bytes]] = [(b"Action", "PublishBatch"), (b"Version", "2010-03-31"), (b"TopicArn", topic_arn)]
        for number, letter in enumerate(letters):
            entry = b"PublishBatchRequestEntries.member.%d." % (number + 1)
            fields += [(entry + b"Id", str(number)), (entry + b"Message", letter.message), (entry + b"Subject", letter.subject)]
        try:
            answer = await self._call(route, fields, role)
        except Failed as error:
            if error.trouble.is_throttling:
                raise
            return {}, error.trouble.code in _UNKNOWN
        return _published(answer, len(letters)), False

    async def _alone(self, route: Route, topic_arn: str, letter: Letter, role: str | None) -> None:
        fields: list[tuple[bytes, str | bytes]] = [
            (b"Action", "Publish"), (b"Version", "2010-03-31"), (b"TopicArn", topic_arn), (b"Message", letter.message), (b"Subject", letter.subject),
        ]
        try:
            (message_id,) = elements(await self._call(route, fields, role), "MessageId")
            if not message_id:
                raise SinkDown("the endpoint does not answer as AWS does (Publish without MessageId)")
        except (SinkFailure, Failed) as error:
            _fail((letter,), error)
        else:
            _settle(letter, Published(message_id))

    async def _call(self, route: Route, fields: Sequence[tuple[bytes, str | bytes]], role: str | None) -> bytes:
        body = form(fields)
        return (await self._calls.call(route, body, hashlib.sha256(body).hexdigest(), role=role)).body


def batches(letters: Sequence[Letter]) -> list[list[Letter]]:
    """In order, as many together as SNS takes."""
    made: list[list[Letter]] = []
    room = 0
    for letter in letters:
        if not made or len(made[-1]) == TOGETHER or letter.octets > room:
            made.append([])
            room = OCTETS
        made[-1].append(letter)
        room -= letter.octets
    return made


def _published(answer: bytes, count: int) -> dict[int, str]:
    """What a PublishBatch says of those that it took: message ids by place."""
    try:
        root = ElementTree.fromstring(answer)  # noqa: S314  # expat bounds what entities may become, and the answer is bounded
    except (ElementTree.ParseError, ValueError):
        return {}
    found: dict[int, str] = {}
    for successful in root.iter():
        if successful.tag.rpartition("}")[2] == "Successful":
            for member in successful:
                told = {each.tag.rpartition("}")[2]: (each.text or "").strip() for each in member}
                number = told.get("Id", "")
                if number.isdecimal() and int(number) < count and told.get("MessageId"):
                    found[int(number)] = told["MessageId"]
    return found


def _settle(letter: Letter, published: Published) -> None:
    if not letter.outcome.done():
        letter.outcome.set_result(published)


def _fail(letters: Sequence[Letter], error: SinkFailure | Failed) -> None:
    """Each waits for itself, so each has an exception of its own."""
    for letter in letters:
        if not letter.outcome.done():
            failure = error.trouble.failure() if isinstance(error, Failed) else type(error)(str(error))
            failure.__cause__ = error
            letter.outcome.set_exception(failure)
