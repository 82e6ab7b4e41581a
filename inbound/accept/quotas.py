"""How many messages one client may send, one sender, and how many one recipient may get, in a time. Over that the answer is 450 4.7.1.

A message counts when it was accepted, once for its client, once for its reverse-path and once for each recipient; messages under way at
once may exceed a quota by their number, which is made up for later. The null reverse-path is nobody's: bounces have no quota as a sender.
"""

from __future__ import annotations

from collections.abc import Sequence

from inbound.accept import policy, reply
from inbound.accept.policy import Limits
from inbound.accept.rate import Buckets, Rate
from inbound.accept.reply import TemporaryFailure

REMEMBERED = 100_000  # of each kind; the one seen longest ago is forgotten for a new one


class Quotas:
    """The quotas of a process; None where there is none. Loopback and trusted clients have no quota as clients."""

    def __init__(self, limits: Limits, *, client: Rate | None = None, sender: Rate | None = None, recipient: Rate | None = None) -> None:
        self._limits = limits
        self._client = Buckets(client, REMEMBERED) if client else None
        self._sender = Buckets(sender, REMEMBERED) if sender else None
        self._recipient = Buckets(recipient, REMEMBERED) if recipient else None

    def check_mail(self, client: str, reverse_path: str, now: float) -> None:
        """May this client, and this sender, send one more? Nothing is counted. Raises TemporaryFailure."""
        if self._client and not policy.is_exempt(client, self._limits) and not self._client.of(policy.client_key(client), now).holds_one(now):
            raise TemporaryFailure(reply.CLIENT_QUOTA)
        if self._sender and reverse_path and not self._sender.of(_key(reverse_path), now).holds_one(now):
            raise TemporaryFailure(reply.SENDER_QUOTA)

    def check_recipient(self, forward_path: str, now: float) -> None:
        """May this recipient get one more? Nothing is counted. Raises TemporaryFailure."""
        if self._recipient and not self._recipient.of(_key(forward_path), now).holds_one(now):
            raise TemporaryFailure(reply.RECIPIENT_QUOTA)

    def count(self, client: str, reverse_path: str, forward_paths: Sequence[str], now: float) -> None:
        """A message was accepted."""
        if self._client and not policy.is_exempt(client, self._limits):
            self._client.of(policy.client_key(client), now).add(-1.0)
        if self._sender and reverse_path:
            self._sender.of(_key(reverse_path), now).add(-1.0)
        if self._recipient:
            for key in {_key(forward_path) for forward_path in forward_paths}:
                self._recipient.of(key, now).add(-1.0)


def _key(address: str) -> str:
    return address.lower()
