"""Compact JSON is the standard library's text, with and without its machinery in C."""

from __future__ import annotations

import json
from json import encoder
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.compact import encoded_by

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None, exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner), max_leaves=10)


@given(VALUES, st.booleans())
def test_the_text_is_that_of_the_standard_library(value: Any, ascii_only: bool) -> None:
    assert encoded_by(ascii_only=ascii_only)(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)


@pytest.mark.parametrize("without_c", [False, True])
def test_what_json_does_not_know_is_told_by_the_default_or_refused(without_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if without_c:
        monkeypatch.setattr(encoder, "c_make_encoder", None)
    assert encoded_by(str)({"at": 1j, "in": [2j]}) == '{"at":"1j","in":["2j"]}'
    with pytest.raises(TypeError, match="not JSON serializable"):
        encoded_by()({"at": 1j})
