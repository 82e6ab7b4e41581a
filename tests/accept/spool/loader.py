"""A process that fills a spool: python loader.py FOLDER [SIZE…]. It prints `id size` after each put has returned.

Content follows from the id, so whoever reads the spool later can tell whether it is whole. Without sizes it goes on until killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import cycle
from pathlib import Path

from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool import State, Update
from inbound.accept.spool.sqlite import SqliteSpool

THRESHOLD = 20_000
SIZES = (100, 4096, 15_000, 60_000, 300_000)
SESSIONS = 12


def content(message_id: str, size: int) -> bytes:
    return (message_id.encode() * (size // len(message_id) + 1))[:size]


async def put(spool: SqliteSpool, size: int) -> str:
    message_id = new_message_id()
    draft = spool.draft(message_id)
    data = content(message_id, size)
    for start in range(0, size, 16_384):
        if draft.add(data[start : start + 16_384]):
            await draft.flush()
    await spool.put(Envelope(message_id, Peer("192.0.2.1"), "h", "a@b.example", ("c@d.example",), time.time()), draft)
    os.write(1, f"{message_id} {size}\n".encode())
    return message_id


async def session(spool: SqliteSpool, sizes: tuple[int, ...]) -> None:
    for size in cycle(sizes):
        message_id = await put(spool, size)
        await spool.update(message_id, Update(state=State.DONE, finished=time.time()), lazy=True)


async def main(folder: Path, sizes: list[int]) -> None:
    spool = SqliteSpool(folder, blob_threshold=THRESHOLD)
    await spool.start()
    if sizes:
        for size in sizes:
            await put(spool, size)
        await spool.stop()
    else:
        await asyncio.gather(*(session(spool, SIZES[i % 5 :] + SIZES[: i % 5]) for i in range(SESSIONS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]]))
