"""The SMTP listener: the one door to aiosmtpd, a thin adapter between its sessions and our policy, framing, replies and spool.

It keeps aiosmtpd's connection handling and STARTTLS and replaces what costs or harms: the introspection of every connection, its
command parsing and replies, line-wise DATA held in memory, timers, `handle_exception`, and cancellation by a lost connection. The
private attributes it leans on are listed in `PRIVATE`; a test holds aiosmtpd to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, AnyStr, ClassVar, Protocol, TypeVar

from aiosmtpd.smtp import SMTP, TLSSetupException

from inbound.accept import address, policy, proxy, reply, xclient
from inbound.accept.envelope import Envelope, Peer, Tls, new_message_id
from inbound.accept.framing import Framer, received_count
from inbound.accept.policy import Limits, Pinned, Trust
from inbound.accept.reply import Refusal, Reply, ReplyError, TemporaryFailure
from inbound.accept.spool import Draft, SpoolError, SpoolFull
from inbound.log import Event, Log

PRIVATE = ("_reader", "_writer", "_handle_client", "_reset_timeout", "_timeout_cb", "_timeout_handle", "_set_rset_state",
           "_original_transport", "_tls_protocol", "_cb_client_connected")

LINE_LIMIT = 2048  # RFC 5321 §4.5.3.1.4 asks for 512; Postfix takes 2048
SKIP_LIMIT = 1024 * 1024  # an overlong command line is read to its end, up to this
CHUNK = 128 * 1024
HEADER_LIMIT = 102_400
JUNK_LIMIT = 100  # commands that bring no message nearer, between two messages
OVERSHOOT = 1000  # recipients refused in one transaction, before the session ends: a sender of twice what we take comes through
RATE_GRACE = 180.0  # seconds of DATA before the minimum rate counts: who says little gets no less time than who says nothing
PROXY_SECONDS = 3.0  # for a PROXY header to arrive
NAME_SECONDS = 2.0  # from the beginning of a session, for the client's reverse name to be found
LINGER = 5.0  # seconds that a client has to read our last reply, and to close TLS
_HTTP_VERBS = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH"))


T = TypeVar("T")


class Intake(Protocol):
    """What a session asks of the stages behind it."""

    def pin(self) -> Pinned:
        """The rule set revision of this moment."""
        ...

    def ready(self) -> Reply | None:
        """The temporary refusal of new messages, or None when they are welcome."""
        ...

    def draft(self, message_id: str) -> Draft:
        """An empty draft for the content of a message."""
        ...

    async def accept(self, envelope: Envelope, draft: Draft) -> None:
        """Make the message durably ours and see to it from then on. Raises SpoolError when it is not ours."""
        ...


class TlsOffer(Protocol):
    """The certificate as handshakes need it."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        ...

    @property
    def works(self) -> bool:
        """Is it fit to be offered?"""
        ...


@dataclass(slots=True)
class Transaction:
    """What MAIL and RCPT have said so far, under the revision pinned at MAIL."""

    pinned: Pinned
    reverse_path: str
    parameters: dict[str, str]
    body: str
    smtputf8: bool
    forward_paths: list[str] = field(default_factory=list)
    refused: int = 0


class Closed(Exception):
    """The client is gone; there is nobody to answer."""


class Session(SMTP):
    """One client connection, from greeting to QUIT."""

    # aiosmtpd types these Optional; here they exist from connection_made to connection_lost
    session: Any
    transport: Any
    _writer: Any
    _reader: Any
    listener: Listener
    secure: bool  # TLS from the first octet on
    peer: Peer  # the client, as policy, logs and envelopes see it
    origin: Peer  # who connected, or whom the PROXY header named; XCLIENT may have made `peer` another
    naming: asyncio.Task[str] | None  # the search for the client's reverse name
    transaction: Transaction | None
    errors: int  # refusals so far
    junk: int  # commands since the last message that brought none nearer
    rank: tuple[int, int]  # how many sessions there were with this one when it began: of all clients, of this one
    connected_at: float  # seconds since the epoch
    deadline: float  # when the client's time is up, by the loop's clock
    draining: bool
    closing: bool

    def begin(self, listener: Listener, *, secure: bool) -> Session:
        """A new session made from this template, without the introspection of SMTP.__init__ (121 µs a connection)."""
        session = copy.copy(self)
        reader = asyncio.StreamReader(limit=CHUNK // 2, loop=self.loop)
        asyncio.StreamReaderProtocol.__init__(session, reader, client_connected_cb=session._cb_client_connected, loop=self.loop)
        session.listener = listener
        session.secure = secure
        session.transaction = session.naming = None
        session.errors = session.junk = 0
        session.rank = (0, 0)
        session.connected_at = time.time()
        session.deadline = 0.0
        session.draining = session.closing = False
        return session

    # --- connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        first = self.transport is None
        super().connection_made(transport)
        if first:
            self.peer = self.origin = self._client(transport)
            self.listener.enter(self)
        elif self.peer is not self.origin:
            self.listener.become(self, self.origin)  # RFC 3207 §4.2: XCLIENT came in clear
            self._search_name()

    def _client(self, transport: asyncio.BaseTransport) -> Peer:
        name = transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return Peer("0.0.0.0")  # noqa: S104  # a peer that was gone before it could be asked
        return Peer(policy.client_address(name[0]), name[1])

    def connection_lost(self, error: Exception | None) -> None:
        """End the reads and writes of the session. Its task is not cancelled: a commit under way must not be torn (F4)."""
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        if self._original_transport is not None:
            self._original_transport.close()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        self.listener.leave(self)

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
            self._refuse(reply.TIMED_OUT, "")
            self.close()

    def close(self) -> None:
        """Close when what was written has gone out, and TLS has been closed from both sides; after LINGER in any case."""
        if self.closing:
            return  # a TLS transport forgets its connection when it is closed twice, and nothing could abort it then
        self.closing = True
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size() or self.session.ssl is not None:
            self.loop.call_later(LINGER, transport.abort)
        transport.close()

    def send(self, answer: Reply) -> None:
        """Write a reply."""
        self._writer.write(answer.line())

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

    def _set_rset_state(self) -> None:
        self.transaction = None

    def drain(self) -> None:
        """Shut down: say 421 now when idle, else after the transaction."""
        self.draining = True
        if self.transaction is None and self.transport is not None and not self.closing:
            self.send(reply.SHUTTING_DOWN)
            self.close()

    # --- commands ---

    async def _handle_client(self) -> None:
        try:
            await self._arrive()
            if self._greet():
                while not self.closing:
                    await self._command()
                    await self._with_client(self._writer.drain())
                    if self.draining:
                        self.drain()
        except Closed:
            pass
        except Exception as error:
            trouble = self.listener.trouble(self, "connect", error)
            with contextlib.suppress(Exception):
                self.send(trouble.reply)
        finally:
            self.close()
            if self.naming is not None:
                self.naming.cancel()

    async def _arrive(self) -> None:
        """What is due before the greeting: a PROXY header, then TLS. Raises Closed."""
        if policy.is_in(self.origin.address, self.listener.trust.proxies):
            self.origin = await self._proxied()
            self.listener.become(self, self.origin)
        if self.secure:
            await self._start_tls()

    async def _proxied(self) -> Peer:
        """The client that the PROXY header names. Raises Closed."""
        octets = b""
        try:
            async with asyncio.timeout(PROXY_SECONDS):
                while (header := proxy.header(octets)) is None:
                    chunk = await self._with_client(self._reader.read(proxy.V2_LIMIT))
                    if not chunk:
                        raise Closed
                    octets += chunk
        except (TimeoutError, proxy.NotProxy) as error:
            self._refuse(reply.PROXY_EXPECTED, "connect", error=str(error) or f"no PROXY header in {PROXY_SECONDS:g} s")
            raise Closed from None
        self._reader._buffer[:0] = octets[header.length :]
        return self.origin if header.client is None else Peer(policy.client_address(header.client[0]), header.client[1])

    def _greet(self) -> bool:
        refusal = self.listener.judge(self)
        if refusal is not None:
            self._refuse(refusal, "connect")
            return False
        self._search_name()
        self.send(Reply(220, "", f"{self.hostname} ESMTP"))
        return True

    def _search_name(self) -> None:
        """Begin to look for the client's reverse name, unless a front end told it."""
        if self.naming is not None:
            self.naming.cancel()
        self.naming = None if self.peer.reverse_name else self.listener.name_of(self.peer.address)

    async def _named(self) -> Peer:
        """The client with its reverse name, as far as that can be found in its time."""
        if self.naming is not None:
            await asyncio.wait((self.naming,))
            self.peer = replace(self.peer, reverse_name=self.naming.result())
            self.naming = None
        return self.peer

    async def _command(self) -> None:
        """Read one command and answer it. An internal error is 451 4.3.0, and the session goes on (F2)."""
        self._reset_timeout()
        verb = b""
        try:
            line = await self._line()
            verb, _, argument = line.partition(b" ")
            verb = verb.upper()
            command = self.COMMANDS.get(verb)
            if command is None:
                raise Refusal(self._unknown(verb))
            await command(self, argument)
        except ReplyError as error:
            self._refuse(error.reply, verb)
        except Closed:
            raise
        except Exception as error:
            self._refuse(self.listener.trouble(self, _printable(verb), error).reply, verb)

    async def _line(self) -> bytes:
        """The next command line, without its line end; CRLF or LF. Raises Closed, Refusal."""
        try:
            line: bytes = await self._with_client(self._reader.readuntil(b"\n"))
        except asyncio.LimitOverrunError as error:
            await self._skip_line(error.consumed)
            raise Refusal(reply.LINE_TOO_LONG) from None
        if len(line) > LINE_LIMIT:
            raise Refusal(reply.LINE_TOO_LONG)
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        if b"\r" in line or b"\0" in line:
            raise Refusal(self._unwanted(reply.PROXY) if line == b"\0" else reply.BAD_COMMAND)  # in version 2 the third line is a NUL
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
        self._refuse(reply.ENDLESS, "")
        self.close()
        raise Closed

    def _unknown(self, verb: bytes) -> Reply:
        if verb in _HTTP_VERBS:
            return self._unwanted(reply.HTTP)
        if verb == b"PROXY":
            return self._unwanted(reply.PROXY)
        return reply.UNKNOWN_COMMAND if verb.isalnum() else reply.BAD_COMMAND

    def _unwanted(self, answer: Reply) -> Reply:
        """The answer to another protocol: the 421 that follows it ends the session."""
        self.errors = self.listener.limits.errors
        return answer

    def _refuse(self, answer: Reply, command: str | bytes, **facts: Any) -> None:
        """Answer with a refusal, log it, and end a session that has had too many."""
        if self.transport is None or self.closing:
            return
        self.send(answer)
        verb = command if isinstance(command, str) else _printable(command)
        self.listener.refused(self, answer, verb, facts)
        if answer.code == 421 or verb == "connect":
            self.close()
            return
        if not answer.is_temporary:
            self.errors += 1
        elif verb != "RCPT" or answer is reply.INTERNAL:  # refused recipients have OVERSHOOT
            self.junk += 1
        if self.errors > self.listener.limits.errors or self.junk > JUNK_LIMIT:
            self._refuse(reply.TOO_MANY_ERRORS, verb)

    def _wasted(self) -> None:
        """Count a command that brings no message nearer."""
        self.junk += 1
        if self.junk > JUNK_LIMIT:
            raise Refusal(reply.TOO_MANY_ERRORS)

    async def _ehlo(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.1."""
        self._hello(argument, extended=True)
        offers = [self.hostname, "PIPELINING", f"SIZE {self.listener.limits.message_size}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        if self.listener.tls is not None and self.listener.tls.works and self.session.ssl is None:
            offers.append("STARTTLS")
        if self.listener.smtputf8:
            offers.append("SMTPUTF8")
        if self._is_front_end():
            offers.append(xclient.OFFER)
        last = len(offers) - 1
        self._writer.write("".join(f"250{' ' if i == last else '-'}{offer}\r\n" for i, offer in enumerate(offers)).encode("ascii"))

    async def _helo(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.1."""
        self._hello(argument, extended=False)
        self.send(Reply(250, "", self.hostname))

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        name = address.helo_name(argument, utf8=self.listener.smtputf8)
        if name is None:
            raise Refusal(reply.NEED_NAME)
        self._wasted()
        self._set_rset_state()
        self.session.host_name = name
        self.session.extended_smtp = extended

    async def _mail(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.2. The rule set revision is pinned here."""
        if not self.session.host_name:
            raise Refusal(reply.NEED_HELO)
        if self.transaction is not None:
            raise Refusal(reply.NESTED_MAIL)
        if self.draining:
            raise ReplyError(reply.SHUTTING_DOWN)
        reverse_path, parameters = address.reverse_path(argument, utf8=self.listener.smtputf8)
        body = policy.mail_parameters(parameters, self.listener.limits, esmtp=self.session.extended_smtp, smtputf8=self.listener.smtputf8)
        smtputf8 = "SMTPUTF8" in parameters
        if not smtputf8 and not reverse_path.isascii():
            raise Refusal(reply.NOT_ASCII)
        not_ready = self.listener.intake.ready()
        if not_ready is not None:
            raise ReplyError(not_ready)
        pinned = self.listener.intake.pin()
        policy.declared_size(parameters, pinned, tls=self.session.ssl is not None)
        self.transaction = Transaction(pinned, reverse_path, parameters, body, smtputf8)
        self.send(reply.MAIL_OK)

    async def _rcpt(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.3. Only what the rules name is accepted; there is no relaying."""
        transaction = self.transaction
        if transaction is None:
            raise Refusal(reply.NEED_MAIL)
        forward_path, parameters = address.forward_path(argument, utf8=transaction.smtputf8)
        if parameters:
            raise Refusal(reply.UNKNOWN_PARAMETER)
        try:
            accepted = policy.recipient(forward_path, transaction.pinned, self.listener.limits, accepted=len(transaction.forward_paths),
                                        tls=self.session.ssl is not None)
        except ReplyError as error:
            transaction.refused += 1
            if transaction.refused > OVERSHOOT:
                raise Refusal(reply.TOO_MANY_ERRORS) from None
            self._refuse(error.reply, "RCPT", sender=transaction.reverse_path, recipient=forward_path)
            return
        transaction.forward_paths.append(accepted)
        self.send(reply.RCPT_OK)

    async def _data(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.4. 250 only when envelope and content are on disk."""
        transaction = self.transaction
        if transaction is None:
            raise Refusal(reply.NEED_MAIL)
        if argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        if not transaction.forward_paths:
            raise Refusal(reply.NO_RECIPIENTS if transaction.refused else reply.NEED_RCPT)
        message_id = new_message_id()
        draft = self.listener.intake.draft(message_id)
        self.send(reply.START_DATA)
        try:
            await self._with_client(self._writer.drain())
            await self._receive(draft)
            await self._accept(transaction, message_id, draft)
        except (Closed, asyncio.CancelledError):
            await draft.discard()
            raise
        except Exception as error:
            size = draft.size
            await draft.discard()
            refusal = error if isinstance(error, ReplyError) else self.listener.trouble(self, "DATA", error)
            self._refuse(refusal.reply, "DATA", sender=transaction.reverse_path, recipients=transaction.forward_paths, size=size)
        finally:
            self._set_rset_state()

    async def _receive(self, draft: Draft) -> None:
        """Stream the content into the draft, until the final dot. What is wrong, with it or with us, is said after that dot.

        Were it said before, the client's content would be taken for commands.
        """
        limits = self.listener.limits
        framer = Framer()
        started = self.loop.time()
        received = 0
        trouble: ReplyError | None = None
        while not framer.ended:
            self._reset_timeout(limits.data_timeout)
            chunk = await self._with_client(self._reader.read(CHUNK))
            if not chunk:
                raise Closed
            received += len(chunk)
            piece = framer.feed(chunk)
            if trouble is None:
                trouble = await self._keep(draft, piece)
            if not framer.ended:
                self._pace(received, self.loop.time() - started)
        if framer.rest:
            self._reader._buffer[:0] = framer.rest  # what was pipelined behind the final dot
        if trouble is not None:
            raise trouble
        if received_count(draft.head(HEADER_LIMIT)) > limits.hops:
            raise Refusal(reply.LOOP)

    async def _keep(self, draft: Draft, piece: bytes) -> ReplyError | None:
        if draft.size + len(piece) > self.listener.limits.message_size:
            await draft.discard()
            return Refusal(reply.TOO_LARGE)
        try:
            if draft.add(piece):
                await draft.flush()
        except Exception as error:
            await draft.discard()
            return self.listener.trouble(self, "DATA", error)
        return None

    def _pace(self, received: int, elapsed: float) -> None:
        """End a session whose DATA never ends or only drips."""
        limits = self.listener.limits
        endless = received > 2 * limits.message_size + SKIP_LIMIT
        if endless or (elapsed > RATE_GRACE and received < limits.min_data_rate * elapsed):
            self._refuse(reply.ENDLESS if endless else reply.TOO_SLOW, "DATA")
            raise Closed

    async def _accept(self, transaction: Transaction, message_id: str, draft: Draft) -> None:
        envelope = Envelope(
            message_id=message_id, peer=await self._named(), helo=self.session.host_name, reverse_path=transaction.reverse_path,
            forward_paths=tuple(transaction.forward_paths), received_at=time.time(), connected_at=self.connected_at,
            revision=transaction.pinned.revision, esmtp=self.session.extended_smtp, tls=self._tls(), body=transaction.body,
            smtputf8=transaction.smtputf8, parameters=tuple(f"{k}={v}" if v else k for k, v in transaction.parameters.items()),
        )
        self.deadline = self.loop.time() + self.listener.limits.command_timeout
        await self.listener.intake.accept(envelope, draft)
        self.junk = 0
        if self.transport is not None:
            self.send(reply.accepted(message_id))

    def _tls(self) -> Tls | None:
        if self.session.ssl is None:
            return None
        tls: ssl.SSLObject = self.session.ssl["ssl_object"]
        return Tls(version=tls.version() or "", cipher=(tls.cipher() or ("",))[0])

    async def _rset(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.5."""
        if argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        self._wasted()
        self._set_rset_state()
        self.send(reply.OK)

    async def _noop(self, _argument: bytes) -> None:
        """RFC 5321 §4.1.1.9."""
        self._wasted()
        self.send(reply.OK)

    async def _vrfy(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.6: never tells who exists."""
        if not argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        self._wasted()
        self.send(reply.VRFY)

    async def _help(self, _argument: bytes) -> None:
        """RFC 5321 §4.1.1.8."""
        self._wasted()
        self.send(reply.HELP)

    async def _quit(self, _argument: bytes) -> None:
        """RFC 5321 §4.1.1.10."""
        self.send(reply.BYE)
        self.close()

    async def _not_offered(self, _argument: bytes) -> None:
        """Known, and not offered."""
        raise Refusal(reply.NOT_IMPLEMENTED)

    def _is_front_end(self) -> bool:
        return policy.is_in(self.origin.address, self.listener.trust.front_ends)

    async def _xclient(self, argument: bytes) -> None:
        """XCLIENT_README: a front end speaks for another client, and the session begins anew with the greeting."""
        if self.transaction is not None:
            raise Refusal(reply.NESTED_MAIL)
        if not self._is_front_end():
            raise Refusal(reply.NOT_TRUSTED)
        said = xclient.attributes(argument)
        self._wasted()
        ip, port, name = self.peer.address, self.peer.port, self.peer.reverse_name
        if said.address is not None:
            ip, port, name = policy.client_address(said.address), 0, ""
        self.listener.become(self, Peer(ip, port if said.port is None else said.port, name if said.name is None else said.name))
        self.session.host_name, self.session.extended_smtp = said.helo, bool(said.extended)
        self._greet()

    async def _starttls(self, argument: bytes) -> None:
        """RFC 3207."""
        if argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        if self.session.ssl is not None:
            raise Refusal(reply.TLS_ALREADY)
        if self.listener.tls is None:
            raise Refusal(reply.NOT_IMPLEMENTED)
        if not self.listener.tls.works:
            raise TemporaryFailure(reply.TLS_UNAVAILABLE)
        await self._start_tls()

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
            self.listener.handshake_failed(self, cause)
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

    COMMANDS: ClassVar[dict[bytes, Callable[[Session, bytes], Any]]] = {
        b"EHLO": _ehlo, b"HELO": _helo, b"MAIL": _mail, b"RCPT": _rcpt, b"DATA": _data, b"RSET": _rset,
        b"NOOP": _noop, b"VRFY": _vrfy, b"HELP": _help, b"QUIT": _quit, b"EXPN": _not_offered, b"TURN": _not_offered,
        b"ETRN": _not_offered, b"AUTH": _not_offered, b"BDAT": _not_offered, b"STARTTLS": _starttls,
        b"XCLIENT": _xclient,
    }


def _printable(verb: bytes) -> str:
    return verb[:40].decode("ascii", "backslashreplace")


class Listener:
    """All SMTP sessions of the process, on any number of addresses. `reverse_name` finds the name of an IP address; empty when there is none."""

    def __init__(self, intake: Intake, log: Log, *, hostname: str, limits: Limits, trust: Trust | None = None, tls: TlsOffer | None = None,
                 smtputf8: bool = False, reverse_name: Callable[[str], Awaitable[str]] | None = None) -> None:
        self.intake = intake
        self.log = log
        self.limits = limits
        self.trust = trust or Trust()
        self.hostname = hostname
        self.tls = tls
        self.smtputf8 = smtputf8
        self._reverse_name = reverse_name
        self._template: Session | None = None
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()
        self._of_client: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._draining = False

    async def open(self, sockets: Sequence[socket.socket], secure: Sequence[socket.socket] = ()) -> None:
        """Serve on sockets that are bound, in the running loop; on `secure` ones TLS begins with the connection."""
        if secure and self.tls is None:
            raise ValueError("implicit TLS needs a certificate")
        loop = asyncio.get_running_loop()
        self._template = Session(handler=object(), hostname=self.hostname, loop=loop)
        for sock in (*sockets, *secure):
            self._servers.append(await loop.create_server(partial(self._session, secure=sock in secure), sock=sock, backlog=1024))

    def _session(self, *, secure: bool = False) -> Session:
        if self._template is None:
            raise RuntimeError("the listener is not open")
        return self._template.begin(self, secure=secure)

    async def drain(self, seconds: float) -> None:
        """Stop listening; idle sessions get 421, transactions may finish within `seconds`, then the rest is cut off."""
        self._draining = True
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.drain()
        if self._sessions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        for session in list(self._sessions):
            session._refuse(reply.SHUTTING_DOWN, "")
            if session.transport is not None:
                session.transport.abort()

    # --- what sessions tell ---

    def enter(self, session: Session) -> None:
        """A session began."""
        self._sessions.add(session)
        self._count(session)

    def leave(self, session: Session) -> None:
        """A session ended."""
        if session not in self._sessions:
            return
        self._sessions.discard(session)
        self._discount(session)
        if not self._sessions:
            self._empty.set()

    def become(self, session: Session, peer: Peer) -> None:
        """A session speaks for another client from here on."""
        if session in self._sessions:  # else it has ended meanwhile
            self._discount(session)
            session.peer = peer
            self._count(session)

    def _count(self, session: Session) -> None:
        key = policy.client_key(session.peer.address)
        self._of_client[key] += 1
        session.rank = (len(self._sessions), self._of_client[key])

    def _discount(self, session: Session) -> None:
        key = policy.client_key(session.peer.address)
        self._of_client[key] -= 1
        if self._of_client[key] <= 0:
            del self._of_client[key]

    def name_of(self, address: str) -> asyncio.Task[str] | None:
        """The search for the reverse name of a client; None where there is nothing to search for. It ends in NAME_SECONDS."""
        if self._reverse_name is None or policy.is_in(address, policy.LOOPBACK):
            return None
        return asyncio.get_running_loop().create_task(self._find_name(self._reverse_name, address))

    async def _find_name(self, reverse_name: Callable[[str], Awaitable[str]], address: str) -> str:
        try:
            async with asyncio.timeout(NAME_SECONDS):
                return await reverse_name(address)
        except TimeoutError:
            return ""
        except Exception as error:
            self.log.error(Event.SESSION_FAILED, client=address, command="connect", error=repr(error), exc_info=error)
            return ""

    def judge(self, session: Session) -> Reply | None:
        """The refusal of a session that just began, or None."""
        if self._draining:
            return reply.SHUTTING_DOWN
        connections, of_client = session.rank
        return policy.connection(session.peer.address, self.intake.pin(), self.limits, connections=connections, of_client=of_client)

    def refused(self, session: Session, answer: Reply, command: str, facts: dict[str, Any]) -> None:
        """Log one refusal."""
        name = session.session.host_name if session.session else None
        self.log.info(Event.SESSION_REFUSED, client=session.peer.address, helo=name or "", command=command, reason=answer.reason,
                      reply=str(answer), **facts)

    def handshake_failed(self, session: Session, cause: BaseException | None) -> None:
        """Log a TLS handshake that came to nothing; there is nobody left to answer."""
        self.log.info(Event.SESSION_REFUSED, client=session.peer.address, helo=session.session.host_name or "",
                      command="connect" if session.secure else "STARTTLS", reason="tls handshake", reply="", error=str(cause or ""))

    def trouble(self, session: Session, command: str, error: Exception) -> ReplyError:
        """The temporary failure that our own trouble is to the client; logged with its cause."""
        if isinstance(error, SpoolError):
            self.log.error(Event.SPOOL_FAILED, client=session.peer.address, error=str(error))
            return ReplyError(reply.SPOOL_FULL if isinstance(error, SpoolFull) else reply.SPOOL_FAILED)
        self.log.error(Event.SESSION_FAILED, client=session.peer.address, command=command, error=repr(error), exc_info=error)
        return ReplyError(reply.INTERNAL)


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for one address; a host name may give several. Raises OSError."""
    found: list[socket.socket] = []
    for family, kind, proto, _, name in socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(name)
            sock.setblocking(False)
        except OSError:
            sock.close()
            for other in found:
                other.close()
            raise
        found.append(sock)
    return found
