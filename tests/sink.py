"""A sink that answers like S3, SNS and Lambda over loopback HTTP, keeps what it got, and can be told to fail. For tests of the process."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import parse_qs

from aiohttp import web

PUBLISHED = '<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>{}</MessageId></PublishResult></PublishResponse>'
FAILED = "<Error><Code>{}</Code><Message>told to fail</Message></Error>"


class Sink:
    """`objects[bucket/key]` holds what was put, `puts` counts, `published` and `invoked` keep bodies. `fails` is a status that every call gets."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: Counter[str] = Counter()
        self.published: list[tuple[str, str]] = []
        self.invoked: list[tuple[str, bytes]] = []
        self.fails = 0
        self.changed = asyncio.Condition()
        self.endpoint = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Sink:
        app = web.Application(client_max_size=100 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def until(self, holds, seconds: float = 30) -> None:
        """Wait until the condition holds, looking again after every call."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(holds), seconds)

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except ConnectionError:  # the caller was killed
            return web.Response(status=400)
        path = request.match_info["path"]
        answer = self._failure() if self.fails else self._keep(request, path, body)
        async with self.changed:
            self.changed.notify_all()
        return answer

    def _failure(self) -> web.Response:
        return web.Response(status=self.fails, text=FAILED.format("ServiceUnavailable"), content_type="application/xml")

    def _keep(self, request: web.Request, path: str, body: bytes) -> web.Response:
        if request.method == "PUT":
            if request.headers.get("Content-Encoding") == "aws-chunked":
                body = dechunk(body)
            self.objects[path] = body
            self.puts[path] += 1
            return web.Response(headers={"ETag": '"0"'})
        if path.startswith("2015-03-31/functions/"):
            self.invoked.append((path.split("/")[2], body))
            wait = request.headers.get("X-Amz-Invocation-Type") == "RequestResponse"
            return web.Response(status=200 if wait else 202, text="null" if wait else "")
        form = parse_qs(body.decode())
        self.published.append((form["TopicArn"][0], form["Message"][0]))
        return web.Response(text=PUBLISHED.format(len(self.published)), content_type="text/xml")


def dechunk(body: bytes) -> bytes:
    """The object in an aws-chunked body."""
    out = b""
    while True:
        head, _, body = body.partition(b"\r\n")
        length = int(head.split(b";")[0], 16)
        if not length:
            return out
        out, body = out + body[:length], body[length + 2 :]
