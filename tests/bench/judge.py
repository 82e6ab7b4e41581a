"""CPU milliseconds a message for SPF, DKIM and DMARC, beside plain dkimpy's for DKIM alone: PYTHONPATH=tests python tests/bench/judge.py

Each message has one RSA-2048 signature (relaxed/relaxed) and passes all three checks, as Assessor makes them of a stored message, with warm
DNS: our own resolver, asked once before. "text" is prose in lines of 70 octets, "html" is indented mark-up, "base64" an attachment.
CPU is user and system time of the whole process, the least of several rounds; "dkim" is our DKIM alone. What is asked for: at most 1 ms at
4 KB, and 60 ms at 10 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import dkim as dkimpy
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dns_server import DnsServer

from inbound import log
from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool import Content
from inbound.accept.spool.content import FileContent, MemoryContent
from inbound.assess import dkim
from inbound.assess.assessor import Assessor
from inbound.assess.dkim.sign import key_record, sign
from inbound.assess.dns import Resolver
from inbound.assess.verdicts import Status

SIZES = {"4 KB": 4_096, "100 KB": 102_400, "1 MB": 1_048_576, "10 MB": 10_485_760}
IN_MEMORY = 262_144  # larger content is a file, as in the spool
DOMAIN = "sender.example"
HEADER = f"""\
Received: from a.{DOMAIN} (a.{DOMAIN} [192.0.2.7])
\tby out.{DOMAIN} (Postfix) with ESMTPS id 4XyZ1234567
\tfor <b@receiver.example>; Fri, 11 Jul 2025 21:00:37 -0700 (PDT)
From: Joe SixPack <joe@{DOMAIN}>
To: Suzie Q <suzie@receiver.example>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2025 21:00:37 -0700
Message-ID: <20250712040037.46341.5F8J@{DOMAIN}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
List-Unsubscribe: <https://{DOMAIN}/unsubscribe>

""".replace("\n", "\r\n").encode()


class Figures(NamedTuple):
    """CPU milliseconds of one message."""

    judged: float
    dkim: float
    dkimpy: float


def text(octets: int) -> bytes:
    """Prose."""
    words = [("lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam " * 2).split()[n : n + 10] for n in range(10)]
    return _filled(b"".join(b" ".join(word.encode() for word in line) + b"\r\n" for line in words), octets)


def html(octets: int) -> bytes:
    """Mark-up, indented."""
    return _filled(b"".join(b" " * depth + b'<td class="a b">some words</td>\r\n' for depth in (2, 4, 6, 8, 6, 4)), octets)


def attachment(octets: int) -> bytes:
    """Base64 in lines of 76."""
    return base64.encodebytes(random.Random(1).randbytes(octets * 3 // 4)).replace(b"\n", b"\r\n")[:octets]


def _filled(unit: bytes, octets: int) -> bytes:
    return (unit * (octets // len(unit) + 1))[: octets - 2] + b"\r\n"


def cpu_milliseconds(work: Callable[[], object], seconds: float) -> float:
    """The least that one call took, of at least three."""
    least, end, rounds = float("inf"), time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        start = time.process_time()
        work()
        least, rounds = min(least, time.process_time() - start), rounds + 1
    return least * 1000


def measure(message: bytes, record: bytes, server: DnsServer, folder: Path, seconds: float) -> Figures:
    """What it takes to judge the message."""
    with asyncio.Runner() as runner:
        resolver = Resolver([server.address])
        assessor = Assessor(resolver, log.get(), hostname="mx.receiver.example")
        peer = Peer("192.0.2.7", 2525, f"a.{DOMAIN}")
        envelope = Envelope(new_message_id(), peer, f"a.{DOMAIN}", f"joe@{DOMAIN}", ("suzie@receiver.example",), time.time())
        content = stored(message, folder)
        budget = resolver.budget(1e6, 10**9)

        async def run_judged() -> None:
            found, _ = await assessor.findings(envelope, content, budget)
            if {found.spf.status, found.dkim.status, found.dmarc.status} != {Status.PASS}:
                raise SystemExit(f"does not pass: {found}")

        async def run_dkim() -> None:
            await dkim.check(content, lambda name: resolver.lookup(name, "TXT", budget), now=envelope.received_at)

        def times(work: Callable[[], Awaitable[None]]) -> float:
            runner.run(work())  # DNS is warm after this
            return cpu_milliseconds(lambda: runner.run(work()), seconds)

        figures = Figures(times(run_judged), times(run_dkim), cpu_milliseconds(functools.partial(by_dkimpy, message, record), seconds))
        runner.run(assessor.close())
    return figures


def by_dkimpy(message: bytes, record: bytes) -> None:
    if not dkimpy.DKIM(message).verify(dnsfunc=lambda name, timeout: record):
        raise SystemExit("does not pass dkimpy")


def stored(message: bytes, folder: Path) -> Content:
    """The content as the spool keeps it."""
    if len(message) <= IN_MEMORY:
        return MemoryContent(message)
    path = folder / "content"
    path.write_bytes(message)
    return FileContent(path, len(message))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    seconds = parser.parse_args().seconds
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    record = key_record(key)
    strings = " ".join(f'"{record[n : n + 200]}"' for n in range(0, len(record), 200))
    zone = f"""
        s._domainkey.{DOMAIN} TXT {strings}
        {DOMAIN} TXT "v=spf1 ip4:192.0.2.0/24 -all"
        _dmarc.{DOMAIN} TXT "v=DMARC1; p=reject"
    """
    print(f"{'size':>7} {'body':>7} {'SPF+DKIM+DMARC':>15} {'dkim':>8} {'dkimpy':>8}   (CPU ms a message)")  # noqa: T201  # a command prints
    with DnsServer(zone) as server, tempfile.TemporaryDirectory() as folder:
        for size, octets in SIZES.items():
            for kind, body in (("text", text), ("html", html), ("base64", attachment)):
                unsigned = HEADER + body(octets - len(HEADER) - 800)
                message = sign(unsigned, domain=DOMAIN, selector="s", key_pem=key) + unsigned
                figures = measure(message, record.encode(), server, Path(folder), seconds)
                print(f"{size:>7} {kind:>7} {figures.judged:15.2f} {figures.dkim:8.2f} {figures.dkimpy:8.2f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
