"""The header fields we prepend, in SES's form, and nothing a client says breaks out of them."""

from __future__ import annotations

import dataclasses
import email.utils
import locale
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.envelope import Envelope, Peer
from inbound.assess.rendering import field_line
from inbound.assess.verdicts import Assessment, Status, Verdict, trace_headers

ENVELOPE = Envelope(
    message_id="795hue2ttd6ie60k15ji41vbso3q721dlq9g6f81",
    peer=Peer("203.0.113.51", 4242, "mail.sender.example"),
    helo="out.sender.example",
    reverse_path="ann@sender.example",
    forward_paths=("support@example.com",),
    received_at=1_755_105_366.25,
)
SCANNED = Assessment(spam=Verdict(Status.FAIL), virus=Verdict(Status.PROCESSING_FAILED))


def headers(envelope: Envelope, assessment: Assessment = SCANNED, *, scan: bool = False) -> dict[str, str]:
    pairs = trace_headers(envelope, assessment, hostname="mx.us.example", authserv_id="mx.us.example", scan=scan)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_the_form_of_ses() -> None:
    assert list(headers(ENVELOPE, scan=True).items()) == [
        ("Return-Path", "<ann@sender.example>"),
        (
            "Received",
            (
                "from out.sender.example (mail.sender.example [203.0.113.51])\r\n"
                " by mx.us.example with SMTP id 795hue2ttd6ie60k15ji41vbso3q721dlq9g6f81\r\n"
                " for support@example.com;\r\n"
                " Wed, 13 Aug 2025 17:16:06 +0000 (UTC)"
            ),
        ),
        ("X-SES-Spam-Verdict", "FAIL"),
        ("X-SES-Virus-Verdict", "PROCESSING_FAILED"),
    ]


def test_scan_verdicts_only_where_a_rule_scans() -> None:
    assert list(headers(ENVELOPE)) == ["Return-Path", "Received"]
    disabled = Assessment(spam=Verdict(Status.DISABLED), virus=Verdict(Status.PASS))
    assert list(headers(ENVELOPE, disabled, scan=True)) == ["Return-Path", "Received", "X-SES-Virus-Verdict"]


def test_null_sender_no_reverse_name_several_recipients() -> None:
    envelope = dataclasses.replace(
        ENVELOPE, reverse_path="", peer=Peer("2001:db8::25"), helo="[IPv6:2001:db8::25]", forward_paths=("a@example.com", "b@example.com")
    )
    assert headers(envelope) == {
        "Return-Path": "<>",
        "Received": "from [IPv6:2001:db8::25] (unknown [2001:db8::25])\r\n"
        " by mx.us.example with SMTP id 795hue2ttd6ie60k15ji41vbso3q721dlq9g6f81;\r\n"
        " Wed, 13 Aug 2025 17:16:06 +0000 (UTC)",
    }


def test_one_recipient_named_twice_is_one() -> None:
    envelope = dataclasses.replace(ENVELOPE, forward_paths=("Support@example.com", "support@EXAMPLE.com"))
    assert "\r\n for support@EXAMPLE.com;" in headers(envelope)["Received"]


def test_the_date_does_not_depend_on_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = locale.setlocale(locale.LC_ALL)
    names = [name for name in ("de_DE.UTF-8", "C.UTF-8") if _set(name)]
    try:
        received = [headers(dataclasses.replace(ENVELOPE, received_at=float(at)))["Received"] for at in (0, 1_709_251_199)]
    finally:
        locale.setlocale(locale.LC_ALL, before)
    assert names
    assert received[0].endswith(";\r\n Thu, 01 Jan 1970 00:00:00 +0000 (UTC)")
    assert received[1].endswith(";\r\n Thu, 29 Feb 2024 23:59:59 +0000 (UTC)")


def _set(name: str) -> bool:
    try:
        return bool(locale.setlocale(locale.LC_ALL, name))
    except locale.Error:
        return False


def test_an_address_by_smtputf8_keeps_its_letters() -> None:
    envelope = dataclasses.replace(
        ENVELOPE, reverse_path="jörg\u202e@b\u00a0.example", forward_paths=("мир\u2028@example.com",), smtputf8=True
    )
    assert headers(envelope)["Return-Path"] == "<jörg?@b?.example>"
    assert "\r\n for мир?@example.com;" in headers(envelope)["Received"]
    assert headers(dataclasses.replace(envelope, smtputf8=False))["Return-Path"] == "<j?rg?@b?.example>"


CLIENT = st.lists(st.one_of(st.characters(), st.sampled_from(" \r\n\0;()[]\\=?<>\"'\x85\u2028\ud800")), max_size=40).map("".join)
RECEIVED = re.compile(
    r"from [!-~]+ \([!-~]+ \[[!-~]+\]\)\r\n by mx\.us\.example with SMTP id [a-z0-9]{40}(\r\n for [!-~]+)?"
    r";\r\n [A-Z][a-z]{2}, [0-9:A-Za-z +]+ \(UTC\)"
)


@given(CLIENT, CLIENT, CLIENT, st.lists(CLIENT, min_size=1, max_size=2))
def test_nothing_a_client_says_breaks_out(helo: str, reverse_name: str, reverse_path: str, forward_paths: list[str]) -> None:
    envelope = dataclasses.replace(
        ENVELOPE, helo=helo, peer=Peer("192.0.2.1", 1, reverse_name), reverse_path=reverse_path, forward_paths=tuple(forward_paths)
    )
    made = headers(envelope)
    received = made["Received"]
    assert RECEIVED.fullmatch(received)
    assert received.count(";") == 1
    assert received.count("(") == received.count(")") == 2
    assert "=?" not in received
    assert email.utils.parsedate_to_datetime(received.rpartition(";")[2].strip()).timestamp() == 1_755_105_366
    assert re.fullmatch(r"<[ -~]*>", made["Return-Path"])
    for name, value in made.items():
        assert field_line(name, value) == f"{name}: {value}\r\n".encode()
