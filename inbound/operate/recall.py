"""The content of a message that the spool does not keep any more, from an S3 object that it went to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from inbound.accept.spool import Entry, Outcome
from inbound.assess.original import original
from inbound.deliver.trace import ACTION
from inbound.operate.proof.sources import Bucket, Item, Source, SourceError


class Gone(Exception):
    """The content cannot be had: why, in one line."""


class Recall:
    """Fetches objects with boto3's own credentials, region and endpoints."""

    def __init__(self, bucket: Callable[[str], Source] = lambda name: Bucket(name, "")) -> None:
        self._bucket = bucket
        self._buckets: dict[str, Source] = {}

    async def content(self, entry: Entry) -> tuple[bytes, str]:
        """The message as it came, and the object it was found in. Raises Gone."""
        troubles = []
        for bucket, key in dict.fromkeys(_objects(entry)):
            place = f"s3://{bucket}/{key}"
            source = self._buckets.setdefault(bucket, self._bucket(bucket))
            try:
                return original(await source.fetch(Item(place, key)), entry.id, entry.size), place
            except SourceError as error:
                troubles.append(f"{place} {error}")
            except ValueError as error:  # NotOriginal, or botocore's word on an endpoint that is none
                troubles.append(f"{place}: {error}")
        raise Gone("its content is not in the spool any more (INBOUND_RETAIN_CONTENT keeps it), and "
                   + ("; ".join(troubles) or "no S3Action stored it"))


def _objects(entry: Entry) -> Iterator[tuple[str, str]]:
    """Where it was stored, the last one first."""
    for record in reversed(entry.steps):
        if record.part == ACTION and record.outcome is Outcome.DONE and record.detail.get("action") == "S3" and "key" in record.detail:
            yield record.detail["bucket"], record.detail["key"]
