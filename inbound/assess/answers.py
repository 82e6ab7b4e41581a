"""What DNS says of a name, as checks that do no I/O see it: known answers, and the questions a check still needs answered.

Such a check is a function over `Answers`. It runs until an answer is missing, and again once that is known (`dns.settle`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import dns.exception
import dns.name

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


class Outcome(StrEnum):
    """How a lookup ended. The first three are facts about the name; the others may pass, and `Answer.failed` holds for them."""

    FOUND = "found"
    NO_DATA = "no such record"  # the name exists
    NXDOMAIN = "no such name"
    SERVFAIL = "server failure"  # or REFUSED, or any other code a server gives up with
    TIMEOUT = "no answer in time"
    TRUNCATED = "answer cut short"  # too long for a datagram, and not to be had over TCP
    MALFORMED = "unreadable answer"
    UNREACHABLE = "no server to ask"


_FACTS = frozenset({Outcome.FOUND, Outcome.NO_DATA, Outcome.NXDOMAIN})


class Question(NamedTuple):
    """A name, in lower case and without the last dot, and a record type: `A`, `AAAA`, `MX`, `PTR` or `TXT`."""

    name: str
    rdtype: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of a name.

    `texts` holds each TXT record, its strings joined; `values` the addresses (A, AAAA) or the names, without the last dot (PTR, and MX in
    order of preference). `reason` tells people why there are none.
    """

    outcome: Outcome
    texts: tuple[bytes, ...] = ()
    values: tuple[str, ...] = ()
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Nothing was learned: asking again later may help."""
        return self.outcome not in _FACTS


class Need(Exception):
    """A pure check lacks the answers to `questions`."""

    def __init__(self, questions: Sequence[Question]) -> None:
        super().__init__(", ".join(f"{each.name} {each.rdtype}" for each in questions))
        self.questions = tuple(questions)


def _nothing(_: Question) -> None:
    return None


class Answers:
    """What is known so far: `known`, what `learn` was told, and what `recall` remembers. The answer to a question never changes."""

    def __init__(self, known: Mapping[Question, Answer] | None = None, *, recall: Callable[[Question], Answer | None] = _nothing) -> None:
        self._known = dict(known or {})
        self._recall = recall

    def __call__(self, name: str, rdtype: str) -> Answer:
        """The answer. Raises Need."""
        asked = question(name, rdtype)
        if not self._knows(asked):
            raise Need((asked,))
        return self._known[asked]

    def all(self, names: Sequence[str], rdtype: str) -> list[Answer]:
        """The answers for several names, looked up together. Raises Need."""
        questions = [question(name, rdtype) for name in names]
        missing = [each for each in dict.fromkeys(questions) if not self._knows(each)]
        if missing:
            raise Need(missing)
        return [self._known[each] for each in questions]

    def _knows(self, asked: Question) -> bool:
        if asked in self._known:
            return True
        found = self._recall(asked)
        if found:
            self._known[asked] = found
        return found is not None

    @property
    def known(self) -> Mapping[Question, Answer]:
        """All that was asked, and answered, so far."""
        return self._known

    def still(self, asked: Question, answer: Answer) -> bool:
        """Is this very answer the one that is remembered? It is known from then on."""
        return self._knows(asked) and self._known[asked] is answer

    def learn(self, asked: Question, answer: Answer) -> None:
        """Know an answer from now on."""
        self._known[asked] = answer


def question(name: str, rdtype: str) -> Question:
    """The question for a name in any spelling."""
    name = name.removesuffix(".")
    return Question(name.lower() if name.isascii() else name, rdtype)


@functools.lru_cache(maxsize=4096)
def domain_name(text: str) -> str:
    """A domain as it is looked up and compared: lower case, A-labels (RFC 5890), no last dot.

    Empty if the text is no domain name, or one of a single label.
    """
    if len(text) > 1024:
        return ""
    if not text.isascii():
        try:
            text = dns.name.from_unicode(text, idna_codec=dns.name.IDNA_2008_UTS_46).to_text(omit_final_dot=True)
        except (dns.exception.DNSException, UnicodeError):
            return ""
    text = text.removesuffix(".").lower()
    return text if "." in text and _HOST_NAME.fullmatch(text) else ""


def is_host_name(text: str) -> bool:
    """Letters, digits, `-` and `_` in labels that DNS can hold: safe to show, in a header field too."""
    return _HOST_NAME.fullmatch(text) is not None
