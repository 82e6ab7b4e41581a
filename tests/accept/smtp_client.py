"""An SMTP client for tests: it sends exactly the octets it is told to, in the segments it is told to, and misbehaves on request."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

PATIENCE = 10.0  # seconds; a server that answers at all answers sooner


class Gone(Exception):
    """The server has closed the connection, where a reply was awaited."""


class Client:
    """One connection. What the server said before it went away stays readable, even when it went with a reset."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tls: ssl.SSLObject | None = None
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._received = b""
        self._ended = False

    @classmethod
    async def connect(cls, address: tuple[str, int], *, receive_buffer: int = 0) -> Client:
        """A connection to a host and port; `receive_buffer` makes the socket's small."""
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    async def send(self, octets: bytes) -> None:
        """All octets in one write."""
        if self.tls is not None:
            self.tls.write(octets)
            octets = self._outgoing.read()
        await self._loop.sock_sendall(self.sock, octets)

    async def drip(self, octets: bytes) -> None:
        """Every octet in a segment of its own. Raises Gone when the server has closed before the last."""
        for octet in octets:
            try:
                await self.send(bytes((octet,)))
            except ConnectionError:
                raise Gone from None
            await asyncio.sleep(0)

    async def line(self) -> str:
        """The next line of a reply, without its CRLF. Raises Gone."""
        while b"\r\n" not in self._received:
            if not await self._receive():
                raise Gone(f"after {self._received!r}")
        line, _, self._received = self._received.partition(b"\r\n")
        return line.decode("ascii")

    async def reply(self) -> str:
        """The next reply; the lines of a long one are joined by LF. Raises Gone."""
        lines = [await self.line()]
        while lines[-1][3:4] == "-":
            lines.append(await self.line())
        return "\n".join(lines)

    async def say(self, command: str) -> str:
        """Send a command line; its reply."""
        await self.send(command.encode("ascii") + b"\r\n")
        return await self.reply()

    async def said(self, *commands: str) -> list[str]:
        """The replies to several commands, each sent after the reply to the one before."""
        return [await self.say(command) for command in commands]

    async def rest(self) -> str:
        """Everything until the server closes."""
        while await self._receive():
            pass
        rest, self._received = self._received, b""
        return rest.decode("ascii")

    async def start_tls(self, context: ssl.SSLContext, before: bytes = b"") -> None:
        """The handshake; what was read before and not taken is forgotten. `before` goes out in one write with its first octets.

        Raises ssl.SSLError, Gone.
        """
        self._received = b""
        await self.start_tls_with(context.wrap_bio(self._incoming, self._outgoing, server_hostname="mx.test"), before)

    async def start_tls_with(self, tls: ssl.SSLObject, before: bytes = b"") -> None:
        """The handshake, or what is left of it, of an object on this connection's BIOs."""
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(before)
                before = b""
                octets = await self._octets()
                if not octets:
                    raise Gone from None
                self._incoming.write(octets)
            else:
                break
        await self._flush()
        self.tls = tls
        self._decrypt()  # the server may have spoken right behind its part of the handshake

    def half_close(self) -> None:
        """No more will be sent, replies are still awaited."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close with FIN."""
        self.sock.close()

    async def _flush(self, before: bytes = b"") -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self.sock, before + self._outgoing.read())

    async def _octets(self) -> bytes:
        try:
            return await asyncio.wait_for(self._loop.sock_recv(self.sock, 65536), PATIENCE)
        except ConnectionError:
            return b""

    async def _receive(self) -> bool:
        """Take what the server has sent; False when it has closed."""
        if self._ended:
            return False
        octets = await self._octets()
        if self.tls is None:
            self._received += octets
            return bool(octets)
        self._incoming.write(octets) if octets else self._incoming.write_eof()
        return self._decrypt()

    def _decrypt(self) -> bool:
        assert self.tls is not None
        before = len(self._received)
        try:
            while plain := self.tls.read(65536):
                self._received += plain
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError:
            pass  # closed, with close_notify or without
        self._ended = True
        return len(self._received) > before
