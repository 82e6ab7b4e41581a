"""Milliseconds from the final dot to the 250, beside Postfix: PYTHONPATH=tests python tests/bench/latency.py

At 1, 20 and 100 sessions that send 4 KB messages one after another, each as soon as the last is taken. Both servers run all the time and take
turns; what one of them still works off does not fall into the other's turn. The sender is a process of its own, on the same cores, so at
100 sessions its own waiting is in the figures of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.servers import RECIPIENT, Server, inbound, machine, postfix, say
from dns_server import DnsServer

SESSIONS = (1, 20, 100)
BODY = b"From: <a@src.test>\r\nSubject: latency\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56
TRANSACTION = (b"MAIL FROM:<a@src.test>\r\n", f"RCPT TO:<{RECIPIENT}>\r\n".encode(), b"DATA\r\n")


class Client(asyncio.Protocol):
    """One session: sends each command on the answer to the last, and notes what the final dots took."""

    def __init__(self, count: int, found: list[float]) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._found = found
        self._left = count
        self._commands: Iterator[bytes] = iter((b"HELO src.test\r\n",))
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data[:1] not in b"23" or not data.endswith(b"\n"):
            self.ended.set_exception(SystemExit(f"refused: {data.decode()}"))
            return
        if self._asked:
            self._found.append(time.perf_counter() - self._asked)
            self._asked = 0.0
        command = next(self._commands, b"")
        if not command:
            self._begin()
        elif self._transport:
            if command.startswith(b"."):
                self._transport.write(BODY)
                self._asked = time.perf_counter()
            self._transport.write(command)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _begin(self) -> None:
        if not self._transport:
            return
        if not self._left:
            self._transport.close()
            return
        self._left -= 1
        self._commands = iter((*TRANSACTION[1:], b".\r\n"))
        self._transport.write(TRANSACTION[0])


async def run(port: int, sessions: int, count: int) -> list[float]:
    """Seconds of each of `count` messages in every session."""
    loop = asyncio.get_running_loop()
    found: list[float] = []
    clients = [await loop.create_connection(lambda: Client(count, found), "127.0.0.1", port) for _ in range(sessions)]
    await asyncio.gather(*(client.ended for _, client in clients))
    return found


def measured(server: Server, sessions: int, messages: int) -> list[float]:
    """Milliseconds of each message, sent by a process of its own."""
    command = [sys.executable, "-m", "bench.latency", "--sender", f"{server.port},{sessions},{max(1, messages // sessions)}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    server.settle()
    return [seconds * 1000 for seconds in json.loads(done.stdout)]


def quantile(found: list[float], part: float) -> float:
    return sorted(found)[min(len(found) - 1, int(len(found) * part))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="INBOUND_PROCESSES of ours")
    parser.add_argument("--sender", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.sender:
        _send(*map(int, asked.sender.split(",")))
        return
    say(machine())
    say("sessions   Postfix p50    p99   inbound p50    p99   (ms; the median of the rounds)")
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(DnsServer())
        ours = stack.enter_context(inbound(dns=dns.setting, settings={"MAX_CONNECTIONS_PER_CLIENT": "200", "PROCESSES": str(asked.processes)}))
        theirs = stack.enter_context(postfix())
        for sessions in SESSIONS:
            figures: dict[str, list[list[float]]] = {theirs.name: [], ours.name: []}
            for number in range(asked.rounds + 1):  # the first warms
                for server in (theirs, ours):
                    found = measured(server, sessions, asked.messages)
                    if number:
                        figures[server.name].append([quantile(found, 0.5), quantile(found, 0.99)])
            told = [statistics.median(each) for server in (theirs, ours) for each in zip(*figures[server.name], strict=True)]
            p50, p99, own50, own99 = told
            say(f"{sessions:>8} {p50:13.1f} {p99:6.1f} {own50:13.1f} {own99:6.1f}{'   (bar: p99 10)' if sessions == 20 else ''}")


def _send(port: int, sessions: int, count: int) -> None:
    sys.stdout.write(json.dumps(asyncio.run(run(port, sessions, count))))


if __name__ == "__main__":
    main()
