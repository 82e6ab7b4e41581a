"""The envelope and the session it came in: all that SMTP told us about a message, apart from its content.

It is written to the spool as JSON and is the first part of the trace that people see, so nothing here needs the session again.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

_BATCH = 256
_LENGTH = 40
_BASE32HEX = b"0123456789abcdefghijklmnopqrstuv" * 8  # what each octet becomes by five of its bits
_unused: list[str] = []
"""The next ids: each call to the system gives the interpreter away to the spool's thread, and waits to have it back."""


def new_message_id() -> str:
    """200 random bits as 40 characters of lower-case base32hex: SES's own form of message id."""
    try:
        return _unused.pop()
    except IndexError:
        fresh = os.urandom(_LENGTH * _BATCH).translate(_BASE32HEX).decode("ascii")
        _unused.extend(fresh[start : start + _LENGTH] for start in range(_LENGTH, len(fresh), _LENGTH))
        return fresh[:_LENGTH]


os.register_at_fork(after_in_child=_unused.clear)  # two processes with the same ids would overwrite each other's objects


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a session: its IP address (an IPv4-mapped IPv6 address is written as IPv4), port and reverse name."""

    address: str
    port: int = 0
    reverse_name: str = ""


@dataclass(frozen=True, slots=True)
class Tls:
    """What STARTTLS settled on, in OpenSSL's words (`TLSv1.3`, `TLS_AES_256_GCM_SHA384`)."""

    version: str
    cipher: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """RFC 5321 §2.3.1: who sends, who receives, and under which session; not the headers.

    `reverse_path` is empty for the null reverse-path; addresses are spelled as the client spelled them, without brackets.
    `helo` is the argument of EHLO or HELO. Times are seconds since the epoch: `connected_at` when the session began, `received_at`
    when the final dot came. `revision` names the rule set revision pinned at MAIL.
    """

    message_id: str
    peer: Peer
    helo: str
    reverse_path: str
    forward_paths: tuple[str, ...]
    received_at: float
    connected_at: float = 0.0
    revision: str = ""
    esmtp: bool = True
    tls: Tls | None = None
    body: str = "7BIT"
    smtputf8: bool = False
    parameters: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types; `from_json` gives the envelope back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Envelope:
        """The envelope that `to_json` wrote. Raises KeyError or TypeError on anything else."""
        fields = dict(data)
        fields["peer"] = Peer(**fields["peer"])
        fields["tls"] = Tls(**fields["tls"]) if fields.get("tls") else None
        fields["forward_paths"] = tuple(fields["forward_paths"])
        fields["parameters"] = tuple(fields.get("parameters", ()))
        return cls(**fields)
