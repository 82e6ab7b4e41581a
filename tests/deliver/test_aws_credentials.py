"""Credentials are renewed before they end, once for all who ask, and nobody waits while the old ones do."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from botocore.credentials import RefreshableCredentials

from inbound.deliver.aws import Access
from inbound.deliver.aws.credentials import Credentials
from inbound.deliver.aws.sessions import Sessions
from inbound.deliver.aws.threads import Threads
from inbound.deliver.sinks import SinkDown


class Source:
    """Credentials that live so many seconds each, and are numbered. A renewal waits for `gate`, and raises `trouble`."""

    def __init__(self, lives: float) -> None:
        self.lives = lives
        self.renewals = 0
        self.gate = threading.Event()
        self.gate.set()
        self.trouble: Exception | None = None
        self.credentials = RefreshableCredentials.create_from_metadata(self.made(), self.renew, "test")

    def made(self) -> dict[str, str]:
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.lives)
        return {"access_key": f"AKIA{self.renewals}", "secret_key": "s", "token": "t", "expiry_time": ends.isoformat()}

    def renew(self) -> dict[str, str]:
        assert self.gate.wait(20)
        if self.trouble:
            raise self.trouble
        self.renewals += 1
        return self.made()


class Session:
    def __init__(self, source: Source) -> None:
        self._source = source

    def get_credentials(self) -> RefreshableCredentials:
        return self._source.credentials


Make = Callable[[float], tuple[Credentials, Source]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    threads, kept = Threads(), []

    def made(lives: float) -> tuple[Credentials, Source]:
        source = Source(lives)
        kept.append((Credentials(Sessions(Access(session=lambda: Session(source))), threads), source))
        return kept[-1]

    yield made
    for credentials, source in kept:
        source.gate.set()
        await credentials.close()
    threads.close()


async def test_credentials_that_last_are_not_renewed(make: Make) -> None:
    credentials, source = make(3600)
    assert {(await credentials.keys(None)).access for _ in range(5)} == {"AKIA0"}
    assert source.renewals == 0


async def test_while_the_old_ones_last_nobody_waits_for_new_ones(make: Make) -> None:
    credentials, source = make(3600)
    await credentials.keys(None)
    source.credentials._expiry_time = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=12)  # within the advisory time
    source.gate.clear()
    for _ in range(5):
        assert (await asyncio.wait_for(credentials.keys(None), 5)).access == "AKIA0"
    source.gate.set()
    renewal = credentials._renewals[None]
    await renewal
    assert (await credentials.keys(None)).access == "AKIA1"
    assert source.renewals == 1


async def test_a_renewal_that_fails_while_the_old_ones_last_is_nobodys_trouble(make: Make) -> None:
    credentials, source = make(3600)
    await credentials.keys(None)
    source.credentials._expiry_time = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=12)
    source.trouble = RuntimeError("metadata service is down")
    for _ in range(3):
        assert (await credentials.keys(None)).access == "AKIA0"
        await asyncio.gather(*credentials._renewals.values())


async def test_all_wait_for_one_renewal_when_the_old_ones_end(make: Make) -> None:
    credentials, source = make(3600)
    await credentials.keys(None)
    source.credentials._expiry_time = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
    found = await asyncio.gather(*(credentials.keys(None) for _ in range(20)))
    assert {keys.access for keys in found} == {"AKIA1"}
    assert source.renewals == 1


async def test_a_renewal_that_fails_when_the_old_ones_end_is_told_and_tried_again(make: Make) -> None:
    credentials, source = make(60)
    source.trouble = RuntimeError("metadata service is down")
    for _ in range(2):
        with pytest.raises(SinkDown, match="metadata service is down"):
            await credentials.keys(None)
    source.trouble = None
    assert (await credentials.keys(None)).access == "AKIA1"


async def test_who_is_cancelled_does_not_end_the_renewal_of_others(make: Make) -> None:
    credentials, source = make(60)
    source.gate.clear()
    calls = [asyncio.create_task(credentials.keys(None)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.wait((calls[0],))
    source.gate.set()
    assert [(await call).access for call in calls[1:]] == ["AKIA1", "AKIA1"]
