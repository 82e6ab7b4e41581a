"""One message of SES judged anew and compared: our verdicts now, our header fields, our JSON, our rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inbound.assess import dmarc
from inbound.assess.assessor import Assessor
from inbound.assess.dns import Resolver
from inbound.assess.rendering import BytesContent
from inbound.assess.verdicts import SCANS, Assessment
from inbound.decide.rules import RuleSet
from inbound.operate.proof.difference import Tally, Whose
from inbound.operate.proof.forms import compare_fields, compare_json, compare_octets
from inbound.operate.proof.routes import compare_key, compare_told
from inbound.operate.proof.stored import Stored
from inbound.operate.proof.told import Told
from inbound.operate.proof.verdicts import Judged, compare_results, compare_scans, status_cause, their_identifiers


@dataclass(frozen=True, slots=True)
class Case:
    """A message that SES stored or sent along, and what else it told of it. `where` names it for people.

    `key` is its object key, or as much of it as is known; empty where the message came in JSON.
    """

    where: str
    stored: Stored
    told: Sequence[Told]
    key: str = ""


class Judge:
    """Judges cases. `scanners` names those that are configured; `rules`, where given, are held against what SES did."""

    def __init__(self, assessor: Assessor, resolver: Resolver, *, scanners: Sequence[str], rules: RuleSet | None) -> None:
        self._assessor = assessor
        self._resolver = resolver
        self._scanners = scanners
        self._rules = rules

    async def __call__(self, case: Case) -> Tally:
        """Every field that can be compared."""
        tally = Tally()
        stored = case.stored
        judged = await self._judged(stored)
        lossy = any(told.lossy for told in case.told)
        causes = compare_results(tally, stored, judged, lossy=lossy)
        same = compare_fields(tally, stored)
        if same and not lossy and case.key:
            compare_octets(tally, stored)
        if not case.told:
            self._compare_scans(tally, {"spam": stored.spam, "virus": stored.virus}, judged.assessment)
        for told in case.told:
            found = compare_json(tally, told, stored, judged.assessment)
            self._compare_scans(tally, {name: str(found.pop(name, ("", ""))[0] or "") for name in SCANS}, judged.assessment)
            policies = found.pop("dmarcPolicy", None)
            for name, (theirs, ours) in found.items():
                cause = status_cause(name, str(theirs), stored, judged, causes)
                tally.compare(f"receipt.{name}Verdict", theirs, ours, cause.why, cause.whose)
            if policies is not None and "dmarc" not in causes:
                tally.compare("receipt.dmarcPolicy", *policies, "the DMARC record asks for something else now", Whose.DNS)
            if self._rules is not None:
                compare_told(tally, self._rules, told)
        if self._rules is not None and case.key and stored.envelope.forward_paths:
            compare_key(tally, self._rules, stored, case.key)
        return tally

    async def _judged(self, stored: Stored) -> Judged:
        content = BytesContent(stored.content)
        assessment, findings = await self._assessor.findings(stored.envelope, content)
        scan = bool(stored.spam or stored.virus) and bool(self._scanners)
        if scan:
            assessment = await self._assessor(stored.envelope, content, scan=True, earlier=replace(assessment, unscanned=SCANS))
        identifiers = their_identifiers(stored, stored.authentication) if stored.authentication else ()
        with_theirs = await dmarc.check(self._resolver, findings.author, identifiers, self._resolver.budget())
        return Judged(assessment, findings, with_theirs)

    def _compare_scans(self, tally: Tally, theirs: dict[str, str], ours: Assessment) -> None:
        for name in self._scanners:
            if theirs.get(name) and theirs[name] != "DISABLED":
                compare_scans(tally, f"{name} verdict", theirs[name], ours.verdicts()[name].status)

    async def close(self) -> None:
        """End lookups, give connections back."""
        await asyncio.gather(self._assessor.close(), self._resolver.close())
