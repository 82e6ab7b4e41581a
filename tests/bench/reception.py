"""Reception beside Postfix, in turns on one machine, and the memory that large messages take: PYTHONPATH=tests python tests/bench/reception.py

Both take mail from smtp-source and sync it before their 250. Ours judges it too (SPF, DKIM and DMARC against a DNS server that answers at
once) and runs the one rule, a Stop; Postfix discards it. Rates are medians of the rounds, the ratio is the median of each round's; CPU is
all that the message costs until the process tree is idle again. Postfix runs anew for each invocation, so its first round warms it.

`--memory` opens connections that all send at once and says what they added to the resident memory. `--beside FOLDER` measures another
checkout in Postfix's place: what a change brings, whatever else the machine does. `--processes` and `--pin` tell how far more processes
help, with the load of smtp-source where it was or on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

from bench.servers import RECIPIENT, Server, inbound, machine, postfix, say, send
from dns_server import DnsServer

CELLS = {"4096:one": (4_096, False, 1500), "4096:many": (4_096, True, 4000), "102400:many": (102_400, True, 1500),
         "10000000:many": (10_000_000, True, 40)}
BARS = {"4096:one": "1.8", "4096:many": "3", "102400:many": "2", "10000000:many": "2.4"}
ZONE = """
    src.test TXT "v=spf1 ip4:127.0.0.0/8 -all"
    _dmarc.src.test TXT "v=DMARC1; p=none"
"""
HELD = ((20, 10_000_000, 60), (50, 40_000_000, 200))  # connections, octets, MB that they may add


def measure(server: Server, octets: int, count: int, *, many: bool, core: int | None) -> tuple[float, float]:
    """Messages a second, and CPU ms a message."""
    before = server.cpu()
    seconds = send(server, octets, count, many=many, core=core)
    return count / seconds, (server.settle() - before) / count * 1000


def compare(ours: Server, other: Server, cells: list[str], rounds: int, core: int | None) -> None:
    """A line for each cell."""
    say(f"{'octets':>9} {'a conn.':>7} {other.name:>19} {ours.name:>19} {'ratio':>7} {'bar':>5} {'MB':>5}   (messages/s, CPU ms a message)")
    for cell in cells:
        octets, many, count = CELLS[cell]
        for server in (other, ours):
            send(server, octets, max(20, count // 10), many=many, core=core)
        found = [tuple(measure(server, octets, count, many=many, core=core) for server in (other, ours)) for _ in range(rounds)]
        theirs, own = ([statistics.median(figures) for figures in zip(*side, strict=True)] for side in zip(*found, strict=True))
        ratio = statistics.median(mine[0] / its[0] for its, mine in found)
        say(f"{octets:>9} {'many' if many else 'one':>7} {theirs[0]:9.0f} {theirs[1]:6.2f} ms {own[0]:9.0f} {own[1]:6.2f} ms {ratio:6.2f}x "
            f"{BARS[cell]:>5} {ours.rss():5.0f}")


async def sender(port: int, octets: int, gate: asyncio.Barrier) -> None:
    """One client: everything but the final dot, then, when all have come that far, the dot."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    for command in (b"HELO src.test\r\n", b"MAIL FROM:<a@src.test>\r\n", f"RCPT TO:<{RECIPIENT}>\r\n".encode(), b"DATA\r\n"):
        writer.write(command)
        await reader.readline()
    block = (b"x" * 70 + b"\r\n") * 900
    writer.write(b"From: <a@src.test>\r\nSubject: large\r\n\r\n")
    for _ in range(octets // len(block)):
        writer.write(block)
        await writer.drain()
    await gate.wait()
    writer.write(b".\r\n")
    answer = await reader.readline()
    if not answer.startswith(b"250"):
        raise SystemExit(f"not taken: {answer.decode()}")
    writer.close()


@contextlib.contextmanager
def watched(server: Server, peaks: list[float]) -> Iterator[None]:
    """Add the most memory that it has meanwhile to `peaks`."""
    ended = threading.Event()
    seen = [server.rss()]

    def watch() -> None:
        while not ended.wait(0.02):
            seen.append(server.rss())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        peaks.append(max(seen))


def hold(server: Server, connections: int, octets: int) -> tuple[float, float, float]:
    """Resident MB before, at most while so many large messages come and are worked, and after."""

    async def all_at_once() -> None:
        gate = asyncio.Barrier(connections)
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(sender(server.port, octets, gate))

    before = server.rss()
    peaks: list[float] = []
    with watched(server, peaks):
        asyncio.run(all_at_once())
        server.settle(60)
    time.sleep(1)
    return before, peaks[0], server.rss()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default=",".join(CELLS), help=f"of {', '.join(CELLS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1, help="INBOUND_PROCESSES of ours")
    parser.add_argument("--pin", type=int, metavar="CORE", help="the one core that smtp-source may use")
    parser.add_argument("--memory", action="store_true", help="the memory of large messages, and no rates")
    parser.add_argument("--beside", metavar="FOLDER", help="another checkout of inbound in Postfix's place")
    asked = parser.parse_args()
    cells = [cell for cell in asked.cells.split(",") if cell]
    if unknown := [cell for cell in cells if cell not in CELLS]:
        parser.error(f"no such cell: {unknown[0]}")
    say(machine())
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(DnsServer(ZONE))
        ours = stack.enter_context(inbound(dns=dns.setting, settings={"MAX_CONNECTIONS_PER_CLIENT": "200", "PROCESSES": str(asked.processes)}))
        if asked.memory:
            for connections, octets, bar in HELD:
                before, peak, after = hold(ours, connections, octets)
                say(f"{connections} messages of {octets / 1e6:.0f} MB at once: {before:.0f} MB before, {peak:.0f} MB at most "
                    f"(+{peak - before:.0f}; bar +{bar}), {after:.0f} MB after")
            return
        other = stack.enter_context(inbound(code=asked.beside, dns=dns.setting) if asked.beside else postfix())
        compare(ours, other, cells, asked.rounds, asked.pin)


if __name__ == "__main__":
    main()
