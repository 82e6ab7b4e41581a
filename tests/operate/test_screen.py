"""The lines of `inbound dev`, from the events that they are made of."""

from __future__ import annotations

from typing import Any

import pytest

from inbound.log import Event
from inbound.operate.cli.screen import Screen

ID = "0123456789abcdefghijklmnopqrstuv01234567"


def shown(event: Event, where: str = "", **fields: Any) -> list[str]:
    text = Screen(where).render(None, "info", {"event": event, "time": "", "level": "info", **fields})
    return [text.split("\n")[0][10:], *text.split("\n")[1:]]


def test_a_message_that_waits_says_when_it_goes_on_and_how_to_hurry_it() -> None:
    assert shown(Event.MESSAGE_DEFERRED, " --data there", id=ID, error='s3:mail: "no"\x1b[2J', retry_in=42.4) == [
        f"deferred  {ID}  again in 42 s, at once: inbound queue retry {ID} --data there", r'          s3:mail: "no"\x1b[2J']


def test_a_dead_letter_is_told_with_a_command_that_finds_it() -> None:
    assert shown(Event.MESSAGE_DEAD, " --data there", id=ID, error="too long", retry=f"inbound queue retry {ID}") == [
        f"dead      {ID}  to try again: inbound queue retry {ID} --data there", "          too long"]


def test_a_recipient_refused_by_a_bounce_is_named() -> None:
    (line,) = shown(Event.SESSION_REFUSED, client="127.0.0.1", reply="550 5.1.1 Gone", reason="bounce", recipient="a@example.com")
    assert line == "refused   127.0.0.1  550 5.1.1 Gone  to a@example.com"


@pytest.mark.parametrize(("event", "fields", "line"), [
    (Event.SERVICE_STOPPED, {}, "stopped"),
    (Event.SERVICE_DRAINING, {}, "stopping: open transactions and messages in hand are finished first; Ctrl-C again ends at once"),
    (Event.SPOOL_RECOVERED, {"deferred": 2, "dead": 1}, "spool     2 deferred, 1 dead from before; inbound queue list"),
])
def test_beginning_and_end_are_told_in_words(event: Event, fields: dict[str, int], line: str) -> None:
    assert shown(event, **fields) == [line]


def test_what_is_tried_beside_the_rules_is_told() -> None:
    assert shown(Event.SHADOW_LOADED, file="new.yaml", rules=3, revision="60530106bd7c") == [
        "shadow    new.yaml: 3 rules tried on every message, revision 60530106bd7c"]
    assert shown(Event.SHADOW_REJECTED, file="new.yaml", errors=["new.yaml:1:1: no", "new.yaml:2:1: no"], kept="60530106bd7c") == [
        "shadow    new.yaml is not tried, revision 60530106bd7c is tried on:", "          new.yaml:1:1: no", "          new.yaml:2:1: no"]
    assert shown(Event.SHADOW_REJECTED, file="new.yaml", errors=["new.yaml:1:1: no"], kept="") == [
        "shadow    new.yaml is not tried, nothing is tried:", "          new.yaml:1:1: no"]
    assert shown(Event.SHADOW_STOPPED, file="new.yaml") == ["shadow    new.yaml is not tried any more"]
