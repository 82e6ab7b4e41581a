"""Fixtures for tests of processes: the services that are started ask a DNS server that knows nothing, and none outlives its test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

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
def no_process_outlives_its_test() -> Iterator[None]:
    """Whatever a failed test left is ended."""
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
