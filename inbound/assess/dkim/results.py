"""What DKIM says of a message: a result for each signature, in the words of RFC 8601, and from them SES's dkimVerdict.

Everything here may go into a header field: of what the sender wrote, only domain names, selectors, identities and numbers that are ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from inbound.assess.verdicts import Status, Verdict


class Result(StrEnum):
    """RFC 8601 §2.7.1, for one signature; a message without any is "none"."""

    PASS = "pass"  # noqa: S105  # a result, not a password
    FAIL = "fail"  # the body or a signed field is not what was signed, the key is revoked, or the signature expired
    NEUTRAL = "neutral"  # the signature field cannot be read, or asks for what nobody knows
    POLICY = "policy"  # it may be sound, but not for us: SHA-1, a weak key, a header too large
    PERMERROR = "permerror"  # it can never be verified: no key, a key that is not for it, From not signed
    TEMPERROR = "temperror"  # DNS did not tell the key


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature field and how it was judged. What could not be read of it is empty.

    `reason` is for people, empty for a plain pass. `domain` (d=) and `selector` (s=) are lower-case A-labels; `identity` is i= or its
    default, its local part only where it is plain. `bits` is the size of the key, 0 when no key was found. `body_length_limited` tells that
    it has l=, so that text may have been added to the body: it does not count for DMARC; `unsigned_octets` is how much of the body,
    canonicalised, it leaves unsigned. `testing` tells of t=y in the key record: the domain is trying DKIM out.
    """

    result: Result
    reason: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    bits: int = 0
    body_length_limited: bool = False
    unsigned_octets: int = 0
    testing: bool = False


@dataclass(frozen=True, slots=True)
class DkimResults:
    """The signatures that were judged, topmost first, and how many more the message has."""

    signatures: tuple[Signature, ...] = ()
    omitted: int = 0


def itself(domain: str) -> str:
    """A domain as its own organization: what strict alignment compares."""
    return domain


def verdict(
    results: DkimResults, from_domain: str, *, relaxed: bool = False, organizational_domain: Callable[[str], str] = itself
) -> Verdict:
    """SES's dkimVerdict. `from_domain` is the domain of the one From address in lower-case A-labels, or empty if there is none.

    PASS needs a passing signature over the whole body for exactly `from_domain`; `relaxed` takes one for any domain with the same
    `organizational_domain` (RFC 9989 relaxed alignment). With none, a signature of that domain whose key could not be looked up makes
    it PROCESSING_FAILED, a signature that fails makes it FAIL, any other lookup trouble PROCESSING_FAILED, all else is GRAY.
    """
    if not results.signatures:
        return Verdict(Status.GRAY, "the message is not signed")
    compared = organizational_domain if relaxed else itself

    def aligned(signature: Signature) -> bool:
        return bool(from_domain) and compared(signature.domain) == compared(from_domain)

    ours = [each for each in results.signatures if aligned(each)]
    status, cause = _status(ours, results.signatures)
    more = f" ({results.omitted} more signatures were not judged)" if results.omitted else ""
    return Verdict(status, (_told(cause) if cause else _told_of_none(results.signatures, from_domain)) + more)


def _status(ours: Iterable[Signature], every: Iterable[Signature]) -> tuple[Status, Signature | None]:
    """The first of these that holds, and the signature that makes it so; `ours` are those for the From domain."""
    passing = [each for each in ours if each.result is Result.PASS]
    ranks = (
        (Status.PASS, (each for each in passing if not each.unsigned_octets)),
        (Status.PROCESSING_FAILED, (each for each in ours if each.result is Result.TEMPERROR)),
        (Status.GRAY, passing),
        (Status.FAIL, (each for each in every if each.result is Result.FAIL)),
        (Status.PROCESSING_FAILED, (each for each in every if each.result is Result.TEMPERROR)),
        (Status.GRAY, ours),
    )
    for status, found in ranks:
        cause = next(iter(found), None)
        if cause:
            return status, cause
    return Status.GRAY, None


def _told(signature: Signature) -> str:
    return f"{signature.domain or 'a signature without a domain'}: {signature.reason or 'signed'}"


def _told_of_none(signatures: Iterable[Signature], from_domain: str) -> str:
    others = ", ".join(dict.fromkeys(each.domain for each in signatures if each.result is Result.PASS))
    if others:
        return f"signed by {others}, not by {from_domain or 'the domain of one From address'}"
    return "; ".join(dict.fromkeys(_told(each) for each in signatures))
