"""Runs a proof: fetches, judges and counts, several messages at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from inbound.operate.proof.gathering import Gathering
from inbound.operate.proof.judging import Judge
from inbound.operate.proof.report import Report
from inbound.operate.proof.sources import Item, Source


async def prove(sources: Sequence[Source], judge: Judge, report: Report, *, limit: int | None, at_once: int,
                progress: Callable[[int], None]) -> None:
    """Judge what lies in the sources, at most `limit` messages, into the report. Raises SourceError for a source that cannot be listed."""
    listed = [(source, item) for source in sources for item in await asyncio.to_thread(_listed, source)]
    gathering = Gathering(report.skip)
    left = limit

    async def work(places: Iterator[tuple[Source, Item]]) -> None:
        nonlocal left
        for source, item in places:
            for case in await gathering.cases(source, item):
                if left == 0:
                    return
                left = None if left is None else left - 1
                report.add(case.where, await judge(case))
                progress(report.messages)
            if left == 0:
                return

    for is_json in (True, False):  # JSON first: it is put beside the objects
        places = iter([(source, item) for source, item in listed if item.json is is_json])
        await asyncio.gather(*(work(places) for _ in range(at_once)))
    if left != 0:
        gathering.rest()


def _listed(source: Source) -> list[Item]:
    return list(source.items())
