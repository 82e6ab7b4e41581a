"""DNS blocklists (RFC 5782): is the client's address listed? The answers that count are chosen as in Postfix's reject_rbl_client.

An outage is no listing: a list that does not answer lets everybody in, and is told of in the log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from inbound.assess.dns import Resolver
from inbound.log import Event, Log

SECONDS = 5.0  # for all lists together
QUIET = 600.0  # seconds between two lines about one list that does not answer
REASON = 200  # characters of what a list says


@dataclass(frozen=True)
class Blocklist:
    """A list by its zone. `answers` are those that mean `listed`: an address whose parts may be `[2;4..8]`; empty: any of 127.0.0.0/8
    outside 127.255.255.0/24, with which lists say that they do not answer this resolver (RFC 5782 §2.1).
    """

    zone: str
    answers: str = ""

    def means_listed(self, address: str) -> bool:
        """Does this A record say that the client is listed?"""
        try:
            octets = ipaddress.IPv4Address(address).packed
        except ValueError:
            return False
        if not self.answers:
            return octets[0] == 127 and octets[:3] != b"\x7f\xff\xff"
        return all(octet in allowed for octet, allowed in zip(octets, self._allowed, strict=True))

    @cached_property
    def _allowed(self) -> list[set[int]]:
        return [_numbers(part) for part in re.findall(r"\[[^]]*\]|[0-9]+", self.answers)]


def _numbers(part: str) -> set[int]:
    found: set[int] = set()
    for each in part.strip("[]").split(";"):
        first, _, last = each.partition("..")
        found |= set(range(int(first), int(last or first) + 1))
    return found


class Blocklists:
    """The lists that clients are looked for in. `clock` is any steady clock, in seconds."""

    def __init__(self, lists: Sequence[Blocklist], resolver: Resolver, log: Log, *, clock: Callable[[], float]) -> None:
        self._lists = lists
        self._resolver = resolver
        self._log = log
        self._clock = clock
        self._told: dict[str, float] = {}

    async def listed(self, client: str) -> tuple[str, str] | None:
        """The zone that lists this address, and why in the list's own words (printable US-ASCII); None if none does. Never raises.

        The first in the order of the lists. Addresses that are not global are in no list, and are not asked about.
        """
        address = ipaddress.ip_address(client)
        if not address.is_global:
            return None
        reverse = address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        budget = self._resolver.budget(SECONDS, 2 * len(self._lists))
        found = await asyncio.gather(*(self._resolver.lookup(f"{reverse}.{each.zone}", "A", budget) for each in self._lists))
        for blocklist, answer in zip(self._lists, found, strict=True):
            if answer.failed:
                self._silent(blocklist.zone, answer.reason)
            elif any(map(blocklist.means_listed, answer.values)):
                said = await self._resolver.lookup(f"{reverse}.{blocklist.zone}", "TXT", budget)
                return blocklist.zone, _printable(said.texts[0]) if said.texts else ""
        return None

    async def close(self) -> None:
        """End the lookups under way."""
        await self._resolver.close()

    def _silent(self, zone: str, reason: str) -> None:
        if self._clock() - self._told.get(zone, -QUIET) >= QUIET:
            self._told[zone] = self._clock()
            self._log.warning(Event.CHECK_FAILED, check="dnsbl", zone=zone, error=reason)


def _printable(text: bytes) -> str:
    return "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in text[:REASON])
