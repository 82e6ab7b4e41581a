"""The certificate in use: read at start, and replaced whole whenever its files change and are good. A bad pair changes nothing.

It is what a handshake is given at its beginning, so sessions that are under way keep the one they began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from inbound.changes import follow
from inbound.log import Event, Log

SOON = 14 * 86400.0  # seconds before its end from which a certificate is told to be running out
DAY = 86400.0

_CERT = "a certificate chain in PEM form, our own certificate first"
_KEY = "the certificate's private key in PEM form, without a passphrase"


class CertificateError(Exception):
    """The setting that is wrong, what is wrong, and what it expects: one line."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, ready for handshakes. `expires` is in seconds since the epoch, `digest` tells pairs apart."""

    context: ssl.SSLContext
    expires: float
    digest: str


def read(cert: Path, key: Path) -> Pair:
    """The pair in the files, for TLS 1.2 (RFC 8996) and up. Blocks. Raises CertificateError; whether it has expired is not looked at."""
    chain = _octets("INBOUND_TLS_CERT", cert, _CERT)
    private = _octets("INBOUND_TLS_KEY", key, _KEY)
    try:
        own = x509.load_pem_x509_certificates(chain)[0]
        of_cert = _encoded(own.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"INBOUND_TLS_CERT: {cert} is not {_CERT}") from None
    try:
        of_key = _encoded(serialization.load_pem_private_key(private, None).public_key())
    except TypeError:
        raise CertificateError(f"INBOUND_TLS_KEY: {key} is encrypted; it should be {_KEY}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"INBOUND_TLS_KEY: {key} is not {_KEY}") from None
    if of_cert != of_key:
        raise CertificateError(f"INBOUND_TLS_KEY: {key} is the key of another certificate than the first in {cert} (INBOUND_TLS_CERT)")
    return Pair(_context(cert, key), own.not_valid_after_utc.timestamp(), hashlib.sha256(chain + private).hexdigest())


def _octets(setting: str, path: Path, expected: str) -> bytes:
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise CertificateError(f"{setting}: {path} is no file; it should be {expected}")
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{setting}: {path} cannot be read: {(error.strerror or str(error)).lower()}; it should be {expected}") from None


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password="")  # a passphrase that is asked for would be asked of the terminal
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"INBOUND_TLS_CERT: OpenSSL refuses {cert}: {error}; it should be {_CERT}") from None
    return context


class Certificate:
    """The pair that handshakes use now. Raises CertificateError when there is none to begin with."""

    def __init__(self, cert: Path, key: Path, log: Log, *, clock: Callable[[], float] = time.time) -> None:
        self._files = cert, key
        self._log = log
        self._clock = clock
        self._pair = read(cert, key)
        self._told = ""  # what was last told to be wrong with the files
        self._replaced = asyncio.Event()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        return self._pair.context

    @property
    def works(self) -> bool:
        """Has it not expired? If it has, STARTTLS is not offered; where TLS begins with the connection, it serves until another comes."""
        return self._clock() < self._pair.expires

    @property
    def ends(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self._pair.expires

    @property
    def expires(self) -> str:
        """The day on which it does."""
        return datetime.fromtimestamp(self._pair.expires, UTC).date().isoformat()

    async def watch(self) -> None:
        """Follow the files until cancelled, and tell daily of a certificate that is about to expire, or has."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self.refresh, *self._files))
            group.create_task(self._remind())

    async def refresh(self) -> None:
        """Look at the files once: use what they hold if it is new and good, tell what is wrong if that is new."""
        try:
            pair = await asyncio.to_thread(read, *self._files)
            if pair.digest != self._pair.digest and pair.expires <= self._clock():
                raise CertificateError(f"INBOUND_TLS_CERT: {self._files[0]} has expired")
        except CertificateError as error:
            if str(error) != self._told:
                self._told = str(error)
                self._log.error(Event.TLS_REJECTED, error=str(error), kept_expires=self.expires)
            return
        self._told = ""
        if pair.digest != self._pair.digest:
            self._pair = pair
            self._replaced.set()
            self._log.info(Event.TLS_LOADED, cert=str(self._files[0]), expires=self.expires)

    async def _remind(self) -> None:
        while True:
            self._replaced.clear()
            left = self._pair.expires - self._clock()
            if left <= 0:
                self._log.error(Event.TLS_EXPIRED, cert=str(self._files[0]), expired=self.expires)
            elif left <= SOON:
                self._log.warning(Event.TLS_EXPIRES, cert=str(self._files[0]), expires=self.expires)
            pause = left - SOON if left > SOON else left if left > 0 else DAY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, DAY)):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._replaced.wait()
