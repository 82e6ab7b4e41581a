"""The outline of a message, and what happens when the parse takes too much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import hostile
import pytest

from inbound.assess import outline as module
from inbound.assess.outline import Outline, Part, Unreadable, bounded_outline, outline, shown
from inbound.assess.rendering import BytesContent

MESSAGE = b"""From: a@b\r
Subject: x\r
Content-Type: multipart/mixed; boundary="b"\r
\r
--b\r
Content-Type: text/plain; charset=iso-8859-1\r
Content-Transfer-Encoding: quoted-printable\r
\r
Gr=FC=DFe\x1b[1m\r
second line\r
--b\r
Content-Type: application/pdf\r
Content-Disposition: attachment; filename="../../etc/\x1b]0;\xe2\x80\xaefdp.exe"\r
Content-Transfer-Encoding: base64\r
\r
JVBERi0xLjQK\r
--b\r
Content-Type: image/png; name="=?utf-8?q?B=C3=BCld?="\r
\r
x\r
--b\r
Content-Type: text/x-log\r
Content-Disposition: attachment\r
\r
log\r
--b--\r
"""
EXPECTED = Outline(
    parts=(
        Part("multipart/mixed"),
        Part("text/plain", "iso-8859-1", size=22),
        Part("application/pdf", size=9, name="../../etc/\\x1b]0;\\u202efdp.exe", attachment=True),
        Part("image/png", size=1, name="Büld"),
        Part("text/x-log", size=3, attachment=True),
    ),
    text="Grüße\\x1b[1m\nsecond line",
)


def test_parts_names_and_text() -> None:
    assert outline(MESSAGE) == EXPECTED
    assert EXPECTED.attachments == ("../../etc/\\x1b]0;\\u202efdp.exe", "Büld", "")


def test_in_a_process_of_its_own_from_memory_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(MESSAGE)

    class Stored(BytesContent):
        def open(self) -> BinaryIO:
            return (tmp_path / "blob").open("rb")

    assert bounded_outline(BytesContent(MESSAGE)) == EXPECTED
    assert bounded_outline(Stored(b"")) == EXPECTED
    assert json.loads(json.dumps(EXPECTED.to_json()))["parts"][4] == {
        "content_type": "text/x-log", "charset": "", "size": 3, "name": "", "attachment": True,
    }  # fmt: skip


@pytest.mark.parametrize("raw", [b"hello\r\nSubject: x\r\n\r\nbody", b" Content-Type: text/html\r\n\r\nbody"])
def test_a_message_without_a_header_is_all_text(raw: bytes) -> None:
    assert outline(raw) == Outline((Part("text/plain", size=len(raw)),), text="\n".join(raw.decode().splitlines()))


def test_a_message_that_is_all_header_has_an_empty_part() -> None:
    assert outline(b"Subject: x\r\nContent-Type: text/html") == Outline((Part("text/html"),))


def test_many_parts_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARTS_SHOWN", 3)
    found = outline(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 10 + b"--b--\r\n")
    assert (len(found.parts), found.omitted) == (3, 8)


def test_long_names_and_texts_are_cut() -> None:
    found = outline(b'Content-Disposition: attachment; filename="' + b"n" * 900 + b'"\r\n\r\nx')
    assert found.parts[0].name == "n" * 255 + "…"
    assert len(outline(b"Subject: x\r\n\r\n" + b"line\n" * 9_000).text) <= 2_000


def test_shown_on_one_line() -> None:
    assert shown("a\nb\r\0\x1b\u202e\ud800ü") == "a\\nb\\r\\x00\\x1b\\u202e\\ud800ü"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["nesting of 3,000", "message/rfc822 2,000 deep"])
def test_too_deep_a_nesting_gives_a_reason(name: str) -> None:
    found = bounded_outline(BytesContent(hostile.MESSAGES[name]()))
    assert isinstance(found, Unreadable)
    assert "nesting too deep" in str(found)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name", ["1.1 MB of encoded words", "300,000 header lines", "50,000 addresses", "Content-Type: ;;;; of 160 KB", "nothing"]
)
def test_hostile_headers_do_not_hinder_it(name: str) -> None:
    assert isinstance(bounded_outline(BytesContent(hostile.MESSAGES[name]())), Outline)


def endless() -> bytes:
    """A part whose header costs the parser far more than a second."""
    return b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: a/b" + b";a*=" * 2_000_000 + b"\r\n\r\nx\r\n--b--"


@pytest.mark.timeout(60)
def test_a_parse_that_takes_too_long_is_stopped() -> None:
    assert bounded_outline(BytesContent(endless()), seconds=0.5) == Unreadable("the parse took longer than 0.5 s")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("bytearray(4 * 1024**3)", "the parse took more than 1024 MB of memory"),
        ("[][1]", "the parser gave up: list index out of range"),
        ("__import__('os').abort()", "the parser was stopped (Aborted)"),
        ("__import__('os')._exit(3)", "the parser ended with status 3"),
    ],
)
def test_whatever_ends_the_parse_gives_a_reason(monkeypatch: pytest.MonkeyPatch, harm: str, reason: str) -> None:
    monkeypatch.setattr(module, "_WORKER", module._WORKER.replace("outline.work", f"outline.outline = lambda raw: {harm}; outline.work"))
    assert bounded_outline(BytesContent(MESSAGE)) == Unreadable(reason)


def test_cpu_time_is_limited_too() -> None:
    code = "from inbound.assess import outline; outline.outline = lambda raw: [None for _ in iter(int, 1)]; outline.work(1)"
    top = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, timeout=30, check=False, cwd=top)
    assert done.returncode < 0


def test_too_large_a_message_is_not_parsed() -> None:
    class Large(BytesContent):
        @property
        def size(self) -> int:
            return module.SIZE_LIMIT + 1

        def open(self) -> BinaryIO:
            raise AssertionError("must not be opened")

    assert bounded_outline(Large(b"")) == Unreadable("the message is larger than 50 MB")


def test_an_interpreter_that_is_not_there_gives_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert bounded_outline(BytesContent(MESSAGE)) == Unreadable("the parser could not be started: No such file or directory")
