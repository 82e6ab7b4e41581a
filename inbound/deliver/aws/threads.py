"""Threads for what blocks: botocore's own calls, files, hashes of large bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from inbound.deliver.aws.errors import Trouble
from inbound.deliver.sinks import MessageRefused, SinkDown, SinkFailure

T = TypeVar("T")
THREADS = 1024  # made as needed; more than calls are ever under way, so that slow sinks cannot take them all


class Threads:
    """As many as are needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")

    async def run(self, work: Callable[[], T]) -> T:
        """The outcome of `work`, done in a thread. Raises SinkFailure for whatever it raises."""
        def guarded() -> T:
            try:
                return work()
            except SinkFailure:
                raise
            except Exception as error:
                raise _failure(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, guarded)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _failure(error: Exception) -> SinkDown | MessageRefused:
    """What botocore raised."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        told = response.get("Error", {})
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return Trouble(status, str(told.get("Code", "")), str(told.get("Message", "")).strip() or str(error)).failure()
    if isinstance(error, KeyError | RecursionError):  # it met something that it takes for an answer
        return SinkDown("the endpoint does not answer as AWS does")
    return SinkDown(" ".join(f"{type(error).__name__}: {error}".split()))
