"""When put returns, the message survives: a kill -9 at any moment, and, by the order of its system calls, a power cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from letters import read
from loader import THRESHOLD, content
from needs import needs
from strace import in_order

from inbound.accept.spool import Query, State
from inbound.accept.spool.sqlite import SqliteSpool

ROOT = Path(__file__).parents[3]
LOADER = [sys.executable, str(Path(__file__).with_name("loader.py"))]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on a disk, not in memory."""
    return tmp_path_factory.mktemp("spool")


def killed_while_loading(folder: Path, acknowledged: int) -> dict[str, int]:
    """Ids and sizes that a loader printed until it was killed, some time after that many."""
    loader = subprocess.Popen([*LOADER, str(folder)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert loader.stdout
    lines = [loader.stdout.readline() for _ in range(acknowledged)]
    loader.send_signal(signal.SIGKILL)
    lines += loader.stdout.readlines()
    loader.stdout.close()
    assert loader.wait() == -signal.SIGKILL
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {message_id: int(size) for message_id, size in whole}


@pytest.mark.parametrize("acknowledged", [1, 40, 300])
async def test_every_acknowledged_message_is_whole_after_kill_9(tmp_path: Path, acknowledged: int) -> None:
    folder = tmp_path / "spool"
    printed: dict[str, int] = {}
    for _ in range(2):  # the second life begins on what the first left
        printed |= killed_while_loading(folder, acknowledged)
    spool = SqliteSpool(folder, blob_threshold=THRESHOLD)
    await spool.start()
    entries = await spool.find(Query(limit=10**6))
    assert printed.keys() <= {entry.id for entry in entries}
    for entry in entries:  # those that were not acknowledged in time are whole too
        assert await read(spool, entry.id) == content(entry.id, entry.size)
        assert entry.size == printed.get(entry.id, entry.size)
    assert (await spool.counts())[State.ACTIVE] == 0
    blobs = {path.name for path in (folder / "blobs").iterdir()}
    assert blobs == {entry.id for entry in entries if entry.size > THRESHOLD}
    await spool.stop()


@pytest.mark.parametrize("size", [1000, THRESHOLD, THRESHOLD * 10])
def test_everything_is_synced_before_the_answer(tmp_path: Path, size: int) -> None:
    strace = needs("strace", why="it shows the order of the spool's system calls")
    trace = tmp_path / "trace"
    traced = "trace=write,pwrite64,fsync,fdatasync"
    command = [strace, "-f", "-y", "-s", "64", "-e", traced, "-o", str(trace), *LOADER, str(tmp_path / "spool"), "100", str(size)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
    first, (message_id, _) = (line.split() for line in run.stdout.splitlines())
    text = trace.read_text()
    last_put = text[text.index(f'"{first[0]} ') :]
    blob = rf"<\S*/blobs/{message_id}>"
    large = [
        rf"^write\(\d+{blob}.*= \d+$",
        rf"^fsync\(\d+{blob}\)\s+= 0$",
        r"^fsync\(\d+<\S*/blobs>\)\s+= 0$",
    ]
    small = [
        r"^pwrite64\(\d+<\S*/spool\.sqlite3-wal>.*= \d+$",
        r"^(fdatasync|fsync)\(\d+<\S*/spool\.sqlite3-wal>\)\s+= 0$",
        rf'^write\(1<.*"{message_id} ',
    ]
    in_order(last_put, (large if size > THRESHOLD else []) + small)
