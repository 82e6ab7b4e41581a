"""Messages to put into a spool, and the one way to put them."""

from __future__ import annotations

from dataclasses import dataclass

from inbound.accept.envelope import Envelope, Peer, Tls, new_message_id
from inbound.accept.spool import Draft, Entry, Outcome, Spool, State, StepRecord, Update

PIECE = 10_000


@dataclass
class Clock:
    """Time that stands still until a test moves it."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def envelope(message_id: str = "", *, received: float = 1_700_000_000.0, revision: str = "") -> Envelope:
    return Envelope(
        message_id or new_message_id(),
        Peer("192.0.2.1", 54321, "mx.sender.example"),
        "mx.sender.example",
        "sender@sender.example",
        ("one@example.com", "two@example.com"),
        received,
        received - 2.5,
        revision,
        tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        body="8BITMIME",
        smtputf8=True,
        parameters=("SIZE=1000", "BODY=8BITMIME"),
    )


def octets(size: int, seed: int = 1) -> bytes:
    """Octets of every value, different at every place that matters."""
    block = bytes((i * 7 + i // 251 + seed) % 256 for i in range(4096))
    return (block * (size // len(block) + 1))[:size]


async def drafted(spool: Spool, message_id: str, data: bytes) -> Draft:
    draft = spool.draft(message_id)
    for start in range(0, len(data), PIECE):
        if draft.add(data[start : start + PIECE]):
            await draft.flush()
    return draft


async def put(
    spool: Spool,
    data: bytes = b"Subject: hello\r\n\r\nhello\r\n",
    *,
    held: bool = True,
    received: float = 1_700_000_000.0,
    revision: str = "",
    message_id: str = "",
) -> Entry:
    message = envelope(message_id, received=received, revision=revision)
    return await spool.put(message, await drafted(spool, message.message_id, data), held=held)


async def read(spool: Spool, entry_id: str) -> bytes:
    content = await spool.content(entry_id)
    with content.open() as file:
        return file.read()


def step(rule: str = "rule", index: int = 0, **changes: object) -> StepRecord:
    values = {
        "rule": rule,
        "index": index,
        "part": "action",
        "digest": "0123456789abcdef",
        "attempt": 1,
        "started": 1_700_000_001.25,
        "milliseconds": 12,
        "outcome": Outcome.DONE,
        "flow": "CONTINUE",
        "sink": "arn:aws:s3:::mail",
        "detail": {"key": "support/1", "parts": [1, None, True]},
    }
    return StepRecord(**(values | changes))  # type: ignore[arg-type]


def done(finished: float, **changes: object) -> Update:
    return Update(state=State.DONE, finished=finished, **changes)  # type: ignore[arg-type]


def deferred(due: float, **changes: object) -> Update:
    return Update(state=State.DEFERRED, due=due, **changes)  # type: ignore[arg-type]


def dead(finished: float, **changes: object) -> Update:
    return Update(state=State.DEAD, finished=finished, **changes)  # type: ignore[arg-type]
