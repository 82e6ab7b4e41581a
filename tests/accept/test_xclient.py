"""The attributes of XCLIENT, as Postfix's XCLIENT_README describes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept import reply
from inbound.accept.reply import Refusal
from inbound.accept.xclient import Attributes, attributes

GOOD = [
    (b"NAME=spike.porcupine.org ADDR=168.100.189.2", Attributes(address="168.100.189.2", name="spike.porcupine.org")),
    (b"ADDR=192.0.2.1 PORT=2525 NAME=mx.example HELO=mx.example PROTO=ESMTP",
     Attributes(address="192.0.2.1", port=2525, name="mx.example", helo="mx.example", extended=True)),
    (b"addr=192.0.2.1 proto=smtp", Attributes(address="192.0.2.1", extended=False)),
    (b"ADDR=IPV6:2001:DB8::1", Attributes(address="2001:db8::1")),
    (b"ADDR=2001:db8::1", Attributes(address="2001:db8::1")),  # as older front ends write it
    (b"NAME=[UNAVAILABLE] ADDR=192.0.2.1", Attributes(address="192.0.2.1", name="")),
    (b"NAME=[TEMPUNAVAIL] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=[unavailable] PROTO=[UNAVAILABLE]", Attributes(name="")),
    (b"HELO=[192.0.2.1]", Attributes(helo="[192.0.2.1]")),
    (b"HELO=a+2Bb+3Dc", Attributes(helo="a+b=c")),
    (b"LOGIN=alice+40example.com", Attributes()),
    (b"DESTADDR=192.0.2.9 DESTPORT=25 REVERSE_NAME=x.example", Attributes()),
    (b"  ADDR=192.0.2.1  PORT=0 ", Attributes(address="192.0.2.1", port=0)),
    (b"HELO=" + b"a" * 255, Attributes(helo="a" * 255)),
    (b"HELO=" + b"+41" * 255, Attributes(helo="A" * 255)),
]


@pytest.mark.parametrize(("argument", "expected"), GOOD, ids=[repr(argument[:40]) for argument, _ in GOOD])
def test_attributes(argument: bytes, expected: Attributes) -> None:
    assert attributes(argument) == expected


BAD = [
    b"", b"  ", b"192.0.2.1", b"ADDR", b"ADDR=", b"ADDR= 192.0.2.1", b"=192.0.2.1", b"X=1", b"ADDRESS=192.0.2.1",
    b"ADDR=192.0.2.1 ADDR=192.0.2.2", b"ADDR=192.0.2.1 addr=192.0.2.1", b"ADDR=client.example", b"ADDR=192.0.2.256", b"ADDR=192.0.2.01",
    b"ADDR=IPV6:192.0.2.1", b"ADDR=[192.0.2.1]", b"ADDR=IPV6:fe80::1+25eth0", b"ADDR=IPV6:", b"ADDR=3221225985",
    b"PORT=65536", b"PORT=-1", b"PORT=25x", b"PORT=000025", b"PORT=+D9+A1", b"PROTO=LMTP", b"PROTO=",
    b"NAME=-a.example", b"NAME=a..example", b"NAME=a.example.", b"NAME=a+20b", b"NAME=a+0D+0AX:", b"NAME=" + b"a" * 64, b"NAME=b+C3+BCcher.example",
    b"NAME=\xc3\xbc.example", b"HELO=a+20b", b"HELO=a+0D+0AMAIL", b"HELO=+00", b"HELO=+7F", b"HELO=+", b"HELO=+4", b"HELO=+4g", b"HELO=+4a",
    b"HELO=a=b", b"HELO=a\tb", b"HELO=a\0", b"HELO=" + b"a" * 256, b"HELO=" + b"+41" * 256, b"LOGIN=" + b"a" * 256, b"LOGIN=\xff",
    b"ADDR=192.0.2.1;PORT=1", b"ADDR=192.0.2.1 x",
]


@pytest.mark.parametrize("argument", BAD, ids=lambda argument: repr(argument[:30]))
def test_what_is_malformed_is_refused(argument: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        attributes(argument)
    assert caught.value.reply is reply.BAD_XCLIENT


@given(st.lists(st.tuples(st.sampled_from(["ADDR", "PORT", "NAME", "HELO", "PROTO", "LOGIN", "HELO"]), st.binary(max_size=12)), max_size=4)
       .map(lambda pairs: b" ".join(name.encode() + b"=" + value for name, value in pairs)) | st.binary(max_size=40))
def test_whatever_is_said_it_is_refused_or_safe_to_write(argument: bytes) -> None:
    """Nothing gets through that could end a line, a word or a header field."""
    try:
        found = attributes(argument)
    except Refusal:
        return
    for text in (found.address, found.name, found.helo):
        assert text is None or (text.isascii() and text.isprintable() and " " not in text)
