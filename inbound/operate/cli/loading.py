"""Loads the rule file for a command: errors end it as `inbound check` would."""

from __future__ import annotations

from pathlib import Path

from inbound.decide.load import Loaded, RulesError, RulesUnreadableError, load
from inbound.operate.cli import complain, fail


def rules_of(file: Path) -> Loaded:
    """The rules. Prints every error and exits with 1, or with 2 where there is no file to read."""
    try:
        return load(file)
    except RulesUnreadableError as error:
        fail(str(error))
    except RulesError as error:
        complain(str(error), 1)
