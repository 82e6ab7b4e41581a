"""The spool of a running service: no other process on it, and nothing in it that others may read, whatever the umask."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest
from ledger import RULES, Ledger, Receiver, left
from process import Serve


@pytest.mark.parametrize("umask", ["000", "077"])
async def test_nobody_else_can_read_what_is_in_it(tmp_path: Path, umask: str) -> None:
    async with Receiver() as sink:
        serve, ledger = Serve(tmp_path, RULES, sink.endpoint), Ledger()
        (tmp_path / "data").mkdir()
        serve.under = ("sh", "-c", f'umask {umask} && exec "$@"', "sh")
        await serve.start()
        sink.fails = 503
        await ledger.send(serve.port, 60, 100_000, 700_000)
        spool = tmp_path / "data" / "spool"
        modes = {path.relative_to(spool).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in (spool, *spool.rglob("*"))}
        assert len(modes) == 7, modes
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
        assert modes["."] == 0o700
        sink.fails = 0
        await ledger.settled(sink)
        assert await serve.kill(15) == 0
    assert left(serve) == {}


async def test_of_two_processes_on_it_one_runs_and_the_other_says_which(tmp_path: Path) -> None:
    async with Receiver() as sink:
        serve, ledger = Serve(tmp_path, RULES, sink.endpoint), Ledger()
        await serve.start()
        load, stop = [], asyncio.Event()
        load = [asyncio.create_task(ledger.load(serve.port, stop, (4_000,))) for _ in range(4)]
        for _ in range(2):
            second = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "inbound", "serve", env=serve.environment, cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE)
            _, said = await second.communicate()
            assert second.returncode == 2
            assert serve.process is not None
            assert f"process {serve.process.pid}" in said.decode()
        stop.set()
        await asyncio.gather(*load)
        await ledger.settled(sink)
        assert set(sink.stored.values()) == set(sink.told.values()) == {1}, "each was done once"
        assert await serve.kill(15) == 0
        assert left(serve) == {}
