"""So many in so many seconds, for each of many: token buckets that grow back at a steady rate.

Pure: the time is passed in, as seconds of any steady clock. Kept in memory, so it begins anew with the process.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds."""

    count: int
    seconds: float


class Bucket:
    """Tokens that grow back at a steady rate, up to the count."""

    __slots__ = ("_rate", "_since", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.count)
        self._since = now

    def holds_one(self, now: float) -> bool:
        """Is there room for one more?"""
        grown = max(0.0, now - self._since) * self._rate.count / self._rate.seconds
        self._tokens = min(float(self._rate.count), self._tokens + grown)
        self._since = now
        return self._tokens >= 1.0

    def add(self, tokens: float) -> None:
        """Take tokens out (negative), or give them back."""
        self._tokens = min(float(self._rate.count), self._tokens + tokens)


class Buckets:
    """A bucket for each key, for the `limit` keys used last."""

    def __init__(self, rate: Rate, limit: int) -> None:
        self.rate = rate
        self._limit = limit
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, key: str, now: float) -> Bucket:
        """The bucket of the key: a full one, where none is remembered."""
        bucket = self._buckets.pop(key, None) or Bucket(self.rate, now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)
        return bucket

    def known(self, key: str) -> Bucket | None:
        """The bucket of the key, if it is remembered."""
        return self._buckets.get(key)
