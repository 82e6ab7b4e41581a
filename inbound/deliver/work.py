"""One message in the worker's hands: what the actions read from it, made once and only when an action asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess import forged
from inbound.assess.message import HEAD, Field, Message, header_block, parse
from inbound.assess.rendering import HeaderField, Rendering, render, visible_fields
from inbound.assess.verdicts import Assessment, trace_headers
from inbound.decide.engine import Step
from inbound.decide.rules import Lambda
from inbound.deliver.notification import Received, lambda_event, notification


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are in header fields: our host name, and our authserv-id (RFC 8601)."""

    hostname: str
    authserv_id: str


class Work:
    """The message, its verdicts, and the header fields that AddHeader actions have put on it so far."""

    def __init__(self, envelope: Envelope, assessment: Assessment, identity: Identity, *, clock: Callable[[], float]) -> None:
        self.envelope = envelope
        self.assessment = assessment
        self._identity = identity
        self._clock = clock
        self._content: Content | None = None
        self._message = Message()
        self._forged: Sequence[int] = ()
        self._added: list[HeaderField] = []
        self._published: tuple[str, str] | None = None
        self._traces: dict[bool, Sequence[HeaderField]] = {}  # by whether the rule scans
        self._renderings: dict[tuple[bool, int], Rendering] = {}  # by that, and how many fields were added
        self.judged(assessment)

    @property
    def id(self) -> str:
        """The message id."""
        return self.envelope.message_id

    @property
    def is_open(self) -> bool:
        """Is the content at hand?"""
        return self._content is not None

    def judged(self, assessment: Assessment) -> None:
        """Take the verdicts, and the name that DNS gives the client."""
        self.assessment = assessment
        self._traces.clear()
        self._renderings.clear()
        if assessment.client_name and not self.envelope.peer.reverse_name:
            self.envelope = replace(self.envelope, peer=replace(self.envelope.peer, reverse_name=assessment.client_name))

    async def open(self, content: Content) -> None:
        """Take the content and read the header. A header block too large for the event loop is read in a thread."""
        if forged.header_length(content.head(HEAD)) is None and content.size > HEAD:
            await asyncio.to_thread(self._read, content)
        else:
            self._read(content)
        self._content = content

    def _read(self, content: Content) -> None:
        self._message = parse(content.head(HEAD), authserv_id=self._identity.authserv_id)
        self._forged = forged.offsets(content, authserv_id=self._identity.authserv_id)

    def add_header(self, name: str, value: str) -> None:
        """Put a header field on top of the message."""
        self._added.append((name, value))

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    @property
    def fields(self) -> Sequence[Field]:
        """The header fields of the message as it came."""
        return self._message.fields

    def header(self) -> bytes:
        """The header block of the message as it came, or as much of it as is read."""
        return header_block(self._opened().head(HEAD))[0]

    def reception(self) -> Sequence[HeaderField]:
        """The trace fields (RFC 5321 §4.4) that we add: Return-Path and Received."""
        trace = trace_headers(self.envelope, self.assessment, hostname=self._identity.hostname, authserv_id=self._identity.authserv_id,
                              scan=False)
        return [(name, value) for name, value in trace if name in ("Return-Path", "Received")]

    def rendering(self, step: Step) -> Rendering:
        """The octets that consumers of this step's rule get."""
        key = step.rule.ScanEnabled, len(self._added)
        if key not in self._renderings:
            self._renderings[key] = render(self._opened(), added=self._added, trace=self._trace(step), forged=self._forged)
        return self._renderings[key]

    def notification(self, step: Step, *, with_content: bool) -> str:
        """The JSON for the step's topic. The last one with content is kept: it is measured before it is published."""
        if not with_content:
            return notification(self._received(step), step.action)
        if self._published is None or self._published[0] != step.digest:
            self._published = step.digest, notification(self._received(step), step.action, self.rendering(step).read())
        return self._published[1]

    def event(self, step: Step, action: Lambda) -> str:
        """The JSON event for a function."""
        return lambda_event(self._received(step), action)

    def _opened(self) -> Content:
        if self._content is None:
            raise RuntimeError("the content is not open")
        return self._content

    def _trace(self, step: Step) -> Sequence[HeaderField]:
        scan = step.rule.ScanEnabled
        if scan not in self._traces:
            self._traces[scan] = trace_headers(self.envelope, self.assessment, hostname=self._identity.hostname,
                                               authserv_id=self._identity.authserv_id, scan=scan)
        return self._traces[scan]

    def _received(self, step: Step) -> Received:
        return Received(
            envelope=self.envelope, message=self._message, fields=visible_fields(self._message, added=self._added, trace=self._trace(step)),
            assessment=self.assessment, recipients=step.recipients, scan=step.rule.ScanEnabled,
            milliseconds=int((self._clock() - self.envelope.received_at) * 1000),
        )
