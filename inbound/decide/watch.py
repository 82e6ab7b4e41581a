"""The rules in use: read at start, and swapped whole whenever the file changes and is good. A bad file changes nothing.

A load runs beside the event loop, and its result takes effect in one assignment: nobody ever sees half a revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from inbound.changes import follow
from inbound.decide.load import Loaded, Problem, RulesError, digest_of, parse, text_of

OnLoad = Callable[[Loaded], Awaitable[None]]
OnError = Callable[[RulesError], Awaitable[None]]


class RuleBook:
    """The current good revision of a rule file.

    `on_load` is awaited with each new revision before it takes effect, and may refuse it by raising. `on_error` is awaited once for each
    broken state of the file. `tls` and `smarthost` as in `load`. `source` gives the text in place of the file, and may raise as `text_of` does.
    """

    def __init__(self, path: Path, *, on_load: OnLoad, on_error: OnError, tls: bool = True, smarthost: bool = True,
                 source: Callable[[], str] | None = None) -> None:
        self._path = path
        self._source = source or partial(text_of, path)
        self._on_load = on_load
        self._on_error = on_error
        self._tls = tls
        self._smarthost = smarthost
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
        self._pending = await asyncio.to_thread(lambda: self._parse(self._source()))
        return self._pending

    def _parse(self, text: str) -> Loaded:
        return parse(text, str(self._path), tls=self._tls, smarthost=self._smarthost)

    async def adopt(self) -> None:
        """Use what `read` returned, once `on_load` agrees. Raises what `on_load` raises."""
        if self._pending is None:
            raise RuntimeError("no rules were read yet")
        await self._use(self._pending)
        self._pending = None

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        await follow(self.refresh, self._path)

    async def refresh(self) -> None:
        """Look at the file once: use it if it is new and good, tell what is wrong with it if that is new."""
        async with self._looking:
            await self._refresh()

    async def _refresh(self) -> None:
        digest = ""
        try:
            text = await asyncio.to_thread(self._source)
            digest = digest_of(text)
            if digest == self._settled:
                return
            self._settled = digest
            loaded = await asyncio.to_thread(self._parse, text)
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
