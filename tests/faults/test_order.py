"""Promise 1: 250 means that envelope and content survive a power cut. The order of a service's system calls shows it, for every size."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from ledger import RULES, THRESHOLD, Ledger, Receiver
from process import Serve
from strace import attached, calls, in_order

WATCHED = "trace=openat,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync,rename,renameat,renameat2"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """The ids of one message of each size, by the name of the size, and the trace of a service that took them."""
    return asyncio.run(trace_of_five(tmp_path_factory.mktemp("order")))


async def trace_of_five(folder: Path) -> tuple[dict[str, str], str]:
    async with Receiver() as sink:
        serve, ledger = Serve(folder, RULES, sink.endpoint), Ledger()
        await serve.start()
        assert serve.process is not None
        try:
            async with attached(serve.process.pid, folder / "trace", ["-s", "64", "-e", WATCHED]):
                sizes = {"small": 60, "middle": 100_000, "just under": THRESHOLD - 100, "just over": THRESHOLD + 100, "large": 1_500_000}
                ids = {}
                for name, size in sizes.items():
                    [answer] = await ledger.send(serve.port, size)
                    ids[name] = answer.split()[-1]
                await ledger.settled(sink)
            await serve.kill(15)
        finally:
            await serve.end()  # its loop ends here
    return ids, (folder / "trace").read_text()


@pytest.mark.parametrize("size", ["small", "middle", "just under", "just over", "large"])
def test_all_is_synced_before_250_is_sent(traced: tuple[dict[str, str], str], size: str) -> None:
    ids, trace = traced
    message_id = ids[size]
    answer = rf'^(write|sendto)\(\d+<(socket|TCP).*"250 2\.0\.0 OK {message_id}'
    lines = trace.splitlines()
    answered = next(number for number, line in enumerate(lines) if f"250 2.0.0 OK {message_id}" in line)
    before = max((n for n, line in enumerate(lines[:answered]) if '"354 ' in line), default=0)
    blob = [
        rf"^openat\(.*/blobs/{message_id}.*O_CREAT\|O_EXCL.*= \d+",
        rf"^write\(\d+<\S*/blobs/{message_id}>.*= \d+$",
        rf"^fsync\(\d+<\S*/blobs/{message_id}>\)\s+= 0$",
        r"^fsync\(\d+<\S*/blobs>\)\s+= 0$",
    ]
    log = [r"^pwrite64\(\d+<\S*/spool\.sqlite3-wal>.*= \d+$", r"^(fdatasync|fsync)\(\d+<\S*/spool\.sqlite3-wal>\)\s+= 0$", answer]
    large = size in ("just over", "large")
    in_order("\n".join(lines[before : answered + 1]), (blob if large else []) + log)
    assert (f"/blobs/{message_id}" in trace) is large


def test_nothing_is_written_to_a_file_between_its_sync_and_250(traced: tuple[dict[str, str], str]) -> None:
    ids, trace = traced
    made = list(calls(trace))
    for message_id in (ids["just over"], ids["large"]):
        [synced] = [c for c in made if re.search(rf"^fsync\(\d+<\S*/blobs/{message_id}>", c.text)]
        assert all(c.ended < synced.began for c in made if re.search(rf"^write\(\d+<\S*/blobs/{message_id}>", c.text))
