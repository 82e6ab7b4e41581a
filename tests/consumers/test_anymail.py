"""Anymail's Amazon SES webhook from PyPI, unchanged: what a Django project makes of our notifications, and of the message they lead to.

The local AWS sends SNS's HTTP requests without the message id that Anymail asks for, so that they are made here, from what its topics put
into queues.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from emitted import GOLDEN, NOTIFICATIONS
from local_dev import ANY_PORTS, Dev, client, run
from needs import needs_module

RULES = """
RuleSets:
  default:
    - Name: stored
      Recipients: [stored@example.com]
      ScanEnabled: true
      Actions:
        - S3Action: {BucketName: mail, ObjectKeyPrefix: in, TopicArn: "arn:aws:sns:us-east-1:000000000000:stored"}
    - Name: text
      Recipients: [text@example.com]
      Actions:
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:text"}
    - Name: base64
      Recipients: [base64@example.com]
      Actions:
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:base64", Encoding: Base64}
"""
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

TOPICS = {"stored": "S3", "text": "SNS", "base64": "SNS"}
RECEIVED = {name: told for name, told in NOTIFICATIONS.items() if told["receipt"]["action"]["type"] in ("S3", "SNS")}
"""Of other actions Anymail says that its webhook is no place for them."""

SEVERAL_FIELDS = "04-duplicates/1-store-S3.notification.json"
NO_GROUPS = "06-to-and-cc/1-store-S3.notification.json"
SPACE_BEFORE_COLON = "16-forged/1-store-S3.notification.json"
BROKEN_WORDS = "20-broken-encoded-words/1-store-S3.notification.json"


@pytest.fixture(scope="module")
def anymail() -> Any:
    """Anymail's module for Amazon SES, in a Django that has its settings and no others."""
    module = needs_module("anymail.webhooks.amazon_ses", why="pip install '.[test]'")
    from django.conf import settings

    settings.configure(ALLOWED_HOSTS=["testserver"], ANYMAIL={"WEBHOOK_SECRET": "user:secret"})
    return module


def posted(view: Any, envelope: dict[str, Any]) -> Any:
    """The event that a project gets when SNS sends this to the view."""
    from anymail.signals import inbound
    from django.test import RequestFactory

    events: list[Any] = []

    def keep(sender: Any, event: Any, esp_name: str, **_: Any) -> None:
        events.append(event)

    request = RequestFactory().post(
        "/anymail/amazon_ses/inbound/", json.dumps(envelope), content_type="text/plain; charset=UTF-8",
        headers={"Authorization": "Basic " + base64.b64encode(b"user:secret").decode(), "x-amz-sns-message-type": envelope["Type"],
                 "x-amz-sns-message-id": envelope["MessageId"]})
    inbound.connect(keep)
    try:
        assert view(request).status_code == 200
    finally:
        inbound.disconnect(keep)
    (event,) = events
    return event


@pytest.mark.parametrize("name", RECEIVED)
def test_another_parser_finds_in_the_content_what_we_tell_of_it(anymail: Any, name: str) -> None:
    class Stored(anymail.AmazonSESInboundWebhookView):
        def fetch_s3_chunks(self, bucket_name: str, object_key: str) -> Iterator[bytes]:
            assert (bucket_name, object_key) == (told["receipt"]["action"]["bucketName"], told["receipt"]["action"]["objectKey"])
            yield (GOLDEN / name.replace(".notification.json", ".object.eml")).read_bytes()

    told = RECEIVED[name]
    mail, receipt, common = told["mail"], told["receipt"], told["mail"]["commonHeaders"]
    event = posted(Stored.as_view(), {"Type": "Notification", "MessageId": "1", "Message": json.dumps(told)})
    found = event.message
    assert (event.event_id, event.timestamp) == (mail["messageId"], datetime.fromisoformat(mail["timestamp"]))
    assert (found.envelope_sender, found.envelope_recipient) == (mail["source"], receipt["recipients"][0])
    assert found.spam_detected is {"PASS": False, "FAIL": True}.get(receipt["spamVerdict"]["status"])
    names = [each["name"] for each in mail["headers"]]
    if name != SPACE_BEFORE_COLON:  # which ends the header for Python's parser; it is a field by RFC 5322 section 4.5
        assert found.keys()[: len(names)] == names
        assert mail["headersTruncated"] or len(found.keys()) == len(names)
    if name != BROKEN_WORDS:  # SES keeps what it cannot decode as it is; Python's parser has a try
        assert (found.subject or "").split() == common.get("subject", "").split()
    if name != SEVERAL_FIELDS:  # SES tells of the first, Anymail of all
        assert [each.address for each in found.to] == common.get("to", [])
    if name != NO_GROUPS:  # Anymail refuses a list with a group or what is no address
        assert [each.address for each in found.cc] == common.get("cc", [])


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("anymail")
    (folder / "rules.yaml").write_text(RULES)
    running = Dev(folder, *ANY_PORTS)
    try:
        running.ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def events(anymail: Any, dev: Dev) -> dict[str, Any]:
    """What a project gets for one message to three addresses, by topic, and under "id" the message's id."""
    from django.test import override_settings

    about = dev.ready()
    sent = run(dev.folder, "send", "--from", "bounces@example.net", "--eml", str(written(dev.folder)),
               *(word for name in TOPICS for word in ("--to", f"{name}@example.com")))
    assert sent.stdout.splitlines()[-1] == "done", sent.stdout + sent.stderr
    aws = {"endpoint_url": about["aws"], "region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    sqs = client(about, "sqs")
    found: dict[str, Any] = {"id": sent.stdout.split()[3]}
    with override_settings(ANYMAIL={"WEBHOOK_SECRET": "user:secret", "AMAZON_SES_CLIENT_PARAMS": aws}):
        view = anymail.AmazonSESInboundWebhookView.as_view()
        for name in TOPICS:
            (queued,) = sqs.receive_message(QueueUrl=sqs.get_queue_url(QueueName=f"{name}-dev")["QueueUrl"])["Messages"]
            found[name] = posted(view, json.loads(queued["Body"]))
    return found


def written(folder: Path) -> Path:
    """A message with text, HTML and an attachment, whose header names none of its recipients; the standard spam test string is in it."""
    message = EmailMessage()
    message["From"] = "Ann Author <ann@example.net>"
    message["To"] = "team@example.org"
    message["Subject"] = "Grüße"
    message["Date"] = "Wed, 13 Aug 2025 19:16:05 +0200"
    message.set_content(f"Grüße!\n{GTUBE}\n", cte="8bit")
    message.add_alternative("<p>Grüße!</p>\n", subtype="html", cte="quoted-printable")
    message.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="Übung.bin")
    eml = folder / "message.eml"
    eml.write_bytes(message.as_bytes(policy=message.policy.clone(linesep="\r\n")))
    return eml


@pytest.mark.parametrize("topic", TOPICS)
def test_a_project_gets_the_message_whole(events: dict[str, Any], topic: str) -> None:
    event = events[topic]
    assert (event.event_type, event.event_id) == ("inbound", events["id"])
    assert event.esp_event["receipt"]["action"]["type"] == TOPICS[topic]
    found = event.message
    assert (found.envelope_sender, found.envelope_recipient) == ("bounces@example.net", f"{topic}@example.com")
    assert found.keys()[:2] == ["Return-Path", "Received"]
    assert (found.from_email.display_name, found.from_email.addr_spec) == ("Ann Author", "ann@example.net")
    assert ([each.address for each in found.to], found.subject) == (["team@example.org"], "Grüße")
    assert (found.text, found.html) == (f"Grüße!\n{GTUBE}\n", "<p>Grüße!</p>\n")
    (attachment,) = found.attachments
    assert (attachment.get_filename(), attachment.get_content_bytes()) == ("Übung.bin", bytes(range(256)))


def test_a_project_is_told_of_spam_where_the_rule_scans(events: dict[str, Any]) -> None:
    assert [events[topic].message.spam_detected for topic in TOPICS] == [True, None, None]
