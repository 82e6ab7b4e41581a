"""The ledger: what clients sent and what was acknowledged, set against what the sink got.

Acknowledged minus delivered is lost; what the sink holds must be our header fields and then exactly what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sqlite3
from collections import Counter

import aiohttp
from aiohttp import web
from process import Serve, connected, message, reply
from sink import Sink

TOPIC = "arn:aws:sns:us-east-1:000000000000:inbound"
RULES = f"""
RuleSets:
  default:
    - Name: all
      Recipients: [example.com]
      Actions:
        - S3Action: {{BucketName: mail, TopicArn: "{TOPIC}"}}
"""
THRESHOLD = 256 * 1024
SIZES = (60, 4_000, 100_000, THRESHOLD - 1_500, THRESHOLD + 1_500, 700_000)
MARKER = re.compile(rb"Subject: ([0-9a-f]{16})\r\n")
NAMES = b"Return-Path|Received|X-SES-Spam-Verdict|X-SES-Virus-Verdict|Received-SPF|Authentication-Results"
OURS = re.compile(rb"(?:(?:%b): [^\n]*\r\n(?:[ \t][^\n]*\r\n)*)+" % NAMES)
FORGED = b"X-SES-Spam-Verdict: PASS\r\n"


def letter(marker: bytes, size: int, *, forged: bool = False) -> bytes:
    """A message of about `size` octets that no other is equal to, with lines that dots begin."""
    head = (FORGED if forged else b"") + b"Subject: " + marker + b"\r\n\r\n"
    line = b"." + marker * 4 + b"\xe9\r\n"
    return head + line * max(1, (size - len(head)) // len(line))


def stored(sent: bytes) -> bytes:
    """What a consumer gets below our header fields."""
    return sent.replace(FORGED, b"X-Forged-" + FORGED)


class Ledger:
    """`attempted` by marker, `acknowledged` by message id, both to what was sent."""

    def __init__(self, seed: int = 7) -> None:
        self.dice = random.Random(seed)
        self.attempted: dict[bytes, bytes] = {}
        self.acknowledged: dict[str, bytes] = {}
        self.refused: list[str] = []

    def new(self, size: int) -> bytes:
        """A message to send."""
        marker = b"%016x" % self.dice.getrandbits(64)
        sent = self.attempted[marker] = letter(marker, size, forged=self.dice.random() < 0.2)
        return sent

    async def send(self, port: int, *sizes: int) -> list[str]:
        """Send messages over one connection; the last reply to each. What is acknowledged is noted."""
        replies = []
        async with connected(port) as (reader, writer):
            await reply(reader)
            writer.write(b"EHLO client.test\r\n")
            await reply(reader)
            for size in sizes:
                replies.append(await self.one(reader, writer, size))
        return replies

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> str:
        """Send one message in a session; the last reply to it."""
        sent = self.new(size)
        answer = ""
        for command in message("u@example.com", sent.replace(b"\r\n.", b"\r\n..")[:-2]):
            writer.write(command)
            answer = await reply(reader)
            if answer[0] in "45":
                writer.write(b"RSET\r\n")
                await reply(reader)
                break
        self.note(answer, sent)
        return answer

    def note(self, answer: str, sent: bytes) -> None:
        """Keep the answer to a message."""
        if answer.startswith("250 2.0.0 OK "):
            self.acknowledged[answer.rsplit(maxsplit=1)[-1]] = sent
        else:
            self.refused.append(answer)

    async def load(self, port: int, until: asyncio.Event, sizes: tuple[int, ...] = SIZES) -> None:
        """Send over one connection until told to stop, or cut off."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with connected(port) as (reader, writer):
                await reply(reader)
                writer.write(b"EHLO load.test\r\n")
                await reply(reader)
                while not until.is_set():
                    await self.one(reader, writer, self.dice.choice(sizes))

    def lost(self, sink: Receiver) -> set[str]:
        """The ids acknowledged that the bucket or the topic has not got."""
        return self.acknowledged.keys() - (sink.told.keys() & sink.stored.keys())

    async def settled(self, sink: Receiver, seconds: float = 60) -> None:
        """Wait until the sink has everything that was acknowledged, and its notification. AssertionError names what is lost."""
        def settled() -> bool:
            return len(sink.told) >= len(self.acknowledged) and not self.lost(sink)

        try:
            await sink.until(settled, seconds)
        except TimeoutError:
            raise AssertionError(f"lost, of {len(self.acknowledged)}: {sorted(self.lost(sink))}") from None

    def check(self, sink: Receiver) -> None:
        """Nothing that the sink holds is torn, changed, or was never sent."""
        wrong = []
        for entry_id in sink.stored:
            found = sink.objects[f"mail/{entry_id}"]
            head = OURS.match(found)
            body = found[head.end() :] if head else found
            marker = MARKER.search(body[:500])
            sent = self.attempted.get(marker[1] if marker else b"", b"")
            if body != stored(sent) or sent != self.acknowledged.get(entry_id, sent):
                wrong.append(f"{entry_id}: {found[:600]!r} for {sent[:100]!r}")
        assert not wrong, "\n".join(wrong)


class Receiver(Sink):
    """The sink, with how often each message id was `stored` in the bucket and `told` to the topic."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: Counter[str] = Counter()
        self.told: Counter[str] = Counter()

    def _keep(self, request: web.Request, path: str, body: bytes) -> web.Response:
        if request.method == "PUT":
            self.stored[path.removeprefix("mail/")] += 1
        return super()._keep(request, path, body)

    def _publish(self, topic: str, message: str) -> bool:
        self.told.update(re.findall(r'"messageId":"([0-9a-v]{40})"', message)[:1])
        return super()._publish(topic, message)


async def emptied(serve: Serve) -> None:
    """Wait until a running service has nothing in hand and nothing waits: what was stored and never acknowledged is delivered, too."""
    started = next(event for event in reversed(serve.events) if event["event"] == "service.started")
    async with aiohttp.ClientSession(trust_env=False) as session, asyncio.timeout(60):
        while True:
            async with session.get(f"http://{started['http']}/readyz") as answer:
                told = await answer.json()
            if "spool" in told and not told["spool"]["active"] + told["spool"]["deferred"]:
                return


def left(serve: Serve) -> dict[str, int]:
    """What the spool of a stopped service still holds, by state, traces of finished messages aside; blob files and strange files too."""
    spool = serve.folder / "data" / "spool"
    files = [path.relative_to(spool).as_posix() for path in spool.rglob("*") if path.is_file()]
    with contextlib.closing(sqlite3.connect(f"file:{spool / 'spool.sqlite3'}?mode=ro", uri=True)) as connection:
        found: dict[str, int] = dict(connection.execute("SELECT state, count(*) FROM entry WHERE state <> 'done' GROUP BY state"))
    return found | {name: 1 for name in files if name not in ("lock", "spool.sqlite3")}
