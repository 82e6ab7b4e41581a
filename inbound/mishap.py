"""What happens when something inside fails that nobody waits for: it is told in the log, and what is to last begins again.

The event loop would write a traceback to stderr, where no alarm looks, and a watch that ended would be missed when it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from inbound.log import Event, Log

AGAIN = 1.0  # seconds until what ended begins again

Note = Callable[[BaseException], object]
"""Told of an error that may be a sign of missing memory."""


def unnoted(_error: BaseException) -> None:  # a Note
    """Nobody looks for signs."""


async def keep_going(watch: Callable[[], Awaitable[None]], log: Log, note: Note = unnoted) -> None:
    """Watch until it returns; where it raises instead, tell, and begin again after a while."""
    while True:
        try:
            await watch()
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it failed while it ended, and who cancelled it waits for that
            with contextlib.suppress(MemoryError):  # that it begins again matters more than that it is told
                tell(log, note, getattr(watch, "__qualname__", repr(watch)), error)
        else:
            return
        await asyncio.sleep(AGAIN)


def handler(log: Log, note: Note) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """An exception handler for the event loop."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        tell(log, note, str(context.get("message", "")), context.get("exception"))

    return handle


def tell(log: Log, note: Note, what: str, error: BaseException | None) -> None:
    """Log it, with the traceback; without one when memory is short, for there are many then, and each takes more of it."""
    if error is None:
        log.error(Event.SERVICE_FAILED, what=what)
        return
    note(error)
    traceback = None if isinstance(error, MemoryError) else error
    log.error(Event.SERVICE_FAILED, what=what, error=repr(error), **({"exc_info": traceback} if traceback else {}))
