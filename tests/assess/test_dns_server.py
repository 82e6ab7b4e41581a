"""The DNS server of the tests answers as real ones do, and misbehaves as told."""

from __future__ import annotations

import asyncio
import struct

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from dns_server import DnsServer, Fault, Query

ZONE = """
    example.com              TXT   "v=spf1 " "-all"
    example.com              TXT   "other"
    example.com              MX    10 mx.example.com
    mx.example.com           A     192.0.2.1
    mx.example.com           AAAA  2001:db8::1
    alias.example.com        CNAME example.com
    dangling.example.com     CNAME gone.example.com
    1.2.0.192.in-addr.arpa   PTR   mx.example.com
"""


def ask(server: DnsServer, name: str, rdtype: str, *, tcp: bool = False, timeout: float = 5) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype)
    host, port = server.address
    return (dns.query.tcp if tcp else dns.query.udp)(query, host, port=port, timeout=timeout)


def answers(response: dns.message.Message) -> list[str]:
    return sorted(str(rdata) for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "records"),
    [
        ("EXAMPLE.com", "TXT", "NOERROR", ['"other"', '"v=spf1 " "-all"']),
        ("example.com", "MX", "NOERROR", ["10 mx.example.com."]),
        ("mx.example.com", "A", "NOERROR", ["192.0.2.1"]),
        ("mx.example.com", "AAAA", "NOERROR", ["2001:db8::1"]),
        ("1.2.0.192.in-addr.arpa", "PTR", "NOERROR", ["mx.example.com."]),
        ("alias.example.com", "MX", "NOERROR", ["10 mx.example.com.", "example.com."]),
        ("mx.example.com", "TXT", "NOERROR", []),
        ("0.192.in-addr.arpa", "PTR", "NOERROR", []),
        ("nothing.example.com", "TXT", "NXDOMAIN", []),
        ("dangling.example.com", "A", "NXDOMAIN", ["gone.example.com."]),
    ],
)
def test_zone(name: str, rdtype: str, rcode: str, records: list[str]) -> None:
    with DnsServer(ZONE) as server:
        for tcp in (False, True):
            response = ask(server, name, rdtype, tcp=tcp)
            assert (dns.rcode.to_text(response.rcode()), answers(response)) == (rcode, records)
        assert server.queries == [Query(name.lower(), rdtype, "udp"), Query(name.lower(), rdtype, "tcp")]


def test_faults() -> None:
    with DnsServer(ZONE) as server:
        server.fault("example.com", Fault.SERVFAIL)
        assert ask(server, "example.com", "TXT").rcode() == dns.rcode.SERVFAIL
        server.fault("example.com", Fault.TRUNCATED)
        assert ask(server, "example.com", "TXT").flags & dns.flags.TC
        assert len(answers(ask(server, "example.com", "TXT", tcp=True))) == 2
        server.fault("example.com", Fault.TRUNCATED_DEAF)
        assert ask(server, "example.com", "TXT").flags & dns.flags.TC
        with pytest.raises(EOFError):
            ask(server, "example.com", "TXT", tcp=True)
        server.fault("example.com", Fault.WRONG_ID)
        with pytest.raises(dns.query.BadResponse):
            ask(server, "example.com", "TXT")
        server.fault("example.com", Fault.WRONG_QUESTION)
        with pytest.raises(dns.query.BadResponse):
            ask(server, "example.com", "TXT")
        server.fault("example.com", Fault.GARBAGE)
        with pytest.raises(dns.exception.DNSException):
            ask(server, "example.com", "TXT")
        server.fault("example.com", Fault.HUGE)
        assert ask(server, "example.com", "TXT").flags & dns.flags.TC
        assert len(ask(server, "example.com", "TXT", tcp=True).to_wire()) > 64_000
        server.fault("example.com", Fault.CNAME_LOOP)
        assert answers(ask(server, "example.com", "TXT")) == ["example.com.", "loop.example.com."]
        server.fault("example.com", Fault.SILENT)
        with pytest.raises(dns.exception.Timeout):
            ask(server, "example.com", "TXT", timeout=0.1)
        server.fault("example.com", None)
        assert len(answers(ask(server, "example.com", "TXT"))) == 2


async def test_a_held_name_answers_when_released() -> None:
    with DnsServer(ZONE, faults={"example.com": Fault.HELD}) as server:
        host, port = server.address
        query = asyncio.create_task(dns.asyncquery.udp(dns.message.make_query("example.com", "MX"), host, port=port, timeout=10))
        assert answers(await asyncio.to_thread(ask, server, "mx.example.com", "A")) == ["192.0.2.1"]
        assert not query.done()
        server.release("example.com")
        assert answers(await query) == ["10 mx.example.com."]


def test_a_slow_name_answers_in_its_time() -> None:
    with DnsServer(ZONE, faults={"example.com": 0.05}) as server:
        response = ask(server, "example.com", "MX")
        assert response.time >= 0.05
        assert ask(server, "mx.example.com", "A").answer


def test_it_survives_octets_that_are_no_query() -> None:
    with DnsServer(ZONE) as server:
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_connection(server.address) as tcp:
            udp.sendto(b"\xff", server.address)
            tcp.sendall(struct.pack("!H", 3) + b"\xff\xff\xff")
            assert tcp.recv(1) == b""
        assert ask(server, "mx.example.com", "A").answer
