"""mailauth (npm), a verifier written by others in another language, agrees with our verdicts over the test messages."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
from dkim_signer import ed25519_key, record, rsa_key, signature
from dns_server import DnsServer
from letters_with_attachments import letter
from needs import needs

from inbound.accept.envelope import Envelope, Peer
from inbound.assess.assessor import Assessor
from inbound.assess.dns import Resolver
from inbound.assess.rendering import BytesContent

IP, OTHER_IP = "192.0.2.1", "192.0.2.99"
NOW = int(time.time())
PLAIN = letter()
RSA, OTHER_RSA, EDWARDS = rsa_key(2048), rsa_key(2048, 1), ed25519_key()
NAMES = "from:to:subject:date:message-id"
ZONE = {
    "sender.example": "v=spf1 ip4:192.0.2.1 -all",
    "_dmarc.sender.example": "v=DMARC1; p=reject; sp=quarantine",
    "r._domainkey.sender.example": record(RSA).decode(),
    "e._domainkey.sender.example": record(EDWARDS).decode(),
    "gone._domainkey.sender.example": "v=DKIM1; k=rsa; p=",
    "sub.sender.example": "v=spf1 ip4:192.0.2.1 -all",
    "r._domainkey.sub.sender.example": record(RSA).decode(),
    "strict.example": "v=spf1 ip4:192.0.2.1 -all",
    "_dmarc.strict.example": "v=DMARC1; p=reject; adkim=s; aspf=s",
    "r._domainkey.strict.example": record(RSA).decode(),
    "sub.strict.example": "v=spf1 ip4:192.0.2.1 -all",
    "r._domainkey.sub.strict.example": record(RSA).decode(),
    "bare.example": "v=spf1 ip4:192.0.2.1 ?all",
    "r._domainkey.bare.example": record(RSA).decode(),
    "softly.example": "v=spf1 ~all",
    "broken.example": "v=spf1 ip4:999 -all",
}


def sent_from(domain: str, octets: bytes = PLAIN) -> bytes:
    """The letter with that From domain."""
    return octets.replace(b"ann@sender.example", f"ann@{domain}".encode())


def signed(octets: bytes = PLAIN, key: bytes = RSA, domain: str = "sender.example", **tags: str) -> bytes:
    tags = {"names": NAMES, "d": domain, "s": "e" if key is EDWARDS else "r", "t": str(NOW - 60)} | tags
    return signature(octets, key, **tags) + octets  # type: ignore[arg-type]


class Case(NamedTuple):
    """A message, and the session it came in."""

    message: bytes
    sender: str = "ann@sender.example"
    ip: str = IP


CASES = {
    "unsigned": Case(PLAIN),
    "unsigned from elsewhere": Case(PLAIN, ip=OTHER_IP),
    "RSA": Case(signed()),
    "RSA from elsewhere": Case(signed(), ip=OTHER_IP),
    "Ed25519": Case(signed(key=EDWARDS)),
    "Ed25519 from elsewhere": Case(signed(key=EDWARDS), ip=OTHER_IP),
    "both": Case(signed(signed(), EDWARDS, t=str(NOW - 30))),
    "simple": Case(signed(c="simple/simple")),
    "simple header": Case(signed(c="simple/relaxed")),
    "relaxed header": Case(signed(c="relaxed/simple")),
    "relaxed, white space added in the body": Case(signed().replace(b"how are", b"how  \tare")),
    "simple, white space added in the body": Case(signed(c="simple/simple").replace(b"how are", b"how  are"), ip=OTHER_IP),
    "lines added at the end": Case(signed() + b"\r\n\r\n"),
    "a large body": Case(signed(letter("x\n", b"attached" * 60_000)), ip=OTHER_IP),
    "the body changed": Case(signed().replace(b"how are", b"who are"), ip=OTHER_IP),
    "a signed field changed": Case(signed().replace(b"Subject: Hello", b"Subject: Hallo"), ip=OTHER_IP),
    "an unsigned field added": Case(b"X-Added: yes\r\n" + signed(), ip=OTHER_IP),
    "another key": Case(signed(key=OTHER_RSA), ip=OTHER_IP),
    "a revoked key, and a good one": Case(signed(signed(), s="gone"), ip=OTHER_IP),
    "no key": Case(signed(s="none"), ip=OTHER_IP),
    "no key, SPF aligned": Case(signed(s="none")),
    "expired": Case(signed(t=str(NOW - 7200), x=str(NOW - 3600)), ip=OTHER_IP),
    "signed for a subdomain": Case(signed(domain="sub.sender.example"), ip=OTHER_IP),
    "signed for another domain": Case(signed(domain="bare.example"), ip=OTHER_IP),
    "SPF of a subdomain": Case(PLAIN, sender="bounce@sub.sender.example"),
    "SPF of another domain": Case(PLAIN, sender="bounce@bare.example"),
    "strict, signed for a subdomain": Case(signed(sent_from("strict.example"), domain="sub.strict.example"), ip=OTHER_IP),
    "strict, signed for itself": Case(signed(sent_from("strict.example"), domain="strict.example"), ip=OTHER_IP),
    "strict, SPF of a subdomain": Case(sent_from("strict.example"), sender="b@sub.strict.example"),
    "strict, SPF of itself": Case(sent_from("strict.example"), sender="b@strict.example"),
    "no policy": Case(signed(sent_from("bare.example"), domain="bare.example"), sender="a@bare.example"),
    "a subdomain by its organization's policy": Case(sent_from("sub.sender.example"), sender="a@bare.example", ip=OTHER_IP),
    "softfail": Case(PLAIN, sender="a@softly.example"),
    "no SPF record": Case(PLAIN, sender="a@unknown.example"),
    "a broken SPF record": Case(PLAIN, sender="a@broken.example"),
    "the null reverse-path": Case(PLAIN, sender=""),
}
DISAGREED = {"strict, signed for a subdomain", "strict, SPF of a subdomain"}
"""mailauth 4.13.3 goes on to relaxed alignment where the record asks for strict (its lib/tools.js, getAlignment); RFC 9989 §4.4 is plain."""


class Said(NamedTuple):
    """The words of RFC 8601."""

    spf: str
    dkim: list[str]
    dmarc: str


@pytest.fixture(scope="module")
def mailauth() -> dict[str, Said]:
    folder = Path(needs("mailauth", why="npm install mailauth@4")).resolve().parents[1]
    cases = [{"message": base64.b64encode(case.message).decode(), "ip": case.ip, "helo": "helo.example", "sender": case.sender}
             for case in CASES.values()]
    asked = json.dumps({"zone": {name: [text] for name, text in ZONE.items()}, "cases": cases})
    command = [needs("node"), str(Path(__file__).with_name("mailauth.js")), str(folder)]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=100, check=True)
    return {name: Said(**said) for name, said in zip(CASES, json.loads(done.stdout), strict=True)}


@pytest.fixture
async def ours(request: pytest.FixtureRequest) -> Said:
    case = CASES[request.getfixturevalue("name")]
    text = "\n".join(f"{name} TXT " + " ".join(f'"{part[n : n + 250]}"' for part in (value,) for n in range(0, len(part), 250))
                     for name, value in ZONE.items())
    with DnsServer(text) as dns:
        assessor = Assessor(Resolver([dns.address]), structlog.get_logger(), hostname="mx.test")
        envelope = Envelope("a" * 40, Peer(case.ip, 1, "known.example"), "helo.example", case.sender, ("support@example.com",), time.time())
        found = await assessor(envelope, BytesContent(case.message), scan=False)
        await assessor.close()
    said = found.authentication
    assert said
    return Said(said.spf, [clause.result for clause in said.dkim], said.dmarc)


@pytest.mark.parametrize("name", CASES)
def test_another_verifier_agrees(name: str, ours: Said, mailauth: dict[str, Said]) -> None:
    theirs = mailauth[name]
    assert (ours.dmarc, theirs.dmarc) == (("fail", "pass") if name in DISAGREED else (theirs.dmarc, theirs.dmarc))
    assert ours.spf == theirs.spf
    passed = [result == "pass" for result in ours.dkim]
    assert passed == [result == "pass" for result in theirs.dkim if result != "none"]
