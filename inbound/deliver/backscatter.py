"""May this message be bounced? Bounces to forged senders are backscatter, and bounces to machines are loops (RFC 3834 §2, RFC 5321 §6.1).

Pure. Every guard gives the reason for which a bounce is suppressed, or an empty text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inbound.accept.envelope import Envelope
from inbound.accept.rate import Bucket, Buckets, Rate
from inbound.assess.message import Field
from inbound.assess.verdicts import NOT_JUDGED, Assessment, Status
from inbound.decide.recipients import canonical_address

SENDERS = 10_000  # reverse-paths whose bounces are counted; the one bounced longest ago is forgotten for a new one

_LIST_FIELDS = ("list-id", "list-unsubscribe")
_COMMENTS = re.compile(r"\s*(?:\([^()]*\)\s*)*")
_WORD = re.compile(r"[^\s;(]*")
_OUR_MESSAGE_ID = r"\s*<[0-9a-f]{16}-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-000000@%s>"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that shall be bounced: what the guards look at. `sender` is the originator of the bounce, `hostname` our name."""

    envelope: Envelope
    fields: Sequence[Field]
    assessment: Assessment
    sender: str
    hostname: str

    def first_words(self, name: str) -> list[str]:
        """The first word of each field of that name, in lower case, without the comments before it."""
        return [_first_word(field.value) for field in self.fields if field.name.lower() == name]


def null_reverse_path(candidate: Candidate) -> str:
    """RFC 5321 §4.5.5: nobody is to be told."""
    return "" if candidate.envelope.reverse_path else "the reverse-path is null"


def mailer_daemon(candidate: Candidate) -> str:
    """RFC 3834 §2: a mailer that does not use the null reverse-path."""
    local = candidate.envelope.reverse_path.rpartition("@")[0]
    return "the reverse-path is a mailer's" if local.lower() == "mailer-daemon" else ""


def own_recipient(candidate: Candidate) -> str:
    """A message from one of its own recipients was not sent by that one."""
    sender = canonical_address(candidate.envelope.reverse_path)
    recipients = map(canonical_address, candidate.envelope.forward_paths)
    return "the reverse-path is a recipient of the message" if sender in recipients else ""


def own_bounce(candidate: Candidate) -> str:
    """What we sent comes back to us: by its reverse-path, or by a Message-ID of the form that only our bounces have."""
    if canonical_address(candidate.envelope.reverse_path) == canonical_address(candidate.sender):
        return "the reverse-path is the Sender of our bounces"
    ours = re.compile(_OUR_MESSAGE_ID % re.escape(candidate.hostname), re.IGNORECASE)
    looped = any(field.name.lower() == "message-id" and ours.match(field.value) for field in candidate.fields)
    return "it is a bounce of our own" if looped else ""


def report(candidate: Candidate) -> str:
    """A DSN, or another report about a message (RFC 6522): never answered by another."""
    types = candidate.first_words("content-type")
    return "it is a report (DSN)" if "multipart/report" in types or "message/delivery-status" in types else ""


def automatic(candidate: Candidate) -> str:
    """RFC 3834 §5: a machine sent it."""
    words = [word for word in candidate.first_words("auto-submitted") if word != "no"]
    return f"it is automatic (Auto-Submitted: {words[0][:40]})" if words else ""


def bulk(candidate: Candidate) -> str:
    """Precedence, which old list software and vacation programs go by."""
    words = [word for word in candidate.first_words("precedence") if word in ("bulk", "list", "junk")]
    return f"it is bulk mail (Precedence: {words[0]})" if words else ""


def list_mail(candidate: Candidate) -> str:
    """RFC 2369, RFC 2919: it came through a mailing list, whose members have not asked us."""
    names = [field.name for field in candidate.fields if field.name.lower() in _LIST_FIELDS]
    return f"it is list mail ({names[0]})" if names else ""


def unauthenticated(candidate: Candidate) -> str:
    """Neither SPF nor DMARC vouches for the sender. Verdicts that nobody formed do not count."""
    verdicts = [v for v in (candidate.assessment.spf, candidate.assessment.dmarc) if v != NOT_JUDGED]
    forged = verdicts and all(verdict.status is not Status.PASS for verdict in verdicts)
    return "the sender may be forged: neither SPF nor DMARC passes" if forged else ""


Guard = Callable[[Candidate], str]

GUARDS: tuple[Guard, ...] = (null_reverse_path, mailer_daemon, own_recipient, own_bounce, report, automatic, bulk, list_mail, unauthenticated)
"""In the order in which they are asked."""


def objection(candidate: Candidate, guards: Sequence[Guard] = GUARDS) -> str:
    """Why this message is not bounced; empty when nothing speaks against it."""
    return next(filter(None, (guard(candidate) for guard in guards)), "")


def _first_word(value: str) -> str:
    comments = _COMMENTS.match(value)
    word = _WORD.match(value, comments.end() if comments else 0)
    return word[0].lower() if word else ""


class Caps:
    """How many bounces may go out, in all and to one reverse-path. Kept in memory: it begins anew with the process."""

    def __init__(self, in_all: Rate, each: Rate) -> None:
        self._in_all = in_all
        self._each = each
        self._all: Bucket | None = None
        self._senders = Buckets(each, SENDERS)

    def reached(self, reverse_path: str, now: float) -> str:
        """Why no bounce may go to this reverse-path at `now` (seconds of any steady clock), or an empty text. Nothing is counted."""
        if not self._sender(reverse_path, now).holds_one(now):
            return f"the cap of {self._each.count} bounces in {self._each.seconds:g} s to one reverse-path is reached"
        if not self._every(now).holds_one(now):
            return f"the cap of {self._in_all.count} bounces in {self._in_all.seconds:g} s is reached"
        return ""

    def take(self, reverse_path: str, now: float) -> None:
        """Count one bounce. Calls under way at once may exceed a cap by their number; that is made up for later."""
        self._sender(reverse_path, now).add(-1.0)
        self._every(now).add(-1.0)

    def give_back(self, reverse_path: str) -> None:
        """The bounce counted last for this reverse-path did not go out."""
        for bucket in (self._all, self._senders.known(canonical_address(reverse_path))):
            if bucket is not None:
                bucket.add(1.0)

    def _every(self, now: float) -> Bucket:
        self._all = self._all or Bucket(self._in_all, now)
        return self._all

    def _sender(self, reverse_path: str, now: float) -> Bucket:
        return self._senders.of(canonical_address(reverse_path), now)
