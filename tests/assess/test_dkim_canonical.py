"""Canonical forms equal dkimpy's, whatever the octets and however they are cut, and cost no more than the octets they have."""

from __future__ import annotations

import hashlib
import re
import time

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inbound.assess.dkim.canonical import BodyTerms, Canonicalization, body_hashes, header_field

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED
REFERENCE = {SIMPLE: Simple, RELAXED: Relaxed}
TELLING = [b"\r\n", b"\n", b"\r", b"\r\r\n", b" ", b"\t", b"  ", b"a", b"\0", b"\x0b", b"\xa0"]
bodies = st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(TELLING), max_size=40).map(b"".join))


def pieces_of(octets: bytes, sizes: list[int]) -> list[bytes]:
    """The octets in pieces of these sizes, the last one with the rest."""
    pieces = []
    for size in sizes:
        pieces.append(octets[:size])
        octets = octets[size:]
    return [*pieces, octets]


def reference(body: bytes, canonicalization: Canonicalization) -> bytes:
    """As dkimpy splits a message and canonicalises its body."""
    return REFERENCE[canonicalization].canonicalize_body(b"\r\n".join(re.split(b"\r?\n", body)))


@settings(deadline=None)
@given(bodies, st.lists(st.integers(0, 9)), st.integers(0, 40))
@example(b"", [], 0)
@example(b"\r\n\r\n", [1, 2], 2)
@example(b"a \r\n \r\n\r\n", [2, 1, 1, 1, 1], 1)
@example(b"a\r\r\n\r\n", [2], 3)
@example(b" ", [], 1)
def test_a_body_is_hashed_as_dkimpy_would_in_any_pieces(body: bytes, sizes: list[int], limit: int) -> None:
    wanted = [BodyTerms(each, end) for each in Canonicalization for end in (None, limit, limit // 2, 0)]
    found = body_hashes(pieces_of(body, sizes), wanted)
    for terms in wanted:
        canonical = reference(body, terms.canonicalization)
        assert found[terms] == (hashlib.sha256(canonical[: terms.limit]).digest(), len(canonical)), canonical


@pytest.mark.parametrize("empty_lines", [32_767, 32_768, 32_769, 200_000])
@pytest.mark.parametrize("canonicalization", Canonicalization)
def test_empty_lines_held_back_are_all_hashed_once_something_follows(canonicalization: Canonicalization, empty_lines: int) -> None:
    body = b"a\r\n" + b"\r\n" * empty_lines + b"b\r\n" + b"\r\n" * empty_lines
    terms = BodyTerms(canonicalization, 2 * empty_lines + 1)
    found = body_hashes(pieces_of(body, [65_536] * 20), [terms])
    assert found[terms].digest == hashlib.sha256(body[: 2 * empty_lines + 1]).digest()
    assert found[terms].length == 2 * empty_lines + 6


def test_an_empty_body_is_what_the_errata_of_rfc_6376_say() -> None:
    found = body_hashes([], [BodyTerms(SIMPLE), BodyTerms(RELAXED)])
    assert found[BodyTerms(SIMPLE)] == (hashlib.sha256(b"\r\n").digest(), 2)
    assert found[BodyTerms(RELAXED)] == (hashlib.sha256(b"").digest(), 0)


def test_the_example_of_rfc_6376_3_4_5() -> None:
    fields, body = (b"A: X", b"B : Y\t\r\n\tZ  "), b" C \r\nD \t E\r\n\r\n\r\n"
    assert [header_field(field, RELAXED) for field in fields] == [b"a:X\r\n", b"b:Y Z\r\n"]
    assert [header_field(field, SIMPLE) for field in fields] == [b"A: X\r\n", b"B : Y\t\r\n\tZ  \r\n"]
    found = body_hashes([body], [BodyTerms(SIMPLE), BodyTerms(RELAXED)])
    assert found[BodyTerms(RELAXED)].digest == hashlib.sha256(b" C\r\nD E\r\n").digest()
    assert found[BodyTerms(SIMPLE)].digest == hashlib.sha256(b" C \r\nD \t E\r\n").digest()


@settings(deadline=None)
@given(
    st.from_regex(r"[!-9;-~]{1,9}", fullmatch=True),
    st.lists(st.sampled_from(["\r\n ", "\r\n\t", "\n ", " ", "\t", "x", ":", "é"]), max_size=20).map("".join),
)
@pytest.mark.parametrize("canonicalization", Canonicalization)
def test_a_header_field_is_canonicalised_as_dkimpy_would(canonicalization: Canonicalization, name: str, value: str) -> None:
    octets = value.encode().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    ((known_name, known_value),) = REFERENCE[canonicalization].canonicalize_headers([(name.encode(), octets + b"\r\n")])
    assert header_field(f"{name}:{value}".encode(), canonicalization) == known_name + b":" + known_value


@pytest.mark.parametrize(
    "unit", [b" ", b"\t", b"\r", b"\n", b"\r\n", b" \r\n", b"  x", b"\t x", b"\r\r\n", b"\r \t\n", b" " * 70_000 + b"x"], ids=repr
)
def test_no_octets_cost_more_than_linear_time(unit: bytes) -> None:
    body = (unit * (4_000_000 // len(unit) + 1))[:4_000_000]
    wanted = [BodyTerms(each, end) for each in Canonicalization for end in (None, *range(0, 4_000_000, 500_000))]
    started = time.process_time()
    body_hashes(pieces_of(body, [65_536] * 61), wanted)
    assert time.process_time() - started < 4.0  # 0.02 to 0.12 s; dkimpy takes minutes for the spaces
