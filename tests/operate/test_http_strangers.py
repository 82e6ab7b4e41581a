"""What strangers ask the HTTP server: by names that are not ours, for paths that are none, with methods that are not offered, at any length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from inbound import settings
from inbound.assess.trial import Trial
from inbound.operate.api import bind_http, serve_http
from inbound.operate.api.names import is_ours
from inbound.operate.station import OneProcess
from inbound.service import Service
from inbound.settings import Address

OURS = ("127.0.0.1", "127.0.0.1:8025", "[::1]", "[::1]:8025", "localhost", "localhost:8025", "LOCALHOST.", "a.localhost", "inbound:8025",
        "192.0.2.1:8025", "mx.test", "MX.test.:8025", "inbound.mail.svc.cluster.local", "inbound.internal")
FOREIGN = ("evil.example", "evil.example:8025", "127.0.0.1.evil.example", "localhost.evil.example", "mx.test.evil.example", "notmx.test", "",
           "127.0.0.1@evil.example", "127.0.0.1/evil.example", "evil.example\t", "::1", "[evil.example]", "127.0.0.1:8025:8025", "2130706433.com",
           "mx.testcluster.local", "127.0.0.256")


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A dev's HTTP server, named mx.test, whose service takes no mail."""
    service = Service(settings.read(data=tmp_path), structlog.get_logger(), trial=Trial())
    runner = await serve_http(OneProcess(service), bind_http(Address("127.0.0.1", 0), "--http"), ("mx.test", ""))
    await service.spool.start()
    yield runner.addresses[0][1]
    await runner.cleanup()
    await service.spool.stop()


async def test_who_asks_before_the_start_is_done_is_not_turned_away() -> None:
    (sock,) = bind_http(Address("127.0.0.1", 0), "--http")  # the log names the address from now on
    try:
        _, writer = await asyncio.open_connection(*sock.getsockname())
        writer.close()
        await writer.wait_closed()
    finally:
        sock.close()


async def ask(port: int, request: bytes) -> bytes:
    """Everything that is answered to these octets; bounded in time."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


async def status(port: int, target: str, host: str | None = "127.0.0.1", method: str = "GET", body: bytes = b"") -> int:
    named = b"" if host is None else b"Host: %b\r\n" % host.encode()
    head = b"%b %b HTTP/1.1\r\n%bConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    answer = await ask(port, head % (method.encode(), target.encode(), named, len(body)) + body)
    return int(answer.split()[1])


@pytest.mark.parametrize("host", OURS)
def test_our_names(host: str) -> None:
    assert is_ours([host], {"mx.test"})


@pytest.mark.parametrize("host", FOREIGN)
def test_names_of_strangers(host: str) -> None:
    assert not is_ours([host], {"mx.test"})
    assert not is_ours(["127.0.0.1", host], {"mx.test"}), "a second field does not help"


@given(st.text())
def test_no_host_raises_and_none_with_a_registered_ending_is_ours(text: str) -> None:
    is_ours([text], ())
    assert not is_ours([f"{text}.example"], ())


async def test_a_page_whose_name_is_made_to_point_here_reads_no_trace_and_gives_no_orders(port: int) -> None:
    """DNS rebinding against `inbound dev` on a laptop: the page's origin is its own, so no preflight holds it."""
    order = b'{"sha256":"x","verdicts":{"spf":"FAIL"},"records":{}}'
    assert await status(port, "/messages/none") == 404
    assert await status(port, "/messages/none", "mx.test:8025") == 404
    assert await status(port, "/messages/none", "evil.example") == 421
    assert await status(port, "/dev/orders", "evil.example", "POST", order) == 421
    assert await status(port, "/dev/orders", "localhost:1", "POST", order) == 200
    assert await status(port, "/healthz", "mail.company.example") == 200, "load balancers use any name"
    assert await status(port, "/metrics", "mail.company.example") == 200


async def test_a_request_without_host_is_no_browsers(port: int) -> None:
    answer = await ask(port, b"GET /messages/none HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize("target", [
    "/messages/..%2f..%2fetc%2fpasswd", "/messages/../../etc/passwd", "/messages/%2e%2e/healthz/x", "/messages/a%2fb", "/messages/a%5cb",
    "/messages/%00",
    "/messages/", "/messages/a/b", "/messages/" + "a" * 65, "/messages/%c3%a9", "/messages/a%0d%0ab", "//evil.example/", "/dev/orders", "/",
    "/.git/config",
    "/messages/%252e%252e", "/messages/a*", "/messages/%25",
])
async def test_paths_that_are_none(port: int, target: str) -> None:
    assert await status(port, target) in (404, 405)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
async def test_methods_that_are_not_offered(port: int, method: str) -> None:
    for target in ("/messages/none", "/healthz", "/readyz", "/metrics"):
        answer = await ask(port, b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (method.encode(), target.encode()))
        assert answer.split()[1] in (b"400", b"404", b"405"), (target, answer[:80])
        assert b"access-control-allow" not in answer.lower(), "no page of another origin is let in"


@pytest.mark.parametrize("query", ["wait=" + "9" * 400, "wait=nan", "wait=-inf", "wait=1e-400", "wait=%00", "wait=", "wait=1&wait=x",
                                   "x=" + "y" * 7_000])
async def test_any_query_is_answered_at_once_for_what_is_not_known(port: int, query: str) -> None:
    assert await status(port, f"/messages/none?{query}") in (400, 404)


@pytest.mark.parametrize("request_", [
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n",
    b"POST /dev/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\nConnection: close\r\n\r\n"
    + b"1" * 5_000_000,
    b"POST /dev/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
], ids=["path", "fields", "field", "TLS", "SMTP", "body", "smuggled"])
async def test_what_is_too_long_or_no_http_is_refused_and_others_are_served(port: int, request_: bytes) -> None:
    try:
        answer = await ask(port, request_)
    except ConnectionError:
        answer = b""  # it was reset while it was still sending
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 413", b"HTTP/1.1 431", b"HTTP/1.1 414", b""), answer[:200]
    assert b"Traceback" not in answer
    assert await status(port, "/healthz") == 200


def test_http_is_for_this_machine_unless_chosen_otherwise() -> None:
    assert settings.Settings.model_fields["http_listen"].default == Address("127.0.0.1", 8025)
