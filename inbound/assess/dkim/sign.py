"""Signing, by dkimpy: for `inbound send --sign`, for bounces, and for tests."""

from __future__ import annotations

import base64

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


def sign(message: bytes, *, domain: str, selector: str, key_pem: bytes) -> bytes:
    """The DKIM-Signature line, with its CRLF, to put above the message: relaxed/relaxed, with the key's algorithm.

    Raises ValueError for a key that is no unencrypted RSA or Ed25519 private key in PEM, and for a message that cannot be signed.
    """
    key = _private_key(key_pem)
    if isinstance(key, Ed25519PrivateKey):
        secret, algorithm = base64.b64encode(key.private_bytes_raw()), b"ed25519-sha256"
    else:
        secret, algorithm = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()), b"rsa-sha256"
    try:
        line: bytes = dkim.DKIM(message).sign(
            selector.encode("idna"), domain.encode("idna"), secret, algorithm, canonicalize=(b"relaxed", b"relaxed")
        )
    except dkim.DKIMException as error:
        raise ValueError(f"the message cannot be signed: {error}") from error
    return line


def new_key() -> bytes:
    """A new RSA key of 2,048 bits in PEM."""
    return generate_private_key(65_537, 2_048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_record(key_pem: bytes) -> str:
    """The TXT record to publish at SELECTOR._domainkey.DOMAIN for this private key. Raises ValueError as `sign` does."""
    key = _private_key(key_pem)
    if isinstance(key, Ed25519PrivateKey):
        name, octets = "ed25519", key.public_key().public_bytes_raw()
    else:
        name, octets = "rsa", key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k={name}; p={base64.b64encode(octets).decode()}"


def _private_key(key_pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise ValueError("it is no unencrypted private key in PEM") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError("DKIM signs with RSA and Ed25519 keys only")
    return key
