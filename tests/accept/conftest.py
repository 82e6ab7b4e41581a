"""The listener is tried on both event loops it may run on: uvloop where it exists, and asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
from event_loops import LOOPS


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops for tests of the listener, asyncio's own for the others of this folder."""
    if item.path.name.startswith("test_listener"):
        return LOOPS
    return {"asyncio": LOOPS["asyncio"]}
