"""Certificates for tests, from an authority made once: in files as operators have them, and in contexts as clients do."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from inbound.accept import tls


@functools.cache
def authority() -> trustme.CA:
    """Who issues the certificates that clients trust."""
    return trustme.CA()


def issue(folder: Path, *, by: trustme.CA | None = None, days: float = 90, name: str = "mx.test") -> tuple[Path, Path]:
    """A new certificate with its key in `cert.pem` and `key.pem` of a folder; `days` until it expires, negative when it has."""
    now = datetime.now(UTC)
    issued = (by or authority()).issue_cert(name, not_before=now - timedelta(days=400), not_after=now + timedelta(days=days))
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def server_context(folder: Path) -> ssl.SSLContext:
    """The context that the service makes of a new certificate."""
    return tls.read(*issue(folder)).context


def client_context(by: trustme.CA | None = None) -> ssl.SSLContext:
    """A client that trusts the authority, and no other."""
    context = ssl.create_default_context()
    (by or authority()).configure_trust(context)
    return context
