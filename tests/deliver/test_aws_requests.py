"""What goes over the wire is what boto3 would send: a consumer, a policy or a log at the other end sees no difference that matters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
from botocore.config import Config
from wire import OK, Asked, Wire, http

from inbound.assess.rendering import BytesContent, Rendering
from inbound.deliver.aws import Access
from inbound.deliver.aws.client import AwsClient
from inbound.deliver.notification import SNS_SUBJECT
from inbound.operate.dev.session import core_session

BODY = Rendering(b"Return-Path: <>\r\n", BytesContent(b"Subject: x\r\n\r\n" + b"body\r\n" * 100))
PUBLISHED = ('<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>1</MessageId></PublishResult>'
             "</PublishResponse>")
TOPIC = "arn:aws:sns:eu-west-1:123456789012:inbound"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:handler"
PER_REQUEST = {"authorization", "x-amz-date", "amz-sdk-invocation-id", "amz-sdk-request", "user-agent", "accept-encoding", "expect"}


def theirs(service: str, endpoint: str) -> Any:
    session = boto3.session.Session("test", "test", region_name="eu-west-1")
    return session.client(service, endpoint_url=endpoint, config=Config(proxies={}, user_agent_extra="inbound"))


async def both(answer: bytes, ours: Callable[[AwsClient], Any], boto: Callable[[str], object]) -> tuple[Asked, Asked]:
    """Our request and boto3's."""
    async with Wire(lambda _: answer) as wire:
        aws = AwsClient(Access(wire.endpoint, "eu-west-1", lambda: core_session("eu-west-1"), proxies=False))
        await ours(aws)
        await aws.close()
        await asyncio.to_thread(boto, wire.endpoint)
    us, them = wire.asked
    return us, them


def compared(us: Asked, them: Asked) -> None:
    assert us.line == them.line
    assert {k: v for k, v in us.headers.items() if k not in PER_REQUEST} == {k: v for k, v in them.headers.items() if k not in PER_REQUEST}
    assert all("inbound" in asked.headers["user-agent"].split() for asked in (us, them))  # powertools, once imported, adds words to boto3's


@pytest.mark.parametrize("key", ["in/abc", "in/ä ö+~=@:&,$!'()*[]#?%41/../x", "/leading", "a//b"])
@pytest.mark.parametrize("metadata", [{}, {"x-amz-iv": "AAAA==", "x-amz-matdesc": '{"aws:ses:rule-name":"a  b"}'}])
async def test_an_object_is_put_as_boto3_puts_it(key: str, metadata: dict[str, str]) -> None:
    us, them = await both(
        OK, lambda aws: aws.put_object("mail", key, BODY, metadata=metadata),
        lambda endpoint: theirs("s3", endpoint).put_object(Bucket="mail", Key=key, Body=BODY.read(), Metadata=metadata))
    compared(us, them)
    assert us.body == them.body == BODY.read()
    assert us.headers["content-length"] == str(BODY.size)


async def test_a_message_is_published_as_boto3_publishes_it() -> None:
    message = '{"é ü+&=%":"\\u0000 😀 ~*\'"}'
    us, them = await both(http(200, PUBLISHED), lambda aws: aws.publish(TOPIC, SNS_SUBJECT, message),
                          lambda endpoint: theirs("sns", endpoint).publish(TopicArn=TOPIC, Subject=SNS_SUBJECT, Message=message))
    assert parse_qs(us.body.decode()) == parse_qs(them.body.decode())
    assert sorted(us.body.split(b"&")) == sorted(them.body.split(b"&"))
    us.headers["content-length"] = them.headers["content-length"]  # the order of the fields is free
    compared(us, them)


@pytest.mark.parametrize("wait", [True, False])
async def test_a_function_is_invoked_as_boto3_invokes_it(*, wait: bool) -> None:
    kind = "RequestResponse" if wait else "Event"
    us, them = await both(
        http(200, "null"), lambda aws: aws.invoke(FUNCTION, '{"é":1}', wait=wait),
        lambda endpoint: theirs("lambda", endpoint).invoke(FunctionName=FUNCTION, InvocationType=kind, Payload='{"é":1}'.encode()))
    compared(us, them)
    assert us.body == them.body


async def test_a_batch_holds_what_boto3_puts_into_one() -> None:
    entries = [{"Id": str(n), "Message": f"m {n} é", "Subject": SNS_SUBJECT} for n in range(3)]
    answer = http(200, "<PublishBatchResponse><PublishBatchResult><Successful>" + "".join(
        f"<member><Id>{n}</Id><MessageId>{n}</MessageId></member>" for n in range(3)) + "</Successful></PublishBatchResult></PublishBatchResponse>")
    us, them = await both(
        answer, lambda aws: asyncio.gather(*(aws.publish(TOPIC, SNS_SUBJECT, entry["Message"]) for entry in entries)),
        lambda endpoint: theirs("sns", endpoint).publish_batch(TopicArn=TOPIC, PublishBatchRequestEntries=entries))
    assert sorted(us.body.split(b"&")) == sorted(them.body.split(b"&"))
    compared(us, them)
