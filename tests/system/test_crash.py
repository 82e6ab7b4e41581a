"""kill -9 of a serving process under load: every message that was acknowledged arrives after the restart, whole."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

from process import Serve, connected, message, reply
from sink import Sink

RULES = """
RuleSets:
  default:
    - Name: all
      Recipients: [example.com]
      Actions:
        - S3Action: {BucketName: mail}
        - SNSAction: {TopicArn: "arn:aws:sns:us-east-1:000000000000:inbound"}
"""
KILLS = 3
SIZES = (200, 4_000, 100_000, 400_000)


async def load(port: int, acknowledged: dict[str, bytes], dice: random.Random, until: asyncio.Event) -> None:
    """Send messages of all sizes over one connection until told to stop or cut off; note what was acknowledged."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        async with connected(port) as (reader, writer):
            await reply(reader)
            writer.write(b"EHLO load.test\r\n")
            await reply(reader)
            while not until.is_set():
                marker = b"%016x" % dice.getrandbits(64)
                body = b"Subject: " + marker + b"\r\n\r\n" + b"\r\n".join([marker * 4] * (dice.choice(SIZES) // 66 + 1))
                for command in message("u@example.com", body):
                    writer.write(command)
                    answer = await reply(reader)
                acknowledged[answer.split()[-1]] = body + b"\r\n"


async def test_every_acknowledged_message_arrives_after_kill_9_under_load(tmp_path: Path) -> None:
    dice = random.Random(7)
    acknowledged: dict[str, bytes] = {}
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint)
        for _ in range(KILLS):
            await serve.start()
            stop = asyncio.Event()
            target = len(acknowledged) + dice.randint(20, 80)
            clients = [asyncio.create_task(load(serve.port, acknowledged, dice, stop)) for _ in range(8)]
            await sink.until(lambda n=target: len(acknowledged) >= n)
            await serve.kill()
            stop.set()
            await asyncio.gather(*clients)
        await serve.start()
        await sink.until(lambda: all(f"mail/{i}" in sink.objects for i in acknowledged))
        notified = lambda: {i for i in acknowledged if any(i in text for _, text in sink.published)}  # noqa: E731  # asked again and again
        await sink.until(lambda: len(notified()) + sum(len(b) > 150_000 for b in acknowledged.values()) >= len(acknowledged))
        assert await serve.kill(15) == 0
    assert len(acknowledged) >= 60
    torn = [i for i, body in acknowledged.items() if not sink.objects[f"mail/{i}"].endswith(b"\r\n" + body)]
    assert torn == []
