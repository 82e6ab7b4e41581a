"""Questions and answers between processes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from inbound.operate.processes.channel import Channel, Failed, Handler, Unanswered


async def pair(handlers: dict[str, Handler]) -> tuple[Channel, Channel, list[asyncio.Task[None]]]:
    """Two ends; `handlers` answer at the second."""
    one, other = socket.socketpair()
    asking, answering = await Channel.over(one, {}), await Channel.over(other, handlers)
    return asking, answering, [asyncio.create_task(asking.run()), asyncio.create_task(answering.run())]


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_answers_come_to_the_question_they_are_of_whatever_their_order() -> None:
    go = asyncio.Event()

    async def slow(word: str) -> Any:
        await go.wait()
        return [word]

    async def quick(number: int) -> Any:
        go.set()
        return number + 1

    asking, _, tasks = await pair({"slow": slow, "quick": quick})
    assert await asyncio.gather(asking.ask("slow", "ä\n", seconds=10), asking.ask("quick", 1, seconds=10)) == [["ä\n"], 2]
    await end(tasks)


async def test_what_was_raised_there_is_failed_here() -> None:
    async def broken() -> Any:
        raise ValueError("no\nluck")

    asking, _, tasks = await pair({"broken": broken})
    with pytest.raises(Failed, match="no\nluck") as failure:
        await asking.ask("broken", seconds=10)
    assert failure.value.kind == "ValueError"
    with pytest.raises(Failed, match="unknown"):
        await asking.ask("unknown", seconds=10)
    await end(tasks)


async def test_a_question_is_unanswered_in_time_and_when_the_other_end_goes() -> None:
    asked = asyncio.Event()

    async def never() -> Any:
        asked.set()
        await asyncio.Event().wait()

    asking, _, tasks = await pair({"never": never})
    with pytest.raises(Unanswered):
        await asking.ask("never", seconds=0.01)
    asked.clear()
    waiting = asyncio.create_task(asking.ask("never", seconds=10))
    await asked.wait()
    tasks[1].cancel()
    with pytest.raises(Unanswered):
        await waiting
    await tasks[0]
    with pytest.raises(Unanswered):
        await asking.ask("never", seconds=0.01)


async def test_who_is_cancelled_while_asking_stays_cancelled() -> None:
    asked = asyncio.Event()

    async def never() -> Any:
        asked.set()
        await asyncio.Event().wait()

    asking, _, tasks = await pair({"never": never})
    waiting = asyncio.create_task(asking.ask("never", seconds=10))
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await end(tasks)


async def test_a_line_of_megabytes_is_taken() -> None:
    async def echo(text: str) -> Any:
        return text

    asking, _, tasks = await pair({"echo": echo})
    assert await asking.ask("echo", "x" * 3_000_000, seconds=10) == "x" * 3_000_000
    await end(tasks)
