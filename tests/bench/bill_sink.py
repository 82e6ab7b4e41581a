"""The sink of bill.py: answers as S3 and SNS do, on one connection after another, for as little as Python can. A process of its own.

Run by bill.py; it prints its port, and `GET /counts` tells what it took: requests, objects and octets put, messages published.
"""

from __future__ import annotations

import asyncio
import json
import socket

import uvloop

counts = {"requests": 0, "objects": 0, "octets": 0, "published": 0}
first: dict[str, str] = {}  # the first body published, for whoever wants to see that it is what it should be

PUT = b'HTTP/1.1 200 OK\r\nETag: "9b2cf535f27731c974343645a3985328"\r\nContent-Length: 0\r\n\r\n'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ID = "567910cd-659e-55d4-8ccb-5aaf14679dc0"
ONE = f'<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>{ID}</MessageId></PublishResult></PublishResponse>'
ENTRY = "<member><Id>{}</Id><MessageId>" + ID + "</MessageId></member>"
BATCH = ('<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult><Failed/><Successful>{}</Successful>'
         "</PublishBatchResult></PublishBatchResponse>")


def xml(text: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


class Connection(asyncio.Protocol):
    """One request after another; the body of a PUT is counted and thrown away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._left = 0  # octets still to come of the body of a PUT

    def data_received(self, data: bytes) -> None:
        if self._left:
            taken = min(self._left, len(data))
            self._left -= taken
            if not self._left:
                self._stored()
            data = data[taken:]
        self._buffer += data
        while self._buffer and not self._left and self._request():
            pass

    def _request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
        if head.startswith(b"put "):
            if b"\r\nexpect:" in head:
                self._transport.write(CONTINUE)
            here = len(self._buffer) - end - 4
            del self._buffer[: end + 4 + min(here, length)]
            counts["octets"] += length
            self._left = max(0, length - here)
            if not self._left:
                self._stored()
            return True
        if len(self._buffer) < end + 4 + length:
            return False
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self._transport.write(self._answer(head, body))
        return True

    def _stored(self) -> None:
        counts["requests"] += 1
        counts["objects"] += 1
        self._transport.write(PUT)

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"get "):
            return xml(json.dumps(first if head.startswith(b"get /first") else counts))
        counts["requests"] += 1
        first.setdefault("body", body.decode())
        if b"Action=PublishBatch" not in body:
            counts["published"] += 1
            return xml(ONE)
        ids = [part.partition(b"&")[0].decode() for part in body.split(b".Id=")[1:]]
        counts["published"] += len(ids)
        return xml(BATCH.format("".join(map(ENTRY.format, ids))))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, family=socket.AF_INET)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  # how bill.py learns it
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
