"""RFC 5321 paths and parameters: what is taken, how it is spelled afterwards, and what is refused with which reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.address import forward_path, helo_name, reverse_path
from inbound.accept.reply import Refusal

GOOD = [
    (b"FROM:<a@example.com>", "a@example.com", {}),
    (b"from: <a@example.com>", "a@example.com", {}),
    (b"FROM:<>", "", {}),
    (b"FROM:<> SIZE=1", "", {"SIZE": "1"}),
    (b"FROM:<A.B@Example.COM> SIZE=10 BODY=8BITMIME", "A.B@Example.COM", {"SIZE": "10", "BODY": "8BITMIME"}),
    (b"FROM:a@example.com", "a@example.com", {}),
    (b"FROM:a@example.com SIZE=5", "a@example.com", {"SIZE": "5"}),
    (b"FROM:<user+label@example.com>", "user+label@example.com", {}),
    (b"FROM:<@relay.example,@other.example:a@example.com>", "a@example.com", {}),
    (b'FROM:<"john doe"@example.com>', '"john doe"@example.com', {}),
    (b'FROM:<"john"@example.com>', "john@example.com", {}),
    (b'FROM:<"a>b"@example.com>', '"a>b"@example.com', {}),
    (b'FROM:<"a\\"b"@example.com>', '"a\\"b"@example.com', {}),
    (b"FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]", {}),
    (b"FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", {}),
    (b"FROM:<a..b@example.com>", "a..b@example.com", {}),
    (b"FROM:<a@under_score.example.com>", "a@under_score.example.com", {}),
    (b"FROM:<" + b"l" * 64 + b"@example.com>", "l" * 64 + "@example.com", {}),
    (b"FROM:<a%b@example.com>", "a%b@example.com", {}),
]

BAD = [
    (b"", "501 5.1.7"), (b"FROM", "501 5.1.7"), (b"TO:<a@b.c>", "501 5.1.7"), (b"FROM:<a@example.com", "501 5.1.7"),
    (b"FROM:a@example.com>", "501 5.1.7"), (b"FROM:<a>", "501 5.1.7"), (b"FROM:<@example.com>", "501 5.1.7"), (b"FROM:<a@>", "501 5.1.7"),
    (b"FROM:<a@[999.1.1]>", "501 5.1.7"), (b"FROM:<a@[IPv6:zz]>", "501 5.1.7"), (b"FROM:<a@example.com.>", "501 5.1.7"),
    (b"FROM:<a@-x.com>", "501 5.1.7"), (b"FROM:<a b@example.com>", "501 5.1.7"), (b"FROM:<a@exa mple.com>", "501 5.1.7"),
    (b"FROM:<a\x00@example.com>", "501 5.1.7"), (b"FROM:<a\r@example.com>", "501 5.1.7"), (b"FROM:<a\x1b[2J@example.com>", "501 5.1.7"),
    (b"FROM:<a@example.com>x", "501 5.1.7"), (b"FROM:<" + b"l" * 65 + b"@example.com>", "501 5.1.7"),
    (b"FROM:<a@" + b"d" * 64 + b".com>", "501 5.1.7"), (b"FROM:<a@" + b"d.com." * 50 + b"com>", "501 5.1.7"),
    ("FROM:<jö@example.com>".encode(), "553 5.6.7"), ("FROM:<a@bücher.example>".encode(), "553 5.6.7"), (b"FROM:<\xff@example.com>", "553 5.6.7"),
    (b"FROM:<a@example.com> SIZE=1 SIZE=2", "501 5.5.4"), (b"FROM:<a@example.com> =", "501 5.5.4"),
    (b"FROM:<a@example.com> X=\x01", "501 5.5.4"), ("FROM:<a@example.com> SIZE=١".encode(), "501 5.5.4"),
]


@pytest.mark.parametrize(("argument", "address", "parameters"), GOOD, ids=lambda v: repr(v)[:40])
def test_reverse_path_is_taken(argument: bytes, address: str, parameters: dict[str, str]) -> None:
    assert reverse_path(argument) == (address, parameters)


@pytest.mark.parametrize(("argument", "reply"), BAD, ids=lambda v: repr(v)[:40])
def test_reverse_path_is_refused(argument: bytes, reply: str) -> None:
    with pytest.raises(Refusal, match=reply):
        reverse_path(argument)


@pytest.mark.parametrize("argument", [b"TO:<>", b"TO:<@a:>", b"TO:", b"TO: <", b"TO:<other>"])
def test_forward_path_needs_an_address(argument: bytes) -> None:
    with pytest.raises(Refusal, match=r"501 5\.1\.3"):
        forward_path(argument)


def test_postmaster_needs_no_domain() -> None:
    assert forward_path(b"TO:<Postmaster>") == ("Postmaster", {})


@pytest.mark.parametrize(("argument", "name"), [
    (b"mail.example.com", "mail.example.com"), (b"[192.0.2.1]", "[192.0.2.1]"), (b"a b", "a"), (b"", None), (b"  ", None),
    (b"x\x00y", None), (b"\xc3\xa4", None), (b"x" * 256, None), (b"a\x1bb", None),
])
def test_helo_name(argument: bytes, name: str | None) -> None:
    assert helo_name(argument) == name


@given(st.binary(max_size=200))
def test_octets_from_strangers_are_refused_or_give_printable_ascii(octets: bytes) -> None:
    for parse, keyword in ((reverse_path, b"FROM:<"), (forward_path, b"TO:<")):
        for argument in (octets, keyword + octets + b">"):
            try:
                address, parameters = parse(argument)
            except Refusal:
                continue
            assert address.isascii()
            assert "".join([address, *parameters, *parameters.values()]).isprintable()
