"""`inbound policy`, `dns` and `doctor` as commands; the doctor against a local AWS in which some things are missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from local_dev import ANY_PORTS, Dev
from needs import needs_module
from process import AWS, clean_environment
from smarthost import smarthost

from inbound import settings
from inbound.assess.answers import Answer, Outcome
from inbound.decide.rules import RuleSet
from inbound.operate.doctor import Finding, examine

RULES = """
RuleSets:
  default:
    - Name: all
      Recipients: [example.com]
      Actions:
        - S3Action: {BucketName: mail}
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:inbound"}
        - LambdaAction: {FunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:handler"}
"""
KEYS = "arn:aws:kms:us-east-1:000000000000:alias/"
LOCKED = f"""
        - S3Action: {{BucketName: mail, KmsKeyArn: "{KEYS}mail"}}
"""
MISSING = f"""
        - S3Action: {{BucketName: mail, KmsKeyArn: "{KEYS}gone"}}
"""+"""
        - S3Action: {BucketName: not-there}
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:gone"}
"""


def inbound(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "inbound", *arguments], cwd=folder, env=clean_environment() | AWS | environment, capture_output=True,
                          text=True, timeout=90, check=False)


def test_the_doctor_says_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    (tmp_path / "rules.yaml").write_text(RULES + LOCKED)
    dev = Dev(tmp_path, *ANY_PORTS)
    try:
        endpoint = dev.ready()["aws"]
        (tmp_path / "more.yaml").write_text(RULES + LOCKED + MISSING)
        # a DNS server that does not answer: nobody listens there
        done = inbound(tmp_path, "doctor", "more.yaml", "--json", AWS_ENDPOINT_URL=endpoint, INBOUND_HOSTNAME="mx.example.com",
                       INBOUND_DNS="127.0.0.1:9", INBOUND_ALERT_TOPIC="arn:aws:sns:us-east-1:000000000000:nobody-hears")
    finally:
        dev.stop()
    assert done.returncode == 1, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert found["bucket mail"]["ok"]
    assert found["topic arn:aws:sns:us-east-1:000000000000:inbound"]["ok"]
    assert found["function arn:aws:lambda:us-east-1:000000000000:function:handler"]["ok"]
    assert found["disk"]["ok"]
    assert found[f"key {KEYS}mail"]["ok"]
    assert not found[f"key {KEYS}gone"]["ok"]
    assert "NotFound" in found[f"key {KEYS}gone"]["detail"]
    assert not found["topic arn:aws:sns:us-east-1:000000000000:nobody-hears"]["ok"], "alerts go there"
    assert not found["bucket not-there"]["ok"]
    assert not found["topic arn:aws:sns:us-east-1:000000000000:gone"]["ok"]
    assert "NotFound" in found["topic arn:aws:sns:us-east-1:000000000000:gone"]["detail"]
    assert not found["MX of example.com"]["ok"]
    for what in ("MX of example.com", "address of mx.example.com"):
        assert found[what]["detail"].startswith("DNS does not answer: no "), "and not what to publish, which may be there"


class NoRecords:
    """A resolver that finds nothing."""

    async def lookup(self, _name: str, _kind: str) -> Answer:
        return Answer(Outcome.NXDOMAIN)


async def test_the_doctor_greets_the_smarthost_and_sends_nothing(tmp_path: Path) -> None:
    async def greeted(url: str) -> Finding:
        found = await examine(settings.read(smarthost=url, data=tmp_path), RuleSet(name=None, rules=()), Any, NoRecords())  # type: ignore[arg-type]
        assert "geheim" not in f"{found}"
        return next(finding for finding in found if finding.what.startswith("smarthost "))

    async with smarthost(login=True) as host:
        address = f"127.0.0.1:{host.port}"
        well = await greeted(f"smtp://me:p%40ss%20word@{address}?starttls=off")
        assert well == Finding(f"smarthost {address}", True, "answers as mail.test, and lets me in")
        refused = await greeted(f"smtp://me:geheim@{address}?starttls=off")
        assert (refused.ok, refused.detail[:4]) == (False, "535 ")
        assert host.got == []


async def about_the_certificate(folder: Path, lives: timedelta) -> Finding:
    issued = trustme.CA().issue_cert("mx.example.com", not_after=datetime.now(UTC) + lives)
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    told = settings.read(data=folder, tls_cert=folder / "cert.pem", tls_key=folder / "key.pem")
    found = await examine(told, RuleSet(name=None, rules=()), Any, NoRecords())  # type: ignore[arg-type]
    return next(finding for finding in found if finding.what == "certificate")


@pytest.mark.parametrize(("lives", "ok", "says"), [
    (timedelta(days=14, hours=1), True, r"valid until \d{4}-\d\d-\d\d"),
    (timedelta(days=13, hours=23), False, r"/\S+/cert.pem expires \d{4}-\d\d-\d\d; renew it"),
    (timedelta(minutes=-1), False, r"/\S+/cert.pem expires \d{4}-\d\d-\d\d; renew it"),
])
async def test_the_doctor_tells_of_a_certificate_two_weeks_before_its_end(tmp_path: Path, lives: timedelta, ok: bool, says: str) -> None:
    found = await about_the_certificate(tmp_path, lives)
    assert found.ok is ok
    assert re.fullmatch(says, found.detail)


async def test_the_doctor_tells_of_a_certificate_that_is_none(tmp_path: Path) -> None:
    for name, octets in (("nowhere.pem", None), ("text.pem", b"no certificate")):
        if octets is not None:
            (tmp_path / name).write_bytes(octets)
        told = settings.read(data=tmp_path, tls_cert=tmp_path / name, tls_key=tmp_path / "key.pem")
        found = await examine(told, RuleSet(name=None, rules=()), Any, NoRecords())  # type: ignore[arg-type]
        finding = next(finding for finding in found if finding.what == "certificate")
        assert not finding.ok
        assert len(finding.detail.splitlines()) == 1


async def test_the_doctor_wants_the_space_that_mail_is_refused_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inbound.operate.doctor.free_octets", lambda _: 63 * 2**20)
    found = await examine(settings.read(data=tmp_path), RuleSet(name=None, rules=()), Any, NoRecords())  # type: ignore[arg-type]
    disk = next(finding for finding in found if finding.what == "disk")
    assert disk == Finding("disk", False, f"63 MB free at {tmp_path}; no mail is taken below 64 MB, and an outage needs room too")


def test_policy_knows_the_topic_of_alerts(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    done = inbound(tmp_path, "policy", "--json", INBOUND_ALERT_TOPIC="arn:aws:sns:us-east-1:123456789012:alerts")
    topics = next(s["Resource"] for s in json.loads(done.stdout)["identity"]["Statement"] if s["Action"] == "sns:Publish")
    assert topics == ["arn:aws:sns:us-east-1:000000000000:inbound", "arn:aws:sns:us-east-1:123456789012:alerts"]
    wrong = inbound(tmp_path, "policy", "--alert-topic", "alerts")
    assert wrong.returncode == 2
    assert "is not the ARN of an SNS topic" in wrong.stderr


def test_policy_prints_what_iam_takes(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    done = inbound(tmp_path, "policy", "--json", "--principal", "arn:aws:iam::123456789012:role/inbound")
    found = json.loads(done.stdout)
    assert [s["Action"] for s in found["identity"]["Statement"]] == ["s3:PutObject", "sns:Publish", "lambda:InvokeFunction"]
    assert found["resources"]["bucket mail"]["Principal"] == {"AWS": ["arn:aws:iam::123456789012:role/inbound"]}


def test_broken_or_missing_rules_end_these_commands_as_check_would(tmp_path: Path) -> None:
    assert inbound(tmp_path, "policy").returncode == 2
    (tmp_path / "rules.yaml").write_text("Rules: {}\n")
    for command in ("policy", "doctor"):
        done = inbound(tmp_path, command)
        assert done.returncode == 1
        assert done.stderr.startswith("rules.yaml:1:1: ")


def test_dns_prints_a_zone_and_refuses_what_is_no_name(tmp_path: Path) -> None:
    done = inbound(tmp_path, "dns", "example.com", "--hostname", "mx.example.com")
    assert "example.com. 3600 IN MX 10 mx.example.com.\n" in done.stdout
    refused = inbound(tmp_path, "dns", "example.com", "--hostname", "laptop")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
