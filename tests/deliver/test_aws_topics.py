"""Messages for one topic go together, and each has its own outcome."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink import Sink
from wire import Asked, Wire, failure, http

from inbound.deliver.aws import Access, Published
from inbound.deliver.aws.client import AwsClient
from inbound.deliver.aws.topics import OCTETS, TOGETHER, Letter, batches
from inbound.deliver.sinks import MessageRefused, SinkDown
from inbound.operate.dev.session import core_session

TOPIC = "arn:aws:sns:us-east-1:123456789012:inbound"
ROLE = "arn:aws:iam::123456789012:role/mail"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions need not wait."""
    monkeypatch.setattr("inbound.deliver.aws.calls.BACKOFF", 0.0)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


@pytest.fixture
async def aws(sink: Sink) -> AsyncIterator[AwsClient]:
    client = made(sink.endpoint)
    yield client
    await client.close()


def made(endpoint: str) -> AwsClient:
    return AwsClient(Access(endpoint, "us-east-1", lambda: core_session("us-east-1"), proxies=False))


async def outcomes(aws: AwsClient, *messages: str, topic: str = TOPIC) -> list[Published | BaseException]:
    return await asyncio.gather(*(aws.publish(topic, "subject", message) for message in messages), return_exceptions=True)


async def test_what_is_published_at_the_same_moment_goes_together(aws: AwsClient, sink: Sink) -> None:
    told = await outcomes(aws, *map(str, range(23)))
    assert sorted(sink.batches) == [3, 10, 10]  # each has a call of its own, and none waits for another
    assert Counter(sink.published) == Counter((TOPIC, str(n)) for n in range(23))
    assert all(isinstance(each, Published) for each in told)
    assert [sink.published[int(each.message_id) - 1][1] for each in told if isinstance(each, Published)] == [str(n) for n in range(23)]


async def test_after_a_call_others_gather_until_they_are_enough(aws: AwsClient, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inbound.deliver.aws.topics.GATHER", 3600.0)
    assert await outcomes(aws, "first") == [Published("1")]
    waiting = [asyncio.create_task(aws.publish(TOPIC, "s", str(n))) for n in range(9)]
    elsewhere = await outcomes(aws, "x", topic=f"{TOPIC}-other")
    assert elsewhere == [Published("2")]
    assert not any(each.done() for each in waiting)
    assert await outcomes(aws, "last") == [Published("12")]
    await asyncio.gather(*waiting)
    assert sink.batches == [10]


async def test_one_alone_goes_by_publish(aws: AwsClient, sink: Sink) -> None:
    assert await outcomes(aws, "m") == [Published("1")]
    assert sink.batches == []


async def test_topics_and_roles_are_kept_apart(aws: AwsClient, sink: Sink) -> None:
    topics = [f"{TOPIC}-{n}" for n in range(100)]
    await asyncio.gather(*(aws.publish(topic, "s", f"{topic} {n}") for n in range(3) for topic in topics),
                         *(aws.publish(TOPIC, "s", "as ourselves") for _ in range(2)),
                         *(aws.publish(TOPIC, "s", "as a role", role=ROLE) for _ in range(2)))
    assert sorted(sink.batches) == [2, 2, *[3] * 100]
    assert all(message.startswith(topic) for topic, message in sink.published if topic != TOPIC)
    assert len(sink.published) == 304


async def test_a_message_that_is_refused_harms_no_other(aws: AwsClient, sink: Sink) -> None:
    sink.refused = "bad"
    told = await outcomes(aws, "a", "bad", "c", "d")
    assert [type(each) for each in told] == [Published, SinkDown, Published, Published]
    assert str(told[1]) == "InvalidParameter: Invalid parameter: Message"
    assert sink.batches == [4]
    assert [message for _, message in sink.published] == ["a", "c", "d"]


async def test_a_batch_that_fails_gives_each_its_own_failure(aws: AwsClient, sink: Sink) -> None:
    sink.fails, sink.code = 403, "AuthorizationError"
    told = await outcomes(aws, *"abc")
    assert [str(each) for each in told] == ["AuthorizationError: told to fail"] * 3
    assert len({id(each) for each in told}) == 3
    sink.fails = 0
    assert all(isinstance(each, Published) for each in await outcomes(aws, *"abc"))
    assert sink.batches == [3]  # a topic that was refused is no reason to send no more batches


async def test_an_endpoint_that_knows_no_batches_gets_none_from_then_on(aws: AwsClient, sink: Sink) -> None:
    sink.knows_batches = False
    assert all(isinstance(each, Published) for each in await outcomes(aws, *"abc"))
    calls = len(sink.keys)
    assert all(isinstance(each, Published) for each in await outcomes(aws, *"def"))
    assert len(sink.keys) == calls + 3


@pytest.mark.parametrize("answer", [http(404, "not found"), http(501, ""), http(500, "oops"), http(200, "<html></html>"), http(200, ""),
                                    http(200, "<PublishResponse><PublishResult><MessageId>9</MessageId></PublishResult></PublishResponse>")])
async def test_whatever_an_emulator_says_to_a_batch_is_not_its_messages_failure(answer: bytes) -> None:
    single = http(200, "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>")

    def answered(asked: Asked) -> bytes:
        return answer if b"Action=PublishBatch" in asked.body else single

    async with Wire(answered) as wire:
        aws = made(wire.endpoint)
        assert await outcomes(aws, "a", "b") == [Published("1")] * 2
        before = len(wire.asked)
        assert await outcomes(aws, "a", "b") == [Published("1")] * 2
        assert len(wire.asked) == before + 2
        await aws.close()


async def test_a_topic_that_throttles_gets_no_more_for_it() -> None:
    async with Wire(lambda _: http(400, f"<ErrorResponse>{failure('Throttling', 'Rate exceeded')}</ErrorResponse>")) as wire:
        aws = made(wire.endpoint)
        assert [str(each) for each in await outcomes(aws, *"abc")] == ["Throttling: Rate exceeded"] * 3
        assert len(wire.asked) == 2
        await aws.close()


async def test_a_batch_without_an_answer_fails_each_and_is_not_published_one_by_one() -> None:
    async with Wire(lambda _: None) as wire:
        aws = made(wire.endpoint)
        told = await outcomes(aws, *"abc")
        assert all(isinstance(each, SinkDown) and "ConnectionClosedError" in str(each) for each in told)
        assert len(wire.asked) == 2
        await aws.close()


async def test_a_message_that_the_answer_does_not_tell_of_is_published_again() -> None:
    def answered(asked: Asked) -> bytes:
        if b"Action=PublishBatch" in asked.body:
            told = "".join(f"<member><Id>{n}</Id><MessageId>b{n}</MessageId></member>" for n in ("0", "7", "x", "-1"))
            return http(200, f"<PublishBatchResponse><PublishBatchResult><Successful>{told}</Successful></PublishBatchResult></PublishBatchResponse>")
        return http(200, "<PublishResponse><PublishResult><MessageId>alone</MessageId></PublishResult></PublishResponse>")

    async with Wire(answered) as wire:
        aws = made(wire.endpoint)
        assert await outcomes(aws, "a", "b") == [Published("b0"), Published("alone")]
        await aws.close()


async def test_a_topic_that_hangs_holds_up_no_other(aws: AwsClient, sink: Sink) -> None:
    sink.hang, sink.hangs = asyncio.Event(), b"slow"
    slow = asyncio.create_task(outcomes(aws, *"abc", topic=f"{TOPIC}-slow"))
    assert all(isinstance(each, Published) for each in await asyncio.wait_for(outcomes(aws, *"def"), 10))
    assert not slow.done()
    sink.hang.set()
    assert all(isinstance(each, Published) for each in await asyncio.wait_for(slow, 10))


async def test_one_that_is_cancelled_takes_no_other_with_it(aws: AwsClient, sink: Sink) -> None:
    sink.hang = asyncio.Event()
    calls = [asyncio.create_task(aws.publish(TOPIC, "s", str(n))) for n in range(3)]
    await sink.until(lambda: sink.keys)
    calls[1].cancel()
    sink.hang.set()
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in told] == [Published, asyncio.CancelledError, Published]


async def test_one_that_is_cancelled_before_it_goes_does_not_go(aws: AwsClient, sink: Sink) -> None:
    calls = [asyncio.create_task(aws.publish(TOPIC, "s", "warm"))]
    await asyncio.gather(*calls)
    calls = [asyncio.create_task(aws.publish(TOPIC, "s", str(n))) for n in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert [message for _, message in sink.published] == ["warm", "0", "2"]


async def test_the_end_leaves_nobody_waiting(sink: Sink) -> None:
    sink.hang = asyncio.Event()
    aws = made(sink.endpoint)
    calls = [asyncio.create_task(aws.publish(TOPIC, "s", str(n))) for n in range(3)]
    await sink.until(lambda: sink.keys)
    late = asyncio.create_task(aws.publish(TOPIC, "s", "late"))
    await asyncio.sleep(0)
    await aws.close()
    told = await asyncio.wait_for(asyncio.gather(*calls, late, return_exceptions=True), 10)
    assert not any(isinstance(each, Published) for each in told)
    sink.hang.set()


async def test_a_notification_too_long_is_final() -> None:
    told = failure("InvalidParameter", "Invalid parameter: Message too long")
    async with Wire(lambda _: http(400, f"<ErrorResponse>{told}</ErrorResponse>")) as wire:
        aws = made(wire.endpoint)
        assert all(isinstance(each, MessageRefused) for each in await outcomes(aws, "a", "b"))
        await aws.close()


@given(st.lists(st.integers(0, OCTETS), max_size=40))
def test_batches_are_within_the_limits_of_sns_and_in_order(sizes: list[int]) -> None:
    letters = [Letter("", bytes(size), None) for size in sizes]  # type: ignore[arg-type]
    made = batches(letters)
    assert [letter for batch in made for letter in batch] == letters
    assert all(0 < len(batch) <= TOGETHER and sum(letter.octets for letter in batch) <= OCTETS for batch in made)
    for one, following in itertools.pairwise(made):
        assert len(one) == TOGETHER or sum(letter.octets for letter in one) + following[0].octets > OCTETS
