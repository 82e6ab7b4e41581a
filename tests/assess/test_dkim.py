"""Each signature is judged as RFC 6376, 8301 and 8463 say, with RFC 8601's word for it and a reason; SES's verdict follows from that."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO

import dkim
import pytest
from dkim_signer import (
    DOMAIN,
    MESSAGE,
    NAME,
    NOW,
    WEAK,
    ed25519_key,
    judged,
    only,
    public_pkcs1,
    record,
    rsa_key,
    signature,
    zone,
)

from inbound.assess.answers import Outcome
from inbound.assess.dkim import DkimResults, Result, Signature, check, verdict
from inbound.assess.dkim.sign import key_record, sign
from inbound.assess.rendering import BytesContent
from inbound.assess.verdicts import Status


def short(value: object) -> str:
    """A name for a case."""
    if isinstance(value, list):
        return " ".join(f"{each.domain} {each.result}" for each in value)
    return str(value)[:60]


PASS, FAIL, NEUTRAL = Result.PASS, Result.FAIL, Result.NEUTRAL
POLICY, PERMERROR, TEMPERROR = Result.POLICY, Result.PERMERROR, Result.TEMPERROR

RFC_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_8463_KEYS = zone({
    "brisbane._domainkey.football.example.com": b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id"
    b"Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2"
    b"EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
})  # fmt: skip


async def rfc_8463(message: bytes) -> DkimResults:
    return await check(BytesContent(message), RFC_8463_KEYS, now=NOW)


async def test_both_signatures_of_rfc_8463_pass() -> None:
    results = await rfc_8463(RFC_8463)
    assert [(each.result, each.algorithm, each.bits, each.selector, each.reason) for each in results.signatures] == [
        (PASS, "ed25519-sha256", 256, "brisbane", ""),
        (PASS, "rsa-sha256", 1024, "test", ""),
    ]
    assert {each.identity for each in results.signatures} == {"@football.example.com"}
    assert verdict(results, "football.example.com").status is Status.PASS


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        (b"hungry", b"hungri", "body hash did not verify"),
        (b"\r\n\r\nJoe.", b"\r\nJoe.", "body hash did not verify"),
        (b"dinner", b"Dinner", "signature did not verify"),
        (b"suzie@", b"susie@", "signature did not verify"),
        (b"Date: Fri", b"Subject: a second one\r\nDate: Fri", "signature did not verify"),
    ],
)
async def test_one_byte_changed_fails_and_the_reason_tells_where(was: bytes, becomes: bytes, reason: str) -> None:
    assert was in RFC_8463
    results = await rfc_8463(RFC_8463.replace(was, becomes))
    assert [each.result for each in results.signatures] == [FAIL, FAIL]
    assert all(each.reason.startswith(reason) for each in results.signatures)
    assert verdict(results, "football.example.com").status is Status.FAIL


@pytest.mark.parametrize("was, becomes", [(b"We lost", b"We  \tlost"), (b"Joe.\r\n", b"Joe. \r\n\r\n\r\n"), (b"Subject: Is", b"SUBJECT:\r\n Is")])
async def test_what_relaxed_forgives_still_passes(was: bytes, becomes: bytes) -> None:
    results = await rfc_8463(RFC_8463.replace(was, becomes))
    assert [each.result for each in results.signatures] == [PASS, PASS]


@pytest.mark.parametrize("header", ["simple", "relaxed"])
@pytest.mark.parametrize("body", ["simple", "relaxed"])
@pytest.mark.parametrize("key", [rsa_key(1024), rsa_key(2048), ed25519_key()], ids=["rsa 1024", "rsa 2048", "ed25519"])
async def test_every_combination_of_canonicalizations_and_algorithms_passes(header: str, body: str, key: bytes) -> None:
    signed = signature(key=key, c=f"{header}/{body}") + MESSAGE
    assert (await only(signed, record(key))).result is PASS
    assert (await only(signed.replace(b"\r\n", b"\n"), record(key))).result is PASS
    assert (await only(signed.replace(b"hungry", b"Hungry"), record(key))).result is FAIL


@pytest.mark.parametrize(
    "tags",
    [
        {"c": None}, {"c": "relaxed"}, {"c": "Relaxed/SIMPLE"}, {"a": "RSA-SHA256"},
        {"q": "dns/txt"}, {"q": "http/well-known:dns/txt"}, {"t": None}, {"x": str(NOW + 60)}, {"x": str(NOW - 200), "t": str(NOW - 900)},
        {"t": str(NOW + 200)}, {"i": "@sender.example"}, {"i": "joe@mail.sender.example"}, {"i": "=6Aoe@sender.EXAMPLE"},
        {"d": "Sender.Example"}, {"z": "From:a|To:b", "r": "y", "B": "not b", "unknown_1": "x y"},
        {"names": "From"}, {"names": "FROM : to:\r\n Subject"}, {"names": "from:from:to:to:cc:x-absent"}, {"names": "from:to:"},
    ],
    ids=short,
)  # fmt: skip
async def test_what_the_rfc_allows_in_a_signature(tags: dict[str, str | None]) -> None:
    one = await only(signature(**tags) + MESSAGE)  # type: ignore[arg-type]  # names is one of them
    assert (one.result, one.reason, one.domain) == (PASS, "", DOMAIN)


@pytest.mark.parametrize(
    ("result", "reason", "tags"),
    [
        (NEUTRAL, "incompatible version", {"v": "2"}),
        (NEUTRAL, "signature missing required tag v=", {"without": "v"}),
        (NEUTRAL, "signature missing required tag a=", {"without": "a"}),
        (NEUTRAL, "signature missing required tag b=", {"without": "b"}),
        (NEUTRAL, "signature missing required tag bh=", {"without": "bh"}),
        (NEUTRAL, "signature missing required tag d=", {"without": "d"}),
        (NEUTRAL, "signature missing required tag h=", {"without": "h"}),
        (NEUTRAL, "signature missing required tag s=", {"without": "s"}),
        (NEUTRAL, "has one twice", {"v": "1; v=1"}),
        (NEUTRAL, "no list of tags", {"v": "1; "}),
        (NEUTRAL, "no list of tags", {"v": "1; nothing"}),
        (NEUTRAL, "a name that cannot be one", {"v": "1; a b=c"}),
        (NEUTRAL, "unknown algorithm rsa-sha512", {"a": "rsa-sha512"}),
        (NEUTRAL, "unknown algorithm", {"a": "sha256"}),
        (POLICY, "SHA-1", {"a": "rsa-sha1"}),
        (NEUTRAL, "unknown canonicalization", {"c": "nowsp"}),
        (NEUTRAL, "unknown canonicalization", {"c": "simple/"}),
        (NEUTRAL, "unknown canonicalization", {"c": "simple/simple/simple"}),
        (NEUTRAL, "q=", {"q": "http/well-known"}),
        (NEUTRAL, "b= is not base64", {"b": "YWJj*"}),
        (NEUTRAL, "b= is not base64", {"b": "YWJ"}),
        (NEUTRAL, "b= is not base64", {"b": ""}),
        (NEUTRAL, "bh= is not base64", {"bh": "YWJ"}),
        (FAIL, "body hash did not verify", {"bh": "YWJj"}),
        (FAIL, "signature did not verify", {"b": "YWJj"}),
        (NEUTRAL, "d= is no domain name", {"d": "example"}),
        (NEUTRAL, "d= is no domain name", {"d": "sender.example."}),
        (NEUTRAL, "d= is no domain name", {"d": "sender..example"}),
        (NEUTRAL, "d= is no domain name", {"d": "a" * 64 + ".example"}),
        (NEUTRAL, "s= is no selector", {"s": "a..b"}),
        (NEUTRAL, "s= is no selector", {"s": "a/b"}),
        (NEUTRAL, "too long for DNS", {"s": ".".join(["a" * 60] * 4)}),
        (NEUTRAL, "l= is no number", {"l": "-1"}),
        (NEUTRAL, "l= is no number", {"l": "9" * 77}),
        (PERMERROR, "is more than", {"l": "9" * 76}),
        (NEUTRAL, "t= is no number", {"t": "now"}),
        (NEUTRAL, "x= is no number", {"x": "1e9"}),
        (NEUTRAL, "x= is not after t=", {"t": str(NOW), "x": str(NOW)}),
        (NEUTRAL, "seconds in the future", {"t": str(NOW + 3_600)}),
        (NEUTRAL, "seconds in the future", {"t": "9" * 12}),
        (FAIL, "signature expired on 2027-01-15 at 07:00:00 UTC", {"t": None, "x": str(NOW - 3_600)}),
        (NEUTRAL, "i= is no identity", {"i": "sender.example"}),
        (NEUTRAL, "i= is no identity", {"i": "@"}),
        (NEUTRAL, "i= is no identity", {"i": "x" * 2_000 + "@sender.example"}),
        (PERMERROR, "domain mismatch", {"i": "@other.example"}),
        (PERMERROR, "domain mismatch", {"i": "@evilsender.example"}),
        (PERMERROR, "domain mismatch", {"i": "@sender.example.other.example"}),
        (PERMERROR, "From field not signed", {"names": "to:subject"}),
        (NEUTRAL, "h= is no list", {"names": "from:a b"}),
    ],
    ids=short,
)
async def test_what_is_wrong_with_a_signature(result: Result, reason: str, tags: dict[str, str | None]) -> None:
    one = await only(signature(**tags) + MESSAGE)  # type: ignore[arg-type]  # names and without are among them
    assert (one.result, reason in one.reason) == (result, True), one


KEY = rsa_key(1024)
RECORDS = (
    (PASS, "", KEY, {}, [record(KEY).replace(b"v=DKIM1; ", b"")]),
    (PASS, "", KEY, {}, [record(KEY).replace(b"k=rsa; ", b"")]),
    (PASS, "", KEY, {}, [record(KEY, p=public_pkcs1(KEY))]),
    (PASS, "", KEY, {}, [record(KEY).replace(b"p=", b"p=  ") + b" ; "]),
    (PASS, "", KEY, {}, [record(KEY, h="sha1:SHA256", s="other : email", t="x", n="a note", g="joe")]),
    (PASS, "", KEY, {"i": "@sender.example"}, [record(KEY, t="s")]),
    (PASS, "", KEY, {}, [b"v=spf1 -all", b"", record(rsa_key(1024, 1)), record(KEY)]),
    (FAIL, "key revoked", KEY, {}, [b"v=DKIM1; p="]),
    (FAIL, "signature did not verify", KEY, {}, [record(rsa_key(1024, 1))]),
    (FAIL, "signature did not verify", KEY, {}, [record(rsa_key(1024, 1)), record(rsa_key(2048))]),
    (FAIL, "signature did not verify", KEY, {}, [record(KEY, k="ed25519"), record(rsa_key(2048))]),
    (PERMERROR, "key syntax error: there is no p=", KEY, {}, [b"v=DKIM1; k=rsa"]),
    (PERMERROR, "key syntax error", KEY, {}, [b"v=spf1 include:x -all"]),
    (PERMERROR, "key syntax error", KEY, {}, [b""]),
    (PERMERROR, "key syntax error: v=DKIM1 is not the first tag", KEY, {}, [record(KEY, v="DKIM2")]),
    (PERMERROR, "key syntax error: v=DKIM1 is not the first tag", KEY, {}, [record(KEY).replace(b"v=DKIM1; ", b"") + b"; v=DKIM1"]),
    (PERMERROR, "key syntax error", KEY, {}, [record(KEY, p="x;p=y")]),
    (PERMERROR, "key syntax error: p= is not base64", KEY, {}, [record(KEY, p="*" * 40)]),
    (PERMERROR, "key syntax error: p= holds no RSA key", KEY, {}, [record(KEY, p="YWJj")]),
    (PERMERROR, "key syntax error: a record of 100", KEY, {}, [record(KEY, n="x" * 100_000)]),
    (PERMERROR, "inappropriate key algorithm", KEY, {}, [record(ed25519_key())]),
    (PERMERROR, "inappropriate key algorithm", KEY, {}, [record(KEY, k="dsa")]),
    (PERMERROR, "inappropriate key algorithm", ed25519_key(), {}, [record(KEY)]),
    (PERMERROR, "p= holds no RSA key", KEY, {}, [record(KEY, p="MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")]),
    (PERMERROR, "an Ed25519 key has 32 octets", ed25519_key(), {}, [record(ed25519_key(), p="YWJj")]),
    (PERMERROR, "inappropriate hash algorithm", KEY, {}, [record(KEY, h="sha1")]),
    (PERMERROR, "s= does not list email", KEY, {}, [record(KEY, s="tlsrpt")]),
    (PERMERROR, "forbids i=@mail.sender.example", KEY, {"i": "@mail.sender.example"}, [record(KEY, t="y:s")]),
    (POLICY, "768 bits does not count", WEAK, {}, [record(WEAK)]),
    (PERMERROR, "key syntax error", KEY, {}, [b"v=spf1 -all"] * 4 + [record(KEY)]),
)


@pytest.mark.parametrize(
    ("result", "reason", "key", "tags", "records"), RECORDS, ids=[f"{n} {case[0]} {case[1]}" for n, case in enumerate(RECORDS)]
)
async def test_what_a_key_record_may_hold(result: Result, reason: str, key: bytes, tags: dict[str, str], records: list[bytes]) -> None:
    one = await only(signature(key=key, **tags) + MESSAGE, *records)
    assert (one.result, reason in one.reason) == (result, True), one
    assert bool(one.reason) is (result is not PASS)


async def test_the_bits_of_a_key_are_told_even_where_they_are_too_few() -> None:
    assert (await only(signature(key=WEAK) + MESSAGE, record(WEAK))).bits == 768
    assert (await only(signature() + MESSAGE)).bits == 1024


async def test_a_key_that_would_cost_too_much_is_not_used() -> None:
    modulus = bytes([0x02, 0x82, 0x08, 0x01, 0x00]) + b"\xff" * 2048  # 16,384 bits
    exponent = bytes([0x02, 0x03, 0x01, 0x00, 0x01])
    octets = bytes([0x30, 0x82, *(len(modulus) + len(exponent)).to_bytes(2, "big")]) + modulus + exponent
    large = record(KEY, p=base64.b64encode(octets).decode())
    one = await only(signature() + MESSAGE, large)
    assert (one.result, one.bits, "too costly" in one.reason) == (POLICY, 16_384, True)


@pytest.mark.parametrize(
    ("outcome", "result", "reason", "status"),
    [
        (Outcome.NXDOMAIN, PERMERROR, f"no key for signature: {NAME}: no such name", Status.GRAY),
        (Outcome.NO_DATA, PERMERROR, f"no key for signature: {NAME}: no such record", Status.GRAY),
        (Outcome.SERVFAIL, TEMPERROR, f"key unavailable: {NAME}: server failure", Status.PROCESSING_FAILED),
        (Outcome.TIMEOUT, TEMPERROR, f"key unavailable: {NAME}: no answer in time", Status.PROCESSING_FAILED),
        (Outcome.TRUNCATED, TEMPERROR, f"key unavailable: {NAME}: answer cut short", Status.PROCESSING_FAILED),
    ],
)
async def test_no_key_is_final_and_no_answer_is_not(outcome: Outcome, result: Result, reason: str, status: Status) -> None:
    results = await check(BytesContent(signature() + MESSAGE), zone({NAME: outcome}), now=NOW)
    (one,) = results.signatures
    assert (one.result, one.reason) == (result, reason)
    assert verdict(results, DOMAIN).status is status


async def test_a_domain_that_is_only_testing_is_never_failed() -> None:
    passing = await only(signature() + MESSAGE, record(KEY, t="y"))
    assert (passing.result, passing.testing) == (PASS, True)
    failing = await only(signature() + MESSAGE.replace(b"hungry", b"thirsty"), record(KEY, t="y"))
    assert (failing.result, failing.testing) == (NEUTRAL, True)
    assert "body hash did not verify" in failing.reason


async def test_a_body_length_is_told_and_what_lies_beyond_it_is_counted() -> None:
    signed = signature(l="20") + MESSAGE
    one = await only(signed.replace(b"Joe.", b"Jim. Now buy this."))
    length = len("Hi. We lost the game.\r\n\r\nAre you hungry yet?\r\n\r\nJim. Now buy this.\r\n")
    assert (one.result, one.body_length_limited, one.unsigned_octets) == (PASS, True, length - 20)
    assert one.reason == f"l=20 leaves {length - 20} of {length} octets of the body unsigned"
    assert (await only(signed.replace(b"Hi.", b"Ho."))).result is FAIL


@pytest.mark.parametrize("limit, body", [("0", b""), ("20", b"Hi.\r\n")])
async def test_a_body_length_of_zero_covers_nothing_and_one_beyond_the_body_is_an_error(limit: str, body: bytes) -> None:
    head = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    one = await only(signature(head + body, l=limit) + head + body)
    assert (one.result, one.unsigned_octets) == ((PASS, 0) if limit == "0" else (PERMERROR, 0))


async def test_each_signature_is_judged_on_its_own_up_to_ten_and_the_rest_is_counted() -> None:
    good, bad = signature(), signature(d="other.example")
    results = await judged(good + bad + good.replace(b"; b=", b"; b=AAAA") + MESSAGE)
    assert [each.result for each in results.signatures] == [PASS, PERMERROR, FAIL]
    asked: list[str] = []
    lookup = zone({})

    async def counting(name: str):
        asked.append(name)
        return await lookup(name)

    many = b"".join(signature(s=f"s{n}") for n in range(13))
    results = await check(BytesContent(many + MESSAGE), counting, now=NOW)
    assert [each.selector for each in results.signatures] == [f"s{n}" for n in range(10)]
    assert (results.omitted, len(asked)) == (3, 10)
    assert verdict(results, DOMAIN).reason.endswith("(3 more signatures were not judged)")


async def test_one_name_is_looked_up_once() -> None:
    asked: list[str] = []
    lookup = zone({NAME: record(KEY)})

    async def counting(name: str):
        asked.append(name)
        return await lookup(name)

    results = await check(BytesContent(signature() + signature(c="simple/simple") + MESSAGE), counting, now=NOW)
    assert [each.result for each in results.signatures] == [PASS, PASS]
    assert asked == [NAME]


class WatchedContent:
    """A message that tells which thread reads it, and how often it is opened."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.opened: list[threading.Thread] = []
        self.size = len(octets)

    def head(self, limit: int) -> bytes:
        return self._octets[:limit]

    def open(self) -> BinaryIO:
        self.opened.append(threading.current_thread())
        return BytesIO(self._octets)


@pytest.mark.parametrize("octets, here", [(1_000, True), (300_000, False)])
async def test_the_body_is_read_once_and_a_large_one_in_a_thread(octets: int, here: bool) -> None:
    message = MESSAGE + b"line\r\n" * (octets // 6)
    lines = b"".join(signature(message, c=c, l=limit) for c in ("simple/simple", "relaxed/relaxed") for limit in (None, "10", "999"))
    content = WatchedContent(lines + message)
    results = await check(content, zone({NAME: record(KEY)}), now=NOW)
    assert [each.result for each in results.signatures] == [PASS] * 6
    assert [thread is threading.current_thread() for thread in content.opened] == [here]


async def test_an_unsigned_body_is_not_read_at_all() -> None:
    for unsigned in (MESSAGE, signature(v="2") + MESSAGE):
        content = WatchedContent(unsigned)
        await check(content, zone({}), now=NOW)
        assert content.opened == []


async def test_a_body_is_hashed_while_keys_are_looked_up() -> None:
    message = MESSAGE + b"line\r\n" * 50_000
    content = WatchedContent(signature(message) + message)
    opened = threading.Event()
    content.open = lambda: (opened.set(), BytesIO(content._octets))[1]  # type: ignore[method-assign]

    async def lookup(name: str):
        assert await asyncio.to_thread(opened.wait, 10), "the body waits for the key"
        return await zone({NAME: record(KEY)})(name)

    results = await check(content, lookup, now=NOW)
    assert results.signatures[0].result is PASS


async def test_a_field_signed_by_a_later_signature_may_be_an_earlier_one() -> None:
    earlier = signature()
    later = signature(earlier + MESSAGE, names="from:dkim-signature:dkim-signature")
    assert [each.result for each in (await judged(later + earlier + MESSAGE)).signatures] == [PASS, PASS]
    assert [each.result for each in (await judged(later + earlier.replace(b"; b=", b"; b=A") + MESSAGE)).signatures] == [FAIL, NEUTRAL]


async def test_domains_in_u_labels_are_those_in_a_labels() -> None:
    lookup = zone({"s._domainkey.xn--bcher-kva.example": record(KEY)})
    line = signature(d="bücher.example", i="joe@BÜCHER.example")
    results = await check(BytesContent(line + MESSAGE), lookup, now=NOW)
    assert results.signatures[0].result is PASS
    assert verdict(results, "xn--bcher-kva.example").status is Status.PASS


# --- SES's verdict ---

OURS = Signature(PASS, domain=DOMAIN)
THEIRS = Signature(PASS, domain="esp.example")
BELOW = Signature(PASS, domain="mail.sender.example")


def result(one: Signature, result: Result, reason: str = "why") -> Signature:
    """That signature with another result."""
    return replace(one, result=result, reason=reason)


@pytest.mark.parametrize(
    ("signatures", "strict", "relaxed", "reason"),
    [
        ([], "GRAY", "GRAY", "the message is not signed"),
        ([OURS], "PASS", "PASS", "sender.example: signed"),
        ([THEIRS], "GRAY", "GRAY", "signed by esp.example, not by sender.example"),
        ([BELOW], "GRAY", "PASS", "signed by mail.sender.example, not by sender.example"),
        ([result(THEIRS, FAIL), OURS], "PASS", "PASS", "sender.example: signed"),
        ([result(OURS, FAIL), OURS], "PASS", "PASS", "sender.example: signed"),
        ([result(OURS, TEMPERROR), OURS], "PASS", "PASS", "sender.example: signed"),
        ([result(OURS, FAIL)], "FAIL", "FAIL", "sender.example: why"),
        ([result(THEIRS, FAIL)], "FAIL", "FAIL", "esp.example: why"),
        ([result(OURS, FAIL), THEIRS], "FAIL", "FAIL", "sender.example: why"),
        ([result(BELOW, FAIL), BELOW], "FAIL", "PASS", "mail.sender.example: why"),
        ([result(OURS, TEMPERROR), THEIRS], "PROCESSING_FAILED", "PROCESSING_FAILED", "sender.example: why"),
        ([result(OURS, TEMPERROR), result(THEIRS, FAIL)], "PROCESSING_FAILED", "PROCESSING_FAILED", "sender.example: why"),
        ([result(THEIRS, TEMPERROR), result(OURS, FAIL, "bad")], "FAIL", "FAIL", "sender.example: bad"),
        ([result(THEIRS, TEMPERROR)], "PROCESSING_FAILED", "PROCESSING_FAILED", "esp.example: why"),
        ([result(OURS, PERMERROR)], "GRAY", "GRAY", "sender.example: why"),
        ([result(OURS, NEUTRAL)], "GRAY", "GRAY", "sender.example: why"),
        ([result(OURS, POLICY)], "GRAY", "GRAY", "sender.example: why"),
        ([Signature(NEUTRAL, "unreadable")], "GRAY", "GRAY", "a signature without a domain: unreadable"),
        ([replace(OURS, body_length_limited=True, reason="all of it")], "PASS", "PASS", "sender.example: all of it"),
        ([replace(OURS, unsigned_octets=1, reason="l=")], "GRAY", "GRAY", "sender.example: l="),
        ([replace(OURS, unsigned_octets=1, reason="l="), result(THEIRS, FAIL)], "GRAY", "GRAY", "sender.example: l="),
    ],
    ids=short,
)
def test_the_verdict(signatures: list[Signature], strict: str, relaxed: str, reason: str) -> None:
    results = DkimResults(tuple(signatures))
    found = verdict(results, DOMAIN)
    assert (found.status, found.reason) == (strict, reason)
    assert verdict(results, DOMAIN, relaxed=True, organizational_domain=lambda name: ".".join(name.split(".")[-2:])).status == relaxed
    assert verdict(results, "").status is not Status.PASS


# --- signing ---


@pytest.mark.parametrize("key", [rsa_key(1024), ed25519_key()], ids=["rsa", "ed25519"])
async def test_what_sign_signs_passes_here_and_in_dkimpy(key: bytes) -> None:
    signed = sign(MESSAGE, domain=DOMAIN, selector="s", key_pem=key) + MESSAGE
    text = key_record(key).encode()
    results = await check(BytesContent(signed), zone({NAME: text}), now=4_000_000_000)
    assert results.signatures[0].result is PASS
    assert dkim.verify(signed, dnsfunc=lambda name, timeout: text)


@pytest.mark.parametrize("message", [b"no header\r\n", b"Subject: no From\r\n\r\n"])
def test_a_message_that_cannot_be_signed_is_an_error(message: bytes) -> None:
    with pytest.raises(ValueError, match="the message cannot be signed"):
        sign(message, domain=DOMAIN, selector="s", key_pem=KEY)


@pytest.mark.parametrize(
    "key", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", RFC_8463], ids=["nothing", "rubbish", "a message"]
)
def test_a_key_that_is_none_is_an_error(key: bytes) -> None:
    with pytest.raises(ValueError, match="private key"):
        sign(MESSAGE, domain=DOMAIN, selector="s", key_pem=key)
    with pytest.raises(ValueError, match="private key"):
        key_record(key)
