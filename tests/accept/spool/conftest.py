"""Every spool there is, behind one fixture: what the contract says is tested on all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from letters import Clock
from spools import THRESHOLD, Kept

from inbound.accept.spool import Spool
from inbound.accept.spool.sqlite import SqliteSpool


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is such a thing: hundreds of tests need not wait for the disk to sync."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("spool")
        return
    with tempfile.TemporaryDirectory(prefix="spool-", dir=memory) as name:
        yield Path(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(params=["sqlite", "memory"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Kept]:
    kept = Kept(request.param, tmp_path / "spool", clock)
    yield kept
    await kept.close()


@pytest_asyncio.fixture
async def spool(kept: Kept) -> Spool:
    return await kept.open()


@pytest_asyncio.fixture
async def disk(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteSpool]:
    """The spool on disk alone."""
    spool = SqliteSpool(tmp_path / "spool", clock=clock, blob_threshold=THRESHOLD)
    await spool.start()
    yield spool
    await spool.stop()
