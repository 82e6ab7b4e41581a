"""Promise 7: with thousands of messages waiting, a start greets at once and drains oldest first, at the pace that sinks are spared with."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from ledger import RULES, Ledger, Receiver, emptied, left
from process import Serve, connected, reply

CONNECTIONS = 10
CALLS_AT_ONCE = 16  # of one sink; see deliver/sinks.py


class Ordered(Receiver):
    """Notes the order of what comes, and how many calls there are at once to the bucket and to the topic."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []
        self.most: dict[str, int] = {}
        self._now: dict[str, int] = {}

    async def _answer(self, request: web.Request) -> web.Response:
        method = request.method
        self._now[method] = self._now.get(method, 0) + 1
        self.most[method] = max(self.most.get(method, 0), self._now[method])
        try:
            await asyncio.sleep(0.01)  # a sink takes its time, and so calls come together
            return await super()._answer(request)
        finally:
            self._now[method] -= 1

    def _keep(self, request: web.Request, path: str, body: bytes) -> web.Response:
        if request.method == "PUT":
            self.order.append(path.removeprefix("mail/"))
        return super()._keep(request, path, body)


async def greeting(port: int) -> str:
    async with connected(port) as (reader, _):
        return await reply(reader)


async def parked(serve: Serve, count: int) -> None:
    """Wait until so many messages wait for the sink; a few have failed and wait for their time."""
    where = f"file:{serve.folder / 'data' / 'spool' / 'spool.sqlite3'}?mode=ro"
    with contextlib.closing(sqlite3.connect(where, uri=True)) as connection:
        async with asyncio.timeout(120):
            while connection.execute("SELECT count(*) FROM entry WHERE state = 'deferred' AND sink <> '' AND ready = 0").fetchone()[0] < count:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def backlog(folder: Path, count: int, seconds: float, places: int) -> None:
    """Nine of ten messages arrive within so many places of their order; those that had failed before come last."""
    async with Ordered() as sink:
        sink.fails = 503
        serve, ledger = Serve(folder, RULES, sink.endpoint, retry_min="1"), Ledger()
        await serve.start()
        await asyncio.gather(*(ledger.send(serve.port, *[600] * (count // CONNECTIONS)) for _ in range(CONNECTIONS)))
        assert len(ledger.acknowledged) == count
        held = await serve.until(lambda e: e["event"] == "sink.down")
        assert held["sink"] == "s3:mail"
        await parked(serve, count - 20)
        await serve.kill()
        arrived = list(ledger.acknowledged)

        began = time.monotonic()
        await serve.start()
        greeted_after = time.monotonic() - began
        assert await greeting(serve.port) == "220 mx.test ESMTP"
        sink.most.clear()
        sink.fails = 0
        began = time.monotonic()
        await ledger.settled(sink, seconds)
        drained_after = time.monotonic() - began
        ledger.check(sink)
        await emptied(serve)
        assert await serve.kill(15) == 0
    assert left(serve) == {}
    assert greeted_after < 5, "seconds until the greeting"
    assert max(sink.most.values()) <= CALLS_AT_ONCE
    place = {message_id: number for number, message_id in enumerate(arrived)}
    late = [number - place[message_id] for number, message_id in enumerate(sink.order)]
    assert sum(abs(by) > places for by in late) < count / 10, sorted(late)
    sys.stdout.write(f"{count} waiting: greeted after {greeted_after:.1f} s, drained in {drained_after:.1f} s, calls at once {sink.most}\n")


@pytest.mark.timeout(200)
async def test_a_start_with_a_backlog_greets_at_once_and_drains_oldest_first(tmp_path: Path) -> None:
    await backlog(tmp_path, 400, 60, 100)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_start_with_ten_thousand_waiting(tmp_path: Path) -> None:
    await backlog(tmp_path, 10_000, 800, 600)
