"""What all tests share: the option that writes golden files anew, and the scanners."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from scanners import ClamdAddresses, running_clamd, running_rspamd

settings.register_profile("patient", settings(), deadline=None)  # a machine with much to do is no failure; settings() are those of CI there
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write the expected files of tests/golden from what the code does now")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that two workers end together."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/faults/", "tests/system/")))


@pytest.fixture(scope="session")
def clamd() -> Iterator[ClamdAddresses]:
    """The real clamd, knowing EICAR."""
    with running_clamd() as addresses:
        yield addresses


@pytest.fixture(scope="session")
def rspamd() -> Iterator[int]:
    """The real rspamd: the port of its normal worker."""
    with running_rspamd() as port:
        yield port
