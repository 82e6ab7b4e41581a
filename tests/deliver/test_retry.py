"""Backoff and breakers, as pure functions of time and dice."""

from hypothesis import given
from hypothesis import strategies as st

from inbound.deliver.retry import Breaker, Circuit, Schedule

SCHEDULE = Schedule(minimum=60, maximum=900, give_up_after=4 * 3600)


def test_the_wait_doubles_from_minimum_to_maximum() -> None:
    waits = [SCHEDULE.next_attempt(n, now=0, since=0, dice=0) for n in range(1, 8)]
    assert waits == [60, 120, 240, 480, 900, 900, 900]


@given(st.integers(1, 10_000), st.floats(0, 14_000), st.floats(0, 0.999))
def test_the_next_attempt_is_in_the_future_jittered_and_never_after_the_retry_time(attempts: int, now: float, dice: float) -> None:
    due = SCHEDULE.next_attempt(attempts, now=now, since=0, dice=dice)
    assert due is not None
    assert now + 30 <= due <= now + 900 or due == SCHEDULE.give_up_after


def test_the_last_attempt_comes_at_the_end_of_the_retry_time_and_then_it_gives_up() -> None:
    assert SCHEDULE.next_attempt(9, now=14_300, since=0, dice=0) == 14_400
    assert SCHEDULE.next_attempt(10, now=14_400, since=0, dice=0) is None


def test_a_retry_asked_for_later_has_a_retry_time_of_its_own() -> None:
    assert SCHEDULE.next_attempt(1, now=100_000, since=100_000, dice=0) == 100_060


def test_a_breaker_opens_after_failures_in_a_row_and_probes_one_call_at_a_time() -> None:
    breaker = Breaker(threshold=3)
    assert not breaker.failed(0, "a")
    assert not breaker.succeeded()
    assert [breaker.failed(0, e) for e in "abc"] == [False, False, True]
    assert breaker.circuit is Circuit.OPEN
    assert breaker.last_error == "c"
    assert not breaker.admits(0.5)
    assert breaker.admits(1.0)
    assert not breaker.admits(1.0), "the second caller waits for the probe's outcome"
    breaker.failed(1.0, "d")
    assert not breaker.admits(2.9)
    assert breaker.admits(3.0)
    assert breaker.succeeded()
    assert breaker.admits(3.0)
    assert not breaker.succeeded()


def test_probes_are_never_more_than_five_seconds_apart() -> None:
    breaker = Breaker(threshold=1)
    now = 0.0
    breaker.failed(now, "x")
    gaps = []
    for _ in range(8):
        gaps.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert breaker.admits(now)
        breaker.failed(now, "x")
    assert gaps == [1, 2, 4, 5, 5, 5, 5, 5]


def test_an_abandoned_probe_lets_another_try() -> None:
    breaker = Breaker(threshold=1)
    breaker.failed(0, "x")
    assert breaker.admits(1)
    breaker.abandoned(1)
    assert breaker.admits(1)
