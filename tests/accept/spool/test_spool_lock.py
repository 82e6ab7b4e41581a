"""One live process owns a spool, and another hears which one; a dead one keeps nobody out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from letters import put
from test_spool_crash import ENVIRONMENT, LOADER

from inbound.accept.spool import SpoolLocked
from inbound.accept.spool.lock import Lock
from inbound.accept.spool.sqlite import SqliteSpool


def loading(folder: Path) -> subprocess.Popen[bytes]:
    """A process that owns the spool and fills it."""
    loader = subprocess.Popen([*LOADER, str(folder)], stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert loader.stdout
    loader.stdout.readline()
    return loader


async def test_a_second_live_process_hears_the_pid_of_the_first(tmp_path: Path) -> None:
    loader = loading(tmp_path / "spool")
    spool = SqliteSpool(tmp_path / "spool")
    with pytest.raises(SpoolLocked, match=rf"in use by process {loader.pid}\b"):
        await spool.start()
    loader.kill()
    loader.communicate()
    await spool.start()
    await put(spool)
    await spool.stop()


async def test_a_second_one_in_this_process_is_refused_too_until_the_first_stops(disk: SqliteSpool, tmp_path: Path) -> None:
    second = SqliteSpool(tmp_path / "spool")
    with pytest.raises(SpoolLocked, match=rf"process {os.getpid()}\b"):
        await second.start()
    await put(disk)
    await disk.stop()
    await second.start()
    await second.stop()


def test_a_visitor_that_asks_for_an_instant_keeps_no_owner_out(tmp_path: Path) -> None:
    lock, visitor = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    visitor.take()
    with pytest.raises(SpoolLocked):
        lock.take(patience=0)
    asyncio.run(_take_while(lock, visitor))
    assert not visitor.is_free()
    lock.release()
    assert visitor.is_free()


async def _take_while(lock: Lock, other: Lock) -> None:
    taking = asyncio.ensure_future(asyncio.to_thread(lock.take, 10))
    await asyncio.sleep(0)
    other.release()
    await taking


def test_asking_creates_nothing(tmp_path: Path) -> None:
    assert Lock(tmp_path / "lock").is_free()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from inbound.accept.spool.lock import Lock\n"
        "lock = Lock(Path(sys.argv[1]))\n"
        "lock.take()\n"
        "child = os.fork()\n"
        "if child: os.write(1, b'%d\\n' % child); os.kill(os.getpid(), 9)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "lock")], stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.wait()
    parent.stdout.close()
    try:
        lock = Lock(tmp_path / "lock")
        lock.take(patience=5)
        lock.release()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_link_where_the_lock_should_be_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        Lock(tmp_path / "lock").take()
    assert (tmp_path / "victim").read_text() == "precious"
