"""Sinks that are down, slow, or play dead: acknowledgements go on, the queue grows and drains, and what goes elsewhere is not held up."""

from __future__ import annotations

import json
from pathlib import Path

from ledger import TOPIC, Ledger, Receiver, emptied, left
from process import Serve, converse, message
from proxy import Proxy

RULES = f"""
RuleSets:
  default:
    - Name: troubled
      Recipients: [troubled@example.com]
      Actions: [{{S3Action: {{BucketName: mail}}}}]
    - Name: well
      Recipients: [well@example.com]
      Actions: [{{SNSAction: {{TopicArn: "{TOPIC}"}}}}]
"""
COUNT = 10
CERTAIN = ("reset", "500", "503", "403")  # each call fails at once, so the breaker opens
MODES = ("reset", "silent", "half", "slow", "500", "503", "403")


async def test_a_sink_in_any_trouble_holds_up_neither_clients_nor_others(tmp_path: Path) -> None:
    async with Receiver() as sink, Receiver() as well, Proxy(sink.endpoint) as proxy:
        serve = Serve(tmp_path, RULES, well.endpoint, retry_min="0.2", retry_max="1")
        serve.environment["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
        await serve.start()
        ledger, told = Ledger(), 0
        for mode in MODES:
            sink.fails = int(mode) if mode.isdigit() else 0
            proxy.mode = "pass" if mode.isdigit() else mode
            proxy.reset_all()
            before = len(serve.events)
            for _ in range(COUNT):
                for recipient in ("troubled@example.com", "well@example.com"):
                    sent = ledger.new(4_000)
                    replies = await converse(serve.port, b"EHLO x\r\n", *message(recipient, sent.replace(b"\r\n.", b"\r\n..")[:-2]))
                    assert replies[-1].startswith("250 2.0.0 OK "), (mode, replies)
                    if recipient.startswith("troubled"):
                        ledger.note(replies[-1], sent)
            told += COUNT
            await well.until(lambda n=told: len(well.published) == n, seconds=20)
            if mode in CERTAIN:
                await serve.until(lambda e: e["event"] == "sink.down", after=before)
            held = len(ledger.acknowledged.keys() - sink.stored.keys())
            assert held or mode in ("half", "slow"), f"{mode}: it took all"
            sink.fails = 0
            proxy.heal()
            await sink.until(lambda: ledger.acknowledged.keys() <= sink.stored.keys(), seconds=30)
        ledger.check(sink)
        await emptied(serve)
        assert await serve.kill(15) == 0
    assert left(serve) == {}
    events = [e["event"] for e in serve.events]
    assert events.count("sink.down") >= 4
    assert len(well.published) == told, json.dumps(events)
