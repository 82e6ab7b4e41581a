"""What SPF said of a client and a domain, kept while DNS says the same: most mail comes from senders that send much, and pyspf takes long.

Pure. Nothing is kept of a record with macros, which may depend on more than that, nor of trouble with DNS.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from inbound.assess.answers import Answer, Answers, Question

if TYPE_CHECKING:
    from inbound.assess.spf import SpfResult

SIZE = 1024  # results
ANSWERS = 12  # that one result may rest on
OCTETS = 4096  # of their records, so that all of it is a few megabytes at most


class Asked(NamedTuple):
    """Whom SPF was asked about: a client's address, a domain, and whether MAIL FROM or HELO named it."""

    ip: str
    domain: str
    identity: str


class SpfMemory:
    """The results used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Asked, tuple[SpfResult, Mapping[Question, Answer]]] = OrderedDict()

    def find(self, asked: Asked, answers: Answers) -> SpfResult | None:
        """The result, if every answer that it rests on is still what DNS says."""
        kept = self._kept.get(asked)
        if kept is None:
            return None
        result, rests_on = kept
        if not all(answers.still(question, answer) for question, answer in rests_on.items()):
            del self._kept[asked]
            return None
        self._kept.move_to_end(asked)
        return result

    def keep(self, asked: Asked, result: SpfResult, answers: Answers) -> None:
        """Remember a result, unless it rests on too much, or on trouble that may pass."""
        rests_on = answers.known
        octets = sum(sum(map(len, answer.texts)) + sum(map(len, answer.values)) for answer in rests_on.values())
        if len(rests_on) > ANSWERS or octets > OCTETS or any(answer.failed for answer in rests_on.values()):
            return
        self._kept[asked] = (result, dict(rests_on))
        if len(self._kept) > SIZE:
            self._kept.popitem(last=False)
