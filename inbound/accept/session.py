"""An SMTP session: every command, from the greeting to QUIT, between our policy, replies and spool and one client connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from inbound.accept import address, policy, proxy, reply, xclient
from inbound.accept.connection import LINE_LIMIT, Closed, Connection
from inbound.accept.envelope import Envelope, Peer, Tls, new_message_id
from inbound.accept.framing import chunk
from inbound.accept.policy import Pinned
from inbound.accept.reception import Reception
from inbound.accept.reply import Refusal, Reply, ReplyError, TemporaryFailure
from inbound.accept.spool import Draft

if TYPE_CHECKING:
    from inbound.accept.listener import Listener

TURN = 32  # commands that are carried out before other sessions have their turn
OVERSHOOT = 1000  # recipients refused in one transaction, before the session ends: a sender of twice what we take comes through
PROXY_SECONDS = 3.0  # for a PROXY header to arrive
AT_ONCE = frozenset((b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"QUIT"))  # commands that never wait, but for a blocklist
ALONE = re.compile(rb"([A-Za-z]{4})(?: ([^\r\n\0]*))?\r\n")  # one of them, its line and nothing else
_HTTP_VERBS = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH"))


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
    message_id: str = ""
    reception: Reception | None = None  # of the content, once that has begun


class Session(Connection):
    """One client, from greeting to QUIT."""

    peer: Peer  # the client, as policy, logs and envelopes see it
    origin: Peer  # who connected, or whom the PROXY header named; XCLIENT may have made `peer` another
    naming: asyncio.Task[str] | None  # the search for the client's reverse name
    screening: asyncio.Task[Reply | None] | None  # the search for the client in blocklists
    transaction: Transaction | None
    errors: int  # refusals so far
    mails: int  # MAIL commands so far
    junk: int  # commands since the last message that brought none nearer
    rank: tuple[int, int]  # how many sessions there were with this one when it began: of all clients, of this one
    connected_at: float  # seconds since the epoch
    draining: bool
    is_greeted: bool
    is_content_due: bool  # DATA was answered, and its content has not begun

    def begin(self, listener: Listener, *, secure: bool) -> Self:
        """A new session made from this template."""
        session = super().begin(listener, secure=secure)
        session.transaction = session.naming = session.screening = None
        session.errors = session.junk = session.mails = 0
        session.rank = (0, 0)
        session.connected_at = time.time()
        session.draining = session.is_content_due = session.is_greeted = False
        return session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        first = self.transport is None
        super().connection_made(transport)
        if not first:
            if self.peer is not self.origin:
                self.listener.become(self, self.origin)  # RFC 3207 §4.2: XCLIENT came in clear
                self._look_up()
            return
        self.peer = self.origin = self._client(transport)
        self.listener.enter(self)
        try:
            if self.secure or policy.is_in(self.origin.address, self.listener.trust.proxies):
                self.resume()
            else:
                self._greet()
        except Exception as error:
            self._broken(error)

    def _client(self, transport: asyncio.BaseTransport) -> Peer:
        name = transport.get_extra_info("peername")
        if not isinstance(name, tuple):
            return Peer("0.0.0.0")  # noqa: S104  # a peer that was gone before it could be asked
        return Peer(policy.client_address(name[0]), name[1])

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing can be read or written any more."""
        super().connection_lost(error)
        self.listener.leave(self)
        if self._handler_coroutine is not None:
            return  # it will notice
        if self.reception is None:
            self.close()
            self._forget()
        else:
            self._handler_coroutine = self.loop.create_task(self._handle_client())

    def handshake_failed(self, cause: BaseException | None) -> None:
        """Log a handshake that came to nothing."""
        self.listener.handshake_failed(self, cause)

    def _set_rset_state(self) -> None:
        self.transaction = None

    async def _reset(self) -> None:
        """End the transaction, and forget what has come of its content."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None and transaction.reception is not None:
            await transaction.reception.discard()

    def drain(self) -> None:
        """Shut down: say 421 now when idle, else after the transaction."""
        self.draining = True
        if self.transaction is None and self.transport is not None and not self.closing:
            self.send(reply.SHUTTING_DOWN)
            self.close()

    async def _handle_client(self) -> None:
        """Carry out what has come. The session is over with it, or goes on with the next octets."""
        try:
            if not self.is_greeted and not self.closing:
                await self._arrive()
                self._greet()
                self._reset_timeout()
            await self._carry_out()
        except Closed:
            self.close()
        except Exception as error:
            self._broken(error)
        except BaseException:
            self.close()  # where the content ends is not known: what follows must not be taken for commands
            raise
        finally:
            try:
                await self._pause_or_end()
            finally:
                self._handler_coroutine = None

    async def _carry_out(self) -> None:
        """Command after command, as long as there is one. Raises Closed."""
        commands = 0
        while self.has_work and not self.closing:
            await self._command()
            if self.is_behind:
                await self.drained()
            if self.draining:
                self.drain()
            self._reset_timeout(self.listener.limits.data_timeout if self.is_content_due else None)
            commands += 1
            if commands % TURN == 0:
                await asyncio.sleep(0)  # nothing above waits while commands are in the buffer

    async def _pause_or_end(self) -> None:
        """Wait for more without a task, or leave nothing behind."""
        if self.transport is not None and not self.closing:
            self._reader._maybe_resume_transport()  # a reader whose buffer was taken from does not notice that there is room again
            return
        self.close()
        self._forget()
        await self._reset()

    def _broken(self, error: Exception) -> None:
        """End a session that cannot go on for trouble of our own."""
        trouble = self.listener.trouble(self, "connect", error)
        with contextlib.suppress(Exception):
            self.send(trouble.reply)
        self.close()

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
            self.refuse(reply.PROXY_EXPECTED, "connect", error=str(error) or f"no PROXY header in {PROXY_SECONDS:g} s")
            raise Closed from None
        self.unread(octets[header.length :])
        return self.origin if header.client is None else Peer(policy.client_address(header.client[0]), header.client[1])

    def _greet(self) -> None:
        refusal = self.listener.judge(self)
        if refusal is not None:
            self.refuse(refusal, "connect")
            return
        self._look_up()
        self.send(self.listener.greeting)
        self.is_greeted = True

    def _look_up(self) -> None:
        """Begin to look for the client's reverse name, unless a front end told it, and for the client in blocklists."""
        self._forget_lookups()
        self.naming = None if self.peer.reverse_name else self.listener.name_of(self.peer.address)
        self.screening = self.listener.screening_of(self.peer.address)

    def _forget(self) -> None:
        """Let go of what would outlive the session, or be part of a cycle with it."""
        self._forget_lookups()
        self._writer = None

    def _forget_lookups(self) -> None:
        for lookup in (self.naming, self.screening):
            if lookup is not None:
                lookup.cancel()

    async def _named(self) -> Peer:
        """The client with its reverse name, as far as that can be found in its time."""
        if self.naming is not None:
            await asyncio.wait((self.naming,))
            self.peer = replace(self.peer, reverse_name=self.naming.result())
            self.naming = None
        return self.peer

    @property
    def reception(self) -> Reception | None:
        """That of content which has begun."""
        return self.transaction.reception if self.transaction is not None else None

    @property
    def is_screened(self) -> bool:
        """Is it known whether a blocklist names the client?"""
        return self.screening is None or self.screening.done()

    def _check_lists(self) -> None:
        """Raises Refusal if a blocklist names the client, once that is known."""
        listed = self.screening.result() if self.screening is not None else None
        if listed is not None:
            raise Refusal(listed)

    # --- commands ---

    def data_received(self, data: bytes) -> None:
        """What has come from the client. A command that needs no waiting is answered here: to begin a task for it costs more than most."""
        if self._handler_coroutine is None and self.is_greeted and self.reception is None and len(data) <= LINE_LIMIT:
            command = ALONE.fullmatch(data)
            if command is not None and not (self._reader._buffer or self.closing or self.is_behind):
                verb = command[1].upper()
                if verb in AT_ONCE and (verb != b"RCPT" or self.is_screened):
                    self._answer_at_once(verb, command[2] or b"")
                    return
        try:
            super().data_received(data)
        except Exception as error:
            self._broken(error)  # what goes past here takes the transport from us, unanswered

    def _answer_at_once(self, verb: bytes, argument: bytes) -> None:
        """Carry out a command of AT_ONCE."""
        self._reset_timeout()
        try:
            try:
                self.COMMANDS[verb](self, argument)
            except Exception as error:
                self._failed(verb, error)
            if self.draining:
                self.drain()
        except Exception as error:
            self._broken(error)

    async def _command(self) -> None:
        """Read one command and answer it. An internal error is 451 4.3.0, and the session goes on (F2)."""
        verb = b""
        try:
            if self.is_content_due:
                verb = b"DATA"
                await self._content()
                return
            line = await self.line()
            verb, _, argument = line.partition(b" ")
            verb = verb.upper()
            command = self.COMMANDS.get(verb)
            if command is None:
                raise Refusal(self._unknown(verb))
            if verb == b"RCPT" and self.screening is not None and self.transaction is not None:
                await asyncio.wait((self.screening,))
            begun = self.reception
            try:
                rest = command(self, argument)
                if rest is not None:
                    await rest
            finally:
                if begun is not None and self.reception is not begun:
                    await begun.discard()
        except Closed:
            raise
        except Exception as error:
            self._failed(verb, error)

    def _failed(self, verb: bytes, error: Exception) -> None:
        answer = error.reply if isinstance(error, ReplyError) else self.listener.trouble(self, _printable(verb), error).reply
        self.refuse(answer, verb)

    def _unknown(self, verb: bytes) -> Reply:
        if verb in _HTTP_VERBS:
            return reply.HTTP
        if verb == b"PROXY":
            return reply.PROXY
        return reply.UNKNOWN_COMMAND if verb.isalnum() else reply.BAD_COMMAND

    def refuse(self, answer: Reply, command: str | bytes, **facts: Any) -> None:
        """Answer with a refusal, log it, and end a session that has had too many."""
        if self.transport is None or self.closing:
            return
        self.send(answer)
        verb = command if isinstance(command, str) else _printable(command)
        self.listener.refused(self, answer, verb, facts)
        if answer.code == 421 or verb == "connect":
            self.close()
            return
        if answer in (reply.HTTP, reply.PROXY, reply.BAD_CHUNK):
            self.errors = self.listener.limits.errors  # the 421 that follows ends a session of another protocol, or of unknown framing
        if not answer.is_temporary:
            self.errors += 1
        elif verb != "RCPT" or answer is reply.INTERNAL:  # refused recipients have OVERSHOOT
            self.junk += 1
        if self.errors > self.listener.limits.errors or self.junk > self.listener.limits.junk:
            self.refuse(reply.TOO_MANY_ERRORS, verb)

    def _wasted(self) -> None:
        """Count a command that brings no message nearer."""
        self.junk += 1
        if self.junk > self.listener.limits.junk:
            raise Refusal(reply.TOO_MANY_ERRORS)

    def _ehlo(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.1."""
        self._hello(argument, extended=True)
        offers = [self.hostname, "PIPELINING", f"SIZE {self.listener.limits.message_size}", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"]
        if announced := policy.announced(self.peer.address, self.listener.limits):
            offers.append(f"LIMITS {announced}")
        if self.listener.tls is not None and self.listener.tls.works and self.session.ssl is None:
            offers.append("STARTTLS")
        if self.listener.smtputf8:
            offers.append("SMTPUTF8")
        if self._is_front_end():
            offers.append(xclient.OFFER)
        last = len(offers) - 1
        self.write("".join(f"250{' ' if i == last else '-'}{offer}\r\n" for i, offer in enumerate(offers)).encode("ascii"))

    def _helo(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.1."""
        self._hello(argument, extended=False)
        self.send(self.listener.hello)

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        name = address.helo_name(argument, utf8=self.listener.smtputf8)
        if name is None:
            raise Refusal(reply.NEED_NAME)
        self._wasted()
        self._set_rset_state()
        self.session.host_name = name
        self.session.extended_smtp = extended

    def _mail(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.2. The rule set revision is pinned here."""
        if not self.session.host_name:
            raise Refusal(reply.NEED_HELO)
        if self.transaction is not None:
            raise Refusal(reply.NESTED_MAIL)
        if self.draining:
            raise ReplyError(reply.SHUTTING_DOWN)
        self.mails += 1
        policy.message(self.peer.address, self.listener.limits, of_connection=self.mails)
        reverse_path, parameters = address.reverse_path(argument, utf8=self.listener.smtputf8)
        body = policy.mail_parameters(parameters, self.listener.limits, esmtp=self.session.extended_smtp, smtputf8=self.listener.smtputf8)
        smtputf8 = "SMTPUTF8" in parameters
        if not smtputf8 and not reverse_path.isascii():
            raise Refusal(reply.NOT_ASCII)
        not_ready = self.listener.intake.ready()
        if not_ready is not None:
            raise ReplyError(not_ready)
        self.listener.quotas.check_mail(self.peer.address, reverse_path, self.loop.time())
        pinned = self.listener.intake.pin()
        policy.declared_size(parameters, pinned, tls=self.session.ssl is not None)
        self.transaction = Transaction(pinned, reverse_path, parameters, body, smtputf8)
        self.send(reply.MAIL_OK)

    def _rcpt(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.3. Only what the rules name is accepted; there is no relaying."""
        transaction = self.transaction
        if transaction is None:
            raise Refusal(reply.NEED_MAIL)
        if transaction.reception is not None:
            raise Refusal(reply.CONTENT_BEGUN)
        forward_path, parameters = address.forward_path(argument, utf8=transaction.smtputf8)
        if parameters:
            raise Refusal(reply.UNKNOWN_PARAMETER)
        try:
            self._check_lists()
            accepted = policy.recipient(forward_path, transaction.pinned, self.listener.limits, accepted=len(transaction.forward_paths),
                                        tls=self.session.ssl is not None)
            self.listener.quotas.check_recipient(accepted, self.loop.time())
        except ReplyError as error:
            transaction.refused += 1
            if transaction.refused > OVERSHOOT:
                raise Refusal(reply.TOO_MANY_ERRORS) from None
            self.refuse(error.reply, "RCPT", sender=transaction.reverse_path, recipient=forward_path)
            return
        transaction.forward_paths.append(accepted)
        self.send(reply.RCPT_OK)

    def _data(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.4. What comes next is content, and no command."""
        transaction = self.transaction
        if transaction is None:
            raise Refusal(reply.NEED_MAIL)
        if argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        if transaction.reception is not None:
            raise Refusal(reply.CONTENT_BEGUN)
        transaction.reception = self._reception(transaction)
        self._reset_timeout(self.listener.limits.data_timeout)
        self.send(reply.START_DATA)
        self.is_content_due = True  # only now: commands follow where this could not be said

    async def _content(self) -> None:
        """Content, to its final dot. 250 only when it and the envelope are on disk."""
        self.is_content_due = False
        transaction = self.transaction
        if transaction is None or transaction.reception is None:
            raise RuntimeError("content that no DATA announced")
        await transaction.reception.until_dot()
        await self._conclude(transaction, transaction.reception, "DATA")

    async def _bdat(self, argument: bytes) -> None:
        """RFC 3030 §2. The octets are taken before anything is answered, whatever the answer is."""
        size, last = chunk(argument)
        transaction = self.transaction
        if transaction is None:
            await Reception(self, None).chunk(size, last=last)
            raise Refusal(reply.NEED_MAIL)
        reception = transaction.reception = transaction.reception or self._chunks(transaction)
        await reception.chunk(size, last=last)
        if last:
            await self._conclude(transaction, reception, "BDAT")
        elif reception.trouble is not None:
            self._tell(transaction, reception, reception.trouble.reply, "BDAT")
        else:
            if not size:
                self._wasted()
            self.send(reply.chunk_taken(size))

    def _reception(self, transaction: Transaction) -> Reception:
        """The reception of the content that begins now. Raises ReplyError, or what keeps us from it."""
        if not transaction.forward_paths:
            raise Refusal(reply.NO_RECIPIENTS if transaction.refused else reply.NEED_RCPT)
        transaction.message_id = new_message_id()
        return Reception(self, self.listener.intake.draft(transaction.message_id))

    def _chunks(self, transaction: Transaction) -> Reception:
        """The reception that the first BDAT opens. What is wrong already is told when its octets have come."""
        try:
            return self._reception(transaction)
        except Exception as error:
            return Reception(self, None, error if isinstance(error, ReplyError) else self.listener.trouble(self, "BDAT", error))

    async def _conclude(self, transaction: Transaction, reception: Reception, command: str) -> None:
        """Accept content that has come whole, or tell why not. The transaction is over either way."""
        try:
            await self._accept(transaction, reception.judge())
        except Exception as error:
            refusal = error if isinstance(error, ReplyError) else self.listener.trouble(self, command, error)
            await reception.discard()
            self._tell(transaction, reception, refusal.reply, command)
        self._set_rset_state()

    def _tell(self, transaction: Transaction, reception: Reception, answer: Reply, command: str) -> None:
        """Refuse the content. Chunks that were pipelined behind the first that failed get the same answer, and are no more errors."""
        if not reception.told:
            reception.told = True
            self.refuse(answer, command, sender=transaction.reverse_path, recipients=transaction.forward_paths, size=reception.size)
        elif self.transport is not None and not self.closing:
            self.send(answer)

    async def _accept(self, transaction: Transaction, draft: Draft) -> None:
        envelope = Envelope(
            message_id=transaction.message_id, peer=await self._named(), helo=self.session.host_name, reverse_path=transaction.reverse_path,
            forward_paths=tuple(transaction.forward_paths), received_at=time.time(), connected_at=self.connected_at,
            revision=transaction.pinned.revision, esmtp=self.session.extended_smtp, tls=self._tls(), body=transaction.body,
            smtputf8=transaction.smtputf8, parameters=tuple(f"{k}={v}" if v else k for k, v in transaction.parameters.items()),
        )
        self.deadline = self.loop.time() + self.listener.limits.command_timeout
        await self.listener.intake.accept(envelope, draft)
        self.listener.quotas.count(envelope.peer.address, envelope.reverse_path, envelope.forward_paths, self.loop.time())
        self.junk = 0
        if self.transport is not None:
            self.send(reply.accepted(transaction.message_id))

    def _tls(self) -> Tls | None:
        if self.session.ssl is None:
            return None
        tls: ssl.SSLObject = self.session.ssl["ssl_object"]
        return Tls(version=tls.version() or "", cipher=(tls.cipher() or ("",))[0])

    def _rset(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.5."""
        if argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        self._wasted()
        self._set_rset_state()
        self.send(reply.OK)

    def _noop(self, _argument: bytes) -> None:
        """RFC 5321 §4.1.1.9."""
        self._wasted()
        self.send(reply.OK)

    def _vrfy(self, argument: bytes) -> None:
        """RFC 5321 §4.1.1.6: never tells who exists."""
        if not argument.strip():
            raise Refusal(reply.BAD_ARGUMENT)
        self._wasted()
        self.send(reply.VRFY)

    def _help(self, _argument: bytes) -> None:
        """RFC 5321 §4.1.1.8."""
        self._wasted()
        self.send(reply.HELP)

    def _quit(self, _argument: bytes) -> None:
        """RFC 5321 §4.1.1.10."""
        self.send(reply.BYE)
        self.close()

    def _not_offered(self, _argument: bytes) -> None:
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
        self.mails = 0
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
        await self._reset()
        await self._start_tls()

    COMMANDS: ClassVar[dict[bytes, Callable[[Session, bytes], Any]]] = {
        b"EHLO": _ehlo, b"HELO": _helo, b"MAIL": _mail, b"RCPT": _rcpt, b"DATA": _data, b"RSET": _rset,
        b"NOOP": _noop, b"VRFY": _vrfy, b"HELP": _help, b"QUIT": _quit, b"EXPN": _not_offered, b"TURN": _not_offered,
        b"ETRN": _not_offered, b"AUTH": _not_offered, b"BDAT": _bdat, b"STARTTLS": _starttls,
        b"XCLIENT": _xclient,
    }


def _printable(verb: bytes) -> str:
    return verb[:40].decode("ascii", "backslashreplace")
