"""Runs cases against the rules: for `inbound test`, and for pytest. No network: what is not supposed in a case is not known.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbound.accept.envelope import Envelope, Peer, Tls
from inbound.assess.rendering import BytesContent
from inbound.decide.cases import Case, Cases, compared, lines, outcome, parse, recorded
from inbound.decide.load import load, text_of
from inbound.decide.problem import RulesError
from inbound.decide.rules import RuleSet
from inbound.deliver.rehearsal import rehearse
from inbound.operate.cli.verify import supposed_sender, wire_form
from inbound.operate.house import house, judge
from inbound.settings import Settings

SUFFIXES = (".yaml", ".yml")
MESSAGE_ID = "0" * 40


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case. `difference` is empty where it is as expected; `happened` is all that an expectation may name."""

    path: Path
    number: int
    name: str
    line: int
    difference: tuple[str, ...]
    happened: dict[str, Any]


class CaseFile:
    """The cases of one file, and the rules that they are for. Raises RulesError for errors in either."""

    def __init__(self, path: Path, rules: Path, settings: Settings) -> None:
        self.path = path
        self.cases: Cases = parse(text_of(path), str(path))
        named = self.cases.file.Rules
        self._rule_set: RuleSet = load(path.parent / named if named else rules).rule_set
        self._settings = settings

    def __iter__(self) -> Iterator[tuple[int, Case]]:
        return enumerate(self.cases.file.Cases)

    def line(self, number: int) -> int:
        """Where the case begins."""
        return self.cases.document.place(("Cases", number))[0]

    def run(self, number: int) -> Result:
        """Suppose that the message was sent. Raises RulesError for a file that is not there, or a function that no rule asks."""
        case = self.cases.file.Cases[number]
        content = self._content(number, case)
        sender = supposed_sender(content) if case.From is None else case.From.strip("<>")
        envelope = Envelope(MESSAGE_ID, Peer(case.Ip or ""), case.Helo or (f"[{case.Ip}]" if case.Ip else ""), sender, case.To,
                            0.0, tls=Tls("TLS", "") if case.Tls else None)
        try:
            here = house(self._settings, self._rule_set, case.Answers)
        except ValueError as error:
            raise RulesError([self.cases.problem(number, "Answers", str(error))]) from None
        verdicts = {str(name): str(status) for name, status in case.Verdicts.items()}
        trace = asyncio.run(rehearse(self._rule_set, envelope, BytesContent(content), here, judge(self._settings, verdicts, ask=False)))
        happened = outcome(trace, case.To)
        return Result(self.path, number, case.Name, self.line(number), tuple(_difference(case, happened)), happened)

    def _content(self, number: int, case: Case) -> bytes:
        if case.Eml is None:
            text = case.Message if case.Message is not None else f"From: {case.From or 'sender@example.net'}\nSubject: {case.Name}\n\n{case.Name}\n"
            return wire_form(text.encode())
        try:
            return wire_form((self.path.parent / case.Eml).read_bytes())
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = (isinstance(error, OSError) and error.strerror) or error
            raise RulesError([self.cases.problem(number, "Eml", f"cannot read {case.Eml!r}: {why}")]) from None

    def record(self, results: Iterable[Result]) -> int:
        """Write the expectations of those that are not as expected, from what happened, and nothing else; how many.

        Raises RulesError for a case that is not written line by line.
        """
        text = text_of(self.path)
        changed = [result for result in results if result.difference]
        for result in reversed(changed):
            text = self._with(text.splitlines(keepends=True), result)
        if changed:
            parse(text, str(self.path))
            self.path.write_text(text, encoding="utf-8")
        return len(changed)

    def _with(self, text: list[str], result: Result) -> str:
        document, number = self.cases.document, result.number
        start, column = document.place(("Cases", number))
        if text[start - 1][column - 1] == "{":
            raise RulesError([self.cases.problem(number, "Name", "to record it, write each key of the case on a line of its own")])
        indent = " " * (column - 1)
        block = [f"{indent}Expect:\n", *(f"{line}\n" for line in lines(recorded(result.happened), f"{indent}  "))]
        if document.has(("Cases", number, "Expect")):
            first = document.place(("Cases", number, "Expect"), key=True)[0] - 1
        else:
            first = _end(text, start - 1, column)
            if first and not text[first - 1].endswith("\n"):
                block.insert(0, "\n")
            return "".join([*text[:first], *block, *text[first:]])
        return "".join([*text[:first], *block, *text[_end(text, first, column + 1):]])


def _end(text: Sequence[str], first: int, column: int) -> int:
    """The line after the last one of the block that begins in line `first` and whose lines begin at `column` (from 1) or behind it."""
    last = first
    for number in range(first + 1, len(text)):
        line = text[number]
        if line.strip() and len(line) - len(line.lstrip()) < column - 1:
            break
        if line.strip() and not (line.lstrip().startswith("#") and len(line) - len(line.lstrip()) < column):
            last = number
    return last + 1


def _difference(case: Case, happened: dict[str, Any]) -> Iterator[str]:
    if case.Expect is None:
        yield "nothing is expected; this happens:"
        yield from (f"+{line}" for line in lines(recorded(happened)))
        return
    expected, actual = compared(case.Expect, happened)
    yield from difflib.unified_diff(expected, actual, "expected", "happens", n=100, lineterm="")


def files_in(place: Path) -> list[Path]:
    """The case files in a folder, or the one that is named."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES and path.is_file())

