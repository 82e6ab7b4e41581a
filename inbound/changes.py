"""Tells when a file changes, however it is changed, so that what was read from it can be read again: rules, certificates.

What is watched is every directory entry on the way to the file, where symbolic links lead included, so that writing in place, renaming
over, deleting and creating anew, and Kubernetes' swap of `..data` are all the same to us.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

from watchfiles import Change, awatch

Entry = tuple[str, tuple[int, int] | None]
Way = tuple[Entry, ...]

SETTLE = 200  # milliseconds without a change before the files are read; also how often the watch thread looks up
LATEST = 500  # milliseconds after the first change when they are read in any case
POLL = 0.33  # seconds between looks where nothing tells of changes
LINKS = 40  # symbolic links followed on the way to a file, as Linux does


async def follow(look: Callable[[], Awaitable[None]], *paths: Path) -> None:
    """Await `look` once the files are watched, and again after every change, until cancelled.

    Where the system cannot tell of changes, they are looked for three times a second.
    """
    while True:
        ways = await asyncio.to_thread(_ways, paths)
        try:
            async with _Watch(ways) as watch:
                await look()
                while not watch.is_stale and await asyncio.to_thread(_ways, paths) == ways:
                    await watch.changed()
                    await look()
        except FileNotFoundError:  # a directory went away between looking and watching
            continue
        except OSError:  # the limit on inotify watches or instances
            break
    while True:  # by content, not by modification time, which says nothing of two changes within a second
        await look()
        await asyncio.sleep(POLL)


def _ways(paths: tuple[Path, ...]) -> tuple[Way, ...]:
    return tuple(way_to(path) for path in paths)


def way_to(path: Path) -> Way:
    """Every directory entry that opening the path goes through, symbolic links and their targets included, each with what it is now."""
    found: dict[str, tuple[int, int] | None] = {}
    here = Path("/")
    parts = deque(path.absolute().parts[1:])
    links = 0
    while parts and links <= LINKS:
        part = parts.popleft()
        if part == "..":
            here = here.parent
            continue
        entry = here / part
        found[str(entry)] = _identity(entry)
        try:
            target = entry.readlink()
        except OSError:  # no link, or nothing at all
            here = entry
            continue
        links += 1
        here = Path("/") if target.is_absolute() else here
        parts.extendleft(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return tuple(found.items())


def _identity(entry: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(entry)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Watch:
    """The system's watch over entries, for as long as they are the same ones."""

    def __init__(self, ways: tuple[Way, ...]) -> None:
        names = {name for way in ways for name, _ in way}
        places = {str(Path(name).parent) for name in names if Path(name).parent.is_dir()}
        places.update(way[-1][0] for way in ways if Path(way[-1][0]).is_file())  # a file mounted on its own is not seen in its directory

        self.is_stale = False  # an entry went, and one with its name and even its inode may not be the one that is watched

        def ours(change: Change, name: str) -> bool:
            self.is_stale |= change is Change.deleted and name in names
            return name in names

        self._batches = awatch(*places, watch_filter=ours, debounce=LATEST, step=SETTLE, rust_timeout=0, recursive=False,
                               ignore_permission_denied=True)
        self._next: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Watch:
        self._next = asyncio.create_task(self._one())
        await asyncio.sleep(0)  # awatch sets the system's watch up before it first waits, so it stands when this returns
        if self._next.done():
            await self._close()
            self._next.result()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def changed(self) -> None:
        """Wait for a change to any of the entries since the last one, or since the watch stood."""
        if self._next is not None:
            await self._next
        self._next = asyncio.create_task(self._one())

    async def _one(self) -> None:
        await anext(self._batches)

    async def _close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])
        await self._batches.aclose()
