"""A spool of each kind, and what the next process finds of it after a stop and after a crash."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from letters import Clock

from inbound.accept.spool import Spool
from inbound.accept.spool.memory import MemorySpool
from inbound.accept.spool.sqlite import SqliteSpool

THRESHOLD = 20_000  # small, so that tests reach blob files quickly


def _copy(source: str, target: str) -> None:
    """Copy a file, if it is still there: the spool may remove one while its folder is copied."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


class Kept:
    """A spool of one kind, opened, and the ways to open it again."""

    def __init__(self, kind: str, folder: Path, clock: Clock) -> None:
        self.kind = kind
        self.clock = clock
        self._folder = folder
        self._opened: list[Spool] = []

    async def open(self) -> Spool:
        spool: Spool
        if self.kind == "memory":
            spool = MemorySpool(clock=self.clock, blob_threshold=THRESHOLD)
        else:
            spool = SqliteSpool(self._folder, clock=self.clock, blob_threshold=THRESHOLD)
        await spool.start()
        self._opened.append(spool)
        return spool

    async def restarted(self, spool: Spool) -> Spool:
        """The spool as the next process finds it after an orderly stop."""
        await spool.stop()
        if isinstance(spool, MemorySpool):
            await spool.start()
            return spool
        return await self.open()

    async def crashed(self, spool: Spool) -> Spool:
        """The spool as the next process finds it when this one is killed now: on disk, what is in the files at this moment."""
        if isinstance(spool, MemorySpool):
            successor = spool.crash()
            self._opened.append(successor)
            return successor
        image = self._folder.with_name(self._folder.name + "+")
        shutil.copytree(self._folder, image, ignore=shutil.ignore_patterns("*-shm", "lock"), copy_function=_copy)
        self._folder = image
        return await self.open()

    async def now_and_after_a_crash(self, spool: Spool) -> AsyncIterator[Spool]:
        yield spool
        yield await self.crashed(spool)

    async def close(self) -> None:
        for spool in self._opened:
            await spool.stop()
