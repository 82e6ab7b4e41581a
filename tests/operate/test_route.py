"""What people are told of the route of a message, from the trace that it is made of."""

from __future__ import annotations

from typing import Any

import click

from inbound.operate.cli.route import render, verdict_lines

SINK = "lambda:arn:aws:lambda:us-east-1:000000000000:function:f"


def trace(**fields: Any) -> dict[str, Any]:
    return {"id": "abc", "state": "done", "disposition": "COMPLETED", "error": "", "waits_for": "", "due": None, "verdicts": {}, "rules": []} | fields


def test_scans_that_no_rule_asked_for_say_so_once() -> None:
    off = {"status": "DISABLED", "reason": "no rule that matches has ScanEnabled"}
    told = verdict_lines({"spf": {"status": "PASS", "reason": "fine"}, "spam": off, "virus": off})
    assert told[1:] == ["    spam, virus: no rule that matches has ScanEnabled", ""]


def test_a_message_that_waits_names_its_sink_once_and_how_to_hurry_it() -> None:
    last = click.unstyle(render(trace(state="deferred", error=f"{SINK}: no answer", waits_for=SINK))).splitlines()[-1]
    assert last == f"deferred: no answer; waits for {SINK}, tried again when it answers; at once: inbound queue retry abc"


def test_what_strangers_wrote_does_not_steer_the_terminal() -> None:
    rule = {"name": "r", "reason": "no recipient matches", "why": "no recipient (\x1b[2J\u009b31m@example.com) matches", "actions": []}
    assert "\x1b[2J" not in render(trace(rules=[rule]))
    assert "\x1b[2J" not in render(trace(rules=[{**rule, "reason": "matched"}]))
