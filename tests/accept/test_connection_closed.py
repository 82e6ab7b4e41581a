"""A connection whose transport is closed already: nothing is asked of it that it no longer knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from inbound.accept.connection import Connection


class ClosedTls:
    """A TLS transport of asyncio that was closed twice: it forgot its connection."""

    def is_closing(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        raise AttributeError("'NoneType' object has no attribute '_get_write_buffer_size'")


def test_a_tls_client_that_is_gone_is_not_behind_and_no_trouble_of_ours() -> None:
    connection: Any = SimpleNamespace(transport=ClosedTls())
    behind: Any = Connection.is_behind
    assert behind.fget(connection) is False
