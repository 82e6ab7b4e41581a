"""What `inbound dev` shows: the first screen, then one readable line a message, made from the same events that `serve` logs as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click
from click.globals import resolve_color_default

from inbound.log import Event, EventDict, plain
from inbound.operate.cli.route import safe

_NAMES_SHOWN = 12
HIDDEN = frozenset((Event.SERVICE_STARTED, Event.MESSAGE_RECEIVED))
"""What the first screen and the line of the whole route tell already."""


class Screen:
    """Renders log events for people. `names` tells what the rules name, for a recipient that none of them matches.

    `where` is what a command needs to find the data folder: ` --data DIR`, or nothing.
    """

    def __init__(self, where: str = "") -> None:
        self.where = where
        self.names: Callable[[], Sequence[str]] = list
        self._colour = sys.stdout.isatty() and resolve_color_default() is not False

    def render(self, _logger: Any, _method: str, event: EventDict) -> str:
        """One line an event; `key=value` for those that have no form of their own."""
        name = Event(event.pop("event"))
        line = self._line(name, event)
        clock = datetime.now().strftime("%H:%M:%S")  # noqa: DTZ005  # the wall clock of the person who looks
        trace = event.get("exception")
        shown = f"{click.style(clock, dim=True)}  {line}" + (f"\n{trace}" if trace else "")
        return shown if self._colour else click.unstyle(shown)

    def _line(self, name: Event, event: EventDict) -> str:  # noqa: PLR0911, PLR0912  # a table of forms
        match name:
            case Event.MESSAGE_DONE:
                return self._done(event)
            case Event.MESSAGE_DEFERRED:
                return (f"{_word('deferred', 'yellow')}  {event['id']}  again in {event['retry_in']:.0f} s, "
                        f"at once: inbound queue retry {event['id']}{self.where}\n          {safe(event['error'])}")
            case Event.MESSAGE_DEAD:
                return f"{_word('dead', 'red')}  {event['id']}  to try again: {event['retry']}{self.where}\n          {safe(event['error'])}"
            case Event.SESSION_REFUSED:
                return self._refused(event)
            case Event.RULES_LOADED:
                return f"{_word('rules', 'green')}  {event['file']}: {event['rules']} rules in force, revision {event['revision']}"
            case Event.RULES_REJECTED:
                errors = "\n          ".join(event["errors"])
                return f"{_word('rules', 'red')}  {event['file']} is not used, revision {event['kept']} stays:\n          {errors}"
            case Event.SHADOW_LOADED:
                return f"{_word('shadow', 'green')}  {event['file']}: {event['rules']} rules tried on every message, revision {event['revision']}"
            case Event.SHADOW_REJECTED:
                errors = "\n          ".join(event["errors"])
                kept = f"revision {event['kept']} is tried on" if event["kept"] else "nothing is tried"
                return f"{_word('shadow', 'red')}  {event['file']} is not tried, {kept}:\n          {errors}"
            case Event.SHADOW_STOPPED:
                return f"{_word('shadow', 'yellow')}  {event['file']} is not tried any more"
            case Event.SINK_DOWN:
                return f"{_word('sink', 'red')}  {event['sink']} is down: {safe(event['error'])}"
            case Event.SINK_UP:
                return f"{_word('sink', 'green')}  {event['sink']} answers again"
            case Event.DEV_AWS:
                return f"{_word('aws', 'cyan')}  {event['line']}"
            case Event.SERVICE_WARNING:
                return f"{_word('warning', 'yellow')}  {event['warning']}"
            case Event.SERVICE_DRAINING:
                return "stopping: open transactions and messages in hand are finished first; Ctrl-C again ends at once"
            case Event.SERVICE_STOPPED:
                return "stopped"
            case Event.SPOOL_RECOVERED:
                waiting = ", ".join(f"{event[state]} {state}" for state in ("active", "deferred", "dead") if state in event)
                return f"spool     {waiting} from before; inbound queue list{self.where}"
        shown = {key: value for key, value in event.items() if key not in ("time", "level", "exception") and value not in ("", None)}
        fields = " ".join(f"{key}={plain(value)}" for key, value in shown.items())
        return f"{name}  {fields}"

    def _done(self, event: EventDict) -> str:
        recipients = ", ".join(plain(r) for r in event["recipients"])
        steps = "; ".join(event["steps"]) or "no rule matched"
        word = "replayed" if event.get("replay") else "received"
        return (f"{_word(word, 'green')}  {plain(event['sender'] or '<>')} -> {recipients}  {event['size']} octets  "
                f"{plain_steps(steps)}  {event['seconds'] * 1000:.0f} ms  {click.style(event['id'], dim=True)}")

    def _refused(self, event: EventDict) -> str:
        told = f"{_word('refused', 'yellow')}  {plain(event['client'])}  {safe(event['reply'])}"
        if event["reason"] != "no rule":
            told += f"  to {plain(event['recipient'])}" if event.get("recipient") else ""
        else:
            names = list(self.names())
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            told += f"  no enabled rule matches {plain(event['recipient'])}; the rules name: {', '.join(names[:_NAMES_SHOWN]) or 'nothing'}{more}"
        return told


def _word(word: str, colour: str) -> str:
    return click.style(f"{word:<8}", fg=colour)


def plain_steps(text: str) -> str:
    """Steps hold only names from the rule file, but those may hold anything printable."""
    return "".join(c if c.isprintable() else "?" for c in text)
