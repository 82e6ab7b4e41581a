"""Mail that is made to break mail software, through the front door of a real `inbound serve` with every check on.

Whatever it is: 250, other sessions are greeted meanwhile, memory stays bounded, the octets are stored as they came, verdicts are formed, and
what consumers are told is valid JSON within SNS's limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from dns_server import DnsServer
from letters_with_attachments import letter
from process import Serve, connected, converse, message, reply
from scanners import RSPAMD_LIMIT, ClamdAddresses
from sink import Sink

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: everything
      Recipients: [bombs@example.com]
      ScanEnabled: true
      Actions:
        - AddHeaderAction: {HeaderName: X-Route, HeaderValue: bombs}
        - S3Action: {BucketName: mail, TopicArn: "arn:aws:sns:us-east-1:000000000000:inbound"}
        - LambdaAction: {FunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:told", InvocationType: Event}
    - Name: plain
      Recipients: [plain@example.com]
      Actions: [{S3Action: {BucketName: mail}}]
"""
STATUSES = {"PASS", "FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED"}
GREETED = 3.0  # seconds within which every session is greeted, whatever others send
MEMORY = 200  # MB that the process tree may grow by, over what it took for a plain message
SNS_LIMIT = 262_144
LAMBDA_LIMIT = 262_144
STARVED = 10.0  # seconds within which a plain message is delivered, whatever else is in hand
VERDICTS = ("spamVerdict", "virusVerdict", "spfVerdict", "dkimVerdict", "dmarcVerdict")
COSTLY = ("as many fields as fit", "as many addresses as fit", "comments", "quotes")
TROUBLE = ("check.failed", "worker.failed", "session.failed", "message.deferred", "spool.failed")
BOMBS = {**hostile.MESSAGES, **hostile.ARCHIVES}


def as_sent(octets: bytes) -> tuple[bytes, bytes]:
    """What goes over the wire for a message, and what it is then: DATA ends a last line without an end."""
    whole = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
    stuffed = whole.replace(b"\r\n.", b"\r\n..")
    return (b"." + stuffed if stuffed.startswith(b".") else stuffed) + b".\r\n", whole


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    return found


def resident(pid: int) -> int:
    """MB of memory of a process and all below it; what they share counts for each."""
    pages = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def slipped() -> bool:
    """Is there a file where names in archives and uuencoded parts lead?"""
    return Path("/tmp/slip").exists()


class Watch:
    """Asks for a greeting again and again, and looks at the memory: `slowest` seconds, `most` MB."""

    def __init__(self, serve: Serve) -> None:
        assert serve.process is not None
        self._pid = serve.process.pid
        self._port = serve.port
        self.slowest = 0.0
        self.most = 0
        self.greeted = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            started = time.monotonic()
            async with connected(self._port) as (reader, _):
                assert (await reply(reader)).startswith("220 ")
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.greeted += 1
            self.most = max(self.most, resident(self._pid))
            await asyncio.sleep(0.02)


class Target:
    """A service with all checks, what it stored, and what it was asked to tell."""

    def __init__(self, serve: Serve, sink: Sink) -> None:
        self.serve = serve
        self.sink = sink

    async def send(self, octets: bytes, recipient: str = "bombs@example.com") -> tuple[str, bytes]:
        """The id of an accepted message, and the octets that it has."""
        said = await self.reply(octets, recipient)
        assert said.startswith("250 2.0.0 OK "), said
        return said.split()[-1], as_sent(octets)[1]

    async def reply(self, octets: bytes, recipient: str = "bombs@example.com") -> str:
        """What the final dot is answered."""
        commands = message(recipient, b"")
        return (await converse(self.serve.port, b"EHLO client.test\r\n", *commands[:3], as_sent(octets)[0]))[-1]

    async def done(self, message_id: str, seconds: float = 60) -> dict[str, Any]:
        """The event that ends a message; that it was neither deferred nor dead."""
        event = await self.serve.until(lambda e: e.get("id") == message_id and e["event"] in ("message.done", "message.deferred", "message.dead"),
                                       seconds=seconds)
        assert event["event"] == "message.done", json.dumps(event)
        return event

    def hold(self, message_id: str, whole: bytes) -> None:
        """The octets are stored as they came, below our header fields."""
        stored = self.sink.objects[f"mail/{message_id}"].replace(b"X-Forged-", b"")
        assert stored.endswith(whole)
        ours = stored[: len(stored) - len(whole)]
        assert ours.startswith(b"X-Route: bombs\r\nReturn-Path: <a@example.net>\r\nReceived: from client.test "), ours[:200]
        assert len(ours) < 4_000
        assert ours.isascii()


def told(sink: Sink, message_id: str) -> list[dict[str, Any]]:
    """The notification and the event of a message, parsed; each within its limit."""
    notifications = [text for _, text in sink.published if message_id in text]
    events = [body for _, body in sink.invoked if message_id.encode() in body]
    assert (len(notifications), len(events)) == (1, 1)
    assert len(notifications[0].encode()) <= SNS_LIMIT
    assert len(events[0]) <= LAMBDA_LIMIT
    return [json.loads(notifications[0]), json.loads(events[0])["Records"][0]["ses"]]


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer('example.net TXT "v=spf1 ip4:127.0.0.1 -all"') as server:
        yield server


@pytest.fixture
async def target(tmp_path: Path, dns: DnsServer, clamd: ClamdAddresses, rspamd: int) -> AsyncIterator[Target]:
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint, dns=dns.setting, clamd=str(clamd.path), rspamd=f"127.0.0.1:{rspamd}", scan_timeout="20s",
                      rspamd_max_size=str(RSPAMD_LIMIT))
        await serve.start()
        yield Target(serve, sink)
        assert await serve.kill(signal.SIGTERM) == 0
        assert serve.errors == ""


@contextlib.asynccontextmanager
async def watched(target: Target) -> AsyncIterator[Watch]:
    """Others are greeted in time and the memory stays bounded, while this lasts; over what the first plain message takes."""
    message_id, _ = await target.send(letter())
    await target.done(message_id)
    assert target.serve.process is not None
    before = resident(target.serve.process.pid)
    watch = Watch(target.serve)
    watching = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    assert watch.greeted > 0
    assert watch.slowest < GREETED
    assert watch.most - before < MEMORY


async def all_at_once(target: Target, messages: Iterable[tuple[str, bytes]], *, at_once: int = 20, seconds: float = 60) -> None:
    """Send them, so many at a time; each is done without a second attempt, stored as it came, and told with verdicts."""
    places = asyncio.Semaphore(at_once)

    async def one(name: str, octets: bytes) -> None:
        async with places:
            message_id, whole = await target.send(octets)
            await target.done(message_id, seconds)
        target.hold(message_id, whole)
        for each in told(target.sink, message_id):
            statuses = {key: each["receipt"][key]["status"] for key in VERDICTS}
            assert set(statuses.values()) <= STATUSES, (name, statuses)
            assert statuses["spfVerdict"] == "PASS", "no header spoils what the envelope says"
            assert statuses["dmarcVerdict"] != "PASS", name

    await asyncio.gather(*(one(name, octets) for name, octets in messages))
    assert [e for e in target.serve.events if e["event"] in TROUBLE] == []


async def plain_ones(target: Target, stop: asyncio.Event) -> list[float]:
    """How long plain messages take from the first octet to their object, one after the other."""
    took = []
    while not stop.is_set():
        started = time.monotonic()
        message_id, _ = await target.send(b"Subject: plain\r\n\r\nhi\r\n", "plain@example.com")
        await target.done(message_id)
        took.append(time.monotonic() - started)
    return took


@pytest.mark.timeout(300)
async def test_hostile_mail_is_received_judged_stored_and_told_like_any_other(target: Target) -> None:
    stop = asyncio.Event()
    async with watched(target):
        plain = asyncio.create_task(plain_ones(target, stop))
        await all_at_once(target, ((name, make()) for name, make in BOMBS.items()))
        stop.set()
        took = await plain
    assert max(took) < STARVED, "20 of them at once do not starve a plain message"
    assert not slipped(), "a name in an archive is no path"


@pytest.mark.timeout(300)
async def test_a_hundred_seconds_of_headers_at_once_hold_up_nobody(target: Target) -> None:
    """Found as a stall of 14 s and 270 MB by a hundred messages: each is cheap enough alone."""
    async with watched(target):
        sent = [asyncio.create_task(target.send(hostile.MESSAGES[name]())) for name in COSTLY * 10]
        await asyncio.gather(*sent)
        started = time.monotonic()
        message_id, _ = await target.send(b"Subject: plain\r\n\r\nhi\r\n", "plain@example.com")
        await target.done(message_id)
        assert time.monotonic() - started < STARVED
        for each in sent:
            await target.done(each.result()[0])


@pytest.mark.timeout(300)
async def test_verdicts_before_the_reply_hold_up_nobody_either(tmp_path: Path, dns: DnsServer, clamd: ClamdAddresses, rspamd: int) -> None:
    scanners = {"clamd": str(clamd.path), "rspamd": f"127.0.0.1:{rspamd}", "scan_timeout": "20s"}
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint, dns=dns.setting, reject="virus,spf", **scanners)
        await serve.start()
        target = Target(serve, sink)
        places = asyncio.Semaphore(20)

        async def one(octets: bytes) -> str:
            async with places:
                return await target.reply(octets)

        async with watched(target):
            replies = await asyncio.gather(*(one(make()) for make in list(BOMBS.values())[::4]))
        assert {said[:8] for said in replies} <= {"250 2.0.", "550 5.7."}, set(replies)
        assert sum(said.startswith("250 ") for said in replies) > len(replies) // 2
        assert await serve.kill(signal.SIGTERM) == 0
        assert [e for e in serve.events if e["event"] in TROUBLE] == []


def larger() -> dict[str, bytes]:
    """The same ideas as large as a message may be."""
    limit = 39_000_000
    return {
        "header without end": b"Subject: " + hostile.repeated(b"x\r\n ", limit) + b"\r\n",
        "fields without end": hostile.repeated(b"a: b\r\n", limit),
        "forged results without end": hostile.repeated(b"Authentication-Results: mx.test; x\r\n", limit - 6_000_000),
        "parts": hostile.parts(limit // 10),
        "one line": b"Subject: x\r\n\r\n" + b"x" * limit,
        "bare line feeds": b"Subject: x\r\n\r\n" + b"\n" * limit,
        "dots": b"Subject: x\r\n\r\n" + hostile.repeated(b".\r\n", limit),
        "signed, all white space": b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=x.example; s=s; h=from; bh=YWFh; b=YWFh\r\n"
        b"From: a@b.example\r\n\r\n" + b" \t" * (limit // 2),
        "zips": hostile.attached(hostile.zips_in_zips(4, 10, 10_000_000)),
    }


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_hostile_mail_of_the_largest_sizes(target: Target) -> None:
    async with watched(target):
        for name, octets in larger().items():
            await all_at_once(target, [(name, octets)] * 4, at_once=4, seconds=180)  # they keep clamd busy for a minute; rspamd takes none of them


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_hundreds_of_costly_headers_at_once(target: Target) -> None:
    async with watched(target):
        await all_at_once(target, [(name, hostile.MESSAGES[name]()) for name in COSTLY * 80], at_once=400)
