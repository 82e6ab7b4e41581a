"""Where a call goes: asked of botocore once for each bucket, region and function, by letting it make a call that it does not send.

So everything that it reads to decide (AWS_ENDPOINT_URL, profiles, FIPS, dual stack, partitions, virtual-hosted or path style) counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from inbound.deliver.aws.sessions import Sessions
from inbound.deliver.aws.signing import Scope
from inbound.deliver.aws.threads import Threads
from inbound.deliver.sinks import SinkDown

KEY = "inbound"  # stands for the key of an object
ROUTES = 65_536  # kept at once
VERSION_4 = frozenset(("v4", "s3v4"))
_CONSTANT = frozenset(("content-type", "user-agent", "x-amz-invocation-type"))


@dataclass(frozen=True, slots=True)
class Route:
    """How calls of one kind reach their service.

    `origin` is scheme, host and port of the URL, `host` the Host header, `path` percent-encoded (of a bucket: up to the key). `headers` are
    those that all such calls have. `has_checksum`: objects go with a CRC-32. `signs_body`: even where TLS protects it. `proxy` is its URL, or
    empty. `region` is the one that was asked for.
    """

    method: str
    origin: str
    host: str
    path: str
    headers: Mapping[str, str]
    scope: Scope
    region: str
    proxy: str = ""
    has_checksum: bool = False
    signs_body: bool = True

    @property
    def is_encrypted(self) -> bool:
        """Does TLS protect what is sent?"""
        return self.origin.startswith("https:")


class Routes:
    """All routes used so far. Every method raises SinkDown where botocore knows no way."""

    def __init__(self, sessions: Sessions, threads: Threads) -> None:
        self._sessions = sessions
        self._threads = threads
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._known: dict[tuple[str, ...], Route] = {}
        self._moved: dict[str, str] = {}  # buckets by the region that they were found in

    async def bucket(self, bucket: str) -> Route:
        """To a bucket, in our region or the one that it was found in."""
        return await self._to(("s3", bucket), lambda: self._moved.get(bucket) or self._sessions.region(), "put_object",
                              Bucket=bucket, Key=KEY, Body=b"")

    async def move(self, bucket: str, region: str) -> Route:
        """The bucket is in that region. The new route to it."""
        if len(self._moved) >= ROUTES:
            self._moved.clear()
        self._moved[bucket] = region
        self._known.pop(("s3", bucket), None)
        return await self.bucket(bucket)

    async def topics(self, region: str) -> Route:
        """To all topics of a region."""
        return await self._to(("sns", region), lambda: region, "publish", TopicArn="arn:aws:sns:us-east-1:0:x", Message="x")

    async def function(self, arn: str, invocation: str) -> Route:
        """To a function."""
        return await self._to(("lambda", arn, invocation), lambda: arn.split(":")[3], "invoke",
                              FunctionName=arn, InvocationType=invocation, Payload=b"{}")

    async def _to(self, key: tuple[str, ...], region: Callable[[], str], operation: str, **parameters: Any) -> Route:
        known = self._known.get(key)
        return known if known is not None else await self._threads.run(lambda: self._found(key, region(), operation, parameters))

    def _found(self, key: tuple[str, ...], region: str, operation: str, parameters: Mapping[str, Any]) -> Route:
        with self._lock:
            if key not in self._known:
                route = self._resolved(key[0], region, operation, parameters)
                if len(self._known) >= ROUTES:
                    self._known.clear()
                self._known[key] = route
            return self._known[key]

    def _resolved(self, service: str, region: str, operation: str, parameters: Mapping[str, Any]) -> Route:
        client = self._clients.get((service, region))
        if client is None:
            client = self._clients[service, region] = self._client(service, region)
        try:
            getattr(client, operation)(**parameters)
        except _NotSent as found:
            return self._route(client, found, region)
        raise SinkDown(f"botocore does not say where {operation} goes")

    def _client(self, service: str, region: str) -> Any:
        """One that makes every request and sends none. Its keys are nobody's: who we are is no matter here, and may take long to learn."""
        client = self._sessions.make(service, region, single=True, aws_access_key_id=KEY, aws_secret_access_key=KEY)
        signatures: list[_Signature] = []

        def note(*, signing_name: str, region_name: str, signature_version: str, **_: Any) -> None:
            signatures.append(_Signature(signing_name, region_name, signature_version))

        def stop(*, request: Any, **_: Any) -> None:
            first = signatures[0]  # another is for a call that the first one would need, as those on directory buckets do
            signatures.clear()
            raise _NotSent(request, first)

        client.meta.events.register_last("before-sign", note)
        client.meta.events.register_first("before-send", stop)
        return client

    def _route(self, client: Any, found: _NotSent, region: str) -> Route:
        request, signature = found.request, found.signature
        if signature.version not in VERSION_4:
            raise SinkDown(f"{request.url.partition('?')[0]} asks for a signature that is not supported ({signature.version})")
        url = urlsplit(request.url)
        is_s3 = request.method == "PUT"
        config = client.meta.config
        return Route(
            method=request.method, origin=f"{url.scheme}://{url.netloc}", host=url.netloc, path=url.path.removesuffix(KEY) if is_s3 else url.path,
            headers=_constant(request.headers), scope=Scope(signature.service, signature.region, is_s3), region=region,
            proxy=_proxy(request.url) if self._sessions.access.proxies else "",
            has_checksum=is_s3 and config.request_checksum_calculation == "when_supported",
            signs_body=not is_s3 or bool((config.s3 or {}).get("payload_signing_enabled")),
        )


@dataclass(frozen=True, slots=True)
class _Signature:
    """What botocore would sign a request with."""

    service: str
    region: str
    version: str


class _NotSent(Exception):
    """A request that was made and not sent."""

    def __init__(self, request: Any, signature: _Signature) -> None:
        super().__init__("not sent")
        self.request = request
        self.signature = signature


def _constant(headers: Mapping[str, Any]) -> dict[str, str]:
    """Those headers that are the same for every request of the kind; all others are about one request."""
    texts = {name: value.decode("latin-1") if isinstance(value, bytes) else str(value) for name, value in headers.items()}
    return {name: value for name, value in texts.items() if name.lower() in _CONSTANT}


def _proxy(url: str) -> str:
    """The proxy that HTTP(S)_PROXY and NO_PROXY ask for."""
    from botocore.httpsession import ProxyConfiguration  # noqa: PLC0415  # on first use, as all of botocore
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    found: str | None = ProxyConfiguration(proxies=get_environ_proxies(url)).proxy_url_for(url)
    return found or ""
