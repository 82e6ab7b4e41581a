"""`inbound policy`, `dns` and `doctor` as commands; the doctor against a local AWS in which some things are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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
MISSING = """
        - S3Action: {BucketName: not-there}
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:gone"}
"""


def inbound(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "inbound", *arguments], cwd=folder, env=clean_environment() | AWS | environment, capture_output=True,
                          text=True, timeout=90, check=False)


def test_the_doctor_says_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    (tmp_path / "rules.yaml").write_text(RULES)
    dev = Dev(tmp_path, *ANY_PORTS)
    try:
        endpoint = dev.ready()["aws"]
        (tmp_path / "more.yaml").write_text(RULES + MISSING)
        # a DNS server that does not answer: nobody listens there
        done = inbound(tmp_path, "doctor", "more.yaml", "--json", AWS_ENDPOINT_URL=endpoint, INBOUND_HOSTNAME="mx.example.com",
                       INBOUND_DNS="127.0.0.1:9")
    finally:
        dev.stop()
    assert done.returncode == 1, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert found["bucket mail"]["ok"]
    assert found["topic arn:aws:sns:us-east-1:000000000000:inbound"]["ok"]
    assert found["function arn:aws:lambda:us-east-1:000000000000:function:handler"]["ok"]
    assert found["disk"]["ok"]
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
