"""What a stranger's octets cost a real `inbound serve`, whatever they are: BOUND of memory for one client, at most, while others are greeted
within 3 seconds. In CI a client sends some ten MB, in the soak run 500 MB.

Rows of the catalogue of threats that have their tests elsewhere, or none (files are those of tests/accept where no folder is named):

| threat | where, or why not |
|---|---|
| look-alikes of the end of data, smuggling | dialogs/29, 35, 37; test_framing.py; test_listener_octets.py (any octets, any pieces) |
| onward smuggling | deliver/test_smtp.py, on the wire; test_listener_bare_newlines.py |
| BDAT taken for commands, and commands for BDAT | test_listener_chunking.py; dialogs/12, 59 to 65 |
| STARTTLS: injection, state kept, second one, stalls, aborts, truncation, versions | test_listener_tls.py; system/test_scans.py |
| PROXY: spoofed, long, late, twice, inside a session | test_listener_proxy.py, test_proxy.py |
| early talkers, pipelining abuse | dialogs/15, 32, 33: answered in order, not punished. It harms nobody: 354 is said only with a recipient |
| long commands and lines, control characters, 8-bit, paths, SMTPUTF8, SIZE | dialogs/21 to 31, 44 to 47; test_address.py |
| recipients, errors, junk, harvest | dialogs/40 to 43; test_listener_traps.py (f8) |
| VRFY, EXPN, TURN, AUTH; open relay; HTTP | dialogs/10, 11, 16, 38, 39; system/test_scans.py |
| XFORWARD, BURL, DEBUG, WIZ | unknown commands like any other: dialogs/13 |
| drips, silence: greeting, command, DATA, BDAT, TLS, PROXY | test_listener_limits.py, _traps.py (f3), _chunking.py, _tls.py, _smtps.py, _proxy.py |
| replies that nobody reads; half-close; RST in any state | test_listener_limits.py, _traps.py (f4), _chunking.py |
| connections of one client, of one /64 | test_listener_proxy.py, test_policy.py |
| connections that are never completed (SYN flood) | the system's: they do not reach a process |
| parsers: MIME, headers, DKIM, charsets, archives | assess/, deliver/, hostile.py |
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from process import Serve, connected, converse, reply

MB = 1024 * 1024
BOUND = 24 * MB  # what one client may add to our memory, at its peak
GREETED = 3.0  # seconds
PATIENCE = 2.0
RULES = "Identities: [example.com]\nRuleSets: {default: [{Name: all, Actions: [{S3Action: {BucketName: mail}}]}]}\n"
NOTHING = "http://127.0.0.1:9"  # AWS is not needed: nothing is accepted here, or nothing is delivered
TRANSACTION = b"EHLO client.test\r\nMAIL FROM:<a@sender.example>\r\nRCPT TO:<b@example.com>\r\n"


@dataclass(frozen=True)
class Flood:
    """What a client says first, and then over and over."""

    opening: bytes
    unit: bytes

    def pieces(self, octets: int) -> Iterator[bytes]:
        """The opening, and about so many octets more, in pieces of 64 KB."""
        yield self.opening
        piece = self.unit * max(1, 65536 // len(self.unit))
        for _ in range(octets // len(piece)):
            yield piece


FLOODS = {
    "a command line without an end": Flood(b"EHLO ", b"x"),
    "NUL in a command line": Flood(b"", b"\0"),
    "empty lines": Flood(b"", b"\r\n"),
    "commands whose replies nobody reads": Flood(b"EHLO client.test\r\n", b"NOOP\r\n"),
    "recipients": Flood(b"EHLO client.test\r\nMAIL FROM:<>\r\n", b"RCPT TO:<b@example.com>\r\n"),
    "recipients that are refused": Flood(b"EHLO client.test\r\nMAIL FROM:<>\r\n", b"RCPT TO:<b@elsewhere.example>\r\n"),
    "a line without an end in DATA": Flood(TRANSACTION + b"DATA\r\n", b"x"),
    "a header field without an end": Flood(TRANSACTION + b"DATA\r\nSubject: ", b"x"),
    "dots in DATA": Flood(TRANSACTION + b"DATA\r\n", b".\r\n"),
    "CR in DATA": Flood(TRANSACTION + b"DATA\r\n", b"\r"),
    "header fields in DATA": Flood(TRANSACTION + b"DATA\r\n", b"X-Field: value\r\n"),
    "one chunk without an end": Flood(TRANSACTION + b"BDAT 80000000 LAST\r\n", b"x"),
    "chunks of one octet": Flood(TRANSACTION, b"BDAT 1\r\nx"),
    "chunks that nobody asked for": Flood(b"", b"BDAT 60000\r\n" + b"x" * 60000),
    "a handshake that is none": Flood(b"EHLO client.test\r\nSTARTTLS\r\n", b"\x16\x03\x01"),
    "HTTP": Flood(b"POST / HTTP/1.1\r\nHost: mx.test\r\n\r\n", b"MAIL FROM:<a@sender.example>\r\n"),
}


def peak(pid: int) -> int:
    """The most memory that the process has had, in octets, since `forget_peak`."""
    return next(int(line.split()[1]) * 1024 for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))


def forget_peak(pid: int) -> int:
    """From here on the peak is a new one; what it is now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def sockets(pid: int) -> int:
    """How many sockets the process has open: those that listen, and two of its event loop, are always there."""
    return sum(path.readlink().name.startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    running = Serve(tmp_path, RULES, NOTHING, max_message_size="40m")
    await running.start()
    yield running
    assert await running.kill(15) == 0
    assert not [event for event in running.events if event["event"] in ("session.failed", "worker.failed")]


async def pour(port: int, pieces: Iterator[bytes]) -> None:
    """Send without reading anything, until the server has had enough, or takes nothing for PATIENCE seconds: it waits until we read."""
    async with connected(port) as (_, writer):
        with contextlib.suppress(ConnectionError, TimeoutError):
            for piece in pieces:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), PATIENCE)
        writer.transport.abort()


async def greeted_all_the_time(port: int, ended: Callable[[], bool]) -> None:
    """Others are greeted, and answered, within GREETED seconds until it has ended."""
    while not ended():
        async with asyncio.timeout(GREETED):
            greeting, answer = await converse(port, b"QUIT\r\n")
        assert (greeting[:3], answer[:3]) == ("220", "221")
        await asyncio.sleep(0.02)


async def hold(serve: Serve, floods: dict[str, Flood], octets: int) -> None:
    """Each flood, one after the other: the bound of memory holds, others are served."""
    assert serve.process is not None
    pid = serve.process.pid
    await converse(serve.port, *TRANSACTION.splitlines(keepends=True), b"RSET\r\n", b"QUIT\r\n")  # what is loaded once is loaded
    cost = {}
    for name, flood in floods.items():
        before = forget_peak(pid)
        flooding = asyncio.create_task(pour(serve.port, flood.pieces(octets)))
        await greeted_all_the_time(serve.port, flooding.done)
        await flooding
        cost[name] = (peak(pid) - before) // 1024
    assert max(cost.values()) * 1024 < BOUND, cost


async def test_no_flood_costs_more_memory_than_the_bound(serve: Serve) -> None:
    await hold(serve, FLOODS, 12 * MB)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FLOODS)
async def test_500_mb_of_a_flood_cost_no_more(serve: Serve, name: str) -> None:
    await hold(serve, {name: FLOODS[name]}, 500 * MB)


async def test_200_idle_connections_of_one_client_disturb_no_other(serve: Serve) -> None:
    """Here the client is exempt from its own limit, as loopback is: that one holds is told by accept/test_policy.py."""
    async with contextlib.AsyncExitStack() as idle:
        for _ in range(200):
            await idle.enter_async_context(connected(serve.port))
        async with asyncio.timeout(GREETED), connected(serve.port) as (reader, writer):
            assert (await reply(reader))[:3] == "220"
            writer.write(TRANSACTION + b"DATA\r\n")
            assert [(await reply(reader))[:3] for _ in range(4)] == ["250", "250", "250", "354"]
            writer.write(b"a\r\n.\r\n")
            assert (await reply(reader)).startswith("250 2.0.0 OK ")


async def test_resets_in_every_state_leave_no_descriptor_open(serve: Serve) -> None:
    assert serve.process is not None
    said = TRANSACTION + b"DATA\r\nSubject: half"
    for cut in range(0, len(said) + 1, 7):
        sock = socket.create_connection(("127.0.0.1", serve.port))
        sock.sendall(said[:cut])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    async with asyncio.timeout(10):
        while sockets(serve.process.pid) > 4:
            await converse(serve.port, b"QUIT\r\n")
