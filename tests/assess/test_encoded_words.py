"""Encoded words become Unicode, or stay as written."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.assess.encoded_words import decode


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?UTF-8?Q?under_score?=", "under score"),
        ("=?utf-8?b?R3LDvMOfZQ==?=", "Grüße"),
        ("=?utf-8?B?R3LDvMOfZQ?=", "Grüße"),
        ("=?iso-8859-1?q?=FC?= and =?koi8-r?q?=C1?=", "ü and а"),
        ("a =?utf-8?q?b?= c", "a b c"),
        ("=?utf-8?q?a?= \t =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= - =?utf-8?q?b?=", "a - b"),
        ("=?utf-8?q?=E2?= =?UTF-8?q?=82=AC?=", "€"),
        ("=?utf-8?b?4g==?= =?utf-8?q?=82=AC?=", "€"),
        ("=?utf-8*en?q?a?=", "a"),
        ("=?gb2312?b?xOO6w8qi?=", "你好盛"),
        ("=?iso-2022-jp?b?GyRCRnxLXBsoQg==?= =?iso-2022-jp?b?GyRCOGwbKEI=?=", "日本語"),
        ("=?ks_c_5601-1987?b?x9GxuQ==?=", "한국"),
        ("=?utf-8?q??=", ""),
        ("(=?utf-8?q?a?=)", "(a)"),
        ('"=?utf-8?q?a?="', '"a"'),
        ("=?utf-8?q?a=0D=0ABcc:_v@x=00?=", "a\r\nBcc: v@x\0"),
    ],
)
def test_decoded(written: str, shown: str) -> None:
    assert decode(written) == shown


@pytest.mark.parametrize(
    "written",
    [
        "=?utf-8?q?=FF?=",
        "=?utf-8?b?w6?=",
        "=?utf-8?b?!!!!?=",
        "=?utf-8?b?=?=",
        "=?utf-8?q?=ZZ?=",
        "=?utf-8?q?=4?=",
        "=?utf-8?x?a?=",
        "=?utf-8?q?a",
        "=?utf-8?q?ü?=",
        "=??q?a?=",
        "=?us-ascii?q?=FC?=",
        "=?unknown-8bit?q?a?=",
        *(f"=?{name}?q?a=41?=" for name in ("zip", "rot13", "hex", "idna", "punycode", "unicode_escape")),
        *(f"=?{name}?q?a=41?=" for name in ("undefined", "utf-7", "os", "cp037")),
    ],
)
def test_stays_as_written(written: str) -> None:
    assert decode(written) == written
    assert decode(f"=?utf-8?q?a?= {written} =?utf-8?q?b?=") == f"a {written} b"


def test_one_bad_word_does_not_spoil_its_neighbours() -> None:
    assert decode("=?utf-8?q?=E2?= =?utf-8?q?ok?= =?utf-8?q?=C3=A4?=") == "=?utf-8?q?=E2?= okä"


def test_the_name_of_a_charset_loads_no_module() -> None:
    before = set(sys.modules)
    decode("=?antigravity?q?a?= =?encodings.zlib_codec?q?a?= =?quopri?q?a?=")
    assert set(sys.modules) == before


@given(st.text(alphabet="=?utf-8bqQ_ \t\r\nA4é\0", max_size=200))
def test_any_text_gives_valid_unicode(text: str) -> None:
    decode(text).encode("utf-8")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.sampled_from(["q", "b"]), st.integers(1, 8))
def test_what_was_encoded_comes_back_however_it_was_split(text: str, encoding: str, size: int) -> None:
    import base64

    octets = text.encode("utf-8")
    pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
    words = [base64.b64encode(p).decode() if encoding == "b" else "".join(f"={octet:02X}" for octet in p) for p in pieces]
    assert decode(" ".join(f"=?utf-8?{encoding}?{word}?=" for word in words)) == text
