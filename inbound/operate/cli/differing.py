"""What other rules would do differently, a line each with its mark, as `replay` and `shadow` both show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from inbound.operate.cli.route import safe

COLOURS = {"-": "red", "+": "green", "~": "yellow", "!": "yellow", ">": "cyan"}
MOVED = "   for other recipients, or in another order"


def differing(difference: Mapping[str, Any], *, several: bool = False) -> Iterator[str]:
    """The lines of a difference of one message (with the recipients of its steps where there are `several`) or of a group of messages."""
    for mark, key, more in (("-", "removed", ""), ("+", "added", ""), ("~", "moved", MOVED)):
        for each in difference.get(key, ()):
            yield marked(mark, step(each) + (f"  for {', '.join(each['Recipients'])}" if several else "") + more)
    for note in difference["notes"]:
        yield marked("!", note)


def marked(mark: str, text: str) -> str:
    """A line with its mark, in the colour of that."""
    return click.style(f"    {mark} {safe(text)}", fg=COLOURS[mark])


def step(told: Mapping[str, Any]) -> str:
    """`support: S3Action: {BucketName: mail}`."""
    from inbound.decide.cases import inline  # noqa: PLC0415  # --help need not pay for it

    (key, value), *_ = ((key, value) for key, value in told.items() if key not in ("Rule", "Recipients"))
    return f"{told['Rule']}: {key}: {inline(value)}"


def messages(count: int) -> str:
    """So many messages, in words."""
    return "1 message" if count == 1 else f"{count} messages"
