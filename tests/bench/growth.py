"""Does a message cost the same however much there is? PYTHONPATH=tests python tests/bench/growth.py

Rules: one recipient entry, 100, and 100,000 (200 rules of 500), the recipient being in the last. Spool: empty, and with 100,000 entries that
wait. Topics: every message is published five times, to one topic, and to five of 1,000 in turn. The service runs in this process with AWS
in memory, smtp-source sends 4 KB messages over 20 sessions, many on each; CPU is this process's until all is worked. The cases take turns.
A case is flat when its CPU a message, the least of the rounds, is within 30 % of the first one's of its kind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.servers import DOMAIN, machine, say
from dns_server import DnsServer

from inbound import log, settings
from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool import Entry, Spool, State
from inbound.accept.spool.database import Database
from inbound.accept.spool.entries import insert
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.deliver.memory import MemoryAws
from inbound.service import Service, event_loop_runner

STOP = "[{StopAction: {Scope: RuleSet}}]"
RULES = 200
OCTETS = 4096
WARM = 200
MOST = 20_000  # messages in one run
WAITING = 100_000
FLAT = 1.3
ZONE = 'src.test TXT "v=spf1 ip4:127.0.0.0/8 -all"'


class Sinks(MemoryAws):
    """Takes everything and keeps nothing."""

    async def _meet(self, sink: str) -> None:
        self.published.clear()
        self.roles.clear()


def entries(count: int) -> str:
    """A rule file with so many recipient entries in at most 200 rules, the last of which is the recipient."""
    rules = min(RULES, max(1, count // 500))
    names = [f"user-{number:06d}@{DOMAIN}" for number in range(count - 1)] + [f"u@{DOMAIN}"]
    parts = [names[len(names) * rule // rules : len(names) * (rule + 1) // rules] for rule in range(rules)]
    return _file([f"{{Name: r{number}, Recipients: [{', '.join(part)}], Actions: {STOP}}}" for number, part in enumerate(parts)])


def topics(count: int) -> str:
    """A rule file in which what a recipient gets is published to five of so many topics. smtp-source numbers the recipients, from 0 or 1 on."""
    found = []
    for rule in range(RULES):
        arns = [f"arn:aws:sns:us-east-1:000000000000:t{(rule * 5 + number) % count}" for number in range(5)]
        actions = ", ".join(f"{{SNSAction: {{TopicArn: '{arn}'}}}}" for arn in arns)
        names = ", ".join(f"{number}u@{DOMAIN}" for number in range(rule, MOST + RULES, RULES))
        found.append(f"{{Name: r{rule}, Recipients: [{names}], Actions: [{actions}]}}")
    return _file(found)


def _file(rules: list[str]) -> str:
    return f"Identities: [{DOMAIN}]\nRuleSets:\n  default:\n" + "".join(f"    - {rule}\n" for rule in rules)


class Case(NamedTuple):
    """What grows, how large it is, and the service with it."""

    kind: str
    size: int
    rules: str
    waiting: int = 0
    numbered: bool = False  # does every message go to another recipient?


CASES = (
    Case("recipient entries", 1, entries(1)), Case("recipient entries", 100, entries(100)), Case("recipient entries", 100_000, entries(100_000)),
    Case("entries waiting", 0, entries(1)), Case("entries waiting", WAITING, entries(1), waiting=WAITING),
    Case("topics", 1, topics(1), numbered=True), Case("topics", 1000, topics(1000), numbered=True),
)


async def fill(folder: Path, count: int) -> None:
    """A spool in which so many entries wait until tomorrow."""
    spool: Spool = SqliteSpool(folder)
    await spool.start()
    await spool.stop()
    now = time.time()
    connection = Database(folder / "spool.sqlite3").open(migrate=False)
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(count):
        envelope = Envelope(new_message_id(), Peer("192.0.2.1"), "mx.src.test", "a@src.test", (f"u@{DOMAIN}",), now, now, "0" * 12)
        insert(connection, Entry(envelope.message_id, envelope, 100, State.DEFERRED, now + 86400, since=now), b"x" * 100)
    connection.execute("COMMIT")
    connection.close()


@asynccontextmanager
async def served(folder: Path, dns: str) -> AsyncIterator[Service]:
    """A service in this process."""
    for name in [name for name in os.environ if name.startswith(("INBOUND_", "AWS_"))]:
        del os.environ[name]
    os.environ |= {"INBOUND_RULES": str(folder / "rules.yaml"), "INBOUND_DATA": str(folder / "data"), "INBOUND_LISTEN": "127.0.0.1:0",
                   "INBOUND_HOSTNAME": "mx.bench.test", "INBOUND_DNS": dns, "INBOUND_HTTP_LISTEN": "127.0.0.1:0"}
    service = Service(settings.read(), log.get(), aws=Sinks())
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def send(service: Service, count: int, *, numbered: bool) -> float:
    """Seconds that smtp-source took."""
    program = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("this needs smtp-source: apt-get install postfix")
    command = [program, "-4", "-d", "-s", "20", "-l", str(OCTETS), "-m", str(count), "-f", "a@src.test", "-t", f"u@{DOMAIN}", "-M", "src.test"]
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, *(["-N"] if numbered else []), f"127.0.0.1:{service.addresses[0].port}")
    if await process.wait():
        raise SystemExit("smtp-source failed")
    return time.perf_counter() - started


async def worked(service: Service, done: int) -> None:
    """Wait until so many messages are done."""
    while (await service.spool.counts())[State.DONE] < done:  # noqa: ASYNC110  # a spool tells nobody of an entry that is done
        await asyncio.sleep(0.25)


async def measure(case: Case, folder: Path, dns: str, count: int) -> tuple[float, float]:
    """CPU ms a message, and messages a second."""
    place = folder / case.kind / str(case.size)
    async with served(place, dns) as service:
        before = (await service.spool.counts())[State.DONE]
        await send(service, WARM, numbered=case.numbered)
        await worked(service, before + WARM)
        cpu = time.process_time()
        seconds = await send(service, count, numbered=case.numbered)
        await worked(service, before + WARM + count)
        return (time.process_time() - cpu) / count * 1000, count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="messages in one run")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.count > MOST:
        parser.error(f"at most {MOST} messages")
    say(machine())
    with (Path(os.devnull).open("w") as nowhere, DnsServer(ZONE) as dns, event_loop_runner() as runner,
          tempfile.TemporaryDirectory(prefix="growth-bench-", dir="/var/tmp") as made):
        log.configure("json", stream=nowhere)
        for case in CASES:
            place = Path(made) / case.kind / str(case.size)
            place.mkdir(parents=True)
            (place / "rules.yaml").write_text(case.rules)
            if case.waiting:
                runner.run(fill(place / "data/spool", case.waiting))
        figures: dict[Case, list[tuple[float, float]]] = {case: [] for case in CASES}
        for _ in range(asked.rounds):
            for case, found in figures.items():
                found.append(runner.run(measure(case, Path(made), dns.setting, asked.count)))
    first: dict[str, float] = {}
    for case, found in figures.items():
        least = min(cpu for cpu, _ in found)
        ratio = least / first.setdefault(case.kind, least)
        say(f"{case.size:>7} {case.kind:<18} {least:6.3f} ms {max(rate for _, rate in found):7.0f} messages/s   x{ratio:.2f}"
            f"{'' if ratio <= FLAT else '   not flat'}")


if __name__ == "__main__":
    main()
