"""The content of one message, from the client into a draft: how it is framed, how large it may be, how slowly it may come.

What is wrong, with the content or with us, is kept as `trouble` until the client has sent what it is sending: were it said before,
the rest of the content would be taken for commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbound.accept import reply
from inbound.accept.connection import SKIP_LIMIT, Closed
from inbound.accept.framing import Framer
from inbound.accept.inspection import Inspection
from inbound.accept.reply import Refusal, ReplyError
from inbound.accept.spool import Draft

if TYPE_CHECKING:
    from inbound.accept.session import Session

HEADER_LIMIT = 102_400
RATE_GRACE = 180.0  # seconds of content before the minimum rate counts: who says little gets no less time than who says nothing


class Reception:
    """One message that is coming in, by DATA or by BDAT. Without a draft it only takes the octets that nobody wants."""

    def __init__(self, session: Session, draft: Draft | None, trouble: ReplyError | None = None) -> None:
        self.trouble = trouble
        self.told = False  # has the client heard of the trouble?
        self.size = 0  # octets that were kept
        self._draft = draft
        self._is_whole = False  # has it been judged?
        self._session = session
        self._limits = session.listener.limits
        self._bound = 2 * self._limits.message_size + SKIP_LIMIT  # what is sent beyond this has no end
        self._inspection = Inspection(self._limits)
        self._started = session.loop.time()
        self._received = 0

    async def until_dot(self) -> None:
        """Take the content that DATA announces, to the final dot (RFC 5321 §4.1.1.4). Raises Closed."""
        framer = Framer()
        try:
            while not framer.ended:
                octets = await self._session.read(self._limits.data_timeout)
                self._received += len(octets)
                await self._keep(framer.feed(octets))
                if not framer.ended:
                    self._pace("DATA")
            if framer.rest:
                self._session.unread(framer.rest)  # what was pipelined behind the final dot
        except Exception as error:
            self._lost("DATA", error)

    async def chunk(self, size: int, *, last: bool) -> None:
        """Take the octets that a BDAT announces, all of them (RFC 3030 §2). Raises Closed."""
        if self._received + size > self._bound:
            self._session.refuse(reply.TOO_LARGE, "BDAT")
            self._session.refuse(reply.ENDLESS, "BDAT")
            raise Closed
        if self.size + size > self._limits.message_size:
            await self._fail(Refusal(reply.TOO_LARGE))
        remaining = size
        try:
            while remaining:
                octets = await self._session.read(self._limits.data_timeout, remaining)
                remaining -= len(octets)
                self._received += len(octets)
                await self._keep(octets)
                if remaining or not last:
                    self._pace("BDAT")
        except Exception as error:
            self._lost("BDAT", error)

    def judge(self) -> Draft:
        """The draft of content that came whole, and is worth keeping. Raises ReplyError."""
        self._is_whole = True
        if self.trouble is not None:
            raise self.trouble
        if self._draft is None:
            raise ValueError("a reception without a draft has a trouble")
        refusal = self._inspection.refusal(self._draft.head(HEADER_LIMIT))
        if refusal is not None:
            raise Refusal(refusal)
        return self._draft

    def give_up(self, trouble: ReplyError) -> None:
        """Keep nothing of content that is still coming: its memory is wanted. The client hears of it when all has come."""
        if self.trouble is None and self._draft is not None and not self._is_whole:
            self.trouble = trouble
            self._draft.forget()

    async def discard(self) -> None:
        """Forget what has come. Harmless after the draft was put."""
        if self._draft is not None:
            await self._draft.discard()

    async def _keep(self, piece: bytes) -> None:
        if self.trouble is not None or self._draft is None:
            return
        if self.size + len(piece) > self._limits.message_size:
            await self._fail(Refusal(reply.TOO_LARGE))
            return
        self.size += len(piece)
        self._inspection.feed(piece)
        try:
            if self._draft.add(piece):
                await self._draft.flush()
        except Exception as error:
            await self._fail(self._session.listener.trouble(self._session, "DATA", error))

    async def _fail(self, trouble: ReplyError) -> None:
        """Nothing more is kept: the draft goes at once, the trouble is told in its time."""
        if self.trouble is None:
            self.trouble = trouble
            await self.discard()

    def _pace(self, command: str) -> None:
        """End a session whose content never ends or only drips. Raises Closed."""
        elapsed = self._session.loop.time() - self._started
        endless = self._received > self._bound
        if endless or (elapsed > RATE_GRACE and self._received < self._limits.min_data_rate * elapsed):
            self._session.refuse(reply.ENDLESS if endless else reply.TOO_SLOW, command)
            raise Closed

    def _lost(self, command: str, error: Exception) -> None:
        """Where the content ends is not known any more: end the session, with what is our own trouble. Raises Closed."""
        if not isinstance(error, Closed):
            self._session.refuse(self._session.listener.trouble(self._session, command, error).reply, command)
        raise Closed from error
