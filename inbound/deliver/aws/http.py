"""HTTP to AWS, over aiohttp: connections that are kept, time limits, answers of bounded size, and what went wrong in words for people.

No redirect is followed and no cookie kept: what is signed goes to the endpoint that it was signed for, and nowhere else.
"""

from __future__ import annotations

import asyncio
import http
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from inbound.deliver.aws import Body
from inbound.deliver.aws.sessions import CONNECT_TIMEOUT, READ_TIMEOUT
from inbound.deliver.sinks import SinkDown

PIECE = 256 * 1024  # octets read and sent at once
ANSWER = 1024 * 1024  # octets of an answer that are read
IDLE = 15.0  # seconds for which an unused connection is kept
PATIENCE = 1.0  # seconds that a server has to say 100 (Continue); then the body is sent all the same
EXPECTS = 1024 * 1024  # octets of a body that make it worth to ask first (RFC 9110 §10.1.1)
_LEFT_OUT = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class NoAnswer(SinkDown):
    """The request had no answer: the connection could not be made, or broke, or (`is_waited_for`) stayed silent too long.

    `is_repeated`: it was sent twice already.
    """

    def __init__(self, text: str, *, is_waited_for: bool = False, is_repeated: bool = False) -> None:
        super().__init__(text)
        self.is_waited_for = is_waited_for
        self.is_repeated = is_repeated


@dataclass(slots=True)
class Request:
    """What is sent. `seconds`: how long an answer, and each piece of a large body, may take; `limit`: octets of the answer."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | Body
    proxy: str = ""
    seconds: float = READ_TIMEOUT
    limit: int = ANSWER


@dataclass(slots=True)
class Response:
    """What came back."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def phrase(self) -> str:
        """What the status says, in words."""
        try:
            return http.HTTPStatus(self.status).phrase
        except ValueError:
            return "unknown status"


class Http:
    """Connections to all endpoints. How many are open is bounded by who calls: `sinks` lets only so many calls go at once."""

    def __init__(self, ca_bundle: str) -> None:
        self._ca_bundle = ca_bundle
        self._session: aiohttp.ClientSession | None = None
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def open(self) -> None:
        """Begin. Raises SinkDown where the certificate authorities cannot be read."""
        try:
            tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_bundle)
        except OSError as error:
            raise SinkDown(f"cannot read the certificate authorities in {self._ca_bundle}: {error.strerror or error}") from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=IDLE), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            skip_auto_headers=_LEFT_OUT, trust_env=False, request_class=_Request, raise_for_status=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def send(self, request: Request) -> Response:
        """One request and its answer. Raises NoAnswer, or SinkDown for an answer that is too long."""
        if self._session is None or self._session.closed:
            raise SinkDown("the connections to AWS are closed")
        data = request.body if isinstance(request.body, bytes) else _Pieces(request.body, request.seconds)
        try:
            async with self._session.request(
                request.method, URL(request.url, encoded=True), data=data, headers=request.headers, allow_redirects=False,
                timeout=self._timeout(request.seconds), proxy=request.proxy or None,
                expect100=len(data) >= EXPECTS if isinstance(data, bytes) else (data.size or 0) >= EXPECTS,
            ) as answer:
                body = await _read(answer, request)
                return Response(answer.status, answer.headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(error, request) from error

    def _timeout(self, seconds: float) -> aiohttp.ClientTimeout:
        timeout = self._timeouts.get(seconds)
        if timeout is None:
            timeout = self._timeouts[seconds] = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=seconds)
        return timeout


class _Request(aiohttp.ClientRequest):
    """One that does not wait for ever for a server that knows nothing of 100 (Continue)."""

    def update_expect_continue(self, expect: bool = False) -> None:
        super().update_expect_continue(expect)
        if self._continue is not None:
            self.loop.call_later(PATIENCE, _go_on, self._continue)


def _go_on(waiting: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(True)


class _Pieces(payload.Payload):
    """A body that is read as it is sent, from its beginning whenever it is sent again. A peer that takes nothing for so long is given up."""

    def __init__(self, body: Body, seconds: float) -> None:
        super().__init__(body)
        self._body = body
        self._seconds = seconds
        self._size = body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # as aiohttp asks
        """Never asked of a request's body. Raises TypeError."""
        raise TypeError("a body is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """All of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002  # it is our own size
        """All of it."""
        run = asyncio.get_running_loop().run_in_executor
        reader = await run(None, self._body.open)
        try:
            while piece := await run(None, reader.read, PIECE):
                async with asyncio.timeout(self._seconds):
                    await writer.write(piece)
                    await writer.drain()
        finally:
            reader.close()


async def _read(answer: aiohttp.ClientResponse, request: Request) -> bytes:
    length = answer.content_length
    if length is not None and length <= request.limit:
        return await answer.read()
    pieces, read = [], 0
    async for piece in answer.content.iter_any():
        read += len(piece)
        if read > request.limit:
            answer.close()
            raise SinkDown(f"the endpoint {_origin(request.url)} answers with more than {request.limit} octets")
        pieces.append(piece)
    return b"".join(pieces)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _no_answer(error: Exception, request: Request) -> NoAnswer:  # noqa: PLR0911  # a table
    """In botocore's words, for that is what people look for."""
    to = f'"{_origin(request.url)}/"'
    match error:
        case aiohttp.ConnectionTimeoutError():
            return NoAnswer(f"ConnectTimeoutError: Connect timeout on endpoint URL: {to}")
        case TimeoutError():
            return NoAnswer(f"ReadTimeoutError: Read timeout on endpoint URL: {to}, after {request.seconds:.0f} s", is_waited_for=True)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return NoAnswer(f"SSLError: SSL validation failed for {to}: {_reason(error)}")
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return NoAnswer(f"ProxyConnectionError: Failed to connect to the proxy {_without_password(request.proxy)}: {_reason(error)}")
        case aiohttp.ClientConnectorError():
            return NoAnswer(f"EndpointConnectionError: Could not connect to the endpoint URL: {to}: {_reason(error)}")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | aiohttp.ClientOSError():
            # aiohttp sends a PUT again on a new connection by itself, for the old one may have been closed while it was idle
            return NoAnswer(f"ConnectionClosedError: Connection was closed before we received a valid response from endpoint URL: {to}",
                            is_repeated=request.method == "PUT" and not isinstance(error, aiohttp.ClientPayloadError))
        case aiohttp.ClientResponseError():
            return NoAnswer(f"the endpoint {to} does not answer as AWS does: {_reason(error)}")
        case _:
            return NoAnswer(f"{type(error).__name__} at {to}: {_reason(error)}")


def _without_password(proxy: str) -> str:
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _reason(error: BaseException) -> str:
    """The operating system's or TLS's own words, in one line."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"it answers {error.status}"
    inner: Any = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    return " ".join(str(getattr(inner, "strerror", None) or inner).split())[:300]
