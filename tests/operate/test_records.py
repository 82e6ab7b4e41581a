"""The records to publish, against what other tools say of the same certificate."""

import base64
import re
import subprocess

import trustme
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from needs import needs

from inbound.operate.records import fingerprint, mta_sts, records, signing


def test_the_records_of_a_domain() -> None:
    found = {(r.name, r.type): r.line() for r in records("example.com", "mx.example.net")}
    assert found["example.com", "MX"] == "example.com. 3600 IN MX 10 mx.example.net."
    assert found["mx.example.net", "TXT"] == 'mx.example.net. 3600 IN TXT "v=spf1 a -all"'
    assert not any(kind == "TLSA" for _, kind in found)


def test_the_key_of_a_signature_is_one_record_of_several_strings() -> None:
    key = generate_private_key(65537, 2048)
    record = signing("example.com", "s1", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    name, strings = record.line().split(" 3600 IN TXT ")
    assert name == "s1._domainkey.example.com."
    texts = re.findall('"([^"]*)"', strings)
    assert [len(text) for text in texts[:-1]] == [255] * (len(texts) - 1)
    assert len(texts[-1]) <= 255
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert "".join(texts) == record.value == f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"


def test_tlsa_is_the_hash_that_openssl_makes_of_the_key() -> None:
    pem = trustme.CA().issue_cert("mx.example.net").cert_chain_pems[0].bytes()
    openssl = needs("openssl")
    key = subprocess.run([openssl, "x509", "-noout", "-pubkey"], input=pem, capture_output=True, check=True).stdout
    der = subprocess.run([openssl, "pkey", "-pubin", "-outform", "DER"], input=key, capture_output=True, check=True).stdout
    digest = subprocess.run([openssl, "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True).stdout.split()[0].decode()
    assert fingerprint(pem) == digest
    tlsa = next(r for r in records("example.com", "mx.example.net", certificate=pem) if r.type == "TLSA")
    assert tlsa.line() == f"_25._tcp.mx.example.net. 3600 IN TLSA 3 1 1 {digest}"


def test_the_mta_sts_policy_has_its_four_lines() -> None:
    assert mta_sts("mx.example.net").splitlines() == ["version: STSv1", "mode: testing", "mx: mx.example.net", "max_age: 86400"]
