"""Verdicts that the sender wrote in our name are found, whichever parser might see them, and nothing else is."""

from __future__ import annotations

import email
import time
import tracemalloc
from io import BytesIO
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.assess.forged import INSERTION, header_length, offsets, offsets_in
from inbound.assess.rendering import BytesContent, render

US = "mx.us.example"


def found(raw: bytes) -> list[bytes]:
    """What stands at each offset, up to the colon."""
    return [raw[place:].partition(b":")[0] for place in offsets(BytesContent(raw), authserv_id=US)]


@pytest.mark.parametrize(
    "line",
    [
        b"X-SES-Spam-Verdict: PASS",
        b"x-ses-spam-VERDICT:PASS",
        b"X-SES-Virus-Verdict: PASS",
        b"X-SES-Virus-Verdict \t : PASS",
        b"X-SES-Virus-Verdict\x0b: PASS",
        b"Authentication-Results: mx.us.example; dmarc=pass",
        b"AUTHENTICATION-results:mx.us.example;dmarc=pass",
        b"Authentication-Results : MX.US.Example; dmarc=pass",
        b"Authentication-Results: mx.us.example 1; dmarc=pass",
        b"Authentication-Results: mx.us.example. ; dmarc=pass",
        b"Authentication-Results: mx.us.example",
        b"Authentication-Results: mx.us.example/1; x",
        b"Authentication-Results: mx.us.example(comment); x",
        b"Authentication-Results: (comment) (another) mx.us.example; x",
        b"Authentication-Results: (nested (comment)) mx.us.example; x",
        b"Authentication-Results: (nested (comment)) other.example; x",
        b'Authentication-Results: "mx.us.example"; x',
        b'Authentication-Results: "m\\x.us.example"; x',
        b"Authentication-Results:\r\n mx.us.example; x",
        b"Authentication-Results: =?utf-8?q?mx.us.example?=; x",
        b"Authentication-Results: (=?utf-8?q?=29_mx.us.example=3B?=) other.example; x",
        b"Authentication-Results: (never closed mx.us.example; x",
        b"Authentication-Results:" + b" " * 3_000 + b"mx.us.example; x",
        b"X-SES-Spam-Verdict" + b" " * 3_000 + b": PASS",
    ],
)
@pytest.mark.parametrize("before", [b"", b"A: b\r\n", b"A: b\n", b"A: b\r", b"A: b\x0b", b"A: b\x0c", b"A: b\xc2\x85", b"A: b\xe2\x80\xa8"])
def test_forged(before: bytes, line: bytes) -> None:
    raw = before + line + b"\r\nB: c\r\n\r\nbody"
    assert list(offsets(BytesContent(raw), authserv_id=US)) == [len(before)]


@pytest.mark.parametrize(
    "raw",
    [
        b"A: X-SES-Spam-Verdict: PASS",
        b"A: b\r\n X-SES-Spam-Verdict: PASS",
        b"AX-SES-Spam-Verdict: PASS",
        b"X-SES-Spam-Verdict-2: PASS",
        b"X-SES-Spam-Verdict PASS\r\n: x",
        b"X-SES-RECEIPT: x",
        b"Received-SPF: pass",
        b"Authentication-Results: other.example; dmarc=pass",
        b"Authentication-Results: mx.us.example.evil.example; dmarc=pass",
        b"Authentication-Results: amx.us.example; dmarc=pass",
        b"Authentication-Results: (mx.us.example) other.example; x",
        b"Authentication-Results: other.example; x (mx.us.example;)",
        b"Authentication-Results: ;",
        b"Authentication-Results:",
        b"Authentication-Results",
        b"Authentication-Results: spf=pass smtp.mailfrom=mx.us.example",
        b"ARC-Authentication-Results: i=1; mx.us.example; dmarc=pass",
        b"X-Forged-X-SES-Spam-Verdict: PASS",
        b"A: b\r\n\r\nX-SES-Spam-Verdict: PASS",
        b"A: b\n\nX-SES-Spam-Verdict: PASS",
        b"A: b\n\r\nX-SES-Spam-Verdict: PASS",
        b"\r\nX-SES-Spam-Verdict: PASS",
        b"\nX-SES-Spam-Verdict: PASS",
        b"",
    ],
)
def test_not_forged(raw: bytes) -> None:
    assert found(raw + b"\r\n") == []


def test_without_an_authserv_id_only_the_scan_verdicts_are_ours() -> None:
    raw = b"Authentication-Results: x; y\r\nAuthentication-Results: \r\nX-SES-Spam-Verdict: PASS\r\n\r\n"
    assert [raw[place:][:5] for place in offsets(BytesContent(raw))] == [b"X-SES"]


LINES = [
    b"X-SES-Spam-Verdict: PASS", b"x-ses-virus-verdict : PASS", b"Authentication-Results: mx.us.example; x",
    b"Authentication-Results: other.example; x", b"Authentication-Results:", b"A: b", b" continued", b"no colon", b"",
]  # fmt: skip
BREAKS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\x0b", b"\x0c"]


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(BREAKS))))
def test_no_consumer_sees_a_verdict_of_ours_that_the_sender_wrote(pairs: list[tuple[bytes, bytes]]) -> None:
    raw = b"".join(line + end for line, end in pairs)
    content = BytesContent(raw)
    rendered = render(content, forged=offsets(content, authserv_id=US)).read()
    seen = email.message_from_bytes(rendered)
    assert "X-SES-Spam-Verdict" not in seen
    assert "X-SES-Virus-Verdict" not in seen
    assert not [value for value in seen.get_all("Authentication-Results", []) if value.strip().startswith("mx.us.example")]
    header = rendered[: header_length(rendered)]
    names = [line.partition(":")[0].strip().lower() for line in header.decode("latin-1").splitlines() if line[:1] not in (" ", "\t")]
    assert not {"x-ses-spam-verdict", "x-ses-virus-verdict"} & set(names)
    assert rendered.replace(INSERTION, b"") in (raw, b"\r\n" + raw)


FIELDS = [b"X-SES-Spam-Verdict: PASS\r\n", b"Authentication-Results: mx.us.example;\r\n", b"A: b\r"]


@given(st.lists(st.sampled_from(FIELDS), max_size=60), st.integers(0, 9_000), st.sampled_from([b" ", b"(", b"\r\n "]))
def test_it_does_not_matter_where_the_windows_end(lines: list[bytes], padding: int, filler: bytes) -> None:
    raw = b"".join([b"A: b\r\n", *(line + b"B: " + filler * padding + b"\r\n" for line in lines)])
    assert list(offsets(BytesContent(raw + b"\r\nX-SES-Spam-Verdict: body"), authserv_id=US)) == offsets_in(raw, authserv_id=US)


@pytest.mark.parametrize(("before", "seen"), [(b" ", False), (b"\n", True), (b"\r", True), (b"\xe2\x80\xa8", True)])
def test_a_field_is_seen_wherever_it_stands_to_the_end_of_a_window(before: bytes, seen: bool) -> None:
    line = before + b"X-SES-Spam-Verdict: PASS\r\nB: " + b"x" * 5_000
    for place in [*range(64_400, 65_600), *range(129_200, 131_200, 7)]:
        raw = b"A: ".ljust(place - len(before), b"x") + line
        assert list(offsets(BytesContent(raw), authserv_id=US)) == [place] * seen


class Generated:
    """A header of 2 MB that is never whole in memory."""

    def __init__(self, unit: bytes) -> None:
        self._unit = unit
        self._times = 2_000_000 // len(unit)
        self.size = len(unit) * self._times

    def head(self, limit: int) -> bytes:
        return (self._unit * (limit // len(self._unit) + 1))[:limit]

    def open(self) -> BinaryIO:
        return Repeating(self._unit, self.size)


class Repeating(BytesIO):
    def __init__(self, unit: bytes, size: int) -> None:
        super().__init__()
        self._unit, self._left, self._at = unit, size, 0

    def read(self, size: int | None = -1) -> bytes:
        taken = min(self._left, size or 0)
        start = self._at % len(self._unit)
        self._at, self._left = self._at + taken, self._left - taken
        return (self._unit * (taken // len(self._unit) + 2))[start : start + taken]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("unit", "count"),
    [
        (b"A: b\r\n", 0),
        (b"X-SES-Spam-Verdict: PASS\r\n", 2_000_000 // 26),
        (b"Authentication-Results:(\r", 2_000_000 // 25),
        (b"Authentication-Results:" + b"(" * 24 + b"\r", 2_000_000 // 48),
        (b"Authentication-Results:" + b" " * 24 + b"\r", 0),
        (b"Authentication-Results: =?utf-8?q?a?=;\r", 2_000_000 // 39),
    ],
)
def test_a_huge_header_takes_linear_time(unit: bytes, count: int) -> None:
    content = Generated(unit)
    began = time.process_time()
    assert abs(len(offsets(content, authserv_id=US)) - count) <= 1
    assert time.process_time() - began < 4.0  # the costliest takes 0.2 s


@pytest.mark.parametrize("unit", [b"A: b\r\n", b"X-SES-Spam-Verdict: PASS" + b" " * 200 + b"\r\n"])
def test_a_huge_header_takes_little_memory(unit: bytes) -> None:
    content = Generated(unit)
    tracemalloc.start()
    try:
        offsets(content, authserv_id=US)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
