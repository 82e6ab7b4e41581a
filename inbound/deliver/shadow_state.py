"""Which candidate rule file is tried beside the rules: a small file in the data folder, written by `inbound shadow`, followed by every process.

Another one, the other way round: what keeps the service from following the candidate, which may be a file that it does not see.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "shadow.json"
TROUBLE = "shadow-trouble.json"


class ShadowStateError(Exception):
    """The file cannot be read, or holds what was never written there."""


@dataclass(frozen=True, slots=True)
class ShadowState:
    """The candidate of one run. Times are seconds since the epoch; `stopped` is None while it is tried.

    `text` is what the file held when the run began, for a start at which it holds nothing good.
    """

    run: str
    file: str
    text: str
    started: float
    stopped: float | None = None


def state_file(data: Path) -> Path:
    """Where the state of a data folder is kept."""
    return data / NAME


def read_state(path: Path) -> ShadowState | None:
    """The state; None where there never was a run. Raises ShadowStateError."""
    try:
        told = json.loads(path.read_bytes())
        found = ShadowState(**told)
        if not (isinstance(found.run, str) and isinstance(found.file, str) and isinstance(found.text, str) and isinstance(found.started, float)):
            raise TypeError
        if not isinstance(found.stopped, float | None):
            raise TypeError
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ShadowStateError(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise ShadowStateError(f"{path} is damaged: begin anew with inbound shadow FILE") from None
    return found


def write_state(path: Path, state: ShadowState) -> None:
    """Replace the state whole, readable by its owner only. Raises OSError that names `path`."""
    _write(path, asdict(state))


def read_trouble(path: Path, run: str) -> str:
    """What kept the service the last time from following the candidate of this run, a line each; empty where nothing did."""
    try:
        told = json.loads(path.with_name(TROUBLE).read_bytes())
        return str(told["trouble"]) if told["run"] == run else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_trouble(path: Path, run: str, trouble: str) -> None:
    """Tell it to `read_trouble`, beside the state file `path`; empty: nothing is wrong any more. Raises OSError."""
    if trouble:
        _write(path.with_name(TROUBLE), {"run": run, "trouble": trouble})
    else:
        path.with_name(TROUBLE).unlink(missing_ok=True)


def _write(path: Path, told: dict[str, Any]) -> None:
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "w") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name:
            with contextlib.suppress(OSError):
                Path(name).unlink()
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
