"""Each guard against backscatter alone: what it objects to, and what it lets pass. And the caps, on a clock that only tests move."""

from __future__ import annotations

from typing import Any

import pytest
from bouncing import HOST, envelope
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.envelope import Envelope
from inbound.accept.rate import Rate
from inbound.assess.message import parse
from inbound.assess.verdicts import Assessment, Status, Verdict
from inbound.deliver import backscatter
from inbound.deliver.backscatter import GUARDS, Candidate, Caps, Guard, objection


def candidate(header: str = "", told: Envelope | None = None, assessment: Assessment | None = None, sender: str = "bounces@example.com") -> Candidate:
    message = parse(header.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return Candidate(told or envelope(), message.fields, assessment or Assessment(), sender, HOST)


def alone(guard: Guard, against: Candidate) -> str:
    """What that guard says, once it is clear that no other says anything."""
    assert objection(against, [other for other in GUARDS if other is not guard]) == ""
    assert objection(against) == guard(against)
    return guard(against)


OUR_ID = "00000198a46e90ea-15816943-8a4c-f5a0-6a93-d1cd8945fa44-000000"
PLAIN = "From: Ann <ann@sender.example>\nSubject: hello\nMIME-Version: 1.0\nContent-Type: text/plain"


def test_nothing_speaks_against_a_person_s_message() -> None:
    assert objection(candidate(PLAIN)) == ""
    assert objection(candidate("")) == ""


@pytest.mark.parametrize(("guard", "told", "reason"), [
    (backscatter.null_reverse_path, {"reverse_path": ""}, "the reverse-path is null"),
    (backscatter.mailer_daemon, {"reverse_path": "MAILER-DAEMON@sender.example"}, "the reverse-path is a mailer's"),
    (backscatter.own_recipient, {"reverse_path": "Gone+x@example.com", "forward_paths": ("a@example.com", "gone+X@EXAMPLE.com")},
     "the reverse-path is a recipient of the message"),
    (backscatter.own_bounce, {"reverse_path": "Bounces@Example.com"}, "the reverse-path is the Sender of our bounces"),
])
def test_the_envelope_speaks_against_it(guard: Guard, told: dict[str, Any], reason: str) -> None:
    assert alone(guard, candidate(PLAIN, envelope(**told))) == reason


@pytest.mark.parametrize(("guard", "header", "reason"), [
    (backscatter.report, "Content-Type: multipart/report; report-type=delivery-status; boundary=x", "it is a report (DSN)"),
    (backscatter.report, "Content-Type: (a comment) Multipart/Report;\n boundary=x", "it is a report (DSN)"),
    (backscatter.report, "Content-Type: multipart/report (x); report-type=disposition-notification", "it is a report (DSN)"),
    (backscatter.report, "content-type: message/delivery-status", "it is a report (DSN)"),
    (backscatter.report, "Content-Type: text/plain\nContent-Type: multipart/report", "it is a report (DSN)"),
    (backscatter.automatic, "Auto-Submitted: auto-replied", "it is automatic (Auto-Submitted: auto-replied)"),
    (backscatter.automatic, "AUTO-SUBMITTED: Auto-Generated; type=x", "it is automatic (Auto-Submitted: auto-generated)"),
    (backscatter.automatic, "Auto-Submitted: no\nAuto-Submitted: auto-notified", "it is automatic (Auto-Submitted: auto-notified)"),
    (backscatter.automatic, "Auto-Submitted:", "it is automatic (Auto-Submitted: )"),
    (backscatter.bulk, "Precedence: bulk", "it is bulk mail (Precedence: bulk)"),
    (backscatter.bulk, "precedence: List", "it is bulk mail (Precedence: list)"),
    (backscatter.bulk, "Precedence:  junk (really)", "it is bulk mail (Precedence: junk)"),
    (backscatter.list_mail, "List-Id: <x.example>", "it is list mail (List-Id)"),
    (backscatter.list_mail, "List-ID:", "it is list mail (List-ID)"),
    (backscatter.list_mail, "List-Unsubscribe: <mailto:x@example.net>", "it is list mail (List-Unsubscribe)"),
    (backscatter.own_bounce, f"Message-ID: <{OUR_ID}@{HOST.upper()}>", "it is a bounce of our own"),
])
def test_the_header_speaks_against_it(guard: Guard, header: str, reason: str) -> None:
    assert alone(guard, candidate(header)) == reason


@pytest.mark.parametrize("header", [
    "Auto-Submitted: no", "Auto-Submitted: (not at all) NO (really)", "Precedence: first-class", "Precedence: bulky", "X-List-Id: x",
    "Content-Type: text/plain; x=multipart/report", "Content-Type: multipart/mixed; boundary=multipart/report", f"Message-ID: <1@{HOST}>",
    f"Message-ID: <{OUR_ID}@mx2.example.org>", "Subject: Auto-Submitted: auto-replied",
])
def test_what_only_looks_like_it_passes(header: str) -> None:
    assert objection(candidate(header)) == ""


@pytest.mark.parametrize("told", [
    {"reverse_path": "mailer-daemon-fan@sender.example"}, {"reverse_path": "owner-list@sender.example"}, {"reverse_path": "gone@example.net"},
])
def test_addresses_that_only_look_like_it_pass(told: dict[str, Any]) -> None:
    assert objection(candidate(PLAIN, envelope(**told))) == ""


def judged(**statuses: Status) -> Assessment:
    return Assessment(**{name: Verdict(status, "judged") for name, status in statuses.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("assessment", [
    judged(spf=Status.FAIL, dmarc=Status.FAIL), judged(spf=Status.GRAY, dmarc=Status.GRAY), judged(spf=Status.PROCESSING_FAILED, dmarc=Status.GRAY),
    judged(spf=Status.FAIL, dmarc=Status.GRAY, dkim=Status.PASS), judged(spf=Status.FAIL),
])
def test_a_sender_that_neither_spf_nor_dmarc_vouches_for_may_be_forged(assessment: Assessment) -> None:
    assert alone(backscatter.unauthenticated, candidate(PLAIN, assessment=assessment)) == (
        "the sender may be forged: neither SPF nor DMARC passes")


@pytest.mark.parametrize("assessment", [
    judged(spf=Status.PASS, dmarc=Status.FAIL), judged(spf=Status.FAIL, dmarc=Status.PASS), judged(spf=Status.PASS), Assessment(),
    judged(dkim=Status.FAIL, spam=Status.FAIL),
])
def test_one_of_them_is_enough_and_so_is_it_that_nobody_judged(assessment: Assessment) -> None:
    assert objection(candidate(PLAIN, assessment=assessment)) == ""


@given(st.text(max_size=60), st.sampled_from(["Content-Type", "Auto-Submitted", "Precedence", "Message-ID"]))
def test_no_value_of_a_field_is_too_much_for_the_guards(value: str, name: str) -> None:
    assert isinstance(objection(candidate(f"{name}: {value}")), str)


def take(caps: Caps, reverse_path: str, now: float) -> str:
    """Take one if it may go; else why not."""
    reason = caps.reached(reverse_path, now)
    if not reason:
        caps.take(reverse_path, now)
    return reason


class TestCaps:
    def test_so_many_go_to_one_reverse_path_and_then_at_the_rate(self) -> None:
        caps = Caps(Rate(1000, 60.0), Rate(3, 60.0))
        assert [take(caps, "a@example.net", 0.0) for _ in range(3)] == ["", "", ""]
        assert take(caps, "A@Example.net", 0.0) == "the cap of 3 bounces in 60 s to one reverse-path is reached"
        assert take(caps, "b@example.net", 0.0) == ""
        assert take(caps, "a@example.net", 19.9) != ""
        assert take(caps, "a@example.net", 20.0) == ""
        assert take(caps, "a@example.net", 20.0) != ""

    def test_so_many_go_in_all(self) -> None:
        caps = Caps(Rate(5, 3600.0), Rate(3, 60.0))
        assert [take(caps, f"{n}@example.net", 0.0) for n in range(5)] == [""] * 5
        assert take(caps, "x@example.net", 719.0) == "the cap of 5 bounces in 3600 s is reached"
        assert take(caps, "x@example.net", 720.0) == ""

    def test_what_the_cap_in_all_stops_does_not_count_for_its_reverse_path(self) -> None:
        caps = Caps(Rate(1, 10.0), Rate(2, 1000.0))
        assert [take(caps, "a@example.net", 0.0) == "" for _ in range(3)] == [True, False, False]
        assert take(caps, "a@example.net", 10.0) == ""

    def test_what_did_not_go_out_is_given_back(self) -> None:
        caps = Caps(Rate(2, 60.0), Rate(1, 60.0))
        assert take(caps, "a@example.net", 0.0) == ""
        caps.give_back("a@example.net")
        assert take(caps, "a@example.net", 0.0) == ""
        assert take(caps, "b@example.net", 0.0) == ""
        assert take(caps, "c@example.net", 0.0) != ""

    def test_asking_counts_nothing_and_what_went_at_once_is_made_up_for(self) -> None:
        caps = Caps(Rate(1000, 60.0), Rate(1, 60.0))
        assert [caps.reached("a@example.net", 0.0) for _ in range(3)] == [""] * 3
        caps.take("a@example.net", 0.0)
        caps.take("a@example.net", 0.0)
        assert caps.reached("a@example.net", 119.0) != ""
        assert caps.reached("a@example.net", 120.0) == ""

    def test_it_remembers_no_more_than_so_many_reverse_paths(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backscatter, "SENDERS", 2)
        caps = Caps(Rate(1000, 60.0), Rate(1, 60.0))
        for name in "abc":
            assert take(caps, f"{name}@example.net", 0.0) == ""
        assert take(caps, "c@example.net", 0.0) != ""
        assert take(caps, "a@example.net", 0.0) == "", "forgotten for c"

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=60))
    def test_never_more_go_than_the_rate_allows(self, calls: list[tuple[str, float]]) -> None:
        caps = Caps(Rate(6, 10.0), Rate(4, 10.0))
        now, went = 0.0, []
        for name, wait in calls:
            now += wait
            if not take(caps, f"{name}@example.net", now):
                went.append((name, now))
        for _, start in went:
            window = [(name, at) for name, at in went if start <= at < start + 10.0]
            assert len(window) <= 12  # a full bucket, and what grows back meanwhile
            assert max(sum(1 for name, _ in window if name == who) for who in "ab") <= 8
