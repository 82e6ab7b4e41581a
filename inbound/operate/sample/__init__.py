"""What a new user gets to start from: the sample rule file, and the function that unnamed Lambda functions become."""

from __future__ import annotations

from pathlib import Path

RULES = "rules.yaml"


def sample_rules() -> str:
    """The text of the sample rule file: in the wheel it lies beside this file, in a checkout at the top."""
    here = Path(__file__).parent / RULES
    return (here if here.exists() else Path(__file__).parents[3] / RULES).read_text(encoding="utf-8")


def write_sample(path: Path) -> bool:
    """Write the sample to `path` if nothing is there; whether it was written."""
    if path.exists() or path.is_symlink():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sample_rules(), encoding="utf-8")
    return True
