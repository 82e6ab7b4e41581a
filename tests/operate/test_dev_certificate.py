"""The certificate of `inbound dev`: good for a client that trusts it, kept as long as it serves, and nobody else's to read."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inbound.accept import tls
from inbound.operate.dev.certificate import RENEW, VALID, own_certificate
from inbound.settings import SettingsError


def shake_hands(cert: Path, key: Path, name: str) -> None:
    """A handshake with a client that trusts the certificate and expects this name. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.read(cert, key).context.wrap_bio(to_server, to_client, server_side=True)
    client = ssl.create_default_context(cafile=cert).wrap_bio(to_client, to_server, server_hostname=name)
    done = set()
    while len(done) < 2:
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "laptop.example"])
def test_a_client_that_trusts_it_may_call_this_machine_by_any_of_its_names(name: str, tmp_path: Path) -> None:
    cert, key = own_certificate(tmp_path / "tls", "laptop.example")
    shake_hands(cert, key, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(cert, key, "other.example")


def test_it_is_kept_until_it_is_about_to_expire(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    cert, key = own_certificate(tmp_path, "a.example", now - VALID + RENEW - day)
    first = cert.read_bytes(), key.read_bytes()
    own_certificate(tmp_path, "a.example", now - 2 * day)
    assert (cert.read_bytes(), key.read_bytes()) == first
    own_certificate(tmp_path, "a.example", now)
    assert cert.read_bytes() != first[0]
    shake_hands(cert, key, "localhost")


def test_another_host_name_has_another(tmp_path: Path) -> None:
    own_certificate(tmp_path, "a.example")
    shake_hands(*own_certificate(tmp_path, "b.example"), "b.example")


@pytest.mark.parametrize("hostname", ["[192.0.2.1]", "[2001:db8::1]", "localhost", "under_score", "x" * 255, "b\u00fccher", ""])
def test_any_host_name_will_do(hostname: str, tmp_path: Path) -> None:
    files = own_certificate(tmp_path, hostname)
    shake_hands(*files, "localhost")
    before = files[0].read_bytes()
    assert own_certificate(tmp_path, hostname)[0].read_bytes() == before


@pytest.mark.parametrize("spoiled", ["cert.pem", "key.pem"])
@pytest.mark.parametrize("octets", [None, b"", b"nothing"])
def test_what_is_broken_is_made_anew(spoiled: str, octets: bytes | None, tmp_path: Path) -> None:
    files = own_certificate(tmp_path, "a.example")
    (tmp_path / spoiled).unlink() if octets is None else (tmp_path / spoiled).write_bytes(octets)
    assert own_certificate(tmp_path, "a.example") == files
    shake_hands(*files, "localhost")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem"]


def test_nobody_else_can_read_the_key(tmp_path: Path) -> None:
    for file in own_certificate(tmp_path / "tls", "a.example"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(SettingsError) as caught:
        own_certificate(tmp_path / "var" / "tls", "a.example")
    assert str(caught.value) == f"cannot keep a certificate in {tmp_path / 'var' / 'tls'}: Not a directory; choose another folder with --data"
