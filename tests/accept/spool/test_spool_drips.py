"""Content that drips in costs no more memory than content that comes in streams."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from inbound.accept.spool.sqlite import SqliteSpool


@pytest.mark.parametrize("size", [1, 2, 7, 4095, 4097])
async def test_a_draft_of_tiny_pieces_holds_little_more_than_its_octets(size: int, tmp_path: Path) -> None:
    """128,000 pieces of two octets were 8 MB, of each of a thousand sessions."""
    spool = SqliteSpool(tmp_path / "spool")
    await spool.start()
    expected = bytes(range(256)) * 1000
    draft = spool.draft("0" * 40)
    tracemalloc.start()
    for position in range(0, len(expected), size):
        assert not draft.add(expected[position : position + size])
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 3 * len(expected)
    assert draft.size == len(expected)
    assert draft.head(100_000) == expected[:100_000]
    with (await draft.content()).open() as octets:
        assert octets.read() == expected
    await draft.discard()
    await spool.stop()
