"""The verdicts on a message, as SES names them, their record in the trace, and the header fields that tell consumers.

SES "Contents of notifications", receipt object: spfVerdict, dkimVerdict, dmarcVerdict, spamVerdict, virusVerdict, dmarcPolicy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum
from typing import Any

from inbound.accept.envelope import Envelope
from inbound.assess import authentication
from inbound.assess.authentication import Authentication, Clause
from inbound.compact import encoded_by


class Status(StrEnum):
    """SES's verdict statuses."""

    PASS = "PASS"  # noqa: S105  # a verdict, not a password
    FAIL = "FAIL"
    GRAY = "GRAY"
    PROCESSING_FAILED = "PROCESSING_FAILED"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status, and why, in words for people."""

    status: Status
    reason: str = ""


SCANS = ("spam", "virus")
NOT_JUDGED = Verdict(Status.GRAY, "not judged: no checker is configured")


@dataclass(frozen=True, slots=True)
class Assessment:
    """All verdicts on one message. `spam` and `virus` hold where a rule has ScanEnabled; elsewhere they are DISABLED.

    `dmarc_policy` is the published policy that applied, only when `dmarc` is FAIL. `authentication` is None where nothing was judged.
    `client_name` is the name that DNS gives the client, empty where there is none that leads back to it. `unscanned` names the verdicts
    (`spam`, `virus`) whose scanner could not be asked, and is to be asked again.
    """

    spf: Verdict = NOT_JUDGED
    dkim: Verdict = NOT_JUDGED
    dmarc: Verdict = NOT_JUDGED
    spam: Verdict = NOT_JUDGED
    virus: Verdict = NOT_JUDGED
    dmarc_policy: str = ""
    authentication: Authentication | None = None
    client_name: str = ""
    unscanned: tuple[str, ...] = ()

    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts by name, in SES's words without `Verdict`."""
        return {name: getattr(self, name) for name in VERDICTS}

    @property
    def lacking(self) -> tuple[str, ...]:
        """The scans to be made where a rule wants them: none did till now, or their scanner could not be asked."""
        return tuple(kind for kind in SCANS if kind in self.unscanned or getattr(self, kind).status is Status.DISABLED)

    def with_scans(self, spam: Verdict, virus: Verdict, *, unscanned: tuple[str, ...], client_name: str) -> Assessment:
        """The same, with what scanners and DNS told. Spelled out: `dataclasses.replace` takes longer than a verdict."""
        return Assessment(self.spf, self.dkim, self.dmarc, spam, virus, self.dmarc_policy, self.authentication, client_name, unscanned)

    def to_json(self) -> str:
        """JSON text for the spool."""
        found: dict[str, Any] = {}
        for name in VERDICTS:
            each: Verdict = getattr(self, name)
            found[name] = {"status": each.status, "reason": each.reason}
        said = self.authentication
        found |= {
            "dmarc_policy": self.dmarc_policy,
            "authentication": {name: getattr(said, name) for name in _AUTHENTICATION} if said else None,
            "client_name": self.client_name,
            "unscanned": self.unscanned,
        }
        return _encode(found)

    @classmethod
    def from_json(cls, text: str) -> Assessment:
        """The assessment that `to_json` wrote, of this version or an earlier one."""
        data = json.loads(text)
        known: dict[str, Any] = {name: Verdict(Status(data[name]["status"]), data[name]["reason"]) for name in VERDICTS}
        return cls(**known, dmarc_policy=data.get("dmarc_policy", ""), authentication=_authentication(data.get("authentication")),
                   client_name=data.get("client_name", ""), unscanned=tuple(data.get("unscanned", ())))


VERDICTS = tuple(field.name for field in fields(Assessment) if field.default is NOT_JUDGED)
"""The names of the verdicts."""

_AUTHENTICATION = tuple(field.name for field in fields(Authentication))
_encode = encoded_by()


def _authentication(data: dict[str, Any] | None) -> Authentication | None:
    return Authentication(**{**data, "dkim": tuple(Clause(*each) for each in data["dkim"])}) if data else None


_UNPRINTABLE = re.compile(r"[^ -~]")
_STRUCTURE = re.compile(r"[^!-~]|[;()\\]")
_ENCODED_WORD = re.compile(r"=+(?=\?)")


def trace_headers(
    envelope: Envelope,
    assessment: Assessment,
    *,
    hostname: str,
    authserv_id: str,
    scan: bool,
) -> tuple[tuple[str, str], ...]:
    """The header fields SES prepends, top first: names and values, folded with CRLF and a space where SES folds.

    `scan` is the rule's ScanEnabled: without it the spam and virus verdicts have no fields. What the client said (HELO, addresses, reverse
    name) loses whatever could end its place in the field or the field itself: it becomes `?`.
    """
    made = [("Return-Path", f"<{_printable(envelope.reverse_path, envelope)}>"), ("Received", _received(envelope, hostname))]
    if scan:
        scanned = (("X-SES-Spam-Verdict", assessment.spam), ("X-SES-Virus-Verdict", assessment.virus))
        made += [(name, str(verdict.status)) for name, verdict in scanned if verdict.status is not Status.DISABLED]
    if assessment.authentication:
        made += authentication.fields(envelope, assessment.authentication, authserv_id=authserv_id)
    return tuple(made)


def _received(envelope: Envelope, hostname: str) -> str:
    """RFC 5321 §4.4, in SES's form; `for` only where there is one recipient, so that none learns of the others."""
    peer = envelope.peer
    client = f"from {_word(envelope.helo)} ({_word(peer.reverse_name)} [{_word(peer.address)}])"
    by = f"by {hostname} with SMTP id {envelope.message_id}"
    recipients = {recipient.casefold(): recipient for recipient in envelope.forward_paths}
    if len(recipients) == 1:
        by += f"\r\n for {_word(*recipients.values(), envelope=envelope)}"
    date = format_datetime(datetime.fromtimestamp(envelope.received_at, UTC))
    return f"{client}\r\n {by};\r\n {date} (UTC)"


def _word(text: str, *, envelope: Envelope | None = None) -> str:
    """Client's text for a place that white space, a comment or a semicolon would end, and that some reader would decode."""
    plain = _STRUCTURE.sub(lambda found: _or_mark(found[0], envelope), text)
    return _ENCODED_WORD.sub(lambda found: "?" * len(found[0]), plain) or "unknown"


def _printable(text: str, envelope: Envelope) -> str:
    return _UNPRINTABLE.sub(lambda found: _or_mark(found[0], envelope), text)


def _or_mark(character: str, envelope: Envelope | None) -> str:
    """`?`, except for a letter beyond ASCII in an address that came by SMTPUTF8 (RFC 6531 §3.7.3 writes it as UTF-8)."""
    keep = envelope is not None and envelope.smtputf8 and not character.isascii() and character.isprintable()
    return character if keep else "?"
