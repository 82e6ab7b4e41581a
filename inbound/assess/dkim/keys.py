"""The public key of a signature, from the TXT records at its name (RFC 6376 §3.6.1 and §6.1.2, RFC 8301, RFC 8463)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from inbound.assess.answers import Answer
from inbound.assess.dkim.fields import Claim, Refused, base64_value, tag_list, words
from inbound.assess.dkim.results import Result

SMALLEST_RSA = 1_024  # bits, RFC 8301 §3.2
LARGEST_RSA = 8_192  # what it takes to verify grows with the cube; RFC 8301 §3.2 asks for 4,096
LARGEST_EXPONENT = 64  # bits; RFC 6376 §8.13
LARGEST_RECORD = 8_192  # octets; a key of 8,192 bits has 1,400 in base64


KeyLookup = Callable[[str], Awaitable[Answer]]
"""Looks the TXT records of a name up, as `dns.Resolver.lookup` does: never raises for anything that DNS or the name does."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is fit for the signature. `testing`: its record has t=y."""

    public: RSAPublicKey | Ed25519PublicKey
    bits: int
    testing: bool

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Is this the signature over the SHA-256 `digest`?"""
        try:
            if isinstance(self.public, Ed25519PublicKey):
                self.public.verify(signature, digest)
            else:
                self.public.verify(signature, digest, PKCS1v15(), Prehashed(SHA256()))
        except InvalidSignature:
            return False
        return True


def read_key(record: bytes, claim: Claim) -> Key:
    """The key in one record. Raises Refused if it is none, or none for this signature, with what RFC 6376 §6.1.2 says of it."""
    try:
        tags = _tags(record)
        flags = words(tags.get(b"t", b""))
        if b"h" in tags and "sha256" not in words(tags[b"h"]):
            raise Refused(Result.PERMERROR, "inappropriate hash algorithm: the key record's h= does not list sha256")
        if not {"*", "email"} & set(words(tags.get(b"s", b"*"))):
            raise Refused(Result.PERMERROR, "the key record's s= does not list email")
        if not tags[b"p"]:
            raise Refused(Result.FAIL, "key revoked: p= is empty")
        if words(tags.get(b"k", b"rsa")) != [claim.key_type]:
            raise Refused(Result.PERMERROR, f"inappropriate key algorithm: the key record's k= is not {claim.key_type}")
        if "s" in flags and claim.identity_domain != claim.described.domain:
            raise Refused(Result.PERMERROR, f"domain mismatch: the key's t=s forbids i=@{claim.identity_domain}")
        public, bits = _public_key(base64_value(tags, "p"), claim.key_type)
    except ValueError as error:
        raise Refused(Result.PERMERROR, f"key syntax error: {error}") from None
    return Key(public, bits, "y" in flags)


@functools.lru_cache(maxsize=256)  # a domain has one key for all it sends; at most two megabytes
def _tags(record: bytes) -> Mapping[bytes, bytes]:
    """Raises ValueError."""
    if len(record) > LARGEST_RECORD:
        raise ValueError(f"a record of {len(record)} octets")
    tags = dict(tag_list(record))
    if b"v" in tags and next(iter(tags.items())) != (b"v", b"DKIM1"):
        raise ValueError("v=DKIM1 is not the first tag")
    if b"p" not in tags:
        raise ValueError("there is no p= in it")
    return tags


@functools.lru_cache(maxsize=256)
def _public_key(octets: bytes, key_type: str) -> tuple[RSAPublicKey | Ed25519PublicKey, int]:
    """The key and its bits. Raises ValueError or Refused."""
    if key_type == "ed25519":
        if len(octets) != 32:
            raise ValueError(f"an Ed25519 key has 32 octets, p= has {len(octets)}")
        return Ed25519PublicKey.from_public_bytes(octets), 256
    try:
        public = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("p= holds no RSA key") from None
    if not isinstance(public, RSAPublicKey):
        raise Refused(Result.PERMERROR, "inappropriate key algorithm: p= holds no RSA key")
    bits = public.key_size
    if bits < SMALLEST_RSA:
        raise Refused(Result.POLICY, f"an RSA key of {bits} bits does not count, {SMALLEST_RSA} are the least (RFC 8301)", bits=bits)
    if bits > LARGEST_RSA or public.public_numbers().e.bit_length() > LARGEST_EXPONENT:
        raise Refused(Result.POLICY, f"an RSA key of {bits} bits with such an exponent is too costly to use", bits=bits)
    return public, bits
