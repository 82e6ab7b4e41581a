"""The bounce as octets: whatever strangers wrote, it has three parts, seven bits, and no line but ours begins a part."""

from __future__ import annotations

import email
import email.policy
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inbound.deliver.dsn import Bounce, Failure, printable, typed

DIGEST = "0123456789abcdef" * 4
ADDRESS = st.from_regex(r"[!#-'*+/-9=?A-Z^_`a-z{|}~-]{1,40}@[a-z0-9.-]{1,40}", fullmatch=True)


def bounce(header: bytes = b"Subject: x\r\n", **told: object) -> Bounce:
    usual: dict[str, object] = {
        "failure": Failure("550", "5.1.1", "Mailbox does not exist"), "sender": "postmaster@example.com", "reverse_path": "ann@sender.example",
        "recipients": ["gone@example.com"], "hostname": "mx.example.org", "arrived": 1_443_707_334.5, "header": header, "digest": DIGEST,
    }
    return Bounce(**usual | told)  # type: ignore[arg-type]


@given(header=st.binary(max_size=400), text=st.text(min_size=1, max_size=500), recipients=st.lists(ADDRESS, min_size=1, max_size=4))
@example(header=b"\r\n--" + b"-" * 990, text="x\r\n\r\n.\r\nBcc: victim@example.net", recipients=["a@b"])
@example(header=b"a:" + b"b" * 3000, text="\u2028", recipients=["a@b"])
def test_whatever_strangers_wrote_stays_in_its_place(header: bytes, text: str, recipients: list[str]) -> None:
    made = bounce(header, failure=Failure("550", "", text), recipients=recipients).octets(1_443_707_338.0)
    assert made.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", made)
    assert max(map(len, made.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(made, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    blocks = list(message.iter_parts())[1].get_payload()
    assert [block["Action"] for block in blocks][1 : 1 + len(recipients)] == ["failed"] * len(recipients)
    assert [block.get("Final-Recipient") for block in blocks[1 : 1 + len(recipients)]] == [f"rfc822; {r}" for r in recipients]
    assert made.count(b"\r\nBcc") == header.replace(b"\n", b"\r\n").count(b"\r\nBcc")


def test_dates_are_written_as_ses_writes_them() -> None:
    made = bounce().octets(1_443_707_338.0).decode()
    assert made.startswith("Date: Thu, 1 Oct 2015 13:48:58 +0000\r\n")
    assert "\r\nArrival-Date: Thu, 01 Oct 15 13:48:54 UTC\r\n" in made


def test_the_same_bounce_has_the_same_message_id_and_another_has_another() -> None:
    assert bounce().message_id == "0000015023a9af64-01234567-89ab-cdef-0123-456789abcdef-000000@mx.example.org"
    assert bounce().octets(1.0).split(b"\r\n", 1)[1] == bounce().octets(2.0).split(b"\r\n", 1)[1]
    assert bounce(digest="f" * 40).message_id != bounce().message_id


@pytest.mark.parametrize(("failure", "status", "told"), [
    (Failure("550", "5.1.1", "Mailbox does not exist"), "5.1.1", "550 5.1.1 Mailbox does not exist"),
    (Failure("554", "", "No"), "5.0.0", "554 5.0.0 No"),
    (Failure("450", "", "Later\tperhaps"), "4.0.0", "450 4.0.0 Later perhaps"),
    (Failure("550", "5.7.1", "Grüße \u202e\x85"), "5.7.1", "550 5.7.1 Gr??e ??"),
])
def test_a_failure_is_told_in_one_line(failure: Failure, status: str, told: str) -> None:
    assert (failure.status, str(failure)) == (status, told)


@pytest.mark.parametrize(("header", "shown"), [
    (b"", b""), (b"A: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n"), (b"A: 1\nB: 2\n", b"A: 1\r\nB: 2\r\n"), (b"A: 1", b"A: 1\r\n"),
    (b"A:\t1\r\n\t2\r\n", b"A:\t1\r\n\t2\r\n"), (b"A: \xc3\xa9\x00\r2\r\n", b"A: ????2\r\n"),
    (b"A" * 998, b"A" * 998 + b"\r\n"), (b"A" * 1996, b"A" * 998 + b"\r\n " + b"A" * 997 + b"\r\n A\r\n"),
])
def test_a_header_is_shown_as_printable_text(header: bytes, shown: bytes) -> None:
    assert printable(header) == shown


@pytest.mark.parametrize(("address", "shown"), [
    ("a@example.com", "rfc822; a@example.com"), ('"a b"@example.com', 'rfc822; "a b"@example.com'), ("a\r\n@b", "rfc822; a??@b"),
    ("jörg@example.com", r"utf-8; j\x{F6}rg@example.com"), ("ö+=\\\r@b", r"utf-8; \x{F6}\x{2B}\x{3D}\x{5C}\x{D}@b"),
])
def test_an_address_has_its_type(address: str, shown: str) -> None:
    assert typed(address) == shown


@pytest.mark.parametrize(("told", "needs"), [
    ({}, False), ({"reverse_path": "jörg@example.com"}, True), ({"sender": "jörg@example.com"}, True), ({"recipients": ["jörg@a.b"]}, False),
])
def test_only_its_own_addresses_make_it_need_smtputf8(told: dict[str, object], needs: bool) -> None:
    assert bounce(**told).needs_smtputf8 is needs
