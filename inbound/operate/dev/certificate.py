"""The certificate of `inbound dev`: signed by itself, for this machine, kept in the data folder so that clients may be told to trust it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from inbound.accept import tls
from inbound.settings import SettingsError

VALID = timedelta(days=365)
RENEW = timedelta(days=7)  # before its end


def own_certificate(folder: Path, hostname: str, now: datetime | None = None) -> tuple[Path, Path]:
    """The files of certificate and key for localhost and `hostname`: those in the folder, or new ones. Raises SettingsError."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    moment = now or datetime.now(UTC)
    names = _names(hostname)
    if _serves(cert, key, names, until=moment + RENEW):
        return cert, key
    private, signed = _made(names, moment)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(key, private)
        _replace(cert, signed)
    except OSError as error:
        raise SettingsError(f"cannot keep a certificate in {folder}: {error.strerror or error}; choose another folder with --data") from None
    return cert, key


def _names(hostname: str) -> list[x509.GeneralName]:
    found = [_name(text) for text in ("localhost", "127.0.0.1", "::1")]
    with contextlib.suppress(ValueError):  # a host name that no certificate can hold
        found.append(_name(hostname.strip("[]")))
    return list(dict.fromkeys(found))


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _serves(cert: Path, key: Path, names: Sequence[x509.GeneralName], until: datetime) -> bool:
    """Are the files a pair for these names that is good until then?"""
    try:
        if tls.read(cert, key).expires < until.timestamp():
            return False
        held = x509.load_pem_x509_certificate(cert.read_bytes())
        return list(held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == list(names)
    except (tls.CertificateError, OSError, ValueError, x509.ExtensionNotFound):
        return False


def _made(names: Sequence[x509.GeneralName], now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inbound dev")])
    usage = x509.KeyUsage(digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                          key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False)
    signed = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1)).not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, signed.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, octets: bytes) -> None:
    """Write a file that only we may read, whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor of a file that was never anybody else's to read
        file.write(octets)
    new.replace(path)
