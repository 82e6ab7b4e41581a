"""The HTTP server: health for load balancers, numbers for Prometheus, and the route of a message for `inbound send` and people's own tools."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection

from aiohttp import web

from inbound.accept.listener import bind
from inbound.assess.verdicts import Status
from inbound.operate.api.names import is_ours
from inbound.operate.metrics import render
from inbound.operate.station import READY, Station
from inbound.settings import Address, SettingsError

STATION: web.AppKey[Station] = web.AppKey("station")
NAMES: web.AppKey[Collection[str]] = web.AppKey("names")
LONGEST_WAIT = 60.0
MISDIRECTED = "not for pages of this host name: ask by IP address, by localhost, or by the name in INBOUND_HOSTNAME or INBOUND_HTTP_LISTEN"


def bind_http(address: Address, chosen_with: str) -> list[socket.socket]:
    """The sockets of the address, which listen: the log names it before the first answer comes from it, and nobody who asks then is turned away.

    Raises SettingsError that names `chosen_with` when it is taken.
    """
    sockets: list[socket.socket] = []
    try:
        sockets = bind(address.host, address.port)
        for sock in sockets:
            sock.listen()
        return sockets
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise SettingsError(f"cannot listen on {address} (HTTP): {error.strerror or error}; choose another with {chosen_with}") from None


async def serve_http(station: Station, sockets: list[socket.socket], names: Collection[str] = ()) -> web.AppRunner:
    """Serve on the sockets; the caller cleans the runner up. `names` are those by which traces may be asked for, besides addresses."""
    app = web.Application()
    app[STATION] = station
    app[NAMES] = frozenset(name.lower() for name in names)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics), web.get("/messages/{id}", message)])
    if station.trial:
        app.add_routes([web.post("/dev/orders", order)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    for sock in sockets:
        await web.SockSite(runner, sock).start()
    return runner


async def healthz(_request: web.Request) -> web.Response:
    """200 while the process lives."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """200 while mail is accepted, else 503 with the reason."""
    found = await request.app[STATION].readiness()
    return web.json_response(found, status=200 if found["status"] == READY else 503)


async def metrics(request: web.Request) -> web.Response:
    """The numbers, as Prometheus or OpenMetrics has them."""
    body, content_type = render(await request.app[STATION].numbers(), request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def message(request: web.Request) -> web.Response:
    """The trace of one message; `?wait=SECONDS` waits until it is done, dead or deferred."""
    _for_us(request)
    message_id = request.match_info["id"]
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", message_id):
        raise web.HTTPNotFound
    found = await request.app[STATION].message(message_id, _wait(request))
    return web.json_response({"error": "no such message"}, status=404) if found is None else web.json_response(found)


async def order(request: web.Request) -> web.Response:
    """Only in `inbound dev`: the verdicts that the message with this SHA-256 shall have, and TXT records that its resolver shall know."""
    _for_us(request)
    trial = request.app[STATION].trial
    if trial is None or request.content_type != "application/json":  # which no page of a stranger can send without asking first
        raise web.HTTPUnsupportedMediaType
    try:
        told = await request.json()
        verdicts = {str(name): Status(status) for name, status in told["verdicts"].items()}
        trial.order(str(told["sha256"]), verdicts, {str(name): str(text) for name, text in told["records"].items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    return web.json_response({"status": "ok"})


def _for_us(request: web.Request) -> None:
    if not is_ours(request.headers.getall("Host", []), request.app[NAMES]):
        raise web.HTTPMisdirectedRequest(text=MISDIRECTED)


def _wait(request: web.Request) -> float:
    try:
        return min(LONGEST_WAIT, max(0.0, float(request.query.get("wait", "0"))))
    except ValueError:
        raise web.HTTPBadRequest(text="wait is a number of seconds") from None


