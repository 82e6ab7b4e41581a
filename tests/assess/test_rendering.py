"""The octets that consumers get, read in any way."""

from __future__ import annotations

import email
import email.policy
import io
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.assess.forged import INSERTION, offsets
from inbound.assess.message import parse
from inbound.assess.rendering import BytesContent, Rendering, field_line, render, visible_fields

RAW = b"From: a@b\r\nSubject: hello\r\n\r\nbody\r\n"
TRACE = (("Return-Path", "<a@b>"), ("Received", "from x\r\n by y;\r\n now"))


def plain(prefix: bytes, data: bytes, places: list[int]) -> bytes:
    """A rendering, put together the simple way."""
    ends = [0, *places, len(data)]
    return prefix + INSERTION.join(data[start:end] for start, end in pairwise(ends))


@st.composite
def renderings(draw: st.DrawFn) -> tuple[Rendering, bytes]:
    prefix, data = draw(st.binary(max_size=60)), draw(st.binary(max_size=200))
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return Rendering(prefix, BytesContent(data), places), plain(prefix, data, places)


@given(renderings(), st.lists(st.tuples(st.sampled_from(["read", "seek", "end", "on", "into"]), st.integers(0, 300)), max_size=20))
def test_any_seeks_and_reads_give_the_octets_of_the_whole(made: tuple[Rendering, bytes], calls: list[tuple[str, int]]) -> None:
    rendering, whole = made
    assert rendering.read() == whole
    assert rendering.size == len(whole)
    expected = io.BytesIO(whole)
    with rendering.open() as reader:
        for call, number in calls:
            if call == "read":
                assert reader.read(number) == expected.read(number)
            elif call == "into":
                mine, theirs = bytearray(number), bytearray(number)
                assert reader.readinto(mine) == expected.readinto(theirs)  # type: ignore[attr-defined]
                assert mine == theirs
            else:
                whence = {"seek": io.SEEK_SET, "end": io.SEEK_END, "on": io.SEEK_CUR}[call]
                back = number if whence == io.SEEK_SET else -min(number, expected.tell() if whence == io.SEEK_CUR else len(whole))
                assert reader.seek(back, whence) == expected.seek(back, whence)
            assert reader.tell() == expected.tell()
        assert reader.read() == expected.read()


@given(st.binary(max_size=300))
def test_without_forged_fields_the_content_is_an_exact_suffix(data: bytes) -> None:
    content = BytesContent(data)
    rendered = render(content, trace=TRACE, forged=offsets(content, authserv_id="mx.us.example"))
    assert rendered.read().endswith(data) or rendered.insertions


def test_a_reader_behaves_like_a_file() -> None:
    rendering = render(BytesContent(RAW), trace=TRACE)
    reader = rendering.open()
    assert reader.readable()
    assert reader.seekable()
    assert not reader.writable()
    with pytest.raises(ValueError, match="negative"):
        reader.seek(-1)
    assert next(iter(reader)) == b"Return-Path: <a@b>\r\n"
    assert io.BufferedReader(rendering.open()).read() == rendering.read()  # type: ignore[arg-type]
    reader.close()
    reader.close()
    for call in (reader.read, reader.tell, lambda: reader.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_two_readers_do_not_disturb_each_other() -> None:
    rendering = render(BytesContent(RAW), trace=TRACE)
    with rendering.open() as one, rendering.open() as other:
        one.read(20)
        assert other.read() == rendering.read()
        assert one.read() == rendering.read()[20:]


class Watched:
    """A content in a file that tells how much was asked for at once, and what is still open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size
        self.largest = 0
        self.readers: list[BinaryIO] = []

    def head(self, limit: int) -> bytes:
        with self._path.open("rb") as file:
            return file.read(limit)

    def open(self) -> BinaryIO:
        watched = self

        class File(io.FileIO):
            def read(self, size: int | None = -1) -> bytes:
                watched.largest = max(watched.largest, watched.size if size is None or size < 0 else size)
                return super().read(size) or b""

        self.readers.append(File(self._path))  # type: ignore[arg-type]
        return self.readers[-1]


def test_a_large_message_is_streamed_from_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(RAW + b"x" * 3_000_000)
    content = Watched(path)
    rendering = render(content, trace=TRACE)
    octets = b""
    with rendering.open() as reader:
        while piece := reader.read(65_536):
            assert len(piece) == 65_536 or len(octets) + len(piece) == rendering.size
            octets += piece
    assert octets == rendering.prefix + path.read_bytes()
    assert content.largest <= 65_536
    assert all(reader.closed for reader in content.readers)


def test_added_fields_stand_on_top_the_last_one_first() -> None:
    rendered = render(BytesContent(RAW), added=[("X-A", "1"), ("X-B", "2"), ("X-A", "3")], trace=TRACE)
    assert rendered.read() == (
        b"X-A: 3\r\nX-B: 2\r\nX-A: 1\r\nReturn-Path: <a@b>\r\nReceived: from x\r\n by y;\r\n now\r\n" + RAW
    )


def test_visible_fields_are_those_of_the_rendering() -> None:
    added = [("X-A", "1"), ("X-A", "grün"), ("X-A", "=?utf-8?q?bl=C3=A4u?=")]
    fields = visible_fields(parse(RAW), added=added, trace=TRACE)
    assert fields == (
        ("X-A", "bläu"), ("X-A", "grün"), ("X-A", "1"),
        ("Return-Path", "<a@b>"), ("Received", "from x by y; now"), ("From", "a@b"), ("Subject", "hello"),
    )  # fmt: skip
    seen = parse(render(BytesContent(RAW), added=added, trace=TRACE).read())
    assert [(field.name, field.value) for field in seen.fields] == list(fields)


def test_trace_beyond_ascii_is_utf_8_as_in_the_envelope() -> None:
    """RFC 6531 section 3.7.3. It breaks out of its field no more than any other."""
    trace = [("Return-Path", "<jörg@b\u00fccher.example>"), ("Received", "from x\r\n for \u043c\u2028\ud800@b;\r\n now")]
    rendered = render(BytesContent(RAW), trace=trace).read()
    assert rendered == "Return-Path: <jörg@b\u00fccher.example>\r\nReceived: from x\r\n for \u043c??@b;\r\n now\r\n".encode() + RAW
    assert [field.value for field in parse(rendered).fields][:1] == [value for _, value in visible_fields(parse(RAW), trace=trace)][:1]


@pytest.mark.parametrize("first", [b"hello", b" continued: x", b"\tPASS", b"X: \xff"[2:], b"\x00"])
def test_a_first_line_that_is_no_field_cannot_join_our_last_one(first: bytes) -> None:
    raw = first + b"\r\nSubject: x\r\n\r\nbody"
    rendered = render(BytesContent(raw), trace=TRACE).read()
    assert rendered.endswith(b" now\r\n\r\n" + raw)
    seen = email.message_from_bytes(rendered, policy=email.policy.compat32)
    assert seen["Received"].split() == ["from", "x", "by", "y;", "now"]
    assert seen.get_payload(decode=True) == raw


@pytest.mark.parametrize(
    "raw", [b"", b"\r\nbody", b"\nbody", b"Subject: x", b"From a@b Mon\r\nSubject: x\r\n\r\nbody", b"Subject:" + b"x" * 5_000]
)
def test_other_messages_follow_our_fields_at_once(raw: bytes) -> None:
    assert render(BytesContent(raw), trace=TRACE).read().endswith(b" now\r\n" + raw)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain", b"X: plain\r\n"),
        ("", b"X: \r\n"),
        ("a\r\n b", b"X: a\r\n b\r\n"),
        ("a\r\nBcc: v@x", b"X: a??Bcc: v@x\r\n"),
        ("a\nBcc: v@x", b"X: a?Bcc: v@x\r\n"),
        ("a\rBcc: v@x", b"X: a?Bcc: v@x\r\n"),
        ("a\0b\x1b\x7fc\td", b"X: a?b??c\td\r\n"),
        ("a\x85b\u2028c\u2029d", b"X: a?b?c?d\r\n"),
        ("\ud800", b"X: ?\r\n"),
    ],
)
def test_no_value_breaks_out_of_its_field(value: str, line: bytes) -> None:
    assert field_line("X", value) == line


@given(st.text(max_size=400))
def test_any_value_is_one_field_that_reads_back(value: str) -> None:
    octets = field_line("X-Added", value)
    assert octets.isascii()
    assert octets.endswith(b"\r\n")
    fields = parse(octets + b"Next: 1\r\n\r\n").fields
    assert [field.name for field in fields] == ["X-Added", "Next"]
    assert fields[0].raw.replace(b"\r\n ", b"").count(b"\n") == 0


def test_boto3_and_aiohttp_take_the_reader() -> None:
    import aiohttp.payload
    import boto3
    import urllib3
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse

    rendering = render(BytesContent(RAW * 1_000), trace=TRACE)
    sent: list[bytes] = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent.append(request.body.read())
        return AWSResponse(request.url, 200, {}, urllib3.HTTPResponse(io.BytesIO(), preload_content=False))

    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.meta.events.register("before-send.s3.PutObject", answer)
    with rendering.open() as reader:
        client.put_object(Bucket="mail", Key="id", Body=reader)
    assert rendering.read() in sent[0]  # between the marks of aws-chunked
    assert isinstance(aiohttp.payload.get_payload(rendering.open()), aiohttp.payload.IOBasePayload)


class Counted(BytesContent):
    """Content that counts the reads made of it."""

    reads: ClassVar[int] = 0

    def open(self) -> BinaryIO:
        reader = super().open()

        class Reader(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                Counted.reads += 1
                return reader.read(size)

            def seek(self, offset: int, whence: int = 0) -> int:
                return reader.seek(offset, whence)

        return Reader()


def test_a_million_forged_fields_are_not_a_million_reads() -> None:
    """One took 54 seconds in an S3 action, with a read for each of its fields."""
    line = b"X-SES-Spam-Verdict: PASS\r\n"
    data = line * 200_000 + b"\r\nbody"
    rendered = render(Counted(data), forged=range(0, len(line) * 200_000, len(line)))
    assert rendered.read() == (b"X-Forged-" + line) * 200_000 + b"\r\nbody"
    assert Counted.reads < 100
