"""Fixtures for tests of processes: the services that are started ask a DNS server that knows nothing, and none outlives its test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import process
import pytest
from dns_server import DnsServer


@pytest.fixture(scope="session", autouse=True)
def dns_that_knows_nothing() -> Iterator[None]:
    """And not that of the machine."""
    with DnsServer() as dns:
        process.DNS = dns.setting
        yield


@pytest.fixture(autouse=True)
async def no_process_outlives_its_test() -> AsyncIterator[None]:
    """Whatever a failed test left is ended while its loop runs: left open, it would be a warning in some other test."""
    yield
    while process.STARTED:
        await process.STARTED[-1].end()
