"""RFC 5321 §4.1.2 paths, HELO names and ESMTP parameters, from octets. Nothing that breaks the grammar reaches logs, headers or keys.

With `utf8`, RFC 6531 §3.3 widens the grammar by what is printable beyond ASCII; limits count octets all the same.
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


def _grammar(beyond: bytes, label_limit: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A path with its parameters, and an atom; `beyond` are the octets of characters beyond ASCII, in a character class."""
    atom = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~." + beyond + rb"-]+"
    quoted = rb'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e' + beyond + rb']|\\[\x20-\x7e])*"'
    end = rb"[A-Za-z0-9_" + beyond + rb"]"
    label = end + rb"(?:[A-Za-z0-9_" + beyond + rb"-]{0," + label_limit + rb"}" + end + rb")?"
    domain = rb"(?:" + label + rb"(?:\." + label + rb")*|\[[0-9A-Za-z:.]{1,60}\])"
    route = rb"(?:@" + domain + rb"(?:,@" + domain + rb")*:)?"
    mailbox = rb"(" + atom + rb"|" + quoted + rb")@(" + domain + rb")"
    bare = rb"(" + atom + rb")@(" + domain + rb")"
    return re.compile(rb"[ \t]*(?:<" + route + rb"(?:" + mailbox + rb")?>|" + bare + rb")(?:[ \t]+(.*))?"), re.compile(atom)


_PATH, _ATOM = _grammar(b"", b"61")
_UTF8_PATH, _UTF8_ATOM = _grammar(rb"\x80-\xff", b"250")  # a label of 63 octets in A-label form may have four times as many
_POSTMASTER = re.compile(rb"[ \t]*<(postmaster)>(?:[ \t]+(.*))?", re.IGNORECASE)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")
_HELO = re.compile(rb"[\x21-\x7e]{1,255}")
_UTF8_HELO = re.compile(rb"[\x21-\x7e\x80-\xff]{1,255}")
_JOINERS = "\u200c\u200d"  # not printable, and yet part of words in some scripts (RFC 5892 appendix A)

Parameters = dict[str, str]


def helo_name(argument: bytes, *, utf8: bool = False) -> str | None:
    """The client's name for itself, the first word of the argument; None when it is not printable. Not otherwise judged."""
    name = argument.split(None, 1)[0] if argument.strip() else b""
    return _text(name) if (_UTF8_HELO if utf8 else _HELO).fullmatch(name) else None


def reverse_path(argument: bytes, *, utf8: bool = False) -> tuple[str, Parameters]:
    """(address, parameters) of `FROM:<path> parameters`; the null reverse-path is an empty address. Raises Refusal."""
    return _path(argument, b"FROM:", BAD_SENDER, utf8=utf8)


def forward_path(argument: bytes, *, utf8: bool = False) -> tuple[str, Parameters]:
    """(address, parameters) of `TO:<path> parameters`; `postmaster` has no domain (RFC 5321 §4.5.1). Raises Refusal."""
    if argument[:3].upper() == b"TO:" and (match := _POSTMASTER.fullmatch(argument, 3)):
        return match[1].decode("ascii"), _parameters(match[2] or b"")
    address, parameters = _path(argument, b"TO:", BAD_RECIPIENT, utf8=utf8)
    if not address:
        raise Refusal(BAD_RECIPIENT)
    return address, parameters


def _path(argument: bytes, keyword: bytes, bad: Reply, *, utf8: bool) -> tuple[str, Parameters]:
    if argument[: len(keyword)].upper() != keyword:
        raise Refusal(bad)
    path, atom = (_PATH, _ATOM) if argument.isascii() or not utf8 else (_UTF8_PATH, _UTF8_ATOM)
    match = path.fullmatch(argument, len(keyword))
    if match is None:
        raise Refusal(bad if utf8 or argument.isascii() else NOT_ASCII)
    local = match[1] or match[3] or b""
    domain = match[2] or match[4] or b""
    if len(local) > LOCAL_PART_LIMIT or len(domain) > DOMAIN_LIMIT or len(local) + len(domain) + 3 > PATH_LIMIT:
        raise Refusal(bad)
    if domain.startswith(b"[") and not _is_literal(domain[1:-1].decode("ascii")):
        raise Refusal(bad)
    parts = _text(_unquoted(local, atom)), _text(domain)
    if None in parts:
        raise Refusal(bad)
    return f"{parts[0]}@{parts[1]}" if domain else "", _parameters(match[5] or b"")


def _text(octets: bytes) -> str | None:
    """The octets as text; None when they are not UTF-8, or hold what cannot be seen."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isascii() or all(character.isprintable() or character in _JOINERS for character in text) else None


def _unquoted(local: bytes, atom: re.Pattern[bytes]) -> bytes:
    if not local.startswith(b'"'):
        return local
    plain = re.sub(rb"\\(.)", rb"\1", local[1:-1])
    return plain if atom.fullmatch(plain) else local


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
