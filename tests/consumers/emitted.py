"""What consumers get in every golden case: tests/golden holds these files to what the code emits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def _read(pattern: str) -> dict[str, dict[str, Any]]:
    return {f"{path.parent.name}/{path.name}": json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob(f"*/{pattern}"))}


EVENTS = _read("*.event.json")
"""Every Lambda event, by CASE/FILE."""

NOTIFICATIONS = _read("*.notification.json")
"""Every notification, by CASE/FILE."""


def message(told: dict[str, Any]) -> dict[str, Any]:
    """`mail` and `receipt` of an event or notification."""
    found: dict[str, Any] = told["Records"][0]["ses"] if "Records" in told else {name: told[name] for name in ("mail", "receipt")}
    return found
