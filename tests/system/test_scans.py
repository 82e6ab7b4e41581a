"""What scanners find that people run against every mail server on the internet: nothing. A soak test; `pip install '.[soak]'` brings sslyze."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from needs import needs, needs_module
from process import Serve

pytestmark = pytest.mark.soak

RULES = "Identities: [example.com]\nRuleSets: {default: [{Name: all, Actions: [{S3Action: {BucketName: mail}}]}]}\n"
NOTHING = "http://127.0.0.1:9"  # AWS is not needed
CHECKS = ("sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "heartbleed", "openssl_ccs", "robot", "compression", "reneg", "fallback", "ems")
STRONG = ("TLS_AES_", "TLS_CHACHA20_", "TLS_ECDHE_ECDSA_WITH_AES_", "TLS_ECDHE_ECDSA_WITH_CHACHA20_")


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    issued = trustme.CA().issue_cert("mx.test")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    cert.write_bytes(issued.cert_chain_pems[0].bytes())
    running = Serve(tmp_path, RULES, NOTHING, tls_cert=str(cert), tls_key=str(key))
    await running.start()
    yield running
    assert await running.kill(15) == 0
    errors = [event for event in running.events if event["level"] == "error"]
    assert not errors, "\n".join(f"{key}: {value}" for key, value in errors[0].items())


async def output(*command: str) -> str:
    """What a program prints that ends well."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_nmap_finds_no_open_relay_no_accounts_and_nothing_vulnerable(serve: Serve) -> None:
    nmap = needs("nmap")
    said = await output(nmap, "-Pn", "-sV", "-p", str(serve.port), "--script", "smtp-*", "--script-args", "smtp-open-relay.domain=example.org",
                        "127.0.0.1")
    assert "smtp-open-relay: Server doesn't seem to be an open relay, all tests failed" in said, said
    assert "Couldn't find any accounts" in said, said
    assert "VULNERABLE" not in said.replace("NOT VULNERABLE", ""), said
    assert "smtp-brute" not in said, "there is nothing to log in to"
    assert "smtp-commands: mx.test, PIPELINING, SIZE 41943040, 8BITMIME, ENHANCEDSTATUSCODES, CHUNKING, LIMITS RCPTMAX=1000, STARTTLS" in said, said
    refused = {event["reason"] for event in serve.events if event["event"] == "session.refused" and event.get("command") == "RCPT"}
    assert refused >= {"no rule", "recipient syntax"}, "it has tried"
    assert not [event for event in serve.events if event["event"] == "message.received"]


async def test_sslyze_finds_tls_1_2_and_1_3_strong_ciphers_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    needs_module("sslyze")
    report = tmp_path / "sslyze.json"
    await output(sys.executable, "-m", "sslyze", "--starttls=smtp", "--mozilla_config=disable", *(f"--{check}" for check in CHECKS),
                 f"--json_out={report}", f"127.0.0.1:{serve.port}")
    (target,) = json.loads(report.read_text())["server_scan_results"]
    found: dict[str, Any] = {name: scan["result"] for name, scan in target["scan_result"].items() if scan["status"] != "NOT_SCHEDULED"}
    assert all(found.values()), target
    ciphers = {name: [each["cipher_suite"]["name"] for each in scan["accepted_cipher_suites"]] for name, scan in found.items()
               if "accepted_cipher_suites" in scan}
    assert {name for name, accepted in ciphers.items() if accepted} == {"tls_1_2_cipher_suites", "tls_1_3_cipher_suites"}
    assert len(ciphers) == 6
    assert not [cipher for accepted in ciphers.values() for cipher in accepted if not cipher.startswith(STRONG)]
    assert found["heartbleed"] == {"is_vulnerable_to_heartbleed": False}
    assert found["openssl_ccs_injection"] == {"is_vulnerable_to_ccs_injection": False}
    assert found["tls_compression"] == {"supports_compression": False}
    assert found["tls_fallback_scsv"] == {"supports_fallback_scsv": True}
    assert found["tls_extended_master_secret"] == {"supports_ems_extension": True}
    assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE")
    assert found["session_renegotiation"]["supports_secure_renegotiation"]
    assert found["session_renegotiation"]["client_renegotiations_success_count"] == 0
