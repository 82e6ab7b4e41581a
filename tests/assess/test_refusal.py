"""Which verdicts refuse a message before it is accepted, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inbound.assess.authentication import Authentication
from inbound.assess.refusal import refusal
from inbound.assess.verdicts import Assessment, Status, Verdict

FAIL = Verdict(Status.FAIL, "why")
SAID = Authentication("fail", "domain of a.example does not designate 192.0.2.1 as permitted sender", (), "fail", "b.example")
ALL = ("virus", "spam", "dmarc", "spf")
FAILED = Assessment(FAIL, FAIL, FAIL, FAIL, Verdict(Status.FAIL, "Eicar-Test-Signature"), "reject", SAID)


@pytest.mark.parametrize(("name", "reply"), [
    ("virus", "550 5.7.1 Message refused: it carries a virus (Eicar-Test-Signature)"),
    ("spam", "550 5.7.1 Message refused: it is taken for spam"),
    ("dmarc", "550 5.7.26 Message refused: it fails the DMARC policy of b.example"),
    ("spf", "550 5.7.23 Message refused: domain of a.example does not designate 192.0.2.1 as permitted sender"),
])
def test_each_verdict_that_counts_has_its_reply(name: str, reply: str) -> None:
    found = refusal(FAILED, [name])
    assert found is not None
    assert (str(found), found.reason) == (reply, name)


def test_none_counts_by_default() -> None:
    assert refusal(FAILED, ()) is None


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.FAIL])
def test_only_fail_is_refused(status: Status) -> None:
    verdict = Verdict(status)
    assert refusal(Assessment(verdict, verdict, verdict, verdict, verdict), ALL) is None


@pytest.mark.parametrize(("policy", "refused"), [("reject", True), ("quarantine", True), ("", True), ("none", False)])
def test_a_domain_that_asks_for_nothing_gets_nothing(policy: str, refused: bool) -> None:
    assert (refusal(replace(FAILED, dmarc_policy=policy), ["dmarc"]) is not None) is refused


def test_a_message_without_one_author_is_told_so() -> None:
    reply = refusal(replace(FAILED, authentication=replace(SAID, from_domain="")), ["dmarc"])
    assert str(reply) == "550 5.7.26 Message refused: it has not exactly one From address, so it fails DMARC"


def test_what_a_sender_wrote_cannot_break_the_reply() -> None:
    hostile = replace(FAILED, virus=Verdict(Status.FAIL, "x\r\n250 OK\0" + "y" * 500), authentication=replace(SAID, from_domain="b\r\n250 OK"))
    for name in ("virus", "dmarc"):
        line = refusal(hostile, [name]).octets
        assert line.count(b"\r\n") == 1
        assert len(line) <= 512
