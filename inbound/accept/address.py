"""RFC 5321 §4.1.2 paths, HELO names and ESMTP parameters, from octets. Nothing that breaks the grammar reaches logs, headers or keys.

Lenient where the real world is and nothing is at risk: no brackets around a plain address, consecutive dots in a local-part,
underscores in host names.
"""

from __future__ import annotations

import ipaddress
import re

from inbound.accept.reply import BAD_PARAMETER, BAD_RECIPIENT, BAD_SENDER, NOT_ASCII, Refusal, Reply

LOCAL_PART_LIMIT = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_LIMIT = 255  # §4.5.3.1.2
PATH_LIMIT = 256  # §4.5.3.1.3

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
_QUOTED = rb'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = rb"(?:" + _LABEL + rb"(?:\." + _LABEL + rb")*|\[[0-9A-Za-z:.]{1,60}\])"
_ROUTE = rb"(?:@" + _DOMAIN + rb"(?:,@" + _DOMAIN + rb")*:)?"
_PATH = re.compile(
    rb"[ \t]*(?:<" + _ROUTE + rb"(?:(" + _ATOM + rb"|" + _QUOTED + rb")@(" + _DOMAIN + rb"))?>|(" + _ATOM + rb")@(" + _DOMAIN + rb"))(?:[ \t]+(.*))?"
)
_POSTMASTER = re.compile(rb"[ \t]*<(postmaster)>(?:[ \t]+(.*))?", re.IGNORECASE)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")
_HELO = re.compile(rb"[\x21-\x7e]{1,255}")

Parameters = dict[str, str]


def helo_name(argument: bytes) -> str | None:
    """The client's name for itself, the first word of the argument; None when it is not printable ASCII. Not otherwise judged."""
    name = argument.split(None, 1)[0] if argument.strip() else b""
    return name.decode("ascii") if _HELO.fullmatch(name) else None


def reverse_path(argument: bytes) -> tuple[str, Parameters]:
    """(address, parameters) of `FROM:<path> parameters`; the null reverse-path is an empty address. Raises Refusal."""
    return _path(argument, b"FROM:", BAD_SENDER)


def forward_path(argument: bytes) -> tuple[str, Parameters]:
    """(address, parameters) of `TO:<path> parameters`; `postmaster` has no domain (RFC 5321 §4.5.1). Raises Refusal."""
    if argument[:3].upper() == b"TO:" and (match := _POSTMASTER.fullmatch(argument, 3)):
        return match[1].decode("ascii"), _parameters(match[2] or b"")
    address, parameters = _path(argument, b"TO:", BAD_RECIPIENT)
    if not address:
        raise Refusal(BAD_RECIPIENT)
    return address, parameters


def _path(argument: bytes, keyword: bytes, bad: Reply) -> tuple[str, Parameters]:
    if argument[: len(keyword)].upper() != keyword:
        raise Refusal(bad)
    match = _PATH.fullmatch(argument, len(keyword))
    if match is None:
        raise Refusal(bad if argument.isascii() else NOT_ASCII)
    local = match[1] or match[3] or b""
    domain = match[2] or match[4] or b""
    if len(local) > LOCAL_PART_LIMIT or len(domain) > DOMAIN_LIMIT or len(local) + len(domain) + 3 > PATH_LIMIT:
        raise Refusal(bad)
    if domain.startswith(b"[") and not _is_literal(domain[1:-1].decode("ascii")):
        raise Refusal(bad)
    address = f"{_unquoted(local)}@{domain.decode('ascii')}" if domain else ""
    return address, _parameters(match[5] or b"")


def _unquoted(local: bytes) -> str:
    text = local.decode("ascii")
    if not text.startswith('"'):
        return text
    plain = re.sub(r"\\(.)", r"\1", text[1:-1])
    return plain if re.fullmatch(_ATOM.decode("ascii"), plain) else text


def _is_literal(text: str) -> bool:
    try:
        if text[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(text[5:])
        else:
            ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _parameters(text: bytes) -> Parameters:
    found: Parameters = {}
    try:
        words = text.decode("ascii").split()
    except UnicodeDecodeError:
        raise Refusal(BAD_PARAMETER) from None
    for word in words:
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in found:
            raise Refusal(BAD_PARAMETER)
        found[match[1].upper()] = match[2] or ""
    return found
