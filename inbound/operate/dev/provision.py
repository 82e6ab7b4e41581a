"""Has what the rules name created in a local AWS, so that a rule set just works: at start, at every reload, whenever code changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import watchfiles

from inbound.decide.rules import RuleSet
from inbound.operate.dev.functions import FunctionSource, by_name
from inbound.operate.dev.wanted import Wanted, wanted

if TYPE_CHECKING:
    from inbound.operate.dev.creation import Creation


_SETTLE = 300
"""Milliseconds in which the writes of one save are taken together."""


class ProvisionError(Exception):
    """Nothing usable answers at the endpoint; the text is one line for people."""


class Provision:
    """Buckets, topics (each with a queue), keys and functions at one endpoint: ours, or any that `--aws URL` names."""

    def __init__(self, *, endpoint: str, functions: Sequence[FunctionSource] = ()) -> None:
        """`endpoint` is the URL of the local AWS. Raises ValueError when two functions have the same name."""
        self._endpoint = endpoint
        self._sources = by_name(functions)
        self._wanted = Wanted((), (), (), ())
        self._creation: Creation | None = None
        self._in_turn = asyncio.Lock()

    async def ensure(self, rule_set: RuleSet) -> list[str]:
        """Create what the enabled rules name and is not there; bring changed code in place. Nothing is ever deleted or emptied.

        Returns a line for each thing created or changed, and one, said once, for each that cannot be. Raises ProvisionError when the
        endpoint does not answer.
        """
        self._wanted = wanted(rule_set)
        return await self._do(lambda creation: creation.everything(self._wanted))

    async def follow(self) -> AsyncGenerator[list[str], None]:
        """While iterated over: bring each function's code in place as soon as it changes on disk, and yield the lines that tell so.

        Seen are FILE and the sources beside it; what changes in sub-folders is loaded at the next start. Ends at once when no function
        was given.
        """
        folders = {source.file.parent for source in self._sources.values()}
        if not folders:
            return
        async for _ in watchfiles.awatch(*folders, recursive=False, debounce=_SETTLE):
            try:
                lines = await self._do(lambda creation: creation.functions(self._wanted))
            except ProvisionError as error:
                lines = [str(error)]
            if lines:
                yield lines

    async def _do(self, steps: Callable[[Creation], Iterator[str]]) -> list[str]:
        async with self._in_turn:
            return await asyncio.to_thread(self._run, steps)

    def _run(self, steps: Callable[[Creation], Iterator[str]]) -> list[str]:
        from inbound.operate.dev.creation import Creation, NoAnswerError  # noqa: PLC0415  it loads boto3, which takes its time

        if self._creation is None:
            self._creation = Creation(self._endpoint, self._sources)
        try:
            return list(steps(self._creation))
        except NoAnswerError as error:
            raise ProvisionError(str(error)) from None
