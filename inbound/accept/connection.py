"""One client connection below the words of SMTP: reads, writes, lines, time and TLS. The one door to aiosmtpd.

It keeps aiosmtpd's connection handling and STARTTLS and replaces what costs or harms: the introspection of every connection, the
timers, and cancellation by a lost connection. The private attributes it and its sessions lean on are listed in `PRIVATE`; a test
holds aiosmtpd to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, AnyStr, Self, TypeVar

from aiosmtpd.smtp import SMTP, TLSSetupException

from inbound.accept import reply
from inbound.accept.reply import Refusal, Reply

if TYPE_CHECKING:
    from inbound.accept.listener import Listener

PRIVATE = ("_reader", "_writer", "_handle_client", "_reset_timeout", "_timeout_cb", "_timeout_handle", "_set_rset_state",
           "_original_transport", "_tls_protocol", "_cb_client_connected")

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
    listener: Listener
    secure: bool  # TLS from the first octet on
    deadline: float  # when the client's time is up, by the loop's clock
    closing: bool
    listening: bool  # is the session waiting for a command, with nothing before it?

    def begin(self, listener: Listener, *, secure: bool) -> Self:
        """A new connection made from this template, without the introspection of SMTP.__init__ (121 µs a connection)."""
        connection = object.__new__(type(self))
        connection.__dict__.update(self.__dict__)  # copy.copy, at a sixth of its time
        reader = asyncio.StreamReader(limit=CHUNK // 2, loop=self.loop)
        asyncio.StreamReaderProtocol.__init__(connection, reader, client_connected_cb=connection._cb_client_connected, loop=self.loop)
        connection.listener = listener
        connection.secure = secure
        connection.deadline = 0.0
        connection.closing = connection.listening = False
        return connection

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
        asyncio.StreamReaderProtocol.connection_lost(self, error if error is None or isinstance(error, OSError) else ConnectionAbortedError())
        self.transport = None

    def eof_received(self) -> bool | None:
        """A half-closed client may still await its reply."""
        result = asyncio.StreamReaderProtocol.eof_received(self)
        return False if self.session.ssl is not None else result

    def _reset_timeout(self, duration: float | None = None) -> None:
        self.deadline = self.loop.time() + (duration or self.listener.limits.command_timeout)
        if self._timeout_handle is None or self._timeout_handle.cancelled() or self._timeout_handle.when() > self.deadline:
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            self._timeout_handle = self.loop.call_at(self.deadline, self._timeout_cb)

    def _timeout_cb(self) -> None:
        if self.loop.time() < self.deadline:
            self._timeout_handle = self.loop.call_at(self.deadline, self._timeout_cb)
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
        self._writer.write(answer.line())

    @property
    def is_behind(self) -> bool:
        """Has the client still to take what was written?"""
        return self.transport is not None and not self.transport.is_closing() and self.transport.get_write_buffer_size() > 0

    async def push(self, status: AnyStr) -> None:
        """aiosmtpd's own words: only the 220 of smtp_STARTTLS comes here, and goes out as ours, unless TLS is taken for granted."""
        if self.secure:
            return
        self.send(reply.START_TLS if str(status).startswith("220") else reply.INTERNAL)
        await self._with_client(self._writer.drain())

    async def _with_client(self, operation: Awaitable[T]) -> T:
        """Read from the client, or write to it. Raises Closed when it is gone, so that this never looks like an OSError of our own."""
        try:
            return await operation
        except (asyncio.IncompleteReadError, OSError):
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

    async def octets(self) -> None:
        """Wait until something has come, or nothing will. What comes meanwhile may be answered without an end of this. Raises Closed."""
        reader = self._reader
        if not reader._buffer and not reader.at_eof() and reader.exception() is None:
            self.listening = True
            try:
                await self._with_client(reader._wait_for_data("octets"))
            finally:
                self.listening = False

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
