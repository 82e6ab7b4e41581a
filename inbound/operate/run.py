"""Runs a service in the foreground: HTTP beside it, signals, exit codes. `serve` and `dev` both end here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from inbound import log
from inbound.accept.spool import SpoolError
from inbound.decide.load import RulesError, RulesUnreadableError
from inbound.operate.api import bind_http, serve_http
from inbound.operate.cli import complain, fail, spool_trouble
from inbound.operate.processes.parent import Parent, left_over
from inbound.operate.station import OneProcess, Station
from inbound.operate.systemd import Notifier, inherited
from inbound.service import Service, event_loop_runner
from inbound.settings import Address, Settings, SettingsError, Supervisor, supervisor

YOUNG = 20_000  # objects made and not freed before the collector looks: some hundred messages in hand
IMPATIENT = 0.5  # seconds after which a second signal is meant: shells and supervisors send some twice

Around = Callable[[Settings], AbstractAsyncContextManager[Service | Parent]]


@contextlib.asynccontextmanager
async def plain(given: Supervisor, settings: Settings) -> AsyncIterator[Service | Parent]:
    """The service alone, in as many processes as the settings say, on the sockets that systemd passes, if it does."""
    behind = await left_over(settings)
    service: Service | Parent
    if settings.processes > 1 or behind:
        service = Parent(settings, log.get(), inherited=inherited(given), left_over=behind)
    else:
        service = Service(settings, log.get(), inherited=inherited(given))
    service.is_supervised = bool(given.notify)
    yield service


def run(settings: Settings, around: Around | None = None, *, started: Callable[[Any], None] = lambda _: None,
        ended: Callable[[], None] = lambda: None) -> None:
    """Run until SIGTERM or SIGINT, drain, exit 0. A second signal ends at once. Exit 1 for broken rules, 2 for settings.

    `started` is called when mail is accepted, `ended` at the end, whatever it was.
    """
    given = supervisor()
    try:
        with event_loop_runner() as runner:
            runner.run(_run(settings, around or functools.partial(plain, given), started, Notifier(given)))
    except RulesUnreadableError as error:
        fail(str(error))
    except RulesError as error:
        complain(str(error), 1)
    except SettingsError as error:
        fail(str(error))
    except SpoolError as error:
        fail(spool_trouble(settings.data, error))
    finally:
        log.flush()
        ended()
    _leave()


def _leave() -> None:
    """Exit 0 now. Python would wait for every thread, and a call to a sink that hangs may keep one for a minute."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(0)


def _tune_collector() -> None:
    """Have Python's garbage collector look at what comes and goes, and not so often: it took a fifth of the CPU of a small message."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)


async def _run(settings: Settings, around: Around, started: Callable[[Any], None], notifier: Notifier) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    def signalled() -> None:
        asked.append(loop.time())
        if asked[-1] - asked[0] > IMPATIENT:
            log.flush()
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    async with around(settings) as service, contextlib.AsyncExitStack() as stack:
        sockets = bind_http(settings.http_listen, service.chosen_with["http"])  # before the first mail, not after it
        for sock in sockets:
            stack.callback(sock.close)
        service.http = Address(*sockets[0].getsockname()[:2])
        starting = asyncio.create_task(service.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        await starting
        stack.push_async_callback(service.stop)
        station: Station = service if isinstance(service, Parent) else OneProcess(service)
        http = await serve_http(station, sockets, (settings.hostname, settings.http_listen.host))
        stack.push_async_callback(http.cleanup)
        started(service)
        _tune_collector()
        notifier.ready(f"receiving at {', '.join(str(a) for a in service.addresses)}")
        watching = asyncio.create_task(notifier.watch())
        await stopping
        notifier.stopping()
        watching.cancel()
