"""One of several processes: a service on the sockets and with the rules that its parent hands it. Run as `python -m` by the parent only.

It obeys its parent and SIGTERM, with which it drains and ends; it has a session of its own, as Ctrl-C is the parent's. When the parent
is gone it ends at once, as in a crash: what it acknowledged is in its spool.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from inbound import log, settings
from inbound.accept.spool.several import spool_folder
from inbound.deliver.alerts import Kind
from inbound.log import Event
from inbound.operate.processes.channel import Channel, Handler
from inbound.operate.station import OneProcess
from inbound.service import Service, event_loop_runner

HIDDEN = (Event.SERVICE_STARTED, Event.SERVICE_DRAINING, Event.SERVICE_STOPPED)  # which the parent tells for all


class Child:
    """The service of this process, and what its parent may ask of it."""

    def __init__(self, number: int, sockets: dict[str, list[socket.socket]]) -> None:
        self.settings = settings.read()
        log.configure(self.settings.log, level=self.settings.log_level, hidden=HIDDEN, shared=True)
        self._rules = ""
        self.service = Service(self.settings, log.get().bind(process=number), inherited=sockets, spool=spool_folder(self.settings.data, number),
                               source=lambda: self._rules, listens=bool(sockets), tells=number == 1)
        self._station = OneProcess(self.service)
        self._ending = asyncio.Event()
        self.handlers: dict[str, Handler] = {
            "start": self._start, "rules": self._take_rules, "alert": self._alert, "alive": self._alive, "stop": self._stop,
            "readiness": self._station.readiness, "numbers": self._station.numbers, "message": self._station.message,
        }

    async def run(self, control: socket.socket) -> None:
        """Until the parent says stop, or is gone."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ending.set)
        channel = await Channel.over(control, self.handlers)
        parent = asyncio.create_task(channel.run())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((parent, ending), return_when=asyncio.FIRST_COMPLETED)
        if parent.done():
            os._exit(1)
        if self.service.ready:
            stopping = asyncio.create_task(self.service.stop())
            await asyncio.wait((parent, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                os._exit(1)
            await stopping

    async def _start(self, rules: str) -> None:
        self._rules = rules
        await self.service.start()

    async def _take_rules(self, rules: str) -> str:
        self._rules = rules
        await self.service.rules.refresh()
        return self.service.rules.current.rule_set.revision

    async def _alert(self, kind: str, detail: str, what: str, over: bool) -> None:  # as it came over the channel
        self.service.alerts.tell(Kind(kind), detail, what, over=over)

    async def _alive(self) -> bool:
        return True

    async def _stop(self) -> None:
        self._ending.set()


def main() -> None:
    """`child.py NUMBER CONTROL SOCKETS`: descriptors, SOCKETS as JSON {"smtp": [4], "smtps": [5]}."""
    number, control, sockets = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), _sockets(json.loads(sys.argv[3]))
    with event_loop_runner() as runner:
        runner.run(_run(number, control, sockets))
    log.flush()
    os._exit(0)  # Python would wait for threads, and a call to a sink that hangs may keep one for a minute


async def _run(number: int, control: socket.socket, sockets: dict[str, list[socket.socket]]) -> None:
    try:
        child = Child(number, sockets)
    except settings.SettingsError as error:
        await _say_why(control, error)
        return
    await child.run(control)


async def _say_why(control: socket.socket, error: Exception) -> None:
    async def start(_rules: str) -> None:
        raise error

    await (await Channel.over(control, {"start": start})).run()


def _sockets(told: dict[str, Any]) -> dict[str, list[socket.socket]]:
    found: dict[str, list[socket.socket]] = {}
    for name, descriptors in told.items():
        for descriptor in descriptors:
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            found.setdefault(name, []).append(sock)
    return found


if __name__ == "__main__":
    main()
