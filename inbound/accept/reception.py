"""The content of one message, from the client into a draft: how it is framed, how large it may be, how slowly it may come.

What is wrong, with the content or with us, is kept until the client has sent all of it: were it said before, the rest of the
content would be taken for commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbound.accept import reply
from inbound.accept.connection import SKIP_LIMIT, Closed
from inbound.accept.framing import Framer, received_count
from inbound.accept.reply import Refusal, ReplyError
from inbound.accept.spool import Draft

if TYPE_CHECKING:
    from inbound.accept.session import Session

HEADER_LIMIT = 102_400
RATE_GRACE = 180.0  # seconds of DATA before the minimum rate counts: who says little gets no less time than who says nothing


class Reception:
    """One message that is coming in."""

    def __init__(self, session: Session, draft: Draft) -> None:
        self.draft = draft
        self._session = session
        self._limits = session.listener.limits
        self._started = session.loop.time()
        self._received = 0
        self._trouble: ReplyError | None = None

    async def until_dot(self) -> None:
        """Stream the content into the draft, until the final dot. Raises ReplyError after it, Closed."""
        framer = Framer()
        while not framer.ended:
            chunk = await self._session.read(self._limits.data_timeout)
            self._received += len(chunk)
            await self._keep(framer.feed(chunk))
            if not framer.ended:
                self._pace()
        if framer.rest:
            self._session.unread(framer.rest)  # what was pipelined behind the final dot
        self._judge()

    async def _keep(self, piece: bytes) -> None:
        if self._trouble is not None:
            return
        if self.draft.size + len(piece) > self._limits.message_size:
            await self.draft.discard()
            self._trouble = Refusal(reply.TOO_LARGE)
            return
        try:
            if self.draft.add(piece):
                await self.draft.flush()
        except Exception as error:
            await self.draft.discard()
            self._trouble = self._session.listener.trouble(self._session, "DATA", error)

    def _pace(self) -> None:
        """End a session whose content never ends or only drips. Raises Closed."""
        elapsed = self._session.loop.time() - self._started
        endless = self._received > 2 * self._limits.message_size + SKIP_LIMIT
        if endless or (elapsed > RATE_GRACE and self._received < self._limits.min_data_rate * elapsed):
            self._session.refuse(reply.ENDLESS if endless else reply.TOO_SLOW, "DATA")
            raise Closed

    def _judge(self) -> None:
        """Is what came whole worth keeping? Raises ReplyError."""
        if self._trouble is not None:
            raise self._trouble
        if received_count(self.draft.head(HEADER_LIMIT)) > self._limits.hops:
            raise Refusal(reply.LOOP)
