"""The verdicts on a message, as SES names them, and their record in the trace.

SES "Contents of notifications", receipt object: spfVerdict, dkimVerdict, dmarcVerdict, spamVerdict, virusVerdict, dmarcPolicy.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """SES's verdict statuses."""

    PASS = "PASS"  # noqa: S105  # a verdict, not a password
    FAIL = "FAIL"
    GRAY = "GRAY"
    PROCESSING_FAILED = "PROCESSING_FAILED"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status, and why, in words for people."""

    status: Status
    reason: str = ""


NOT_JUDGED = Verdict(Status.GRAY, "not judged: no checker is configured")


@dataclass(frozen=True, slots=True)
class Assessment:
    """All verdicts on one message. `spam` and `virus` hold where a rule has ScanEnabled; elsewhere they are DISABLED.

    `dmarc_policy` is the published policy that applied, only when `dmarc` is FAIL.
    """

    spf: Verdict = NOT_JUDGED
    dkim: Verdict = NOT_JUDGED
    dmarc: Verdict = NOT_JUDGED
    spam: Verdict = NOT_JUDGED
    virus: Verdict = NOT_JUDGED
    dmarc_policy: str = ""

    def to_json(self) -> str:
        """JSON text for the spool."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Assessment:
        """The assessment that `to_json` wrote."""
        data = json.loads(text)
        policy = data.pop("dmarc_policy", "")
        return cls(**{name: Verdict(Status(v["status"]), v["reason"]) for name, v in data.items()}, dmarc_policy=policy)
