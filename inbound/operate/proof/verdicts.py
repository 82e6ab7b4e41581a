"""SES's verdicts against ours on the same message, and whose doing a difference is: the same inputs, but DNS is as of now.

Where both found the same result, only the status can differ, and that is ours. Where the results differ, DMARC is judged again with SES's
own SPF and DKIM results, so that one changed record does not count twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inbound.assess import dkim
from inbound.assess.assessor import Findings
from inbound.assess.authentication import Authentication
from inbound.assess.dkim import DkimResults
from inbound.assess.dkim.results import Result, Signature
from inbound.assess.dmarc import DmarcResult, Identifier
from inbound.assess.spf import SpfResult
from inbound.assess.verdicts import Assessment, Status
from inbound.operate.proof.difference import Tally, Whose
from inbound.operate.proof.stored import Stored

_DOMAIN = re.compile(r"domain of \S+")
_GONE = ("no key for signature", "key revoked")


@dataclass(frozen=True, slots=True)
class Judged:
    """Our verdicts on a message; `with_theirs` is DMARC as we judge it by SES's own results of SPF and DKIM."""

    assessment: Assessment
    findings: Findings
    with_theirs: DmarcResult


@dataclass(frozen=True, slots=True)
class Cause:
    """Whose doing a difference is, and why."""

    whose: Whose
    why: str


def their_identifiers(stored: Stored, said: Authentication) -> tuple[Identifier, ...]:
    """What SES's results would authenticate for DMARC."""
    sender = stored.envelope.reverse_path or stored.envelope.helo
    spf = (Identifier("SPF", sender.rpartition("@")[2], said.spf),) if said.spf else ()
    return (*spf, *(Identifier("DKIM", clause.domain, clause.result) for clause in said.dkim))


def compare_results(tally: Tally, stored: Stored, judged: Judged, *, lossy: bool) -> dict[str, Cause]:
    """Count the results in Authentication-Results; of those that differ, the cause by method."""
    theirs, ours = stored.authentication, judged.assessment.authentication
    if theirs is None or ours is None:
        return {}
    causes: dict[str, Cause] = {}
    if theirs.spf != ours.spf:
        causes["spf"] = _spf_cause(stored, theirs.spf, judged.findings.spf)
    if theirs.dkim != ours.dkim:
        causes["dkim"] = _dkim_cause(theirs, judged.findings.dkim.signatures, lossy=lossy)
    if theirs.dmarc != ours.dmarc:
        causes["dmarc"] = _dmarc_cause(theirs, judged, causes)
    for method in ("spf", "dkim", "dmarc"):
        cause = causes.get(method)
        tally.compare(f"Authentication-Results {method}", _shown(getattr(theirs, method)), _shown(getattr(ours, method)),
                      cause.why if cause else "", cause.whose if cause else Whose.OURS)
    if "spf" not in causes and theirs.spf:
        _compare_explanations(tally, theirs.explanation, ours.explanation)
    if "dmarc" not in causes and theirs.dmarc:
        tally.compare("Authentication-Results header.from", theirs.from_domain, ours.from_domain)
    return causes


def _compare_explanations(tally: Tally, theirs: str, ours: str) -> None:
    """Until some time in 2023 to 2025 SES named the domain whose record matched, an included one at times; since then the sender's, as we do."""
    if theirs != ours and _DOMAIN.sub("", theirs) == _DOMAIN.sub("", ours):
        tally.compare("Received-SPF explanation", theirs, ours, "in earlier years SES named the included domain that matched", Whose.DESIGN)
    else:
        tally.compare("Received-SPF explanation", theirs, ours, "another sentence for the same result")


def status_cause(name: str, status: str, stored: Stored, judged: Judged, causes: dict[str, Cause]) -> Cause:
    """Why the status of `spf`, `dkim` or `dmarc` differs from SES's `status`."""
    cause = causes.get(name)
    if cause is None:
        return Cause(Whose.OURS, "another status for the same result")
    if stored.authentication is not None and _status_of(name, stored.authentication, judged) != status:
        return Cause(Whose.OURS, "another status for the result that SES had")
    return cause


def _status_of(name: str, said: Authentication, judged: Judged) -> str:
    """The status that we give for SES's own result."""
    if name == "spf":
        return str(SpfResult(said.spf, "", "", "").verdict.status) if said.spf in _SPF_WORDS else ""
    if name == "dmarc":
        return str(DmarcResult(said.dmarc or "none", "", "").verdict.status) if said.dmarc in ("", "pass", "fail", "none") else ""
    signatures = [Signature(Result(clause.result), domain=clause.domain) for clause in said.dkim if clause.result in set(Result)]
    if len(signatures) == len(judged.findings.dkim.signatures):  # what the header does not tell of a signature, its d= above all, is as we read it
        signatures = [replace(known, result=each.result) for known, each in zip(judged.findings.dkim.signatures, signatures, strict=True)]
    return str(dkim.verdict(DkimResults(tuple(signatures)), judged.findings.author.domain).status)


_SPF_WORDS = frozenset({"pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"})


def _spf_cause(stored: Stored, theirs: str, ours: SpfResult | None) -> Cause:
    if ours is None or not ours.domain or not stored.envelope.reverse_path:
        return Cause(Whose.OURS, "SPF of a null reverse-path, or without a domain to ask")
    now = {
        "temperror": Cause(Whose.DNS, f"DNS did not answer for the SPF record of {ours.domain}"),
        "permerror": Cause(Whose.OURS, f"the SPF record of {ours.domain} is an error here: {ours.reason}"),
        "none": Cause(Whose.DNS, f"{ours.domain} publishes no SPF record now"),
    }
    if theirs in ("temperror", "permerror") and ours.result != "temperror":
        return Cause(Whose.DNS, f"SES could not use the SPF record of {ours.domain} then")
    return now.get(ours.result) or Cause(Whose.DNS, f"the SPF record of {ours.domain} gives this client another result now")


def _dkim_cause(theirs: Authentication, ours: Sequence[Signature], *, lossy: bool) -> Cause:
    if len(theirs.dkim) != len(ours):
        return Cause(Whose.OURS, "another number of signatures was judged")
    both = ((clause.result, signature) for clause, signature in zip(theirs.dkim, ours, strict=True))
    result, signature = next(((result, signature) for result, signature in both if result != str(signature.result)), ("", None))
    if signature is None:
        return Cause(Whose.OURS, "another identity of the same signature")
    name = f"{signature.selector}._domainkey.{signature.domain}"
    for holds, why in (
        (signature.result is Result.TEMPERROR, f"DNS did not answer for the key {name}"),
        (signature.reason.startswith(_GONE), f"the key {name} is gone from DNS"),
        (result in ("temperror", "permerror") and signature.result is Result.PASS, f"SES could not use the key {name} then"),
    ):
        if holds:
            return Cause(Whose.DNS, why)
    if lossy:
        return Cause(Whose.COPY, "SNS's UTF-8 encoding has replaced octets of the message")
    return Cause(Whose.OURS, f"DKIM {signature.result} here: {signature.reason or 'signed'}")


def _dmarc_cause(theirs: Authentication, judged: Judged, causes: dict[str, Cause]) -> Cause:
    ours = judged.findings.dmarc
    if ours.result == "temperror":
        return Cause(Whose.DNS, f"DNS did not answer for the DMARC record of {ours.domain}")
    if judged.with_theirs.result == (theirs.dmarc or "none") and causes:
        return next(iter(causes.values()))  # with SES's own results of SPF and DKIM we find the same
    if not theirs.dmarc and ours.result == "none":
        return Cause(Whose.DESIGN, "SES left dmarc=none out in earlier years; it is always written here")
    if ours.result == "none":
        return Cause(Whose.DNS, f"{ours.domain} publishes no DMARC record now")
    if theirs.dmarc in ("", "none"):
        return Cause(Whose.DNS, f"a DMARC record for {ours.domain} has been published since then")
    return Cause(Whose.OURS, f"DMARC {ours.result} here: {ours.reason}")


def _shown(value: object) -> object:
    if isinstance(value, tuple):
        return [f"{result} {domain}".strip() for result, domain in value]
    return value


def compare_scans(tally: Tally, name: str, theirs: str, ours: Status) -> None:
    """Count a verdict of a scanner: another scanner than SES's may well judge otherwise."""
    tally.compare(name, theirs, str(ours), "a scanner of yours judges otherwise than SES's", Whose.SCANNER)
