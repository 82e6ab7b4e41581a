"""How many messages a second the spool makes durable, and what each costs in CPU: python tests/bench/spool.py [--folder DIR]

"put" is reception alone. "life" is all of it: the put, and a completion in the background that waits for company, as the worker does
it, with one step recorded and the content dropped. The floor is what SQLite and the disk take for the same rows, blob files or not:
raw sqlite3 in one thread, with as many messages a transaction as the puts had. The event loop is uvloop, as in the service. CPU is
user and system time of the whole process, "ours" what the put costs above the floor: it is below it where a blob file is cheaper.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sqlite3
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool import Outcome, Query, State, StepRecord, Update
from inbound.accept.spool.database import Database
from inbound.accept.spool.entries import IN_ROW
from inbound.accept.spool.rows import envelope_text
from inbound.accept.spool.sqlite import SqliteSpool

T = TypeVar("T")
CELLS = ((4096, 1), (4096, 20), (4096, 100), (102_400, 1), (102_400, 20), (102_400, 100), (1 << 20, 20))
STEP = StepRecord("rule", 0, "action", "0" * 16, 1, 0.0, 12, Outcome.DONE, "CONTINUE", "arn:aws:s3:::mail", "", {"key": "mail/x"})


@dataclass(frozen=True)
class Figures:
    """What one run took: messages, transactions, seconds, CPU seconds."""

    messages: int
    transactions: int
    seconds: float
    cpu: float

    @property
    def batch(self) -> int:
        return max(round(self.messages / max(self.transactions, 1)), 1)

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def microseconds(self) -> float:
        return self.cpu / self.messages * 1e6


def envelope() -> Envelope:
    peer = Peer("192.0.2.1", 54321, "mx.sender.example")
    return Envelope(new_message_id(), peer, "mx.sender.example", "a@sender.example", ("b@example.com",), time.time(), time.time(), "0" * 16)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def put(spool: SqliteSpool, data: bytes) -> str:
    message = envelope()
    draft = spool.draft(message.message_id)
    for start in range(0, len(data), 1 << 16):
        if draft.add(data[start : start + (1 << 16)]):
            await draft.flush()
    return (await spool.put(message, draft)).id


async def complete(spool: SqliteSpool, entry_id: str) -> None:
    done = Update(steps=[STEP], state=State.DONE, finished=time.time(), disposition="COMPLETED", drop_content=True)
    await spool.update(entry_id, done, lazy=True)


async def measure(folder: Path, size: int, sessions: int, seconds: float, *, life: bool) -> Figures:
    spool = SqliteSpool(folder)
    await spool.start()
    data = b"x" * size
    end = time.perf_counter() + seconds
    count = 0

    async def session() -> None:
        nonlocal count
        while time.perf_counter() < end:
            entry_id = await put(spool, data)
            if life:
                completions.create_task(complete(spool, entry_id))
            count += 1

    start, cpu = time.perf_counter(), cpu_seconds()
    async with asyncio.TaskGroup() as completions:
        await asyncio.gather(*(session() for _ in range(sessions)))
    figures = Figures(count, spool.commits, time.perf_counter() - start, cpu_seconds() - cpu)
    await spool.stop()
    return figures


def floor(folder: Path, size: int, batch: int, seconds: float) -> Figures:
    """The same rows by bare sqlite3."""
    folder.mkdir()
    database = Database(folder / "floor.sqlite3")
    database.create()
    connection = database.open(migrate=True)
    data, text = b"x" * size, envelope_text(envelope())
    rows = [(new_message_id(), time.time()) for _ in range(200_000)]
    start, cpu, count = time.perf_counter(), cpu_seconds(), 0
    while time.perf_counter() - start < seconds:
        connection.execute("BEGIN IMMEDIATE")
        for id_, now in rows[count : count + batch]:
            cursor = connection.execute(
                "INSERT INTO entry (id, state, received, due, since, size, content, revision, envelope) VALUES (?,?,?,?,?,?,?,?,?)",
                (id_, "active", now, now, now, size, IN_ROW, "0" * 16, text),
            )
            connection.execute("INSERT INTO content (entry, data) VALUES (?, ?)", (cursor.lastrowid, data))
        connection.execute("COMMIT")
        count += batch
    figures = Figures(count, count // batch, time.perf_counter() - start, cpu_seconds() - cpu)
    connection.close()
    return figures


def fill(database: Path, state: State, rows: int, **columns: float | str) -> None:
    """Many entries in one state, written past the spool, with ids and envelopes of the usual size."""
    text = envelope_text(envelope())
    names = ("id", "state", "received", "due", "since", "size", "content", "revision", "envelope", *columns)
    connection = sqlite3.connect(database)
    connection.executemany(
        f"INSERT INTO entry ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        ((new_message_id(), state.value, i / 100, 1e12, 0.0, 4096, "", "0" * 16, text, *columns.values()) for i in range(rows)),
    )
    connection.commit()
    connection.close()


async def answers(folder: Path) -> dict[str, float]:
    """How long the spool takes, in milliseconds, for what is asked of it over and over."""
    took = {}
    start = time.perf_counter()
    spool = SqliteSpool(folder)
    await spool.start()
    took["start"] = time.perf_counter() - start
    for _ in range(3):
        for name, ask in (
            ("claim none", lambda: spool.claim(time.time(), 50)),
            ("release 50", lambda: spool.release("down", time.time(), 50)),
            ("claim 50", lambda: spool.claim(time.time(), 50)),
            ("next_due", spool.next_due),
            ("counts", spool.counts),
            ("waiting", spool.waiting),
            ("find dead", lambda: spool.find(Query(states=[State.DEAD]))),
            ("find by error", lambda: spool.find(Query(error="refused"))),
            ("sweep", lambda: spool.sweep(finished_before=-1, content_before=-1, keep_revisions=())),
        ):
            start = time.perf_counter()
            await ask()
            took[name] = min(took.get(name, 1e9), time.perf_counter() - start)
    start = time.perf_counter()
    await spool.stop()
    took["stop"] = time.perf_counter() - start
    return {name: seconds * 1000 for name, seconds in took.items()}


def growth(folder: Path, seconds: float) -> None:
    """Rates and answers of an empty spool, with 100,000 entries waiting for a sink, and with 1,000,000 done besides."""
    for title, state, rows, columns in (
        ("empty", State.DONE, 0, {}),
        ("100,000 waiting", State.DEFERRED, 100_000, {"sink": "down", "error": "it is down"}),
        ("and 1,000,000 done", State.DONE, 1_000_000, {"finished": 1.0}),
    ):
        run(measure(folder, 4096, 1, 0, life=True))
        fill(folder / "spool.sqlite3", state, rows, **columns)
        puts = run(measure(folder, 4096, 20, seconds, life=True))
        took = run(answers(folder))
        print(f"{title}: {puts.rate:.0f} lives/s at 20 sessions, {puts.microseconds:.0f} us CPU")  # noqa: T201
        print("  ms: " + ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in took.items()), flush=True)  # noqa: T201


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write; the disk measured is this one's")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each cell")
    parser.add_argument("--growth", action="store_true", help="instead, what a spool with many entries costs")
    arguments = parser.parse_args()
    print(f"SQLite {sqlite3.sqlite_version}, {arguments.folder.absolute()}")  # noqa: T201  # a command prints
    if arguments.growth:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            growth(Path(name) / "spool", arguments.seconds)
        return
    print(f"{'octets':>8} {'sessions':>8} {'batch':>5} {'put/s':>8} {'CPU us':>7} {'ours us':>8} {'life/s':>8} {'CPU us':>7} {'floor/s':>8}")  # noqa: T201
    for size, sessions in CELLS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name)
            puts = run(measure(folder / "put", size, sessions, arguments.seconds, life=False))
            lives = run(measure(folder / "life", size, sessions, arguments.seconds, life=True))
            least = floor(folder / "floor", size, puts.batch, arguments.seconds)
        ours = puts.microseconds - least.microseconds
        print(  # noqa: T201
            f"{size:8} {sessions:8} {puts.batch:5} {puts.rate:8.0f} {puts.microseconds:7.0f} {ours:8.0f}"
            f" {lives.rate:8.0f} {lives.microseconds:7.0f} {least.rate:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
