"""Notices that the wall clock was set, by comparing it with the monotonic one: retry times are kept in wall time, to outlive a restart.

What was set forward by hours must not end the retry time of all that waits; see `Spool.clock_set`.
"""

from __future__ import annotations

from collections.abc import Callable

TOLERANCE = 5.0  # seconds; less is no harm to anyone, and adds up until it is more


class Timekeeper:
    """The wall clock `wall`, watched: `forward` is by how many seconds it was set forward in all, `times` how often it was set at all.

    A machine that was suspended has had its clock set forward.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.forward = 0.0
        self.times = 0
        self._wall = wall
        self._monotonic = monotonic
        self._difference = wall() - monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        wall = self._wall()
        moved = wall - self._monotonic() - self._difference
        if abs(moved) > TOLERANCE:
            self._difference += moved
            self.forward += max(0.0, moved)
            self.times += 1
        return wall
