"""The header as SES shows it, from any octets."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.assess.message import FIELDS, HEAD, HEADER_LIMIT, Message, begins_with_field, parse


def values(raw: bytes) -> list[tuple[str, str]]:
    return [(field.name, field.value) for field in parse(raw).fields]


def test_fields_in_order_with_duplicates_and_spelling() -> None:
    raw = b"X-A: 1\r\nx-a: 2\r\nSubject: s\r\nX-A:3\r\n\r\nX-A: body"
    assert values(raw) == [("X-A", "1"), ("x-a", "2"), ("Subject", "s"), ("X-A", "3")]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"S: a\r\n b\r\n", "a b"),
        (b"S: a\r\n \t  b\r\n", "a b"),
        (b"S: a \r\n\tb\r\n", "a  b"),
        (b"S: a\n\tb\n", "a b"),
        (b"S:\r\n a\r\n", "a"),
        (b"S:  a  b \r\n", "a  b "),
        (b"S:\ta\tb\r\n", "a\tb"),
        (b"S:\r\n", ""),
        (b"S: a\rb\r\n", "a\rb"),
        (b"S: a", "a"),
        (b"S : a\r\n", "a"),
        (b"S: a: b\r\n", "a: b"),
        (b"S: caf\xc3\xa9\r\n", "café"),
        (b"S: caf\xe9\r\n", "caf\ufffd"),
        (b"S: =?utf-8?q?=E2?=\r\n =?utf-8?q?=82=AC?=\r\n", "€"),
    ],
)
def test_values_are_unfolded_and_decoded(raw: bytes, value: str) -> None:
    assert values(raw) == [("S", value)]


def test_the_raw_value_is_kept() -> None:
    assert parse(b"S:  a\r\n\tb=?x\r\nT: c\r\n\r\n").fields[0].raw == b"  a\r\n\tb=?x"


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_the_first_empty_line_ends_the_header(end: bytes) -> None:
    assert values(b"A: 1" + end + b"B: 2\r\n\r\n") == [("A", "1")]


@pytest.mark.parametrize("line", [b"no colon", b": no name", b"two words: x", b"caf\xe9: x", b"From someone Mon Jan 1", b"\x00: x"])
def test_a_line_that_is_no_field_is_left_out_with_its_continuation(line: bytes) -> None:
    assert values(b"A: 1\r\n" + line + b"\r\n continued\r\nB: 2\r\n\r\n") == [("A", "1"), ("B", "2")]


@pytest.mark.parametrize("first", [b"hello", b" continuation: x", b"two words: x", b"\rA: x"])
def test_a_message_whose_first_line_is_no_field_has_no_header(first: bytes) -> None:
    raw = first + b"\r\nSubject: x\r\n\r\nbody"
    assert parse(raw) == Message()
    assert not begins_with_field(raw)


def test_an_mbox_line_is_passed_over() -> None:
    raw = b"From someone@x.example Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n\r\n"
    assert values(raw) == [("Subject", "x")]
    assert begins_with_field(raw)


def test_common_headers_in_their_order() -> None:
    raw = (
        b"Subject: =?utf-8?q?s=C3=BC?=\r\nMessage-ID: <1@x>\r\nBcc: b@b\r\nCC: c@c\r\nTO: t@t, N <u@u>\r\n"
        b"Date: Mon, 5 Aug 2019 21:29:57 +0000 (x)\r\n"
        b"Reply-To: r@r\r\nSender: S <s@s>\r\nFrom: f@f\r\n\r\n"
    )
    assert list(parse(raw).common.items()) == [
        ("from", ("f@f",)),
        ("sender", "S <s@s>"),
        ("replyTo", ("r@r",)),
        ("date", "Mon, 5 Aug 2019 21:29:57 +0000 (x)"),
        ("to", ("t@t", "N <u@u>")),
        ("cc", ("c@c",)),
        ("bcc", ("b@b",)),
        ("messageId", "<1@x>"),
        ("subject", "sü"),
    ]


def test_absent_headers_have_no_key_and_empty_ones_do() -> None:
    assert parse(b"To:\r\nSubject:\r\n\r\n").common == {"to": (), "subject": ""}


def test_the_first_of_duplicates_fills_common_headers() -> None:
    message = parse(b"Subject: 1\r\nSubject: 2\r\nTo: a@a\r\nTo: b@b\r\n\r\n")
    assert message.common == {"to": ("a@a",), "subject": "1"}
    assert message.destination == ("a@a", "b@b")


def test_destination_is_to_and_cc_without_names() -> None:
    message = parse(b"Cc: c@c\r\nTo: A <a@a>, g: d@d;, junk\r\nBcc: x@x\r\nFrom: y@y\r\n\r\n")
    assert message.destination == ("a@a", "d@d", "c@c")
    assert parse(b"From: y@y\r\n\r\n").destination == ()


def block(octets: int) -> bytes:
    """A header block of exactly so many octets, its last field `X-Last`."""
    last = b"X-Last: 1\r\n"
    lines = b"X-Filler: 12345678\r\n" * ((octets - len(last)) // 20 - 1)
    rest = octets - len(last) - len(lines)
    return lines + b"X: " + b"y" * (rest - 5) + b"\r\n" + last


@pytest.mark.parametrize(
    ("octets", "truncated"), [(HEADER_LIMIT - 1, False), (HEADER_LIMIT, False), (HEADER_LIMIT + 1, True), (300_000, True)]
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_header_block_over_the_limit_is_read_as_far_as_whole_fields_go(octets: int, truncated: bool, end: bytes) -> None:
    raw = block(octets) + end + b"body" * 100
    message = parse(raw[:HEAD])
    assert len(block(octets)) == octets
    assert message.truncated is truncated
    assert (message.fields[-1].name == "X-Last") is not truncated
    if truncated:
        assert sum(len(field.name) + 1 + len(field.raw) + 2 for field in message.fields) <= HEADER_LIMIT
        assert parse(raw[:HEAD]) == parse(raw)


def test_a_field_cut_by_the_limit_is_left_out_whole() -> None:
    raw = b"A: 1\r\nSubject: " + b"x\r\n " * 50_000
    assert [field.name for field in parse(raw).fields] == ["A"]
    assert parse(b"Subject: " + b"x" * 200_000).fields == ()


def test_a_message_that_is_all_header_is_not_truncated() -> None:
    assert not parse(b"A: 1\r\nB: 2").truncated


def test_forged_names_are_shown_as_consumers_get_them() -> None:
    raw = (
        b"X-SES-Spam-Verdict: PASS\r\nAuthentication-Results: mx.us.example; dmarc=pass\r\n"
        b"Authentication-Results: other.example; x=y\r\n\r\n"
    )
    assert [field.name for field in parse(raw, authserv_id="mx.us.example").fields] == [
        "X-Forged-X-SES-Spam-Verdict", "X-Forged-Authentication-Results", "Authentication-Results",
    ]  # fmt: skip


PIECES = [b"a", b":", b" ", b"\t", b"\r", b"\n", b"=?utf-8?q?=FF?=", b"To: ", b"\xff", b"<", b'"', b",", b"X-SES-Spam-Verdict:"]


@given(st.binary(max_size=400) | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_no_octets_raise(raw: bytes) -> None:
    message = parse(raw, authserv_id="mx.us.example")
    for field in message.fields:
        assert field.name.isascii()
        field.value.encode("utf-8")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make", hostile.MESSAGES.values(), ids=hostile.MESSAGES.keys())
def test_hostile_headers_cost_little(make: Callable[[], bytes]) -> None:
    head = make()[:HEAD]
    began = time.process_time()
    parse(head, authserv_id="mx.us.example")
    assert time.process_time() - began < 2.0  # the costliest takes 0.06 s; what this guards against takes minutes


@pytest.mark.parametrize("name", ["as many fields as fit", "as many addresses as fit", "as many encoded words as fit"])
def test_hostile_headers_take_little_memory(name: str) -> None:
    head = hostile.MESSAGES[name]()[:HEAD]
    tracemalloc.start()
    try:
        parse(head, authserv_id="mx.us.example")
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("count", "truncated"), [(FIELDS, False), (FIELDS + 1, True)])
def test_of_very_many_fields_the_first_are_read(count: int, truncated: bool) -> None:
    message = parse(b"a: b\r\n" * (count - 1) + b"Subject: last\r\n\r\n")
    assert message.truncated is truncated
    assert len(message.fields) == FIELDS
    assert ("subject" in message.common) is not truncated
