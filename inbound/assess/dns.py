"""DNS for the checks: one caching resolver a process. Failure is an answer like any other, bounded in time, and never an exception.

RFC 1035; RFC 2308 (what does not exist is remembered too) and RFC 9520 (and so, shortly, is what failed).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.resolver

from inbound.assess.answers import Answer, Answers, Need, Outcome, Question, is_host_name, question

MESSAGE_SECONDS = 20.0  # RFC 7208 §4.6.4 lets no SPF check take longer; here DKIM and DMARC share it
MESSAGE_LOOKUPS = 256  # more than the costliest legal SPF record (10 terms of 10 hosts), ten signatures and their tree walks need
REVERSE_SECONDS = 2.5  # the client waits for its greeting meanwhile
REVERSE_NAMES = 5  # a legitimate address has one name, rarely two

_TRY = 0.4  # of a lookup's time; then the datagram counts as lost and another is sent, to the next server if there is one
_PAYLOAD = 1232  # fits every path without fragments; a longer answer comes over TCP
_TTL = (5.0, 3600.0)
_NEGATIVE_TTL = (5.0, 300.0)
_FAILURE_TTL = 10.0
_ENTRY_OCTETS = 400  # what a cache entry weighs besides its records
_RESOLV_CONF = Path("/etc/resolv.conf")

T = TypeVar("T")


class Budget:
    """What all lookups of one message may cost: `seconds` from now on by `clock`, and `lookups` that no cache answers."""

    def __init__(self, seconds: float, lookups: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._lookups = lookups

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - self._clock())

    def take(self) -> str:
        """Take one lookup; why not, if there is none left."""
        if not self.remaining:
            return "the time for this message's DNS lookups is used up"
        if not self._lookups:
            return "this message needs too many DNS lookups"
        self._lookups -= 1
        return ""


class Resolver:
    """Asks `servers` (IP address and port each; None: those of /etc/resolv.conf, read again when it changes).

    A lookup ends after `timeout` seconds. Lookups of the same thing are one; at most `concurrency` run at a time; `cache_octets` bounds
    what is remembered. Raises ValueError for a server that is no IP address.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] | None = None,
        *,
        timeout: float = 5.0,
        concurrency: int = 256,
        cache_octets: int = 16 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        resolv_conf: Path = _RESOLV_CONF,
    ) -> None:
        self._timeout = timeout
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._cache = _Cache(cache_octets)
        self._pending: dict[Question, asyncio.Task[Answer]] = {}
        self._stub = dns.asyncresolver.Resolver(configure=False)
        self._stub.use_edns(0, 0, _PAYLOAD)
        self._stub.timeout = timeout * _TRY
        self._resolv_conf = None if servers is not None else resolv_conf
        self._read_at: int | None = None
        self._servers: list[dns.nameserver.Nameserver] = []
        self._use(servers or ())

    def budget(self, seconds: float = MESSAGE_SECONDS, lookups: int = MESSAGE_LOOKUPS) -> Budget:
        """A budget that starts now."""
        return Budget(seconds, lookups, self._clock)

    async def lookup(self, name: str, rdtype: str, budget: Budget | None = None) -> Answer:
        """The records of a name, aliases followed; never raises. What the budget does not pay for is `Outcome.TIMEOUT`."""
        asked = question(name, rdtype)
        known = self.recall(asked)
        if known:
            return known
        refused = budget.take() if budget else ""
        if refused:
            return Answer(Outcome.TIMEOUT, reason=refused)
        task = self._task(asked)
        done, _ = await asyncio.wait((task,), timeout=budget.remaining if budget else None)
        if not done:
            return Answer(Outcome.TIMEOUT, reason=f"{asked.name} {rdtype}: no answer in the time left for this message")
        return Answer(Outcome.UNREACHABLE, reason="the resolver is closed") if task.cancelled() else task.result()

    def recall(self, asked: Question) -> Answer | None:
        """The answer, if it is remembered."""
        return self._cache.get(asked, self._clock())

    async def close(self) -> None:
        """End the lookups under way."""
        tasks = list(self._pending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, asked: Question) -> asyncio.Task[Answer]:
        task = self._pending.get(asked)
        if task is None:
            task = self._pending[asked] = asyncio.create_task(self._resolve(asked))
            task.add_done_callback(lambda _: self._pending.pop(asked))
        return task

    async def _resolve(self, asked: Question) -> Answer:
        name = _absolute(asked.name)
        if name is None:
            return Answer(Outcome.NXDOMAIN, reason=f"{asked.name!r} is no domain name")
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            return Answer(Outcome.TIMEOUT, reason=f"{asked.name} {asked.rdtype}: too many lookups wait for an answer")
        try:
            answer, ttl = await self._ask(name, asked)
        finally:
            self._slots.release()
        self._cache.put(asked, answer, self._clock() + ttl)
        return answer

    async def _ask(self, name: dns.name.Name, asked: Question) -> tuple[Answer, float]:
        """The answer, and for how many seconds it holds."""
        self._reread()
        try:
            found = await self._stub.resolve(name, asked.rdtype, raise_on_no_answer=False, search=False, lifetime=self._timeout)
            ttl = float(found.response.resolve_chaining().minimum_ttl)
            if found.rrset is None:
                return Answer(Outcome.NO_DATA, reason=f"{asked.name} has no {asked.rdtype} record"), _within(_NEGATIVE_TTL, ttl)
            return _records(found.rrset, asked.rdtype), _within(_TTL, ttl)
        except dns.resolver.NXDOMAIN as error:
            ttl = float(error.kwargs["responses"][name].resolve_chaining().minimum_ttl)
            return Answer(Outcome.NXDOMAIN, reason=f"{asked.name} does not exist"), _within(_NEGATIVE_TTL, ttl)
        except Exception as error:  # whatever a server sends, and whatever the system says: nothing was learned
            outcome, why = _failure(error)
            return Answer(outcome, reason=f"{asked.name} {asked.rdtype}: {why or outcome}"), _FAILURE_TTL

    # --- servers ---

    def _use(self, servers: Sequence[tuple[str, int]]) -> None:
        self._servers = [_Server(str(ipaddress.ip_address(host)), port, self._demote) for host, port in servers]
        self._stub.nameservers = self._servers

    def _demote(self, server: dns.nameserver.Nameserver) -> None:
        """Ask a server that did not answer last, so that a dead one delays a lookup once and not each."""
        if len(self._servers) > 1 and self._servers[0] is server:
            self._servers = [*self._servers[1:], server]
            self._stub.nameservers = self._servers

    def _reread(self) -> None:
        if self._resolv_conf is None:
            return
        try:
            changed_at = self._resolv_conf.stat().st_mtime_ns
        except OSError:
            return
        if changed_at == self._read_at:
            return
        self._read_at = changed_at
        reader = dns.resolver.Resolver(configure=False)
        try:
            reader.read_resolv_conf(self._resolv_conf)
            self._use([(str(host), 53) for host in reader.nameservers])
        except (dns.exception.DNSException, ValueError, OSError):
            self._use(())


async def settle(resolver: Resolver, budget: Budget, check: Callable[[Answers], T]) -> T:
    """The result of a pure check, which is run again as long as it lacks an answer."""
    answers = Answers(recall=resolver.recall)
    while True:
        try:
            return check(answers)
        except Need as need:
            found = await together([resolver.lookup(each.name, each.rdtype, budget) for each in need.questions])
            for asked, answer in zip(need.questions, found, strict=True):
                answers.learn(asked, answer)


async def together(lookups: Sequence[Awaitable[Answer]]) -> Sequence[Answer]:
    """All answers, in order; one alone without a task of its own."""
    return [await lookups[0]] if len(lookups) == 1 else await asyncio.gather(*lookups)


async def reverse_name(resolver: Resolver, ip: str, budget: Budget | None = None) -> str:
    """The name of a client's address (PTR) that also leads back to it (A, AAAA); empty if there is none, or none in `REVERSE_SECONDS`."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    budget = budget or resolver.budget(REVERSE_SECONDS, 1 + REVERSE_NAMES)
    pointers = await resolver.lookup(address.reverse_pointer, "PTR", budget)
    names = [name for name in pointers.values if is_host_name(name)][:REVERSE_NAMES]
    rdtype = "A" if address.version == 4 else "AAAA"
    forward = await asyncio.gather(*(resolver.lookup(name, rdtype, budget) for name in names))
    for name, answer in zip(names, forward, strict=True):
        if any(ipaddress.ip_address(value) == address for value in answer.values):
            return name
    return ""


class _Server(dns.nameserver.Do53Nameserver):
    """A server that tells when it did not answer."""

    def __init__(self, address: str, port: int, silent: Callable[[dns.nameserver.Nameserver], None]) -> None:
        super().__init__(address, port)
        self._silent = silent

    async def async_query(self, *args: Any, **kwargs: Any) -> dns.message.Message:
        try:
            return await super().async_query(*args, **kwargs)
        except dns.exception.Timeout:
            self._silent(self)
            raise


class _Cache:
    """The answers used last, at most `octets` of them."""

    def __init__(self, octets: int) -> None:
        self._free = octets
        self._entries: OrderedDict[Question, tuple[float, int, Answer]] = OrderedDict()

    def get(self, asked: Question, now: float) -> Answer | None:
        entry = self._entries.get(asked)
        if entry is None:
            return None
        if entry[0] <= now:
            self._drop(asked)
            return None
        self._entries.move_to_end(asked)
        return entry[2]

    def put(self, asked: Question, answer: Answer, until: float) -> None:
        self._drop(asked)
        weight = _ENTRY_OCTETS + len(asked.name) + sum(map(len, answer.texts)) + sum(map(len, answer.values))
        self._entries[asked] = (until, weight, answer)
        self._free -= weight
        while self._free < 0 and self._entries:
            self._drop(next(iter(self._entries)))

    def _drop(self, asked: Question) -> None:
        entry = self._entries.pop(asked, None)
        if entry:
            self._free += entry[1]


def _absolute(name: str) -> dns.name.Name | None:
    """The name as it is asked for; a label may hold any octet, as SPF's macros allow. None for what DNS cannot hold (RFC 1035 §2.3.4)."""
    try:
        return dns.name.Name([*(label.encode("utf-8", "surrogateescape") for label in name.split(".")), b""])
    except (dns.exception.DNSException, ValueError):
        return None


def _records(rrset: Any, rdtype: str) -> Answer:
    if rdtype == "TXT":
        return Answer(Outcome.FOUND, texts=tuple(b"".join(record.strings) for record in rrset))
    if rdtype == "MX":
        ranked = sorted((record.preference, record.exchange.to_text(omit_final_dot=True)) for record in rrset)
        return Answer(Outcome.FOUND, values=tuple(name.removesuffix(".") for _, name in ranked))
    if rdtype == "PTR":
        return Answer(Outcome.FOUND, values=tuple(record.target.to_text(omit_final_dot=True) for record in rrset))
    return Answer(Outcome.FOUND, values=tuple(record.address for record in rrset))


def _failure(error: Exception) -> tuple[Outcome, str]:
    """Which trouble it was, by the last one that a server had, and in words for people."""
    tries: list[tuple[Any, ...]] = getattr(error, "kwargs", {}).get("errors") or []
    if any(isinstance(each[3], dns.message.Truncated) for each in tries):
        return Outcome.TRUNCATED, ""
    if isinstance(error, dns.exception.Timeout):
        return Outcome.TIMEOUT, ""
    if isinstance(error, dns.resolver.NoNameservers) and not tries:
        return Outcome.UNREACHABLE, "no DNS server is configured"
    last = tries[-1][3] if tries else error
    if isinstance(last, str):
        return Outcome.SERVFAIL, f"the server answers {last}"
    if isinstance(last, OSError):
        return Outcome.UNREACHABLE, str(last)
    return Outcome.MALFORMED, ""


def _within(bounds: tuple[float, float], seconds: float) -> float:
    return min(max(bounds[0], seconds), bounds[1])
