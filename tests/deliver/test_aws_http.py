"""The way to AWS when it is not smooth: servers that hang, close, redirect, refuse, lie about their size, or are reached by a proxy."""

from __future__ import annotations

import asyncio
import datetime
import io
import os
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import BinaryIO

import pytest
import trustme
from wire import OK, Asked, Wire, failure, http

from inbound.assess.rendering import BytesContent, Rendering
from inbound.deliver.aws import Access
from inbound.deliver.aws import http as transport
from inbound.deliver.aws.client import AwsClient
from inbound.deliver.sinks import MessageRefused, SinkDown
from inbound.operate.dev.session import core_session

BODY = Rendering(b"Return-Path: <>\r\n", BytesContent(b"Subject: x\r\n\r\nbody\r\n"))
TOPIC = "arn:aws:sns:us-east-1:123456789012:inbound"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:handler"
PUBLISHED = http(200, "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>")


class Zeros:
    """A large body that is nowhere in memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.opened = 0

    def open(self) -> BinaryIO:
        self.opened += 1
        size = self.size

        class Reader(io.RawIOBase):
            left = size

            def readable(self) -> bool:
                return True

            def readinto(self, buffer) -> int:
                length = min(len(buffer), self.left)
                buffer[:length] = bytes(length)
                self.left -= length
                return length

        return Reader()  # type: ignore[return-value]


@asynccontextmanager
async def client(endpoint: str, **access: object) -> AsyncIterator[AwsClient]:
    aws = AwsClient(Access(endpoint, "us-east-1", **{"session": lambda: core_session("us-east-1"), "proxies": False, **access}))  # type: ignore[arg-type]
    try:
        yield aws
    finally:
        await aws.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions need not wait."""
    monkeypatch.setattr("inbound.deliver.aws.calls.BACKOFF", 0.0)


# --- repetitions ---


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout"), (429, "TooManyRequests")])
async def test_what_a_moment_may_cure_is_sent_again_once(status: int, code: str) -> None:
    answers = [http(status, failure(code)), OK, http(status, failure(code)), http(status, failure(code)), OK]
    async with Wire(lambda _: answers.pop(0)) as wire, client(wire.endpoint) as aws:
        await aws.put_object("mail", "a", BODY)
        with pytest.raises(SinkDown, match=code):
            await aws.put_object("mail", "b", BODY)
        assert [asked.target for asked in wire.asked] == ["/mail/a", "/mail/a", "/mail/b", "/mail/b"]


async def test_what_is_refused_is_not_sent_again() -> None:
    async with Wire(lambda _: http(403, failure("AccessDenied", "no"))) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match=r"^AccessDenied: no$"):
            await aws.put_object("mail", "a", BODY)
        assert len(wire.asked) == 1


async def test_a_connection_that_was_closed_while_idle_is_no_failure() -> None:
    async with Wire(lambda asked: OK if asked.method == "PUT" else PUBLISHED, closes_idle=True) as wire, client(wire.endpoint) as aws:
        for n in range(20):
            await aws.put_object("mail", str(n), BODY)
            await aws.publish(TOPIC, "s", str(n))
        assert len(wire.asked) >= 40


async def test_a_server_that_closes_without_an_answer_is_tried_twice() -> None:
    async with Wire(lambda _: None) as wire, client(wire.endpoint) as aws:
        for call in (aws.put_object("mail", "a", BODY), aws.publish(TOPIC, "s", "m")):
            before = len(wire.asked)
            with pytest.raises(SinkDown, match="ConnectionClosedError"):
                await call
            assert len(wire.asked) - before == 2


@pytest.mark.parametrize("wait", [True, False])
async def test_a_function_is_invoked_once_whatever_becomes_of_it(*, wait: bool) -> None:
    async with Wire(lambda _: None) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match="ConnectionClosedError"):
            await aws.invoke(FUNCTION, "{}", wait=wait)
        assert len(wire.asked) == 1


async def test_a_function_that_takes_too_long_is_told_in_words_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inbound.deliver.aws.functions.SYNCHRONOUS_TIMEOUT", 0.3)
    async with Wire(lambda _: asyncio.Event()) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match=r"^the function did not answer within 0 s$"):
            await aws.invoke(FUNCTION, "{}", wait=True)
        with pytest.raises(SinkDown, match="ReadTimeoutError"):
            await aws.invoke(FUNCTION, "{}", wait=False)
        assert len(wire.asked) == 2


async def test_a_server_that_takes_no_more_of_a_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    send = transport.Http.send

    async def soon(self: transport.Http, request: transport.Request) -> transport.Response:
        return await send(self, transport.Request(request.method, request.url, request.headers, request.body, "", 0.5))

    monkeypatch.setattr(transport.Http, "send", soon)
    async with Wire(takes=100_000) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match="ReadTimeoutError"):
            await aws.put_object("mail", "a", Zeros(50_000_000))


async def test_a_clock_that_is_wrong_is_set_by_the_services() -> None:
    theirs = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=3)

    def answer(asked: Asked) -> bytes:
        sent = datetime.datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        if abs(theirs - sent) > datetime.timedelta(minutes=15):
            return http(403, failure("RequestTimeTooSkewed"), Date=format_datetime(theirs, usegmt=True))
        return OK

    async with Wire(answer) as wire, client(wire.endpoint) as aws:
        await aws.put_object("mail", "a", BODY)
        await aws.put_object("mail", "b", BODY)
        assert [asked.target for asked in wire.asked] == ["/mail/a", "/mail/a", "/mail/b"]


# --- buckets elsewhere ---


@pytest.mark.parametrize("answer", [
    http(301, failure("PermanentRedirect"), x_amz_bucket_region="eu-west-1"), http(400, failure("AuthorizationHeaderMalformed", region="eu-west-1")),
    http(307, failure("TemporaryRedirect"), x_amz_bucket_region="eu-west-1", Location="http://127.0.0.1:1/"),
    http(400, failure("IllegalLocationConstraintException"), x_amz_bucket_region="eu-west-1"),
])
async def test_a_bucket_in_another_region_is_found_there_and_remembered(answer: bytes) -> None:
    def region(asked: Asked) -> str:
        return asked.headers["authorization"].split("/")[2]

    async with Wire(lambda asked: OK if region(asked) == "eu-west-1" else answer) as wire, client(wire.endpoint) as aws:
        await aws.put_object("mail", "a", BODY)
        await aws.put_object("mail", "b", BODY)
        await aws.put_object("other", "c", BODY)
        assert [(asked.target, region(asked)) for asked in wire.asked] == [
            ("/mail/a", "us-east-1"), ("/mail/a", "eu-west-1"), ("/mail/b", "eu-west-1"), ("/other/c", "us-east-1"), ("/other/c", "eu-west-1")]


async def test_a_redirect_without_a_region_is_asked_about() -> None:
    def answer(asked: Asked) -> bytes:
        if asked.method == "HEAD":
            return http(301, "", x_amz_bucket_region="eu-west-1")
        return OK if "/eu-west-1/" in asked.headers["authorization"] else http(301, failure("PermanentRedirect"))

    async with Wire(answer) as wire, client(wire.endpoint) as aws:
        await aws.put_object("mail", "a", BODY)
        first, *asking, last = (asked.method for asked in wire.asked)
        assert (first, {*asking}, last) == ("PUT", {"HEAD"}, "PUT")


async def test_no_redirect_leads_elsewhere() -> None:
    async with Wire() as elsewhere, Wire(lambda _: http(301, "", Location=f"{elsewhere.endpoint}/mail/a")) as wire, client(wire.endpoint) as aws:
        for call in (lambda: aws.put_object("mail", "a", BODY), lambda: aws.publish(TOPIC, "s", "m"), lambda: aws.invoke(FUNCTION, "{}", wait=False)):
            with pytest.raises(SinkDown, match=r"^301: Moved Permanently$"):
                await call()
        assert elsewhere.asked == []


async def test_a_bucket_that_is_nowhere_does_not_go_round_in_circles() -> None:
    async with Wire(lambda _: http(301, failure("PermanentRedirect"), x_amz_bucket_region="eu-west-1")) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match="PermanentRedirect"):
            await aws.put_object("mail", "a", BODY)
        assert len(wire.asked) == 2


# --- large bodies ---


async def test_a_large_body_is_streamed_with_its_checksum_and_never_held_whole() -> None:
    size = 30_000_000
    async with Wire(keeps_bodies=False) as wire, client(wire.endpoint) as aws:
        await aws.put_object("mail", "warm", Zeros(2_000_000))
        wire.asked.clear()

        tracemalloc.start()
        try:
            await aws.put_object("mail", "large", Zeros(size))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 5_000_000
        (asked,) = wire.asked
        assert asked.headers["content-length"] == str(size)
        assert asked.headers["x-amz-checksum-crc32"]
        assert asked.headers["expect"] == "100-continue"
        assert "transfer-encoding" not in asked.headers


async def test_a_large_body_is_sent_whole_again() -> None:
    body = Zeros(3_000_000)
    answers = [http(500, failure("InternalError")), None, OK]
    async with Wire(lambda _: answers.pop(0)) as wire, client(wire.endpoint) as aws:
        await aws.put_object("mail", "a", body)
        assert [asked.body == bytes(3_000_000) for asked in wire.asked] == [True, True, True]
        assert body.opened == 4  # once for the checksum


async def test_who_is_refused_does_not_send_a_large_body() -> None:
    body = Zeros(3_000_000)
    async with Wire(refuses=http(403, failure("AccessDenied", "no"))) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match=r"^AccessDenied: no$"):
            await asyncio.wait_for(aws.put_object("mail", "a", body), 10)
        assert body.opened == 1


async def test_a_server_that_does_not_know_100_continue_gets_the_body_all_the_same() -> None:
    async with Wire(continues=False) as wire, client(wire.endpoint) as aws:
        before = time.monotonic()
        await asyncio.wait_for(aws.put_object("mail", "a", Zeros(2_000_000)), 20)
        assert time.monotonic() - before >= transport.PATIENCE
        assert len(wire.asked[0].body) == 2_000_000


async def test_an_object_too_large_for_the_store_is_final() -> None:
    async with Wire(refuses=http(413, "")) as wire, client(wire.endpoint) as aws:
        with pytest.raises(MessageRefused, match="413"):
            await aws.put_object("mail", "a", Zeros(3_000_000))


@pytest.mark.parametrize("headers", ["Content-Length: 5000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"])
async def test_an_answer_without_end_is_not_read(headers: str) -> None:
    pieces = b"x" * 2_000_000 if "Length" in headers else b"".join(b"%x\r\n%b\r\n" % (65536, b"x" * 65536) for _ in range(40))
    async with Wire(lambda _: f"HTTP/1.1 200 OK\r\nETag: 0\r\n{headers}".encode() + pieces) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match="answers with more than"):
            await asyncio.wait_for(aws.put_object("mail", "a", BODY), 10)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\0"])
async def test_what_is_no_http_is_told_in_one_line(answer: bytes) -> None:
    async with Wire(lambda _: answer + b"\r\n\r\n", closes_idle=True) as wire, client(wire.endpoint) as aws:
        for call in (aws.put_object("mail", "a", BODY), aws.publish(TOPIC, "s", "m"), aws.invoke(FUNCTION, "{}", wait=True)):
            with pytest.raises(SinkDown) as caught:
                await asyncio.wait_for(call, 20)
            assert "\n" not in str(caught.value)


# --- TLS and proxies ---


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def trusting(path: Path):
    def make():
        session = core_session("us-east-1")
        session.set_config_variable("ca_bundle", str(path))
        return session

    return make


async def test_over_tls_the_body_is_not_signed_and_its_checksum_is(authority: trustme.CA, tmp_path: Path) -> None:
    async with Wire(tls=server_side(authority)) as wire, client(wire.endpoint, session=trusting(tmp_path / "ca.pem")) as aws:
        await aws.put_object("mail", "a", BODY)
        await aws.put_object("mail", "b", Zeros(2_000_000))
        for asked in wire.asked:
            assert asked.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
            assert "x-amz-checksum-crc32" in asked.headers["authorization"]


async def test_a_certificate_that_nobody_vouches_for_is_refused(authority: trustme.CA) -> None:
    async with Wire(tls=server_side(authority)) as wire, client(wire.endpoint) as aws:
        with pytest.raises(SinkDown, match="SSLError: SSL validation failed"):
            await aws.put_object("mail", "a", BODY)
        assert wire.asked == []


async def test_a_certificate_of_another_name_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    async with Wire(tls=context) as wire, client(wire.endpoint, session=trusting(tmp_path / "ca.pem")) as aws:
        with pytest.raises(SinkDown, match="SSLError"):
            await aws.put_object("mail", "a", BODY)


async def test_a_ca_bundle_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with client("https://127.0.0.1:1", session=trusting(tmp_path / "none.pem")) as aws:
        for _ in range(2):
            with pytest.raises(SinkDown, match=r"cannot read the certificate authorities in .*none\.pem: No such file"):
                await aws.put_object("mail", "a", BODY)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


async def test_a_proxy_gets_the_whole_url_and_its_password(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Wire() as proxy, client("http://store.test", proxies=True) as aws:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        await aws.put_object("mail", "in/ä", BODY)
        (asked,) = proxy.asked
        assert asked.target == "http://store.test/mail/in/%C3%A4"
        assert asked.headers["host"] == "store.test"
        assert asked.headers["proxy-authorization"] == "Basic dXNlcjp3b3Jk"


async def test_a_proxy_is_asked_for_a_tunnel_to_what_speaks_tls(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Wire(lambda _: http(407, "")) as proxy, client("https://store.test", proxies=True) as aws:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        with pytest.raises(SinkDown, match=r"ProxyConnectionError: Failed to connect to the proxy http://127\.0\.0\.1:\d+: it answers 407") as caught:
            await aws.put_object("mail", "a", BODY)
        assert "word" not in str(caught.value)
        assert {asked.line for asked in proxy.asked} == {"CONNECT store.test:443 HTTP/1.1"}
        assert all("authorization" not in asked.headers for asked in proxy.asked)


# --- many at once ---


async def test_a_bucket_that_hangs_holds_up_no_other() -> None:
    hangs = asyncio.Event()
    async with Wire(lambda asked: hangs if asked.target.startswith("/slow/") else OK) as wire, client(wire.endpoint) as aws:
        slow = [asyncio.create_task(aws.put_object("slow", str(n), BODY)) for n in range(300)]
        await asyncio.wait_for(asyncio.gather(*(aws.put_object("mail", str(n), BODY) for n in range(50))), 20)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_what_is_cancelled_ends_at_once() -> None:
    async with Wire(lambda _: asyncio.Event()) as wire, client(wire.endpoint) as aws:
        calls = [asyncio.create_task(work) for work in (aws.put_object("mail", "a", BODY), aws.publish(TOPIC, "s", "m"),
                                                         aws.invoke(FUNCTION, "{}", wait=True))]
        await asyncio.wait(calls, timeout=0.5)
        for call in calls:
            call.cancel()
        done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert all(isinstance(each, asyncio.CancelledError) for each in done)


async def test_nothing_goes_out_after_the_end() -> None:
    async with Wire() as wire:
        async with client(wire.endpoint) as aws:
            await aws.put_object("mail", "a", BODY)
        with pytest.raises(SinkDown, match="closed"):
            await aws.put_object("mail", "b", BODY)
        assert len(wire.asked) == 1
