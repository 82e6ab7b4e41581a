"""The vigil: what no single event tells an operator, since it is its lasting that matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from inbound.accept.spool import Spool, SpoolError
from inbound.deliver.alerts import Kind, Tell
from inbound.deliver.sinks import Sinks

LOOK = 15.0  # seconds between looks
DOWN = 300.0  # seconds after which a sink that is down, and that messages wait for, is told of
REMIND = 6 * 3600.0  # seconds until it is told again, while it lasts
SOON = 14 * 86400.0  # seconds before its end from which a certificate is told of
DAY = 86400.0


class Vigil:
    """Watches sinks and the certificate. `expires` gives the latter's end in seconds since the epoch, None where there is none."""

    def __init__(self, spool: Spool, sinks: Sinks, tell: Tell, *, expires: Callable[[], float | None],
                 clock: Callable[[], float] = time.time) -> None:
        self._spool = spool
        self._sinks = sinks
        self._tell = tell
        self._expires = expires
        self._clock = clock
        self._told: dict[str, float] = {}  # what was told, and when
        self._open: set[str] = set()  # sinks that were told of and did not answer since

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Tell what has lasted too long."""
        self._certificate()
        found = self._sinks.down()
        for name in self._open - found.keys():
            self._open.remove(name)
            self._tell(Kind.QUEUE_STUCK, f"{name} is no longer down", name, over=True)
        down = {name: seconds for name, seconds in found.items() if seconds >= DOWN}
        self._told = {what: when for what, when in self._told.items() if what in down or what == Kind.CERTIFICATE}
        if not down:
            return
        try:
            backlog = await self._spool.backlog()
        except SpoolError:
            return  # which is told of by those that it keeps from their work
        for name, seconds in down.items():
            if name in backlog and self._is_news(name, REMIND):
                held, age = backlog[name].messages, self._clock() - backlog[name].oldest
                self._open.add(name)
                self._tell(Kind.QUEUE_STUCK, f"{name} has been down for {seconds / 60:.0f} min; messages that wait: {held}, the oldest for "
                                             f"{age / 60:.0f} min", name)

    def _certificate(self) -> None:
        expires = self._expires()
        left = None if expires is None else expires - self._clock()
        if left is not None and left > SOON and self._told.pop(Kind.CERTIFICATE, None) is not None:
            self._tell(Kind.CERTIFICATE, f"it expires in {left / DAY:.0f} days", Kind.CERTIFICATE, over=True)
        if left is not None and left <= SOON and self._is_news(Kind.CERTIFICATE, DAY):
            self._tell(Kind.CERTIFICATE, f"it expires in {left / DAY:.1f} days" if left > 0 else "it has expired: STARTTLS is not offered",
                       Kind.CERTIFICATE)

    def _is_news(self, what: str, pause: float) -> bool:
        now = self._clock()
        if what in self._told and now - self._told[what] < pause:
            return False
        self._told[what] = now
        return True
