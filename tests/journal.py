"""A logger for tests that keeps every event it is told, and lets a test wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from inbound.log import Event, Log


class Journal:
    """A logger, and what it was told: one dict an event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._heard = asyncio.Event()
        self.log: Log = structlog.wrap_logger(structlog.PrintLogger(), processors=[self._keep], cache_logger_on_first_use=False,
                                              wrapper_class=structlog.make_filtering_bound_logger(20))

    def _keep(self, _logger: Any, level: str, event: Any) -> Any:
        self.events.append({**event, "level": level})
        self._heard.set()
        raise structlog.DropEvent

    def of(self, event: Event) -> list[dict[str, Any]]:
        """The events of one name."""
        return [found for found in self.events if found["event"] == event]

    async def until(self, event: Event, holds: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The first such event, waited for."""
        async with asyncio.timeout(30):
            while True:
                for found in self.of(event):
                    if holds(found):
                        return found
                self._heard.clear()
                await self._heard.wait()

    @property
    def refusals(self) -> list[str]:
        """The replies of all refusals, in order."""
        return [found["reply"] for found in self.of(Event.SESSION_REFUSED)]
