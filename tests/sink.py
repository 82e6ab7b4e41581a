"""A sink that answers like S3, SNS and Lambda over loopback HTTP, keeps what it got, and can be told to fail. For tests of the process."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote

from aiohttp import web

PUBLISHED = '<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>{}</MessageId></PublishResult></PublishResponse>'
BATCH = '<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult>{}</PublishBatchResult></PublishBatchResponse>'
ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIA{0}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>token{0}</SessionToken><Expiration>{1}</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>"""
REFUSED = "<Error><Code>InvalidParameter</Code><Message>Invalid parameter: Message</Message></Error>"
FAILED = "<Error><Code>{}</Code><Message>told to fail</Message></Error>"


class Sink:
    """`objects[bucket/key]` holds what was put and can be fetched, `puts` counts, `published` and `invoked` keep bodies, `metadata` that of objects.

    `fails` is a status that every call gets, with `code` as its error code. `keys` lists the access key of every call. `answers` holds
    (status, headers, body) for a function's name, `always` the same for every call. `lives` is how many seconds a role's credentials last. No
    call is answered before `hang` is set, if there is one; with `hangs`, only those whose path or body holds it wait. `batches` lists how many
    messages each PublishBatch had; without `knows_batches` it is an unknown action. A message that holds `refused` is refused.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: Counter[str] = Counter()
        self.published: list[tuple[str, str]] = []
        self.invoked: list[tuple[str, bytes]] = []
        self.fails = 0
        self.code = "ServiceUnavailable"
        self.keys: list[str] = []
        self.metadata: dict[str, dict[str, str]] = {}
        self.answers: dict[str, tuple[int, dict[str, str], str]] = {}
        self.always: tuple[int, dict[str, str], str] | None = None
        self.assumed = 0
        self.lives = 3600.0
        self.hang: asyncio.Event | None = None
        self.hangs = b""
        self.batches: list[int] = []
        self.knows_batches = True
        self.refused = ""
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
        self.keys.append(request.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0])
        if self.hang is not None and (self.hangs in body or self.hangs in path.encode()):
            async with self.changed:
                self.changed.notify_all()
            await self.hang.wait()
        if self.always:
            status, headers, text = self.always
            answer = web.Response(status=status, headers=headers, text=text)
        else:
            answer = self._failure(request) if self.fails else self._keep(request, path, body)
        async with self.changed:
            self.changed.notify_all()
        return answer

    def _failure(self, request: web.Request) -> web.Response:
        error = FAILED.format(self.code)
        text = error if request.method == "PUT" else f"<ErrorResponse>{error}</ErrorResponse>"
        return web.Response(status=self.fails, text=text, content_type="application/xml")

    def _keep(self, request: web.Request, path: str, body: bytes) -> web.Response:
        if request.method == "GET":
            if path not in self.objects:
                missing = FAILED.format("NoSuchKey").replace("told to fail", "The specified key does not exist.")
                return web.Response(status=404, text=missing, content_type="application/xml")
            return web.Response(body=self.objects[path], headers=self.metadata[path])
        if request.method == "PUT":
            if request.headers.get("Content-Encoding") == "aws-chunked":
                body = dechunk(body)
            self.objects[path] = body
            self.metadata[path] = {k.lower(): v for k, v in request.headers.items() if k.lower().startswith("x-amz-meta-")}
            self.puts[path] += 1
            return web.Response(headers={"ETag": '"0"'})
        if unquote(path).startswith("2015-03-31/functions/"):
            self.invoked.append((path.split("/")[2], body))
            if path.split("/")[2].rsplit(":", 1)[-1] in self.answers:
                status, headers, text = self.answers[path.split("/")[2].rsplit(":", 1)[-1]]
                return web.Response(status=status, headers=headers, text=text)
            wait = request.headers.get("X-Amz-Invocation-Type") == "RequestResponse"
            return web.Response(status=200 if wait else 202, text="null" if wait else "")
        form = parse_qs(body.decode())
        if form["Action"] == ["AssumeRole"]:
            self.assumed += 1
            expires = datetime.now(UTC) + timedelta(seconds=self.lives)
            return web.Response(text=ASSUMED.format(self.assumed, expires.strftime("%Y-%m-%dT%H:%M:%SZ")), content_type="text/xml")
        if form["Action"] == ["PublishBatch"]:
            return self._batch(form)
        if not self._publish(form["TopicArn"][0], form["Message"][0]):
            return web.Response(status=400, text=f"<ErrorResponse>{REFUSED}</ErrorResponse>", content_type="text/xml")
        return web.Response(text=PUBLISHED.format(len(self.published)), content_type="text/xml")

    def _batch(self, form: dict[str, list[str]]) -> web.Response:
        if not self.knows_batches:
            error = "<Error><Code>InvalidAction</Code><Message>PublishBatch</Message></Error>"
            return web.Response(status=400, text=f"<ErrorResponse>{error}</ErrorResponse>", content_type="text/xml")
        told, number = "", 0
        while (entry := f"PublishBatchRequestEntries.member.{number + 1}") + ".Id" in form:
            name, number = form[f"{entry}.Id"][0], number + 1
            if self._publish(form["TopicArn"][0], form[f"{entry}.Message"][0]):
                told += f"<Successful><member><Id>{name}</Id><MessageId>{len(self.published)}</MessageId></member></Successful>"
            else:
                told += f"<Failed><member><Id>{name}</Id><Code>InvalidParameter</Code><SenderFault>true</SenderFault></member></Failed>"
        self.batches.append(number)
        return web.Response(text=BATCH.format(told), content_type="text/xml")

    def _publish(self, topic: str, message: str) -> bool:
        if self.refused and self.refused in message:
            return False
        self.published.append((topic, message))
        return True


def dechunk(body: bytes) -> bytes:
    """The object in an aws-chunked body."""
    out = b""
    while True:
        head, _, body = body.partition(b"\r\n")
        length = int(head.split(b";")[0], 16)
        if not length:
            return out
        out, body = out + body[:length], body[length + 2 :]
