"""What the route of a message tells of its bounces, for people."""

from __future__ import annotations

from typing import Any

import click
import pytest

from inbound.operate.cli.route import render

BOUNCE = {"to": "ann@sender.example", "bounce": "550 5.1.1 Mailbox does not exist"}


def told(detail: dict[str, Any], kind: str = "Bounce") -> str:
    attempt = {"part": "action", "attempt": 1, "started": "", "milliseconds": 7, "outcome": "done", "flow": "CONTINUE", "sink": "", "error": "",
               "detail": detail}
    action = {"index": 0, "action": kind, "state": "done", "assumed": False, "topic": None, "attempts": [attempt]}
    rule = {"name": "gone", "reason": "matched", "why": "", "actions": [action]}
    route = render({"rules": [rule], "state": "done", "disposition": "COMPLETED", "verdicts": {}})
    return next(line.strip() for line in click.unstyle(route).splitlines() if line.startswith(f"    {kind} "))


@pytest.mark.parametrize(("detail", "says"), [
    ({"messageId": "1@mx", "reply": "250 2.0.0 queued"}, "550 5.1.1 Mailbox does not exist to ann@sender.example; 250 2.0.0 queued"),
    ({"suppressed": "it is list mail (List-Id)"}, "550 5.1.1 Mailbox does not exist to ann@sender.example; suppressed: it is list mail (List-Id)"),
    ({"messageId": "1@mx", "refused": "RCPT: 550 no"}, "550 5.1.1 Mailbox does not exist to ann@sender.example; refused: RCPT: 550 no"),
    ({"to": "", "suppressed": "the reverse-path is null"}, "550 5.1.1 Mailbox does not exist to <>; suppressed: the reverse-path is null"),
    ({"to": "a\x1b[31m@b", "reply": "ok"}, r"550 5.1.1 Mailbox does not exist to a\x1b[31m@b; ok"),
])
def test_what_became_of_it(detail: dict[str, Any], says: str) -> None:
    assert told(BOUNCE | detail) == f"Bounce     done     {says}"


def test_what_was_too_long_for_a_topic() -> None:
    detail = {"unfit": "552 5.2.3 the message has 160000 octets", "to": "a@b", "bounce": "552 5.2.3 Message length exceeds limit", "reply": "250 OK"}
    assert told(detail, "SNS") == "SNS        done     552 5.2.3 Message length exceeds limit to a@b; 250 OK"
