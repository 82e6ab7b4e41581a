"""What the limits refuse of content that has come whole: its line ends, its header block, its hops. Not its size, which is refused as it comes.

The session asks this of what it receives, `inbound explain` of what it would.
"""

from __future__ import annotations

from inbound.accept import reply
from inbound.accept.framing import HeaderLength, LineEnds, begins_with_field, received_count
from inbound.accept.policy import Limits
from inbound.accept.reply import Reply


class Inspection:
    """Feed it all of the content, in pieces of any size, then ask."""

    __slots__ = ("_header", "_limits", "_line_ends")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._line_ends = None if limits.bare_newlines else LineEnds()
        self._header = HeaderLength() if limits.header_size else None

    def feed(self, piece: bytes) -> None:
        """The next piece of the content."""
        if self._line_ends is not None:
            self._line_ends.feed(piece)
        if self._header is not None:
            self._header.feed(piece)

    def refusal(self, head: bytes) -> Reply | None:
        """Why the content is refused, or None. `head` is how it begins: its header block, or the most of that which is looked at."""
        if self._line_ends is not None and self._line_ends.has_bare:
            return reply.BARE_NEWLINE
        if self._header is not None and self._header.octets > self._limits.header_size and begins_with_field(head):
            return reply.HEADER_TOO_LARGE
        return reply.LOOP if received_count(head) > self._limits.hops else None
