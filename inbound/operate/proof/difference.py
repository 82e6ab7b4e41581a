"""One field in which SES and we differ: both values, and whose doing it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Whose(StrEnum):
    """Why a field differs. Only `OURS` speaks against us."""

    OURS = "ours"
    DNS = "DNS since then"
    SCANNER = "another scanner"
    DESIGN = "by design"
    COPY = "the copy is not the original"


@dataclass(frozen=True, slots=True)
class Difference:
    """A field, its value in SES and here, and the cause: equal causes are counted together."""

    field: str
    theirs: Any
    ours: Any
    whose: Whose
    cause: str


@dataclass(slots=True)
class Tally:
    """What a message's comparison came to: how many fields were equal, and the others."""

    equal: int = 0
    differences: list[Difference] = field(default_factory=list)

    def compare(self, name: str, theirs: Any, ours: Any, cause: str = "", whose: Whose = Whose.OURS) -> bool:
        """Count one field. True if it is equal."""
        if theirs == ours:
            self.equal += 1
            return True
        self.differences.append(Difference(name, theirs, ours, whose, cause or "another value for the same message"))
        return False
