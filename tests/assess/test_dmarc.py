"""DMARC by the examples of RFC 9989, by its rules one by one, and under attack."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import pytest
from dns_server import DnsServer, Fault
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.assess import message, spf
from inbound.assess.answers import Answer, Answers, Need, Outcome, Question
from inbound.assess.author import Author, author
from inbound.assess.dmarc import DmarcResult, Identifier, check, evaluate, identifiers, organizational_domain, walk_names
from inbound.assess.dns import Resolver

T = TypeVar("T")
Zone = dict[str, str | Outcome]
"""What TXT lookups find by name; other names exist as long as something lies below them, and the rest does not."""

OK = Identifier("DKIM", "", "pass")


def asked_of(zone: Zone, judge: Callable[[Answers], T]) -> tuple[T, list[Question]]:
    """The result over a zone, and what was asked."""
    answers, asked = Answers(), []
    while True:
        try:
            return judge(answers), asked
        except Need as need:
            for question in need.questions:
                asked.append(question)
                answers.learn(question, answer(zone, question))


def answer(zone: Zone, question: Question) -> Answer:
    found = zone.get(question.name)
    if isinstance(found, Outcome):
        return Answer(found, reason=f"{question.name}: {found}")
    if found is not None and question.rdtype == "TXT":
        return Answer(Outcome.FOUND, tuple(text.encode("latin-1") for text in found.split("\n")))
    exists = found is not None or any(name.endswith(f".{question.name}") for name in zone)
    return Answer(Outcome.NO_DATA if exists else Outcome.NXDOMAIN)


def judged(zone: Zone, domain: str, *found: Identifier) -> DmarcResult:
    return asked_of(zone, lambda answers: evaluate(answers, Author(domain), found))[0]


def policy(zone: Zone, domain: str) -> str:
    """The policy for a message that nothing authenticates; the result itself if that is not fail."""
    result = judged(zone, domain)
    return result.policy if result.result == "fail" else result.result


def organization(zone: Zone, domain: str) -> str:
    return asked_of(zone, lambda answers: organizational_domain(answers, domain))[0]


def spf_of(domain: str, result: str = "pass") -> Identifier:
    return Identifier("SPF", domain, result)


def dkim_of(domain: str, result: str = "pass") -> Identifier:
    return Identifier("DKIM", domain, result)


# --- the RFC's examples ---


@pytest.mark.parametrize(
    ("domain", "names"),
    [
        ("a.b.c.d.e.f.g.h.i.j.mail.example.com",  # §4.10
         ["a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com", "h.i.j.mail.example.com", "i.j.mail.example.com",
          "j.mail.example.com", "mail.example.com", "example.com", "com"]),
        ("mail.a.b.c.d.e.f.g.example.com",  # §5.1.8
         ["mail.a.b.c.d.e.f.g.example.com", "c.d.e.f.g.example.com", "d.e.f.g.example.com", "e.f.g.example.com", "f.g.example.com",
          "g.example.com", "example.com", "com"]),
        ("a.b.c.d.e.f.example.com",  # eight labels
         ["a.b.c.d.e.f.example.com", "b.c.d.e.f.example.com", "c.d.e.f.example.com", "d.e.f.example.com", "e.f.example.com", "f.example.com",
          "example.com", "com"]),
        ("a.mail.example.com", ["a.mail.example.com", "mail.example.com", "example.com", "com"]),
        ("example.com", ["example.com", "com"]),
    ],
)
def test_the_names_of_a_tree_walk(domain: str, names: list[str]) -> None:
    assert walk_names(domain) == names


@pytest.mark.parametrize(
    ("zone", "domain", "expected"),
    [
        # §4.10.2, its three examples
        ({"_dmarc.mail.example.com": "v=DMARC1; p=none", "_dmarc.example.com": "v=DMARC1; p=none"}, "a.mail.example.com", "example.com"),
        ({"_dmarc.mail.example.com": "v=DMARC1; psd=n", "_dmarc.example.com": "v=DMARC1"}, "a.mail.example.com", "mail.example.com"),
        ({"_dmarc.com": "v=DMARC1; psd=y"}, "a.mail.example.com", "example.com"),
        # the rules one by one
        ({}, "a.mail.example.com", "a.mail.example.com"),
        ({"_dmarc.mail.example.com": "v=DMARC1; psd=u", "_dmarc.com": "v=DMARC1"}, "a.mail.example.com", "com"),
        ({"_dmarc.mail.example.com": "v=DMARC1", "_dmarc.example.com": "v=DMARC1; psd=y"}, "a.mail.example.com", "mail.example.com"),
        ({"_dmarc.a.mail.example.com": "v=DMARC1; psd=y", "_dmarc.example.com": "v=DMARC1"}, "a.mail.example.com", "a.mail.example.com"),
        ({"_dmarc.bank.example": "v=DMARC1; psd=y"}, "a.b.c.bank.example", "c.bank.example"),
        ({"_dmarc.k.example.com": "v=DMARC1; psd=y"}, "a.b.c.d.e.f.g.h.i.j.k.example.com", "j.k.example.com"),
        ({"_dmarc.c.d.e.f.g.example.com": "v=DMARC1; psd=y"}, "a.b.c.d.e.f.g.example.com", "b.c.d.e.f.g.example.com"),
        ({"_dmarc.b.c.d.e.f.g.example.com": "v=DMARC1; psd=n", "_dmarc.example.com": "v=DMARC1"},  # §5.1.8: never discovered
         "mail.a.b.c.d.e.f.g.example.com", "example.com"),
        ({"_dmarc.example.com": Outcome.SERVFAIL}, "a.example.com", "a.example.com"),
    ],
)
def test_the_organizational_domain(zone: Zone, domain: str, expected: str) -> None:
    assert organization(zone, domain) == expected


def test_a_tree_walk_asks_eight_questions_at_once() -> None:
    runs = []

    def judge(answers: Answers) -> DmarcResult:
        runs.append(1)
        return evaluate(answers, Author("a.b.c.d.e.f.g.h.i.j.mail.example.com"), [])

    _, asked = asked_of({}, judge)
    assert len(asked) == 8
    assert len(runs) == 3  # the author's own record, the rest of the walk, done


EXAMPLE = "v=DMARC1; p=reject; aspf=r; rua=mailto:dmarc-feedback@example.com"


@pytest.mark.parametrize(
    ("zone", "domain", "found", "passes"),
    [
        # §4.4 table 1
        ({"_dmarc.example.com": EXAMPLE}, "news.example.com", dkim_of("foo.example.com"), True),
        ({"_dmarc.example.com": EXAMPLE}, "news.example.com", dkim_of("news.example.com"), True),
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.example.net": EXAMPLE}, "news.example.com", dkim_of("foo.example.net"), False),
        # B.1.1
        ({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of("example.com"), True),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of("child.example.com"), True),
        ({"_dmarc.example.com": EXAMPLE}, "child.example.com", spf_of("example.net"), False),
        # B.1.2
        ({"_dmarc.example.com": EXAMPLE}, "example.com", dkim_of("example.com"), True),
        ({"_dmarc.example.com": EXAMPLE}, "child.example.com", dkim_of("example.com"), True),
        ({"_dmarc.example.com": EXAMPLE}, "child.example.com", dkim_of("example.net"), False),
        # B.3.1
        ({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of("mail.example.com"), True),
        # B.4.1
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.signing.example.com": EXAMPLE}, "example.com", dkim_of("signing.example.com"), True),
        # B.4.2
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.signing.example.com": EXAMPLE}, "a.b.c.d.e.f.g.h.i.j.k.example.com", spf_of("example.com"), True),
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.signing.example.com": EXAMPLE}, "a.b.c.d.e.f.g.h.i.j.k.example.com",
         dkim_of("signing.example.com"), True),
        # B.4.3
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; psd=y", "_dmarc.giant.bank.example": EXAMPLE}, "giant.bank.example",
         spf_of("mail.giant.bank.example"), True),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; psd=y", "_dmarc.giant.bank.example": EXAMPLE}, "giant.bank.example",
         dkim_of("mail.mega.bank.example"), False),
        # §11.8: the sender of a parent's subdomain passes unless alignment is strict
        ({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of("evil.example.com"), True),
        ({"_dmarc.example.com": EXAMPLE + "; aspf=s"}, "example.com", spf_of("evil.example.com"), True),  # the first aspf counts
        ({"_dmarc.example.com": "v=DMARC1; p=reject; aspf=s"}, "example.com", spf_of("evil.example.com"), False),
        ({"_dmarc.example.com": "v=DMARC1; p=reject; aspf=S"}, "example.com", dkim_of("evil.example.com"), True),
        ({"_dmarc.example.com": "v=DMARC1; p=reject; adkim=s"}, "example.com", dkim_of("evil.example.com"), False),
        ({"_dmarc.example.com": "v=DMARC1; p=reject; adkim=s"}, "example.com", dkim_of("EXAMPLE.com"), True),
        ({"_dmarc.mail.example.com": "v=DMARC1; p=reject; psd=n", "_dmarc.example.com": EXAMPLE}, "evil.example.com",
         spf_of("mail.example.com"), False),
        # not authenticated, not a domain
        ({"_dmarc.example.com": EXAMPLE}, "example.com", dkim_of("example.com", "fail"), False),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", dkim_of("example.com", "policy"), False),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of("example.com", "softfail"), False),
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.com": EXAMPLE}, "example.com", dkim_of("com"), False),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of(""), False),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", dkim_of("notexample.com"), False),
        ({"_dmarc.xn--bcher-kva.example": EXAMPLE}, "xn--bcher-kva.example", dkim_of("bücher.example"), True),
    ],
)
def test_alignment(zone: Zone, domain: str, found: Identifier, passes: bool) -> None:
    assert judged(zone, domain, found).result == ("pass" if passes else "fail")


def test_one_aligned_identifier_is_enough_and_tells_which() -> None:
    result = judged({"_dmarc.example.com": EXAMPLE}, "example.com", spf_of("example.net"), dkim_of("example.com", "fail"), dkim_of("m.example.com"))
    assert (result.verdict.status, result.policy) == ("PASS", "")
    assert result.reason == "DKIM passes for m.example.com, which aligns with example.com"


def test_strangers_cost_no_walk() -> None:
    found = [dkim_of(f"d{n}.example.net") for n in range(10)]
    _, asked = asked_of({"_dmarc.example.com": EXAMPLE}, lambda answers: evaluate(answers, Author("example.com"), found))
    assert [each.name for each in asked] == ["_dmarc.example.com", "_dmarc.com"]


# --- policy ---


@pytest.mark.parametrize(
    ("zone", "domain", "expected"),
    [
        ({"_dmarc.example.com": "v=DMARC1; p=none"}, "example.com", "none"),  # B.2.1
        ({"_dmarc.example.com": "v=DMARC1; p=none; rua=mailto:a@example.com; ruf=mailto:b@thirdparty.example.net"}, "example.com", "none"),
        ({"_dmarc.test.example.com": "v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,mailto:tld-test@thirdparty.example.net; t=y"},
         "test.example.com", "none"),  # B.2.5
        ({"_dmarc.test.example.com": "v=DMARC1; p=reject; rua=mailto:dmarc-feedback@example.com"}, "test.example.com", "reject"),
        ({"_dmarc.example.com": "v=DMARC1; p=reject; t=y"}, "example.com", "quarantine"),
        ({"_dmarc.example.com": "v=DMARC1; p=none; t=y"}, "example.com", "none"),
        ({"_dmarc.example.com": "v=DMARC1; p=reject; t=n"}, "example.com", "reject"),
        ({"_dmarc.example.com": "v=DMARC1; p=none; sp=reject; t=y", "a.example.com": ""}, "a.example.com", "quarantine"),
        # sp and np, §4.7: for subdomains of where the record is, existing and not
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine; sp=reject; np=none"}, "example.com", "quarantine"),
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine; sp=none; np=reject", "a.example.com": ""}, "a.example.com", "none"),
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine; sp=none; np=reject", "below.a.example.com": ""}, "a.example.com", "none"),
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine; sp=none; np=reject"}, "a.example.com", "reject"),
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine; np=reject", "a.example.com": ""}, "a.example.com", "quarantine"),
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine; sp=reject"}, "a.example.com", "reject"),
        ({"_dmarc.example.com": "v=DMARC1; p=quarantine"}, "a.example.com", "quarantine"),
        ({"_dmarc.example.com": "v=DMARC1; p=none; np=reject", "a.example.com": Outcome.TIMEOUT}, "a.example.com", "reject"),
        ({"_dmarc.a.example.com": "v=DMARC1; p=none; sp=reject; np=reject", "_dmarc.example.com": EXAMPLE}, "a.example.com", "none"),
        # where the record is, §4.10.1: the author's, the organization's, the public suffix's, and no other
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.mail.example.com": "v=DMARC1; p=none"}, "a.mail.example.com", "reject"),
        ({"_dmarc.example.com": EXAMPLE, "_dmarc.mail.example.com": "v=DMARC1; p=none; psd=n"}, "a.mail.example.com", "none"),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; sp=quarantine; psd=y", "giant.bank.example": ""}, "giant.bank.example", "quarantine"),
        ({"_dmarc.bank.example": "v=DMARC1; p=none; np=reject; psd=y"}, "gaint.bank.example", "reject"),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; psd=y", "_dmarc.giant.bank.example": "v=DMARC1; p=none"}, "a.giant.bank.example", "none"),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; psd=y"}, "bank.example", "reject"),
        ({}, "example.com", "none yet"),
    ],
)
def test_the_policy_that_applies(zone: Zone, domain: str, expected: str) -> None:
    if expected == "none yet":
        assert judged(zone, domain).result == "none"
        return
    result = judged(zone, domain)
    assert (result.result, result.policy) == ("fail", expected)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=DMARC1;p=reject", "reject"),
        ("v=DMARC1 ; p = reject ;", "reject"),
        ("v\t=\tDMARC1\t;\tp\t=\treject", "reject"),
        ("V=DMARC1; P=Reject", "reject"),
        ("v=DMARC1; rua=mailto:a@b.example; p=reject", "reject"),
        ("v=DMARC1; pct=0; rf=afrf; ri=1; new=thing; p=reject", "reject"),
        ("v=DMARC1; ; =; nonsense; p=reject; p=none", "reject"),
        ("v=DMARC1; p=reject; adkim=; aspf=x; psd=z; t=yes", "reject"),
        ("v=DMARC1; \xff\x00=\xe4; p=reject", "reject"),
        # no usable policy, §4.10.1
        ("v=DMARC1", "permerror"),
        ("v=DMARC1; p=rejct", "permerror"),
        ("v=DMARC1; p=reject; sp=rejct", "permerror"),
        ("v=DMARC1; p=reject; np=rejct", "permerror"),
        ("v=DMARC1; p=rejct; rua=nowhere", "permerror"),
        ("v=DMARC1; rua=mailto:a@b.example", "none"),
        ("v=DMARC1; p=rejct; rua=nowhere, mailto:a@b.example!10m", "none"),
        ("v=DMARC1; p=reject; sp=rejct; rua=mailto:a@b.example", "none"),
        # no record at all, §4.7
        ("v=dmarc1; p=reject", "no record"),
        ("v=DMARC2; p=reject", "no record"),
        ("v=DMARC12; p=reject", "no record"),
        (" v=DMARC1; p=reject", "no record"),
        ("p=reject; v=DMARC1", "no record"),
        ("v=spf1 -all", "no record"),
        ("", "no record"),
        ("v=DMARC1; p=reject\nv=DMARC1; p=none", "no record"),
        ("v=DMARC1; p=reject\nv=DMARC1; p=reject", "no record"),
        ("v=DMARC1; p=reject\nhello\nv=spf1 -all", "reject"),
    ],
)
def test_records(record: str, expected: str) -> None:
    result = judged({"_dmarc.example.com": record}, "example.com")
    if expected == "no record":
        assert (result.result, result.verdict.status, result.policy) == ("none", "GRAY", "")
    elif expected == "permerror":
        assert (result.result, result.verdict.status, result.policy) == ("permerror", "GRAY", "")
    else:
        assert (result.result, result.verdict.status, result.policy) == ("fail", "FAIL", expected)


def test_a_record_without_a_policy_does_not_let_a_message_pass() -> None:
    assert judged({"_dmarc.example.com": "v=DMARC1"}, "example.com", dkim_of("example.com")).result == "permerror"
    assert judged({}, "example.com", dkim_of("example.com")).result == "none"


# --- trouble ---


@pytest.mark.parametrize(
    ("zone", "domain", "found", "expected"),
    [
        ({"_dmarc.example.com": Outcome.TIMEOUT}, "example.com", [dkim_of("example.com")], "temperror"),
        ({"_dmarc.example.com": Outcome.SERVFAIL}, "a.example.com", [], "temperror"),
        ({"_dmarc.a.example.com": Outcome.MALFORMED, "_dmarc.example.com": EXAMPLE}, "a.example.com", [], "temperror"),
        ({"_dmarc.com": Outcome.TIMEOUT, "_dmarc.example.com": EXAMPLE}, "a.example.com", [], "temperror"),
        ({"_dmarc.com": Outcome.TIMEOUT, "_dmarc.example.com": EXAMPLE}, "example.com", [dkim_of("a.example.com")], "temperror"),
        ({"_dmarc.com": Outcome.TIMEOUT, "_dmarc.example.com": EXAMPLE}, "example.com", [dkim_of("a.example.com"), dkim_of("example.com")], "pass"),
        ({"_dmarc.com": Outcome.TIMEOUT, "_dmarc.example.com": EXAMPLE + "; psd=n"}, "a.example.com", [dkim_of("example.com")], "pass"),
        ({"_dmarc.com": Outcome.TIMEOUT, "_dmarc.example.com": EXAMPLE}, "example.com", [], "fail"),
        # what may have passed is not known to fail
        ({"_dmarc.example.com": EXAMPLE}, "example.com", [spf_of("example.com", "temperror")], "temperror"),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", [spf_of("example.com", "temperror"), dkim_of("example.com")], "pass"),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", [dkim_of("example.net", "temperror")], "fail"),
        ({"_dmarc.example.com": EXAMPLE}, "example.com", [spf_of("example.com", "permerror")], "fail"),
    ],
)
def test_trouble_with_dns_is_neither_pass_nor_fail(zone: Zone, domain: str, found: list[Identifier], expected: str) -> None:
    result = judged(zone, domain, *found)
    assert result.result == expected
    if expected == "temperror":
        assert (result.verdict.status, result.policy) == ("PROCESSING_FAILED", "")


# --- attacks ---


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), ""),
        (("good.example",), "none"),
        (("good.example", "bank.example"), "reject"),
        (("good.example", "sub.bank.example"), "quarantine"),
        (("nowhere.example",), ""),
        (("dead.example", "good.example"), "none"),
    ],
)
def test_without_an_author_it_fails_with_the_strictest_policy(named: tuple[str, ...], expected: str) -> None:
    zone: Zone = {"_dmarc.good.example": "v=DMARC1; p=none", "_dmarc.bank.example": "v=DMARC1; p=reject; sp=quarantine",
                  "_dmarc.dead.example": Outcome.TIMEOUT, "sub.bank.example": ""}
    found = [dkim_of(name) for name in (*named, "good.example")]
    result, _ = asked_of(zone, lambda answers: evaluate(answers, Author("", "it has two", named), found))
    assert (result.result, result.verdict.status, result.policy, result.reason) == ("fail", "FAIL", expected, "it has two")


@pytest.mark.parametrize(
    "head",
    [
        b"From: me@good.example\r\nFrom: ceo@bank.example\r\n\r\n",
        b"From: ceo@bank.example\r\nFrom: me@good.example\r\n\r\n",
        b"From: ceo@bank.example, me@good.example\r\n\r\n",
        b"From: me@good.example(.bank.example)\r\n\r\n",
        b"From: ceo@bank.example <me@good.example>\r\n\r\n",
        b'From: "ceo@bank.example"@good.example\r\n\r\n',
        b"From: ceo@bank.example\0@good.example\r\n\r\n",
        b"From\0: ceo@bank.example\r\nFrom: me@good.example\r\n\r\n",
        b"From: me@good.example\r\nFrom : ceo@bank.example\r\n\r\n",
        b"From: <@good.example,@bank.example:ceo@bank.example>\r\n\r\n",
        b"\r\nFrom: me@good.example\r\n\r\n",
        b"To: you@good.example\r\n\r\n",
    ],
)
def test_compositions_that_kill_never_pass(head: bytes) -> None:
    zone: Zone = {"_dmarc.good.example": "v=DMARC1; p=none", "_dmarc.bank.example": "v=DMARC1; p=reject"}
    found = (spf_of("good.example"), dkim_of("good.example"))
    who = author(head, message.parse(head))
    result, _ = asked_of(zone, lambda answers: evaluate(answers, who, found))
    assert result.verdict.status == "FAIL"
    assert not who.domain


class Signed(NamedTuple):
    domain: str
    result: str
    body_length_limited: bool = False


def test_what_authenticates() -> None:
    sender = spf.SpfResult("pass", "", "example.com", "helo")
    signatures = [Signed("a.example", "pass"), Signed("b.example", "pass", body_length_limited=True), Signed("c.example", "fail")]
    assert identifiers(sender, signatures) == (
        Identifier("SPF", "example.com", "pass"), Identifier("DKIM", "a.example", "pass"), Identifier("DKIM", "c.example", "fail"))


# --- over real DNS ---


async def test_over_dns_with_a_helo_identity() -> None:
    with DnsServer('''
        example.com           TXT "v=spf1 ip4:192.0.2.1 -all"
        mx.example.com        TXT "v=spf1 ip4:192.0.2.1 -all"
        _dmarc.example.com    TXT "v=DMARC1; p=reject; " "sp=quarantine"
        alias.example         TXT "x"
        _dmarc.alias.example  CNAME _dmarc.example.com
    ''', faults={"_dmarc.dead.example": Fault.SILENT}) as server:
        resolver = Resolver([server.address], timeout=0.3)

        async def result(domain: str, ip: str, mail_from: str) -> tuple[str, str]:
            budget = resolver.budget(5)
            sender = await spf.check(resolver, ip=ip, helo="mx.example.com", mail_from=mail_from, budget=budget)
            found = await check(resolver, Author(domain), identifiers(sender, ()), budget)
            return found.result, found.policy

        assert await result("example.com", "192.0.2.1", "") == ("pass", "")
        assert await result("example.com", "192.0.2.1", "me@example.com") == ("pass", "")
        assert await result("example.com", "192.0.2.2", "me@example.com") == ("fail", "reject")
        assert await result("a.example.com", "192.0.2.2", "") == ("fail", "quarantine")
        assert await result("alias.example", "192.0.2.2", "") == ("fail", "reject")
        assert await result("nothing.example", "192.0.2.1", "") == ("none", "")
        assert await result("dead.example", "192.0.2.1", "") == ("temperror", "")


async def test_a_dead_dns_server_is_a_temporary_error_within_the_budget() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        resolver = Resolver([deaf.getsockname()])
        began = time.monotonic()
        found = await check(resolver, Author("a.b.c.d.e.f.g.h.i.example.com"), [dkim_of("example.com")], resolver.budget(0.3))
        assert time.monotonic() - began < 3
        await resolver.close()
    assert (found.result, found.verdict.status) == ("temperror", "PROCESSING_FAILED")


# --- anything ---


@settings(max_examples=200, deadline=None)
@given(
    texts=st.dictionaries(
        st.sampled_from(["_dmarc.a.b.example", "_dmarc.b.example", "_dmarc.example", "a.b.example"]),
        st.lists(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"v=DMARC1;" + tail)), max_size=2)),
    domain=st.sampled_from(["a.b.example", "b.example", "x.a.b.example"]),
    found=st.lists(st.builds(Identifier, st.sampled_from(["SPF", "DKIM"]), st.text(max_size=20), st.sampled_from(["pass", "fail", "temperror"]))),
)
def test_no_octets_raise_and_strangers_never_pass(texts: dict[str, list[bytes]], domain: str, found: list[Identifier]) -> None:
    answers = Answers()
    while True:
        try:
            result = evaluate(answers, Author(domain), found)
            break
        except Need as need:
            for each in need.questions:
                answers.learn(each, Answer(Outcome.FOUND, tuple(texts[each.name])) if texts.get(each.name) else Answer(Outcome.NXDOMAIN))
    assert result.result in {"fail", "none", "permerror"} or any(each.domain.endswith("example") for each in found)
    assert (result.policy in {"none", "quarantine", "reject"}) == (result.result == "fail")
    assert re.fullmatch(r"[ -~]*", result.reason)


policies = st.sampled_from(["none", "quarantine", "reject"])


@settings(max_examples=100, deadline=None)
@given(p=policies, sp=policies, np=policies, testing=st.booleans(), exists=st.booleans(), sub=st.booleans())
def test_the_policy_is_the_one_of_the_table(p: str, sp: str, np: str, testing: bool, exists: bool, sub: bool) -> None:
    zone: Zone = {"_dmarc.example.com": f"v=DMARC1; p={p}; sp={sp}; np={np}{'; t=y' * testing}"}
    if exists:
        zone["sub.example.com"] = ""
    chosen = p if not sub else sp if exists else np
    lowered = {"reject": "quarantine", "quarantine": "none", "none": "none"}[chosen]
    assert policy(zone, "sub.example.com" if sub else "example.com") == (lowered if testing else chosen)


def test_many_messages_share_one_resolver() -> None:
    async def results() -> list[str]:
        resolver = Resolver([server.address])
        return [each.result for each in await asyncio.gather(*(
            check(resolver, Author(f"d{n}.example"), [dkim_of(f"d{n + n % 2}.example")], resolver.budget()) for n in range(40)))]

    with DnsServer("\n".join(f'_dmarc.d{n}.example TXT "v=DMARC1; p=reject"' for n in range(40))) as server:
        assert asyncio.run(results()) == ["pass", "fail"] * 20
        assert server.asked("_dmarc.example") == 1
