"""What the contract demands of its callers, the same for every spool. Pure."""

from __future__ import annotations

import re

from inbound.accept.envelope import Envelope
from inbound.accept.spool import State, Update

MESSAGE_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")


def check_message_id(message_id: str) -> None:
    """Raises ValueError for an id that is no plain file name."""
    if not MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"not a message id: {message_id!r}")


def check_update(entry_id: str, update: Update) -> None:
    """Raises ValueError for an update that would leave an entry in no sensible state."""
    if update.state is State.DEFERRED and update.due is None:
        raise ValueError("an update to DEFERRED needs `due`")
    if update.state in (State.DONE, State.DEAD) and update.finished is None:
        raise ValueError(f"an update to {update.state.name} needs `finished`")
    if update.drop_content and update.state is not State.DONE:
        raise ValueError("only an update to DONE may drop the content")
    if update.envelope is not None and update.envelope.message_id != entry_id:
        raise ValueError("an entry keeps its message id")


def check_put(envelope: Envelope, draft_id: str) -> None:
    """Raises ValueError when the draft is another message's."""
    if envelope.message_id != draft_id:
        raise ValueError(f"the draft of {draft_id} cannot be put as {envelope.message_id}")
