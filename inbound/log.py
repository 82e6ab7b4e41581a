"""structlog set-up, and the closed list of event names: what can be logged is decided here, so that alarms can rely on it.

Values come from strangers; both forms of the log escape them, one line an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import select
import sys
import time
from collections.abc import Callable, Collection, Iterator, MutableMapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

import structlog

from inbound.compact import encoded_by

GATHER = 0.02  # seconds that a line waits at most under load: a call of its own for each costs a tenth of a small message

Log = structlog.typing.FilteringBoundLogger
EventDict = MutableMapping[str, Any]
Renderer = Callable[[Any, str, EventDict], str]


class Event(StrEnum):
    """Everything that is ever logged."""

    SERVICE_STARTED = "service.started"
    SERVICE_DRAINING = "service.draining"
    SERVICE_STOPPED = "service.stopped"
    SERVICE_WARNING = "service.warning"
    SERVICE_FAILED = "service.failed"
    RULES_LOADED = "rules.loaded"
    RULES_REJECTED = "rules.rejected"
    SESSION_REFUSED = "session.refused"
    SESSION_FAILED = "session.failed"
    TLS_LOADED = "tls.loaded"
    TLS_REJECTED = "tls.rejected"
    TLS_EXPIRES = "tls.expires"
    TLS_EXPIRED = "tls.expired"
    CHECK_FAILED = "check.failed"
    PROCESS_ENDED = "process.ended"
    PROCESS_FAILED = "process.failed"
    MESSAGE_RECEIVED = "message.received"
    MESSAGE_DEFERRED = "message.deferred"
    MESSAGE_DEAD = "message.dead"
    MESSAGE_DONE = "message.done"
    SINK_DOWN = "sink.down"
    SINK_UP = "sink.up"
    SHADOW_LOADED = "shadow.loaded"
    SHADOW_REJECTED = "shadow.rejected"
    SHADOW_STOPPED = "shadow.stopped"
    SPOOL_FAILED = "spool.failed"
    SPOOL_RECOVERED = "spool.recovered"
    INTAKE_CLOSED = "intake.closed"
    INTAKE_OPENED = "intake.opened"
    ALERT_FAILED = "alert.failed"
    WORKER_FAILED = "worker.failed"
    DEV_AWS = "dev.aws"


def configure(form: str = "", *, level: str = "info", stream: TextIO | None = None, renderer: Renderer | None = None,
              hidden: Collection[Event] = (), shared: bool = False) -> None:
    """Set the log up for the process. `form` is `json` or `text`; empty means text on a terminal, else json.

    `renderer` takes the place of both forms; events in `hidden` are not shown. Where other processes write to the same stream, `shared`
    keeps lines whole that a pipe takes whole.
    """
    out = stream or sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a sender's address must not fail a session because the terminal cannot show it
    text = form == "text" or (not form and out.isatty())
    structlog.configure(
        processors=[
            *([_Hide(hidden)] if hidden else []),
            _mark,
            renderer or (render_text if text else render_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_Lines(out, at_once=select.PIPE_BUF if shared else 0),
        cache_logger_on_first_use=False,
    )
    for name in ("mail.log", "aiohttp.access", "botocore", "boto3", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they know, our own events tell


class _Lines:
    """Writes lines: after a quiet time at once, under load those of `GATHER` seconds with one call."""

    def __init__(self, out: TextIO, *, at_once: int = 0) -> None:
        self._out = out
        self._at_once = at_once  # octets; 0: any number
        self._waiting: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that will write what waits
        self._written = 0.0

    def __call__(self, *_: Any) -> _Lines:
        return self

    def msg(self, line: str) -> None:
        """Write a line."""
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write()
            return
        if self._loop is not loop:
            self._loop = loop
            wait = self._written + GATHER - time.monotonic()
            if wait > 0:
                loop.call_later(wait, self.write)
            else:
                loop.call_soon(self.write)

    debug = info = warning = error = critical = msg

    def write(self) -> None:
        """Write what waits."""
        lines, self._waiting, self._loop = self._waiting, [], None
        if not lines:
            return
        self._written = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk, or a reader that went: mail goes on without its log
            for text in _parts(lines, self._at_once):
                self._out.write(text)
                self._out.flush()


def _parts(lines: list[str], at_once: int) -> Iterator[str]:
    """The lines, as many together as `at_once` octets hold; all of them when that is 0."""
    if not at_once:
        yield "\n".join(lines) + "\n"
        return
    part, size = "", 0
    for line in lines:
        octets = len(line.encode("utf-8", "backslashreplace")) + 1
        if part and size + octets > at_once:
            yield part
            part, size = "", 0
        part, size = f"{part}{line}\n", size + octets
    yield part


def flush() -> None:
    """Write what waits to be written: for who ends the process."""
    lines = structlog.get_config()["logger_factory"]
    if isinstance(lines, _Lines):
        lines.write()


class _Hide:
    def __init__(self, events: Collection[Event]) -> None:
        self._events = frozenset(events)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        if event["event"] in self._events:
            raise structlog.DropEvent
        return event


def silent() -> Log:
    """A logger that writes nothing, whatever the process has configured."""
    nothing: Log = structlog.wrap_logger(None, processors=[], wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)).bind()
    return nothing


def get() -> Log:
    """The logger of the process."""
    logger: Log = structlog.get_logger().bind()
    return logger


_json = encoded_by(str)
_second = (0, "")  # of the last event, and how its time is written


def _mark(logger: Any, method: str, event: EventDict) -> EventDict:
    """Level, time, and a traceback as text: structlog's own three processors in one step, which costs a third."""
    global _second  # noqa: PLW0603  # one clock for all
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    if seconds != _second[0]:
        _second = seconds, datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    event["time"] = f"{_second[1]}.{nanoseconds // 1000:06d}Z"
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return structlog.processors.add_log_level(logger, method, event)


def _encode(value: Any) -> str:
    return _json(value).replace("\x7f", "\\u007f")  # the one control character that JSON lets pass


def render_json(_logger: Any, _method: str, event: EventDict) -> str:
    """One JSON object: time, level, event, then the fields."""
    return _encode({"time": event.pop("time"), "level": event.pop("level"), "event": str(event.pop("event")), **event})


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
