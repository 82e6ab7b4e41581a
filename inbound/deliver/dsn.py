"""The bounce: a DSN (RFC 3464, RFC 6522) as SES writes it, octet for octet, with our names in it.

Pure. What strangers wrote (addresses, the header of their message) enters it as printable US-ASCII and cannot leave its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LINE = 998  # RFC 5322 §2.1.1
_UNPRINTABLE = re.compile(r"[^ -~]")
_UNPRINTABLE_OCTET = re.compile(rb"[^\t -~]")
_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 §3: printable US-ASCII but for "+", "=" and "\"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message bounces: a reply code (RFC 5321), an enhanced status code (RFC 3463, or empty: that of the class), and a text."""

    code: str
    enhanced: str
    text: str

    @property
    def status(self) -> str:
        """The enhanced status code; without one, that of an undefined failure of the reply code's class."""
        return self.enhanced or f"{self.code[:1]}.0.0"

    @property
    def line(self) -> str:
        """The text as one line of printable US-ASCII; what is not becomes `?`."""
        return _UNPRINTABLE.sub("?", self.text.replace("\t", " "))

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.line}"


TOO_LONG = Failure("552", "5.2.3", "Message length exceeds limit set by recipient")
"""What SES says of a message that is over the limit of an SNSAction."""


@dataclass(frozen=True, slots=True)
class Bounce:
    """What a bounce tells.

    `sender` is its originator, `reverse_path` whom it goes to, `recipients` those that the message is not delivered to. `arrived` is when the
    message came, in seconds since the epoch. `header` is the header block to show of it. `digest` (at least 40 hexadecimal digits, unknown
    to the sender of the message) names the bounce: the same one, sent again, has the same Message-ID.
    """

    failure: Failure
    sender: str
    reverse_path: str
    recipients: Sequence[str]
    hostname: str
    arrived: float
    header: bytes
    digest: str

    @property
    def message_id(self) -> str:
        """Its Message-ID, in SES's form, without the brackets."""
        d = self.digest
        return f"{int(self.arrived * 1000):016x}-{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:32]}-000000@{self.hostname}"

    @property
    def needs_smtputf8(self) -> bool:
        """Is there an address in it that only a server with SMTPUTF8 (RFC 6531) takes?"""
        return not (self.reverse_path.isascii() and self.sender.isascii())

    def octets(self, now: float) -> bytes:
        """The message, dated `now` (seconds since the epoch). Lines end with CRLF."""
        boundary = f"----=_Part_{int(self.digest[:6], 16)}_{int(self.digest[8:20], 16)}.{int(self.arrived * 1000)}"
        return (
            self._fields(now, boundary)
            + _part(boundary, "text/plain; charset=us-ascii", "Notification", b"This message could not be delivered.")
            + _part(boundary, "message/delivery-status", "Delivery Status Notification", self._status())
            + _part(boundary, "text/rfc822-headers", "Undelivered Message", printable(self.header) + b"\r\n")
            + f"--{boundary}--\r\n".encode("ascii")
        )

    def _fields(self, now: float, boundary: str) -> bytes:
        date = datetime.fromtimestamp(now, UTC)
        return (
            f"Date: {_DAYS[date.weekday()]}, {date.day} {_MONTHS[date.month - 1]} {date.year} {date:%H:%M:%S} +0000\r\n"
            f"From: {_one_line(self.sender)}\r\n"
            f"To: {_one_line(self.reverse_path)}\r\n"
            f"Message-ID: <{self.message_id}>\r\n"
            "Subject: Delivery Status Notification (Failure)\r\n"
            "MIME-Version: 1.0\r\n"
            f'Content-Type: multipart/report; \r\n\tboundary="{boundary}"; \r\n\treport-type=delivery-status\r\n'
            "Auto-Submitted: auto-replied\r\n"
            "\r\n"
        ).encode()

    def _status(self) -> bytes:
        """The fields of the message (RFC 3464 §2.2), then those of each recipient (§2.3), every group ended by an empty line."""
        date = datetime.fromtimestamp(self.arrived, UTC)
        arrived = f"{_DAYS[date.weekday()]}, {date.day:02} {_MONTHS[date.month - 1]} {date.year % 100:02} {date:%H:%M:%S} UTC"
        told = f"Reporting-MTA: dns; {self.hostname}\r\nArrival-Date: {arrived}\r\n\r\n"
        for recipient in self.recipients:
            told += (
                "Action: failed\r\n"
                f"Final-Recipient: {typed(recipient)}\r\n"
                f"Original-Recipient: {typed(recipient)}\r\n"
                f"Diagnostic-Code: smtp; {self.failure}\r\n"
                f"Status: {self.failure.status}\r\n"
                "\r\n"
            )
        return told.encode("ascii")


def printable(header: bytes) -> bytes:
    """A header block as 7-bit text: lines end with CRLF and are no longer than RFC 5322 allows; what is not printable US-ASCII is `?`."""
    lines: list[bytes] = []
    for line in header.removesuffix(b"\n").split(b"\n") if header else []:
        plain = _UNPRINTABLE_OCTET.sub(b"?", line.removesuffix(b"\r"))
        lines.append(plain[:_LINE])
        lines += [b" " + plain[start : start + _LINE - 1] for start in range(_LINE, len(plain), _LINE - 1)]
    return b"".join(line + b"\r\n" for line in lines)


def typed(address: str) -> str:
    """The address with its type: `rfc822; a@example.com`; one beyond US-ASCII as utf-8-addr-xtext (RFC 6533 §3)."""
    if address.isascii():
        return f"rfc822; {_UNPRINTABLE.sub('?', address)}"
    return "utf-8; " + _XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", address)


def _part(boundary: str, content_type: str, description: str, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: 7bit\r\nContent-Description: {description}\r\n\r\n"
    return head.encode("ascii") + content + b"\r\n"


def _one_line(address: str) -> str:
    """An address in the header of the bounce: letters beyond US-ASCII stay (RFC 6532), whatever else could end the line does not."""
    return "".join(c if c.isprintable() else "?" for c in address)
