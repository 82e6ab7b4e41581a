"""What a DKIM-Signature field says (RFC 6376 §3.5), read as strictly as §6.1.1 asks, before anything is looked up or hashed for it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dkim.util import InvalidTagValueList, parse_tag_value

from inbound.assess.answers import domain_name
from inbound.assess.dkim.canonical import BodyTerms, Canonicalization
from inbound.assess.dkim.results import Result, Signature

LEEWAY = 300  # seconds that the signer's clock may differ from ours

_WHITE = b" \t\r\n"
_REQUIRED = (b"v", b"a", b"b", b"bh", b"d", b"h", b"s")
_KEYS = "._domainkey."  # RFC 6376 §3.6.2.1
_KEY_TYPES = {"rsa-sha256": "rsa", "rsa-sha1": "rsa", "ed25519-sha256": "ed25519"}
_LONGEST_IDENTITY = 1_024  # octets; RFC 5321 §4.5.3.1.3 lets no path have more than 256, quoted they may be three times as long
_TAG_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_FIELD_NAME = re.compile(rb"[!-9;-~]+")
_NUMBER = {b"l": re.compile(rb"[0-9]{1,76}"), b"t": re.compile(rb"[0-9]{1,12}"), b"x": re.compile(rb"[0-9]{1,12}")}
_ALGORITHM = re.compile(rb"[A-Za-z0-9]{1,20}-[A-Za-z0-9]{1,20}")
_LOCAL_PART = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}")
_QUOTED = re.compile(rb"=([0-9A-F]{2})")


class Refused(Exception):
    """Why a signature, or the key for it, is not even tried."""

    def __init__(self, result: Result, reason: str, *, bits: int = 0) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason
        self.bits = bits


@dataclass(frozen=True, slots=True)
class Claim:
    """A signature to verify. `described` is its part of the results, still without one; `unsigned` is its field with an empty b=."""

    described: Signature
    place: int
    key_name: str
    key_type: str
    identity_domain: str
    canonicalization: Canonicalization
    body: BodyTerms
    names: tuple[bytes, ...]
    body_hash: bytes
    signature: bytes
    unsigned: bytes


def read(octets: bytes, place: int, *, now: float) -> Claim | Signature:
    """What the field at this place of the header claims; or how it is judged already. `octets` is all of it; `now` is epoch seconds."""
    described = Signature(Result.NEUTRAL)
    try:
        tags = tag_list(octets.partition(b":")[2])
        described = _described(tags)
        _check_tags(tags, described)
        _check_times(tags, now)
        return _claim(octets, place, tags, described)
    except ValueError as error:
        return replace(described, reason=f"signature syntax error: {error}")
    except Refused as refused:
        return replace(described, result=refused.result, reason=refused.reason)


def tag_list(text: bytes) -> Mapping[bytes, bytes]:
    """A tag-list (RFC 6376 §3.2), in order. Raises ValueError."""
    try:
        tags: dict[bytes, bytes] = parse_tag_value(text)
    except InvalidTagValueList:
        raise ValueError("it is no list of tags, or has one twice") from None
    if not all(_TAG_NAME.fullmatch(name) for name in tags):
        raise ValueError("a tag has a name that cannot be one")
    return tags


def base64_value(tags: Mapping[bytes, bytes], name: str) -> bytes:
    """The octets of a base64 tag, which may be folded. Raises ValueError, also if there are none."""
    text = tags[name.encode()].translate(None, _WHITE)
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error:
        octets = b""
    if not octets or len(text) % 4:
        raise ValueError(f"{name}= is not base64")
    return octets


def words(value: bytes) -> list[str]:
    """The entries of a colon-separated list, in lower case."""
    return [entry.strip(_WHITE).decode("ascii", "replace").lower() for entry in value.split(b":")]


def _described(tags: Mapping[bytes, bytes]) -> Signature:
    """What can be told of a signature whatever else is wrong with it."""
    domain = _domain(tags.get(b"d", b""))
    algorithm = tags.get(b"a", b"")
    return Signature(
        Result.NEUTRAL,
        domain=domain,
        selector=_selector(tags.get(b"s", b""), domain),
        identity=_identity(tags, domain)[0],
        algorithm=algorithm.decode().lower() if _ALGORITHM.fullmatch(algorithm) else "",
        body_length_limited=b"l" in tags,
    )


def _check_tags(tags: Mapping[bytes, bytes], described: Signature) -> None:
    """Raises ValueError or Refused."""
    for name in _REQUIRED:
        if name not in tags:
            raise ValueError(f"signature missing required tag {name.decode()}=")
    if tags[b"v"] != b"1":
        raise Refused(Result.NEUTRAL, "incompatible version: v= is not 1")
    if not described.domain:
        raise ValueError("d= is no domain name")
    if not described.selector:
        raise ValueError("s= is no selector, or its key has a name too long for DNS")
    for name, number in _NUMBER.items():
        if name in tags and not number.fullmatch(tags[name]):
            raise ValueError(f"{name.decode()}= is no number")
    if described.algorithm not in _KEY_TYPES:
        raise Refused(Result.NEUTRAL, f"unknown algorithm {described.algorithm}".rstrip())
    if described.algorithm == "rsa-sha1":
        raise Refused(Result.POLICY, "SHA-1 does not count (RFC 8301)")
    if "dns/txt" not in words(tags.get(b"q", b"dns/txt")):
        raise Refused(Result.NEUTRAL, "q= knows no way to the key but unknown ones")


def _check_times(tags: Mapping[bytes, bytes], now: float) -> None:
    """Raises ValueError or Refused."""
    signed, expires = (int(tags[name]) if name in tags else None for name in (b"t", b"x"))
    if signed is not None and expires is not None and expires <= signed:
        raise ValueError("x= is not after t=")
    if signed is not None and signed > now + LEEWAY:
        raise Refused(Result.NEUTRAL, f"signed {signed - now:.0f} seconds in the future (t={signed})")
    if expires is not None and expires < now - LEEWAY:
        raise Refused(Result.FAIL, f"signature expired on {datetime.fromtimestamp(expires, UTC):%Y-%m-%d at %H:%M:%S} UTC")


def _claim(octets: bytes, place: int, tags: Mapping[bytes, bytes], described: Signature) -> Claim:
    """Raises ValueError or Refused."""
    header, body = _canonicalizations(tags.get(b"c", b"simple/simple"))
    listed = (name.strip(_WHITE).lower() for name in tags[b"h"].split(b":"))
    names = tuple(name for name in listed if name)
    if not all(map(_FIELD_NAME.fullmatch, names)):
        raise ValueError("h= is no list of header field names")
    if b"from" not in names:
        raise Refused(Result.PERMERROR, "From field not signed")
    _, identity_domain = _identity(tags, described.domain)
    if not identity_domain:
        raise ValueError("i= is no identity")
    if identity_domain != described.domain and not identity_domain.endswith(f".{described.domain}"):
        raise Refused(Result.PERMERROR, f"domain mismatch: i=@{identity_domain} is not in d={described.domain}")
    return Claim(
        described, place, f"{described.selector}{_KEYS}{described.domain}", _KEY_TYPES[described.algorithm], identity_domain, header,
        BodyTerms(body, int(tags[b"l"]) if b"l" in tags else None), names, base64_value(tags, "bh"), base64_value(tags, "b"),
        _without_signature(octets),
    )  # fmt: skip


def _canonicalizations(value: bytes) -> tuple[Canonicalization, Canonicalization]:
    header, both, body = value.decode("ascii", "replace").lower().partition("/")
    try:
        return Canonicalization(header), Canonicalization(body if both else "simple")
    except ValueError:
        raise Refused(Result.NEUTRAL, "unknown canonicalization") from None


def _identity(tags: Mapping[bytes, bytes], domain: str) -> tuple[str, str]:
    """The identity that i= names, or its default, fit to be shown; and its domain, empty if it has none."""
    written = tags.get(b"i", b"@" + domain.encode()).translate(None, _WHITE)
    value = _QUOTED.sub(lambda found: bytes.fromhex(found[1].decode()), written) if len(written) <= _LONGEST_IDENTITY else b""
    local_part, at, host = value.rpartition(b"@")
    name = _domain(host) if at else ""
    plain = local_part.decode("ascii", "replace")
    return f"{plain if _LOCAL_PART.fullmatch(plain) else ''}@{name}" if name else "", name


def _domain(text: bytes) -> str:
    """A domain of two labels or more, in lower-case A-labels (RFC 8616 §4 lets a signature write U-labels); empty if it is none."""
    return "" if text.endswith(b".") else domain_name(text.decode("utf-8", "replace"))


def _selector(text: bytes, domain: str) -> str:
    """Labels, in the same form, that make a name with those of the domain; empty if they make none."""
    end = f"{_KEYS}{domain}"
    return domain_name(text.decode("utf-8", "replace") + end).removesuffix(end) if domain else ""


def _without_signature(octets: bytes) -> bytes:
    """RFC 6376 §3.5, b=: for its own hash a signature counts as empty, with the white space around it."""
    name, _, value = octets.partition(b":")
    specs = [(spec, spec.partition(b"=")[0]) for spec in value.split(b";")]
    return name + b":" + b";".join(tag + b"=" if tag.strip() == b"b" else spec for spec, tag in specs)
