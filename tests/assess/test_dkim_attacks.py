"""What forgers try against DKIM ("Composition Kills", USENIX Security 2020; RFC 6376 §8) gets no pass, and nothing that they send costs much."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import astuple

import pytest
from dkim_signer import DOMAIN, MESSAGE, NAME, NOW, judged, only, record, rsa_key, signature, zone
from hostile import MESSAGES
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.assess.answers import Answer, Outcome
from inbound.assess.dkim import DkimResults, Result, check, verdict
from inbound.assess.rendering import BytesContent
from inbound.assess.verdicts import Status

FROM = b"From: Joe <joe@sender.example>\r\n"
EVIL = b"Ceo <ceo@bank.example>\r\n"
SIGNED = signature() + MESSAGE


def told(results: DkimResults) -> list[str]:
    """Every text of the results; it must be fit for a header field."""
    texts = [text for each in results.signatures for text in astuple(each) if isinstance(text, str)]
    texts.append(verdict(results, DOMAIN).reason)
    assert all(re.fullmatch(r"[ -~]*", text) for text in texts), texts
    for each in results.signatures:
        assert re.fullmatch(r"[a-z0-9._-]*", each.domain + each.selector)
        assert re.fullmatch(r"[^\s;()\\\"<>,]*", each.identity)
    return texts


def test_what_is_attacked_here_passes_before() -> None:
    results = asyncio.run(judged(SIGNED))
    assert verdict(results, DOMAIN).status is Status.PASS
    assert MESSAGE.count(FROM) == 1


@pytest.mark.parametrize(
    "another",
    [
        b"From: ", b"from:", b"FROM\t : ", b"From :", b"X: y\rFrom: ", b"X: y\x0bFrom: ", b"X: y\x0cFrom : ", b"X: y\xc2\x85From: ",
        b"X: y\xe2\x80\xa8From: ", b"X: y\r\rFrom\0: ", b"X: y\rFrom \t\r: ",
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("place", ["above", "below", "last"])
async def test_a_second_from_field_whichever_parser_sees_it(another: bytes, place: str) -> None:
    if place == "above":
        message = another + EVIL + SIGNED
    elif place == "below":
        message = SIGNED.replace(FROM, FROM + another + EVIL)
    else:
        message = SIGNED.replace(b"\r\n\r\n", b"\r\n" + another + EVIL + b"\r\n", 1)
    results = await judged(message)
    assert [(each.result, each.reason) for each in results.signatures] == [
        (Result.PERMERROR, "the header has 2 From fields, where RFC 5322 wants one")
    ]
    assert verdict(results, DOMAIN).status is Status.GRAY


async def test_signing_both_from_fields_does_not_help() -> None:
    message = b"From: " + EVIL + MESSAGE
    assert (await only(signature(message, names="from:from:to") + message)).result is Result.PERMERROR


@pytest.mark.parametrize("line", [b"\0From: ", b"From\0: ", b"From\r\n : ", b"no colon ", b"Fr\xc3\xb6m: ", b"From (comment): ", b": "], ids=repr)
@pytest.mark.parametrize("last", [False, True], ids=["within", "last"])
async def test_a_line_that_is_no_field_where_another_parser_ends_the_header_or_sees_a_field(line: bytes, last: bool) -> None:
    one = await only(SIGNED.replace(b"\r\n\r\n", b"\r\n" + line + EVIL + b"\r\n", 1) if last else SIGNED.replace(FROM, line + EVIL + FROM))
    assert (one.result, one.reason) == (Result.PERMERROR, "the header has a line that is no header field")


async def test_a_header_without_from() -> None:
    one = await only(SIGNED.replace(FROM, b""))
    assert (one.result, "no From fields" in one.reason) == (Result.PERMERROR, True)


async def test_an_mbox_line_on_top_is_no_part_of_the_message() -> None:
    assert (await only(b"From joe@sender.example Fri Jul 11 21:00:37 2003\r\n" + SIGNED)).result is Result.PASS


async def test_a_folded_line_that_looks_like_a_field_is_none() -> None:
    message = MESSAGE.replace(b"Subject: ", b"Subject:\r\n From: me\r\n\tTo: you ")
    assert (await only(signature(message) + message)).result is Result.PASS


@pytest.mark.parametrize(
    "tags",
    [
        {"d": f"{DOMAIN}(.evil.example"}, {"d": f"{DOMAIN}'@a.evil.example"}, {"d": f'{DOMAIN}"@a.evil.example'}, {"d": f"{DOMAIN}\0.evil.example"},
        {"d": f"{DOMAIN},evil.example"}, {"d": f"{DOMAIN} evil.example"}, {"d": f"({DOMAIN})evil.example"}, {"d": f"{DOMAIN}\\.evil.example"},
        {"s": "evil.example.\0"}, {"s": "evil.example.\0.x"}, {"s": "evil.example#"}, {"s": "a b"}, {"s": "a\r\n b"}, {"s": "x\rX-SES-Spam-Verdict:"},
        {"d": "evil.example", "i": f"@{DOMAIN}"}, {"d": "evil.example", "i": f"@{DOMAIN}\0.evil.example"},
        {"d": "evil.example", "i": f'"@{DOMAIN}"@evil..example'},
    ],
    ids=str,
)  # fmt: skip
async def test_a_domain_or_selector_that_dns_and_readers_would_take_for_different_ones(tags: dict[str, str]) -> None:
    asked: list[str] = []

    async def lookup(name: str) -> Answer:
        asked.append(name)
        return Answer(Outcome.FOUND, (record(rsa_key()),))

    results = await check(BytesContent(signature(**tags) + MESSAGE), lookup, now=NOW)
    assert [each.result in (Result.NEUTRAL, Result.PERMERROR) for each in results.signatures] == [True]
    assert asked == []
    assert told(results)


@pytest.mark.parametrize("local_part", ['"a;b"', "(x)", "a b", "=3B=0D=0AX-Evil:", "a\\", "\x7f", "é" * 9, "x" * 500])
async def test_an_identity_is_shown_only_as_far_as_it_is_plain(local_part: str) -> None:
    results = await judged(signature(i=f"{local_part}@mail.{DOMAIN}") + MESSAGE)
    told(results)
    assert results.signatures[0].identity in ("", f"@mail.{DOMAIN}", f"ab@mail.{DOMAIN}")


async def test_a_passing_signature_of_another_domain_is_no_pass_for_the_from_domain() -> None:
    lookup = zone({"s._domainkey.evil.example": record(rsa_key()), NAME: record(rsa_key(1024, 1))})
    theirs = await check(BytesContent(signature(d="evil.example") + MESSAGE), lookup, now=NOW)
    assert (theirs.signatures[0].result, verdict(theirs, DOMAIN).status) == (Result.PASS, Status.GRAY)
    with_forged = await check(BytesContent(signature() + signature(d="evil.example") + MESSAGE), lookup, now=NOW)
    assert [each.result for each in with_forged.signatures] == [Result.FAIL, Result.PASS]
    assert verdict(with_forged, DOMAIN).status is Status.FAIL


async def test_a_signature_lifted_from_a_message_whose_from_it_does_not_cover() -> None:
    lifted = signature(names="to:subject:date:message-id")
    one = await only(lifted + MESSAGE.replace(FROM, b"From: ceo@sender.example\r\n"))
    assert (one.result, one.reason) == (Result.PERMERROR, "From field not signed")


@pytest.mark.parametrize("limit", [0, 20, 54])
async def test_text_added_behind_a_body_length_gets_no_pass_verdict(limit: int) -> None:
    results = await judged(signature(l=str(limit)) + MESSAGE + b"\r\n<html>Pay here instead\r\n")
    (one,) = results.signatures
    assert (one.result, one.body_length_limited, one.unsigned_octets > 0) == (Result.PASS, True, True)
    assert verdict(results, DOMAIN).status is Status.GRAY


async def test_a_header_too_large_to_be_read_whole_gets_no_pass() -> None:
    hidden = b"X-Pad: " + b"x" * 102_400 + b"\r\nFrom: " + EVIL
    one = await only(SIGNED.replace(b"\r\n\r\n", b"\r\n" + hidden + b"\r\n", 1))
    assert (one.result, one.reason) == (Result.POLICY, "the header is larger than 102400 octets")


# --- what it costs ---

LONG_FIELD = b"X: " + b"x\r\n " * 24_000 + b"\r\n"
COSTLY = {
    "as many signatures as fit": b"".join(signature(s=f"s{n}") for n in range(250)) + MESSAGE,
    "500 signatures": b"".join(signature(s=f"s{n}") for n in range(250)) * 2 + MESSAGE,
    "h= of 50,000 names": signature(names="from:" + "a:" * 40_000) + MESSAGE,
    "h= of two names 20,000 times": signature(names="from:" * 10_000 + "x:" * 10_000) + b"X: y\r\n" * 3_000 + MESSAGE,
    "a folded header of 90 KB": signature(LONG_FIELD + MESSAGE, names="from:x") * 3 + LONG_FIELD + MESSAGE,
    "a folded header of 5 MB": signature() + b"X: " + b"x\r\n " * 1_250_000 + MESSAGE,
    "25,000 tags": signature().replace(b"v=1;", b"v=1;" + b"".join(b"x%d=;" % n for n in range(12_000))) + MESSAGE,
    "b= of 90 KB": signature(b="QUJD" * 22_000) + MESSAGE,
    "i= of 90 KB": signature(i="=41" * 30_000 + f"@{DOMAIN}") + MESSAGE,
    "d= of 90 KB": signature(d="a." * 45_000 + "example") + MESSAGE,
    "d= of 90 KB in U-labels": signature(d="ü" * 45_000 + ".example") + MESSAGE,
    "colons": b"DKIM-Signature: " + b":" * 90_000 + b"\r\n" + MESSAGE,
    "semicolons": b"DKIM-Signature: " + b";" * 90_000 + b"\r\n" + MESSAGE,
    "equals": b"DKIM-Signature: v=1;" + b"=" * 90_000 + b"\r\n" + MESSAGE,
    "from without a colon": signature() + b"X: " + b"\rfrom " * 13_000 + b"\r\n" + MESSAGE,
    "as many fields as fit": signature(names="from:a:b") + b"a:\n" * 30_000 + MESSAGE,
}


@pytest.mark.parametrize("name", COSTLY)
async def test_no_signature_costs_much(name: str) -> None:
    lookups = 0

    async def lookup(_: str) -> Answer:
        nonlocal lookups
        lookups += 1
        return Answer(Outcome.FOUND, tuple(record(rsa_key(1024, which)) for which in range(1, 4)) * 300)

    started = time.process_time()
    results = await check(BytesContent(COSTLY[name]), lookup, now=NOW)
    assert time.process_time() - started < 3.0  # 1 to 20 ms on an idle machine; quadratic work would be minutes
    assert lookups <= 10
    assert len(results.signatures) <= 10
    assert all(each.result is not Result.PASS for each in results.signatures)
    told(results)


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("place", ["above", "within"])
async def test_no_message_raises_or_costs_much(name: str, place: str) -> None:
    line = signature(names="from:to:subject:x-line:a", l="10")
    message = MESSAGES[name]()
    message = line + message if place == "above" else message.replace(b"\r\n\r\n", b"\r\n" + line + FROM + b"\r\n", 1)
    started = time.process_time()
    results = await judged(message)
    assert time.process_time() - started < 3.0  # a busy machine counts up to ten times as much
    assert all(each.result is not Result.PASS for each in results.signatures)
    told(results)


_TAGS = st.sampled_from([*"vabcdhilqstxz", "bh", "B", "", " v", "v "])
_VALUES = st.one_of(
    st.sampled_from(["1", "rsa-sha256", "ed25519-sha256", DOMAIN, "s", "from", "from:to", "YWJj", "@" + DOMAIN, "dns/txt", "simple", str(NOW)]),
    st.text(max_size=9),
)
_FIELDS = st.one_of(st.binary(max_size=80), st.lists(st.tuples(_TAGS, _VALUES)).map(lambda tags: ";".join("=".join(t) for t in tags).encode()))


@settings(deadline=None)
@given(field=_FIELDS, key=st.one_of(st.binary(max_size=60), _FIELDS), head=st.binary(max_size=9), now=st.floats(0, 4e9))
def test_no_field_and_no_record_raises(field: bytes, key: bytes, head: bytes, now: float) -> None:
    for octets in (head + b"DKIM-Signature:" + field + b"\r\n" + MESSAGE, signature() + MESSAGE):
        results = asyncio.run(judged(octets, key, now=now))
        assert all(each.result is not Result.PASS for each in results.signatures)
        told(results)
