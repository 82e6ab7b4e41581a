"""clamd, the real one and those that go wrong: a verdict, or the word that it is down, always in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters_with_attachments import letter, zipped
from scanners import EICAR, EICAR_NAME, STREAM_LIMIT, ClamdAddresses, free_port

from inbound.accept.envelope import Envelope, Peer
from inbound.accept.spool.content import FileContent
from inbound.assess.rendering import BytesContent
from inbound.assess.scanning import ScannerDown
from inbound.assess.verdicts import Status, Verdict
from inbound.assess.virus import Clamd

ENVELOPE = Envelope("a" * 40, Peer("192.0.2.1"), "mx.sender.example", "ann@sender.example", ("support@example.com",), 0.0)
MB = 1024 * 1024

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def fake(answer: Answer, *, limit: int = MB, seconds: float = 5.0) -> AsyncIterator[Clamd]:
    """A client of something that only listens where clamd would."""
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield Clamd(server.sockets[0].getsockname(), limit=limit, timeout=seconds)
    finally:
        server.close()


async def received(reader: asyncio.StreamReader) -> bytes:
    """The message that was streamed, by clamd's own grammar."""
    assert await reader.readexactly(10) == b"zINSTREAM\0"
    octets = b""
    while length := struct.unpack("!L", await reader.readexactly(4))[0]:
        octets += await reader.readexactly(length)
    return octets


def saying(reply: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await received(reader)
        writer.write(reply)
        await writer.drain()

    return answer


async def scanned(clamd: Clamd, octets: bytes) -> Verdict:
    return await clamd.scan(ENVELOPE, BytesContent(octets))


@pytest.fixture(params=["TCP", "Unix socket"])
def client(request: pytest.FixtureRequest, clamd: ClamdAddresses) -> Clamd:
    address = ("127.0.0.1", clamd.port) if request.param == "TCP" else clamd.path
    return Clamd(address, limit=25 * MB, timeout=30)


@pytest.mark.parametrize("octets", [
    pytest.param(b"Subject: x\r\n\r\n" + EICAR + b"\r\n", id="bare"),
    pytest.param(letter("see below\n", EICAR), id="base64"),
    pytest.param(letter("see below\n", zipped(EICAR)), id="in a zip"),
    pytest.param(letter("see below\n", zipped(zipped(EICAR))), id="in a zip in a zip"),
    pytest.param(letter("see below\n", b"x" * 600_000, EICAR), id="behind much else"),
])
async def test_the_real_clamd_finds_the_test_virus(client: Clamd, octets: bytes) -> None:
    verdict = await scanned(client, octets)
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith(EICAR_NAME)


@pytest.mark.parametrize("octets", [b"", letter(), letter("text\n", zipped(b"harmless"))])
async def test_the_real_clamd_lets_clean_mail_pass(client: Clamd, octets: bytes) -> None:
    assert (await scanned(client, octets)).status is Status.PASS


async def test_a_message_in_a_file_is_streamed_like_one_in_memory(client: Clamd, tmp_path: Path) -> None:
    octets = letter("see below\n", b"y" * 600_000, EICAR)
    (tmp_path / "blob").write_bytes(octets)
    verdict = await client.scan(ENVELOPE, FileContent(tmp_path / "blob", len(octets)))
    assert verdict.status is Status.FAIL


async def test_a_stream_longer_than_clamd_takes_cannot_be_judged_and_clamd_goes_on(client: Clamd) -> None:
    verdict = await scanned(client, b"Subject: x\r\n\r\n" + os.urandom(3 * STREAM_LIMIT))
    assert verdict.status is Status.PROCESSING_FAILED
    assert "size limit exceeded" in verdict.reason
    assert (await scanned(client, letter())).status is Status.PASS


async def test_a_message_over_our_own_limit_is_not_sent() -> None:
    verdict = await scanned(Clamd(("127.0.0.1", free_port()), limit=10, timeout=1), b"x" * 11)
    assert verdict == Verdict(Status.PROCESSING_FAILED, "not scanned: it has 11 octets, and clamd gets 10 at most")


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=200_000))
def test_what_is_streamed_is_the_message(octets: bytes) -> None:
    async def run() -> None:
        got: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await received(reader))
            writer.write(b"stream: OK\0")
            await writer.drain()

        async with fake(answer) as clamd:
            assert (await scanned(clamd, octets)).status is Status.PASS
        assert got == [octets]

    asyncio.run(run())


@pytest.mark.parametrize(("reply", "expected"), [
    (b"stream: OK\0", Verdict(Status.PASS, "clamd found nothing")),
    (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Verdict(Status.FAIL, "Win.Test.EICAR_HDB-1")),
    (b"stream: Heuristics.Encrypted.Zip FOUND\0", Verdict(Status.FAIL, "Heuristics.Encrypted.Zip")),
    (b"stream: Heuristics.Limits.Exceeded.MaxScanSize FOUND\0",
     Verdict(Status.PROCESSING_FAILED, "not scanned whole: Heuristics.Limits.Exceeded.MaxScanSize")),
    (b"stream: Can't allocate memory ERROR\0", Verdict(Status.PROCESSING_FAILED, "clamd says: Can't allocate memory")),
    (b"UNKNOWN COMMAND\0", Verdict(Status.PROCESSING_FAILED, "clamd says: UNKNOWN COMMAND")),
    (b"\0", Verdict(Status.PROCESSING_FAILED, "clamd says: ")),
])
async def test_each_answer_has_its_verdict(reply: bytes, expected: Verdict) -> None:
    async with fake(saying(reply)) as clamd:
        assert await scanned(clamd, letter()) == expected


async def test_an_answer_before_the_end_counts() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.write(b"INSTREAM size limit exceeded. ERROR\0")
        await writer.drain()

    async with fake(answer, limit=99 * MB) as clamd:
        verdict = await scanned(clamd, b"x" * 100)
    assert verdict == Verdict(Status.PROCESSING_FAILED, "clamd says: INSTREAM size limit exceeded.")


@pytest.mark.parametrize("reply", [b"", b"stream: O", b"x" * 10_000], ids=["nothing", "half an answer", "an endless answer"])
async def test_what_is_no_answer_is_a_scanner_that_is_down(reply: bytes) -> None:
    async with fake(saying(reply)) as clamd:
        with pytest.raises(ScannerDown):
            await scanned(clamd, letter())


async def test_a_clamd_that_never_answers_is_down_after_its_time() -> None:
    async def answer(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with fake(answer, seconds=0.05) as clamd:
        with pytest.raises(ScannerDown, match=r"no answer in 0\.05 s"):
            await scanned(clamd, letter())


async def test_a_clamd_that_reads_nothing_is_down_after_its_time() -> None:
    async def answer(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with fake(answer, limit=99 * MB, seconds=0.2) as clamd:
        with pytest.raises(ScannerDown, match=r"no answer in 0\.2 s"):
            await scanned(clamd, b"x" * 20 * MB)


@pytest.mark.parametrize("address", [("127.0.0.1", 0), Path("/nowhere/clamd.sock")], ids=["TCP", "Unix socket"])
async def test_where_nobody_listens_the_scanner_is_down(address: tuple[str, int] | Path) -> None:
    client = Clamd(("127.0.0.1", free_port()) if isinstance(address, tuple) else address, limit=MB, timeout=5)
    with pytest.raises(ScannerDown):
        await scanned(client, letter())


def test_its_name_tells_where_it_is() -> None:
    assert Clamd(("scan.internal", 3310), limit=1, timeout=1).name == "clamd:scan.internal:3310"
    assert Clamd(Path("/run/clamd.ctl"), limit=1, timeout=1).name == "clamd:/run/clamd.ctl"
