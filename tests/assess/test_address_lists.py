"""Address lists as SES shows them, and never an address that another reader would not see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.assess.addresses import TOKEN_LIMIT, Item, read


@pytest.mark.parametrize(
    ("written", "text", "address"),
    [
        ("a@b.example", "a@b.example", "a@b.example"),
        ("<a@b.example>", "a@b.example", "a@b.example"),
        ('"Peter" <a@b>', "Peter <a@b>", "a@b"),
        ("Peter Pan<a@b>", "Peter Pan <a@b>", "a@b"),
        ('"Doe, John" <a@b>', '"Doe, John" <a@b>', "a@b"),
        ('"x@y" <x@y>', '"x@y" <x@y>', "x@y"),
        ("x@y <x@y>", '"x@y" <x@y>', "x@y"),
        ("J. Doe <a@b>", '"J. Doe" <a@b>', "a@b"),
        ("[QA] Bot <a@b>", '"[QA] Bot" <a@b>', "a@b"),
        (r'"a \"b\" \\ c" <a@b>', r'"a \"b\" \\ c" <a@b>', "a@b"),
        ('"John" "Doe" <a@b>', "John Doe <a@b>", "a@b"),
        ("=?utf-8?q?J=C3=B6rg?= <a@b>", "Jörg <a@b>", "a@b"),
        ('"=?utf-8?q?J=C3=B6rg?=" <a@b>', "Jörg <a@b>", "a@b"),
        ("=?utf-8?q?Doe=2C_J?= <a@b>", '"Doe, J" <a@b>', "a@b"),
        ("=?utf-8?Q?Doe,_J?= <a@b>", '"Doe, J" <a@b>', "a@b"),
        ("Jörg <a@b>", "Jörg <a@b>", "a@b"),
        ("a@b (Old (nested) Form)", '"Old (nested) Form" <a@b>', "a@b"),
        ("Name (comment) <a@b> (more)", "Name <a@b>", "a@b"),
        ("(Name) <a@b>", "Name <a@b>", "a@b"),
        ("<@relay,@other:a@b>", "a@b", "a@b"),
        ('"quoted local"@b', '"quoted local"@b', '"quoted local"@b'),
        ("u@[192.0.2.1]", "u@[192.0.2.1]", "u@[192.0.2.1]"),
        ("N <u@[IPv6:2001:db8::1]>", "N <u@[IPv6:2001:db8::1]>", "u@[IPv6:2001:db8::1]"),
        ("jörg@bücher.example", "jörg@bücher.example", "jörg@bücher.example"),
        ("prvs=1d=x@b.example", "prvs=1d=x@b.example", "prvs=1d=x@b.example"),
        ("=?x?= <a@b>", "=?x?= <a@b>", "a@b"),
        ("alice@trusted.example <bob@evil.example>", '"alice@trusted.example" <bob@evil.example>', "bob@evil.example"),
    ],
)
def test_one_mailbox(written: str, text: str, address: str) -> None:
    assert read(written) == [Item(text, (address,))]


@pytest.mark.parametrize(
    "written",
    [
        "not an address",
        "root (Cron Daemon)",
        "<>",
        "a@b <c@d> e@f",
        "<a@b> <c@d>",
        "<The Service <a@b>>",
        "a@b@c",
        "a b@c",
        "@b",
        "a@",
        '"never closed <a@b>',
        "(never closed <a@b>",
        "a@b)",
        "a@b>",
        "a\\@b",
        "<a@b\0>",
        "<a @b>",
        "a@b; c@d",
        "x: a@b; c@d",
        "x: a@b",
        "<a@b>: c@d;",
        "a@b: c@d; e@f;",
        "=?utf-8?q?Name?=",
    ],
)
def test_what_is_no_mailbox_keeps_its_text_and_gives_no_address(written: str) -> None:
    assert read(written) == [Item(written, ())]


def test_a_list() -> None:
    items = read(' "A, B" <a@b>, , c@d ,(x), undisclosed-recipients:;, G: e@f, "H" <g@h>;,')
    assert items == [
        Item('"A, B" <a@b>', ("a@b",)),
        Item("c@d", ("c@d",)),
        Item("(x)", ()),
        Item("undisclosed-recipients:;", ()),
        Item('G: e@f, "H" <g@h>;', ("e@f", "g@h")),
    ]


def test_one_bad_entry_does_not_spoil_the_list() -> None:
    assert [item.addresses for item in read("a@b, <, c@d")] == [("a@b",), (), ("c@d",)]


@pytest.mark.parametrize("unit", ["a@b,", "N <a@b>,", "g: a@b;,"])
def test_beyond_the_limit_the_rest_is_one_entry(unit: str) -> None:
    items = read(unit * TOKEN_LIMIT)
    assert len(items) <= TOKEN_LIMIT
    assert not items[-1].addresses
    assert items[-1].text.endswith(unit)
    assert all(item.addresses == ("a@b",) for item in items[:-1])


TEXT = st.text(alphabet='ab@.,:;<>()[]"\\ \t=?utf-8q_é\0', max_size=80)


@given(TEXT)
def test_any_text_can_be_read(text: str) -> None:
    for item in read(text):
        assert item.text.strip()
        for address in item.addresses:
            assert "@" in address
            assert not set(address) & set("<>()\0\t")


@given(TEXT)
def test_a_mailbox_written_anew_reads_as_itself(text: str) -> None:
    for item in read(text):
        if len(item.addresses) == 1 and not item.text.endswith(";"):
            assert read(item.text)[0].addresses == item.addresses
