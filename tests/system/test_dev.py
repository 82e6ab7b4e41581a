"""`inbound dev` as its user meets it: one process, a local AWS, a message sent, and what S3, SNS, SQS and Lambda then hold."""

from __future__ import annotations

import email
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flufl.bounce import all_failures
from local_dev import ANY_PORTS, Dev, client, run
from needs import needs_module

from inbound.operate.sample import sample_rules

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: support
      Recipients: [support@example.com]
      ScanEnabled: true
      Actions:
        - AddHeaderAction: {HeaderName: X-Route, HeaderValue: support}
        - S3Action: {BucketName: mail, ObjectKeyPrefix: support, TopicArn: "arn:aws:sns:us-east-1:123456789012:stored"}
        - LambdaAction: {FunctionArn: "arn:aws:lambda:us-east-1:123456789012:function:reader", InvocationType: RequestResponse}
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:123456789012:inbound"}
    - Name: gone
      Recipients: [gone@example.com, left@example.com]
      Actions:
        - BounceAction: {SmtpReplyCode: 550, StatusCode: 5.1.1, Message: Mailbox does not exist, Sender: postmaster@example.com}
    - Name: left
      Recipients: [left@example.com]
      Actions:
        - StopAction: {Scope: RuleSet}
    - Name: after
      Recipients: [example.com]
      Actions:
        - S3Action: {BucketName: after}
"""
FUNCTION = """
import json
import boto3

def handler(event, context):
    message_id = event["Records"][0]["ses"]["mail"]["messageId"]
    s3 = boto3.client("s3")
    content = s3.get_object(Bucket="mail", Key="support/" + message_id)["Body"].read()
    s3.put_object(Bucket="mail", Key="read/" + message_id, Body=json.dumps({"event": event, "content": content.decode()}))
    return {"disposition": "STOP_RULE_SET" if b"please stop" in content else "CONTINUE"}
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("dev")
    (folder / "rules.yaml").write_text(RULES)
    (folder / "reader.py").write_text(FUNCTION)
    # whatever AWS profile the user has must not matter
    foreign = {"AWS_PROFILE": "production", "AWS_ACCESS_KEY_ID": "AKIAREAL", "AWS_SECRET_ACCESS_KEY": "real", "AWS_REGION": "eu-west-3",
               "INBOUND_DNS": "127.0.0.1:9"}  # nobody answers there
    running = Dev(folder, *ANY_PORTS, "--function", "reader=reader.py:handler", environment=foreign)
    try:
        running.ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def about(dev: Dev) -> dict[str, str]:
    return dev.ready()


def queued(about: dict[str, str], queue: str) -> list[dict[str, Any]]:
    """The bodies of all messages now in a queue, taken out of it."""
    sqs = client(about, "sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    bodies = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            bodies.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def test_the_first_message_is_stored_published_and_handed_to_a_function_that_ran(dev: Dev, about: dict[str, str]) -> None:
    sent = run(dev.folder, "send", "--to", "support+first@example.com")
    assert sent.returncode == 0, sent.stderr
    reply = sent.stdout.splitlines()[0]
    assert reply.startswith("250 2.0.0 OK ")
    message_id = reply.split()[-1]
    assert "+ support: support+first@example.com matches support@example.com" in sent.stdout
    assert f"s3://mail/support/{message_id}" in sent.stdout
    assert sent.stdout.splitlines()[-1] == "done"

    stored = client(about, "s3").get_object(Bucket="mail", Key=f"support/{message_id}")["Body"].read()
    assert stored.startswith(b"X-Route: support\r\nReturn-Path: <sender@example.net>\r\nReceived: from ")
    assert client(about, "s3").get_object(Bucket="after", Key=message_id)["Body"].read().startswith(b"X-Route: support\r\n")

    envelope = next(b for b in queued(about, "stored-dev") if message_id in b["Message"])
    assert envelope["Type"] == "Notification"
    assert envelope["Subject"] == "Amazon SES Email Receipt Notification"
    notification = json.loads(envelope["Message"])
    assert notification["receipt"]["action"] == {
        "type": "S3", "topicArn": "arn:aws:sns:us-east-1:123456789012:stored", "bucketName": "mail", "objectKeyPrefix": "support",
        "objectKey": f"support/{message_id}",
    }
    published = next(json.loads(b["Message"]) for b in queued(about, "inbound-dev") if message_id in b["Message"])
    assert published["content"].encode() == stored

    read = json.loads(client(about, "s3").get_object(Bucket="mail", Key=f"read/{message_id}")["Body"].read())
    assert read["content"].encode() == stored
    record = read["event"]["Records"][0]
    assert (record["eventSource"], record["eventVersion"]) == ("aws:ses", "1.0")
    assert record["ses"]["mail"]["messageId"] == message_id
    assert record["ses"]["receipt"]["recipients"] == ["support+first@example.com"]
    dev.until(message_id)


def test_the_event_is_what_programs_for_ses_read(dev: Dev, about: dict[str, str]) -> None:
    from aws_lambda_powertools.utilities.data_classes import SESEvent

    message_id = run(dev.folder, "send", "--to", "support@example.com").stdout.split()[3]
    event = SESEvent(json.loads(client(about, "s3").get_object(Bucket="mail", Key=f"read/{message_id}")["Body"].read())["event"])
    mail, receipt = event.mail, event.receipt
    assert mail.source == mail.common_headers.return_path == "sender@example.net"
    assert mail.destination == mail.common_headers.to == ["support@example.com"]
    assert mail.common_headers.subject == "Test message from inbound send"
    assert mail.headers_truncated is False
    assert {header.name for header in mail.headers} >= {"X-Route", "Return-Path", "Received", "X-SES-Spam-Verdict", "From", "To"}
    verdicts = (receipt.spam_verdict, receipt.virus_verdict, receipt.spf_verdict, receipt.dkim_verdict, receipt.dmarc_verdict)
    assert [verdict.status for verdict in verdicts] == ["PASS", "PASS", "PASS", "GRAY", "PASS"]
    assert receipt.action.get_type == "Lambda"
    assert receipt.processing_time_millis >= 1


def test_a_bounce_is_a_file_to_look_at(dev: Dev, about: dict[str, str]) -> None:
    sent = run(dev.folder, "send", "--to", "gone@example.com")
    assert sent.returncode == 0, sent.stderr
    (line,) = (line for line in sent.stdout.splitlines() if "550 5.1.1" in line)
    assert "Bounce     done     550 5.1.1 Mailbox does not exist to sender@example.net; var/bounces/" in line
    (file,) = (dev.folder / "var" / "bounces").iterdir()
    assert f"{file.relative_to(dev.folder)}  " in line
    bounce = email.message_from_bytes(file.read_bytes())
    assert (bounce["To"], bounce["From"], bounce.get_content_type()) == ("sender@example.net", "postmaster@example.com", "multipart/report")
    assert all_failures(bounce)[1] == {b"gone@example.com"}


def test_a_bounce_that_is_certain_is_refused_in_the_session(dev: Dev, about: dict[str, str]) -> None:
    sent = run(dev.folder, "send", "--to", "left@example.com")
    assert sent.returncode == 1
    assert "550 5.1.1 Mailbox does not exist" in sent.stdout + sent.stderr


def test_a_function_that_says_stop_ends_the_rule_set(dev: Dev, about: dict[str, str], tmp_path: Path) -> None:
    eml = tmp_path / "stop.eml"
    eml.write_bytes(b"From: a@example.net\nTo: support@example.com\nSubject: stop\n\nplease stop\n")
    sent = run(dev.folder, "send", "--to", "support@example.com", "--eml", str(eml), "--json")
    route = json.loads(sent.stdout)["route"]
    assert [(rule["name"], rule["reason"]) for rule in route["rules"]] == [
        ("support", "matched"), ("gone", "no recipient matches"), ("left", "no recipient matches"), ("after", "stopped before")]
    assert [(a["action"], a["state"]) for a in route["rules"][0]["actions"]] == [
        ("AddHeader", "done"), ("S3", "done"), ("Lambda", "done"), ("SNS", "not run")]
    assert route["disposition"] == "STOPPED"


def test_a_recipient_that_no_rule_names_is_refused_and_the_screen_says_what_the_rules_name(dev: Dev) -> None:
    sent = run(dev.folder, "send", "--to", "someone@example.org")
    assert sent.returncode == 1
    assert "550 5.1.1" in sent.stderr
    line = dev.until("no enabled rule matches someone@example.org")
    assert "the rules name: support@example.com, gone@example.com, left@example.com, example.com" in line


def test_a_changed_rule_file_is_used_at_once_and_what_it_names_is_created(dev: Dev, about: dict[str, str]) -> None:
    rules = dev.folder / "rules.yaml"
    rules.write_text(RULES + "    - {Name: more, Recipients: [more.example.com], Actions: [{S3Action: {BucketName: fresh}}]}\n")
    dev.until("created bucket fresh")
    dev.until("5 rules in force")
    sent = run(dev.folder, "send", "--to", "x@more.example.com")
    assert client(about, "s3").head_object(Bucket="fresh", Key=sent.stdout.split()[3])
    rules.write_text(RULES + "    - {Name: more, Recipients: [\n")
    dev.until("is not used, revision")
    assert run(dev.folder, "send", "--to", "x@more.example.com").returncode == 0, "the last good revision stays"
    before = len(dev.lines)
    rules.write_text(RULES)
    dev.until("4 rules in force", after=before)  # the next test sends by them


def test_a_message_as_from_elsewhere_and_over_tls(dev: Dev, about: dict[str, str]) -> None:
    sent = run(dev.folder, "send", "--to", "support@example.com", "--ip", "192.0.2.77", "--helo", "client.example", "--tls", "--json")
    assert sent.returncode == 0, sent.stderr
    session = json.loads(sent.stdout)["route"]["session"]
    assert (session["client"], session["helo"], session["tls"]["version"]) == ("192.0.2.77", "client.example", "TLSv1.3")
    assert run(dev.folder, "send", "--to", "support@example.com", "--ip", "192.0.2.1").returncode == 0


def test_the_certificate_is_this_machines_own_and_can_be_trusted(dev: Dev, about: dict[str, str]) -> None:
    cert = dev.folder / "var" / "tls" / "cert.pem"
    dev.until("STARTTLS with var/tls/cert.pem")
    host, port = about["smtp"].rsplit(":", 1)
    with smtplib.SMTP(host, int(port)) as client:
        client.starttls(context=ssl.create_default_context(cafile=cert))
        assert client.noop()[0] == 250


def test_many_messages_over_one_connection(dev: Dev) -> None:
    sent = run(dev.folder, "send", "--to", "x@example.com", "--count", "20")
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.splitlines()[1].startswith("20 messages in ")


def test_many_messages_tell_which_recipients_are_refused(dev: Dev) -> None:
    sent = run(dev.folder, "send", "--to", "support@example.com", "--to", "x@example.org", "--count", "3")
    refused, last, _seconds = sent.stdout.splitlines()
    assert (sent.returncode, refused[:22], last[:13]) == (0, "x@example.org: 550 5.1", "250 2.0.0 OK ")
    nobody = run(dev.folder, "send", "--to", "x@example.org", "--count", "3")
    assert nobody.returncode == 1
    assert nobody.stderr.rstrip().endswith("(message 1 of 3)")


def test_health_and_readiness(about: dict[str, str]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{about['http']}/healthz") as answer:
        assert json.load(answer) == {"status": "ok"}
    with opener.open(f"http://{about['http']}/readyz") as answer:
        assert json.load(answer)["status"] == "ready"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        opener.open(f"http://{about['http']}/messages/unknown")


@pytest.mark.parametrize(("option", "which"), [("--smtp", "smtp"), ("--http", "http"), ("--aws", "aws")])
def test_a_port_in_use_gives_one_line_that_says_which_and_how_to_choose_another(
        about: dict[str, str], tmp_path: Path, option: str, which: str) -> None:
    taken = about[which].removeprefix("http://")
    ports = dict(zip(ANY_PORTS[::2], ANY_PORTS[1::2], strict=True)) | {option: taken}
    done = run(tmp_path, "dev", *(word for pair in ports.items() for word in pair))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert taken in done.stderr
    assert option in done.stderr


def test_a_running_endpoint_is_used_with_aws_url(about: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(sample_rules().replace(":000000000000:", ":123456789012:"))
    other = Dev(tmp_path, "--smtp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--aws", about["aws"])
    try:
        other.ready()
        sent = run(tmp_path, "send", "--to", "support@example.com")
        assert sent.stdout.splitlines()[-1] == "done", sent.stdout + sent.stderr
    finally:
        assert other.stop() == 0


def test_ctrl_c_drains_and_takes_the_local_aws_along(tmp_path: Path) -> None:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    running = Dev(tmp_path, *ANY_PORTS)
    about = running.ready()
    assert (tmp_path / "rules.yaml").read_text() == sample_rules(), "the sample is written where there is none"
    assert run(tmp_path, "send", "--to", "support@example.com").stdout.splitlines()[-1] == "done"
    assert running.stop() == 0
    assert not (tmp_path / "var" / "dev.json").exists()
    with pytest.raises(urllib.error.URLError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(about["aws"])
    kept = json.loads(run(tmp_path, "queue", "list", "--state", "done", "--json").stdout)
    assert kept["counts"] == {"active": 0, "deferred": 0, "dead": 0, "done": 1}
    shown = run(tmp_path, "queue", "show", kept["entries"][0]["id"])
    assert "text/plain" in shown.stdout, "the content is kept in dev, so its outline can be shown"
