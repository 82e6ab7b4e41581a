"""Signs as told, sound or not: what dkimpy hashes, with every tag, name and key free to choose, so that one thing at a time is wrong.

A signature made here verifies but for what the test made wrong: its hashes and its b= are true for whatever it says.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping

import dkim
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from dkim.canonicalization import CanonicalizationPolicy, InvalidCanonicalizationPolicyError

from inbound.assess.answers import Answer, Outcome
from inbound.assess.dkim import DkimResults, KeyLookup, Signature
from inbound.assess.dkim.check import check
from inbound.assess.dkim.sign import key_record
from inbound.assess.rendering import BytesContent

NOW = 1_800_000_000
DOMAIN = "sender.example"
NAME = f"s._domainkey.{DOMAIN}"
MESSAGE = b"""\
Received: from a.example by b.example; Fri, 11 Jul 2003 21:00:37 -0700
From: Joe <joe@sender.example>
To: Suzie <suzie@receiver.example>
Subject:  Is   dinner
\tready?
Date: Fri, 11 Jul 2003 21:00:37 -0700
Message-ID: <1@sender.example>

Hi.  We lost \tthe game.\x20

Are you hungry yet?

Joe.


""".replace(b"\n", b"\r\n")

WEAK = b"""-----BEGIN PRIVATE KEY-----
MIIB5QIBADANBgkqhkiG9w0BAQEFAASCAc8wggHLAgEAAmEA4zaSIpZIlja7dCao
KFhSBX2x49TjhdVg2W+4d9zaTLDyE6loqdqkYLsdlDg3HSkl3zx+kObUsN1jiomh
KS7u4DJtbO4MrghBV8VSCwAqgEmAV/LMCA/nsDDHf4KOTiAZAgMBAAECYH/LiMQ1
XNxIKoT43SncCz4VZYGsktAKpO+HW+zm5k2uVGnkpf6rADt74vYj7DPVmO0FhWJT
8wQkuIGuociw6Gqgz0xaXCTlb+G3drY5A0PPFA1a4gvx832dg4523zeuAQIxAPq9
WZoy9wzhxbabPNw7XrEcJovRrklBYhVuIsdhRAmcN1s6ZkiyYBEx1AgEB+Wr2QIx
AOf63e5hUmuVk29xYqU7SJkWTh8x00pP9Emd1U6/nyrXih1OhmIg7LHfVg7rlbCu
QQIwWtuqUFoPc7eMMXNnRlatJXiR7zB3+0uaAzH5oE36nZDh7kjnL4iTjyeDMbRk
ODFhAjEAxXtz2M4y6vFPrMx6rKzWNbSeVsIE3DtKfC0H/Nz18/O/WQmTLxBWT2oQ
Ce2V5e3BAjEAlIn49UdDz4kKIwlTj/dxbvZHKWd1QA8Z4uuSRZRb1NuNoMy+/s6X
W8kxpFgU/ujO
-----END PRIVATE KEY-----
"""
"""An RSA key of 768 bits, which nothing generates any more."""


def pem(key: rsa.RSAPrivateKey | Ed25519PrivateKey) -> bytes:
    """The key as a user keeps it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def rsa_key(bits: int = 1024, which: int = 0) -> bytes:
    """An RSA key, the same one each time; another for another `which`."""
    return _rsa_key(bits, which)


@functools.cache
def _rsa_key(bits: int, which: int) -> bytes:
    return pem(rsa.generate_private_key(65537, bits))


@functools.cache
def ed25519_key() -> bytes:
    """An Ed25519 key."""
    return pem(Ed25519PrivateKey.generate())


def record(key: bytes, **tags: str) -> bytes:
    """The key record, with more tags, or other values: `record(key, t="s")`."""
    fields = dict(tag.split("=", 1) for tag in key_record(key).split("; ")) | tags
    return "; ".join(f"{name}={value}" for name, value in fields.items()).encode()


def public_pkcs1(key: bytes) -> str:
    """The public key as RFC 6376 itself defines p=: an RSAPublicKey."""
    public = load_pem_private_key(key, None).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()


def signature(
    message: bytes = MESSAGE,
    key: bytes | None = None,
    *,
    names: str = "from:to:subject:date:message-id",
    without: str = "",
    **tags: str | None,
) -> bytes:
    """A DKIM-Signature line. `names` is what h= says; `tags` are added or replace the usual ones (None, and `without`: left out).

    What is given for bh= and b= stands there as it is.
    """
    private = load_pem_private_key(key or rsa_key(), None)
    values: dict[str, str | None] = {
        "v": "1", "a": "ed25519-sha256" if isinstance(private, Ed25519PrivateKey) else "rsa-sha256", "c": "relaxed/relaxed",
        "d": DOMAIN, "s": "s", "t": str(NOW - 60), "h": names, "bh": "",
    }  # fmt: skip
    values |= tags
    parsed = dkim.DKIM(message)
    policy = _policy(values["c"])
    hashing = hashlib.sha1 if values["a"] == "rsa-sha1" else hashlib.sha256
    limit = values.get("l") or ""
    body = policy.canonicalize_body(parsed.body)
    body_hash = hashing(body[: int(limit)] if limit.isdigit() else body).digest()
    values["bh"] = values["bh"] or base64.b64encode(body_hash).decode()
    given = values.pop("b", None)
    listed = [f"{name}={value}" for name, value in values.items() if value is not None and name != without]
    unsigned = (" " + "; ".join([*listed, "b="])).encode()
    covered = [name.strip().lower().encode() for name in names.split(":")]
    header = dkim.HashThrough(hashing())
    dkim.hash_headers(header, policy, policy.canonicalize_headers(parsed.headers), covered, (b"DKIM-Signature", unsigned), {})
    signed = base64.b64encode(_signed(private, header.digest())) if given is None else given.encode()
    return b"DKIM-Signature:" + (unsigned.removesuffix(b"; b=") if without == "b" else unsigned + signed) + b"\r\n"


def _signed(private: object, digest: bytes) -> bytes:
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(digest)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private.sign(digest, PKCS1v15(), Prehashed(hashes.SHA256() if len(digest) == 32 else hashes.SHA1()))


def _policy(value: str | None) -> CanonicalizationPolicy:
    try:
        return CanonicalizationPolicy.from_c_value((value or "simple").lower().encode())
    except InvalidCanonicalizationPolicyError:
        return CanonicalizationPolicy.from_c_value(b"simple")


def zone(records: Mapping[str, bytes | tuple[bytes, ...] | Outcome]) -> KeyLookup:
    """A DNS of these TXT records; the value may be how the lookup ends instead."""

    async def lookup(name: str) -> Answer:
        found = records.get(name, Outcome.NXDOMAIN)
        if isinstance(found, Outcome):
            return Answer(found, reason=f"{name}: {found}")
        return Answer(Outcome.FOUND, (found,) if isinstance(found, bytes) else found)

    return lookup


async def judged(message: bytes, *records: bytes, now: float = NOW) -> DkimResults:
    """The results, where these records are the keys of `NAME`; without any, that of `rsa_key()`."""
    return await check(BytesContent(message), zone({NAME: records or (record(rsa_key()),)}), now=now)


async def only(message: bytes, *records: bytes, now: float = NOW) -> Signature:
    """The result of the one signature."""
    results = await judged(message, *records, now=now)
    (one,) = results.signatures
    return one
