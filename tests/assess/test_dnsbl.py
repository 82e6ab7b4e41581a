"""DNS blocklists, asked over real DNS: who is listed, who is not, and what an outage comes to."""

from __future__ import annotations

import pytest
from dns_server import DnsServer, Fault
from journal import Journal

from inbound.assess.dns import Resolver
from inbound.assess.dnsbl import Blocklist, Blocklists
from inbound.log import Event

ZONE = r"""
    8.8.8.8.bl.example          A    127.0.0.2
    8.8.8.8.bl.example          TXT  "listed, see\013\010 https://bl.example/\255"
    4.8.8.8.bl.example          A    127.255.255.254
    5.8.8.8.bl.example          A    198.51.100.1
    6.8.8.8.bl.example          A    127.0.0.10
    8.8.8.8.second.example      A    127.0.0.3
    7.8.8.8.second.example      A    127.0.0.3
    8.8.8.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.8.4.1.0.0.2.bl.example A 127.0.0.2
"""
IPV6 = "2001:4860::8888"


def blocklists(server: DnsServer, *lists: Blocklist, journal: Journal | None = None, now: float = 0.0) -> Blocklists:
    return Blocklists(lists, Resolver([server.address], timeout=1.0), (journal or Journal()).log, clock=lambda: now)


@pytest.mark.parametrize(("client", "expected"), [
    ("8.8.8.8", ("bl.example", "listed, see?? https://bl.example/?")),
    ("8.8.8.4", None),
    ("8.8.8.5", None),
    ("8.8.8.6", ("bl.example", "")),
    ("8.8.8.7", ("second.example", "")),
    ("8.8.8.9", None),
    (IPV6, ("bl.example", "")),
])
async def test_who_is_listed(client: str, expected: tuple[str, str] | None) -> None:
    with DnsServer(ZONE) as server:
        assert await blocklists(server, Blocklist("bl.example"), Blocklist("second.example")).listed(client) == expected


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fe80::1", "100.64.0.1"])
async def test_addresses_of_no_global_network_are_not_asked_about(client: str) -> None:
    with DnsServer(ZONE) as server:
        assert await blocklists(server, Blocklist("bl.example")).listed(client) is None
        assert server.queries == []


@pytest.mark.parametrize(("answers", "address", "means"), [
    ("", "127.0.0.2", True),
    ("", "127.255.255.252", False),
    ("", "192.0.2.1", False),
    ("", "nonsense", False),
    ("127.0.0.2", "127.0.0.2", True),
    ("127.0.0.2", "127.0.0.3", False),
    ("127.0.0.[2..4;9]", "127.0.0.4", True),
    ("127.0.0.[2..4;9]", "127.0.0.9", True),
    ("127.0.0.[2..4;9]", "127.0.0.5", False),
    ("127.[0;1].0.[2]", "127.1.0.2", True),
    ("127.255.255.254", "127.255.255.254", True),
])
def test_the_answers_that_count(answers: str, address: str, means: bool) -> None:
    assert Blocklist("bl.example", answers).means_listed(address) is means


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.SERVFAIL, Fault.REFUSED, Fault.GARBAGE, Fault.WRONG_ID, Fault.CNAME_LOOP])
async def test_a_list_that_does_not_answer_lists_nobody_and_is_told_of_once(fault: Fault) -> None:
    journal = Journal()
    with DnsServer(ZONE, faults={"8.8.8.8.bl.example": fault, "9.8.8.8.bl.example": fault}) as server:
        lists = blocklists(server, Blocklist("bl.example"), journal=journal)
        assert await lists.listed("8.8.8.8") is None
        assert await lists.listed("8.8.8.9") is None
    ((event),) = journal.of(Event.CHECK_FAILED)
    assert (event["check"], event["zone"], event["level"]) == ("dnsbl", "bl.example", "warning")


async def test_another_list_is_heeded_when_the_first_is_out() -> None:
    with DnsServer(ZONE, faults={"8.8.8.8.bl.example": Fault.SERVFAIL}) as server:
        assert await blocklists(server, Blocklist("bl.example"), Blocklist("second.example")).listed("8.8.8.8") == ("second.example", "")
