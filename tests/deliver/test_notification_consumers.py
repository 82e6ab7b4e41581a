"""What others' code makes of our JSON, and what hostile mail makes of it."""

from __future__ import annotations

import dataclasses
import json
import time
import tracemalloc
from collections.abc import Callable

import hostile
import pytest

from inbound.accept.envelope import Envelope, Peer
from inbound.assess import forged, message, rendering
from inbound.assess.verdicts import Assessment, Status, Verdict, trace_headers
from inbound.decide.rules import S3, Lambda, Sns
from inbound.deliver.notification import LAMBDA_HEADERS_LIMIT, SNS_HEADERS_LIMIT, SNS_MESSAGE_LIMIT, Received, lambda_event, notification

HOST = "mx.us.example"
TOPIC = "arn:aws:sns:us-east-1:000000000000:inbound"
FUNCTION = Lambda(FunctionArn="arn:aws:lambda:us-east-1:000000000000:function:handle")
ENVELOPE = Envelope(
    message_id="795hue2ttd6ie60k15ji41vbso3q721dlq9g6f81", peer=Peer("203.0.113.51"), helo="x", reverse_path="ann@sender.example",
    forward_paths=("a@example.com",), received_at=1_755_105_366.25,
)  # fmt: skip
ASSESSMENT = Assessment(dmarc=Verdict(Status.FAIL), dmarc_policy="reject", spam=Verdict(Status.PASS), virus=Verdict(Status.PASS))
RAW = (
    b"From: Ann <ann@sender.example>\r\nTo: a@example.com\r\nCc: c@example.net\r\nBcc: b@example.com\r\nReply-To: r@sender.example\r\n"
    b"Date: Wed, 13 Aug 2025 19:16:05 +0200\r\nMessage-ID: <1@sender.example>\r\nSubject: Hello\r\n\r\nbody\r\n"
)


def consumers_get(raw: bytes) -> tuple[rendering.Rendering, Received]:
    """The rendering of a message, and what a notification tells of it, by the way that all mail takes."""
    content = rendering.BytesContent(raw)
    trace = trace_headers(ENVELOPE, ASSESSMENT, hostname=HOST, authserv_id=HOST, scan=True)
    rendered = rendering.render(content, trace=trace, forged=forged.offsets(content, authserv_id=HOST))
    parsed = message.parse(content.head(message.HEAD), authserv_id=HOST)
    fields = rendering.visible_fields(parsed, trace=trace)
    return rendered, Received(ENVELOPE, parsed, fields, ASSESSMENT, ENVELOPE.forward_paths, scan=True, milliseconds=413)


def test_powertools_reads_every_field_of_the_event() -> None:
    from aws_lambda_powertools.utilities.data_classes import SESEvent

    event = SESEvent(json.loads(lambda_event(consumers_get(RAW)[1], FUNCTION)))
    assert (event.record.event_source, event.record.event_version) == ("aws:ses", "1.0")
    mail, receipt = event.mail, event.receipt
    assert (mail.timestamp, mail.source, mail.message_id) == ("2025-08-13T17:16:06.250Z", "ann@sender.example", ENVELOPE.message_id)
    assert (mail.destination, mail.headers_truncated) == (["a@example.com", "c@example.net"], False)
    assert next(mail.headers).name == "Return-Path"
    assert next(mail.headers).value == "<ann@sender.example>"
    common = mail.common_headers
    assert (common.return_path, common.get_from, common.to) == ("ann@sender.example", ["Ann <ann@sender.example>"], ["a@example.com"])
    assert (common.cc, common.bcc, common.reply_to) == (["c@example.net"], ["b@example.com"], ["r@sender.example"])
    assert (common.date, common.message_id, common.subject) == ("Wed, 13 Aug 2025 19:16:05 +0200", "<1@sender.example>", "Hello")
    assert common.sender == []
    assert (receipt.timestamp, receipt.processing_time_millis, receipt.recipients) == (mail.timestamp, 413, ["a@example.com"])
    statuses = [receipt.spam_verdict, receipt.virus_verdict, receipt.spf_verdict, receipt.dkim_verdict, receipt.dmarc_verdict]
    assert [verdict.status for verdict in statuses] == ["PASS", "PASS", "GRAY", "GRAY", "FAIL"]
    assert receipt.dmarc_policy == "reject"
    action = receipt.action
    assert (action.get_type, action.topic_arn) == ("Lambda", None)
    assert (action.function_arn, action.invocation_type) == (FUNCTION.FunctionArn, "Event")


def test_powertools_model_accepts_an_event_of_a_scanning_rule() -> None:
    from aws_lambda_powertools.utilities.parser.models import SesModel

    model = SesModel.model_validate_json(lambda_event(consumers_get(RAW)[1], FUNCTION))
    (record,) = model.Records
    assert record.ses.mail.messageId == ENVELOPE.message_id
    assert record.ses.mail.commonHeaders.header_from == ["Ann <ann@sender.example>"]
    assert record.ses.receipt.timestamp.timestamp() == ENVELOPE.received_at


def test_the_header_list_is_what_the_object_holds() -> None:
    rendered, received = consumers_get(b"X-SES-Spam-Verdict: PASS\r\n" + RAW)
    seen = message.parse(rendered.read())
    ours_marked_too = [(field.name.removeprefix("X-Forged-"), field.value) for field in seen.fields]
    assert ours_marked_too == [(name.removeprefix("X-Forged-"), value) for name, value in received.fields]
    assert received.fields[4] == ("X-Forged-X-SES-Spam-Verdict", "PASS")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", hostile.MESSAGES.values(), ids=hostile.MESSAGES.keys())
def test_hostile_mail_gives_valid_json_and_an_exact_object(make: Callable[[], bytes]) -> None:
    raw = make()
    began = time.process_time()
    rendered, received = consumers_get(raw)
    told = [
        notification(received, S3(BucketName="mail", TopicArn=TOPIC)),
        notification(received, Sns(TopicArn=TOPIC), rendered.read()),
        notification(received, Sns(TopicArn=TOPIC, Encoding="Base64"), rendered.read()),
        lambda_event(received, FUNCTION),
    ]
    assert time.process_time() - began < 4.0  # the costliest takes 0.3 s; what this guards against takes minutes
    for text, limit in zip(told, [SNS_HEADERS_LIMIT] * 3 + [LAMBDA_HEADERS_LIMIT], strict=True):
        found = json.loads(text.encode("utf-8"))
        mail = found["mail"] if "mail" in found else found["Records"][0]["ses"]["mail"]
        assert sum(len(each["name"]) + len(each["value"].encode()) for each in mail["headers"]) <= limit
        assert mail["headersTruncated"] or len(mail["headers"]) == len(received.fields)
        assert set(mail["commonHeaders"]) <= {"returnPath", *received.message.common}
        assert len(text.encode()) <= SNS_MESSAGE_LIMIT or "content" in found, "no header alone makes a dead letter"
    octets = rendered.read()
    assert len(octets) == rendered.size
    assert octets.startswith(b"Return-Path: <ann@sender.example>\r\nReceived: from x (unknown [203.0.113.51])\r\n by mx.us.example ")
    assert octets[len(rendered.prefix) :].replace(forged.INSERTION, b"") == raw


@pytest.mark.parametrize("name", ["as many addresses as fit", "as many fields as fit", "300,000 header lines", "quotes"])
def test_hostile_mail_takes_little_memory(name: str) -> None:
    raw = hostile.MESSAGES[name]()
    tracemalloc.start()
    try:
        _, received = consumers_get(raw)
        lambda_event(received, FUNCTION)
        assert tracemalloc.get_traced_memory()[1] < 48 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_message_for_several_recipients_does_not_tell_them_of_each_other() -> None:
    envelope = dataclasses.replace(ENVELOPE, forward_paths=("a@example.com", "hidden@example.com"))
    trace = trace_headers(envelope, ASSESSMENT, hostname=HOST, authserv_id=HOST, scan=False)
    parsed = message.parse(RAW)
    received = Received(
        envelope, parsed, rendering.visible_fields(parsed, trace=trace), ASSESSMENT, ("a@example.com",), scan=False, milliseconds=1
    )
    assert "hidden" not in notification(received, S3(BucketName="mail", TopicArn=TOPIC))
