"""Where SES's messages lie: folders, files, and S3 through boto3. What is there is fetched one by one, in threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

OBJECT_LIMIT = 64 * 1024 * 1024  # octets; SES takes messages up to 40 MB
_JSON = (".json", ".jsonl", ".ndjson")


class SourceError(Exception):
    """A place that cannot be read: one line."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something to fetch. `key` is its object key or its path; `json` tells that its name says it is JSON."""

    where: str
    key: str

    @property
    def json(self) -> bool:
        """Does its name say that it is JSON?"""
        return self.key.lower().endswith(_JSON)


class Source(Protocol):
    """A place with messages."""

    def items(self) -> Iterator[Item]:
        """What is there. Raises SourceError. Blocks."""
        ...

    async def fetch(self, item: Item) -> bytes:
        """Its octets. Raises SourceError."""
        ...


def source(place: str) -> Source:
    """The source for `s3://BUCKET[/PREFIX]`, a folder or a file. Raises SourceError."""
    if place.startswith("s3://"):
        parts = urlsplit(place)
        if not parts.netloc:
            raise SourceError(f"{place}: names no bucket (s3://BUCKET/PREFIX)")
        return Bucket(parts.netloc, place.removeprefix(f"s3://{parts.netloc}").removeprefix("/"))
    path = Path(place)
    if not path.exists():
        raise SourceError(f"{place}: no such file or folder")
    return Folder(path)


class Folder:
    """A folder with everything below it, or one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def items(self) -> Iterator[Item]:
        if self._path.is_file():
            yield Item(str(self._path), str(self._path))
            return
        for folder, folders, names in os.walk(self._path):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if path.is_file():
                    yield Item(str(path), path.relative_to(self._path).as_posix())

    async def fetch(self, item: Item) -> bytes:
        def read() -> bytes:
            try:
                if Path(item.where).stat().st_size > OBJECT_LIMIT:
                    raise SourceError("is larger than any message of SES")
                return Path(item.where).read_bytes()
            except OSError as error:
                raise SourceError(f"cannot be read: {error.strerror or error}") from None

        return await asyncio.to_thread(read)


class Bucket:
    """The objects of a bucket whose keys begin with a prefix. Credentials, region and AWS_ENDPOINT_URL_S3 are boto3's own."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._lock = threading.Lock()
        self._made: Any = None

    def items(self) -> Iterator[Item]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # only s3:// pays for it

        try:
            for page in self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
                for found in page.get("Contents", ()):
                    if not found["Key"].endswith("/"):
                        yield Item(f"s3://{self._bucket}/{found['Key']}", found["Key"])
        except (BotoCoreError, ClientError) as error:
            raise SourceError(f"s3://{self._bucket}/{self._prefix}: {_said(error)}") from None

    async def fetch(self, item: Item) -> bytes:
        return await asyncio.to_thread(self._get, item.key)

    def _get(self, key: str) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # only s3:// pays for it

        try:
            answer = self._client().get_object(Bucket=self._bucket, Key=key)
            with answer["Body"] as body:
                if "x-amz-key-v2" in answer.get("Metadata", {}):
                    raise SourceError("is encrypted with a KMS key by SES (KmsKeyArn); decrypt it with an S3 encryption client first")
                if answer["ContentLength"] > OBJECT_LIMIT:
                    raise SourceError("is larger than any message of SES")
                octets: bytes = body.read()
        except (BotoCoreError, ClientError) as error:
            raise SourceError(f"cannot be read: {_said(error)}") from None
        return octets

    def _client(self) -> Any:
        """One client for all threads."""
        with self._lock:
            if self._made is None:
                import boto3  # noqa: PLC0415  # only s3:// pays for it
                from botocore.config import Config  # noqa: PLC0415

                session = boto3.session.Session()
                config = Config(connect_timeout=5, read_timeout=60, max_pool_connections=64, user_agent_extra="inbound")
                self._made = session.client("s3", region_name=session.region_name or "us-east-1", config=config)
            return self._made


def _said(error: Exception) -> str:
    told = getattr(error, "response", {}).get("Error", {})
    return f"{told.get('Code', '')}: {told.get('Message', '').strip()}" if told else " ".join(str(error).split())
