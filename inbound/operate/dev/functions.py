"""The Lambda functions of `inbound dev`: a file on this machine becomes what CreateFunction takes.

A function runs from the folder where its author edits it (see entry/). The bundle holds FILE and the sources beside it all the same: its
digest tells when the code changed, and a Lambda that runs elsewhere has something to run.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENTRY = Path(__file__).parent / "entry"
SAMPLE = Path(__file__).parents[1] / "sample" / "function.py"

_PYTHON = frozenset({".py"})
_JAVASCRIPT = frozenset({".js", ".mjs", ".cjs"})
_ALONG = {".py": _PYTHON} | dict.fromkeys(_JAVASCRIPT, _JAVASCRIPT | {".json"})
_BUNDLE_LIMIT = 5_000_000


@dataclass(frozen=True)
class FunctionSource:
    """One `--function NAME=FILE:HANDLER`: the function's name in its ARN, the absolute path of its file, the name of its handler."""

    name: str
    file: Path
    handler: str
    is_sample: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return "sample: logs the event, answers CONTINUE" if self.is_sample else f"{self.file.name}:{self.handler}"

    @property
    def runtime(self) -> str:
        """Lambda's name of the runtime: of the running interpreter for Python, of a current Node.js otherwise."""
        if self.file.suffix in _PYTHON:
            return f"python{sys.version_info.major}.{sys.version_info.minor}"
        return "nodejs22.x"

    @property
    def code(self) -> list[Path]:
        """FILE and the sources of its language beside it, sorted; FILE alone where they are more than 5 MB. Sub-folders are not in it."""
        beside = sorted(path for path in self.file.parent.iterdir() if path.suffix in _ALONG[self.file.suffix] and path.is_file())
        if sum(path.stat().st_size for path in beside) > _BUNDLE_LIMIT:
            return [self.file]
        return beside


def parse_function(text: str) -> FunctionSource:
    """Read `NAME=FILE:HANDLER`. FILE ends in .py, .js, .mjs or .cjs; a relative one counts from the working directory.

    Raises ValueError with one clear line.
    """
    name, equals, place = text.partition("=")
    path, colon, handler = place.rpartition(":")
    if not (name and equals and path and colon and handler):
        raise ValueError(f"--function {text}: write it as NAME=FILE:HANDLER, e.g. --function route=route.py:handler")
    file = Path(path).expanduser().resolve()
    if file.suffix not in _ALONG:
        raise ValueError(f"--function {text}: {path} is neither Python (.py) nor JavaScript (.js, .mjs, .cjs)")
    if not file.is_file():
        raise ValueError(f"--function {text}: there is no file {path}")
    if file.suffix in _JAVASCRIPT and shutil.which("node") is None:
        raise ValueError(f"--function {text}: JavaScript needs Node.js, and there is no `node` in PATH")
    return FunctionSource(name, file, handler)


def by_name(sources: Iterable[FunctionSource]) -> Mapping[str, FunctionSource]:
    """The sources by their function's name. Raises ValueError when two have the same name."""
    found: dict[str, FunctionSource] = {}
    for source in sources:
        if source.name in found:
            raise ValueError(f"--function {source.name}: given twice, as {found[source.name]} and {source}")
        found[source.name] = source
    return found


def sample(name: str) -> FunctionSource:
    """The sample, for a function that the rules name and nobody gave code for."""
    return FunctionSource(name, SAMPLE, "handler", is_sample=True)


def bundle(source: FunctionSource) -> bytes:
    """The zip for CreateFunction; its handler is `inbound_entry.handler`. The same code gives the same bytes.

    Raises OSError when a file cannot be read.
    """
    entry = ENTRY / ("inbound_entry.py" if source.file.suffix in _PYTHON else "inbound_entry.js")
    where = {"folder": str(source.file.parent), "file": source.file.name, "handler": source.handler}
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in source.code:
            archive.writestr(_dated(path.name), path.read_bytes())
        archive.writestr(_dated(entry.name), entry.read_bytes())
        archive.writestr(_dated("inbound_entry.json"), json.dumps(where))
    return held.getvalue()


def _dated(name: str) -> zipfile.ZipInfo:
    """A member with a fixed date, so that only content makes a difference, readable by whoever runs the function."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member
