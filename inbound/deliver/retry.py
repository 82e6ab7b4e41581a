"""When is the next attempt, and is a sink to be left alone? Pure: the time and the dice are passed in.

Spec: a failing action is retried with backoff and jitter for four hours, then the message is a dead letter. A sink that fails for
reasons of its own has a breaker: it is left alone, probed, and its backlog released at once when it answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Schedule:
    """`minimum` and `maximum` wait between attempts and `give_up_after` the retry time began, all in seconds."""

    minimum: float = 60.0
    maximum: float = 900.0
    give_up_after: float = 4 * 3600.0

    def next_attempt(self, attempts: int, *, now: float, since: float, dice: float) -> float | None:
        """When to try again after `attempts` failures, or None: give up.

        The wait doubles from `minimum` to `maximum`; `dice` in [0, 1) takes up to half of it away. The last attempt is made when the
        retry time ends, not before.
        """
        deadline = since + self.give_up_after
        if now >= deadline:
            return None
        wait = min(self.maximum, self.minimum * 2.0 ** min(attempts - 1, 30))
        return min(now + wait * (1 - dice / 2), deadline)


class Circuit(StrEnum):
    """State of a breaker."""

    CLOSED = "closed"  # calls go through
    OPEN = "open"  # left alone until `probe_at`
    PROBING = "probing"  # one call is on its way to see


class Breaker:
    """The breaker of one sink. It opens after `threshold` failures in a row; then one call at a time probes, after 1, 2, 4, 5, 5 … seconds."""

    __slots__ = ("_failures", "_probes", "circuit", "last_error", "probe_at", "threshold")

    FIRST_PROBE = 1.0
    LONGEST_PROBE = 5.0

    def __init__(self, threshold: int = 5) -> None:
        self.threshold = threshold
        self.circuit = Circuit.CLOSED
        self.probe_at = 0.0
        self.last_error = ""
        self._failures = 0
        self._probes = 0

    def admits(self, now: float) -> bool:
        """May a call go to the sink? Saying yes to a probe makes every other call wait for its outcome."""
        if self.circuit is Circuit.CLOSED:
            return True
        if self.circuit is Circuit.OPEN and now >= self.probe_at:
            self.circuit = Circuit.PROBING
            return True
        return False

    def succeeded(self) -> bool:
        """A call was answered; True when this closed the breaker, so that the backlog can go."""
        recovered = self.circuit is not Circuit.CLOSED
        self.circuit, self._failures, self._probes, self.last_error = Circuit.CLOSED, 0, 0, ""
        return recovered

    def failed(self, now: float, error: str, *, certain: bool = False) -> bool:
        """A call failed for reasons of the sink; True when this opened the breaker, as one failure does that leaves no doubt (`certain`)."""
        self._failures = self.threshold if certain else self._failures + 1
        self.last_error = error
        opened = self.circuit is Circuit.CLOSED and self._failures >= self.threshold
        if opened or self.circuit is Circuit.PROBING:
            self.circuit = Circuit.OPEN
            self.probe_at = now + min(self.LONGEST_PROBE, self.FIRST_PROBE * 2.0**self._probes)
            self._probes += 1
        return opened

    def abandoned(self, now: float) -> None:
        """A probe ended without an answer either way (it was cancelled, or failed for reasons of its message): another may try."""
        if self.circuit is Circuit.PROBING:
            self.circuit = Circuit.OPEN
            self.probe_at = now
