"""The rules in use: read at start, and swapped whole whenever the file changes and is good. A bad file changes nothing.

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

from inbound.decide.load import Loaded, Problem, RulesError, digest_of, load, parse, text_of

OnLoad = Callable[[Loaded], Awaitable[None]]
OnError = Callable[[RulesError], Awaitable[None]]
Entry = tuple[str, tuple[int, int] | None]

SETTLE = 50  # milliseconds without a change before the file is read; also how often the watch thread looks up
LATEST = 400  # milliseconds after the first change when it is read in any case
LINKS = 40  # symbolic links followed on the way to the file, as Linux does


class RuleBook:
    """The current good revision of a rule file.

    `on_load` is awaited with each new revision before it takes effect, and may refuse it by raising. `on_error` is awaited once for each
    broken state of the file. `tls` as in `load`.
    """

    def __init__(self, path: Path, *, on_load: OnLoad, on_error: OnError, tls: bool = True) -> None:
        self._path = path
        self._on_load = on_load
        self._on_error = on_error
        self._tls = tls
        self._current: Loaded | None = None
        self._pending: Loaded | None = None
        self._settled = ""  # the digest of the text last dealt with; empty when the next look has to deal with whatever is there
        self._looking = asyncio.Lock()
        self._told: tuple[str, str] | None = None  # digest and error last told; None while all is well

    @property
    def current(self) -> Loaded:
        """The revision in use, complete and never changed; the next one replaces it whole. RuntimeError before `adopt`."""
        if self._current is None:
            raise RuntimeError("no rules were adopted yet")
        return self._current

    async def read(self) -> Loaded:
        """Read the file at start, without using it yet. Raises RulesError."""
        self._pending = await asyncio.to_thread(load, self._path, tls=self._tls)
        return self._pending

    async def adopt(self) -> None:
        """Use what `read` returned, once `on_load` agrees. Raises what `on_load` raises."""
        if self._pending is None:
            raise RuntimeError("no rules were read yet")
        await self._use(self._pending)
        self._pending = None

    async def watch(self) -> None:
        """Follow the file until cancelled. Where the system cannot tell of changes, they are looked for three times a second."""
        polling = False
        while True:
            way = await asyncio.to_thread(way_to, self._path)
            try:
                async with _Watch(way, polling=polling) as watch:
                    await self.refresh()
                    while await asyncio.to_thread(way_to, self._path) == way:
                        await watch.changed()
                        await self.refresh()
            except FileNotFoundError:  # a directory went away between looking and watching
                continue
            except OSError:  # the limit on inotify watches or instances
                if polling:
                    raise
                polling = True

    async def refresh(self) -> None:
        """Look at the file once: use it if it is new and good, tell what is wrong with it if that is new."""
        async with self._looking:
            await self._refresh()

    async def _refresh(self) -> None:
        digest = ""
        try:
            text = await asyncio.to_thread(text_of, self._path)
            digest = digest_of(text)
            if digest == self._settled:
                return
            self._settled = digest
            loaded = await asyncio.to_thread(parse, text, str(self._path), tls=self._tls)
        except RulesError as error:
            self._settled = digest
            await self._tell(digest, error)
            return
        try:
            await self._use(loaded)
        except RulesError as error:
            await self._refused(digest, error)
        except Exception as error:
            await self._refused(digest, RulesError([Problem(str(self._path), 0, 0, f"not taken into use: {error}")]), error)

    async def _use(self, loaded: Loaded) -> None:
        await self._on_load(loaded)
        self._current = loaded
        self._settled = loaded.digest
        self._told = None

    async def _refused(self, digest: str, error: RulesError, cause: Exception | None = None) -> None:
        self._settled = ""  # what refused it may change its mind, so every look tries again
        error.__cause__ = cause
        await self._tell(digest, error)

    async def _tell(self, digest: str, error: RulesError) -> None:
        if self._told != (digest, str(error)):
            self._told = (digest, str(error))
            await self._on_error(error)


def way_to(path: Path) -> tuple[Entry, ...]:
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

    def __init__(self, way: tuple[Entry, ...], *, polling: bool) -> None:
        names = {name for name, _ in way}
        places = {str(Path(name).parent) for name in names if Path(name).parent.is_dir()}
        last = way[-1][0]
        if Path(last).is_file():
            places.add(last)  # a file mounted on its own is not seen by watching its directory

        def ours(_change: Change, name: str) -> bool:
            return name in names

        self._batches = awatch(*places, watch_filter=ours, debounce=LATEST, step=SETTLE, rust_timeout=0, recursive=False,
                               force_polling=polling or None, ignore_permission_denied=True)
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
