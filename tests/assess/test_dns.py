"""The resolver against a server that behaves, and against those that do not: every trouble is told apart and none is waited for too long."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest
import uvloop
from dns_server import DnsServer, Fault
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inbound.assess.answers import Answer, Answers, Need, Outcome, Question, domain_name, is_host_name
from inbound.assess.dns import Budget, Resolver, reverse_name, settle

ZONE = """
    example.com              TXT   "v=spf1 " "-all"
    example.com              TXT   "other"
    example.com              MX    20 b.example.com
    example.com              MX    10 a.example.com
    null.example.com         MX    0 .
    mx.example.com           A     192.0.2.1
    mx.example.com           AAAA  2001:db8::1
    alias.example.com        CNAME example.com
    dangling.example.com     CNAME gone.example.com
    short.example.com   1    A     192.0.2.9
    long.example.com 999999  A     192.0.2.9
    1.2.0.192.in-addr.arpa   PTR   mx.example.com
    slow.example.com         A     192.0.2.1
    hi\\000\\255.example.com  A     192.0.2.7
    hi\\\\000\\\\255.example.com A   192.0.2.7
"""


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def resolved(server: DnsServer, name: str, rdtype: str, *, seconds: float = 5.0) -> Answer:
    return await Resolver([server.address], timeout=seconds).lookup(name, rdtype)


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("EXAMPLE.com.", "TXT", Answer(Outcome.FOUND, texts=(b"v=spf1 -all", b"other"))),
        ("example.com", "MX", Answer(Outcome.FOUND, values=("a.example.com", "b.example.com"))),
        ("null.example.com", "MX", Answer(Outcome.FOUND, values=("",))),
        ("mx.example.com", "A", Answer(Outcome.FOUND, values=("192.0.2.1",))),
        ("mx.example.com", "AAAA", Answer(Outcome.FOUND, values=("2001:db8::1",))),
        ("1.2.0.192.in-addr.arpa", "PTR", Answer(Outcome.FOUND, values=("mx.example.com",))),
        ("alias.example.com", "TXT", Answer(Outcome.FOUND, texts=(b"v=spf1 -all", b"other"))),
        ("mx.example.com", "TXT", Answer(Outcome.NO_DATA, reason="mx.example.com has no TXT record")),
        ("nothing.example.com", "TXT", Answer(Outcome.NXDOMAIN, reason="nothing.example.com does not exist")),
        ("dangling.example.com", "A", Answer(Outcome.NXDOMAIN, reason="dangling.example.com does not exist")),
        ("a..example.com", "A", Answer(Outcome.NXDOMAIN, reason="'a..example.com' is no domain name")),
        ("", "A", Answer(Outcome.NXDOMAIN, reason="'' is no domain name")),
        (f"{'a' * 64}.example.com", "A", Answer(Outcome.NXDOMAIN, reason=f"'{'a' * 64}.example.com' is no domain name")),
    ],
)
async def test_facts(name: str, rdtype: str, expected: Answer) -> None:
    with DnsServer(ZONE) as server:
        answer = await resolved(server, name, rdtype)
    assert (answer.outcome, sorted(answer.texts), answer.values, answer.reason) == (
        expected.outcome, sorted(expected.texts), expected.values, expected.reason)
    assert not answer.failed


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.SILENT, Outcome.TIMEOUT),
        (Fault.SERVFAIL, Outcome.SERVFAIL),
        (Fault.REFUSED, Outcome.SERVFAIL),
        (Fault.TRUNCATED_DEAF, Outcome.TRUNCATED),
        (Fault.WRONG_ID, Outcome.TIMEOUT),
        (Fault.WRONG_QUESTION, Outcome.TIMEOUT),
        (Fault.GARBAGE, Outcome.TIMEOUT),
        (Fault.CNAME_LOOP, Outcome.MALFORMED),
    ],
)
async def test_trouble_is_told_apart(fault: Fault, outcome: Outcome) -> None:
    with DnsServer(ZONE, faults={"example.com": fault}) as server:
        answer = await resolved(server, "example.com", "TXT", seconds=0.3)
    assert answer.outcome is outcome
    assert answer.failed
    assert not answer.texts
    assert answer.reason.startswith("example.com TXT: ")


async def test_a_truncated_answer_comes_over_tcp() -> None:
    with DnsServer(ZONE, faults={"example.com": Fault.TRUNCATED}) as server:
        answer = await resolved(server, "example.com", "TXT")
        assert [query.transport for query in server.queries] == ["udp", "tcp"]
    assert sorted(answer.texts) == [b"other", b"v=spf1 -all"]


async def test_an_answer_of_64_kib_is_read_and_not_remembered_beyond_its_share() -> None:
    with DnsServer(ZONE, faults={"example.com": Fault.HUGE}) as server:
        resolver = Resolver([server.address], cache_octets=60_000)
        for _ in range(2):
            assert len((await resolver.lookup("example.com", "TXT")).texts[0]) > 64_000
        assert server.asked("example.com") == 4  # UDP and TCP, twice


async def test_the_answers_used_last_are_remembered() -> None:
    with DnsServer(ZONE) as server:
        resolver = Resolver([server.address], cache_octets=1400)  # three small answers
        names = ["mx.example.com", "short.example.com", "long.example.com"]
        for name in [*names, "mx.example.com", "slow.example.com", "mx.example.com", "short.example.com"]:
            assert (await resolver.lookup(name, "A")).values
        assert [query.name for query in server.queries] == [*names, "slow.example.com", "short.example.com"]


@pytest.mark.parametrize(
    ("name", "holds", "ends"),
    [
        ("mx.example.com", 59, 61),
        ("short.example.com", 4, 6),
        ("long.example.com", 3599, 3601),
        ("nothing.example.com", 4, 301),
        ("fails.example.com", 9, 11),
    ],
)
async def test_answers_hold_for_their_ttl_within_bounds(name: str, holds: float, ends: float) -> None:
    clock = Clock()
    with DnsServer(ZONE, faults={"fails.example.com": Fault.SERVFAIL}) as server:
        resolver = Resolver([server.address], clock=clock)
        first = await resolver.lookup(name, "A")
        clock.now += holds
        assert await resolver.lookup(name.upper() + ".", "A") == first
        assert server.asked(name) == 1
        clock.now += ends - holds
        assert await resolver.lookup(name, "A") == first
        assert server.asked(name) == 2


async def test_the_same_lookups_are_one() -> None:
    with DnsServer(ZONE, faults={"mx.example.com": Fault.HELD}) as server:
        resolver = Resolver([server.address])
        lookups = [asyncio.create_task(resolver.lookup(name, "A")) for name in ["mx.example.com", "MX.example.com.", "mx.example.com"]]
        await server.arrived("mx.example.com")
        lookups[0].cancel()  # one waiter's end is not the others'
        server.release("mx.example.com")
        assert [answer.values for answer in await asyncio.gather(*lookups[1:])] == [("192.0.2.1",)] * 2
        assert server.asked("mx.example.com") == 1


async def test_a_dead_name_delays_no_other() -> None:
    with DnsServer(ZONE, faults={"example.com": Fault.SILENT}) as server:
        resolver = Resolver([server.address])
        dead = [asyncio.create_task(resolver.lookup("example.com", rdtype)) for rdtype in ("TXT", "MX", "A", "AAAA")]
        await server.arrived("example.com", 4)
        assert (await resolver.lookup("mx.example.com", "A")).values == ("192.0.2.1",)
        assert not any(task.done() for task in dead)
        await resolver.close()
        assert [answer.outcome for answer in await asyncio.gather(*dead)] == [Outcome.UNREACHABLE] * 4


async def test_lookups_beyond_the_limit_wait_and_give_up_in_time() -> None:
    with DnsServer(ZONE, faults={"example.com": Fault.HELD}) as server:
        resolver = Resolver([server.address], concurrency=1, timeout=5)
        first = asyncio.create_task(resolver.lookup("example.com", "TXT"))
        await server.arrived("example.com")
        second = asyncio.create_task(resolver.lookup("mx.example.com", "A"))
        impatient = await resolver.lookup("mx.example.com", "AAAA", Budget(0.05, 9, time.monotonic))
        assert impatient.outcome is Outcome.TIMEOUT
        assert server.asked("mx.example.com") == 0
        server.release("example.com")
        assert (await first).texts
        assert (await second).values
    crowded = Resolver([("127.0.0.1", 9)], concurrency=0, timeout=0.05)
    answer = await crowded.lookup("mx.example.com", "A")
    assert (answer.outcome, answer.reason) == (Outcome.TIMEOUT, "mx.example.com A: too many lookups wait for an answer")


async def test_the_budget_of_a_message_bounds_time_and_number() -> None:
    clock = Clock()
    with DnsServer(ZONE) as server:
        resolver = Resolver([server.address], clock=clock)
        budget = resolver.budget(20, 2)
        assert (await resolver.lookup("mx.example.com", "A", budget)).values
        assert (await resolver.lookup("mx.example.com", "A", budget)).values  # the cache costs nothing
        assert (await resolver.lookup("mx.example.com", "AAAA", budget)).values
        answer = await resolver.lookup("example.com", "MX", budget)
        assert (answer.outcome, answer.reason) == (Outcome.TIMEOUT, "this message needs too many DNS lookups")
        budget = resolver.budget(20)
        assert budget.remaining == 20
        clock.now += 21
        answer = await resolver.lookup("example.com", "MX", budget)
        assert (answer.outcome, answer.reason) == (Outcome.TIMEOUT, "the time for this message's DNS lookups is used up")
        assert (await resolver.lookup("example.com", "MX", resolver.budget())).values  # that trouble was the message's own


async def test_a_dead_server_is_asked_last_once_it_was_found_dead() -> None:
    with DnsServer(ZONE) as alive, DnsServer(ZONE, faults={"mx.example.com": Fault.SILENT}) as dead:
        resolver = Resolver([dead.address, alive.address], timeout=0.5)
        assert (await resolver.lookup("mx.example.com", "A")).values == ("192.0.2.1",)
        assert (await resolver.lookup("mx.example.com", "AAAA")).values == ("2001:db8::1",)
        assert dead.asked("mx.example.com") == 1


async def test_another_server_is_asked_where_one_gives_up() -> None:
    with DnsServer(ZONE) as good, DnsServer(ZONE, faults={"mx.example.com": Fault.SERVFAIL}) as broken:
        assert (await Resolver([broken.address, good.address]).lookup("mx.example.com", "A")).values == ("192.0.2.1",)


async def test_no_server_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    clock = Clock()
    resolver = Resolver(resolv_conf=conf, clock=clock, timeout=0.05)
    answer = await resolver.lookup("example.com", "A")
    assert (answer.outcome, answer.reason) == (Outcome.UNREACHABLE, "example.com A: no DNS server is configured")
    for n, text in enumerate(["# nothing\n", "nameserver nonsense\n", "\xff\xfe\0"]):
        conf.write_text(text, "latin-1")
        os.utime(conf, (n, n))
        clock.now += 60
        assert (await resolver.lookup("example.com", "A")).outcome is Outcome.UNREACHABLE
    conf.write_text("search example.com\nnameserver 127.0.0.1\n")
    clock.now += 60
    await resolver.lookup("example.com", "A")
    assert [server.answer_nameserver() for server in resolver._servers] == ["127.0.0.1"]


def test_a_server_is_an_ip_address() -> None:
    with pytest.raises(ValueError, match=r"resolver\.example"):
        Resolver([("resolver.example", 53)])


def test_it_works_on_uvloop() -> None:
    async def lookups() -> list[Answer]:
        resolver = Resolver([server.address], timeout=0.5)
        return [await resolver.lookup(name, "TXT") for name in ("example.com", "mx.example.com", "silent.example.com")]

    server = DnsServer(ZONE, faults={"example.com": Fault.TRUNCATED, "silent.example.com": Fault.SILENT})
    with server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(lookups())
    assert [answer.outcome for answer in found] == [Outcome.FOUND, Outcome.NO_DATA, Outcome.TIMEOUT]


# --- checks that ask ---


async def test_a_pure_check_runs_until_it_knows_enough() -> None:
    runs = []

    def hosts(answers: Answers) -> list[str]:
        runs.append(1)
        exchanges = answers("example.com", "MX").values
        return [f"{name} {answer.outcome}" for name, answer in zip(exchanges, answers.all(exchanges, "A"), strict=True)]

    with DnsServer(ZONE, faults={"b.example.com": Fault.SERVFAIL}) as server:
        resolver = Resolver([server.address])
        assert await settle(resolver, resolver.budget(), hosts) == ["a.example.com no such name", "b.example.com server failure"]
        assert len(runs) == 3
        assert server.asked("example.com") == 1


def test_what_is_missing_is_asked_for_once() -> None:
    answers = Answers({Question("a.example", "A"): Answer(Outcome.FOUND, values=("192.0.2.1",))})
    with pytest.raises(Need) as caught:
        answers.all(["a.example.", "B.example", "b.example."], "A")
    assert caught.value.questions == (Question("b.example", "A"),)
    assert answers("A.EXAMPLE", "A").values == ("192.0.2.1",)


async def test_a_dead_server_is_answered_for_within_the_budget() -> None:
    def check(answers: Answers) -> list[Outcome]:
        return [answers(f"{n}.example.com", "TXT").outcome for n in range(50)]

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        resolver = Resolver([deaf.getsockname()], timeout=0.2)
        began = time.monotonic()
        assert await settle(resolver, resolver.budget(0.5), check) == [Outcome.TIMEOUT] * 50
        assert 0.4 < time.monotonic() - began < 5
        await resolver.close()


# --- names ---


@pytest.mark.parametrize(
    ("zone", "ip", "expected"),
    [
        ("", "192.0.2.1", "mx.example.com"),
        ("", "::ffff:192.0.2.1", "mx.example.com"),
        ("8.b.d.0.1.0.0.2.ip6.arpa TXT x\n" + "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa PTR mx.example.com", "2001:db8::1", "mx.example.com"),
        ("2.2.0.192.in-addr.arpa PTR mx.example.com", "192.0.2.2", ""),  # leads elsewhere
        ("3.2.0.192.in-addr.arpa PTR gone.example.com", "192.0.2.3", ""),
        ("7.2.0.192.in-addr.arpa PTR hi\\000\\255.example.com", "192.0.2.7", ""),  # must not be shown
        ("1.2.0.192.in-addr.arpa PTR a.liar.example\n1.2.0.192.in-addr.arpa PTR b.liar.example", "192.0.2.1", "mx.example.com"),
        ("", "192.0.2.4", ""),
        ("", "not an address", ""),
    ],
)
async def test_reverse_name_leads_back(zone: str, ip: str, expected: str) -> None:
    with DnsServer(ZONE + zone) as server:
        assert await reverse_name(Resolver([server.address]), ip) == expected


async def test_reverse_name_looks_at_five_names() -> None:
    pointers = "\n".join(f"5.2.0.192.in-addr.arpa PTR n{n}.example.com" for n in range(40))
    with DnsServer(pointers) as server:
        resolver = Resolver([server.address])
        assert await reverse_name(resolver, "192.0.2.5", resolver.budget()) == ""
        assert sum(query.rdtype == "A" for query in server.queries) == 5


async def test_reverse_name_gives_up_in_time() -> None:
    with DnsServer(ZONE, faults={"1.2.0.192.in-addr.arpa": Fault.SILENT}) as server:
        resolver = Resolver([server.address])
        assert await reverse_name(resolver, "192.0.2.1", resolver.budget(0.05)) == ""
        await resolver.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", ""),
        ("com.", ""),
        ("", ""),
        (".", ""),
        ("a..b", ""),
        (".a.b", ""),
        ("a.b..", ""),
        ("a b.example", ""),
        ("a\0.example", ""),
        ("a.example\n", ""),
        ("[192.0.2.1]", ""),
        ("a(b).example", ""),
        ("-a.example", ""),
        (f"{'a' * 64}.example", ""),
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
        (".".join(["a" * 60] * 5), ""),
        ("\ud800.example", ""),
        ("ﬀ\u202e.example", ""),
        ("ü" * 2000 + ".example", ""),
    ],
)
def test_domain_name(text: str, expected: str) -> None:
    assert domain_name(text) == expected


@given(st.text(max_size=80))
def test_domain_name_is_a_safe_host_name_or_nothing(text: str) -> None:
    name = domain_name(text)
    assert name == "" or (is_host_name(name) and name == name.lower() and domain_name(name) == name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(wire=st.binary(max_size=600))
def test_no_octets_from_a_server_raise(wire: bytes) -> None:
    async def lookup() -> Answer:
        class Hostile(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                transport.sendto(data[:2] + wire, addr)
                transport.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:29] + wire, addr)  # a header, the question, then anything
                transport.sendto(data[:2] + b"\x81\x82" + data[4:], addr)  # SERVFAIL ends the lookup if the octets did not

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Hostile, local_addr=("127.0.0.1", 0))
        answer = await Resolver([transport.get_extra_info("sockname")], timeout=5).lookup("example.com", "TXT")
        transport.close()
        return answer

    assert isinstance(asyncio.run(lookup()), Answer)

