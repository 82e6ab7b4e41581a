"""Small contents of ACTIVE entries in memory, so that a message just committed is worked without reading it back."""

from __future__ import annotations


class Cache:
    """Contents by entry id, up to a number of octets in all; what comes when it is full is not kept."""

    def __init__(self, limit: int) -> None:
        self.octets = 0
        self._limit = limit
        self._contents: dict[str, bytes] = {}

    def keep(self, entry_id: str, data: bytes) -> None:
        """Keep this content, if there is room."""
        if self.octets + len(data) <= self._limit:
            self._contents[entry_id] = data
            self.octets += len(data)

    def get(self, entry_id: str) -> bytes | None:
        """The content, where it is kept."""
        return self._contents.get(entry_id)

    def forget(self, entry_id: str) -> None:
        """Let go of a content, if it is kept."""
        self.octets -= len(self._contents.pop(entry_id, b""))

    def clear(self) -> None:
        """Let go of everything."""
        self._contents.clear()
        self.octets = 0
