"""The PROXY protocol's header, versions 1 and 2, from octets: which client a load balancer speaks for. Pure, and bounded.

Obeys HAProxy's specification (proxy-protocol.txt, sections 2.1 and 2.2). What breaks it is no header at all, never a guess.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

V1_LIMIT = 107  # octets, CRLF included (section 2.1)
V2_LIMIT = 2048  # octets; the longest addresses take 232, a load balancer's TLVs a few hundred

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and the command
_V1 = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n")
_FAMILIES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}  # octets of the addresses: unspecified, TCP over IPv4, TCP over IPv6, Unix socket
_IP = {0x11: 4, 0x21: 16}  # octets of one address, where there is a client that we could name


class NotProxy(Exception):  # it names what the octets are
    """The octets do not begin with a PROXY header, or with one that is too long or wrong."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header of `length` octets. `client` is the address and port it speaks for; None means the connection's own."""

    length: int
    client: tuple[str, int] | None


def header(octets: bytes) -> Header | None:
    """The header that the octets begin with; None while it is not whole. Raises NotProxy as soon as that is certain."""
    if octets[: len(_SIGNATURE)] == _SIGNATURE[: len(octets)]:
        return _version_2(octets)
    if octets[:6] == b"PROXY "[: len(octets)]:
        return _version_1(octets)
    raise NotProxy("no PROXY header")


def _version_1(octets: bytes) -> Header | None:
    end = octets.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(octets) >= V1_LIMIT:
            raise NotProxy(f"a PROXY header without an end in {V1_LIMIT} octets")
        return None
    line = octets[: end + 2]
    match = _V1.fullmatch(line)
    if match is None:
        raise NotProxy("a malformed PROXY header")
    if match[1] is None:
        return Header(len(line), None)
    client, _ = _ip(match[2], match[1]), _ip(match[3], match[1])
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise NotProxy("a PROXY header with a port over 65535")
    return Header(len(line), (client, ports[0]))


def _ip(octets: bytes, version: bytes) -> str:
    try:
        text = octets.decode("ascii")
        return str(ipaddress.IPv4Address(text) if version == b"4" else ipaddress.IPv6Address(text))
    except ValueError:
        raise NotProxy("a PROXY header with a wrong address") from None


def _version_2(octets: bytes) -> Header | None:
    if len(octets) < _V2_FIXED:
        return None
    command, family, length = octets[12], octets[13], _V2_FIXED + int.from_bytes(octets[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise NotProxy("a PROXY header of an unknown version or command")
    if length > V2_LIMIT:
        raise NotProxy(f"a PROXY header of {length} octets")
    needed = _FAMILIES.get(family) if command == _PROXY else 0
    if needed is None:
        raise NotProxy("a PROXY header of an unknown address family")
    if length < _V2_FIXED + needed:
        raise NotProxy("a PROXY header too short for its addresses")
    if len(octets) < length:
        return None
    if command == _LOCAL or family not in _IP:
        return Header(length, None)
    return Header(length, _client(octets[_V2_FIXED:], _IP[family]))


def _client(addresses: bytes, size: int) -> tuple[str, int]:
    """Source address, destination address, source port, destination port."""
    return str(ipaddress.ip_address(addresses[:size])), int.from_bytes(addresses[2 * size : 2 * size + 2], "big")
