"""The notification and the event: SES's keys, order, limits and encodings."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.envelope import Envelope, Peer
from inbound.assess.message import parse
from inbound.assess.verdicts import Assessment, Status, Verdict
from inbound.decide.rules import S3, AddHeader, AnyAction, Bounce, Connect, Lambda, Sns, Stop, Workmail
from inbound.deliver.notification import (
    LAMBDA_HEADERS_LIMIT,
    SNS_HEADERS_LIMIT,
    SNS_SUBJECT,
    Received,
    action_object,
    lambda_event,
    notification,
)

TOPIC = "arn:aws:sns:us-east-1:000000000000:inbound"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:handle"
ID = "795hue2ttd6ie60k15ji41vbso3q721dlq9g6f81"
ENVELOPE = Envelope(
    message_id=ID, peer=Peer("203.0.113.51"), helo="x", reverse_path="ann@sender.example", forward_paths=("a@example.com", "b@example.com"),
    received_at=1_755_105_366.25,
)  # fmt: skip
RAW = (
    b"From: Ann <ann@sender.example>\r\nSender: s@sender.example\r\nReply-To: r@sender.example\r\nTo: a@example.com\r\n"
    b"Cc: c@example.net\r\nBcc: b@example.com\r\n"
    b"Date: Wed, 13 Aug 2025 19:16:05 +0200\r\nMessage-ID: <1@sender.example>\r\nSubject: Hello\r\n\r\nbody\r\n"
)
STORE = S3(BucketName="mail", TopicArn=TOPIC)


def received(raw: bytes = RAW, **changes: Any) -> Received:
    message = parse(raw)
    fields = changes.pop("fields", tuple((field.name, field.value) for field in message.fields))
    made = Received(
        ENVELOPE, message, fields, Assessment(spam=Verdict(Status.PASS), virus=Verdict(Status.PASS)), ("a@example.com",),
        scan=True, milliseconds=413,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def keys(told: Any) -> Any:
    """The keys of an object and of those in it, in order."""
    return {key: keys(value) if isinstance(value, Mapping) else None for key, value in told.items()}


MAIL = dict.fromkeys(["timestamp", "source", "messageId", "destination", "headersTruncated", "headers"])
COMMON = dict.fromkeys(["returnPath", "from", "sender", "replyTo", "date", "to", "cc", "bcc", "messageId", "subject"])
RECEIPT = dict.fromkeys(["timestamp", "processingTimeMillis", "recipients"])
VERDICTS = {name: {"status": None} for name in ["spamVerdict", "virusVerdict", "spfVerdict", "dkimVerdict", "dmarcVerdict"]}


def in_order(told: Any) -> str:
    return json.dumps(keys(told))


def test_keys_of_a_notification_in_the_order_of_ses() -> None:
    action = dict.fromkeys(["type", "topicArn", "bucketName", "objectKeyPrefix", "objectKey"])
    expected = {"notificationType": None, "mail": {**MAIL, "commonHeaders": COMMON}, "receipt": {**RECEIPT, **VERDICTS, "action": action}}
    assert in_order(json.loads(notification(received(), STORE))) == json.dumps(expected)


def test_keys_of_an_event_in_the_order_of_ses() -> None:
    told = json.loads(lambda_event(received(), Lambda(FunctionArn=FUNCTION)))
    assert list(told) == ["Records"]
    (record,) = told["Records"]
    action = dict.fromkeys(["type", "functionArn", "invocationType"])
    ses = {"mail": {**MAIL, "commonHeaders": COMMON}, "receipt": {**RECEIPT, **VERDICTS, "action": action}}
    assert in_order(record) == json.dumps({"eventSource": None, "eventVersion": None, "ses": ses})
    assert (record["eventSource"], record["eventVersion"]) == ("aws:ses", "1.0")
    assert "content" not in json.dumps(told)


def test_values_of_mail_and_receipt() -> None:
    told = json.loads(notification(received(), STORE))
    assert told["notificationType"] == "Received"
    assert {key: told["mail"][key] for key in ("timestamp", "source", "messageId", "destination", "headersTruncated")} == {
        "timestamp": "2025-08-13T17:16:06.250Z",
        "source": "ann@sender.example",
        "messageId": ID,
        "destination": ["a@example.com", "c@example.net"],
        "headersTruncated": False,
    }
    assert told["mail"]["commonHeaders"]["returnPath"] == "ann@sender.example"
    assert told["mail"]["commonHeaders"]["sender"] == "s@sender.example"
    assert told["receipt"]["timestamp"] == told["mail"]["timestamp"]
    assert told["receipt"]["processingTimeMillis"] == 413
    assert told["receipt"]["recipients"] == ["a@example.com"]
    assert SNS_SUBJECT == "Amazon SES Email Receipt Notification"


def test_it_is_compact_with_text_as_it_is() -> None:
    text = notification(received("Subject: Grüße\r\n\r\n".encode()), STORE)
    assert "Grüße" in text
    assert json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) == text


def test_the_null_sender() -> None:
    told = json.loads(notification(received(envelope=dataclasses.replace(ENVELOPE, reverse_path="")), STORE))
    assert told["mail"]["source"] == told["mail"]["commonHeaders"]["returnPath"] == ""


@pytest.mark.parametrize(("milliseconds", "shown"), [(-5, 1), (0, 1), (1, 1), (1272, 1272)])
def test_the_processing_time_is_a_positive_integer(milliseconds: int, shown: int) -> None:
    assert json.loads(notification(received(milliseconds=milliseconds), STORE))["receipt"]["processingTimeMillis"] == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "1970-01-01T00:00:00.000Z"), (1e9 + 0.9996, "2001-09-09T01:46:40.999Z")])
def test_timestamps_have_milliseconds(seconds: float, shown: str) -> None:
    envelope = dataclasses.replace(ENVELOPE, received_at=seconds)
    assert json.loads(notification(received(envelope=envelope), STORE))["mail"]["timestamp"] == shown


def test_verdicts_and_the_policy_that_failed() -> None:
    failed = Verdict(Status.FAIL)
    judged = Assessment(spf=Verdict(Status.PASS), dkim=Verdict(Status.GRAY), dmarc=failed, spam=failed, dmarc_policy="quarantine")
    receipt = json.loads(notification(received(assessment=judged), STORE))["receipt"]
    assert list(receipt)[3:] == [*VERDICTS, "dmarcPolicy", "action"]
    assert receipt["dmarcPolicy"] == "quarantine"
    assert [receipt[name] for name in VERDICTS] == [{"status": status} for status in ("FAIL", "GRAY", "PASS", "GRAY", "FAIL")]
    passed = dataclasses.replace(judged, dmarc=Verdict(Status.PASS))
    assert "dmarcPolicy" not in json.loads(notification(received(assessment=passed), STORE))["receipt"]


def test_scan_verdicts_are_disabled_in_a_rule_that_does_not_scan() -> None:
    receipt = json.loads(notification(received(scan=False), STORE))["receipt"]
    assert receipt["spamVerdict"] == receipt["virusVerdict"] == {"status": "DISABLED"}
    assert receipt["spfVerdict"] == {"status": "GRAY"}


ORGANIZATION = "arn:aws:workmail:us-east-1:000000000000:organization/m-0123456789abcdef"


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        (S3(BucketName="mail"), {"type": "S3", "bucketName": "mail", "objectKeyPrefix": "", "objectKey": ID}),
        (
            S3(BucketName="mail", ObjectKeyPrefix="in", TopicArn=TOPIC),
            {"type": "S3", "topicArn": TOPIC, "bucketName": "mail", "objectKeyPrefix": "in", "objectKey": f"in/{ID}"},
        ),
        (Sns(TopicArn=TOPIC), {"type": "SNS", "topicArn": TOPIC, "encoding": "UTF8"}),
        (Sns(TopicArn=TOPIC, Encoding="Base64"), {"type": "SNS", "topicArn": TOPIC, "encoding": "BASE64"}),
        (Lambda(FunctionArn=FUNCTION), {"type": "Lambda", "functionArn": FUNCTION, "invocationType": "Event"}),
        (
            Lambda(FunctionArn=FUNCTION, InvocationType="RequestResponse", TopicArn=TOPIC),
            {"type": "Lambda", "topicArn": TOPIC, "functionArn": FUNCTION, "invocationType": "RequestResponse"},
        ),
        (
            Bounce(SmtpReplyCode="550", StatusCode="5.1.1", Message="no", Sender="b@example.com", TopicArn=TOPIC),
            {
                "type": "Bounce", "topicArn": TOPIC,
                "smtpReplyCode": "550", "statusCode": "5.1.1", "message": "no", "sender": "b@example.com",
            },
        ),
        (
            Bounce(SmtpReplyCode="450", Message="later", Sender="b@example.com"),
            {"type": "Bounce", "smtpReplyCode": "450", "message": "later", "sender": "b@example.com"},
        ),
        (Stop(Scope="RuleSet", TopicArn=TOPIC), {"type": "Stop", "topicArn": TOPIC}),
        (
            Workmail(OrganizationArn=ORGANIZATION, TopicArn=TOPIC),
            {"type": "WorkMail", "topicArn": TOPIC, "organizationArn": ORGANIZATION},
        ),
    ],
)  # fmt: skip
def test_action_objects(action: AnyAction, shown: dict[str, str]) -> None:
    assert list(action_object(action, message_id=ID).items()) == list(shown.items())


@pytest.mark.parametrize(
    "action",
    [
        AddHeader(HeaderName="X-A", HeaderValue="1"),
        Connect(
            InstanceARN="arn:aws:connect:us-east-1:000000000000:instance/01234567-89ab-cdef-0123-456789abcdef",
            IAMRoleARN="arn:aws:iam::000000000000:role/r",
        ),
    ],
)
def test_actions_without_a_topic_are_never_told_of(action: AnyAction) -> None:
    with pytest.raises(TypeError, match=action.kind):
        action_object(action, message_id=ID)


CONTENT = "Grüße \"\\ \r\n".encode() + b"\x00\xff\xe2\x82"


def test_content_as_text() -> None:
    told = json.loads(notification(received(), Sns(TopicArn=TOPIC), CONTENT))
    assert list(told) == ["notificationType", "mail", "receipt", "content"]
    assert told["content"] == 'Grüße "\\ \r\n\0\ufffd\ufffd'


def test_content_in_base64() -> None:
    told = json.loads(notification(received(), Sns(TopicArn=TOPIC, Encoding="Base64"), CONTENT))
    assert base64.b64decode(told["content"], validate=True) == CONTENT


@pytest.mark.parametrize("action", [STORE, Stop(Scope="RuleSet", TopicArn=TOPIC), Lambda(FunctionArn=FUNCTION, TopicArn=TOPIC)])
def test_only_an_sns_action_tells_the_content(action: AnyAction) -> None:
    assert "content" not in json.loads(notification(received(), action, CONTENT))
    assert "content" not in json.loads(notification(received(), Sns(TopicArn=TOPIC)))


def mail(limit: int, fields: tuple[tuple[str, str], ...], raw: bytes = RAW) -> dict[str, Any]:
    """The mail object of the notification or the event that has this limit."""
    if limit == SNS_HEADERS_LIMIT:
        told: dict[str, Any] = json.loads(notification(received(raw, fields=fields), STORE))
    else:
        told = json.loads(lambda_event(received(raw, fields=fields), Lambda(FunctionArn=FUNCTION)))["Records"][0]["ses"]
    mail: dict[str, Any] = told["mail"]
    return mail


@pytest.mark.parametrize("limit", [SNS_HEADERS_LIMIT, LAMBDA_HEADERS_LIMIT])
@pytest.mark.parametrize("letter", ["x", "ü", "€", "😀"])
def test_the_header_list_is_cut_at_the_limit(limit: int, letter: str) -> None:
    octets = len(letter.encode())
    count, rest = divmod(limit - 10, octets)
    exact = ("N" * (10 + rest), letter * count)
    for fields, shown in [
        ((exact,), (exact,)),
        ((exact, ("", "")), (exact, ("", ""))),
        ((exact, ("A", "")), (exact,)),
        ((("A", ""), exact, ("B", "fits, but comes after one that does not")), (("A", ""),)),
        (((exact[0] + "N", exact[1]), ("B", "")), ()),
    ]:
        told = mail(limit, fields)
        assert [(each["name"], each["value"]) for each in told["headers"]] == list(shown)
        assert told["headersTruncated"] is (len(shown) < len(fields))
        assert told["commonHeaders"]["subject"] == "Hello"


def test_the_two_limits() -> None:
    assert (SNS_HEADERS_LIMIT, LAMBDA_HEADERS_LIMIT) == (10_240, 51_200)


def test_a_header_that_was_too_large_to_read_is_truncated_too() -> None:
    raw = b"Subject: Hello\r\n" + b"X-Line: 1\r\n" * 20_000
    assert mail(SNS_HEADERS_LIMIT, (), raw)["headersTruncated"]
    assert mail(SNS_HEADERS_LIMIT, (), raw)["commonHeaders"] == {"returnPath": "ann@sender.example", "subject": "Hello"}


LETTERS = st.one_of(st.characters(), st.sampled_from("\ud800\udfff\ufffe\uffff\0\"\\\n\u2028"))


@given(st.lists(LETTERS, max_size=60).map("".join))
def test_it_is_valid_utf8_and_says_the_same_whatever_is_in_it(text: str) -> None:
    envelope = dataclasses.replace(ENVELOPE, reverse_path=text)
    made = received(envelope=envelope, fields=((text, text),), recipients=(text,))
    told = notification(made, Sns(TopicArn=TOPIC), text.encode("utf-8", "replace"))
    octets = told.encode("utf-8")
    assert not {"\ufffe", "\uffff"} & set(told)
    shown = "".join("\ufffd" if 0xD800 <= ord(letter) <= 0xDFFF else letter for letter in text)
    assert json.loads(octets)["mail"]["source"] == shown
    assert json.loads(octets)["receipt"]["recipients"] == [shown]


@pytest.mark.parametrize("header", [b"Subject: " + b"\xff" * 100_000, b"To: " + b"a@b," * 25_000, b"Subject: =?utf-8?q?" + b"=00" * 33_000 + b"?="],
                         ids=["octets that are no UTF-8", "addresses", "NULs"])
def test_no_header_makes_a_dead_letter_of_what_sns_and_lambda_cannot_take(header: bytes) -> None:
    """Found: 88 KB of raw octets in a Subject gave 271,485 octets of JSON, which SNS does not take, and so a dead letter."""
    seen = received(header + b"\r\nMessage-ID: <1@b>\r\n\r\nbody")
    notice, event = notification(seen, STORE), lambda_event(seen, Lambda(FunctionArn=FUNCTION))
    assert max(len(notice.encode()), len(event.encode())) <= 262_144
    for mail in (json.loads(notice)["mail"], json.loads(event)["Records"][0]["ses"]["mail"]):
        assert mail["headersTruncated"] is True
        assert mail["commonHeaders"]["messageId"] == "<1@b>"
        assert mail["commonHeaders"]["returnPath"] == "ann@sender.example"
        assert len(mail["commonHeaders"].get("subject", "x" * 1_000)) >= 1_000
        assert len(mail["commonHeaders"].get("to", "x" * 1_000)) >= 1_000


def test_common_headers_are_whole_where_they_fit() -> None:
    mail = json.loads(notification(received(b"Subject: " + b"x" * 90_000 + b"\r\n\r\n"), STORE))["mail"]
    assert mail["commonHeaders"]["subject"] == "x" * 90_000
