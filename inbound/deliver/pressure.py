"""Back-pressure: while the disk, the spool or its sinks are behind, MAIL is answered with 4yz, so that senders' queues carry the outage.

A look every second asks the file system and the spool; the hot path reads one attribute. What closed the door opens it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inbound.accept import reply
from inbound.accept.reply import Reply
from inbound.accept.spool import Load, Spool, SpoolError
from inbound.deliver.alerts import Kind, Tell, untold
from inbound.log import Event, Log
from inbound.memory import Reserve
from inbound.metrics import DISK_FREE, DISK_RESERVE, OLDEST, PRESSURE, SPOOL_BYTES, SPOOL_FAILURES, SPOOL_TROUBLE, Metrics

LOOK = 1.0  # seconds between looks
SHARE = 20  # a spool that takes long to answer is asked again after a pause so many times as long
PAUSE = 30.0  # but no longer than this
MESSAGES = 1.5  # free space, in messages of the largest size, as Postfix wants it
EARLY = 2  # reserves that are to be free while the content of finished messages is kept
WRITING = "writing"  # the trouble of a spool that cannot keep anything, among others of its kind
FLOOR = 64 << 20  # and no less than this: SQLite's log and the pages that it goes into need room

NO_MEMORY = (reply.NO_MEMORY, "memory ran out; what was held in reserve is given up, and mail is taken when it can be had again")
REFUSALS = (reply.NO_MEMORY, reply.SPOOL_FULL, reply.SPOOL_OVER, reply.BACKLOG)


def reserve(message_size: int) -> int:
    """The octets that must stay free, for messages of at most `message_size` octets."""
    return max(int(MESSAGES * message_size), FLOOR)


def free_octets(folder: Path) -> int:
    """Octets that an unprivileged process may still write there. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where on no mail is taken: less than `reserve` octets free, over `octets` in the spool (None: any), the oldest over `age` seconds."""

    reserve: int
    octets: int | None = None
    age: float = 7200.0


class Pressure:
    """How it stands. `refusal` is what MAIL is answered with, or None; `trouble` why the spool cannot keep anything, or empty."""

    def __init__(self, spool: Spool, folder: Path, bounds: Bounds, log: Log, *, metrics: Metrics | None = None, tell: Tell = untold,
                 memory: Reserve | None = None, free: Callable[[Path], int] = free_octets, clock: Callable[[], float] = time.time) -> None:
        self.refusal: Reply | None = None
        self.why = ""
        self.trouble = ""
        self._spool = spool
        self._folder = folder
        self._bounds = bounds
        self._log = log
        self._metrics = metrics or Metrics()
        self._tell = tell
        self._memory = memory or Reserve(0)
        self._free = free
        self._clock = clock
        self._of_spool: tuple[Reply, str] | None = None  # what the spool's last answer came to
        self._sheds = False  # has the last look made room?
        self._ask_at = 0.0  # when it is asked again, by the loop's clock
        self._metrics.put(DISK_RESERVE, bounds.reserve)
        self._metrics.put(SPOOL_TROUBLE, 0)

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            await self.look(spare=True)

    async def look(self, *, spare: bool = False) -> None:
        """Ask the file system and the spool how it stands now. Where one does not answer, the door stays as it is.

        `spare` a spool that took long to answer the last time.
        """
        loop = asyncio.get_running_loop()
        self._memory.renew()  # in any case: mail is taken with a part of it already
        try:
            free = await self._free_space()
            if not spare or loop.time() >= self._ask_at:
                began = loop.time()
                self._of_spool = await self._spooled(free)
                self._ask_at = loop.time() + min(PAUSE, SHARE * (loop.time() - began))
            found = NO_MEMORY if self._memory.is_short else self._space(free)
            self._turn(*(found or self._of_spool or (None, "")))
            if self.trouble:  # no sender may come to find out that it is over, once a load balancer keeps them away
                await self._spool.probe()
        except SpoolError as error:
            self._memory.note(error)
            self._in_trouble(str(error))
        except OSError as error:
            self._in_trouble(f"{self._folder}: {error.strerror or error}")
        else:
            if self.trouble:
                self._tell(Kind.SPOOL_TROUBLE, "it can be written again", WRITING, over=True)
            self.trouble = ""
            self._metrics.put(SPOOL_TROUBLE, 0)

    def failed(self, error: SpoolError) -> None:
        """A message could not be kept: until a look finds that one could, the spool is in trouble."""
        self._metrics.count(SPOOL_FAILURES)
        self._memory.note(error)
        self._in_trouble(str(error))

    def short(self) -> None:
        """Memory is: until a look finds that there is a reserve of it again, no mail is taken."""
        self._turn(*NO_MEMORY)

    async def _free_space(self) -> int:
        free = await asyncio.to_thread(self._free, self._folder)
        self._metrics.put(DISK_FREE, free)
        return free

    def _space(self, free: int) -> tuple[Reply, str] | None:
        if free >= self._bounds.reserve:
            return None
        return reply.SPOOL_FULL, f"{_mb(free)} free at {self._folder}, where {_mb(self._bounds.reserve)} are to stay free"

    async def _spooled(self, free: int) -> tuple[Reply, str] | None:
        load = await self._with_room(await self._spool.load(), free)
        age = 0.0 if load.oldest is None else max(0.0, self._clock() - load.oldest)
        self._metrics.put(OLDEST, age)
        self._metrics.put(SPOOL_BYTES, load.octets)
        if self._bounds.octets is not None and load.octets > self._bounds.octets:
            return reply.SPOOL_OVER, f"the spool takes {_mb(load.octets)}, INBOUND_SPOOL_MAX is {_mb(self._bounds.octets)}"
        if age > self._bounds.age:
            return reply.BACKLOG, f"the oldest message has waited {age:.0f} s, INBOUND_SPOOL_AGE is {self._bounds.age:.0f} s"
        return None

    async def _with_room(self, load: Load, free: int) -> Load:
        """The load once the content of finished messages is out of the way: it is there while there is room, and closes no door.

        The file of the spool never shrinks. So room is made early, for small messages within the file: then the disk is not filled by what
        is finished, and what is waiting has the reserve to itself.
        """
        bounds = self._bounds
        over = 0 if bounds.octets is None else load.octets - bounds.octets
        short = EARLY * bounds.reserve - free - load.spare
        shed = 0
        if max(over, short) > 0:
            with contextlib.suppress(SpoolError):  # a disk with no room even for that closes the door, as one without such content
                shed = await self._spool.shed(max(over, short))
        if shed and not self._sheds:
            self._log.warning(Event.SERVICE_WARNING, warning="content that INBOUND_RETAIN_CONTENT would keep longer is removed, oldest first, "
                              f"since {'the disk fills up' if short > over else 'the spool reaches INBOUND_SPOOL_MAX'}")
        self._sheds = shed > 0
        return await self._spool.load() if shed else load

    def _in_trouble(self, error: str) -> None:
        if not self.trouble:
            self._tell(Kind.SPOOL_TROUBLE, error, WRITING)
        self.trouble = error
        self._metrics.put(SPOOL_TROUBLE, 1)

    def _turn(self, refusal: Reply | None, why: str) -> None:
        """Let in, or keep out, from now on."""
        before, reason, self.refusal, self.why = self.refusal, self.why, refusal, why
        if refusal is before:
            return
        if before is not None:
            self._tell(_kind(before), f"over: {reason}", before.reason, over=True)
        if refusal is None:
            self._log.info(Event.INTAKE_OPENED)
        else:
            self._log.error(Event.INTAKE_CLOSED, reason=refusal.reason, reply=str(refusal), why=why)
            self._tell(_kind(refusal), why, refusal.reason)
        self._metrics.replace(PRESSURE, {(each.reason,): float(each is refusal) for each in REFUSALS})


def _kind(refusal: Reply) -> Kind:
    return Kind.QUEUE_STUCK if refusal is reply.BACKLOG else Kind.SPOOL_TROUBLE


def _mb(octets: int) -> str:
    return f"{octets / 2**20:.0f} MB" if octets >= 10 * 2**20 else f"{octets} octets"
