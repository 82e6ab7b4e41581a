"""All checks on one message: SPF and DKIM at once, DMARC after them, the scanners beside them; one verdict of each, whatever fails.

What DNS may cost one message is one budget (`dns.MESSAGE_SECONDS`, `dns.MESSAGE_LOOKUPS`); each scanner has its own time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from inbound.accept.envelope import Envelope
from inbound.accept.policy import LOOPBACK, is_in
from inbound.accept.spool import Content, SpoolError
from inbound.assess import dkim, dmarc, spf
from inbound.assess.answers import domain_name
from inbound.assess.authentication import Authentication, Clause
from inbound.assess.author import Author, author
from inbound.assess.dkim import DkimResults
from inbound.assess.dmarc import DmarcResult, Identifier
from inbound.assess.dns import Budget, Resolver, reverse_name, settle
from inbound.assess.message import beginning, header_block, parse_only
from inbound.assess.scanning import Scanner, ScannerBusy, ScannerDown, Unscanned
from inbound.assess.spf import SpfResult
from inbound.assess.spf_memory import SpfMemory
from inbound.assess.turns import turns
from inbound.assess.verdicts import SCANS, Assessment, Status, Verdict
from inbound.log import Event, Log

NOT_WANTED = Verdict(Status.DISABLED, "no rule that matches has ScanEnabled")
NO_CLIENT = Verdict(Status.GRAY, "not judged: no client address is known")
NO_SCANNER = Verdict(Status.GRAY, "no scanner is configured")

T = TypeVar("T")
Guard = Callable[[str], AbstractAsyncContextManager[None]]
"""Around one call to the scanner of that name. Raises ScannerDown or ScannerBusy instead of letting it through."""


def unguarded(_scanner: str) -> AbstractAsyncContextManager[None]:
    """Every call goes through."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Findings:
    """What SPF, DKIM and DMARC found in detail: for people who ask why. `spf` is None without a client to judge."""

    author: Author
    spf: SpfResult | None
    dkim: DkimResults
    dmarc: DmarcResult


class Assessor:
    """Forms the verdicts. `scanners` maps `spam` and `virus` to who judges them, `relaxed` is INBOUND_DKIM_VERDICT.

    A scanner that is down is PROCESSING_FAILED, or with `waits` a reason to wait for it.
    """

    def __init__(self, resolver: Resolver, log: Log, *, hostname: str, relaxed: bool = False, scanners: Mapping[str, Scanner] | None = None,
                 guard: Guard = unguarded, waits: bool = False) -> None:
        self._resolver = resolver
        self._log = log
        self._hostname = hostname
        self._relaxed = relaxed
        self._scanners = scanners or {}
        self._guard = guard
        self._waits = waits
        self._spf_memory = SpfMemory()

    async def __call__(self, envelope: Envelope, content: Content, *, scan: bool, earlier: Assessment | None = None) -> Assessment:
        """All verdicts. Raises Unscanned for a message that waits for a scanner, SpoolError for content that cannot be read, nothing else.

        Without `scan` those on spam and viruses are DISABLED. Of `earlier`, an assessment that lacks some scans, only these are made.
        """
        name = await self._client_name(envelope) if earlier is None else earlier.client_name
        envelope = replace(envelope, peer=replace(envelope.peer, reverse_name=name)) if name else envelope
        kinds = (SCANS if earlier is None else earlier.unscanned) if scan else ()
        if any(kind in self._scanners for kind in kinds):
            judged, scanned = await asyncio.gather(
                self._authenticated(envelope, content, earlier),
                asyncio.gather(*(self._scan(kind, envelope, content) for kind in kinds)),
            )
        else:
            judged, scanned = await self._authenticated(envelope, content, earlier), [NO_SCANNER] * len(kinds)
        return self._with_scans(judged, name, dict(zip(kinds, scanned, strict=True)))

    async def findings(self, envelope: Envelope, content: Content, budget: Budget | None = None) -> tuple[Assessment, Findings]:
        """SPF, DKIM and DMARC, and how they came about. Raises SpoolError.

        Without a client address SPF is not judged. What was not judged might have passed, so DMARC does not fail for it.
        """
        budget = budget or self._resolver.budget()
        head = beginning(content)
        sender = await turns().take(len(header_block(head)[0]), lambda: author(head, parse_only("from", head)))
        from_spf, from_dkim = await self._spf_and_dkim(envelope, content, head, budget)
        told_spf = _spf_trouble(envelope, from_spf) if isinstance(from_spf, Exception) else from_spf
        told_dkim = from_dkim if isinstance(from_dkim, DkimResults) else DkimResults()
        identifiers = dmarc.identifiers(told_spf or SpfResult("temperror", "", sender.domain, "mailfrom"), told_dkim.signatures)
        if isinstance(from_dkim, Exception):
            identifiers = (*identifiers, Identifier("DKIM", sender.domain, "temperror"))
        from_dmarc = await self._safely("dmarc", dmarc.check(self._resolver, sender, identifiers, budget))
        told_dmarc = from_dmarc if isinstance(from_dmarc, DmarcResult) else DmarcResult("temperror", sender.domain, "internal error")
        verdict = _failed(from_dkim) if isinstance(from_dkim, Exception) else await self._dkim_verdict(told_dkim, sender, budget)
        found = Findings(sender, told_spf, told_dkim, told_dmarc)
        return _assessment(found, verdict), found

    async def reverse_name(self, ip: str) -> str:
        """The name that DNS gives an address, if it also leads back to it; else empty. Never raises."""
        found = await self._safely("reverse name", reverse_name(self._resolver, ip))
        return found if isinstance(found, str) else ""

    async def close(self) -> None:
        """End lookups, give connections back."""
        await self._resolver.close()
        for scanner in self._scanners.values():
            await scanner.close()

    # --- parts ---

    async def _authenticated(self, envelope: Envelope, content: Content, earlier: Assessment | None) -> Assessment:
        if earlier is not None:
            return earlier
        assessment, _ = await self.findings(envelope, content)
        return assessment

    async def _spf_and_dkim(self, envelope: Envelope, content: Content, head: bytes, budget: Budget,
                            ) -> tuple[SpfResult | Exception | None, DkimResults | Exception]:
        """Both at once, where each has to wait for DNS: a task of its own costs as much as all of SPF where the answers are known."""
        if not dkim.is_signed(head):
            return await self._safely("spf", self._spf(envelope, budget)), DkimResults()
        return await asyncio.gather(self._safely("spf", self._spf(envelope, budget)), self._safely("dkim", self._dkim(envelope, content, budget)))

    async def _dkim(self, envelope: Envelope, content: Content, budget: Budget) -> DkimResults:
        return await dkim.check(content, lambda name: self._resolver.lookup(name, "TXT", budget), now=envelope.received_at)

    async def _spf(self, envelope: Envelope, budget: Budget) -> SpfResult | None:
        if not envelope.peer.address:
            return None
        return await spf.check(self._resolver, ip=envelope.peer.address, helo=envelope.helo, mail_from=envelope.reverse_path, budget=budget,
                               receiver=self._hostname, memory=self._spf_memory)

    async def _dkim_verdict(self, results: DkimResults, sender: Author, budget: Budget) -> Verdict:
        """SES's dkimVerdict, by spec §10 row 13."""
        if not self._relaxed:
            return dkim.verdict(results, sender.domain)
        domains = {each.domain for each in results.signatures if each.domain} | ({sender.domain} if sender.domain else set())
        organizations = await settle(
            self._resolver, budget, lambda answers: {domain: dmarc.organizational_domain(answers, domain) for domain in sorted(domains)})
        return dkim.verdict(results, sender.domain, relaxed=True, organizational_domain=lambda domain: organizations.get(domain, domain))

    async def _client_name(self, envelope: Envelope) -> str:
        """The client's name by DNS; a client on this machine has none."""
        peer = envelope.peer
        if peer.reverse_name or not peer.address or is_in(peer.address, LOOPBACK):
            return peer.reverse_name
        return await self.reverse_name(peer.address)

    async def _scan(self, kind: str, envelope: Envelope, content: Content) -> Verdict | ScannerDown | ScannerBusy:
        scanner = self._scanners.get(kind)
        if scanner is None:
            return NO_SCANNER
        try:
            async with self._guard(scanner.name):
                found = await self._safely(scanner.name, scanner.scan(envelope, content), but=(ScannerDown,))
        except (ScannerDown, ScannerBusy) as error:
            return error
        return found if isinstance(found, Verdict) else _failed(found)

    def _with_scans(self, judged: Assessment, client_name: str, scanned: Mapping[str, Verdict | ScannerDown | ScannerBusy]) -> Assessment:
        troubles = {kind: found for kind, found in scanned.items() if not isinstance(found, Verdict)}
        verdicts = {kind: found if isinstance(found, Verdict) else Verdict(Status.PROCESSING_FAILED, f"{self._scanners[kind].name}: {found}")
                    for kind, found in scanned.items()}
        awaited = [kind for kind, trouble in troubles.items() if self._waits or isinstance(trouble, ScannerBusy)]
        whole = judged.with_scans(verdicts.get("spam", judged.spam), verdicts.get("virus", judged.virus), unscanned=tuple(awaited),
                                  client_name=client_name)
        if awaited:
            raise Unscanned(whole, self._scanners[awaited[0]].name, troubles[awaited[0]])
        return whole

    async def _safely(self, check: str, work: Awaitable[T], *, but: tuple[type[Exception], ...] = ()) -> T | Exception:
        """The outcome of a check, or what it raised, which is a fault of ours: logged, and no reason to stop."""
        try:
            return await work
        except Exception as error:
            if isinstance(error, (SpoolError, *but)):
                raise
            self._log.exception(Event.CHECK_FAILED, check=check, error=repr(error))
            return error


def _assessment(found: Findings, dkim_verdict: Verdict) -> Assessment:
    said = Authentication(
        spf=found.spf.result if found.spf else "", explanation=found.spf.explanation if found.spf else "",
        dkim=tuple(Clause(str(each.result), each.identity.rpartition("@")[2] or each.domain) for each in found.dkim.signatures),
        dmarc=found.dmarc.result, from_domain=found.dmarc.domain,
    )
    return Assessment(
        spf=found.spf.verdict if found.spf else NO_CLIENT, dkim=dkim_verdict, dmarc=found.dmarc.verdict, spam=NOT_WANTED, virus=NOT_WANTED,
        dmarc_policy=found.dmarc.policy, authentication=said,
    )


def _spf_trouble(envelope: Envelope, error: Exception) -> SpfResult:
    domain = domain_name((envelope.reverse_path or envelope.helo).rpartition("@")[2])
    return SpfResult("temperror", "Error in processing SPF Record", domain, "mailfrom" if envelope.reverse_path else "helo",
                     reason=f"internal error: {type(error).__name__}")


def _failed(error: Exception) -> Verdict:
    return Verdict(Status.PROCESSING_FAILED, f"internal error: {type(error).__name__}")
