"""The services that are started here ask a DNS server that knows nothing, and not that of the machine; none outlives its test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import process
import pytest
from dns_server import DnsServer


@pytest.fixture(scope="session", autouse=True)
def _dns_that_knows_nothing() -> Iterator[None]:
    with DnsServer() as dns:
        process.DNS = dns.setting
        yield


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    while process.STARTED:
        _end(process.STARTED.pop())


def _end(pid: int) -> None:
    """Only a child of ours that still runs: its number may be another's by now."""
    try:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    except ChildProcessError:
        pass
