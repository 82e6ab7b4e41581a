"""Received-SPF (RFC 7208 §9.1) and Authentication-Results (RFC 8601) in SES's form: its comment, its properties, folded where SES folds.

What a sender controls (addresses, HELO, names in DNS) stands before our results in these fields, so it must not pass for one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from inbound.accept.envelope import Envelope

_UNFIT = re.compile(r'[^ -~]|[;()<>\\"]')
_ENCODED_WORD = re.compile(r"=+(?=\?)")
_RESULT = re.compile(r"(auth|arc|dkim|dmarc|domainkeys|iprev|sender-id|smime|spf|vbr|(?:header|smtp|policy|body)\.[a-z]+)=", re.IGNORECASE)
_LINE_LIMIT = 998  # octets, RFC 5322 §2.1.1
_RESULTS_NAME = "Authentication-Results"
_SPF_NAME = "Received-SPF"


class Clause(NamedTuple):
    """One signature in Authentication-Results: RFC 8601's word for it, and the domain of its identity, empty where it names none."""

    result: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Authentication:
    """What SPF, DKIM and DMARC said, in the words of RFC 8601.

    `explanation` is SES's sentence on the SPF result. What was not judged is empty; so is `from_domain` without exactly one From address.
    """

    spf: str = ""
    explanation: str = ""
    dkim: tuple[Clause, ...] = ()
    dmarc: str = ""
    from_domain: str = ""


def fields(envelope: Envelope, said: Authentication, *, authserv_id: str) -> tuple[tuple[str, str], ...]:
    """Names and values of the two header fields, in SES's order. Without an SPF result there is no Received-SPF."""
    spf = f"{said.spf} {_spf(envelope, said)}" if said.spf else ""
    clauses = [f"spf={spf}"] if spf else []
    clauses += [f"dkim={clause.result}{_domain(' header.i=@', clause.domain)};" for clause in said.dkim]
    if said.dmarc:
        clauses.append(f"dmarc={said.dmarc}{_domain(' header.from=', said.from_domain)};")
    results = "\r\n ".join([f"{authserv_id};", *(clauses or ["none;"])])
    return (*([(_SPF_NAME, _within_lines(_SPF_NAME, spf))] if spf else []), (_RESULTS_NAME, _within_lines(_RESULTS_NAME, results)))


def _spf(envelope: Envelope, said: Authentication) -> str:
    """SES's comment, then its key-value pairs. `helo` is the name that DNS gives the client, as in SES, or its address."""
    peer = envelope.peer
    sender = envelope.reverse_path or f"postmaster@{envelope.helo}"  # the identity that SPF judges for the null reverse-path (RFC 7208 §2.4)
    pairs = (("client-ip", peer.address), ("envelope-from", sender), ("helo", peer.reverse_name or peer.address))
    return f"(spfCheck: {plain(said.explanation)}) " + " ".join(f"{name}={_value(value)};" for name, value in pairs)


def _domain(property_: str, domain: str) -> str:
    return property_ + _value(domain) if domain else ""


def _value(text: str) -> str:
    """One word for the place after `=`, where a `?` would begin an encoded word."""
    word = plain(text.replace(" ", "?")) or "unknown"
    return "_" + word[1:] if word.startswith("?") else word


def plain(text: str) -> str:
    """The text without what ends a value, a comment or a field, without encoded words, and without anything that reads as a result."""
    safe = _UNFIT.sub("?", text)
    safe = _ENCODED_WORD.sub(lambda found: "?" * len(found[0]), safe)
    return _RESULT.sub(r"\1?", safe)


def _within_lines(name: str, value: str) -> str:
    """The value, folded before `client-ip=` only where a line would be longer than RFC 5322 allows."""
    longest = max(map(len, value.split("\r\n "))) + len(name) + 2
    return value if longest <= _LINE_LIMIT else re.sub(" (?=client-ip=|envelope-from=|helo=)", "\r\n ", value)
