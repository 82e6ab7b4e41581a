"""XCLIENT (Postfix's XCLIENT_README): what a trusted front end, or a test, says about the client it speaks for. Pure, and bounded.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from inbound.accept import reply
from inbound.accept.address import helo_name
from inbound.accept.reply import Refusal

OFFER = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"

_IGNORED = frozenset({"LOGIN", "REVERSE_NAME", "DESTADDR", "DESTPORT"})
_KNOWN = _IGNORED | {"NAME", "ADDR", "PORT", "PROTO", "HELO"}
_NOTHING_SAID = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_VALUE_LIMIT = 255
_PAIR = re.compile(rb"([A-Za-z_]{1,16})=((?:[!-*,-<>-~]|\+[0-9A-F]{2})+)")  # RFC 3461 §4: xtext
_ESCAPE = re.compile(rb"\+([0-9A-F]{2})")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What was said about the client; None where nothing was. A `name` that the front end could not find is empty."""

    address: str | None = None
    port: int | None = None
    name: str | None = None
    helo: str | None = None
    extended: bool | None = None


def attributes(argument: bytes) -> Attributes:
    """The attributes of an XCLIENT command. Those that tell nothing we use are taken and ignored, LOGIN among them. Raises Refusal."""
    found: dict[str, str] = {}
    for word in argument.split():
        match = _PAIR.fullmatch(word)
        name = match[1].decode("ascii").upper() if match else ""
        if match is None or name not in _KNOWN or name in found:
            raise Refusal(reply.BAD_XCLIENT)
        found[name] = _decoded(match[2])
    if not found:
        raise Refusal(reply.BAD_XCLIENT)
    said = {name: value for name, value in found.items() if value.upper() not in _NOTHING_SAID}
    try:
        return Attributes(
            address=_address(said["ADDR"]) if "ADDR" in said else None,
            port=_port(said["PORT"]) if "PORT" in said else None,
            name=_host_name(said.get("NAME", "")) if "NAME" in found else None,
            helo=_helo(said["HELO"]) if "HELO" in said else None,
            extended={"SMTP": False, "ESMTP": True}[said["PROTO"].upper()] if "PROTO" in said else None,
        )
    except (ValueError, KeyError):
        raise Refusal(reply.BAD_XCLIENT) from None


def _decoded(value: bytes) -> str:
    octets = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), value)
    if len(octets) > _VALUE_LIMIT:
        raise Refusal(reply.BAD_XCLIENT)
    return octets.decode("latin-1")


def _address(text: str) -> str:
    bare = text[5:] if text[:5].upper() == "IPV6:" else text
    if "%" in bare or (bare is not text and ":" not in bare):
        raise ValueError(text)
    return str(ipaddress.ip_address(bare))


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def _host_name(text: str) -> str:
    if text and not _NAME.fullmatch(text):
        raise ValueError(text)
    return text


def _helo(text: str) -> str:
    name = helo_name(text.encode("latin-1"))
    if name != text:
        raise ValueError(text)
    return text
