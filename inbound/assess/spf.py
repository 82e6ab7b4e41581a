"""SPF (RFC 7208): may this client send for this domain? pyspf judges; the lookups are ours, so that none blocks.

pyspf runs over what is known (`answers.Answers`) and runs again when more is. Nothing of it is patched: what asks DNS, and what would take
long on a hostile record, is overridden.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import urllib.parse
import warnings
from dataclasses import dataclass
from typing import Any

from inbound.accept.policy import parsed
from inbound.assess.answers import Answer, Answers, Need, Question, domain_name
from inbound.assess.dns import Budget, Resolver, settle
from inbound.assess.spf_memory import Asked, SpfMemory
from inbound.assess.verdicts import Status, Verdict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its regular expressions are no raw strings, of which Python warns when it compiles them
    import spf  # type: ignore[import-untyped]  # pyspf has no types

RECORD_LIMIT = 4_096  # octets; RFC 7208 §3.4 asks for less than 512
RECORDS_LIMIT = 16_384  # octets of all records of one check

_EXPLANATION_LIMIT = 512
_STATUS = {
    "pass": Status.PASS,
    "fail": Status.FAIL,
    "softfail": Status.GRAY,
    "neutral": Status.GRAY,
    "none": Status.GRAY,
    "temperror": Status.PROCESSING_FAILED,
    "permerror": Status.PROCESSING_FAILED,
}
_EXPLANATION = {  # word for word SES's
    "pass": "domain of {domain} designates {ip} as permitted sender",
    "fail": "domain of {domain} does not designate {ip} as permitted sender",
    "softfail": "transitioning domain of {domain} does not designate {ip} as permitted sender",
    "neutral": "{ip} is neither permitted nor denied by domain of {domain}",
    "none": "{ip} is neither permitted nor denied by domain of {domain}",
    "temperror": "Error in retrieving data from DNS",
    "permerror": "Error in processing SPF Record",
}
_PRINTABLE = re.compile(r"[!-~]*+")
_MACRO = re.compile(r"%(?:([%_-])|\{([A-Za-z])([0-9]*+)([Rr]?)([.+,/_=-]*+)\})")  # RFC 7208 §7.1
_ENDS_IN_MACRO = re.compile(r"%(?:[%_-]|\{[^{}]*\})\Z")
_TOP_LABEL = re.compile(r"(?![0-9]++\Z)[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_UNPRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class SpfResult:
    """What SPF says of a client and a domain.

    `result` is RFC 7208's word (§2.6), `explanation` SES's text for it, free of whatever could end a comment of a header field. `domain` is
    the domain judged, in A-labels, and the one that DMARC may align when `result` is pass; empty if there is none to judge. `identity` is
    `mailfrom` or `helo` (§2.3, §2.4). `reason` tells people why; `domain_explanation` is what a domain that says fail says of it (§6.2), in
    printable ASCII.
    """

    result: str
    explanation: str
    domain: str
    identity: str
    reason: str = ""
    domain_explanation: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict SES gives for the result."""
        return Verdict(_STATUS[self.result], f"SPF {self.result}: {self.reason or self.explanation}")


async def check(resolver: Resolver, *, ip: str, helo: str, mail_from: str, budget: Budget, receiver: str = "",
                memory: SpfMemory | None = None) -> SpfResult:
    """Judge MAIL FROM, or postmaster at HELO for the null reverse-path (RFC 7208 §2.4). Never raises.

    `receiver` is our own name, which a domain may use in its explanation; `memory` spares the evaluation of what was evaluated before.
    """

    def judged(answers: Answers) -> SpfResult:
        return evaluate(answers, ip=ip, helo=helo, mail_from=mail_from, receiver=receiver, memory=memory)

    return await settle(resolver, budget, judged)


def evaluate(answers: Answers, *, ip: str, helo: str, mail_from: str, receiver: str = "", memory: SpfMemory | None = None) -> SpfResult:
    """What `check` does, without I/O. Raises Need for what must be looked up."""
    identity = "mailfrom" if mail_from else "helo"
    local_part, _, written = (mail_from or f"postmaster@{helo}").rpartition("@")
    domain = domain_name(written)
    try:
        address = parsed(ip)
    except ValueError:
        return _result("permerror", ip, written, identity, reason=f"{ip!r} is no IP address")
    if not domain:
        return _result("none", ip, written, identity, reason="the sender has no domain to ask")
    asked = Asked(ip, domain, identity)
    if memory and (kept := memory.find(asked, answers)):
        return kept
    judge = _Query(answers, address, local_part or "postmaster", domain, helo=helo, receiver=receiver)
    result, why = judge.judge()
    said = judge.explain() if result == "fail" else ""
    found = _result(result, str(judge.c), written, identity, domain=domain, reason=why, said=said)
    if memory and not judge.has_macros:
        memory.keep(asked, found, answers)
    return found


def _result(result: str, ip: str, written: str, identity: str, *, domain: str = "", reason: str = "", said: str = "") -> SpfResult:
    shown = domain or _UNSAFE.sub("?", written) or "unknown"
    explanation = _EXPLANATION[result].format(domain=shown, ip=re.sub(r"[^0-9A-Fa-f.:]", "?", ip))
    return SpfResult(result, explanation, domain, identity, _printable(reason) or explanation, _printable(said))


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text[:_EXPLANATION_LIMIT])


@functools.lru_cache(maxsize=2048)
def _network(address: str, prefix: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(address).supernet(new_prefix=prefix)


class _Query(spf.query):  # type: ignore[misc]  # pyspf has no types
    """pyspf's evaluation over known answers. What it asks for and does not know is kept in `missing`: pyspf swallows some exceptions."""

    def __init__(
        self,
        answers: Answers,
        address: ipaddress.IPv4Address | ipaddress.IPv6Address,
        local_part: str,
        domain: str,
        *,
        helo: str,
        receiver: str,
    ) -> None:
        super().__init__(i=str(address), s=f"{local_part}@{domain}", h=helo, receiver=receiver or None)
        self.l, self.o, self.d = local_part, domain, domain  # pyspf would split at the first @
        self._answers = answers
        self._missing: list[Question] = []
        self._octets = 0
        self._explaining = False
        self._explained = False
        self.has_macros = False  # then the result may depend on the whole sender, on HELO, on the time

    def judge(self) -> tuple[str, str]:
        """Result, and why. Raises Need."""
        self._octets = 0
        try:
            result, _, text = self.check()
        except Need:
            raise Need(self._missing) from None
        except Exception as error:  # whatever a record made of pyspf, the record is wrong
            result, text = "permerror", f"pyspf cannot read the record ({type(error).__name__})"
        if self._missing:
            raise Need(self._missing)
        if result in {"temperror", "permerror"}:
            return result, text
        if result == "none":
            return result, f"{self.o} publishes no SPF record"
        return result, f"{self.o} says so with {self.mechanism}" if self.mechanism else f"the record of {self.o} matches nothing"

    def explain(self) -> str:
        """The domain's own explanation of fail, empty if it has none. Raises Need."""
        if not self._explained:
            return ""
        self._explaining = True
        self.set_default_explanation("")
        self.judge()
        return str(self.exps["fail"])

    # --- what asks DNS ---

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:  # noqa: ARG002  # pyspf's own
        values = self._values(name, qtype)
        if not values and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return values

    def _values(self, name: str, rdtype: str) -> list[Any]:
        name = str(name).removesuffix(".")
        if not all(0 < len(label) < 64 for label in name.split(".")):
            return []
        answer = self._all([name], rdtype)[0]
        if answer.failed:
            raise spf.TempError(answer.reason)
        if rdtype == "TXT":
            return [(text,) for text in answer.texts]
        if rdtype == "MX":
            return list(enumerate(answer.values))
        return list(answer.values)

    def _all(self, names: list[str], rdtype: str) -> list[Answer]:
        try:
            return self._answers.all(names, rdtype)
        except Need as need:
            self._missing += need.questions
            raise

    def dns_mx(self, domainname: str) -> list[Any]:
        hosts = [host for _, host in self.dns(domainname, "MX")]
        if len(hosts) > spf.MAX_MX:
            raise spf.PermError(f"More than {spf.MAX_MX} MX records returned")
        self._all([host for host in hosts if host], self.A)
        return [address for host in hosts for address in self.dns_a(host, self.A)]

    def validated_ptrs(self) -> list[str]:
        """RFC 7208 §5.5: at most ten names; trouble with a lookup is no match."""
        try:
            names = self.dns_ptr(self.i)[: spf.MAX_PTR]
        except spf.TempError:
            return []
        self._all(names, self.A)
        return [name for name in names if self._leads_back(name)]

    def _leads_back(self, name: str) -> bool:
        try:
            return bool(self.cidrmatch(self.dns_a(name, self.A), self.cidrmax))
        except spf.TempError:
            return False

    def cidrmatch(self, ipaddrs: list[str], n: int) -> bool:
        """Is the client in one of the networks of these addresses? Those of a record are made once, not once a message."""
        try:
            return any(self.ipaddr in network for network in [_network(ip, n) for ip in ipaddrs])
        except ValueError as error:
            raise spf.PermError(str(error)) from None

    def get_explanation(self, spec: str) -> str | None:
        """Only fail needs it, so it is looked up when that is known."""
        self._explained = True
        if not self._explaining:
            return None
        texts = self.dns_txt(spec, ignore_void=True)
        if len(texts) != 1 or len(texts[0]) > _EXPLANATION_LIMIT:
            return None
        return self.expand(spf.to_ascii(texts[0]), stripdot=False)

    # --- what would take long ---

    def dns_spf(self, domain: str) -> str | None:
        """The record, if pyspf reads it in a time that matters to nobody."""
        record = super().dns_spf(domain)
        if record is None:
            return None
        self._octets += len(record)
        if len(record) > RECORD_LIMIT or self._octets > RECORDS_LIMIT:
            raise spf.PermError("SPF record too long", domain)
        if not all(_PRINTABLE.fullmatch(term) for term in record.split(" ")):
            raise spf.PermError("Invalid character in SPF record", domain)
        return str(record)

    def expand_domain(self, arg: str) -> str:
        """RFC 7208 §7.1: a domain-spec ends in a top label or a macro."""
        _, dot, label = arg.removesuffix(".").rpartition(".")
        if not _ENDS_IN_MACRO.search(arg) and not (dot and _TOP_LABEL.match(label)):
            raise spf.PermError("Invalid domain found (use FQDN)", arg)
        return self.expand(arg)

    def expand(self, text: str, stripdot: bool = True) -> str:
        """Macros expanded (RFC 7208 §7); a name (`stripdot`) loses its last dot, and over 253 octets labels from the left (§7.3)."""
        if "%" in _MACRO.sub("", text):
            raise spf.PermError("Invalid macro", text)
        name = _MACRO.sub(lambda macro: self._macro(macro, in_name=stripdot), text)
        if not stripdot:
            return name
        name = name.removesuffix(".")
        return name[-254:].partition(".")[2] if len(name) > 253 else name

    def _macro(self, macro: re.Match[str], *, in_name: bool) -> str:
        self.has_macros = True
        escape, letter, digits, reverse, delimiters = macro.groups("")
        if escape:
            return {"%": "%", "_": " ", "-": "%20"}[escape]
        if letter.lower() not in ("slodiphv" if in_name else "slodiphvcrt"):
            raise spf.PermError("Unknown macro, or one for explanations only", macro[0])
        value = str(self.getp() if letter in "pP" else getattr(self, letter.lower()))
        parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
        if reverse:
            parts.reverse()
        if digits:
            if not int(digits):
                raise spf.PermError("A macro that keeps no part", macro[0])
            parts = parts[-int(digits) :]
        value = ".".join(parts)
        return urllib.parse.quote(value, safe="") if letter.isupper() else value
