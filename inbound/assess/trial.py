"""What stands in for the world in `inbound dev`, so that rules can be tried: scanners that know the two standard test strings, a DNS zone
for the sender of `inbound send`, and verdicts that it orders for a message. `inbound serve` has none of it.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess.answers import Answer, Outcome, question
from inbound.assess.assessor import Assessor
from inbound.assess.authentication import Authentication, Clause
from inbound.assess.dns import MESSAGE_LOOKUPS, Budget, Resolver
from inbound.assess.scanning import pieces
from inbound.assess.verdicts import VERDICTS, Assessment, Status, Verdict

# in two halves, so that no scanner takes this file for what it looks for
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-" + b"ANTI-UBE-TEST-EMAIL*C.34X"

SENDER_DOMAIN = "example.net"  # reserved by RFC 2606, and the domain of the default sender of `inbound send`
ZONE = {
    SENDER_DOMAIN: "v=spf1 ip4:127.0.0.0/8 ip6:::1 -all",
    f"_dmarc.{SENDER_DOMAIN}": "v=DMARC1; p=reject",
}
ORDERED = Status.PASS, Status.FAIL, Status.GRAY, Status.PROCESSING_FAILED
"""The statuses that can be ordered for a message."""

_LOOKED_AT = 4 * 1024 * 1024  # octets of a message
_BASE64 = re.compile(rb"(?=[A-Za-z0-9+/]{20})(?:[A-Za-z0-9+/]++\r?\n)*+[A-Za-z0-9+/]*+")
_KEPT = 1000  # orders and records that nobody used
_LOOKUP_SECONDS = 1.0
_MESSAGE_SECONDS = 3.0
_WORDS = {Status.PASS: "pass", Status.FAIL: "fail", Status.GRAY: "none", Status.PROCESSING_FAILED: "temperror"}
_WHY = "ordered by inbound send --verdict"


class KnownString:
    """Knows one string, in the message as it is and in what is base64 in it."""

    def __init__(self, name: str, sought: bytes, found: str) -> None:
        self.name = name
        self._sought = sought
        self._found = found

    async def scan(self, _envelope: Envelope, content: Content) -> Verdict:
        """FAIL if the string is there, else PASS."""
        octets = content.head(_LOOKED_AT)
        if self._sought in octets or any(self._sought in _decoded(run[0]) for run in _BASE64.finditer(octets)):
            return Verdict(Status.FAIL, self._found)
        return Verdict(Status.PASS, f"no scanner is configured; this one knows only the test string {self._found}")

    async def close(self) -> None:
        """Nothing to give back."""


def _decoded(run: bytes) -> bytes:
    letters = run.replace(b"\r", b"").replace(b"\n", b"")
    letters = letters[:-1] if len(letters) % 4 == 1 else letters
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


class Trial:
    """The verdicts and DNS records that were ordered so far, and who looks at them."""

    def __init__(self) -> None:
        self._orders: OrderedDict[str, Mapping[str, Status]] = OrderedDict()
        self._records: OrderedDict[str, str] = OrderedDict()
        self.scanners = {"spam": KnownString("spam test string", GTUBE, "GTUBE"),
                         "virus": KnownString("virus test string", EICAR, "Eicar-Test-Signature")}

    def order(self, sha256: str, verdicts: Mapping[str, Status], records: Mapping[str, str]) -> None:
        """These `verdicts` for the message whose content has this SHA-256 (hex), and TXT `records` that the resolver knows from now on.

        Raises ValueError for a verdict or status that there is not.
        """
        for name, status in verdicts.items():
            if name not in VERDICTS or status not in ORDERED:
                raise ValueError(f"{name}={status}: the verdicts are {', '.join(VERDICTS)}, each {', '.join(ORDERED)}")
        if verdicts:
            self._orders[sha256.lower()] = dict(verdicts)
        self._records.update((question(name, "TXT").name, text) for name, text in records.items())
        for kept in (self._orders, self._records):
            while len(kept) > _KEPT:
                kept.popitem(last=False)

    def resolver(self, servers: Sequence[tuple[str, int]] | None) -> Resolver:
        """A resolver that knows the zone and the ordered records, and asks `servers` for all else, without much patience."""
        return _TrialResolver(self, servers)

    def answer(self, name: str, rdtype: str) -> Answer | None:
        """What is known here; None for a name that DNS is to be asked for."""
        text = ZONE.get(name) or self._records.get(name)
        if text is not None and rdtype == "TXT":
            return Answer(Outcome.FOUND, texts=(text.encode(),))
        if text is not None:
            return Answer(Outcome.NO_DATA, reason=f"{name} has no {rdtype} record")
        if name == SENDER_DOMAIN or name.endswith(f".{SENDER_DOMAIN}"):
            return Answer(Outcome.NXDOMAIN, reason=f"{name} does not exist")
        return None

    def assessor(self, assessor: Assessor) -> OrderedVerdicts:
        """The assessor, overruled where verdicts were ordered."""
        return OrderedVerdicts(assessor, self)

    async def ordered(self, content: Content) -> Mapping[str, Status]:
        """The verdicts ordered for this content."""
        if not self._orders:
            return {}
        sha256 = hashlib.sha256()
        async for piece in pieces(content):
            sha256.update(piece)
        return self._orders.get(sha256.hexdigest(), {})


class OrderedVerdicts:
    """An assessor whose verdicts give way to those that were ordered for a message."""

    def __init__(self, assessor: Assessor, trial: Trial) -> None:
        self._assessor = assessor
        self._trial = trial

    async def __call__(self, envelope: Envelope, content: Content, *, scan: bool, earlier: Assessment | None = None) -> Assessment:
        """As the assessor; a verdict on spam or viruses is ordered in vain where no rule scans."""
        found = await self._assessor(envelope, content, scan=scan, earlier=earlier)
        return overruled(found, await self._trial.ordered(content))


def overruled(found: Assessment, ordered: Mapping[str, Status], why: str = _WHY) -> Assessment:
    """The assessment with the ordered verdicts, for the reason `why`, and with header fields that agree with them."""
    effective = {name: status for name, status in ordered.items() if getattr(found, name).status is not Status.DISABLED}
    if not effective:
        return found
    verdicts = {name: Verdict(status, why) for name, status in effective.items()}
    policy = found.dmarc_policy
    if "dmarc" in effective:
        policy = (policy or "reject") if effective["dmarc"] is Status.FAIL else ""
    said = _said(found.authentication or Authentication(), effective, why)
    return replace(found, dmarc_policy=policy, authentication=said, **verdicts)  # type: ignore[arg-type]  # each name is a verdict's


def _said(said: Authentication, ordered: Mapping[str, Status], why: str) -> Authentication:
    if "spf" in ordered:
        said = replace(said, spf=_WORDS[ordered["spf"]], explanation=why)
    if "dkim" in ordered:
        clauses = () if ordered["dkim"] is Status.GRAY else (Clause(_WORDS[ordered["dkim"]], said.from_domain),)
        said = replace(said, dkim=clauses)
    if "dmarc" in ordered:
        said = replace(said, dmarc=_WORDS[ordered["dmarc"]])
    return said


class _TrialResolver(Resolver):
    def __init__(self, trial: Trial, servers: Sequence[tuple[str, int]] | None) -> None:
        super().__init__(servers, timeout=_LOOKUP_SECONDS)
        self._trial = trial

    def budget(self, seconds: float = _MESSAGE_SECONDS, lookups: int = MESSAGE_LOOKUPS) -> Budget:
        return super().budget(min(seconds, _MESSAGE_SECONDS), lookups)

    async def lookup(self, name: str, rdtype: str, budget: Budget | None = None) -> Answer:
        return self._trial.answer(question(name, rdtype).name, rdtype) or await super().lookup(name, rdtype, budget)
