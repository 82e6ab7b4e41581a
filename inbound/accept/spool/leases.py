"""The entries this process is working: where they are, and small contents, so that a message just committed is not read back."""

from __future__ import annotations


class Leases:
    """Number and content of ACTIVE entries by id. Contents are held up to `limit` octets in all; what comes beyond is not."""

    def __init__(self, limit: int) -> None:
        self.octets = 0
        self._limit = limit
        self._numbers: dict[str, int] = {}
        self._contents: dict[str, bytes] = {}

    def begin(self, entry_id: str, number: int, data: bytes | None = None) -> None:
        """An entry became ACTIVE."""
        self._numbers[entry_id] = number
        if data is not None and self.octets + len(data) <= self._limit:
            self._contents[entry_id] = data
            self.octets += len(data)

    def number(self, entry_id: str) -> int | None:
        """The number of an entry that is ACTIVE."""
        return self._numbers.get(entry_id)

    def content(self, entry_id: str) -> bytes | None:
        """The content of an entry, where it is held."""
        return self._contents.get(entry_id)

    def end(self, entry_id: str) -> None:
        """An entry is not ACTIVE any more."""
        self._numbers.pop(entry_id, None)
        self.octets -= len(self._contents.pop(entry_id, b""))

    def end_all(self) -> None:
        """No entry is ACTIVE any more."""
        self._numbers.clear()
        self._contents.clear()
        self.octets = 0
