"""One message in the worker's hands: what the actions read from it, made once and only when an action asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess import forged
from inbound.assess.message import HEAD, Field, Message, beginning, header_block, parse
from inbound.assess.rendering import HeaderField, Rendering, render, visible_fields
from inbound.assess.turns import INLINE, turns
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
        self._octets = 0
        self._may_keep = True
        self._kept: Message | None = None
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
        """Take the content. Its header is read when an action asks; a large one when it is its turn, beside the event loop."""
        self._content = content
        length = content.size if content.size <= INLINE else forged.header_length(beginning(content))
        self._octets = content.size if length is None else length
        if self._octets > INLINE:
            self._may_keep = turns().may_keep(self)
            await turns().take(self._octets, lambda: self._forged)

    def _message(self) -> Message:
        """The header. What is read of a large one is kept by some only, since hundreds may be in hand; others read it again."""
        if self._kept is not None:
            return self._kept
        message = parse(self.content.head(HEAD), authserv_id=self._identity.authserv_id)
        if self._may_keep:
            self._kept = message
        return message

    @cached_property
    def _forged(self) -> Sequence[int]:
        return forged.offsets(self.content, authserv_id=self._identity.authserv_id)

    def add_header(self, name: str, value: str) -> None:
        """Put a header field on top of the message."""
        self._added.append((name, value))

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    @property
    def fields(self) -> Sequence[Field]:
        """The header fields of the message as it came."""
        return self._message().fields

    def header(self) -> bytes:
        """The header block of the message as it came, or as much of it as is read."""
        return header_block(self.content.head(HEAD))[0]

    def reception(self) -> Sequence[HeaderField]:
        """The trace fields (RFC 5321 §4.4) that we add: Return-Path and Received."""
        trace = trace_headers(self.envelope, self.assessment, hostname=self._identity.hostname, authserv_id=self._identity.authserv_id,
                              scan=False)
        return [(name, value) for name, value in trace if name in ("Return-Path", "Received")]

    def rendering(self, step: Step) -> Rendering:
        """The octets that consumers of this step's rule get."""
        key = step.rule.ScanEnabled, len(self._added)
        if key not in self._renderings:
            self._renderings[key] = render(self.content, added=self._added, trace=self._trace(step), forged=self._forged)
        return self._renderings[key]

    async def notification(self, step: Step) -> str:
        """The JSON for the step's topic."""
        return await turns().take(self._octets, lambda: notification(self._received(step), step.action))

    def publication(self, step: Step) -> str:
        """The JSON with the message in it. The last one is kept: it is measured before it is published."""
        if self._published is None or self._published[0] != step.digest:
            with turns().taken():
                self._published = step.digest, notification(self._received(step), step.action, self.rendering(step).read())
        return self._published[1]

    async def event(self, step: Step, action: Lambda) -> str:
        """The JSON event for a function."""
        return await turns().take(self._octets, lambda: lambda_event(self._received(step), action))

    @property
    def content(self) -> Content:
        """The message as it came. Raises RuntimeError before it is open."""
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
        message = self._message()
        return Received(
            envelope=self.envelope, message=message, fields=visible_fields(message, added=self._added, trace=self._trace(step)),
            assessment=self.assessment, recipients=step.recipients, scan=step.rule.ScanEnabled,
            milliseconds=int((self._clock() - self.envelope.received_at) * 1000),
        )
