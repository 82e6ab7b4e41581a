"""The spools of a data folder, one a process, looked at as one by commands that visit them.

`spool` is the first process's, `spool-2`, `spool-3` … those of the others; fewer processes leave what they had behind, to be worked off.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from inbound.accept.spool import Content, Entry, Query, State, Tally
from inbound.accept.spool.replays import Replay
from inbound.accept.spool.sqlite import SqliteSpool

T = TypeVar("T")
_NAME = re.compile(r"spool(?:-([1-9][0-9]{0,3}))?")


def spool_folder(data: Path, number: int) -> Path:
    """The folder of the spool of one process, from 1 on."""
    return data / ("spool" if number == 1 else f"spool-{number}")


def spool_numbers(data: Path) -> list[int]:
    """The numbers of the spools that a data folder holds, in order. Blocks."""
    found = [match for path in data.glob("spool*") if (match := _NAME.fullmatch(path.name)) and (path / "spool.sqlite3").is_file()]
    return sorted({int(match[1] or 1) for match in found})


class SeveralSpools:
    """A visitor to every spool of a data folder: looks, asks to retry, and drops, as `SqliteSpool(visitor=True)` does to one."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._spools: list[SqliteSpool] = []

    async def start(self) -> None:
        """Raises FileNotFoundError where there is none; SpoolVersion, SpoolError."""
        numbers = await asyncio.to_thread(spool_numbers, self._data) or [1]
        for number in numbers:
            spool = SqliteSpool(spool_folder(self._data, number), visitor=True)
            await spool.start()
            self._spools.append(spool)

    async def stop(self) -> None:
        """Close them all."""
        for spool in self._spools:
            await spool.stop()

    async def find(self, query: Query) -> list[Entry]:
        """The entries of all spools that match, oldest received first."""
        found = [entry for entries in await self._of_each(lambda spool: spool.find(query)) for entry in entries]
        return sorted(found, key=lambda entry: entry.envelope.received_at)[: query.limit]

    async def counts(self) -> dict[State, int]:
        """How many entries of all spools are in each state."""
        counts = await self._of_each(lambda spool: spool.counts())
        return {state: sum(each[state] for each in counts) for state in State}

    async def get(self, entry_id: str) -> Entry | None:
        """One entry with its steps."""
        return next(filter(None, await self._of_each(lambda spool: spool.get(entry_id))), None)

    async def content(self, entry_id: str) -> Content:
        """The content of an entry. Raises KeyError, SpoolError."""
        for spool in self._spools:
            if await spool.get(entry_id) is not None:
                return await spool.content(entry_id)
        raise KeyError(entry_id)

    async def revision(self, digest: str) -> str | None:
        """The text of a revision that any of them keeps."""
        return next(filter(None, await self._of_each(lambda spool: spool.revision(digest))), None)

    async def tallies(self, run: str) -> list[list[Tally]]:
        """What was counted in a run, spool by spool."""
        return list(await self._of_each(lambda spool: spool.tallies(run)))

    async def counted(self, run: str, revision: str, kind: str, limit: int) -> list[tuple[Entry, tuple[str, ...]]]:
        """Entries of all spools that were counted with this kind of difference, as `Spool.counted` has them; those received last first."""
        found = [each for several in await self._of_each(lambda spool: spool.counted(run, revision, kind, limit)) for each in several]
        return sorted(found, key=lambda each: each[0].envelope.received_at, reverse=True)[:limit]

    async def retry(self, entry_ids: Collection[str], now: float, *, revision: tuple[str, str] | None = None) -> list[str]:
        """Make entries due, wherever they are; the ids it did this to."""
        return [done for each in await self._of_each(lambda spool: spool.retry(entry_ids, now, revision=revision)) for done in each]

    async def replay(self, entry_id: str, now: float, replay: Replay) -> bool:
        """Judge an entry again, wherever it is."""
        return any(await self._of_each(lambda spool: spool.replay(entry_id, now, replay)))

    async def drop(self, entry_ids: Collection[str]) -> list[str]:
        """Remove entries, wherever they are; the ids removed."""
        return [done for each in await self._of_each(lambda spool: spool.drop(entry_ids)) for done in each]

    async def _of_each(self, ask: Callable[[SqliteSpool], Awaitable[T]]) -> Sequence[T]:
        return [await ask(spool) for spool in self._spools]
