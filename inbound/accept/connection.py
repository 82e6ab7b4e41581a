"""One client connection below the words of SMTP: reads, writes, lines, time and TLS. The one door to aiosmtpd.

It keeps aiosmtpd's connection handling and STARTTLS and replaces what costs or harms: the introspection, task and timers of
every connection, and cancellation by a lost one. The private attributes it and its sessions lean on are listed in `PRIVATE`; a test
holds aiosmtpd to them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, AnyStr, Self, TypeVar

from aiosmtpd.smtp import SMTP, TLSSetupException

from inbound.accept import reply
from inbound.accept.reply import Refusal, Reply

if TYPE_CHECKING:
    from inbound.accept.listener import Listener

PRIVATE = ("_reader", "_writer", "_handle_client", "_handler_coroutine", "_create_session", "_reset_timeout", "_timeout_cb", "_timeout_handle",
           "_set_rset_state", "_original_transport", "_tls_protocol", "_drain_helper", "_drain_waiters")

LINE_LIMIT = 2048  # RFC 5321 §4.5.3.1.4 asks for 512; Postfix takes 2048
SKIP_LIMIT = 1024 * 1024  # an overlong command line is read to its end, up to this
CHUNK = 128 * 1024
LINGER = 5.0  # seconds that a client has to read our last reply, and to close TLS

T = TypeVar("T")


class Closed(Exception):
    """The client is gone; there is nobody to answer."""


class Connection(SMTP):
    """What a session is spoken over. It ends with the client, with its time, or when `close` is called."""

    # aiosmtpd types these Optional; here they exist from connection_made to connection_lost
    session: Any
    transport: Any
    _writer: Any
    _reader: Any
    _handler_coroutine: asyncio.Task[None] | None  # None while there is nothing to do
    _drain_helper: Callable[[], Awaitable[None]]
    _drain_waiters: deque[asyncio.Future[None]]
    listener: Listener
    secure: bool  # TLS from the first octet on
    deadline: float  # when the client's time is up, by the loop's clock
    alarm: float  # when it is looked at next, which may be before
    closing: bool

    def begin(self, listener: Listener, *, secure: bool) -> Self:
        """A new connection made from this template, without the introspection of SMTP.__init__ (121 µs a connection)."""
        connection = object.__new__(type(self))
        connection.__dict__.update(self.__dict__)  # copy.copy, at a sixth of its time
        connection._reader = asyncio.StreamReader(limit=CHUNK // 2, loop=self.loop)
        connection._drain_waiters = deque()
        connection.listener = listener
        connection.secure = secure
        connection.deadline, connection.alarm = 0.0, math.inf
        connection.closing = False
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, or TLS is. aiosmtpd would begin each with a task; `resume` begins one when there is something to do."""
        if self.transport is not None:
            # aiosmtpd changes the writer, which has no other use; it must outlive the transport, for it closes what is open at its end
            self._writer = asyncio.StreamWriter(self.transport, self, self._reader, self.loop)
            super().connection_made(transport)
            return
        self.transport = transport
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self._reader.set_transport(transport)
        self._reset_timeout()

    def data_received(self, data: bytes) -> None:
        """What has come from the client."""
        self._reader.feed_data(data)
        self.resume()

    def resume(self) -> None:
        """Have what has come carried out, by a task that ends when nothing is left of it."""
        if self._handler_coroutine is None and not self.closing:
            self._handler_coroutine = self.loop.create_task(self._handle_client())

    @property
    def has_work(self) -> bool:
        """Has something come that was not taken, or the end of all?"""
        reader = self._reader
        return bool(reader._buffer) or reader.at_eof() or reader.exception() is not None

    def refuse(self, answer: Reply, command: str | bytes, **facts: Any) -> None:
        """Answer with a refusal, and log it."""
        raise NotImplementedError

    def handshake_failed(self, cause: BaseException | None) -> None:
        """Log a handshake that came to nothing."""
        raise NotImplementedError

    def connection_lost(self, error: Exception | None) -> None:
        """End the reads and writes of the session. Its task is not cancelled: a commit under way must not be torn (F4).

        What failed in `data_received` comes here too. To the reads it is a lost connection as any other: each would raise it again, without end.
        """
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        if self._original_transport is not None:
            self._original_transport.close()
        if error is None:
            self._reader.feed_eof()
        else:
            error = error if isinstance(error, OSError) else ConnectionAbortedError()
            self._reader.set_exception(error)
        asyncio.streams.FlowControlMixin.connection_lost(self, error)
        self.transport = None

    def eof_received(self) -> bool | None:
        """A half-closed client may still await its reply."""
        self._reader.feed_eof()
        self.resume()
        return self.session.ssl is None

    def _reset_timeout(self, duration: float | None = None) -> None:
        deadline = self.deadline = self.loop.time() + (duration or self.listener.limits.command_timeout)
        if deadline < self.alarm:
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            self._set_alarm(deadline)

    def _set_alarm(self, deadline: float) -> None:
        self.alarm = deadline
        self._timeout_handle = self.loop.call_at(deadline, self._timeout_cb)

    def _timeout_cb(self) -> None:
        if self.loop.time() < self.deadline:
            self._set_alarm(self.deadline)
        else:
            self.refuse(reply.TIMED_OUT, "")
            self.close()

    def close(self) -> None:
        """Close when what was written has gone out, and TLS has been closed from both sides; after LINGER in any case."""
        if self.closing:
            return  # a TLS transport forgets its connection when it is closed twice, and nothing could abort it then
        self.closing = True
        transport = self.transport
        if transport is None:
            return
        if self.session.ssl is not None or transport.get_write_buffer_size():  # a TLS transport that the client closed too has no buffer to ask
            self.loop.call_later(LINGER, transport.abort)
        transport.close()

    def send(self, answer: Reply) -> None:
        """Write a reply."""
        self.write(answer.octets)

    def write(self, octets: bytes) -> None:
        """Write to the client; to none when it is gone."""
        if self.transport is not None:
            self.transport.write(octets)

    @property
    def is_behind(self) -> bool:
        """Has the client still to take what was written?"""
        return self.transport is not None and not self.transport.is_closing() and self.transport.get_write_buffer_size() > 0

    async def push(self, status: AnyStr) -> None:
        """aiosmtpd's own words: only the 220 of smtp_STARTTLS comes here, and goes out as ours, unless TLS is taken for granted."""
        if self.secure:
            return
        self.send(reply.START_TLS if str(status).startswith("220") else reply.INTERNAL)
        await self.drained()

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written. Raises Closed."""
        await self._with_client(self._drain_helper())

    async def _with_client(self, operation: Awaitable[T]) -> T:
        """Read from the client, or write to it. Raises Closed when it is gone, so that this never looks like an OSError of our own."""
        try:
            return await operation
        except (asyncio.IncompleteReadError, OSError) as error:
            error.__traceback__ = None  # the reader keeps the error: it would keep the session alive
            raise Closed from None

    # --- reading ---

    async def read(self, seconds: float, limit: int = CHUNK) -> bytes:
        """The next octets, whatever they are, `limit` at most; the client has so many seconds. Raises Closed."""
        self._reset_timeout(seconds)
        chunk: bytes = await self._with_client(self._reader.read(min(limit, CHUNK)))
        if not chunk:
            raise Closed
        return chunk

    def unread(self, octets: bytes) -> None:
        """Put back what was read too much."""
        self._reader._buffer[:0] = octets

    async def line(self) -> bytes:
        """The next command line, without its line end; CRLF or LF. Raises Closed, Refusal."""
        reader = self._reader
        end = reader._buffer.find(b"\n", 0, LINE_LIMIT)
        if end >= 0:  # one line has come, as from nearly all clients: `readuntil` takes four times as long
            line = bytes(reader._buffer[: end + 1])
            del reader._buffer[: end + 1]
        else:
            line = await self._rest_of_line()
        if len(line) > LINE_LIMIT:
            raise Refusal(reply.LINE_TOO_LONG)
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        if b"\r" in line or b"\0" in line:
            raise Refusal(reply.PROXY if line == b"\0" else reply.BAD_COMMAND)  # in version 2 the third line is a NUL
        return line

    async def _rest_of_line(self) -> bytes:
        """A line that comes in parts, with its end. Raises Closed, Refusal."""
        try:
            line: bytes = await self._with_client(self._reader.readuntil(b"\n"))
        except asyncio.LimitOverrunError as error:
            await self._skip_line(error.consumed)
            raise Refusal(reply.LINE_TOO_LONG) from None
        return line

    async def _skip_line(self, consumed: int) -> None:
        skipped = 0
        while skipped < SKIP_LIMIT:
            skipped += len(await self._with_client(self._reader.read(consumed)))
            try:
                await self._with_client(self._reader.readuntil(b"\n"))
            except asyncio.LimitOverrunError as error:
                consumed = error.consumed
            else:
                return
        self.refuse(reply.ENDLESS, "")
        self.close()
        raise Closed

    # --- TLS ---

    async def _start_tls(self) -> None:
        """Shake hands. aiosmtpd upgrades the transport and forgets what was said in clear. Raises Closed when nothing comes of it."""
        self.tls_context = self.listener.tls.context if self.listener.tls is not None else None
        if self.secure:
            self._hold_back()
        cause: BaseException | None = None
        try:
            await super().smtp_STARTTLS("")
        except TLSSetupException as error:
            cause = error.__cause__
            if cause is not None:
                cause.__traceback__ = None  # for it is kept, and would keep the session alive
        if self.session.ssl is None:
            self.handshake_failed(cause)
            self.connection_lost(None)  # asyncio does not tell a protocol that has not seen its handshake end
            raise Closed

    def _hold_back(self) -> None:
        """Keep what already came of a handshake for the TLS layer, and let nothing overtake it."""
        early = bytes(self._reader._buffer)
        self._reader._buffer.clear()
        if self._reader.at_eof():
            raise Closed
        if early:
            self.transport.pause_reading()
            self.loop.call_soon(self._hand_over, self.transport, early)

    def _hand_over(self, transport: Any, octets: bytes) -> None:
        layer: Any = self._tls_protocol
        while octets:
            buffer = layer.get_buffer(len(octets))
            count = min(len(buffer), len(octets))
            buffer[:count] = octets[:count]
            layer.buffer_updated(count)
            octets = octets[count:]
        transport.resume_reading()
