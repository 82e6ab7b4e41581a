"""systemd: the units are valid and well confined; sockets are taken over by name; READY, WATCHDOG and STOPPING are said."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from needs import needs
from process import Serve, connected, reply
from sink import Sink

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = "RuleSets: {default: [{Name: all, Recipients: [example.com], Actions: [{StopAction: {Scope: RuleSet}}]}]}\n"


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units as they are, but with a program that is there."""
    for name in ("inbound.service", "inbound.socket"):
        (tmp_path / name).write_text((DEPLOY / name).read_text().replace("/opt/inbound/bin/inbound", "/bin/true"))
    return [str(tmp_path / "inbound.service"), str(tmp_path / "inbound.socket")]


def test_the_units_are_valid(units: list[str]) -> None:
    done = subprocess.run([needs("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0), "verify exits with 0 in spite of unknown keys, so it must say nothing"


def test_the_service_is_confined(units: list[str]) -> None:
    command = [needs("systemd-analyze"), "security", "--offline=true", "--no-pager", units[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    exposure = re.search(r"Overall exposure level for inbound.service: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) < 2


class Told:
    """What was said to NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.heard: list[str] = []

    async def until(self, fact: str) -> None:
        while not any(fact in text for text in self.heard):
            self.heard.append((await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 4096), 30)).decode())


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    found = Told(tmp_path / "notify")
    yield found
    found.socket.close()


async def test_ready_watchdog_and_stopping_are_said(told: Told, tmp_path: Path) -> None:
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint)
        serve.environment |= {"NOTIFY_SOCKET": str(told.path), "WATCHDOG_USEC": "200000"}
        await serve.start()
        await told.until("READY=1")
        await told.until("WATCHDOG=1")
        assert await serve.kill(signal.SIGTERM) == 0
        await told.until("STOPPING=1")


async def test_sockets_of_systemd_are_taken_over_and_win_over_listen(tmp_path: Path) -> None:
    activate = needs("systemd-socket-activate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint)
        kept = [f"--setenv={name}" for name in serve.environment if name.startswith(("INBOUND_", "AWS_", "NO_PROXY", "PYTHON", "PATH"))]
        process = await asyncio.create_subprocess_exec(
            activate, "-l", f"127.0.0.1:{port}", "--fdname=smtp", *kept, sys.executable, "-m", "inbound", "serve",
            env=serve.environment, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            assert process.stderr is not None
            await process.stderr.readline()  # it listens
            async with connected(port) as (reader, _):
                assert await asyncio.wait_for(reply(reader), 30) == "220 mx.test ESMTP"
        finally:
            process.send_signal(signal.SIGTERM)
            await process.communicate()
        assert process.returncode == 0


async def test_root_is_warned_where_systemd_is_not(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this does not run as root")
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint)
        await serve.start()
        assert (await serve.until(lambda e: e["event"] == "service.warning"))["warning"].startswith("this runs as root")
        await serve.kill(signal.SIGTERM)
