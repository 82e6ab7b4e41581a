"""What a test needs beyond Python. Where it is missing the test is skipped with the reason, but fails where CI=true:
CI never passes by not looking.

Call these within a test or a fixture: `strace = needs("strace")`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def needs(program: str, *, why: str = "") -> str:
    """The path of `program`, from this interpreter's own folder or the PATH; skips the test where there is none."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(program)
    return found or missing(f"{program} is not installed" + (f": {why}" if why else ""))


def needs_module(name: str, *, why: str = "") -> ModuleType:
    """The imported module `name`; skips the test where it is not installed. One that is there and broken raises as ever."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        missing(f"the module {name} is not installed" + (f": {why}" if why else ""))


def missing(reason: str) -> NoReturn:
    """Skip the test for `reason`; fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip this: {reason}", pytrace=False)
    pytest.skip(reason)
