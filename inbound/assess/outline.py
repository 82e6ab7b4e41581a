"""What a message is made of, for people who look at one: its parts, the names of its attachments, how its text begins.

A whole MIME parse can take unbounded time, memory and stack, so it runs in a process of its own that is stopped when it takes too much.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from email.message import Message as MimePart
from pathlib import Path
from typing import Any, BinaryIO

from inbound.accept.spool import Content
from inbound.assess import encoded_words, forged, message

SIZE_LIMIT = 50 * 1024 * 1024
MEMORY_LIMIT = 1024 * 1024 * 1024
PARTS_SHOWN = 1_000
NAME_SHOWN = 255
TEXT_SHOWN = 2_000

_WORKER = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from inbound.assess import outline; outline.work(int(sys.argv[2]))"


@dataclass(frozen=True, slots=True)
class Part:
    """One MIME part (RFC 2045). `size` counts decoded octets, 0 for a container. `name` is for showing only: it is no path."""

    content_type: str
    charset: str = ""
    size: int = 0
    name: str = ""
    attachment: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """The parts in the order of the message, at most `PARTS_SHOWN` (`omitted` says how many more), and how the text begins.

    Control characters, and those that reorder text, are shown escaped (`\\x1b`, `\\u202e`).
    """

    parts: tuple[Part, ...]
    omitted: int = 0
    text: str = ""

    @property
    def attachments(self) -> tuple[str, ...]:
        """The names of the attachments; an attachment without a name has an empty one."""
        return tuple(part.name for part in self.parts if part.attachment or part.name)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types."""
        return {**asdict(self), "attachments": self.attachments}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There is no outline, and why, in words for people."""

    reason: str

    def __str__(self) -> str:
        return self.reason


def outline(raw: bytes) -> Outline:
    """The outline of a message, by mail-parser. Not bounded: for a process that may die. Raises whatever the parser raises."""
    import mailparser  # noqa: PLC0415  # only this process needs it, and it costs 50 ms

    mail = mailparser.parse_from_bytes(_mime_only(raw))
    parts = list(mail.message.walk())
    text = next((text for text in [*mail.text_plain, *mail.text_html] if text.strip()), "")
    return Outline(
        parts=tuple(_part(part) for part in parts[:PARTS_SHOWN]),
        omitted=max(0, len(parts) - PARTS_SHOWN),
        text="\n".join(shown(line) for line in text[:TEXT_SHOWN].splitlines()),
    )


def bounded_outline(content: Content, *, seconds: float = 10.0) -> Outline | Unreadable:
    """`outline` in a process of its own, within `seconds`, `MEMORY_LIMIT` and `SIZE_LIMIT`. Blocks; never raises on any content."""
    if content.size > SIZE_LIMIT:
        return Unreadable(f"the message is larger than {SIZE_LIMIT // 1024 // 1024} MB")
    command = [sys.executable, "-I", "-c", _WORKER, json.dumps([str(Path(p).resolve()) for p in sys.path]), str(round(seconds) + 1)]
    try:
        with content.open() as reader:
            done = subprocess.run(  # noqa: S603  # our own interpreter; the message is on its standard input
                command, **_input(reader), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False
            )
    except subprocess.TimeoutExpired:
        return Unreadable(f"the parse took longer than {seconds:g} s")
    except OSError as error:
        return Unreadable(f"the parser could not be started: {error.strerror}")
    return _answer(done.stdout, done.returncode)


def work(seconds: int) -> None:
    """The worker process: the message on standard input, the outline as JSON on standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    try:
        answer: dict[str, Any] = asdict(outline(sys.stdin.buffer.read()))
    except MemoryError:
        answer = {"reason": f"the parse took more than {MEMORY_LIMIT // 1024 // 1024} MB of memory"}
    except Exception as error:
        answer = {"reason": f"the parser gave up: {shown(str(error) or type(error).__name__)}"}
    sys.stdout.write(json.dumps(answer))


def shown(text: str) -> str:
    """`text` on one line, with what does not print escaped, cut to `NAME_SHOWN` characters."""
    cut = text if len(text) <= NAME_SHOWN else text[:NAME_SHOWN] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def _mime_only(raw: bytes) -> bytes:
    """The message with only those header fields that say how its body is made: the others are costly to parse and no part of an outline."""
    if not message.begins_with_field(raw):
        return b"\r\n" + raw
    length = forged.header_length(raw)
    fields = [each for each in message.parse(raw[: message.HEAD]).fields if _tells(each.name)]
    header = b"".join(b"%b:%b\r\n" % (each.name.encode(), each.raw) for each in fields)
    return header + (b"" if length is None else raw[length:])


def _tells(name: str) -> bool:
    return name.lower().startswith("content-")


def _part(part: MimePart) -> Part:
    payload = None if part.is_multipart() else part.get_payload(decode=True)
    metadata = MimePart()
    for name, value in part.raw_items():
        if _tells(name):
            metadata[name] = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Part(
        content_type=shown(part.get_content_type()),
        charset=shown(metadata.get_content_charset("")),
        size=len(payload) if isinstance(payload, bytes) else 0,
        name=shown(encoded_words.decode(metadata.get_filename(""))),
        attachment=metadata.get_content_disposition() == "attachment",
    )


def _input(reader: BinaryIO) -> dict[str, Any]:
    """A file goes to the worker as it is; what is in memory goes through a pipe."""
    try:
        reader.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return {"input": reader.read()}
    return {"stdin": reader}


def _answer(output: bytes, code: int) -> Outline | Unreadable:
    try:
        answer = json.loads(output)
    except ValueError:
        how = f"was stopped ({signal.strsignal(-code)})" if code < 0 else f"ended with status {code}"
        return Unreadable(f"the parser {how}")
    if "reason" in answer:
        return Unreadable(answer["reason"])
    return Outline(tuple(Part(**part) for part in answer["parts"]), answer["omitted"], answer["text"])
