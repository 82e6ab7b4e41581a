"""The threads that touch blob files, so that neither the event loop nor the database's thread waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from inbound.accept.spool import SpoolError
from inbound.accept.spool.database import trouble

THREADS = 8  # concurrent syncs share the file system's journal commits

T = TypeVar("T")


class FileThreads:
    """A few threads of the spool's own, so that no other slow work in the process can hold up reception."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="spool-files")

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of a blocking function. Raises SpoolError for whatever it raises."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except RuntimeError as error:  # the pool is shut down
            raise SpoolError("the spool is closed") from error
        except Exception as error:
            raise trouble(error) from error

    def send(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function that never raises done soon; at once when the threads have ended."""
        try:
            self._pool.submit(function, *arguments)
        except RuntimeError:
            function(*arguments)

    def close(self) -> None:
        """Finish what was sent and end the threads."""
        self._pool.shutdown(wait=True)
