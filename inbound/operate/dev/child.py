"""The process that `inbound dev` keeps beside itself: ministack behind one loopback socket, gone when its parent is.

It imports nothing of `inbound` and is run by its path, so that no file of the folder someone works in can stand in for a module.
Arguments: the parent's process id, the descriptor of the bound socket, and the environment to add, as JSON. Standard input is a pipe
that the parent keeps open; a line `account 123456789012` on it changes the account that test credentials stand for.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import traceback

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

GRACE = 5.0
"""Seconds in which requests may end and state may be written once the parent is gone; what then still runs is killed."""

_FOREIGN = ("AWS_", "MINISTACK_", "LOCALSTACK_", "LAMBDA_", "IOT_", "SFTP_", "EDGE_")
_LOOPBACK = "127.0.0.1,localhost,::1"


def prepare(inherited: dict[str, str], added: dict[str, str]) -> dict[str, str]:
    """The environment of ministack and of the functions it runs: the inherited one without anyone's AWS, and loopback past every proxy."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_FOREIGN)}
    past_proxies = {name: ",".join(filter(None, (kept.get(name), _LOOPBACK))) for name in ("NO_PROXY", "no_proxy")}
    return kept | past_proxies | added


def without_pages(app: ASGIFramework) -> ASGIFramework:
    """Refuse what a browser sends for a web page: ministack answers every origin and runs code, so any page could run code here."""

    async def guarded(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http" and any(name.lower() == b"origin" for name, _ in scope["headers"]):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")], "trailers": False})
            await send({"type": "http.response.body", "body": b"The local AWS does not serve web pages.\n", "more_body": False})
        else:
            await app(scope, receive, send)

    return guarded


def _watch(parent: int, gone: asyncio.Event) -> None:
    """Set `gone` when the parent ends: by its pipe's end, and where there are pidfds by its own end, since a fork may hold the pipe."""
    loop = asyncio.get_running_loop()

    def heard() -> None:
        said = os.read(sys.stdin.fileno(), 4096)
        if not said:
            loop.remove_reader(sys.stdin.fileno())
            gone.set()
        for line in said.decode().splitlines():
            os.environ["MINISTACK_ACCOUNT_ID"] = line.removeprefix("account ")

    loop.add_reader(sys.stdin.fileno(), heard)
    loop.add_signal_handler(signal.SIGTERM, gone.set)
    if hasattr(os, "pidfd_open"):
        try:
            loop.add_reader(os.pidfd_open(parent), gone.set)
        except ProcessLookupError:
            gone.set()
        except OSError:
            return


async def serve(parent: int, listening: int) -> None:
    """Serve ministack on the bound socket until the parent is gone; then end, and with this process every function it runs."""
    app = importlib.import_module("ministack.app").app  # now, since it reads the environment as it is imported
    gone = asyncio.Event()
    _watch(parent, gone)

    async def until_gone() -> None:
        await gone.wait()
        deadline = threading.Timer(GRACE, os.killpg, (0, signal.SIGKILL))
        deadline.daemon = True
        deadline.start()

    config = Config()
    config.bind = [f"fd://{listening}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    try:
        await hypercorn_serve(without_pages(app), config, shutdown_trigger=until_gone)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run until the parent is gone, then take the whole session along."""
    parent, listening, added = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    wanted = prepare(dict(os.environ), added)
    os.environ.clear()
    os.environ.update(wanted)
    asyncio.run(serve(parent, listening))


if __name__ == "__main__":
    main()
