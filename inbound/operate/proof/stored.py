"""An object that SES stored -> the message as it came, and what SES's own header fields tell of the session and of the verdicts.

SES puts its fields on top (Return-Path, Received, verdicts, Received-SPF, Authentication-Results, X-SES-RECEIPT, X-SES-DKIM-SIGNATURE), each
once and in this order; fields of the same names further down are the sender's. What AddHeader actions added stands above them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from inbound.accept.envelope import Envelope, Peer
from inbound.assess.authentication import Authentication, Clause
from inbound.assess.message import FIELD, HEAD, header_block
from inbound.assess.rendering import HeaderField

SIGNED = ("X-SES-RECEIPT", "X-SES-DKIM-SIGNATURE")
"""SES's fields that we do not write."""

_ORDER = ("return-path", "received", "x-ses-spam-verdict", "x-ses-virus-verdict", "received-spf", "authentication-results", "x-ses-receipt",
          "x-ses-dkim-signature")
_RECEIVED = re.compile(
    r"from (?P<helo>\S+) \((?P<name>\S+) \[(?P<ip>[^\]\s]+)\]\) by (?P<host>\S+) with SMTP id (?P<id>[A-Za-z0-9-]{1,128})"
    r"(?: for (?P<rcpt>\S+))?; (?P<date>.+?)(?: \(UTC\))?")
_RESULTS = re.compile(
    r"(?P<id>[^;]+);(?: spf=(?P<spf>[a-z]+) \(spfCheck: (?P<why>.*)\) client-ip=[^;]*; envelope-from=.*; helo=[^;]*;)?(?P<rest>.*)", re.DOTALL)
_DKIM = re.compile(r" dkim=([a-z]+)(?: header\.i=@?([^;\s]*))?;")
_DMARC = re.compile(r" dmarc=([a-z]+)(?: (?:header|properties)\.from=([^;\s]*))?;")
_FOLD = re.compile(rb"\r?\n[ \t]+")


_LONGEST = 4_096  # octets of a field that SES wrote: addresses and names are bounded, so this is none of its own


class NotStored(Exception):
    """Not an object of SES, or one that cannot be judged: why, in one line."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of which SES told something. `fields` are SES's own on top, unfolded; `added` are those above them.

    `content` is the message as it came, `octets` what SES stored from its own first field on. `host` and `authserv_id` are SES's names there;
    `authentication` is None without an Authentication-Results. `spam` and `virus` are empty where SES did not scan.
    """

    envelope: Envelope
    fields: Sequence[HeaderField]
    added: Sequence[HeaderField]
    content: bytes
    octets: bytes
    host: str
    authserv_id: str
    authentication: Authentication | None
    spam: str
    virus: str

    @property
    def id(self) -> str:
        """SES's message id."""
        return self.envelope.message_id


def read(octets: bytes) -> Stored:
    """What SES stored. Raises NotStored."""
    found = [(match[1].decode("ascii"), _unfolded(match[2]), match.start(), match.end()) for match in FIELD.finditer(header_block(octets[:HEAD])[0])]
    received = next((number for number, (name, *_) in enumerate(found) if name.lower() == "received"), None)
    match = _RECEIVED.fullmatch(found[received][1][:_LONGEST]) if received is not None else None
    if received is None or match is None:
        raise NotStored("its topmost Received field is not one that SES writes")
    first = received - 1 if received and found[received - 1][0].lower() == "return-path" else received
    last = _last(found, received)
    own = [(name, value) for name, value, *_ in found[first : last + 1]]
    values = {name.lower(): value for name, value in own}
    authserv_id, said = _results(values.get("authentication-results"))
    return Stored(
        envelope=_envelope(match, values.get("return-path", "")), fields=own, added=[(name, value) for name, value, *_ in found[:first]],
        content=octets[_after(octets, found[last][3]) :], octets=octets[found[first][2] :], host=match["host"], authserv_id=authserv_id,
        authentication=said, spam=values.get("x-ses-spam-verdict", ""), virus=values.get("x-ses-virus-verdict", ""))


def without_signed(octets: bytes) -> bytes:
    """The octets that SES stored, without the two fields of it that we do not write."""
    kept, start = b"", 0
    for name in SIGNED:
        match = re.compile(rb"^" + name.encode() + rb":[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE).search(octets[:HEAD], start)
        if match:
            kept += octets[start : match.start()]
            start = match.end()
    return kept + octets[start:]


def _last(found: Sequence[tuple[str, str, int, int]], received: int) -> int:
    """The number of the last field of SES: each name once, in SES's order."""
    last, place = received, _ORDER.index("received")
    for number in range(received + 1, len(found)):
        name = found[number][0].lower()
        if name not in _ORDER[place + 1 :]:
            break
        last, place = number, _ORDER.index(name)
    return last


def _after(octets: bytes, end: int) -> int:
    """Where the line after a field begins."""
    return octets.find(b"\n", end) + 1 or len(octets)


def _unfolded(raw: bytes) -> str:
    return _FOLD.sub(b" ", raw).strip(b" \t\r\n").decode("utf-8", "replace")


def _envelope(match: re.Match[str], return_path: str) -> Envelope:
    try:
        address = str(ipaddress.ip_address(match["ip"].removeprefix("IPv6:")))
        received_at = parsedate_to_datetime(match["date"]).timestamp()
    except (ValueError, TypeError, OverflowError):
        raise NotStored("its Received field has no client address or no date that can be read") from None
    name = "" if match["name"] == "unknown" else match["name"]
    return Envelope(match["id"], Peer(address, 0, name), match["helo"], return_path.removeprefix("<").removesuffix(">"),
                    (match["rcpt"],) if match["rcpt"] else (), received_at)


def _results(value: str | None) -> tuple[str, Authentication | None]:
    match = _RESULTS.fullmatch(value) if value is not None and len(value) <= _LONGEST else None
    if match is None:
        return "", None
    dkim = tuple(Clause(result, domain) for result, domain in _DKIM.findall(match["rest"]))
    dmarc = _DMARC.search(match["rest"])
    return match["id"], Authentication(match["spf"] or "", match["why"] or "", dkim, dmarc[1] if dmarc else "", dmarc[2] if dmarc else "")
