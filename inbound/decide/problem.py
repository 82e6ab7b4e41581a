"""What is wrong with a rules.yaml: every problem has its place, and all of them are told at once.

A problem says where it stands in the file and in the structure, what is wrong, and what to write instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # of a value in the file: ("RuleSets", "default", 0, "Name")

SHOWN = 200


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong. Line and column count from 1, the column in characters; line 0 means the file as a whole.

    `code` names a warning (`decide.codes`), and is empty for an error.
    """

    file: str
    line: int
    column: int
    message: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}" if self.line else f"{self.file}: {self.message}"


class RulesError(Exception):
    """The rules cannot be used. `problems` in the order of the file, at most 200 and then how many more; str() is one line each.

    `untold` counts those that are known and not even among `problems`.
    """

    def __init__(self, problems: Sequence[Problem], untold: int = 0) -> None:
        untold += max(0, len(problems) - SHOWN)
        self.problems = (*problems[:SHOWN], *([Problem(problems[0].file, 0, 0, f"and {untold} more")] if untold else ()))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class RulesUnreadableError(RulesError):
    """There is no file to read: missing, no regular file, or no permission."""


def shown(value: object) -> str:
    """The value in quotes, cut when it is long."""
    text = str(value)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def written(path: KeyPath) -> str:
    """A path for people: `RuleSets.default[0].Actions[1].S3Action.BucketName`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]+", part) else json.dumps(part))
    return text
