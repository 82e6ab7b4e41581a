"""Who is the author? One domain, or nobody: whatever two readers could read in two ways has none."""

from __future__ import annotations

import time

import pytest
from hostile import MESSAGES
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.assess import message
from inbound.assess.answers import domain_name
from inbound.assess.author import Author, author

TWICE = "it has several From fields, or what some reader takes for one"
NONE = "it has no From field"
NO_DOMAIN = "its From field names no domain"
SEVERAL = "its From field names several domains"
TWO_WAYS = "its From field can be read in several ways"
CONTROL = "its From field holds control characters"


def of(content: bytes) -> Author:
    head = content[: message.HEAD]
    return author(head, message.parse(head))


def field(value: str) -> Author:
    return of(f"To: you@example.net\r\nFrom: {value}\r\nSubject: hi\r\n\r\nbody\r\n".encode())


@pytest.mark.parametrize(
    "value",
    [
        "me@good.example",
        "<me@good.example>",
        "Me <me@good.example>",
        "Me<me@good.example>",
        "ME <me@GOOD.Example>",
        '"Doe, J." <me@good.example>',
        "Doe J. <me@good.example>",
        "me@good.example (Jo Doe)",
        "(Jo Doe) me@good.example",
        "Jo (the boss) <me@good.example>",
        "=?utf-8?q?J=C3=B6?= <me@good.example>",
        "=?utf-8?q?ceo=40bank.example?= <me@good.example>",  # a name that lies: not DMARC's, RFC 9989 §11.4
        '"ceo@bank.example" <me@good.example>',
        "me@good.example <me@good.example>",
        "other@good.example <me@good.example>",
        "Jö <me@good.example>",
        "a@good.example, B <b@good.example>",
        "\r\n Me\r\n\t<me@good.example>",
        '"me too"@good.example',
    ],
)
def test_one_domain(value: str) -> None:
    assert field(value) == Author("good.example")


def test_letters_beyond_ascii_become_a_labels() -> None:
    assert field("ich@BÜCHER.example").domain == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("value", "problem", "named"),
    [
        ("", NO_DOMAIN, ()),
        ("root", TWO_WAYS, ()),
        ("Me <>", TWO_WAYS, ()),
        ("undisclosed:;", TWO_WAYS, ()),
        ("me@localhost", NO_DOMAIN, ()),
        ("me@[192.0.2.1]", NO_DOMAIN, ()),
        ("me@good.example., b@c", NO_DOMAIN, ("good.example",)),
        ("ceo@bank.example, me@good.example", SEVERAL, ("bank.example", "good.example")),
        ("ceo@bank.example <me@good.example>", SEVERAL, ("bank.example", "good.example")),  # CVE-2023-27043
        ("x ceo@bank.example via <me@good.example>", SEVERAL, ("bank.example", "good.example")),
        ("<ceo@bank.example> <me@good.example>", TWO_WAYS, ("bank.example", "good.example")),
        ("<ceo@bank.example><me@good.example>", TWO_WAYS, ("bank.example", "good.example")),
        ("me@good.example <ceo@bank.example", TWO_WAYS, ("good.example", "bank.example")),
        ("<@bank.example:me@good.example>", TWO_WAYS, ("bank.example", "good.example")),
        ("<@bank.example,@c.example:me@good.example>", TWO_WAYS, ("bank.example", "c.example", "good.example")),
        ("all: me@good.example;", TWO_WAYS, ("good.example",)),
        ("all: me@good.example ;", TWO_WAYS, ("good.example",)),
        ("all: Me <me@good.example>;", TWO_WAYS, ("good.example",)),
        ("ceo@ bank.example <me@good.example>", SEVERAL, ("good.example",)),
        ("ceo@(x)bank.example <me@good.example>", SEVERAL, ("good.example",)),
        ("all: ceo@bank.example, me@good.example;", TWO_WAYS, ("bank.example", "good.example")),
        ("me@good.example(.bank.example)", TWO_WAYS, ("good.example",)),
        ("me@good.example(.bank.example) <x me@good.example x>", TWO_WAYS, ("good.example",)),
        ("me@(ceo@bank.example,)good.example", TWO_WAYS, ("bank.example",)),
        ("me(x)@good.example", TWO_WAYS, ("good.example",)),
        ("me@good.example (me@good.example)(x)", TWO_WAYS, ("good.example",)),
        ("<me@good.example(.bank.example)>", TWO_WAYS, ("good.example",)),
        ("me@good.example (ceo@bank.example)", SEVERAL, ("good.example", "bank.example")),
        ('me@"good.example"', TWO_WAYS, ()),
        ('"ceo@bank.example"@good.example', TWO_WAYS, ("bank.example", "good.example")),
        ('"ceo@bank.example>"@good.example', TWO_WAYS, ("bank.example", "good.example")),
        ("ceo@bank.example@good.example", TWO_WAYS, ("bank.example", "good.example")),
        ("ceo@bank.example\0@good.example", CONTROL, ("bank.example", "good.example")),
        ("me@good.example\0.bank.example", CONTROL, ("good.example",)),
        ("me@good.example\x0b", CONTROL, ("good.example",)),
        ("me@good.example \x85", CONTROL, ("good.example",)),
        ("\x1b[2Jme@good.example", CONTROL, ("good.example",)),
        ("=?utf-8?b?Y2VvQGJhbmsuZXhhbXBsZSwg?=, me@good.example", TWO_WAYS, ("good.example", "bank.example")),
        ("=?utf-8?q?=22ceo=40bank.example=22=3Cceo=40bank.example=3E=2C?=<me@good.example>, x", TWO_WAYS, ("good.example", "bank.example")),
        ("=?utf-8?q?ceo=40bank.example?=", TWO_WAYS, ("bank.example",)),
        ("me@good..example", NO_DOMAIN, ()),
        ("me@.good.example", NO_DOMAIN, ()),
        ("me@good_.exa_mple-", NO_DOMAIN, ()),
        ("me@good.example\\", TWO_WAYS, ("good.example",)),
        ("me @good.example", TWO_WAYS, ("good.example",)),
        ("me@ good.example", TWO_WAYS, ()),
        ("x" * 2_000 + " <me@good.example>", "its From field is too long", ()),
    ],
)
def test_no_author(value: str, problem: str, named: tuple[str, ...]) -> None:
    found = field(value)
    assert (found.domain, found.problem, found.named) == ("", problem, named)


GOOD = b"From: me@good.example\r\n"


@pytest.mark.parametrize(
    ("head", "problem", "named"),
    [
        (b"", NONE, ()),
        (b"Subject: none\r\n\r\n", NONE, ()),
        (b"Subject: none\r\n\r\n" + GOOD, NONE, ()),
        (b"\r\n" + GOOD + b"\r\n", NONE, ()),
        (b"no header at all\r\n" + GOOD + b"\r\n", NONE, ("good.example",)),
        (b" folded\r\n" + GOOD + b"\r\n", NONE, ("good.example",)),
        (b" " + GOOD + b"\r\n", NONE, ("good.example",)),
        (b"\xef\xbb\xbf" + GOOD + b"\r\n", NONE, ("good.example",)),
        (b"Subject: x\r\n\xa0" + GOOD + b"\r\n", NONE, ("good.example",)),
        (GOOD + b"From: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + GOOD + b"\r\n", TWICE, ("good.example",)),
        (GOOD + b"fROM : ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"From\t:\r\n ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"From\r\n : ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"From\0: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"From\xa0: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"\0From: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"X: y\rFrom: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"X: y\x0bFrom: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"X: y\xe2\x80\xa8From: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (GOOD + b"X: y\xc2\x85From: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (b"From: ceo@bank.example\rX: y\r\nFrom: me@good.example\r\n\r\n", TWICE, ("bank.example", "good.example")),
        (b"From: me@good.example\rFrom: ceo@bank.example\r\n\r\n", TWICE, ("good.example", "bank.example")),
        (b"From: me@good.example\rX-Real: y\r\n\r\n", CONTROL, ("good.example",)),
        (GOOD + b"X: " + b"y" * 103_000 + b"\r\nFrom: ceo@bank.example\r\n\r\n", "its header is too large to know that it has only one From field",
         ("good.example",)),
    ],
)
def test_one_from_field_for_every_reader(head: bytes, problem: str, named: tuple[str, ...]) -> None:
    found = of(head)
    assert (found.domain, found.problem, found.named) == ("", problem, named)


@pytest.mark.parametrize(
    "head",
    [
        GOOD + b"\r\nFrom: ceo@bank.example\r\n",
        b"From ceo@bank.example Mon Jan  1\r\n" + GOOD + b"\r\n",
        GOOD + b"Resent-From: ceo@bank.example\r\nSubject: From: ceo@bank.example\r\n From: ceo@bank.example\r\n\r\n",
        GOOD + "X: caféFrom: ceo@bank.example\r\nY: ©From: ceo@bank.example\r\n\r\n".encode(),
        GOOD + b"X-From: ceo@bank.example\r\nFrom-Bank: ceo@bank.example\r\n\r\n",
        GOOD.replace(b"\r\n", b"\n") + b"\n",
        GOOD,
        GOOD.strip(),
    ],
)
def test_what_is_no_second_from_field(head: bytes) -> None:
    assert of(head) == Author("good.example")


def test_no_more_than_eight_domains_are_named() -> None:
    assert field(", ".join(f"a@d{n}.example" for n in range(50))).named == tuple(f"d{n}.example" for n in range(8))


@pytest.mark.parametrize("name", MESSAGES)
def test_hostile_headers_take_no_time(name: str) -> None:
    head = MESSAGES[name]()[: message.HEAD]
    parsed = message.parse(head)
    for block in (head, head.replace(b"To: ", b"From: ").replace(b"Subject: ", b"From: ")):
        began = time.process_time()
        found = author(block, message.parse(block) if block is not head else parsed)
        assert time.process_time() - began < 2
        assert found.domain == domain_name(found.domain)


@settings(max_examples=200, deadline=None)
@given(head=st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda value: b"From: " + value + b"\r\n\r\n"),
                      st.text('@<>()",:; \\.ab=?\r\n\t\0', max_size=60).map(lambda text: f"From: {text}\r\n\r\n".encode())))
def test_no_octets_raise_and_no_domain_is_made_up(head: bytes) -> None:
    found = of(head)
    assert bool(found.domain) != bool(found.problem)
    assert not found.domain or not found.named
    for name in (found.domain, *found.named):
        assert name == "" or name == domain_name(name)
