"""boto3 behind its door: what the sinks get over the wire, and which of their failures are whose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import botocore.session
import pytest
from sink import Sink

from inbound.assess.rendering import BytesContent, Rendering
from inbound.deliver.aws import Access
from inbound.deliver.aws.client import AwsClient
from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown, SinkFailure

TOPIC = "arn:aws:sns:eu-west-1:123456789012:inbound"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:handler"
ROLE = "arn:aws:iam::123456789012:role/mail"
BODY = Rendering(b"Return-Path: <>\r\n", BytesContent(b"Subject: x\r\n\r\nbody\r\n"), ())


def session(access_key: str, secret: str) -> botocore.session.Session:
    made = botocore.session.Session()
    made.set_credentials(access_key, secret)
    made.set_config_variable("region", "us-east-1")
    return made


def access(endpoint: str) -> Access:
    return Access(endpoint, "us-east-1", lambda: session("AKIAOWN", "secret"), proxies=False)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


@pytest.fixture
async def aws(sink: Sink) -> AsyncIterator[AwsClient]:
    client = AwsClient(access(sink.endpoint))
    yield client
    await client.close()


async def test_put_publish_and_invoke_arrive_as_they_are(aws: AwsClient, sink: Sink) -> None:
    await aws.put_object("mail", "a/b", BODY)
    assert sink.objects == {"mail/a/b": BODY.read()}
    assert (await aws.publish(TOPIC, "subject", '{"é":1}')).message_id == "1"
    assert sink.published == [(TOPIC, '{"é":1}')]
    assert (await aws.invoke(FUNCTION, "{}", wait=False)).status == 202
    answer = await aws.invoke(FUNCTION, '{"x":1}', wait=True)
    assert (answer.status, answer.payload) == (200, b"null")
    assert [body for _, body in sink.invoked] == [b"{}", b'{"x":1}']


@pytest.mark.parametrize(("status", "code", "failure"), [
    (403, "AccessDenied", SinkDown), (404, "NoSuchBucket", SinkDown), (503, "SlowDown", SinkDown), (500, "InternalError", SinkDown),
    (400, "ExpiredToken", SinkDown), (400, "EntityTooLarge", MessageRefused), (413, "Whatever", MessageRefused),
])
async def test_only_what_no_repetition_can_cure_is_final(aws: AwsClient, sink: Sink, status: int, code: str, failure: type[SinkFailure]) -> None:
    sink.fails, sink.code = status, code
    with pytest.raises(failure, match=code):
        await aws.put_object("mail", "key", BODY)


async def test_a_function_that_raises_is_the_messages_failure(aws: AwsClient, sink: Sink) -> None:
    sink.answers["handler"] = (200, {"X-Amz-Function-Error": "Unhandled"}, '{"errorType":"ValueError","errorMessage":"boom"}')
    with pytest.raises(MessageFailed, match=r"the function failed \(Unhandled\): ValueError: boom"):
        await aws.invoke(FUNCTION, "{}", wait=True)


async def test_a_function_is_never_invoked_again_by_the_client(aws: AwsClient, sink: Sink) -> None:
    sink.fails = 500
    with pytest.raises(SinkDown):
        await aws.invoke(FUNCTION, "{}", wait=True)
    assert len(sink.keys) == 1


@pytest.mark.parametrize(("answer", "reason"), [
    ((204, {}, ""), "as (S3|Lambda) does|as AWS does|ResponseParserError"), ((200, {}, "<html></html>"), "as S3 does|as AWS does"),
    ((301, {"Location": "http://127.0.0.1:1/"}, ""), "as AWS does|301|ResponseParserError"),
])
async def test_an_endpoint_that_is_something_else_takes_no_mail(
    aws: AwsClient, sink: Sink, answer: tuple[int, dict[str, str], str], reason: str,
) -> None:
    sink.always = answer
    calls = [aws.put_object("mail", "key", BODY), aws.publish(TOPIC, "s", "m")]
    if answer[2] != "<html></html>":  # what a function answers is the worker's to judge
        calls.append(aws.invoke(FUNCTION, "{}", wait=True))
    for call in calls:
        with pytest.raises(SinkDown, match=reason) as caught:
            await call
        assert "\n" not in str(caught.value)


async def test_an_endpoint_that_is_not_there_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        aws = AwsClient(access(f"http://127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(SinkDown, match="EndpointConnectionError"):
            await aws.publish(TOPIC, "s", "m")
        await aws.close()


async def test_no_credentials_is_something_an_operator_can_repair(sink: Sink) -> None:
    aws = AwsClient(Access(sink.endpoint, "us-east-1", lambda: session("", ""), proxies=False))
    with pytest.raises(SinkDown, match=r"(?i)credentials"):
        await aws.publish(TOPIC, "s", "m")
    await aws.close()


async def test_a_role_is_assumed_for_its_calls_only_and_once(aws: AwsClient, sink: Sink) -> None:
    await asyncio.gather(*(aws.put_object("mail", str(n), BODY, role=ROLE) for n in range(8)))
    await aws.publish(TOPIC, "s", "m", role=ROLE)
    await aws.publish(TOPIC, "s", "m")
    assert sink.assumed == 1
    assert sink.keys.count("ASIA1") == 9
    assert sink.keys[-1] == "AKIAOWN"


async def test_the_credentials_of_a_role_are_renewed_before_they_expire(aws: AwsClient, sink: Sink) -> None:
    sink.lives = 60  # within botocore's mandatory margin, so the next call must renew
    await aws.put_object("mail", "a", BODY, role=ROLE)
    await aws.put_object("mail", "b", BODY, role=ROLE)
    assert sink.assumed >= 2
    assert sink.keys[-1] == f"ASIA{sink.assumed}"


async def test_a_role_that_can_not_be_assumed_is_down(aws: AwsClient, sink: Sink) -> None:
    sink.fails, sink.code = 403, "AccessDenied"
    with pytest.raises(SinkDown, match="AccessDenied"):
        await aws.put_object("mail", "a", BODY, role=ROLE)
