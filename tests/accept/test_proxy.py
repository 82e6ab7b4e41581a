"""PROXY headers from octets, by the examples and the rules of HAProxy's specification; whatever is no header is told so, and costs little."""

from __future__ import annotations

import ipaddress
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inbound.accept.proxy import V1_LIMIT, V2_LIMIT, Header, NotProxy, header

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"


def version_2(client: str = "192.0.2.1", port: int = 40000, *, command: int = 0x21, family: int | None = None, tlvs: bytes = b"") -> bytes:
    """A header of version 2, as a load balancer writes it."""
    source = ipaddress.ip_address(client)
    destination = ipaddress.ip_address("198.51.100.25" if source.version == 4 else "2001:db8:ffff::25")
    body = source.packed + destination.packed + struct.pack("!HH", port, 25) + tlvs
    kind = (0x11 if source.version == 4 else 0x21) if family is None else family
    return SIGNATURE + bytes((command, kind)) + struct.pack("!H", len(body)) + body


GOOD: list[tuple[bytes, tuple[str, int] | None]] = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.25 56324 25\r\n", ("192.0.2.1", 56324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:DB8::1 2001:db8::2 0 25\r\n", ("2001:db8::1", 0)),
    (b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", None),
    (version_2(), ("192.0.2.1", 40000)),
    (version_2("2001:db8::1", 65535), ("2001:db8::1", 65535)),
    (version_2(tlvs=b"\xea\x00\x17\x01vpce-0123456789abcdef0" + b"\x04\x00\x03abc"), ("192.0.2.1", 40000)),
    (version_2(tlvs=b"x" * (V2_LIMIT - 28)), ("192.0.2.1", 40000)),
    (SIGNATURE + b"\x20\x00\x00\x00", None),  # LOCAL, as health checks send it
    (version_2(command=0x20), None),  # LOCAL: addresses are to be ignored
    (SIGNATURE + b"\x20\xff\x00\x03abc", None),  # and so is the family
    (SIGNATURE + b"\x21\x00\x00\x00", None),  # PROXY, unspecified
    (SIGNATURE + b"\x21\x00\x00\x05abcde", None),
    (SIGNATURE + b"\x21\x31\x00\xd8" + b"/run/lb.sock".ljust(108, b"\0") * 2, None),  # PROXY, Unix socket
]


@pytest.mark.parametrize(("octets", "client"), GOOD, ids=[repr(octets[:40]) for octets, _ in GOOD])
def test_a_header_is_read_as_soon_as_it_is_whole_and_no_further(octets: bytes, client: tuple[str, int] | None) -> None:
    for end in range(len(octets)):
        assert header(octets[:end]) is None, f"after {end} octets"
    assert header(octets) == Header(len(octets), client)
    assert header(octets + b"EHLO x\r\nPROXY TCP4 203.0.113.9 203.0.113.9 9 9\r\n") == Header(len(octets), client)


def test_the_bounds() -> None:
    assert V1_LIMIT == 107
    assert 536 <= V2_LIMIT <= 4096


def test_the_longest_header_of_version_1_is_as_long_as_its_bound() -> None:
    assert max(len(octets) for octets, _ in GOOD if octets.startswith(b"PROXY")) == V1_LIMIT


BAD = [
    b"EHLO client.example\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a ClientHello
    b"proxy TCP4 192.0.2.1 198.51.100.25 56324 25\r\n",
    b" PROXY TCP4 192.0.2.1 198.51.100.25 56324 25\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.25 56324 25\r\n",
    b"PROXY TCP5 192.0.2.1 198.51.100.25 56324 25\r\n",
    b"PROXY TCP4  192.0.2.1 198.51.100.25 56324 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 56324 25 \r\n",
    b"PROXY TCP4 192.0.2.1\t198.51.100.25 56324 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 56324\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 56324 25 25\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.25 56324 25\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.25 56324 25\r\n",
    b"PROXY TCP4 192.0.2.1 client.example 56324 25\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 25\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.25 56324 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 056 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 -1 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.25 \xd9\xa1 25\r\n",  # ARABIC-INDIC DIGIT ONE
    b"PROXY TCP4 192.0.2.1 198.51.100.25 56324 25\0\r\n",
    b"PROXY UNKNOWN\n" + b"x" * V1_LIMIT,
    b"PROXY UNKNOWN " + b"x" * (V1_LIMIT - 15) + b"\r\n",  # one octet too long
    b"PROXY " + b"x" * 10_000_000,
    SIGNATURE[:-1] + b"\x0b\x21\x11\x00\x0c" + b"x" * 12,
    version_2(command=0x11),  # version 1 in version 2
    version_2(command=0x31),
    version_2(command=0x22),
    version_2(family=0x12),  # datagrams
    version_2(family=0x01),
    version_2(family=0x41),
    SIGNATURE + b"\x21\x11\x00\x0bxxxxxxxxxxx",
    SIGNATURE + b"\x21\x21\x00\x23" + b"x" * 35,
    SIGNATURE + b"\x21\x31\x00\xd7" + b"x" * 215,
    SIGNATURE + b"\x21\x11\xff\xff",  # not waited for
    SIGNATURE + b"\x21\x11\xff\xff" + b"x" * 10_000_000,
    version_2(tlvs=b"x" * (V2_LIMIT - 27)),
]


@pytest.mark.parametrize("octets", BAD, ids=lambda octets: repr(octets[:50]))
def test_what_is_no_header_is_said_so(octets: bytes) -> None:
    with pytest.raises(NotProxy):
        header(octets)


OCTETS = st.binary(max_size=300) | st.sampled_from([octets for octets, _ in GOOD] + BAD[:-1]).flatmap(
    lambda octets: st.tuples(st.integers(0, len(octets)), st.binary(max_size=6)).map(lambda cut: octets[: cut[0]] + cut[1] + octets[cut[0] + 1 :]))


@given(OCTETS)
@example(b"")
def test_whatever_comes_it_is_a_header_no_header_or_too_short_to_tell(octets: bytes) -> None:
    """What is a header stays one when more comes, and its client is an address and a port."""
    try:
        found = header(octets)
    except NotProxy:
        with pytest.raises(NotProxy):
            header(octets + b"more")
        return
    if found is None:
        assert len(octets) < V2_LIMIT
        return
    assert 15 <= found.length <= min(len(octets), V2_LIMIT)
    assert header(octets[: found.length] + b"more") == found
    if found.client is not None:
        address, port = found.client
        assert str(ipaddress.ip_address(address)) == address
        assert 0 <= port <= 65535


@given(st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1)), st.integers(0, 65535))
def test_both_versions_name_the_same_client(client: IPv4Address | IPv6Address, port: int) -> None:
    line = f"PROXY TCP{client.version} {client} {client} {port} 25\r\n".encode()
    first, second = header(line), header(version_2(str(client), port))
    assert first is not None
    assert second is not None
    assert first.client == second.client == (str(client), port)
