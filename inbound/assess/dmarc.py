"""DMARC (RFC 9989): does the author's domain stand behind the message, and what does it ask for where it does not?

Pure, over answers that are known. The tree walk asks for all of its at most eight names at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from inbound.assess.answers import Answer, Answers, Outcome, domain_name
from inbound.assess.author import Author
from inbound.assess.dns import Budget, Resolver, settle
from inbound.assess.spf import SpfResult
from inbound.assess.verdicts import Status, Verdict

WALK_LIMIT = 8  # lookups of one tree walk (§4.10)
RECORD_LIMIT = 8_192  # octets of a record that are read

_STATUS = {
    "pass": Status.PASS,
    "fail": Status.FAIL,
    "none": Status.GRAY,
    "permerror": Status.GRAY,  # §4.10.1: no DMARC processing for a record without a usable policy
    "temperror": Status.PROCESSING_FAILED,
}
_POLICIES = ("none", "quarantine", "reject")  # the milder first
_LOWERED = {"reject": "quarantine", "quarantine": "none", "none": "none"}  # §4.7, t=y
_VERSION = re.compile(r"[vV][ \t]*+=[ \t]*+DMARC1[ \t]*+(?:;|\Z)")
_URI = re.compile(r"[ \t]*+[A-Za-z][A-Za-z0-9+.-]*+:[^\s,]")


class Identifier(NamedTuple):
    """A domain that SPF or DKIM judged: `method` is `SPF` or `DKIM`, `result` their word; only `pass` authenticates."""

    method: str
    domain: str
    result: str


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """What DMARC says of a message.

    `result` is the word of RFC 9989 §9.2, `domain` the author's in A-labels. `policy` is what applied to it, `t=y` and subdomains considered
    (§4.7), only when the result is fail; empty if nobody publishes one. `reason` tells people why.
    """

    result: str
    domain: str
    reason: str
    policy: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict SES gives for the result."""
        return Verdict(_STATUS[self.result], f"DMARC {self.result}: {self.reason}")


class Signature(Protocol):
    """What is asked of a DKIM signature that was judged."""

    @property
    def domain(self) -> str:
        """d=."""

    @property
    def result(self) -> str:
        """RFC 8601's word."""

    @property
    def body_length_limited(self) -> bool:
        """It has l=, so anybody may have added to the body."""


def identifiers(spf: SpfResult, signatures: Iterable[Signature]) -> tuple[Identifier, ...]:
    """What may authenticate the author: the SPF identity, and every signature that covers the whole body."""
    signed = (Identifier("DKIM", each.domain, str(each.result)) for each in signatures if not each.body_length_limited)
    return (Identifier("SPF", spf.domain, spf.result), *signed)


async def check(resolver: Resolver, author: Author, found: Sequence[Identifier], budget: Budget) -> DmarcResult:
    """Judge a message by its author and by what SPF and DKIM found. Never raises."""
    return await settle(resolver, budget, lambda answers: evaluate(answers, author, found))


def evaluate(answers: Answers, author: Author, found: Sequence[Identifier]) -> DmarcResult:
    """What `check` does, without I/O. Raises Need for what must be looked up."""
    if not author.domain:
        return _without_author(answers, author)
    try:
        return _judge(answers, author.domain, found)
    except _Trouble as trouble:
        return DmarcResult("temperror", author.domain, str(trouble))


def organizational_domain(answers: Answers, domain: str) -> str:
    """The Organizational Domain of a domain in A-labels (§4.10.2); itself where DNS fails. Raises Need."""
    try:
        return _organization(answers, domain)
    except _Trouble:
        return domain


class _Trouble(Exception):
    """DNS did not answer, so DMARC neither passes nor fails (§5.3.6)."""


class _Record(NamedTuple):
    """A DMARC Policy Record. Without a usable `p` it counts in tree walks only (§4.10.1)."""

    p: str
    sp: str
    np: str
    strict: frozenset[str]  # of SPF and DKIM
    psd: str
    testing: bool


# --- judging ---


def _judge(answers: Answers, author: str, found: Sequence[Identifier]) -> DmarcResult:
    published = _policy_record(answers, author)
    if published is None:
        return DmarcResult("none", author, f"{author} publishes no policy")
    place, record = published
    if not record.p:
        return DmarcResult("permerror", author, f"the record of {place} holds no valid policy")
    unknown = None
    for each in dict.fromkeys(found):
        domain = domain_name(each.domain)
        if not domain or each.result not in {"pass", "temperror"}:
            continue
        try:
            aligned = _aligned(answers, author, domain, strict=each.method in record.strict)
        except _Trouble as trouble:
            unknown = trouble
            continue
        if aligned and each.result == "pass":
            return DmarcResult("pass", author, f"{each.method} passes for {domain}, which aligns with {author}")
        if aligned:
            unknown = _Trouble(f"{each.method} for {domain} could not be judged")
    if unknown:
        raise unknown
    policy = _applied(answers, author, place, record)
    return DmarcResult("fail", author, f"neither SPF nor DKIM passes for {author}; the policy of {place} is {policy}", policy)


def _without_author(answers: Answers, author: Author) -> DmarcResult:
    """Fail, with the strictest policy of the domains that are named (§11.5): else two From fields would be a way around each one's."""
    policies = [policy for domain in author.named if (policy := _policy(answers, domain))]
    policy = max(policies, key=_POLICIES.index, default="")
    return DmarcResult("fail", author.named[0] if author.named else "", author.problem, policy)


def _policy(answers: Answers, domain: str) -> str:
    """The policy for mail of a domain that does not pass; empty if there is none, or it cannot be found out."""
    try:
        published = _policy_record(answers, domain)
    except _Trouble:
        return ""
    return _applied(answers, domain, *published) if published and published[1].p else ""


def _applied(answers: Answers, author: str, place: str, record: _Record) -> str:
    policy = record.p
    if author != place:
        policy = record.sp or record.p
        if record.np and record.np != policy:
            policy = _for_existence(answers(author, "A"), policy, record.np)
    return _LOWERED[policy] if record.testing else policy


def _for_existence(answer: Answer, exists: str, missing: str) -> str:
    """§3.2.13; the stricter of the two where DNS fails."""
    if answer.failed:
        return max(exists, missing, key=_POLICIES.index)
    return missing if answer.outcome is Outcome.NXDOMAIN else exists


def _aligned(answers: Answers, author: str, domain: str, *, strict: bool) -> bool:
    """§4.4, §4.10.2. An Organizational Domain is the domain itself or a parent, which spares the walks of strangers."""
    if domain == author or strict:
        return domain == author
    organization = _organization(answers, author)
    if domain != organization and not domain.endswith(f".{organization}"):
        return False
    return _organization(answers, domain) == organization


# --- the tree walk ---


def _policy_record(answers: Answers, author: str) -> tuple[str, _Record] | None:
    """Where the policy for an author is published, and its record (§4.10.1): his own, his organization's, or his public suffix's."""
    own = _record(answers(f"_dmarc.{author}", "TXT"))
    if own:
        return author, own
    records = _walk(answers, author)
    organization = _select(author, records)
    if organization in records:
        return organization, records[organization]
    return next(((place, record) for place, record in records.items() if record.psd == "y"), None)


def _organization(answers: Answers, domain: str) -> str:
    return _select(domain, _walk(answers, domain))


def _walk(answers: Answers, domain: str) -> dict[str, _Record]:
    """The records above a domain and its own, longest name first, up to one that tells whether it is a public suffix (§4.10)."""
    names = walk_names(domain)
    records = {}
    for name, answer in zip(names, answers.all([f"_dmarc.{name}" for name in names], "TXT"), strict=True):
        record = _record(answer)
        if record:
            records[name] = record
            if record.psd in {"y", "n"}:
                break
    return records


def walk_names(domain: str) -> list[str]:
    """The names of a tree walk: of a long one, those between its own and the last seven labels are left out."""
    labels = domain.split(".")
    shorter = labels[1:] if len(labels) < WALK_LIMIT else labels[1 - WALK_LIMIT :]
    return [domain, *(".".join(shorter[n:]) for n in range(len(shorter)))]


def _select(domain: str, records: dict[str, _Record]) -> str:
    """The Organizational Domain by what a walk found (§4.10.2)."""
    for place, record in records.items():
        if record.psd == "n":
            return place
        if record.psd == "y":  # the domain one label below, or itself where it is the public suffix
            return ".".join(domain.split(".")[-place.count(".") - 2 :])
    return list(records)[-1] if records else domain


# --- records ---


def _record(answer: Answer) -> _Record | None:
    """The one DMARC record among a name's TXT records; several are none (§4.10). Raises _Trouble."""
    if answer.failed:
        raise _Trouble(answer.reason)
    texts = [text[:RECORD_LIMIT].decode("latin-1") for text in answer.texts]
    found = [text for text in texts if _VERSION.match(text)]
    return _parsed(found[0]) if len(found) == 1 else None


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> _Record:
    """§4.8: what is unknown or no syntax is ignored, the first of duplicates counts; words are compared without case."""
    tags: dict[str, str] = {}
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    words = {name: value.lower() for name, value in tags.items()}
    p, sp, np = (words.get(name, "") for name in ("p", "sp", "np"))
    if p not in _POLICIES or any(policy and policy not in _POLICIES for policy in (sp, np)):
        wants_reports = any(_URI.match(uri) for uri in tags.get("rua", "").split(","))
        p, sp, np = "none" if wants_reports else "", "", ""
    strict = frozenset(method for method, name in (("SPF", "aspf"), ("DKIM", "adkim")) if words.get(name) == "s")
    return _Record(p, sp, np, strict=strict, psd=words.get("psd", "u"), testing=words.get("t") == "y")
