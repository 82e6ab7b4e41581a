"""DKIM (RFC 6376, 8301, 8463): every signature of a message judged, its body read once, its keys looked up all at once.

Costs are bounded whatever the message and the key records hold; a large body is hashed in a thread, while the event loop goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from inbound.accept.spool import Content
from inbound.assess.answers import Answer
from inbound.assess.dkim.canonical import BodyHash, BodyTerms, body_hashes
from inbound.assess.dkim.fields import Claim, Refused, read
from inbound.assess.dkim.header import Header
from inbound.assess.dkim.keys import KeyLookup, read_key
from inbound.assess.dkim.results import DkimResults, Result, Signature
from inbound.assess.dns import together
from inbound.assess.forged import header_length
from inbound.assess.message import HEAD
from inbound.assess.turns import INLINE, turns

SIGNATURES = 10  # judged of one message; RFC 6376 §6.1 lets a verifier limit them
RECORDS = 4  # tried of those at one name; RFC 6376 §6.1.2 leaves it to us
_PIECE = 65_536
_INLINE = 262_144  # octets of body hashed without a thread: about a millisecond


def is_signed(head: bytes) -> bool:
    """May the message that begins with `head`, as `beginning` gives it, have a signature? If not, `check` finds none."""
    return b"dkim-signature" in head[: header_length(head)].lower()


async def check(content: Content, lookup: KeyLookup, *, now: float) -> DkimResults:
    """Judge the signatures of a message, the topmost `SIGNATURES` of them. `now`, epoch seconds, is when it was received (x=, t=).

    No message makes it raise; what `lookup` and `content` raise for reasons of their own passes through.
    """
    head = content.head(HEAD)
    length = header_length(head)
    octets = len(head) if length is None else length
    found = await turns().take(octets, lambda: _Read(head, now))
    if found.header.flaw:
        return found.flawed(*found.header.flaw)
    if not found.key_names:
        return found.judged({}, {})
    asked = asyncio.gather(_hash_body(content, found.header.body, found.bodies), _look_up(found.key_names, lookup))
    if octets > INLINE:
        del found  # hundreds of large ones may wait for DNS
        bodies, answers = await asked
        return await turns().take(octets, lambda: _Read(head, now).judged(bodies, answers))
    bodies, answers = await asked
    return await turns().take(octets, lambda: found.judged(bodies, answers))


class _Read:
    """A header and what its topmost signatures claim."""

    def __init__(self, head: bytes, now: float) -> None:
        self.header = Header(head)
        places = self.header.signatures
        self._readings = [read(self.header[place], place, now=now) for place in places[:SIGNATURES]]
        self._omitted = len(places) - len(self._readings)
        claims = [each for each in self._readings if isinstance(each, Claim)]
        self.bodies = {claim.body for claim in claims}
        self.key_names = tuple(dict.fromkeys(claim.key_name for claim in claims))

    def flawed(self, result: Result, reason: str) -> DkimResults:
        """Each signature judged by what is wrong with the header."""
        return DkimResults(tuple(_flawed(each, result, reason) for each in self._readings), self._omitted)

    def judged(self, bodies: Mapping[BodyTerms, BodyHash], answers: Mapping[str, Answer]) -> DkimResults:
        """Each signature judged by the body and its key."""
        signatures = (_judge(each, self.header, bodies, answers) if isinstance(each, Claim) else each for each in self._readings)
        return DkimResults(tuple(signatures), self._omitted)


def _flawed(reading: Claim | Signature, result: Result, reason: str) -> Signature:
    return replace(reading.described if isinstance(reading, Claim) else reading, result=result, reason=reason)


async def _hash_body(content: Content, start: int, wanted: Collection[BodyTerms]) -> Mapping[BodyTerms, BodyHash]:
    if not wanted or content.size - start <= _INLINE:
        return body_hashes(_pieces(content, start) if wanted else (), wanted)
    return await asyncio.to_thread(lambda: body_hashes(_pieces(content, start), wanted))


def _pieces(content: Content, start: int) -> Iterator[bytes]:
    with content.open() as reader:
        reader.seek(start)
        while piece := reader.read(_PIECE):
            yield piece


async def _look_up(names: Sequence[str], lookup: KeyLookup) -> Mapping[str, Answer]:
    return dict(zip(names, await together([lookup(name) for name in names]), strict=True))


def _judge(claim: Claim, header: Header, bodies: Mapping[BodyTerms, BodyHash], answers: Mapping[str, Answer]) -> Signature:
    answer = answers[claim.key_name]
    if answer.failed:
        return replace(claim.described, result=Result.TEMPERROR, reason=f"key unavailable: {answer.reason or answer.outcome}")
    if not answer.texts:
        return replace(claim.described, result=Result.PERMERROR, reason=f"no key for signature: {answer.reason or answer.outcome}")
    digest = header.digest(claim.names, claim.canonicalization, signature=claim.place, unsigned=claim.unsigned)
    tried = [_try(record, claim, bodies[claim.body], digest) for record in answer.texts[:RECORDS]]
    return min(tried, key=lambda each: _TELLING.index(each.result))


_TELLING = (Result.PASS, Result.FAIL, Result.NEUTRAL, Result.POLICY, Result.PERMERROR)
"""Of several key records at one name, the one that takes the signature furthest tells."""


def _try(record: bytes, claim: Claim, body: BodyHash, digest: bytes) -> Signature:
    """One record against the signature, in the order of RFC 6376 §6.1.2 and §6.1.3."""
    try:
        key = read_key(record, claim)
    except Refused as refused:
        return replace(claim.described, result=refused.result, reason=refused.reason, bits=refused.bits)
    judged = replace(claim.described, bits=key.bits, testing=key.testing)
    if body.digest != claim.body_hash:
        return _failed(judged, "body hash did not verify: the body is not the one that was signed")
    if not key.verifies(claim.signature, digest):
        return _failed(judged, "signature did not verify: a signed header field was changed, or it was signed with another key")
    return _passed(judged, claim.body.limit, body.length)


def _failed(judged: Signature, reason: str) -> Signature:
    """RFC 6376 §3.6.1: a domain that is only testing is treated as if it had not signed."""
    if judged.testing:
        return replace(judged, result=Result.NEUTRAL, reason=f"{reason} (t=y: the domain is testing, so this counts as unsigned)")
    return replace(judged, result=Result.FAIL, reason=reason)


def _passed(judged: Signature, limit: int | None, length: int) -> Signature:
    if limit is None:
        return replace(judged, result=Result.PASS)
    if limit > length:
        return replace(judged, result=Result.PERMERROR, reason=f"l={limit} is more than the {length} octets of the body")
    reason = f"l={limit} leaves {length - limit} of {length} octets of the body unsigned"
    return replace(judged, result=Result.PASS, reason=reason, unsigned_octets=length - limit)
