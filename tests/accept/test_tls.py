"""The certificate in use: what is good is taken, what is bad changes nothing and is told once, and its end is told in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme
from certificates import authority, issue
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from front_door import until
from journal import Journal

from inbound.accept import tls
from inbound.accept.tls import DAY, SOON, Certificate, CertificateError
from inbound.log import Event

BEGIN = b"-----BEGIN "


def key_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, passphrase: bytes | None = None) -> bytes:
    """A private key as a file holds it."""
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


# --- what a pair must be ---


def test_a_good_pair_is_for_tls_1_2_and_up(tmp_path: Path) -> None:
    pair = tls.read(*issue(tmp_path, days=10))
    assert pair.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert abs(pair.expires - time.time() - 10 * DAY) < 60
    assert not [cipher for cipher in pair.context.get_ciphers() if {"NULL", "RC4", "3DES", "EXP", "aNULL"} & set(cipher["name"].split("-"))]


def missing(cert: Path, _: Path) -> None:
    cert.unlink()


def missing_key(_: Path, key: Path) -> None:
    key.unlink()


def folder(cert: Path, _: Path) -> None:
    cert.unlink()
    cert.mkdir()


def fifo(_: Path, key: Path) -> None:
    key.unlink()
    os.mkfifo(key)


def empty(cert: Path, _: Path) -> None:
    cert.write_bytes(b"")


def text(cert: Path, _: Path) -> None:
    cert.write_text("no certificate")


def torn(cert: Path, _: Path) -> None:
    cert.write_bytes(cert.read_bytes()[:300])


def garbled(cert: Path, _: Path) -> None:
    cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def swapped(cert: Path, key: Path) -> None:
    held = cert.read_bytes()
    cert.write_bytes(key.read_bytes())
    key.write_bytes(held)


def key_is_text(_: Path, key: Path) -> None:
    key.write_text("no key")


def key_of_another(_: Path, key: Path) -> None:
    key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))


def key_of_another_kind(_: Path, key: Path) -> None:
    key.write_bytes(key_pem(ed25519.Ed25519PrivateKey.generate()))


def encrypted(_: Path, key: Path) -> None:
    key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))


def chain_in_the_wrong_order(cert: Path, _: Path) -> None:
    own = cert.read_bytes()
    cert.write_bytes(authority().cert_pem.bytes() + own)


BAD: list[tuple[Callable[[Path, Path], None], str, str]] = [
    (missing, "INBOUND_TLS_CERT", "no such file"),
    (missing_key, "INBOUND_TLS_KEY", "no such file"),
    (folder, "INBOUND_TLS_CERT", "is no file"),
    (fifo, "INBOUND_TLS_KEY", "is no file"),
    (empty, "INBOUND_TLS_CERT", "PEM"),
    (text, "INBOUND_TLS_CERT", "PEM"),
    (torn, "INBOUND_TLS_CERT", "PEM"),
    (garbled, "INBOUND_TLS_CERT", "PEM"),
    (swapped, "INBOUND_TLS_CERT", "PEM"),
    (key_is_text, "INBOUND_TLS_KEY", "PEM"),
    (key_of_another, "INBOUND_TLS_KEY", "the key of another certificate"),
    (key_of_another_kind, "INBOUND_TLS_KEY", "the key of another certificate"),
    (encrypted, "INBOUND_TLS_KEY", "is encrypted; it should be the certificate's private key in PEM form, without a passphrase"),
    (chain_in_the_wrong_order, "INBOUND_TLS_KEY", "the key of another certificate than the first"),
]


@pytest.mark.parametrize(("spoil", "setting", "expected"), BAD, ids=[spoil.__name__ for spoil, *_ in BAD])
def test_a_bad_pair_is_one_line_that_names_the_setting_and_what_it_expects(spoil: Callable[[Path, Path], None], setting: str, expected: str,
                                                                           tmp_path: Path) -> None:
    files = issue(tmp_path)
    spoil(*files)
    with pytest.raises(CertificateError) as caught:
        tls.read(*files)
    line = str(caught.value)
    assert line.startswith(f"{setting}: {files[setting.endswith('KEY')]} ")
    assert expected in line
    assert len(line.splitlines()) == 1


def test_what_openssl_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = issue(tmp_path)
    monkeypatch.setattr(tls, "_encoded", lambda _key: b"")  # our own look at the pair passes anything
    key_of_another(*files)
    with pytest.raises(CertificateError, match=r"INBOUND_TLS_CERT: OpenSSL refuses .*cert.pem: .*KEY_VALUES_MISMATCH"):
        tls.read(*files)


# --- while it is in use ---


class Looking(Certificate):
    """Counts the looks at its files: the first is after the watch stands."""

    looks = 0

    async def refresh(self) -> None:
        await super().refresh()
        self.looks += 1


class Watched:
    """A certificate and what it logs."""

    def __init__(self, cert: Path, key: Path, clock: Callable[[], float] = time.time) -> None:
        self.journal = Journal()
        self.certificate = Looking(cert, key, self.journal.log, clock=clock)

    def told(self, event: Event) -> int:
        """How often an event was logged."""
        return len(self.journal.of(event))


@contextlib.asynccontextmanager
async def watched(cert: Path, key: Path, **options: Callable[[], float]) -> AsyncIterator[Watched]:
    """Watch the files, until the block ends."""
    found = Watched(cert, key, **options)
    watching = asyncio.create_task(found.certificate.watch())
    await until(lambda: found.certificate.looks)
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        assert watching.cancelled()


async def test_a_new_pair_is_taken_when_its_files_change(tmp_path: Path) -> None:
    async with watched(*issue(tmp_path, days=30)) as seen:
        before = seen.certificate.context
        issue(tmp_path, days=60)
        await until(lambda: seen.told(Event.TLS_LOADED))
        assert seen.certificate.context is not before
        assert seen.journal.of(Event.TLS_LOADED)[0]["expires"] == seen.certificate.expires
        assert seen.certificate.works


async def test_a_new_pair_is_taken_where_symbolic_links_lead(tmp_path: Path) -> None:
    """As certbot and Kubernetes keep certificates."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        issue(tmp_path / name)
    (tmp_path / "..data").symlink_to("1")
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file in files:
        file.symlink_to(f"..data/{file.name}")
    async with watched(*files) as seen:
        (tmp_path / "..new").symlink_to("2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await until(lambda: seen.told(Event.TLS_LOADED))
        assert seen.told(Event.TLS_REJECTED) == 0


@pytest.mark.parametrize("spoil", [spoil for spoil, *_ in BAD], ids=lambda spoil: spoil.__name__)
async def test_a_bad_pair_never_replaces_a_good_one_and_is_told_once(spoil: Callable[[Path, Path], None], tmp_path: Path) -> None:
    files = issue(tmp_path)
    seen = Watched(*files)
    good = seen.certificate.context
    spoil(*files)
    for _ in range(3):
        await seen.certificate.refresh()
    assert seen.certificate.context is good
    assert seen.certificate.works
    assert [(event["event"], event["level"]) for event in seen.journal.events] == [(Event.TLS_REJECTED, "error")]
    for file in files:
        if file.is_dir():
            file.rmdir()
        file.unlink(missing_ok=True)
    issue(tmp_path)
    await seen.certificate.refresh()
    assert seen.certificate.context is not good
    assert seen.told(Event.TLS_LOADED) == 1


async def test_the_same_pair_again_is_nothing_to_tell(tmp_path: Path) -> None:
    cert, key = issue(tmp_path)
    seen = Watched(cert, key)
    good, kept = seen.certificate.context, tmp_path / "kept.pem"
    shutil.copy(cert, kept)
    await seen.certificate.refresh()
    cert.unlink()
    await seen.certificate.refresh()
    shutil.copy(kept, cert)
    await seen.certificate.refresh()
    cert.unlink()
    await seen.certificate.refresh()
    assert seen.certificate.context is good
    assert [event["event"] for event in seen.journal.events] == [Event.TLS_REJECTED] * 2, "each time that it went away"


async def test_an_expired_pair_does_not_replace_a_good_one(tmp_path: Path) -> None:
    seen = Watched(*issue(tmp_path))
    good = seen.certificate.context
    issue(tmp_path, days=-1)
    for _ in range(2):
        await seen.certificate.refresh()
    assert seen.certificate.context is good
    (event,) = seen.journal.events
    assert (event["event"], event["error"]) == (Event.TLS_REJECTED, f"INBOUND_TLS_CERT: {tmp_path / 'cert.pem'} has expired")
    assert event["kept_expires"] == seen.certificate.expires


async def test_no_pair_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        Certificate(tmp_path / "cert.pem", tmp_path / "key.pem", Journal().log)


# --- its end ---


async def test_it_works_until_it_expires(tmp_path: Path) -> None:
    now = [time.time()]
    seen = Watched(*issue(tmp_path, days=30), clock=lambda: now[0])
    assert seen.certificate.works
    now[0] += 30 * DAY - 60
    assert seen.certificate.works
    now[0] += 61
    assert not seen.certificate.works


@pytest.mark.parametrize(("days", "event", "level"), [
    (SOON / DAY + 1, None, ""), (SOON / DAY - 1, Event.TLS_EXPIRES, "warning"), (-1, Event.TLS_EXPIRED, "error")])
async def test_its_end_is_told_in_time(days: float, event: Event | None, level: str, tmp_path: Path) -> None:
    async with watched(*issue(tmp_path, days=days)) as seen:
        issue(tmp_path, by=trustme.CA(), days=200)
        await until(lambda: seen.told(Event.TLS_LOADED))
        told = [(e["event"], e["level"]) for e in seen.journal.events if e["event"] not in (Event.TLS_LOADED, Event.TLS_REJECTED)]
        assert told == ([(event, level)] if event else [])


async def test_a_watch_that_ends_as_a_new_pair_comes_ends(tmp_path: Path) -> None:
    """Waiting for the new pair or for the end of the old one must not swallow a cancellation."""
    files = issue(tmp_path)
    for _ in range(20):
        async with watched(*files) as seen:
            issue(tmp_path)
            await seen.certificate.refresh()


async def test_the_end_of_a_new_pair_is_told_as_well(tmp_path: Path) -> None:
    async with watched(*issue(tmp_path, days=200)) as seen:
        issue(tmp_path, days=2)
        await until(lambda: seen.told(Event.TLS_EXPIRES))
        assert seen.journal.events[-1]["expires"] == seen.certificate.expires
