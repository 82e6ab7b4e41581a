"""DATA framing: one sentence each, and a reference by lines for whatever strangers send."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inbound.accept.framing import DOTS, Framer, received_count

END = b"\r\n.\r\n"


def reference(wire: bytes) -> tuple[bytes, bytes]:
    """Split at the first CRLF.CRLF (a line end before the first octet is taken as given); take the dot from each line that begins with one."""
    text = b"\r\n" + wire
    end = text.index(END)
    lines = text[: end + 2].split(b"\r\n")
    return b"\r\n".join(line.removeprefix(b".") for line in lines)[2:], text[end + len(END) :]


def run(wire: bytes, sizes: list[int]) -> tuple[bytes, bytes]:
    framer = Framer()
    content, position, turn = b"", 0, 0
    while not framer.ended:
        assert position < len(wire), "the framer has not ended at the final dot"
        step = sizes[turn % len(sizes)]
        content += framer.feed(wire[position : position + step])
        position, turn = position + step, turn + 1
    return content, framer.rest + wire[position:]


@given(st.text(alphabet="\r\n.ab", max_size=60), st.lists(st.integers(1, 9), min_size=1, max_size=8))
@example("", [1])
@example(".", [1])
@example("\r\n.\r", [2])
@example(".\r.\n", [3])
def test_any_octets_in_any_chunks_come_out_as_by_lines(text: str, sizes: list[int]) -> None:
    wire = text.encode() + END + b"NOOP\r\n"
    assert run(wire, sizes) == reference(wire) == run(wire, [len(wire)])


@pytest.mark.parametrize("before", range(DOTS - 2, DOTS + 3))
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_dotted_line_is_found_behind_any_number_of_dots_within_lines(before: int, step: int) -> None:
    wire = b"x.y\r\n" * before + b"..two\r\n" + b"." * before + b"\r\n..\r\n" + END + b"NOOP\r\n"
    assert run(wire, [step]) == reference(wire)


LOOK_ALIKES = [a + b"." + b
               for a in (b"\n", b"\r", b"\r\r", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"\r\n\0", b"\0\r\n\0")
               for b in (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\0\r\n")] + [b"\r\n." + b for b in (b"\n", b"\r", b"\r\r\n", b"\0\r\n", b" \r\n")]


@pytest.mark.parametrize("look_alike", [x for x in LOOK_ALIKES if END not in x], ids=repr)
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_only_crlf_dot_crlf_ends_the_data(look_alike: bytes, step: int) -> None:
    wire = b"a" + look_alike + b"MAIL FROM:<x@y.z>\r\nb" + END
    content, rest = run(wire, [step])
    assert content.endswith(b"MAIL FROM:<x@y.z>\r\nb\r\n")
    assert rest == b""


def test_received_fields_are_counted_in_the_header_block_only() -> None:
    assert received_count(b"Received: a\r\nreceived : b\r\n continued\r\nX: Received: c\r\n\r\nReceived: body\r\n") == 2
    assert received_count(b"Received: a\n\nReceived: body\n") == 1
    assert received_count(b"") == 0


def test_a_message_without_header_has_no_hops() -> None:
    assert received_count(b"\r\nReceived: body\r\n\r\n") == 0
