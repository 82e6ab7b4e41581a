"""Memory held in reserve, and given up at the first sign that there is no more: what is in hand can then be refused in good order.

Where an allocation fails that Python makes for itself, the interpreter or its event loop may die of it.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Callable, Sequence

RESERVE = 16 << 20  # octets of address space; no page of it is ever touched, so that it costs nothing where only those count
LEAST = 1 << 20  # octets of a reserve that mail is taken with
CALM = 10.0  # seconds without a sign, after which mail is taken without a reserve: what the allocator keeps is room as well


class Reserve:
    """The reserve of this process. `is_short` from the first sign until there is a reserve again; `on_short` are called when that begins."""

    def __init__(self, octets: int = RESERVE, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_short = False
        self.on_short: Sequence[Callable[[], object]] = ()
        self._octets = octets
        self._clock = clock
        self._sign = 0.0  # when the last one was seen
        self._held = _pages(octets)

    @property
    def octets(self) -> int:
        """How much is held."""
        return 0 if self._held is None else len(self._held)

    def note(self, error: BaseException) -> None:
        """Something failed: if for want of memory, spend the reserve."""
        if isinstance(error, MemoryError) or (isinstance(error, BaseExceptionGroup) and error.subgroup(MemoryError)):
            self.spend()

    def spend(self) -> None:
        """Give the reserve up; once, until there is one again."""
        held, self._held = self._held, None
        if held is not None:
            held.close()
        self._sign = self._clock()
        if not self.is_short:
            self.is_short = True
            for tell in self.on_short:
                with contextlib.suppress(MemoryError):  # the next sign, or the next look, is soon
                    tell()

    def renew(self) -> None:
        """Have as much of it again as there is."""
        octets = self._octets
        while octets > max(self.octets, LEAST - 1):
            pages = _pages(octets)
            if pages is not None:
                if self._held is not None:
                    self._held.close()
                self._held = pages
                break
            octets //= 2
        if self._held is not None or self._clock() - self._sign > CALM:
            self.is_short = False


def _pages(octets: int) -> mmap.mmap | None:
    if not octets:
        return None
    try:
        return mmap.mmap(-1, octets, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, MemoryError):
        return None
