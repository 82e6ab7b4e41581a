"""structlog set-up, and the closed list of event names: what can be logged is decided here, so that alarms can rely on it.

Values come from strangers; both forms of the log escape them, one line an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Collection, MutableMapping
from enum import StrEnum
from typing import Any, TextIO

import structlog

Log = structlog.typing.FilteringBoundLogger
EventDict = MutableMapping[str, Any]
Renderer = Callable[[Any, str, EventDict], str]


class Event(StrEnum):
    """Everything that is ever logged."""

    SERVICE_STARTED = "service.started"
    SERVICE_DRAINING = "service.draining"
    SERVICE_STOPPED = "service.stopped"
    SERVICE_WARNING = "service.warning"
    RULES_LOADED = "rules.loaded"
    RULES_REJECTED = "rules.rejected"
    SESSION_REFUSED = "session.refused"
    SESSION_FAILED = "session.failed"
    TLS_LOADED = "tls.loaded"
    TLS_REJECTED = "tls.rejected"
    TLS_EXPIRES = "tls.expires"
    TLS_EXPIRED = "tls.expired"
    CHECK_FAILED = "check.failed"
    MESSAGE_RECEIVED = "message.received"
    MESSAGE_DEFERRED = "message.deferred"
    MESSAGE_DEAD = "message.dead"
    MESSAGE_DONE = "message.done"
    SINK_DOWN = "sink.down"
    SINK_UP = "sink.up"
    SPOOL_FAILED = "spool.failed"
    SPOOL_RECOVERED = "spool.recovered"
    INTAKE_CLOSED = "intake.closed"
    INTAKE_OPENED = "intake.opened"
    ALERT_FAILED = "alert.failed"
    WORKER_FAILED = "worker.failed"
    DEV_AWS = "dev.aws"


def configure(form: str = "", *, level: str = "info", stream: TextIO | None = None, renderer: Renderer | None = None,
              hidden: Collection[Event] = ()) -> None:
    """Set the log up for the process. `form` is `json` or `text`; empty means text on a terminal, else json.

    `renderer` takes the place of both forms; events in `hidden` are not shown.
    """
    out = stream or sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a sender's address must not fail a session because the terminal cannot show it
    text = form == "text" or (not form and out.isatty())
    structlog.configure(
        processors=[
            *([_Hide(hidden)] if hidden else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            renderer or (render_text if text else render_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_Lines(out),
        cache_logger_on_first_use=False,
    )
    for name in ("mail.log", "aiohttp.access", "botocore", "boto3", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they know, our own events tell


class _Lines:
    """Writes lines, all that one turn of the event loop brings with one call; at once where no loop runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: list[str] = []

    def __call__(self, *_: Any) -> _Lines:
        return self

    def msg(self, line: str) -> None:
        """Write a line."""
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._write)
            except RuntimeError:
                self._write()

    debug = info = warning = error = critical = msg

    def _write(self) -> None:
        lines, self._waiting = self._waiting, []
        with contextlib.suppress(OSError):  # a full disk, or a reader that went: mail goes on without its log
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()


class _Hide:
    def __init__(self, events: Collection[Event]) -> None:
        self._events = frozenset(events)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        if event["event"] in self._events:
            raise structlog.DropEvent
        return event


def get() -> Log:
    """The logger of the process."""
    logger: Log = structlog.get_logger().bind()
    return logger


_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


def _encode(value: Any) -> str:
    return _json(value).replace("\x7f", "\\u007f")  # the one control character that JSON lets pass


def render_json(_logger: Any, _method: str, event: EventDict) -> str:
    """One JSON object: time, level, event, then the fields."""
    head = {"time": event.pop("time"), "level": event.pop("level"), "event": str(event.pop("event"))}
    return _encode({**head, **event})


def plain(value: Any) -> str:
    """The value for people: as it is when it is one printable word, else as a JSON string."""
    text = value if isinstance(value, str) else _encode(value) if isinstance(value, dict | list | tuple) else str(value)
    return text if text and text.isprintable() and not any(c in text for c in ' "=') else _encode(text)


def render_text(_logger: Any, _method: str, event: EventDict) -> str:
    """`time level event key=value …`; a traceback follows on lines of its own, indented, so that none can pass for an event."""
    time, level, name, trace = event.pop("time"), event.pop("level"), event.pop("event"), event.pop("exception", "")
    fields = " ".join(f"{key}={plain(value)}" for key, value in event.items() if value not in ("", None, ()))
    return f"{time[11:23]} {level:<7} {name:<18} {fields}" + "".join(f"\n    {_shown(line)}" for line in trace.splitlines())


def _shown(line: str) -> str:
    return line if line.isprintable() else _encode(line)[1:-1]
