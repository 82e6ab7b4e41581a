"""What fails where nobody waits for it is told in the log, and what is to last begins again."""

from __future__ import annotations

import asyncio

import pytest
from journal import Journal

from inbound import mishap
from inbound.log import Event


async def test_a_watch_that_fails_is_told_of_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mishap, "AGAIN", 0.0)
    journal, turns = Journal(), iter([ValueError("odd"), MemoryError(), None])
    noted: list[BaseException] = []

    async def watch() -> None:
        error = next(turns)
        if error is not None:
            raise error

    await mishap.keep_going(watch, journal.log, noted.append)
    assert [repr(error) for error in noted] == ["ValueError('odd')", "MemoryError()"]
    first, second = journal.of(Event.SERVICE_FAILED)
    assert (first["error"], second["error"]) == ("ValueError('odd')", "MemoryError()")
    assert "watch" in first["what"]
    assert isinstance(first["exc_info"], ValueError)
    assert "exc_info" not in second, "there may be hundreds"


async def test_a_watch_that_is_cancelled_ends() -> None:
    async def watch() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(mishap.keep_going(watch, Journal().log))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_watch_that_fails_while_it_is_cancelled_ends_too() -> None:
    begun = 0

    async def watch() -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("odd")

    journal = Journal()
    task = asyncio.create_task(mishap.keep_going(watch, journal.log))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,), timeout=5)
    assert (task.done(), begun) == (True, 1), "who stops the service waits for it"
    assert isinstance(task.exception(), ValueError)


async def test_a_watch_begins_again_even_if_there_is_no_memory_to_tell_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mishap, "AGAIN", 0.0)
    turns = iter([MemoryError(), None])

    async def watch() -> None:
        error = next(turns)
        if error is not None:
            raise error

    def starve(_error: BaseException) -> None:
        raise MemoryError

    await mishap.keep_going(watch, Journal().log, starve)
    assert next(turns, "all") == "all"


async def test_what_the_event_loop_could_only_print_is_logged() -> None:
    journal, gate = Journal(), asyncio.Event()
    noted: list[BaseException] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(mishap.handler(journal.log, noted.append))
    try:
        def fail() -> None:
            gate.set()
            raise MemoryError

        loop.call_soon(fail)
        await gate.wait()
        await asyncio.sleep(0)
        loop.call_exception_handler({"message": "something is odd"})
    finally:
        loop.set_exception_handler(before)
    first, second = journal.of(Event.SERVICE_FAILED)
    assert ("fail" in first["what"], first["error"]) == (True, "MemoryError()")
    assert second["what"] == "something is odd"
    assert [type(error) for error in noted] == [MemoryError]
