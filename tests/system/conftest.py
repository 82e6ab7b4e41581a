"""The services that are started here ask a DNS server that knows nothing, and not that of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import process
import pytest
from dns_server import DnsServer


@pytest.fixture(scope="session", autouse=True)
def _dns_that_knows_nothing() -> Iterator[None]:
    with DnsServer() as dns:
        process.DNS = dns.setting
        yield
