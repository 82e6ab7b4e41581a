"""Is a message refused for its verdicts, before it is accepted? INBOUND_REJECT says which of them count.

RFC 7372 gives the codes for SPF and for several failures together (which DMARC is), RFC 3463 the one for content.
"""

from __future__ import annotations

from collections.abc import Collection

from inbound.accept.reply import Reply
from inbound.assess.authentication import plain
from inbound.assess.verdicts import Assessment, Status


def refusal(assessment: Assessment, reject: Collection[str]) -> Reply | None:
    """The refusal, or None. `reject` holds `virus`, `spam`, `dmarc`, `spf`: only a FAIL counts, that of DMARC unless the policy is none."""
    for name, make in _REPLIES.items():
        if name in reject and getattr(assessment, name).status is Status.FAIL and not (name == "dmarc" and assessment.dmarc_policy == "none"):
            return make(assessment)
    return None


def _virus(assessment: Assessment) -> Reply:
    return Reply(550, "5.7.1", f"Message refused: it carries a virus ({plain(assessment.virus.reason)[:120]})", "virus")


def _spam(_: Assessment) -> Reply:
    return Reply(550, "5.7.1", "Message refused: it is taken for spam", "spam")


def _dmarc(assessment: Assessment) -> Reply:
    domain = assessment.authentication.from_domain if assessment.authentication else ""
    why = f"it fails the DMARC policy of {plain(domain)}" if domain else "it has not exactly one From address, so it fails DMARC"
    return Reply(550, "5.7.26", f"Message refused: {why}", "dmarc")


def _spf(assessment: Assessment) -> Reply:
    why = assessment.authentication.explanation if assessment.authentication else ""
    return Reply(550, "5.7.23", f"Message refused: {plain(why) or 'SPF fails'}", "spf")


_REPLIES = {"virus": _virus, "spam": _spam, "dmarc": _dmarc, "spf": _spf}
