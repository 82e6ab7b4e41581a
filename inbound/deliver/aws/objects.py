"""PutObject: one request whatever the size, streamed from where the message lies, with the checksum that boto3 gives it."""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
import zlib
from collections.abc import Mapping
from typing import Any

from inbound.deliver.aws import Body
from inbound.deliver.aws.calls import Calls, Failed
from inbound.deliver.aws.errors import Trouble
from inbound.deliver.aws.routes import Route, Routes
from inbound.deliver.aws.sessions import Sessions
from inbound.deliver.aws.signing import UNSIGNED_PAYLOAD
from inbound.deliver.aws.threads import Threads
from inbound.deliver.sinks import SinkDown

SMALL = 256 * 1024  # octets of a body that is read and sent at once, as one
_PIECE = 256 * 1024
_REDIRECTS = frozenset(("PermanentRedirect", "IllegalLocationConstraintException"))


class Objects:
    """Objects in all buckets."""

    def __init__(self, calls: Calls, routes: Routes, sessions: Sessions, threads: Threads) -> None:
        self._calls = calls
        self._routes = routes
        self._sessions = sessions
        self._threads = threads

    async def put(self, bucket: str, key: str, body: Body, metadata: Mapping[str, str], *, role: str | None) -> None:
        """Store it. A bucket that turns out to be in another region is found there. Raises Failed, SinkDown."""
        route = await self._routes.bucket(bucket)
        try:
            await self._put(route, key, body, metadata, role)
        except Failed as error:
            region = await self._region(bucket, route, error.trouble, role)
            if not region or region == route.region:
                raise
            route = await self._routes.move(bucket, region)
            await self._put(route, key, body, metadata, role)

    async def _put(self, route: Route, key: str, body: Body, metadata: Mapping[str, str], role: str | None) -> None:
        is_hashed = route.signs_body or not route.is_encrypted
        content: bytes | Body = body
        if body.size <= SMALL:
            with body.open() as reader:
                content = reader.read()
            digest, checksum = hashlib.sha256(content).hexdigest() if is_hashed else UNSIGNED_PAYLOAD, zlib.crc32(content)
        else:
            digest, checksum = await self._threads.run(lambda: _digest(body, is_hashed=is_hashed, has_checksum=route.has_checksum))
        headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        if route.has_checksum:
            headers["x-amz-sdk-checksum-algorithm"] = "CRC32"
            headers["x-amz-checksum-crc32"] = base64.b64encode(checksum.to_bytes(4, "big")).decode("ascii")
        answer = await self._calls.call(route, content, digest, path=urllib.parse.quote(key, safe="/~"), headers=headers, role=role)
        if not answer.headers.get("ETag"):
            raise SinkDown("the endpoint does not answer as S3 does (PutObject without ETag)")

    async def _region(self, bucket: str, route: Route, trouble: Trouble, role: str | None) -> str:
        """Where the bucket is, if the answer says that it is elsewhere; else an empty text."""
        elsewhere = trouble.status in (301, 302, 307) or trouble.code in _REDIRECTS
        if not elsewhere and not (trouble.code == "AuthorizationHeaderMalformed" and trouble.region):
            return ""
        return trouble.region or await self._threads.run(lambda: self._asked(bucket, route.region, role))

    def _asked(self, bucket: str, region: str, role: str | None) -> str:
        """By HeadBucket; where that tells nothing, the answer that led here tells more than its failure."""
        try:
            answer: Any = self._sessions.client("s3", region, role=role).head_bucket(Bucket=bucket)
        except Exception as error:
            answer = getattr(error, "response", None) or {}
        found: str = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
        return found


def _digest(body: Body, *, is_hashed: bool, has_checksum: bool) -> tuple[str, int]:
    """SHA-256 in hexadecimal (UNSIGNED-PAYLOAD if it is not asked for) and CRC-32 of a large body, read piece by piece."""
    if not is_hashed and not has_checksum:
        return UNSIGNED_PAYLOAD, 0
    sha, crc = hashlib.sha256(), 0
    with body.open() as reader:
        while piece := reader.read(_PIECE):
            if is_hashed:
                sha.update(piece)
            if has_checksum:
                crc = zlib.crc32(piece, crc)
    return sha.hexdigest() if is_hashed else UNSIGNED_PAYLOAD, crc
