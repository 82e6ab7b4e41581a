"""A DNS server on loopback for tests: it serves a zone's text over UDP and TCP, and can misbehave, name by name.

A name that exists with other types, or has names below it, answers NODATA; any other NXDOMAIN, as resolvers that cache expect it.

    with DnsServer('''
        example.com          TXT  "v=spf1 mx -all"
        example.com          MX   10 mx.example.com
        mx.example.com       A    192.0.2.1
        long.example.com     TXT  "several " "strings"
        alias.example.com    CNAME example.com
        1.2.0.192.in-addr.arpa PTR mx.example.com
    ''', faults={"dead.example.com": Fault.SILENT, "slow.example.com": 0.2}) as dns:
        dns.address       # ("127.0.0.1", 40053)
        dns.setting       # "127.0.0.1:40053", as INBOUND_DNS takes it
        dns.queries       # what was asked: [Query("example.com", "TXT", "udp"), ...]

Names in the text are absolute, with or without the last dot. The server has a thread and a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from types import TracebackType
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zonefile

_IN = dns.rdataclass.IN
_CNAMES = 16  # how far a chain of aliases within the zone is followed in one answer


class Fault(Enum):
    """What goes wrong when a name is asked for."""

    SILENT = auto()  # no answer, ever
    HELD = auto()  # no answer until `release(name)`
    SERVFAIL = auto()
    REFUSED = auto()
    TRUNCATED = auto()  # TC and no records over UDP, all of it over TCP
    TRUNCATED_DEAF = auto()  # TC over UDP, and the TCP connection is closed without an answer
    WRONG_ID = auto()  # an answer to another question's id
    WRONG_QUESTION = auto()  # the right id, another name
    GARBAGE = auto()  # octets that are no DNS message, after the right id
    HUGE = auto()  # a TXT answer of nearly 64 KiB: TC over UDP, then over TCP
    CNAME_LOOP = auto()  # an alias of an alias of itself


class Query(NamedTuple):
    """One question that arrived: name in lower case without the last dot, type, and `udp` or `tcp`."""

    name: str
    rdtype: str
    transport: str


class DnsServer:
    """Serves `zone`; `faults` maps a name to what goes wrong with it, or to the seconds its answer takes. Both may change while it runs."""

    def __init__(self, zone: str = "", *, faults: Mapping[str, Fault | float] | None = None) -> None:
        self._records: dict[dns.name.Name, dict[int, dns.rrset.RRset]] = {}
        self._faults: dict[dns.name.Name, Fault | float] = {}
        self._held: dict[dns.name.Name, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dns-server", daemon=True)
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self.address = ("127.0.0.1", 0)
        self.queries: list[Query] = []
        self.add(zone)
        for name, fault in (faults or {}).items():
            self.fault(name, fault)

    # --- what it serves ---

    def add(self, zone: str) -> None:
        """Add records in master file format (RFC 1035 §5); the default TTL is 60."""
        text = "\n".join(line.strip() for line in zone.splitlines())
        for rrset in dns.zonefile.read_rrsets(text, default_ttl=60, rdclass=None, origin=dns.name.root):
            known = self._records.setdefault(_key(rrset.name), {}).setdefault(rrset.rdtype, dns.rrset.RRset(rrset.name, _IN, rrset.rdtype))
            for rdata in rrset:
                known.add(rdata, ttl=rrset.ttl)

    def remove(self, name: str) -> None:
        """Forget every record of a name."""
        self._records.pop(_key(dns.name.from_text(name)), None)

    def fault(self, name: str, fault: Fault | float | None) -> None:
        """From now on this goes wrong with `name`; a number is the seconds its answer takes; None mends it."""
        key = _key(dns.name.from_text(name))
        if fault is None:
            self._faults.pop(key, None)
        else:
            self._faults[key] = fault

    def release(self, name: str) -> None:
        """Send the answers of a `HELD` name, and hold no more of them."""
        key = _key(dns.name.from_text(name))
        self._faults.pop(key, None)
        self._loop.call_soon_threadsafe(lambda: self._holding(key).set())

    def asked(self, name: str, rdtype: str | None = None) -> int:
        """How often a name was asked for, over UDP or TCP."""
        return sum(query.name == name.rstrip(".").lower() and rdtype in {None, query.rdtype} for query in self.queries)

    async def arrived(self, name: str, times: int = 1, *, seconds: float = 10.0) -> None:
        """Return when `name` was asked for so many times. For tests that must not sleep."""

        async def arrival() -> None:
            while self.asked(name) < times:
                self._news.clear()
                await self._news.wait()

        await asyncio.wait_for(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(arrival(), self._loop)), seconds)

    @property
    def setting(self) -> str:
        """`host:port`."""
        return "{}:{}".format(*self.address)

    # --- life ---

    def __enter__(self) -> DnsServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        for udp, tcp in _socket_pairs():
            self.address = udp.getsockname()
            self._udp, _ = await self._loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            self._tcp = await asyncio.start_server(self._stream, sock=tcp)
            return

    async def _close(self) -> None:
        assert self._udp and self._tcp
        self._udp.close()
        self._tcp.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    # --- transports ---

    def datagram(self, wire: bytes, peer: tuple[str, int]) -> None:
        """A query came over UDP."""

        async def reply() -> None:
            found = await self._reply(wire, "udp")
            if found and self._udp and not self._udp.is_closing():
                self._udp.sendto(found, peer)

        self._keep(self._loop.create_task(reply()))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._keep(task)
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                found = await self._reply(await reader.readexactly(length), "tcp")
                if not found:
                    return
                writer.write(struct.pack("!H", len(found)) + found)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- answers ---

    async def _reply(self, wire: bytes, transport: str) -> bytes | None:
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        key = _key(question.name)
        self.queries.append(Query(key.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype), transport))
        self._news.set()
        fault = self._faults.get(key)
        if isinstance(fault, float | int):
            await asyncio.sleep(fault)
            fault = None
        if fault is Fault.HELD:
            await self._holding(key).wait()
            fault = None
        if fault is Fault.SILENT:
            await asyncio.Event().wait()
        if fault is Fault.TRUNCATED_DEAF and transport == "tcp":
            return None
        if fault is Fault.GARBAGE:
            return wire[:2] + b"\x81\x80" + b"\xff" * 40
        return self._wire(query, fault, transport)

    def _wire(self, query: dns.message.Message, fault: Fault | None, transport: str) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        if fault in {Fault.SERVFAIL, Fault.REFUSED}:
            response.set_rcode(dns.rcode.SERVFAIL if fault is Fault.SERVFAIL else dns.rcode.REFUSED)
        elif fault in {Fault.TRUNCATED, Fault.TRUNCATED_DEAF} and transport == "udp":
            response.flags |= dns.flags.TC
        else:
            self._fill(response, fault)
        if fault is Fault.WRONG_ID:
            response.id = query.id ^ 0x5555
        if fault is Fault.WRONG_QUESTION:
            response.question = [dns.rrset.RRset(dns.name.from_text("elsewhere.invalid"), _IN, query.question[0].rdtype)]
        limit = 65535 if transport == "tcp" else max(512, query.payload if query.edns >= 0 else 512)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            cut = dns.message.make_response(query, recursion_available=True)
            cut.flags |= dns.flags.TC
            return cut.to_wire()

    def _fill(self, response: dns.message.Message, fault: Fault | None) -> None:
        name, rdtype = response.question[0].name, response.question[0].rdtype
        if fault is Fault.CNAME_LOOP:
            other = dns.name.from_text("loop", name)
            response.answer += [_rrset(name, "CNAME", other.to_text()), _rrset(other, "CNAME", name.to_text())]
            return
        if fault is Fault.HUGE and rdtype == dns.rdatatype.TXT:
            response.answer.append(_rrset(name, "TXT", " ".join(f'"{"x" * 250}"' for _ in range(258))))
            return
        for _ in range(_CNAMES):
            kinds = self._records.get(_key(name))
            if kinds is None:
                if not any(known.is_subdomain(_key(name)) for known in self._records):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return
            found = kinds.get(rdtype)
            if found:
                response.answer.append(found)
                return
            alias = kinds.get(dns.rdatatype.CNAME)
            if not alias:
                return
            response.answer.append(alias)
            name = alias[0].target

    def _holding(self, key: dns.name.Name) -> asyncio.Event:
        return self._held.setdefault(key, asyncio.Event())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


def _socket_pairs() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP and a TCP socket on one port of loopback that both were given."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        yield udp, tcp


def _rrset(name: dns.name.Name, rdtype: str, text: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, 60, "IN", rdtype, text)


def _key(name: dns.name.Name) -> dns.name.Name:
    return name.canonicalize()
