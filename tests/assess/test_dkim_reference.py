"""What dkimpy signs, and what is made of it on the way, dkimpy and we judge alike; but for a bare CR in a header, which dkimpy takes for
white space: RFC 6376 §3.4.2 has space and tab alone for that (RFC 5234, WSP).
"""

from __future__ import annotations

import asyncio
import base64
import re
import time

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from dkim_signer import DOMAIN, ed25519_key, judged, record, rsa_key
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from inbound.assess.dkim import Result

LINE = st.lists(st.sampled_from(["a", "b ", " ", "\t", "  c", "\r\n x", "\r\n\t", "é", ";", ":", "=", '"', "<x@y.example>"]), max_size=8).map("".join)
FIELDS = st.lists(st.tuples(st.sampled_from(["Subject", "To", "Date", "Cc", "X-Other", "subject", "DKIM-Signature"]), LINE), max_size=5)
BODY = st.one_of(
    st.binary(max_size=60), st.lists(st.sampled_from([b"x", b" ", b"\t", b"\r\n", b"\n", b"\r", b"line\r\n", b" \r\n"]), max_size=20).map(b"".join)
)
CANONICAL = st.sampled_from([b"simple", b"relaxed"])
NEW = st.sampled_from([b"x", b" ", b"\t", b"\r\n ", b"\n", b"\n ", b":", b";", b"=", b"A", b"0", b"\0", b"\xff"])
CHANGE = st.one_of(
    st.none(), *(st.tuples(st.just(how), st.integers(0, 3_000), NEW) for how in ("insert", "insert", "replace", "delete", "swap case"))
)


def signed_by_dkimpy(message: bytes, key: bytes, canonicalize: tuple[bytes, bytes], *, length: bool) -> bytes:
    """The message with dkimpy's own signature above it."""
    private = load_pem_private_key(key, None)
    if isinstance(private, Ed25519PrivateKey):
        secret, algorithm = base64.b64encode(private.private_bytes_raw()), b"ed25519-sha256"
    else:
        secret = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        algorithm = b"rsa-sha256"
    signer = dkim.DKIM(message)
    return signer.sign(b"s", DOMAIN.encode(), secret, algorithm, canonicalize=canonicalize, length=length) + message


def changed(message: bytes, change: tuple[str, int, bytes] | None) -> bytes:
    """The message after one change on the way."""
    if change is None:
        return message
    how, place, new = change
    place %= len(message)
    before, here, after = message[:place], message[place : place + 1], message[place + 1 :]
    return before + {"insert": new + here, "replace": new, "delete": b"", "swap case": here.swapcase()}[how] + after


def dkimpy_passes(message: bytes, key: bytes) -> bool | None:
    """dkimpy's judgement of the topmost signature; None of a header that it cannot read, which is for our own rules alone."""
    try:
        reader = dkim.DKIM(message)
    except Exception:
        return None
    try:
        return bool(reader.verify(0, dnsfunc=lambda name, timeout: record(key)))
    except Exception:
        return False


def has_bare_cr_in_its_header(message: bytes) -> bool:
    return bool(re.search(rb"\r(?!\n)", re.split(rb"\r?\n\r?\n", message, maxsplit=1)[0]))


def test_dkimpy_takes_a_bare_cr_in_a_header_for_white_space_and_we_do_not() -> None:
    signed = signed_by_dkimpy(b"From: a@sender.example\r\n\r\nbody\r\n", rsa_key(), (b"relaxed", b"relaxed"), length=False)
    for octet, our_result in ((b" ", Result.PASS), (b"\r", Result.FAIL)):
        message = signed.replace(b"From: a@sender.example\r\n", b"From: a@sender.example" + octet + b" \r\n")
        assert message != signed
        assert dkimpy_passes(message, rsa_key())
        (signature,) = asyncio.run(judged(message, record(rsa_key()), now=time.time())).signatures
        assert signature.result is our_result, octet


@settings(deadline=None)
@given(
    FIELDS, BODY, st.sampled_from([rsa_key(), ed25519_key()]), st.tuples(CANONICAL, CANONICAL), st.booleans(), CHANGE
)
@example([], b"", rsa_key(), (b"simple", b"simple"), False, None)
@example([("Subject", "a\r\n b")], b"x\r\n", ed25519_key(), (b"relaxed", b"relaxed"), True, ("insert", 10**6, b"x"))
def test_dkimpy_and_we_agree(
    fields: list[tuple[str, str]], body: bytes, key: bytes, canonicalize: tuple[bytes, bytes], length: bool, change: tuple[str, int, bytes] | None
) -> None:
    header = "".join(f"{name}:{value}\r\n" for name, value in [*fields, ("From", " a@sender.example")]).encode()
    signed = signed_by_dkimpy(header + b"\r\n" + body, key, canonicalize, length=length)
    message = changed(signed, change)
    passes = dkimpy_passes(message, key)
    assume(passes is not None)
    results = asyncio.run(judged(message, record(key), now=time.time()))
    ours = bool(results.signatures) and results.signatures[0].result is Result.PASS
    bare = has_bare_cr_in_its_header(message)
    event(f"{change and change[0]}, {canonicalize[0].decode()}: {'pass' if passes else 'no pass'}{', bare CR' * bare}")
    assert ours is passes or (bare and not ours), results
    if canonicalize[0] == b"relaxed" and change is None:
        assert ours, "what was not changed passes"
