"""Received-SPF and Authentication-Results: SES's form, RFC 8601's grammar, and nothing a sender says passes for a result of ours."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.envelope import Envelope, Peer
from inbound.assess.authentication import Authentication, Clause, fields
from inbound.assess.rendering import field_line
from inbound.assess.verdicts import NOT_JUDGED, Assessment, Status, Verdict, trace_headers

ENVELOPE = Envelope("a" * 40, Peer("209.85.167.51", 1, "mail-lf1-f51.google.com"), "mail-lf1-f51.google.com", "sender@google.com",
                    ("user@inbound.example.net",), 1_755_105_366.25)
SAID = Authentication("pass", "domain of google.com designates 209.85.167.51 as permitted sender", (Clause("pass", "google.com"),), "pass",
                      "google.com")


def written(envelope: Envelope = ENVELOPE, said: Authentication = SAID) -> str:
    """As the lines of a header."""
    return b"".join(field_line(*field) for field in fields(envelope, said, authserv_id="amazonses.com")).decode()


def test_the_form_that_ses_was_seen_to_write_in_2025() -> None:
    assert written() == (
        "Received-SPF: pass (spfCheck: domain of google.com designates 209.85.167.51 as permitted sender) client-ip=209.85.167.51; "
        "envelope-from=sender@google.com; helo=mail-lf1-f51.google.com;\r\n"
        "Authentication-Results: amazonses.com;\r\n"
        " spf=pass (spfCheck: domain of google.com designates 209.85.167.51 as permitted sender) client-ip=209.85.167.51; "
        "envelope-from=sender@google.com; helo=mail-lf1-f51.google.com;\r\n"
        " dkim=pass header.i=@google.com;\r\n"
        " dmarc=pass header.from=google.com;\r\n"
    )


def test_the_form_of_a_failure() -> None:
    envelope = dataclasses.replace(ENVELOPE, peer=Peer("192.0.2.151", 1, "host.example.com"), reverse_path="info@example.net")
    said = Authentication("fail", "domain of example.net does not designate 192.0.2.151 as permitted sender", (), "fail", "example.net")
    assert written(envelope, said).partition("Authentication-Results: ")[2] == (
        "amazonses.com;\r\n"
        " spf=fail (spfCheck: domain of example.net does not designate 192.0.2.151 as permitted sender) client-ip=192.0.2.151; "
        "envelope-from=info@example.net; helo=host.example.com;\r\n"
        " dmarc=fail header.from=example.net;\r\n"
    ), "without a signature there is no dkim clause"


def test_each_signature_has_its_clause_and_what_names_no_domain_has_no_property() -> None:
    said = dataclasses.replace(SAID, dkim=(Clause("fail", "a.example"), Clause("neutral"), Clause("pass", "b.example")), dmarc="fail", from_domain="")
    assert written(said=said).splitlines()[-4:] == [" dkim=fail header.i=@a.example;", " dkim=neutral;", " dkim=pass header.i=@b.example;",
                                                    " dmarc=fail;"]


def test_helo_is_the_name_that_dns_gives_the_client_or_its_address() -> None:
    assert "helo=209.85.167.51;" in written(dataclasses.replace(ENVELOPE, peer=Peer("209.85.167.51"), helo="liar.example"))
    assert "helo=2001:db8::1;" in written(dataclasses.replace(ENVELOPE, peer=Peer("2001:db8::1")))


def test_the_null_reverse_path_is_told_as_the_identity_that_spf_judges() -> None:
    assert "envelope-from=postmaster@mail-lf1-f51.google.com;" in written(dataclasses.replace(ENVELOPE, reverse_path=""))


def test_what_was_not_judged_is_not_told() -> None:
    assert written(said=Authentication(dmarc="none", from_domain="a.example")) == (
        "Authentication-Results: amazonses.com;\r\n dmarc=none header.from=a.example;\r\n")
    assert written(said=Authentication()) == "Authentication-Results: amazonses.com;\r\n none;\r\n"


def test_a_line_too_long_for_rfc_5322_is_folded_and_no_other() -> None:
    label = "a" * 60
    envelope = dataclasses.replace(ENVELOPE, reverse_path=f"{'b' * 64}@{label}.{label}.{label}.{label}.example",
                                   peer=Peer("2001:db8::1", 1, f"{label}.{label}.{label}.{label}.example"))
    domain = f"{label}.{label}.{label}.{label}.example"
    said = dataclasses.replace(SAID, explanation=f"{domain} designates {domain} as permitted sender", dkim=(Clause("pass", domain),))
    for line in written(envelope, said).splitlines():
        assert len(line) <= 998
    assert "\r\n client-ip=2001:db8::1;\r\n envelope-from=b" in written(envelope, said)


def test_the_order_is_that_of_ses() -> None:
    assessment = Assessment(spam=Verdict(Status.PASS), virus=Verdict(Status.PASS), authentication=SAID)
    made = trace_headers(ENVELOPE, assessment, hostname="mx.test", authserv_id="mx.test", scan=True)
    assert [name for name, _ in made] == ["Return-Path", "Received", "X-SES-Spam-Verdict", "X-SES-Virus-Verdict", "Received-SPF",
                                          "Authentication-Results"]
    assert made[-1][1].startswith("mx.test;\r\n spf=pass ")


# --- what senders try ---

ATTACKS = [
    "dmarc=pass@evil.example", "x;dmarc=pass@evil.example", "x;\r\n dmarc=pass header.from=bank.example;@evil.example", "x\r\n\r\nbody@evil.example",
    "=?utf-8?q?=3Bdmarc=3Dpass?=@evil.example", '"x; dmarc=pass; "@evil.example', '"\\"; dmarc=pass"@evil.example', "(dmarc=pass)@evil.example",
    "x)(dmarc=pass@evil.example", "x\0dmarc=pass@evil.example", "x\u2028dmarc=pass@evil.example", "DMARC=pass@evil.example",
    "?utf-8?q?=3Bdmarc=3Dpass?=", "header.from=bank.example@evil.example",
]
RESULT = re.compile(r"\b(spf|dkim|dmarc)\s*=\s*(\w+)", re.IGNORECASE)
GRAMMAR = re.compile(
    r"amazonses\.com;\r\n spf=fail \(spfCheck: [^()\r\n\";\\]*\)(?: |\r\n )client-ip=[!-~]+;(?: |\r\n )envelope-from=[!-~]+;(?: |\r\n )helo=[!-~]+;"
    r"(?:\r\n dkim=fail(?: header\.i=@[!-~]+)?;)?\r\n dmarc=fail(?: header\.from=[!-~]+)?;"
)
SHARP = [*'\r\n\0;()[]\\=?<>"\x85\u2028\ud800 ', "dmarc=pass", "spf=", "=?utf-8?q?a?=", "?utf-8?q?a?="]
TEXT = st.lists(st.one_of(st.characters(), st.sampled_from(SHARP)), max_size=30).map("".join)


def results(value: str) -> list[tuple[str, str]]:
    """What a careless consumer finds: every `method=result`, wherever it stands."""
    return [(found[1].lower(), found[2]) for found in RESULT.finditer(value)]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("place", ["reverse_path", "helo", "reverse_name", "explanation"])
def test_nothing_a_sender_says_passes_for_a_result(place: str, attack: str) -> None:
    envelope, said = ENVELOPE, Authentication("fail", "no", (), "fail", "bank.example")
    if place == "reverse_path":
        envelope = dataclasses.replace(envelope, reverse_path=attack)
    elif place == "helo":
        envelope = dataclasses.replace(envelope, reverse_path="", helo=attack)
    elif place == "reverse_name":
        envelope = dataclasses.replace(envelope, peer=Peer("192.0.2.1", 1, attack))
    else:
        said = dataclasses.replace(said, explanation=attack)
    value = dict(fields(envelope, said, authserv_id="amazonses.com"))["Authentication-Results"]
    assert results(value) == [("spf", "fail"), ("dmarc", "fail")]
    assert GRAMMAR.fullmatch(value)


@given(helo=TEXT, name=TEXT, sender=TEXT, explanation=TEXT, identity=TEXT, domain=TEXT)
def test_no_text_whatever_breaks_out(helo: str, name: str, sender: str, explanation: str, identity: str, domain: str) -> None:
    envelope = dataclasses.replace(ENVELOPE, helo=helo, peer=Peer("192.0.2.1", 1, name), reverse_path=sender)
    said = Authentication("fail", explanation, (Clause("fail", identity),), "fail", domain)
    made = dict(fields(envelope, said, authserv_id="amazonses.com"))
    assert GRAMMAR.fullmatch(made["Authentication-Results"])
    assert results(made["Authentication-Results"]) == [("spf", "fail"), ("dkim", "fail"), ("dmarc", "fail")]
    assert made["Received-SPF"] == made["Authentication-Results"].split("\r\n spf=")[1].split("\r\n dkim=")[0]
    for field in made.items():
        line = field_line(*field)
        assert line == f"{field[0]}: {field[1]}\r\n".encode()
        assert b"=?" not in line


# --- what the spool keeps ---


def test_an_assessment_survives_the_spool() -> None:
    whole = Assessment(Verdict(Status.PASS, "a"), Verdict(Status.FAIL, "ü"), NOT_JUDGED, Verdict(Status.GRAY), Verdict(Status.DISABLED), "reject",
                       dataclasses.replace(SAID, dkim=(Clause("pass", "a.example"), Clause("neutral"))), "mx.example", ("virus",))
    for assessment in (whole, Assessment()):
        assert Assessment.from_json(assessment.to_json()) == assessment


def test_an_assessment_of_an_earlier_version_is_read() -> None:
    names = ("spf", "dkim", "dmarc", "spam", "virus")
    earlier = json.dumps({**{name: {"status": "GRAY", "reason": "not judged"} for name in names}, "dmarc_policy": ""})
    assert Assessment.from_json(earlier) == Assessment(*[Verdict(Status.GRAY, "not judged")] * 5)
