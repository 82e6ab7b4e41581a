"""Form encoding is the standard library's."""

from __future__ import annotations

from urllib.parse import parse_qs, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from inbound.deliver.aws.form import escape, form


@given(st.binary())
def test_every_octet_becomes_what_the_standard_library_makes_of_it(octets: bytes) -> None:
    assert escape(octets) == quote_plus(octets).encode()


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), min_size=1))
def test_a_form_is_read_back_as_it_was(values: list[str]) -> None:
    encoded = form([(b"Message", value) for value in values])
    assert parse_qs(encoded.decode("ascii"), keep_blank_values=True) == {"Message": values}


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert form([(b"a", "\ud800")]) == b"a=%3F"
