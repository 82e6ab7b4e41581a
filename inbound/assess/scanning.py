"""What virus and spam scanners have in common: one verdict a message, asked over a connection that may be down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess.verdicts import Assessment, Verdict

_PIECE = 65_536
_INLINE = 262_144  # octets; more lies in a file, which is read in a thread


class ScannerDown(Exception):
    """The scanner did not answer: time or an operator may cure it. The text is for people. `asked`: a call was made, and failed."""

    def __init__(self, text: str, *, asked: bool = True) -> None:
        super().__init__(text)
        self.asked = asked


class ScannerBusy(Exception):
    """The scanner was not asked: too many messages wait for it already."""


class Scanner(Protocol):
    """Something that looks at whole messages."""

    @property
    def name(self) -> str:
        """Which scanner, and where: `clamd:127.0.0.1:3310`."""
        ...

    async def scan(self, envelope: Envelope, content: Content) -> Verdict:
        """The verdict; PROCESSING_FAILED for a message that this scanner cannot judge. Raises ScannerDown."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


class Unscanned(Exception):
    """The message waits for `scanner`, by the scanner's name, because of `cause`. `assessment` holds the verdicts formed so far."""

    def __init__(self, assessment: Assessment, scanner: str, cause: Exception) -> None:
        super().__init__(f"{scanner}: {cause}")
        self.assessment = assessment
        self.scanner = scanner
        self.cause = cause


async def pieces(content: Content) -> AsyncIterator[bytes]:
    """The octets of a message, piece by piece. The disk never holds up the event loop."""
    inline = content.size <= _INLINE
    with content.open() if inline else await asyncio.to_thread(content.open) as reader:
        while piece := reader.read(_PIECE) if inline else await asyncio.to_thread(reader.read, _PIECE):
            yield piece
