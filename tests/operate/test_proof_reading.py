"""Reading what SES stored and told: forms that were seen in public, and whatever else may lie in a folder."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operate.ses_objects import ID, MESSAGE

from inbound.assess.authentication import Clause
from inbound.operate.proof import stored, told

RECEIVED = f"""Received: from mail.a.example (mail-a.b.example [192.0.2.10])\r
 by inbound-smtp.us-east-1.amazonaws.com with SMTP id {ID}\r
 for box@example.com;\r
 Sun, 27 Mar 2022 10:22:38 +0000 (UTC)\r
"""


def results(value: str) -> stored.Stored:
    return stored.read(f"Return-Path: <a@b.example>\r\n{RECEIVED}Authentication-Results: {value}\r\n".encode() + MESSAGE)


@pytest.mark.parametrize(("value", "spf", "why", "dkim", "dmarc", "from_domain"), [
    (("amazonses.com;\r\n spf=none (spfCheck: 192.0.2.1 is neither permitted nor denied by domain of b.example) client-ip=192.0.2.1; "
     "envelope-from=a@b.example; helo=c.example;\r\n dkim=pass header.i=@b.example.20150623.gappssmtp.com;"),
     "none", "192.0.2.1 is neither permitted nor denied by domain of b.example", (("pass", "b.example.20150623.gappssmtp.com"),), "", ""),
    (("amazonses.com;\r\n spf=pass (spfCheck: x) client-ip=192.0.2.1; envelope-from=a@b.example; helo=c;\r\n dkim=permerror header.i=@b.example;\r\n"
     " dkim=pass header.i=@amazonses.com;\r\n dmarc=pass header.from=b.example;"),
     "pass", "x", (("permerror", "b.example"), ("pass", "amazonses.com")), "pass", "b.example"),
    ("amazonses.com;\r\n spf=softfail (spfCheck: x) client-ip=::1; envelope-from=a@b; helo=c; dmarc=none properties.from=b.example;",
     "softfail", "x", (), "none", "b.example"),
    ("amazonses.com; dkim=pass header.i=example.com; dmarc=fail header.from=b.example;", "", "", (("pass", "example.com"),), "fail", "b.example"),
    (("amazonses.com;\r\n spf=fail (spfCheck: x) client-ip=192.0.2.1; envelope-from=\"a; dkim=pass header.i=@b.example; dmarc=pass\"@b.example; "
     "helo=c;\r\n dmarc=fail header.from=b.example;"), "fail", "x", (), "fail", "b.example"),
])
def test_results_as_ses_writes_them(value: str, spf: str, why: str, dkim: tuple[tuple[str, str], ...], dmarc: str, from_domain: str) -> None:
    found = results(value)
    said = found.authentication
    assert said is not None
    assert (found.authserv_id, said.spf, said.explanation, said.dmarc, said.from_domain) == ("amazonses.com", spf, why, dmarc, from_domain)
    assert said.dkim == tuple(Clause(*each) for each in dkim)


def test_the_facts_of_the_session() -> None:
    found = stored.read(f"X-Added: by a rule\r\nReturn-Path: <a@b.example>\r\n{RECEIVED}".encode() + MESSAGE)
    envelope = found.envelope
    assert (envelope.peer.address, envelope.peer.reverse_name, envelope.helo) == ("192.0.2.10", "mail-a.b.example", "mail.a.example")
    assert (envelope.reverse_path, envelope.forward_paths, envelope.message_id) == ("a@b.example", ("box@example.com",), ID)
    assert (envelope.received_at, found.host) == (1648376558, "inbound-smtp.us-east-1.amazonaws.com")
    assert found.added == [("X-Added", "by a rule")]
    assert found.content == MESSAGE


def test_fields_of_the_sender_below_are_left() -> None:
    """A relay's own Received-SPF and Authentication-Results stand right below SES's."""
    senders = b"Received-SPF: fail\r\nAuthentication-Results: other; spf=fail\r\nReturn-Path: <x@y.example>\r\n" + MESSAGE
    ours = f"Return-Path: <>\r\n{RECEIVED}Received-SPF: pass (spfCheck: x) client-ip=1;\r\nAuthentication-Results: amazonses.com;\r\n"
    found = stored.read(ours.encode() + senders)
    assert found.content == senders
    assert found.envelope.reverse_path == ""
    assert [name for name, _ in found.fields] == ["Return-Path", "Received", "Received-SPF", "Authentication-Results"]


def test_a_message_that_relays_our_own_kind_of_received() -> None:
    """Only the topmost Received counts."""
    with pytest.raises(stored.NotStored):
        stored.read(b"Received: from a by b; Sun, 27 Mar 2022 10:22:38 +0000\r\n" + RECEIVED.encode() + MESSAGE)


@given(st.binary(max_size=600))
def test_no_octets_break_the_reading(octets: bytes) -> None:
    for whole in (octets, RECEIVED.encode() + octets, b"Authentication-Results: " + octets + b"\r\n\r\n"):
        try:
            found = stored.read(whole)
        except stored.NotStored:
            continue
        assert whole.endswith(found.content)
        stored.without_signed(found.octets)


@pytest.mark.parametrize("filling", ["(spfCheck: a) client-ip=; envelope-from=; helo=; ", " dkim=pass;", "a (b [192.0.2.1]) by ", "; for ", " (UTC)"])
def test_hostile_fields_end_before_the_time_of_a_test_does(filling: str) -> None:
    for name in ("Received", "Authentication-Results"):
        block = f"Return-Path: <>\r\n{RECEIVED if name != 'Received' else ''}{name}: from x {filling * (90_000 // len(filling))}\r\n\r\n"
        try:
            stored.read(block.encode())
        except stored.NotStored:
            continue


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["mail", "receipt", "Message", "Body", "Records", "Messages", "Sns", "ses", "content", "action", "encoding", "x"]), inner,
    max_size=4), max_leaves=20)


@given(JSON)
def test_no_json_breaks_the_reading(data: Any) -> None:
    for each in told.read(json.dumps(data), "x"):
        assert isinstance(each.message_id, str)
        assert each.content is None or isinstance(each.content, bytes)
        assert isinstance(each.recipients, tuple)


def test_json_within_json_without_end() -> None:
    text = json.dumps({"mail": {}, "receipt": {}})
    for _ in range(14):
        text = json.dumps({"Message": text})
    assert told.read(text, "x") == []
