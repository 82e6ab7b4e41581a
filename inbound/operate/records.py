"""The DNS records that let a domain receive here: MX, SPF and DKIM for bounces, MTA-STS, TLS reports, TLSA. Pure.

RFC 5321 §5.1, RFC 7208, RFC 8461, RFC 8460, RFC 7672 with RFC 6698 (3 1 1: this very key).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inbound.assess.dkim.sign import key_record

TXT_OCTETS = 255  # RFC 1035 §3.3: of one string; a TXT record may hold several


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish, and why. `needed` tells whether mail does not flow, or bounces are not trusted, without it."""

    name: str
    type: str
    value: str
    why: str
    needed: bool = False

    def line(self) -> str:
        """The record as a line of a zone file."""
        texts = [self.value[start : start + TXT_OCTETS] for start in range(0, len(self.value), TXT_OCTETS)]
        value = " ".join(f'"{text}"' for text in texts) if self.type == "TXT" else self.value
        return f"{self.name}. 3600 IN {self.type} {value}"


def records(domain: str, hostname: str, *, certificate: bytes | None = None, policy_id: str = "1") -> list[Record]:
    """What to publish for `domain`, received by `hostname`; `certificate` is its PEM, for TLSA and MTA-STS."""
    found = [
        Record(domain, "MX", f"10 {hostname}.", "mail for the domain comes here", needed=True),
        Record(hostname, "TXT", "v=spf1 a -all", "a HELO or a bounce in the host's name is from the host"),
        Record(domain, "TXT", f"v=spf1 a:{hostname} ~all", "bounces whose Sender is of the domain may come from the host; merge it with the SPF "
               "record that is there, if one is"),
        Record(f"_smtp._tls.{domain}", "TXT", f"v=TLSRPTv1; rua=mailto:tls-reports@{domain}", "senders report trouble with TLS to this address"),
    ]
    if certificate is not None:
        found += [
            Record(f"_mta-sts.{domain}", "TXT", f"v=STSv1; id={policy_id}",
                   f"senders read the policy below at https://mta-sts.{domain}/.well-known/mta-sts.txt"),
            Record(f"_25._tcp.{hostname}", "TLSA", f"3 1 1 {fingerprint(certificate)}",
                   "DANE: this very key; only where the zone is signed (DNSSEC), "
                   "and to be changed with the key"),
        ]
    return found


def signing(domain: str, selector: str, key_pem: bytes) -> Record:
    """Where receivers find the public key of the signature on bounces (RFC 6376 §3.6.2). Raises ValueError."""
    return Record(f"{selector}._domainkey.{domain}", "TXT", key_record(key_pem), "the DKIM signature on bounces is checked with this key")


def mta_sts(hostname: str) -> str:
    """The policy text of RFC 8461 §3.2; `testing` first, `enforce` when the reports are good."""
    return f"version: STSv1\nmode: testing\nmx: {hostname}\nmax_age: 86400\n"


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the public key of a PEM certificate (SubjectPublicKeyInfo), in hexadecimal. Raises ValueError."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
