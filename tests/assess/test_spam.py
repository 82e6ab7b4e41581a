"""rspamd, the real one and those that go wrong: a verdict by its action, or the word that it is down, always in time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from letters_with_attachments import letter
from multidict import CIMultiDictProxy
from scanners import GTUBE, RSPAMD_LIMIT, free_port

from inbound.accept.envelope import Envelope, Peer, Tls
from inbound.assess.rendering import BytesContent
from inbound.assess.scanning import ScannerDown
from inbound.assess.spam import Rspamd
from inbound.assess.verdicts import Status, Verdict

ENVELOPE = Envelope("a" * 40, Peer("192.0.2.1", 1, "mx.sender.example"), "helo.sender.example", "ann@sender.example",
                    ("support@example.com", "sales@example.com"), 0.0, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
CLEAN = {"action": "no action", "score": -0.1, "required_score": 15.0, "symbols": {}}


class Fake:
    """Something that only listens where rspamd would, and what it was asked."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        self.headers: list[CIMultiDictProxy[str]] = []
        self.paths: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.headers.append(request.headers)
        self.bodies.append(await request.read())
        return await self.answer(request)


@contextlib.asynccontextmanager
async def fake(answer: Callable[[web.Request], Awaitable[web.StreamResponse]], *, seconds: float = 5.0) -> AsyncIterator[tuple[Rspamd, Fake]]:
    served = Fake(answer)
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/{tail:.*}", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Rspamd(f"http://127.0.0.1:{runner.addresses[0][1]}", limit=RSPAMD_LIMIT, timeout=seconds)
    try:
        yield client, served
    finally:
        await client.close()
        await runner.cleanup()


def saying(told: Any, status: int = 200) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=told if isinstance(told, bytes) else json.dumps(told).encode(), status=status)

    return answer


async def scanned(client: Rspamd, octets: bytes = letter(), envelope: Envelope = ENVELOPE) -> Verdict:
    return await client.scan(envelope, BytesContent(octets))


@pytest.fixture
async def client(rspamd: int) -> AsyncIterator[Rspamd]:
    found = Rspamd(f"http://127.0.0.1:{rspamd}", limit=RSPAMD_LIMIT, timeout=30)
    yield found
    await found.close()


async def test_the_real_rspamd_takes_the_test_line_for_spam(client: Rspamd) -> None:
    verdict = await scanned(client, letter(f"Hello\n\n{GTUBE.decode()}\n"))
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith("rspamd: reject")


async def test_the_real_rspamd_lets_clean_mail_pass(client: Rspamd) -> None:
    local = dataclasses.replace(ENVELOPE, peer=Peer("127.0.0.1"))
    assert (await scanned(client, envelope=local)).status is Status.PASS
    assert (await scanned(client, letter("x\n", b"y" * 600_000), local)).status is Status.PASS, "a message in pieces, over the same connection"


@pytest.mark.parametrize(("octets", "says"), [(RSPAMD_LIMIT + 1, "PROCESSING_FAILED"), (RSPAMD_LIMIT, "PASS")])
async def test_what_rspamd_would_close_the_connection_on_is_not_sent(client: Rspamd, octets: int, says: str) -> None:
    """Found as a scanner that was said to be down, for all messages, since one was too large for it."""
    local = dataclasses.replace(ENVELOPE, peer=Peer("127.0.0.1"))
    head = letter("x\n")
    rest = octets - len(head)
    verdict = await scanned(client, head + ((b"y" * 70 + b"\r\n") * (rest // 72 + 1))[:rest], local)
    assert verdict.status == says
    assert ("not scanned" in verdict.reason) is (says != "PASS")


async def test_what_the_session_told_is_told() -> None:
    async with fake(saying(CLEAN)) as (client, served):
        await scanned(client, b"Subject: x\r\n\r\nbody\r\n")
    assert served.bodies == [b"Subject: x\r\n\r\nbody\r\n"]
    assert served.paths == ["/checkv2"]
    headers = served.headers[0]
    told = {name: headers[name] for name in ("IP", "Hostname", "Helo", "From", "Queue-Id", "TLS-Version", "TLS-Cipher", "Content-Length")}
    assert told == {"IP": "192.0.2.1", "Hostname": "mx.sender.example", "Helo": "helo.sender.example", "From": "ann@sender.example",
                    "Queue-Id": "a" * 40, "TLS-Version": "TLSv1.3", "TLS-Cipher": "TLS_AES_256_GCM_SHA384", "Content-Length": "20"}
    assert headers.getall("Rcpt") == ["support@example.com", "sales@example.com"]


async def test_what_is_not_known_is_not_told() -> None:
    async with fake(saying(CLEAN)) as (client, served):
        await scanned(client, envelope=Envelope("a", Peer("192.0.2.1"), "h", "", ("r@example.com",), 0.0))
    assert not {"Hostname", "TLS-Version", "TLS-Cipher"} & set(served.headers[0])
    assert served.headers[0]["From"] == "<>"


async def test_nothing_that_a_sender_says_breaks_out_of_its_header() -> None:
    hostile = dataclasses.replace(ENVELOPE, helo="a\r\nPass: all", reverse_path="\ud800ä\0@x", forward_paths=("b\nFlags: skip@c",))
    async with fake(saying(CLEAN)) as (client, served):
        await scanned(client, envelope=hostile)
    assert not {"Pass", "Flags"} & set(served.headers[0])
    assert served.headers[0]["Helo"] == "a??Pass: all"
    assert served.headers[0]["From"] == "?ä?@x"


@pytest.mark.parametrize(("action", "status"), [
    ("no action", Status.PASS), ("greylist", Status.GRAY), ("soft reject", Status.GRAY), ("add header", Status.FAIL),
    ("rewrite subject", Status.FAIL), ("reject", Status.FAIL), ("quarantine", Status.FAIL), ("discard", Status.FAIL), ("invented", Status.GRAY),
])
async def test_each_action_has_its_verdict(action: str, status: Status) -> None:
    async with fake(saying({"action": action})) as (client, _):
        assert await scanned(client) == Verdict(status, f"rspamd: {action}")


async def test_the_reason_names_the_score_and_what_weighed_most() -> None:
    symbols = {f"LIGHT_{n}": {"score": 0.1} for n in range(9)} | {"ZERO": {"score": 0}, "HEAVY": {"score": 9.5}, "GOOD": {"score": -3}, "ODD": 7}
    async with fake(saying({"action": "reject", "score": 15.04, "required_score": 15, "symbols": symbols})) as (client, _):
        reason = (await scanned(client)).reason
    assert reason == "rspamd: reject, score 15.0 of 15.0 (HEAVY, GOOD, LIGHT_0, LIGHT_1, LIGHT_2, LIGHT_3, LIGHT_4, LIGHT_5)"


@pytest.mark.parametrize("status", [400, 413])
async def test_a_message_that_rspamd_will_not_take_cannot_be_judged(status: int) -> None:
    async with fake(saying(b"no", status)) as (client, _):
        assert (await scanned(client)).status is Status.PROCESSING_FAILED


@pytest.mark.parametrize(("told", "status"), [
    (b"", 200), (b"<html>", 200), (b"[]", 200), (b'{"action":7}', 200), (b'{"action":"no action"', 200), (b"\xff", 200), (b"{" * 2_000_000, 200),
    ([[]] * 10, 200), (CLEAN, 403), (CLEAN, 404), (CLEAN, 500), (CLEAN, 503),
])
async def test_what_is_no_answer_is_a_scanner_that_is_down(told: Any, status: int) -> None:
    async with fake(saying(told, status)) as (client, _):
        with pytest.raises(ScannerDown):
            await scanned(client)


async def test_an_rspamd_that_never_answers_is_down_after_its_time() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with fake(answer, seconds=0.05) as (client, _):
        with pytest.raises(ScannerDown, match=r"no answer in 0\.05 s"):
            await scanned(client)


async def test_where_nobody_listens_the_scanner_is_down() -> None:
    client = Rspamd(f"http://127.0.0.1:{free_port()}", limit=RSPAMD_LIMIT, timeout=5)
    with pytest.raises(ScannerDown):
        await scanned(client)
    await client.close()


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    async with fake(saying(CLEAN)) as (client, _):
        assert (await scanned(client)).status is Status.PASS


def test_its_name_tells_where_it_is() -> None:
    assert Rspamd("http://127.0.0.1:11333", limit=RSPAMD_LIMIT, timeout=1).name == "rspamd:127.0.0.1:11333"
