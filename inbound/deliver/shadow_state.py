"""Which candidate rule file is tried beside the rules: a small file in the data folder, written by `inbound shadow`, followed by every process."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "shadow.json"


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
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=path.parent)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name:
            with contextlib.suppress(OSError):
                Path(name).unlink()
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
