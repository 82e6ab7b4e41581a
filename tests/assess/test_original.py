"""The message that comes back out of a stored object is the one that was received, to the octet, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.accept.envelope import Envelope, Peer
from inbound.assess import forged
from inbound.assess.authentication import Authentication, Clause
from inbound.assess.original import NotOriginal, original
from inbound.assess.rendering import BytesContent, HeaderField, render
from inbound.assess.verdicts import Assessment, Status, Verdict, trace_headers

ID = "0123456789abcdefghij0123456789abcdefghij"
OURS = "mx.test"
PASS = Verdict(Status.PASS, "")
SAID = Authentication("pass", "ok", (Clause("pass", "example.net"),), "pass", "example.net")
JUDGED = Assessment(PASS, PASS, PASS, PASS, PASS, authentication=SAID)
PLAIN = b"From: a@example.net\r\nSubject: hi\r\n\r\nbody\r\n"

fields = st.sampled_from([
    b"Subject: hi\r\n", b"A: 1\r\n", b"B: 12345\r\n", b"Received: from x by y with SMTP id z; today\r\n", b"Return-Path: <a@x>\r\n",
    b"Received: from x by y with SMTP id 0123456789abcdefghij0123456789abcdefghij; today\r\n", b"Received-SPF: pass\r\n",
    b"X-SES-Spam-Verdict: PASS\r\n", b"x-ses-virus-verdict : PASS\r\n", b"Authentication-Results: mx.test; spf=pass\r\n",
    b"Authentication-Results: other.test;\r\n spf=pass\r\n", b"X-Folded: a\r\n\tX-SES-Spam-Verdict: PASS\r\n",
    b"X-Bare: a\rX-SES-Spam-Verdict: PASS\r\n",
    b"X-Forged-X-SES-Spam-Verdict: FAIL\r\n", b"X-Forged-Authentication-Results: mx.test; none\r\n", b"no field\r\n", b" continued\r\n",
])
own = st.lists(fields, max_size=6)
bodies = st.sampled_from([
    b"", b"\r\n", b"\r\nbody\r\n", b"\r\nX-SES-Spam-Verdict: PASS\r\nX-Forged-X-SES-Spam-Verdict: x\r\n", b"\nbody", b"\r\n\r\n",
])
added = st.lists(st.sampled_from([("X-A", "a"), ("X-Long", "ä" * 300), ("X-SES-Spam-Verdict", "mine"), ("Received", "from here")]), max_size=3)


def stored(message: bytes, put: list[HeaderField], *, scan: bool = False, assessment: Assessment = JUDGED) -> bytes:
    """The object, as S3Action stores it."""
    content = BytesContent(message)
    envelope = Envelope(ID, Peer("192.0.2.1"), "client.test", "a@example.net", ("u@example.com",), 1_700_000_000.0)
    trace = trace_headers(envelope, assessment, hostname=OURS, authserv_id=OURS, scan=scan)
    return render(content, added=put, trace=trace, forged=forged.offsets(content, authserv_id=OURS)).read()


@given(own, bodies, added, st.booleans(), st.sampled_from([JUDGED, Assessment()]))
def test_it_is_the_message_or_nothing(lines: list[bytes], body: bytes, put: list[HeaderField], scan: bool, assessment: Assessment) -> None:
    """Nothing only where the sender's own fields are named as we name renamed ones, among fields that we renamed."""
    message = b"".join(lines) + body
    try:
        found = original(stored(message, put, scan=scan, assessment=assessment), ID, len(message))
    except NotOriginal:
        assert any(line.startswith(b"X-Forged-") for line in lines)
        assert forged.offsets(BytesContent(message), authserv_id=OURS)
    else:
        assert found == message


@given(st.binary(max_size=300), st.integers(0, 300))
def test_other_octets_are_no_message_of_ours(octets: bytes, size: int) -> None:
    with pytest.raises(NotOriginal, match="no Received field with this id"):
        original(octets, ID, size)


def test_renamed_fields_get_their_names_back() -> None:
    message = b"X-SES-Spam-Verdict: PASS\r\nAuthentication-Results: MX.test; dmarc=pass\r\n" + PLAIN
    kept = stored(message, [("X-A", "a")], scan=True)
    assert kept.count(b"X-Forged-") == 2
    assert original(kept, ID, len(message)) == message


def test_which_of_several_fields_were_renamed_is_not_guessed() -> None:
    message = b"X-Forged-X-SES-Spam-Verdict: x\r\nX-SES-Spam-Verdict: PASS\r\n" + PLAIN
    with pytest.raises(NotOriginal, match="2 of its fields are named X-Forged-, and 1 of them were by us: which, cannot be told"):
        original(stored(message, []), ID, len(message))


@pytest.mark.parametrize("change", [
    lambda kept: kept[:-1], lambda kept: kept + b"\r\n", lambda kept: kept.replace(ID.encode(), b"x" * 40), lambda kept: b"", lambda kept: PLAIN,
])
def test_an_object_that_somebody_changed_is_refused(change) -> None:
    with pytest.raises(NotOriginal):
        original(change(stored(PLAIN, [])), ID, len(PLAIN))


def test_another_message_of_the_same_sender_is_refused() -> None:
    with pytest.raises(NotOriginal, match="no Received field with this id"):
        original(stored(PLAIN, []), ID.replace("0", "1"), len(PLAIN))
