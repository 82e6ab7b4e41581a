"""`inbound serve` as a real process: started, spoken to, killed, started again on the same data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
       "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


STARTED: list[Serve] = []
"""Services that are still to be ended."""

DNS = ""  # the DNS server of every service that names no other; set by conftest.py


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that steers inbound or AWS."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("INBOUND_", "AWS_"))}


class EndedError(AssertionError):
    """The service ended before what was waited for came."""


class Serve:
    """One data folder and rule file; `start` and `kill` as often as needed. Log events are kept in `events`.

    `under` is a command that executes the rest of its arguments: the service is started under it.
    """

    def __init__(self, folder: Path, rules: str, endpoint: str, **settings: str) -> None:
        self.folder = folder
        self.rules = folder / "rules.yaml"
        self.rules.write_text(rules)
        self.environment = clean_environment() | AWS | {
            "AWS_ENDPOINT_URL": endpoint, "INBOUND_RULES": str(self.rules), "INBOUND_DATA": str(folder / "data"), "INBOUND_LISTEN": "127.0.0.1:0",
            "INBOUND_HTTP_LISTEN": "127.0.0.1:0", "INBOUND_HOSTNAME": "mx.test", "INBOUND_LOG": "json", "INBOUND_DNS": DNS,
        } | {f"INBOUND_{k.upper()}": v for k, v in settings.items()}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # it is started often
        self.events: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process | None = None
        self.under: tuple[str, ...] = ()
        self.port = 0
        self.http = ""
        self.errors = ""
        self._heard = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, command: str = "serve") -> None:
        """Start it and wait until it says that it listens."""
        before = len(self.events)
        await self.spawn(command)
        started = await self.until(lambda e: e["event"] == "service.started", after=before)
        self.port = int(started["smtp"][0].rsplit(":", 1)[1])
        self.http = f"http://{started['http']}"

    async def spawn(self, command: str = "serve") -> None:
        """Start it and do not wait."""
        self.process = await asyncio.create_subprocess_exec(
            *self.under, sys.executable, "-m", "inbound", command, env=self.environment, cwd=self.folder, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, limit=2**24)
        STARTED.append(self)
        self._readers = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]

    async def kill(self, number: int = 9) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.process.pid, number)  # send_signal may take the exit status from under whoever waits for it
        status = await self.process.wait()
        await asyncio.gather(*self._readers)
        if self in STARTED:
            STARTED.remove(self)
        return status

    async def end(self, seconds: float = 5) -> None:
        """End what a failed test left: the process, and its pipes too, which a child of it may hold open or a reader may have given up."""
        assert self.process is not None
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                await self.kill()
        if self in STARTED:
            STARTED.remove(self)
        self.process._transport.close()  # nothing public closes the pipes
        await asyncio.sleep(0)  # they are closed in the next turn of the loop

    async def until(self, holds, after: int = 0, seconds: float = 30) -> dict[str, Any]:
        """The first event, past the first `after`, for which `holds`; waits for it. Raises EndedError."""
        def found() -> dict[str, Any] | None:
            return next((e for e in self.events[after:] if holds(e)), None)

        def done() -> bool:
            return found() is not None or (self.process is not None and self.process.returncode is not None)

        async with self._heard:
            await asyncio.wait_for(self._heard.wait_for(done), seconds)
        event = found()
        if event is None:
            assert self.process is not None
            raise EndedError(f"the process ended with {self.process.returncode}: {self.errors}")
        return event

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.events.append(json.loads(line))
            async with self._heard:
                self._heard.notify_all()
        await self.process.wait()
        async with self._heard:
            self._heard.notify_all()

    async def _read_errors(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        self.errors = (await self.process.stderr.read()).decode()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed whatever happens to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def converse(port: int, *commands: bytes) -> list[str]:
    """Send each command after the reply to the one before; all replies, the greeting first."""
    async with connected(port) as (reader, writer):
        replies = [await reply(reader)]
        for command in commands:
            writer.write(command)
            replies.append(await reply(reader))
    return replies


async def reply(reader: asyncio.StreamReader) -> str:
    """One whole reply. Raises ConnectionError at the end of the connection."""
    lines = []
    while True:
        line = (await reader.readline()).decode()
        if not line:
            raise ConnectionError("closed")
        lines.append(line.rstrip())
        if line[3:4] != "-":
            return "\n".join(lines)


def message(recipient: str, body: bytes, sender: str = "a@example.net") -> tuple[bytes, ...]:
    """The commands that send one message."""
    return (b"MAIL FROM:<%b>\r\n" % sender.encode(), b"RCPT TO:<%b>\r\n" % recipient.encode(), b"DATA\r\n", body + b"\r\n.\r\n")
