"""strace, and what it wrote: system calls with when each began and ended, and services whose calls are made to fail or to kill them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from needs import needs


@dataclass(frozen=True)
class Call:
    """One system call in a trace: its text, and the lines where it began and ended."""

    text: str
    began: int
    ended: int

    @property
    def name(self) -> str:
        return self.text.partition("(")[0]


def calls(trace: str) -> Iterator[Call]:
    """The calls of `strace -f`, in the order of their ends."""
    unfinished: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(trace.splitlines()):
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            unfinished[pid] = (text.removesuffix("<unfinished ...>").rstrip(), number)
        elif resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            start, began = unfinished.pop(pid, ("", number))
            yield Call(start + resumed[1], began, number)
        elif "(" in text:
            yield Call(text, number, number)


def in_order(trace: str, patterns: list[str]) -> None:
    """Each pattern is matched by a call that began after the one before had ended, successfully."""
    after = -1
    remaining = list(calls(trace))
    for pattern in patterns:
        found = [call for call in remaining if call.began > after and re.search(pattern, call.text)]
        assert found, f"no call like {pattern} after line {after} of the trace:\n{trace}"
        after = min(call.ended for call in found)


def fatal(call: str, when: int) -> list[str]:
    """Options of strace: whichever thread makes the call for the `when`-th time is killed in it, and the process with it."""
    return ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}"]


def failing(call: str, error: str, *, when: str = "1+", paths: tuple[Path, ...] = ()) -> list[str]:
    """Options of strace: the call fails, for every thread by itself the times that `when` says, on these files alone if there are any."""
    return ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}", *(option for path in paths for option in ("-P", str(path)))]


def starting(log: Path, options: list[str]) -> tuple[str, ...]:
    """The command that starts a process under strace, which is not its parent: signals for the process reach it.

    Without --seccomp-bpf, with which strace 6.1 counts calls but kills nothing.
    """
    return (needs("strace"), "-D", "-f", "-y", "-s", "64", "-qq", "-o", str(log), *options)


@contextlib.asynccontextmanager
async def attached(pid: int, log: Path, options: list[str]) -> AsyncIterator[None]:
    """strace on a running process, all its threads, from now on until the end of the block or of the process."""
    command = [needs("strace"), "-f", "-y", "-p", str(pid), "-o", str(log), *options]
    strace = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert strace.stderr is not None
    async with letting_the_dead_go(pid):
        try:
            said = (await strace.stderr.readline()).decode()
            assert " attached" in said, said
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # it ends with the process
                os.kill(strace.pid, signal.SIGINT)
            await strace.communicate()


@contextlib.asynccontextmanager
async def letting_the_dead_go(pid: int) -> AsyncIterator[None]:
    """strace 6.1 may wait for ever for the last thread of a process that was killed, and keep its sockets open with it: end it then."""
    task = asyncio.create_task(_let_the_dead_go(pid))
    try:
        yield
    finally:
        task.cancel()


async def _let_the_dead_go(pid: int) -> None:
    while not _is_dead(pid):  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)
    for tracer in _tracers(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(tracer, signal.SIGKILL)


def _tracers(pid: int) -> set[int]:
    """Who traces the threads of a process."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            found.update(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("TracerPid:"))
    return found - {0}


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def hit(log: Path) -> str:
    """The call in which a process was killed; empty when none was."""
    ended = [call.text for call in calls(log.read_text()) if call.text.endswith("= ?")]
    return ended[0] if ended else ""
