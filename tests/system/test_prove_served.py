"""`inbound prove` against what a running inbound stored and published itself, fetched from S3: equal in every field, until one is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from letters_with_attachments import letter
from local_dev import ANY_PORTS, Dev, client, run
from needs import needs_module
from process import AWS, clean_environment

from inbound.assess.dkim.sign import key_record, new_key, sign

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: store
      Recipients: [support@example.com]
      Actions:
        - AddHeaderAction: {HeaderName: X-Route, HeaderValue: support}
        - S3Action: {BucketName: mail, ObjectKeyPrefix: in/, TopicArn: "arn:aws:sns:us-east-1:000000000000:stored"}
"""
KEY = new_key()
ZONE = f"""
    sender.example               TXT  "v=spf1 ip4:127.0.0.1 -all"
    _dmarc.sender.example        TXT  "v=DMARC1; p=quarantine"
    r._domainkey.sender.example  TXT  {" ".join(f'"{part}"' for part in (key_record(KEY)[:250], key_record(KEY)[250:]))}
"""


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, dns: DnsServer) -> Iterator[Dev]:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("dev")
    (folder / "rules.yaml").write_text(RULES)
    (folder / "good.eml").write_bytes(sign(letter(), domain="sender.example", selector="r", key_pem=KEY) + letter())
    running = Dev(folder, *ANY_PORTS, environment={"INBOUND_DNS": dns.setting})
    try:
        running.ready()
        yield running
    finally:
        running.stop()


def prove(dev: Dev, dns: DnsServer, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "inbound", "prove", *arguments, "--json"], cwd=dev.folder, capture_output=True, text=True, check=False, timeout=90,
        env=clean_environment() | AWS | {"AWS_ENDPOINT_URL_S3": dev.ready()["aws"], "INBOUND_DNS": dns.setting})
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def send(dev: Dev, *options: str) -> str:
    done = run(dev.folder, "send", "--to", "support@example.com", "--json", *options)
    assert done.returncode == 0, done.stderr
    identifier: str = json.loads(done.stdout)["route"]["id"]
    return identifier


def published(dev: Dev, folder: Path, wanted: int) -> None:
    """The bodies of the queue behind the topic, a file."""
    sqs = client(dev.ready(), "sqs")
    queue = sqs.get_queue_url(QueueName="stored-dev")["QueueUrl"]
    found: list[Any] = []
    while len(found) < wanted:
        got = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=5).get("Messages", [])
        assert got, f"{len(found)} of {wanted} notifications came"
        found += [{"Body": each["Body"]} for each in got]
    (folder / "queue.json").write_text(json.dumps({"Messages": found}))


def test_what_inbound_made_itself_is_equal_until_it_is_changed(dev: Dev, dns: DnsServer, tmp_path: Path) -> None:
    sent = [send(dev, "--from", "ann@sender.example", "--eml", "good.eml"), send(dev, "--from", "bob@sender.example")]
    published(dev, tmp_path, len(sent))
    status, found = prove(dev, dns, "s3://mail/in/", str(tmp_path / "queue.json"), "--rules", "rules.yaml")
    assert (found["differences"], found["skipped"]) == ([], [])
    assert (status, found["messages"], found["identical"]) == (0, 2, 2)

    s3 = client(dev.ready(), "s3")
    changed = s3.get_object(Bucket="mail", Key=f"in/{sent[0]}")["Body"].read().replace(b" dmarc=pass ", b" dmarc=none ")
    s3.put_object(Bucket="mail", Key=f"in/{sent[0]}", Body=changed)
    s3.put_object(Bucket="mail", Key="in/encrypted", Body=b"x", Metadata={"x-amz-key-v2": "AAAA"})
    status, found = prove(dev, dns, "s3://mail/in/")
    assert status == 0, "that a record was published since then is no difference of ours"
    assert [(each["where"], each["field"], each["ses"], each["inbound"], each["whose"]) for each in found["differences"]] == [
        (f"s3://mail/in/{sent[0]}", "Authentication-Results dmarc", "none", "pass", "DNS since then")]
    assert found["skipped"] == [{"where": "s3://mail/in/encrypted", "why": "is encrypted with a KMS key by SES (KmsKeyArn); "
                                 "decrypt it with an S3 encryption client first"}]


def test_a_bucket_that_is_not_there(dev: Dev, dns: DnsServer) -> None:
    status, found = prove(dev, dns, "s3://nowhere/")
    assert status == 2
    assert found["stderr"].startswith("inbound: s3://nowhere/: NoSuchBucket: ")
    assert len(found["stderr"].splitlines()) == 1
