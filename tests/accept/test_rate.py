"""Token buckets by key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.rate import Buckets, Rate


def test_the_key_seen_longest_ago_is_forgotten() -> None:
    buckets = Buckets(Rate(1, 10.0), 2)
    for key in "ab":
        buckets.of(key, 0.0).add(-1.0)
    assert not buckets.of("a", 0.0).holds_one(0.0)
    buckets.of("c", 0.0)
    assert buckets.known("b") is None
    assert not buckets.of("a", 0.0).holds_one(0.0)
    assert buckets.of("b", 0.0).holds_one(0.0)


@given(st.integers(1, 20), st.floats(0.5, 100.0), st.lists(st.floats(0.0, 30.0), max_size=60))
def test_no_more_than_the_count_and_what_grows_back_ever_fits(count: int, seconds: float, waits: list[float]) -> None:
    buckets, now, taken = Buckets(Rate(count, seconds), 10), 0.0, 0
    for wait in waits:
        now += wait
        bucket = buckets.of("k", now)
        if bucket.holds_one(now):
            bucket.add(-1.0)
            taken += 1
    assert taken <= count + now * count / seconds + 1e-6
