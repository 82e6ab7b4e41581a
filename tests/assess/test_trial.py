"""What `inbound dev` has in place of the world: two test strings, a zone for its own sender, verdicts to order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator

import pytest
import structlog
from dns_server import DnsServer, Fault
from letters_with_attachments import letter
from scanners import EICAR, GTUBE

from inbound.accept.envelope import Envelope, Peer
from inbound.assess.assessor import Assessor
from inbound.assess.authentication import Clause
from inbound.assess.rendering import BytesContent
from inbound.assess.trial import Trial
from inbound.assess.verdicts import Assessment, Status

LOCAL = Envelope("a" * 40, Peer("127.0.0.1", 1), "localhost", "sender@example.net", ("support@example.com",), time.time())
MESSAGE = b"From: a@example.net\r\n\r\nhello\r\n"
SHA256 = hashlib.sha256(MESSAGE).hexdigest()


@pytest.mark.parametrize("octets", [
    b"Subject: x\r\n\r\n" + EICAR, letter("see below\n", EICAR), letter("see below\n", b"x" * 100_000, EICAR), letter(f"{EICAR.decode()}\n"),
], ids=["bare", "base64", "the second attachment", "text"])
async def test_the_test_virus_is_found(octets: bytes) -> None:
    verdict = await Trial().scanners["virus"].scan(LOCAL, BytesContent(octets))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "Eicar-Test-Signature")


@pytest.mark.parametrize("octets", [letter(f"Hello\n\n{GTUBE.decode()}\n"), letter(f"Grüße\n\n{GTUBE.decode()}\n" * 3)])
async def test_the_test_spam_is_found(octets: bytes) -> None:
    assert (await Trial().scanners["spam"].scan(LOCAL, BytesContent(octets))).status is Status.FAIL


@pytest.mark.parametrize("octets", [b"", b"=", b"====\r\n", b"A" * 2_000_000, b"A===" * 100_000, letter("x\n", EICAR[:-1], GTUBE[1:])])
@pytest.mark.parametrize("kind", ["spam", "virus"])
async def test_all_else_passes(kind: str, octets: bytes) -> None:
    assert (await Trial().scanners[kind].scan(LOCAL, BytesContent(octets))).status is Status.PASS


@pytest.fixture
def trial() -> Trial:
    return Trial()


@pytest.fixture
async def assessor(trial: Trial) -> AsyncIterator[Assessor]:
    with DnsServer('b.example TXT "v=spf1 -all"', faults={"silent.example": Fault.SILENT}) as dns:
        found = Assessor(trial.resolver([dns.address]), structlog.get_logger(), hostname="mx.test", scanners=trial.scanners)
        yield found
        await found.close()


async def judged(trial: Trial, assessor: Assessor, sender: str = "sender@example.net", *, scan: bool = True) -> Assessment:
    envelope = Envelope("a" * 40, Peer("127.0.0.1", 1), "localhost", sender, ("support@example.com",), time.time())
    return await trial.assessor(assessor)(envelope, BytesContent(MESSAGE), scan=scan)


async def test_the_sender_of_inbound_send_is_known_without_dns(trial: Trial, assessor: Assessor) -> None:
    found = await judged(trial, assessor)
    assert [str(verdict.status) for verdict in found.verdicts().values()] == ["PASS", "GRAY", "PASS", "PASS", "PASS"]
    assert (await judged(trial, assessor, "x@nowhere.example.net")).spf.reason == "SPF none: nowhere.example.net publishes no SPF record"


async def test_all_else_is_asked_of_dns_without_much_patience(trial: Trial, assessor: Assessor) -> None:
    assert (await judged(trial, assessor, "x@b.example")).spf.status is Status.FAIL
    started = time.monotonic()
    assert (await judged(trial, assessor, "x@silent.example")).spf.status is Status.PROCESSING_FAILED
    assert time.monotonic() - started < 4


async def test_a_record_can_be_ordered(trial: Trial) -> None:
    trial.order("", {}, {"S._domainkey.Gmail.example": "v=DKIM1; p="})
    async with closing(trial) as resolver:
        answer = await resolver.lookup("s._domainkey.gmail.example", "TXT")
        assert answer.texts == (b"v=DKIM1; p=",)
        assert (await resolver.lookup("s._domainkey.gmail.example", "A")).texts == ()


class closing:
    """A resolver of a trial that asks nobody."""

    def __init__(self, trial: Trial) -> None:
        self.resolver = trial.resolver(())

    async def __aenter__(self):
        return self.resolver

    async def __aexit__(self, *_: object) -> None:
        await self.resolver.close()


async def test_verdicts_can_be_ordered_for_a_message_and_its_header_agrees(trial: Trial, assessor: Assessor) -> None:
    trial.order(SHA256.upper(), {"spf": Status.FAIL, "dkim": Status.PASS, "dmarc": Status.FAIL, "virus": Status.PROCESSING_FAILED}, {})
    found = await judged(trial, assessor)
    assert [str(verdict.status) for verdict in found.verdicts().values()] == ["FAIL", "PASS", "FAIL", "PASS", "PROCESSING_FAILED"]
    assert found.dmarc_policy == "reject"
    said = found.authentication
    assert said
    assert (said.spf, said.dkim, said.dmarc) == ("fail", (Clause("pass", "example.net"),), "fail")
    trial.order(SHA256, {"dmarc": Status.PASS, "dkim": Status.GRAY}, {})
    found = await judged(trial, assessor)
    assert (found.spf.status, found.dmarc.status, found.dmarc_policy) == ("PASS", "PASS", "")
    assert found.authentication
    assert found.authentication.dkim == ()


async def test_other_messages_are_judged_as_ever_and_what_is_disabled_stays_so(trial: Trial, assessor: Assessor) -> None:
    trial.order("0" * 64, {"spf": Status.FAIL}, {})
    assert (await judged(trial, assessor)).spf.status is Status.PASS
    trial.order(SHA256, {"spam": Status.FAIL}, {})
    assert (await judged(trial, assessor, scan=False)).spam.status is Status.DISABLED


@pytest.mark.parametrize("verdicts", [{"arc": Status.PASS}, {"spf": Status.DISABLED}, {"dmarc_policy": Status.FAIL}])
def test_only_verdicts_can_be_ordered(trial: Trial, verdicts: dict[str, Status]) -> None:
    with pytest.raises(ValueError, match="the verdicts are"):
        trial.order(SHA256, verdicts, {})


def test_orders_that_nobody_uses_are_forgotten(trial: Trial) -> None:
    for number in range(2000):
        trial.order(str(number), {"spf": Status.FAIL}, {f"n{number}.example": "x"})
    assert trial.answer("n0.example", "TXT") is None
    assert trial.answer("n1999.example", "TXT") is not None
