"""rules.yaml -> rules: the one door through which a rule file enters, for `serve`, `check` and hot reload alike.

All errors are found at once, each with file:line:column. Reading never blocks, whatever stands at the path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from inbound.decide.checks import contradictions, doubts, without_certificate, without_smarthost
from inbound.decide.codes import allowed, odd_allows
from inbound.decide.document import Allow, Document, place_of, read
from inbound.decide.problem import KeyPath, Problem, RulesError, RulesUnreadableError
from inbound.decide.rules import Model, RuleFile, RuleSet
from inbound.decide.wording import LIMIT, in_words

__all__ = ["OCTETS", "Loaded", "Problem", "RulesError", "RulesUnreadableError", "load", "parse", "text_of"]

OCTETS = 4 * 1024 * 1024  # a full set, 200 rules of 500 addresses each, has 3 MB and takes about a second to read


@dataclass(frozen=True, slots=True)
class Loaded:
    """A rule file without errors.

    `rule_set` is what receiving runs on. `warnings` are allowed and seldom meant; `needs_certificate` and `needs_smarthost` would be errors
    for a service without a certificate, or without a smarthost. `digest` is the SHA-256 of the file's text. `places` gives (line, column) of
    each rule set, rule and action by its path: `("RuleSets", "default", 0, "Actions", 1)`. `allows` are the comments that silence warnings, by line.
    """

    name: str
    rule_file: RuleFile
    rule_set: RuleSet
    warnings: tuple[Problem, ...]
    needs_certificate: tuple[Problem, ...]
    needs_smarthost: tuple[Problem, ...]
    digest: str
    places: Mapping[KeyPath, tuple[int, int]]
    allows: Mapping[int, Allow] = field(default_factory=dict)

    def unsilenced(self, warnings: Iterable[Problem]) -> tuple[Problem, ...]:
        """Those that no comment silences."""
        return tuple(warning for warning in warnings if not allowed(warning, self.allows))


def load(path: Path, *, tls: bool = True, smarthost: bool = True) -> Loaded:
    """The rules in the file. `tls` False, for a service without a certificate, makes rules that require TLS errors (spec §10 row 12).

    `smarthost` False, for one that has no way to send bounces, makes rules that bounce errors.

    Raises RulesError, RulesUnreadableError. Blocks while it works: seconds at most.
    """
    return parse(text_of(path), str(path), tls=tls, smarthost=smarthost)


def parse(text: str, name: str, *, tls: bool = True, smarthost: bool = True) -> Loaded:
    """The rules in the text; `name` stands for the file in every problem. Raises RulesError."""
    document = read(text, name, _boolean_keys())
    problems = [*document.problems, *contradictions(document)]
    needs_certificate, needs_smarthost = tuple(without_certificate(document)), tuple(without_smarthost(document))
    problems += [*(() if tls else needs_certificate), *(() if smarthost else needs_smarthost)]
    try:
        rule_file = RuleFile.model_validate(document.data)
    except ValidationError as error:
        problems += in_words(document, error)
        raise RulesError(sorted(problems), error.error_count() - min(LIMIT, error.error_count())) from None
    if problems:
        raise RulesError(sorted(problems))
    found = list(doubts(document, rule_file))
    told = [*(warning for warning in found if not allowed(warning, document.allows)), *odd_allows(document, found)]
    return Loaded(name=name, rule_file=rule_file, rule_set=rule_file.active().ready(), warnings=tuple(sorted(told)), allows=document.allows,
                  needs_certificate=needs_certificate, needs_smarthost=needs_smarthost, digest=digest_of(text), places=_places(document, rule_file))


def digest_of(text: str) -> str:
    """The SHA-256 of a rule file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _boolean_keys() -> set[str]:
    return {name for model in Model.__subclasses__() for name, field in model.model_fields.items() if field.annotation is bool}


def _places(document: Document, rule_file: RuleFile) -> dict[KeyPath, tuple[int, int]]:
    paths: list[KeyPath] = []
    for name, rules in rule_file.RuleSets.items():
        paths.append(("RuleSets", name))
        for number, rule in enumerate(rules):
            paths.append(("RuleSets", name, number))
            paths += [("RuleSets", name, number, "Actions", index) for index in range(len(rule.Actions))]
    return {path: document.place(path) for path in paths}


def text_of(path: Path) -> str:
    """The text of the file. Raises RulesUnreadableError where there is none, RulesError where it is too long or not UTF-8."""
    octets = _octets(path)
    if len(octets) > OCTETS:
        raise RulesError([Problem(str(path), 0, 0, f"is larger than 4 MB ({OCTETS} octets)")])
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        before = octets[: error.start].decode()
        utf16 = octets.startswith((b"\xff\xfe", b"\xfe\xff"))
        message = "is UTF-16; save the file as UTF-8" if utf16 else f"the octet 0x{octets[error.start]:02x} is not UTF-8"
        raise RulesError([Problem(str(path), *place_of(before, len(before)), message)]) from None


def _octets(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unreadable(path, "is a directory" if path.is_dir() else "is not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor that cannot block, should the file become a FIFO meanwhile
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unreadable(path, "is not a regular file")
            return file.read(OCTETS + 1)
    except OSError as error:
        raise _unreadable(path, _why(path, error)) from None
    except ValueError:
        raise _unreadable(path, "is not a path: it holds a NUL") from None


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"is a symbolic link to {path.readlink()}, where there is no file" if path.is_symlink() else "no such file"
    if error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself"
    return f"cannot be read: {os.strerror(error.errno or 0).lower()}"


def _unreadable(path: Path, message: str) -> RulesUnreadableError:
    return RulesUnreadableError([Problem(str(path), 0, 0, message)])
