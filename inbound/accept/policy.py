"""May this connection, MAIL, RCPT or DATA proceed? Pure: facts in, a reply out, nothing looked up.

What a command needs from the rules comes through `Pinned`, the rule set revision that MAIL pinned.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from inbound.accept import reply
from inbound.accept.reply import Refusal, Reply, TemporaryFailure

Network = IPv4Network | IPv6Network
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_SIZE = re.compile(r"[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client and all clients together may take. Sizes in octets, times in seconds, rates in octets a second.

    `messages` are those of one connection; 0 is no limit, nor is it for `header_size`. `errors` are of a session, `junk` are commands
    that bring no message nearer, between two messages. `bare_newlines`: are a CR and an LF without each other taken as content?
    """

    message_size: int = 40 * 1024 * 1024
    header_size: int = 0
    recipients: int = 1000
    messages: int = 1000
    connections: int = 1000
    connections_per_client: int = 50
    errors: int = 20
    junk: int = 100
    hops: int = 50
    bare_newlines: bool = True
    command_timeout: float = 300.0
    data_timeout: float = 180.0
    min_data_rate: int = 500
    trusted: Sequence[Network] = field(default=())


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose word on who the client is we take: `proxies` begin every connection with a PROXY header, `front_ends` may send XCLIENT."""

    proxies: Sequence[Network] = field(default=())
    front_ends: Sequence[Network] = field(default=())


class Pinned(Protocol):
    """One revision of the rules, as the session needs it."""

    @property
    def revision(self) -> str: ...

    def admits(self, address: str) -> bool:
        """Do the IP filters let this client in?"""
        ...

    def allows(self, address: str) -> bool:
        """Does an IP filter name this client as allowed, whatever others say of it?"""
        ...

    def recipient(self, address: str, *, tls: bool) -> Reply:
        """The answer to RCPT for this address."""
        ...

    def takes(self, size: int, *, tls: bool) -> bool:
        """Is there anybody who could get a message of so many octets?"""
        ...

    def postmaster(self) -> str | None:
        """The address that `RCPT TO:<postmaster>` means, or None."""
        ...


@functools.lru_cache(maxsize=4096)
def client_address(host: str) -> str:
    """The client's address as rules and logs see it: without a zone, IPv4-mapped IPv6 as IPv4."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Is the address in one of the networks?"""
    if not networks:
        return False
    ip = parsed(address)
    return any(ip in network for network in networks)


@functools.lru_cache(maxsize=4096)
def parsed(address: str) -> IPv4Address | IPv6Address:
    """The address to compute with; kept, since one client has many messages. Raises ValueError for what is none."""
    return ipaddress.ip_address(address)


def is_exempt(address: str, limits: Limits) -> bool:
    """Loopback and trusted networks have no per-client limits."""
    return is_in(address, (*LOOPBACK, *limits.trusted))


def connection(address: str, pinned: Pinned, limits: Limits, *, connections: int, of_client: int) -> Reply | None:
    """The refusal of a new connection, or None. The counts include the new one."""
    if not pinned.admits(address):
        return reply.blocked(address)
    if connections > limits.connections:
        return reply.TOO_MANY_CONNECTIONS
    if of_client > limits.connections_per_client and not is_exempt(address, limits):
        return reply.TOO_MANY_FROM_CLIENT
    return None


def message(address: str, limits: Limits, *, of_connection: int) -> None:
    """May a connection bring one more message? The count includes it. Raises TemporaryFailure."""
    if limits.messages and of_connection > limits.messages and not is_exempt(address, limits):
        raise TemporaryFailure(reply.TOO_MANY_MESSAGES)


def announced(address: str, limits: Limits) -> str:
    """The limits that EHLO tells of, by their names in RFC 9422, which knows values of six digits; empty when there is none."""
    values = {"MAILMAX": 0 if is_exempt(address, limits) else limits.messages, "RCPTMAX": limits.recipients}
    return " ".join(f"{name}={value}" for name, value in values.items() if 0 < value < 1_000_000)


def mail_parameters(parameters: Mapping[str, str], limits: Limits, *, esmtp: bool, smtputf8: bool = False) -> str:
    """Check MAIL's parameters (RFC 1870, RFC 6152; RFC 6531 where `smtputf8` is offered); the BODY value. Raises Refusal."""
    if not parameters:
        return "7BIT"
    if not esmtp:
        raise Refusal(reply.UNKNOWN_PARAMETER)
    for name in parameters:
        if name not in ("SIZE", "BODY") and not (smtputf8 and name == "SMTPUTF8"):
            raise Refusal(reply.UNKNOWN_PARAMETER)
    if parameters.get("SMTPUTF8"):
        raise Refusal(reply.BAD_PARAMETER)
    if "SIZE" in parameters:
        size = parameters["SIZE"]
        if not _SIZE.fullmatch(size):
            raise Refusal(reply.BAD_PARAMETER)
        if int(size) > limits.message_size:
            raise Refusal(reply.TOO_LARGE)
    body = parameters.get("BODY", "7BIT").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise Refusal(reply.BAD_PARAMETER)
    return body


def declared_size(parameters: Mapping[str, str], pinned: Pinned, *, tls: bool) -> None:
    """Refuse what is too long for whoever it is for (RFC 1870 §6.1). `parameters` are those that `mail_parameters` took. Raises Refusal."""
    if "SIZE" in parameters and not pinned.takes(int(parameters["SIZE"]), tls=tls):
        raise Refusal(reply.TOO_LARGE)


def recipient(address: str, pinned: Pinned, limits: Limits, *, accepted: int, tls: bool) -> str:
    """The address to put into the envelope. Raises Refusal or TemporaryFailure; there is no relaying: only the rules accept."""
    if accepted >= limits.recipients:
        raise TemporaryFailure(reply.TOO_MANY_RECIPIENTS)
    if "@" not in address:
        meant = pinned.postmaster()
        if meant is None:
            raise Refusal(reply.NO_SUCH_RECIPIENT)
        address = meant
    answer = pinned.recipient(address, tls=tls)
    if answer.is_refusal:
        raise TemporaryFailure(answer) if answer.is_temporary else Refusal(answer)
    return address
