"""`inbound verify`: the verdicts on a message in a file, and why, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dns_server import DnsServer
from letters_with_attachments import letter
from scanners import EICAR, ClamdAddresses

from inbound.assess.dkim.sign import key_record, new_key, sign
from inbound.operate.cli import cli

KEY = new_key()
RECORD = " ".join(f'"{part}"' for part in (key_record(KEY)[:250], key_record(KEY)[250:]))
ZONE = f"""
    sender.example               TXT  "v=spf1 ip4:192.0.2.1 -all"
    _dmarc.sender.example        TXT  "v=DMARC1; p=reject"
    s._domainkey.sender.example  TXT  {RECORD}
    helo.example                 TXT  "v=spf1 ip4:192.0.2.1 -all"
"""
SIGNED = sign(letter(), domain="sender.example", selector="s", key_pem=KEY) + letter()


@pytest.fixture(autouse=True)
def _dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with DnsServer(ZONE) as dns:
        monkeypatch.setenv("INBOUND_DNS", dns.setting)
        for name in ("INBOUND_CLAMD", "INBOUND_RSPAMD", "INBOUND_DKIM_VERDICT"):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(SIGNED)
    return path


def verify(*arguments: object, input: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)], input=input)


def facts(*arguments: object, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(verify(*arguments, "--json", **more).stdout)
    return found


def test_a_good_message(file: Path) -> None:
    done = verify(file, "--ip", "192.0.2.1")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        "client 192.0.2.1, HELO [192.0.2.1]", "sender ann@sender.example", "author sender.example", "",
        "spf PASS SPF pass: sender.example says so with ip4:192.0.2.1",
        "dkim PASS sender.example: signed",
        "pass d=sender.example s=s, rsa-sha256, 2048 bits",
        "dmarc PASS DMARC pass: SPF passes for sender.example, which aligns with sender.example",
        "spam GRAY no scanner is configured", "virus GRAY no scanner is configured",
    ]


def test_a_changed_message_fails_and_says_why(file: Path) -> None:
    file.write_bytes(SIGNED.replace(b"how are", b"who are"))
    done = verify(file, "--ip", "192.0.2.99")
    assert done.exit_code == 1
    assert "dkim        FAIL               sender.example: body hash did not verify" in done.stdout
    assert "dmarc       FAIL" in done.stdout


def test_without_a_client_address_spf_is_not_judged_and_dmarc_does_not_fail_for_it(file: Path) -> None:
    told = facts(file)
    assert told["spf"] is None
    assert [told["verdicts"][name]["status"] for name in ("spf", "dkim", "dmarc")] == ["GRAY", "PASS", "PASS"]
    file.write_bytes(letter())
    assert facts(file)["verdicts"]["dmarc"]["status"] == "PROCESSING_FAILED"


def test_every_fact_is_there_for_programs(file: Path) -> None:
    told = facts(file, "--ip", "192.0.2.1", "--helo", "helo.example", "--from", "<>")
    assert (told["client"], told["helo"], told["sender"]) == ("192.0.2.1", "helo.example", "")
    assert (told["spf"]["identity"], told["spf"]["domain"], told["spf"]["result"]) == ("helo", "helo.example", "pass")
    assert [(each["result"], each["domain"], each["selector"], each["bits"]) for each in told["dkim"]] == [("pass", "sender.example", "s", 2048)]
    assert told["dmarc"]["result"] == "pass"
    assert told["author"] == {"domain": "sender.example", "problem": "", "named": []}


@pytest.mark.parametrize(("header", "sender"), [
    (b"Return-Path: <bounce@sender.example>\r\n", "bounce@sender.example"), (b"Return-Path: <>\r\n", ""), (b"", "ann@sender.example"),
])
def test_the_sender_is_that_of_the_return_path_or_of_from(file: Path, header: bytes, sender: str) -> None:
    file.write_bytes(header + SIGNED)
    assert facts(file)["sender"] == sender
    assert facts(file, "--from", "x@y.example")["sender"] == "x@y.example"


def test_a_file_with_bare_line_feeds_is_read_as_it_travelled(file: Path) -> None:
    file.write_bytes(SIGNED.replace(b"\r\n", b"\n"))
    assert facts(file)["verdicts"]["dkim"]["status"] == "PASS"


def test_standard_input_is_a_file_too() -> None:
    assert facts("-", input=SIGNED)["verdicts"]["dkim"]["status"] == "PASS"


def test_configured_scanners_are_asked(file: Path, clamd: ClamdAddresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_CLAMD", str(clamd.path))
    monkeypatch.setenv("INBOUND_SCAN_FAILURE", "retry")
    file.write_bytes(letter("see below\n", EICAR))
    assert facts(file)["verdicts"]["virus"]["status"] == "FAIL"
    monkeypatch.setenv("INBOUND_CLAMD", "/nowhere/clamd.sock")
    assert facts(file)["verdicts"]["virus"] == {"status": "PROCESSING_FAILED", "reason": "clamd:/nowhere/clamd.sock: No such file or directory"}


@pytest.mark.parametrize(("arguments", "said"), [
    (["--ip", "192.0.2.999"], "--ip: '192.0.2.999' is no IP address"), (["--ip", "mx.example"], "--ip: 'mx.example' is no IP address"),
])
def test_a_wrong_address_is_one_line(file: Path, arguments: list[str], said: str) -> None:
    done = verify(file, *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"inbound: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_not_there_is_one_clear_error() -> None:
    done = verify("nowhere.eml")
    assert done.exit_code == 2
    assert "nowhere.eml" in done.stderr


@pytest.mark.parametrize("octets", [b"", b"\0" * 5000, bytes(range(256)) * 400, b"From: \x1b[31mred <a@b\x1b[0m.example>\r\n\r\n"])
def test_no_file_whatever_breaks_it_or_the_terminal(file: Path, octets: bytes) -> None:
    file.write_bytes(octets)
    done = verify(file, "--ip", "2001:db8::1")
    assert done.exit_code in (0, 1)
    assert "\x1b" not in done.stdout
    assert "\0" not in done.stdout
