"""YAML text -> plain data with places: the small, safe part of YAML that a rule file needs, read from PyYAML's events.

Values keep their source text, since SES types nearly everything as string (`SmtpReplyCode: 550`, `StatusCode: 5.10`); only null, and
true and false under the keys that hold booleans, become values. Anchors, aliases, tags, duplicate keys, more than one document and deep
nesting are refused with their place. No recursion: the depth of a file cannot exhaust the stack.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from inbound.decide.problem import SHOWN, KeyPath, Problem, RulesError, written

DEPTH_LIMIT = 20
_TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels"

UNRESOLVED = "!Unresolved"
"""The tag that `inbound import` puts where a person has to write the value."""
NOT_RESOLVED = "`inbound import` could not resolve this; write the value in its place"

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_ALLOW = re.compile(r"(?:^|(?<=\s))#\s*inbound:\s*allow\b(.*)")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SAYS = {
    "mapping values are not allowed in this context": "':' is not expected here; quote a value that holds ': ', "
    "and look above for a key without ':' or a wrong indentation",
    "did not find expected key": "the indentation does not fit the lines above",
    "did not find expected '-' indicator": "the indentation does not fit the list above",
    "could not find expected ':'": "a key without ':'",
    "did not find expected ',' or ']'": "',' or ']' is missing",
    "did not find expected ',' or '}'": "',' or '}' is missing",
    "found unexpected end of stream": "the closing quote is missing",
    "found unexpected document indicator": "the closing quote is missing",
    "found unknown escape character": "an unknown escape after '\\'; use single quotes to keep '\\' as it is",
    "block sequence entries are not allowed in this context": "'-' is not expected here; put the list on lines of its own",
    "found a tab": "a tab; YAML is indented with spaces",
    "found a tab character where an indentation space is expected": "a tab; YAML is indented with spaces",
    "found a tab character that violates indentation": "a tab; YAML is indented with spaces",
}


@dataclass(frozen=True, slots=True)
class Allow:
    """A comment `# inbound: allow CODE, CODE` that silences warnings of its line: its place, from 1, and what comes after `allow`."""

    line: int
    column: int
    text: str


class Unknown:
    """Stands where a value was refused, so that nothing further is said about it."""


@dataclass(slots=True)
class Places:
    """Where a mapping or list, its keys and its values stand: (line, column) from 1."""

    start: tuple[int, int]
    keys: dict[str | int, tuple[int, int]] = field(default_factory=dict)
    values: dict[str | int, Places | tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """What the text says. `problems` were found in the text itself; below the paths in `refused` nothing is known."""

    name: str
    data: Any
    places: Places
    problems: tuple[Problem, ...]
    refused: frozenset[KeyPath]
    allows: Mapping[int, Allow] = field(default_factory=dict)  # by line

    def place(self, path: KeyPath, *, key: bool = False) -> tuple[int, int]:
        """Where the value at the path stands, or its key; the nearest place above it for a path that is not in the file."""
        places: Places | tuple[int, int] = self.places
        for number, part in enumerate(path):
            if not isinstance(places, Places) or part not in places.values:
                break
            if key and number == len(path) - 1:
                return places.keys.get(part, places.start)
            places = places.values[part]
        return places.start if isinstance(places, Places) else places

    def problem(self, path: KeyPath, message: str, *, key: bool = False, code: str = "") -> Problem:
        """A problem with the value at the path, or with its key; with a code it is a warning."""
        return Problem(self.name, *self.place(path, key=key), f"{written(path)}: {message}" if path else message, code)

    def has(self, path: KeyPath) -> bool:
        """Is there a value at the path?"""
        places: Places | tuple[int, int] = self.places
        for part in path:
            if not isinstance(places, Places) or part not in places.values:
                return False
            places = places.values[part]
        return True

    def knows(self, path: KeyPath) -> bool:
        """Is nothing on the way to the path refused?"""
        return not any(path[:length] in self.refused for length in range(len(path) + 1))


def read(text: str, name: str, booleans: Collection[str] = (), *, empty: str = "is empty; it needs at least Identities and RuleSets") -> Document:
    """The one document in the text; `booleans` are the keys whose true and false are meant as such. Raises RulesError.

    `empty` says what is wrong with a text without any content.
    """
    if match := _UNPRINTABLE.search(text):
        raise RulesError([_unprintable(text, match.start(), name)])
    composer = _Composer(name, frozenset(booleans), _allows(text))
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a "\UFFFFFFFF" where PyYAML comes without libyaml
        raise RulesError([*composer.problems, _syntax(error, text, name)]) from None
    return composer.document(empty)


def place_of(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of the character at the index."""
    before = text[:index].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _allows(text: str) -> dict[int, Allow]:
    """What looks like such a comment, by its line; it is none where it lies in a value."""
    found = ((number, _ALLOW.search(line)) for number, line in enumerate(text.splitlines(), 1) if "inbound:" in line)
    return {number: Allow(number, match.start() + 1, match[1]) for number, match in found if match}


def _unprintable(text: str, index: int, name: str) -> Problem:
    line, column = place_of(text, index)
    if text[index] == "\ufeff" and index == 0:
        return Problem(name, line, column, "begins with a byte order mark; save the file as UTF-8 without one")
    return Problem(name, line, column, f"U+{ord(text[index]):04X} is not allowed here; remove it")


def _syntax(error: Exception, text: str, name: str) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(name, 0, 0, f"not YAML: {error}")
    mark, began = error.problem_mark, error.context_mark
    problem = str(error.problem)
    if problem == "exceeded maximum nesting depth":  # libyaml from 0.2.6 on stops at a thousand levels, before it hands out the first of them
        return Problem(name, mark.line + 1, mark.column + 1, f"is {_TOO_DEEP}")
    message = _SAYS.get(problem, problem)
    if problem.startswith("found character") and problem.endswith("cannot start any token"):
        character = text[mark.index : mark.index + 1]
        message = _SAYS["found a tab"] if character == "\t" else f"a value that begins with {character!r} needs quotes"
    if began is not None and began.line != mark.line:
        message += f" (in what begins at line {began.line + 1})"
    return Problem(name, mark.line + 1, mark.column + 1, f"not YAML: {message}")


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is being read; `part` is its place in the frame above, `key` the mapping key that waits for its value."""

    part: str | int | None
    data: dict[str, Any] | list[Any]
    places: Places
    key: str | None = None
    has_key: bool = False


class _Composer:
    """Takes events in their order and builds data and places. A frame's part None means that its content is dropped."""

    def __init__(self, name: str, booleans: frozenset[str], allows: dict[int, Allow]) -> None:
        self._allows = allows
        self._name = name
        self._booleans = booleans
        self._frames: list[_Frame] = []
        self._documents = 0
        self._data: Any = None
        self._places = Places((1, 1))
        self._refused: set[KeyPath] = set()
        self.problems: list[Problem] = []

    def take(self, event: yaml.Event) -> None:
        """One event. Raises RulesError where it makes no sense to read on."""
        if isinstance(event, yaml.ScalarEvent):
            if self._allows:
                self._no_comments(_place(event), _end(event))
            self._inspect(event)
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._inspect(event)
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._complain(event, "a second document begins; this file is one")
                raise RulesError(self.problems)

    def document(self, empty: str) -> Document:
        """What was read. Raises RulesError for a text without any content."""
        if self._data is None:
            raise RulesError([*self.problems, Problem(self._name, 1, 1, empty)])
        return Document(self._name, self._data, self._places, tuple(self.problems), frozenset(self._refused), self._allows)

    def _no_comments(self, begin: tuple[int, int], end: tuple[int, int]) -> None:
        """What lies between these places belongs to a value."""
        for line in range(begin[0], end[0] + 1):
            allow = self._allows.get(line)
            if allow is not None and begin <= (line, allow.column) < end:
                del self._allows[line]

    def _inspect(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self._complain(event, f"anchors (&{event.anchor}) are not supported; write the value out where it is needed")
        tag = getattr(event, "tag", None)
        if tag == UNRESOLVED:
            self._complain(event, NOT_RESOLVED)
            self._refused.add((*self._path(), *self._here()))
        elif tag is not None:
            self._complain(event, f"tags ({_short(tag)}) are not supported; quote a value that is meant as text")

    def _scalar(self, event: Any) -> None:
        place = _place(event)
        frame = self._frames[-1] if self._frames else None
        if frame is not None and isinstance(frame.data, dict) and not frame.has_key:
            self._key(frame, event, place)
            return
        value: Any = event.value
        if event.implicit[0]:
            if value in _NULL:
                value = None
            elif frame is not None and frame.key in self._booleans:
                value = _BOOLEANS.get(value, value)
        self._add(value, place)

    def _key(self, frame: _Frame, event: Any, place: tuple[int, int]) -> None:
        key: str = event.value
        frame.has_key, frame.key = True, None
        if key == "<<" and event.implicit[0]:
            self._complain(event, "merge keys (<<) are not supported; write the keys out")
            self._refused.add(self._path())
        elif key in frame.places.keys:
            first = frame.places.keys[key]
            self._complain(event, f"is given twice, first at line {first[0]}; remove one of them", key)
        else:
            frame.key = key
            frame.places.keys[key] = place

    def _open(self, event: Any) -> None:
        if len(self._frames) == DEPTH_LIMIT:
            self._complain(event, f"is {_TOO_DEEP}")
            raise RulesError(self.problems)
        part: str | int | None = None
        if self._frames:
            part = self._next_part(self._frames[-1], event)
        data: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._frames.append(_Frame(part, data, Places(_place(event))))

    def _next_part(self, frame: _Frame, event: Any) -> str | int | None:
        if isinstance(frame.data, list):
            return len(frame.data)
        if not frame.has_key:
            self._complain(event, "a key must be a plain text")
            self._refused.add(self._path())
            frame.key = None
        return frame.key

    def _close(self) -> None:
        frame = self._frames.pop()
        above = self._frames[-1] if self._frames else None
        if above is not None and isinstance(above.data, dict) and not above.has_key:
            above.has_key = True  # it was a key, already complained of; its value follows and is dropped
            return
        self._add(frame.data, frame.places)

    def _alias(self, event: Any) -> None:
        self._complain(event, f"aliases (*{event.anchor}) are not supported; write the value out")
        frame = self._frames[-1] if self._frames else None
        if frame is not None and isinstance(frame.data, dict) and not frame.has_key:
            frame.has_key, frame.key = True, None
            self._refused.add(self._path())
            return
        self._refused.add((*self._path(), *self._here()))
        self._add(Unknown(), _place(event))

    def _add(self, value: Any, place: Places | tuple[int, int]) -> None:
        if not self._frames:
            self._data = value
            self._places = place if isinstance(place, Places) else Places(place)
            return
        frame = self._frames[-1]
        if isinstance(frame.data, list):
            frame.places.values[len(frame.data)] = place
            frame.data.append(value)
            return
        if frame.key is not None:
            frame.places.values[frame.key] = place
            frame.data[frame.key] = value
        frame.key, frame.has_key = None, False

    def _path(self) -> KeyPath:
        """The path of the innermost open mapping or list."""
        return tuple(frame.part for frame in self._frames[1:] if frame.part is not None)

    def _here(self) -> KeyPath:
        """The part of the value that comes next."""
        frame = self._frames[-1] if self._frames else None
        if frame is None:
            return ()
        if isinstance(frame.data, list):
            return (len(frame.data),)
        return () if frame.key is None else (frame.key,)

    def _complain(self, event: Any, message: str, *parts: str) -> None:
        path = (*self._path(), *(parts or self._here()))
        line, column = _place(event)
        self.problems.append(Problem(self._name, line, column, f"{written(path)}: {message}" if path else message))
        if len(self.problems) == SHOWN:
            raise RulesError(self.problems)


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _end(event: Any) -> tuple[int, int]:
    return event.end_mark.line + 1, event.end_mark.column + 1


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
