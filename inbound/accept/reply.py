"""Every reply we send, in one table (RFC 5321 §4.2, RFC 2034, RFC 3463). Nothing else writes a status line.

Our own trouble is always 4yz; no reply tells internals.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code, an enhanced status code (empty for the greeting, EHLO and 354, which have none), and a text."""

    code: int
    enhanced: str
    text: str
    reason: str = ""  # for the log: a short word that stays the same when the text changes

    octets: bytes = field(init=False, repr=False, compare=False)  # as it goes over the wire

    def __post_init__(self) -> None:
        status = f"{self.enhanced} " if self.enhanced else ""
        object.__setattr__(self, "octets", f"{self.code} {status}{self.text}\r\n".encode("ascii", "replace"))

    @property
    def is_temporary(self) -> bool:
        """4yz: the client may try again later."""
        return 400 <= self.code < 500

    @property
    def is_refusal(self) -> bool:
        """4yz or 5yz."""
        return self.code >= 400

    def __str__(self) -> str:
        return self.octets.decode("ascii").rstrip()


class ReplyError(Exception):
    """Ends a command with a negative reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Refusal(ReplyError):
    """5yz: the sender's fault; asking again cannot help."""


class TemporaryFailure(ReplyError):
    """4yz: ours, or it will pass."""


OK = Reply(250, "2.0.0", "OK")
MAIL_OK = Reply(250, "2.1.0", "Sender OK")
RCPT_OK = Reply(250, "2.1.5", "Recipient OK")
BYE = Reply(221, "2.0.0", "Bye")
START_DATA = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
VRFY = Reply(252, "2.1.5", "Cannot verify; send a message and see")
HELP = Reply(214, "2.0.0", "See RFC 5321. Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT")

PROXY_EXPECTED = Reply(421, "4.3.5", "Expected a PROXY header from your address, closing the connection", "no proxy header")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, try again later", "shutdown")
TOO_BUSY = Reply(421, "4.3.2", "Too busy, try again later", "memory")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later", "connections")
TOO_MANY_FROM_CLIENT = Reply(421, "4.7.0", "Too many connections from your address", "client connections")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "Too many messages on one connection, open another", "messages")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing the connection", "errors")
TIMED_OUT = Reply(421, "4.4.2", "Timed out waiting for the client", "timeout")
TOO_SLOW = Reply(421, "4.4.2", "Data comes too slowly, closing the connection", "too slow")
ENDLESS = Reply(421, "4.7.0", "Too much data, closing the connection", "endless data")
INTERNAL = Reply(451, "4.3.0", "Temporary trouble here, try again later", "internal error")
SPOOL_FAILED = Reply(451, "4.3.0", "Could not store the message, try again later", "spool")
SPOOL_FULL = Reply(452, "4.3.1", "Insufficient storage, try again later", "disk full")
SPOOL_OVER = Reply(452, "4.3.1", "Insufficient storage, try again later", "spool size")
NO_MEMORY = Reply(452, "4.3.1", "Insufficient storage, try again later", "memory")
BACKLOG = Reply(451, "4.3.2", "Mail is held up here, try again later", "backlog")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients, send the rest in another transaction", "recipients")
CLIENT_QUOTA = Reply(450, "4.7.1", "Too many messages from your address in this time, try again later", "client quota")
SENDER_QUOTA = Reply(450, "4.7.1", "Too many messages of this sender in this time, try again later", "sender quota")
RECIPIENT_QUOTA = Reply(450, "4.7.1", "Too many messages to this recipient in this time, try again later", "recipient quota")
TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS not available due to a temporary reason", "tls unavailable")
CANNOT_REQUIRE_TLS = Reply(451, "4.7.0", "This recipient needs TLS, which is not available now, try again later", "tls unavailable")

LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long", "line too long")
BAD_COMMAND = Reply(500, "5.5.2", "Syntax error, command unrecognized", "syntax")
UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognized", "unknown command")
BAD_ARGUMENT = Reply(501, "5.5.4", "Syntax error in the argument", "syntax")
NEED_NAME = Reply(501, "5.5.4", "Syntax: EHLO hostname", "syntax")
BAD_SENDER = Reply(501, "5.1.7", "Bad sender address syntax; expected MAIL FROM:<address>", "sender syntax")
BAD_RECIPIENT = Reply(501, "5.1.3", "Bad recipient address syntax; expected RCPT TO:<address>", "recipient syntax")
BAD_PARAMETER = Reply(501, "5.5.4", "Bad parameter", "parameter")
BAD_CHUNK = Reply(501, "5.5.4", "Bad chunk size; expected BDAT octets [LAST]", "chunk")
BAD_XCLIENT = Reply(501, "5.5.4", "Bad attributes; expected XCLIENT ADDR=192.0.2.1 NAME=client.example HELO=client.example", "syntax")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented", "not implemented")
NEED_HELO = Reply(503, "5.5.1", "Say EHLO first", "sequence")
NEED_MAIL = Reply(503, "5.5.1", "Need MAIL first", "sequence")
NESTED_MAIL = Reply(503, "5.5.1", "MAIL already given; say RSET first", "sequence")
NEED_RCPT = Reply(503, "5.5.1", "Need RCPT first", "sequence")
CONTENT_BEGUN = Reply(503, "5.5.1", "The content has begun; send the next BDAT, or RSET", "sequence")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients", "no recipients")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is already active", "sequence")
NEED_TLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first", "tls required")
NOT_TRUSTED = Reply(550, "5.7.0", "Your address may not speak for other clients", "not trusted")
BARE_NEWLINE = Reply(550, "5.5.2", "Bare CR or LF in the message; lines end with CRLF", "bare newline")
NO_SUCH_RECIPIENT = Reply(550, "5.1.1", "Requested action not taken: mailbox unavailable", "no rule")
TOO_LARGE = Reply(552, "5.3.4", "Message too large", "size")
HEADER_TOO_LARGE = Reply(552, "5.3.4", "Message header too large", "header size")
NOT_ASCII = Reply(553, "5.6.7", "Non-ASCII address without SMTPUTF8", "smtputf8")
LOOP = Reply(554, "5.4.6", "Too many hops, this looks like a mail loop", "loop")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognized or not implemented", "parameter")
HTTP = Reply(554, "5.5.1", "This is SMTP, not HTTP", "http")
PROXY = Reply(554, "5.5.1", "No PROXY header is taken from your address", "proxy header")


def accepted(message_id: str) -> Reply:
    """The reply to the final dot: the message is ours."""
    return Reply(250, "2.0.0", f"OK {message_id}")


def listed(address: str, zone: str, why: str) -> Reply:
    """A DNS blocklist names the client (RFC 5782); `why` is what the list says of it, or empty."""
    text = f"Client address {address} is listed by {zone}" + (f": {why}" if why else "")
    return Reply(554, "5.7.1", text[:500], "dnsbl")


def chunk_taken(size: int) -> Reply:
    """The reply to a BDAT that is not the last."""
    return Reply(250, "2.0.0", f"{size} octets received")


def blocked(address: str) -> Reply:
    """An IP filter refuses the client."""
    return Reply(554, "5.7.1", f"{address} blocked", "ip filter")
