"""All checks together: each has its verdict whatever becomes of the others, and nothing that fails takes long or stops a message."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
import structlog
from dkim_signer import rsa_key
from dns_server import DnsServer, Fault

from inbound.accept.envelope import Envelope, Peer
from inbound.accept.spool import Content, SpoolError
from inbound.assess import dkim, dmarc, spf
from inbound.assess.assessor import Assessor
from inbound.assess.authentication import Authentication, Clause
from inbound.assess.dkim.sign import key_record, sign
from inbound.assess.dns import Resolver
from inbound.assess.rendering import BytesContent
from inbound.assess.scanning import Scanner, ScannerBusy, ScannerDown, Unscanned
from inbound.assess.verdicts import SCANS, Assessment, Status, Verdict

KEY = rsa_key(2048)
RECORD = " ".join(f'"{part}"' for part in (key_record(KEY)[:250], key_record(KEY)[250:]))
ZONE = f"""
    sender.example               TXT  "v=spf1 ip4:192.0.2.1 -all"
    _dmarc.sender.example        TXT  "v=DMARC1; p=reject"
    s._domainkey.sender.example  TXT  {RECORD}
    s._domainkey.sub.sender.example  TXT  {RECORD}
    1.2.0.192.in-addr.arpa       PTR  mx.sender.example
    mx.sender.example            A    192.0.2.1
"""
MESSAGE = b"From: Ann <ann@sender.example>\r\nTo: support@example.com\r\nSubject: Hello\r\n\r\nHow are you?\r\n"
SIGNED = sign(MESSAGE, domain="sender.example", selector="s", key_pem=KEY) + MESSAGE
ENVELOPE = Envelope("a" * 40, Peer("192.0.2.1", 1), "mx.sender.example", "ann@sender.example", ("support@example.com",), time.time())
OTHER_CLIENT = replace(ENVELOPE, peer=Peer("192.0.2.99"))
CLEAN = Verdict(Status.PASS)
PASSED = {"spf": "PASS", "dkim": "PASS", "dmarc": "PASS"}


class Unreadable(BytesContent):
    """Content whose file is gone."""

    def open(self):
        raise SpoolError("the blob is gone")


class Fake(Scanner):
    """A scanner that answers as told."""

    def __init__(self, name: str, answer: Verdict | Exception = CLEAN) -> None:
        self._name = name
        self.answer = answer
        self.envelopes: list[Envelope] = []
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    async def scan(self, envelope: Envelope, content: Content) -> Verdict:
        self.envelopes.append(envelope)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def zone() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as dns:
        yield dns


@pytest.fixture
async def make(zone: DnsServer) -> AsyncIterator[Callable[..., Assessor]]:
    """Makes assessors, closed in the end."""
    made: list[Assessor] = []

    def make(*, seconds: float = 5.0, **more: object) -> Assessor:
        made.append(Assessor(Resolver([zone.address], timeout=seconds), structlog.get_logger(), hostname="mx.test", **more))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def statuses(assessment: Assessment) -> dict[str, str]:
    return {name: str(verdict.status) for name, verdict in assessment.verdicts().items() if verdict.status is not Status.DISABLED}


async def judged(assessor: Assessor, octets: bytes = SIGNED, envelope: Envelope = ENVELOPE, *, scan: bool = False) -> Assessment:
    return await assessor(envelope, BytesContent(octets), scan=scan)


async def test_a_message_that_is_what_it_says(make: Callable[..., Assessor]) -> None:
    found = await judged(make())
    assert statuses(found) == PASSED
    assert found.authentication == Authentication(
        "pass", "domain of sender.example designates 192.0.2.1 as permitted sender", (Clause("pass", "sender.example"),), "pass", "sender.example")
    assert (found.dmarc_policy, found.client_name) == ("", "mx.sender.example")


async def test_one_byte_changed_is_told(make: Callable[..., Assessor]) -> None:
    found = await judged(make(), SIGNED.replace(b"How", b"Now"), OTHER_CLIENT)
    assert statuses(found) == {"spf": "FAIL", "dkim": "FAIL", "dmarc": "FAIL"}
    assert found.dkim.reason == "sender.example: body hash did not verify: the body is not the one that was signed"
    assert found.dmarc_policy == "reject"
    assert found.authentication
    assert (found.authentication.spf, found.authentication.dkim, found.authentication.dmarc) == ("fail", (Clause("fail", "sender.example"),), "fail")


async def test_a_message_without_a_signature(make: Callable[..., Assessor]) -> None:
    found = await judged(make(), MESSAGE)
    assert statuses(found) == PASSED | {"dkim": "GRAY"}
    assert found.authentication
    assert found.authentication.dkim == ()


async def test_an_identity_below_the_domain_is_the_one_that_is_told(make: Callable[..., Assessor]) -> None:
    unreadable = b"DKIM-Signature: v=1; nonsense\r\n" + SIGNED
    found = await judged(make(), unreadable)
    assert found.authentication
    assert found.authentication.dkim == (Clause("neutral", ""), Clause("pass", "sender.example"))


async def test_the_null_reverse_path_is_judged_by_helo(make: Callable[..., Assessor], zone: DnsServer) -> None:
    zone.add('mx.sender.example TXT "v=spf1 a -all"')
    found = await judged(make(), MESSAGE, replace(ENVELOPE, reverse_path=""))
    assert statuses(found) == PASSED | {"dkim": "GRAY"}


@pytest.mark.parametrize(("relaxed", "status"), [(False, "GRAY"), (True, "PASS")])
async def test_whose_signature_counts_is_a_setting(make: Callable[..., Assessor], relaxed: bool, status: str) -> None:
    octets = sign(MESSAGE, domain="sub.sender.example", selector="s", key_pem=KEY) + MESSAGE
    found = await judged(make(relaxed=relaxed), octets, replace(ENVELOPE, received_at=time.time()))  # no signature is of the future
    assert found.dkim.status == status
    assert found.dmarc.status == "PASS"


# --- the client's name ---


async def test_a_client_on_this_machine_has_no_name_and_none_is_looked_up(make: Callable[..., Assessor], zone: DnsServer) -> None:
    found = await judged(make(), envelope=replace(ENVELOPE, peer=Peer("127.0.0.1")))
    assert found.client_name == ""
    assert not [query for query in zone.queries if query.rdtype == "PTR"]


async def test_a_name_that_is_known_is_kept(make: Callable[..., Assessor], zone: DnsServer) -> None:
    found = await judged(make(), envelope=replace(ENVELOPE, peer=Peer("192.0.2.1", 1, "known.example")))
    assert found.client_name == "known.example"
    assert not [query for query in zone.queries if query.rdtype == "PTR"]


async def test_a_name_that_does_not_lead_back_is_none(make: Callable[..., Assessor], zone: DnsServer) -> None:
    zone.remove("mx.sender.example")
    zone.add("mx.sender.example A 192.0.2.77")
    assert (await judged(make())).client_name == ""


# --- trouble ---


async def test_dns_that_never_answers_is_lookup_trouble_in_bounded_time(make: Callable[..., Assessor], zone: DnsServer) -> None:
    for name in ("sender.example", "_dmarc.sender.example", "s._domainkey.sender.example", "1.2.0.192.in-addr.arpa"):
        zone.fault(name, Fault.SILENT)
    started = time.monotonic()
    found = await judged(make(seconds=0.1))
    assert time.monotonic() - started < 3
    assert statuses(found) == dict.fromkeys(("spf", "dkim", "dmarc"), "PROCESSING_FAILED")
    assert found.authentication
    assert {found.authentication.spf, found.authentication.dkim[0].result, found.authentication.dmarc} == {"temperror"}


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.GARBAGE, Fault.TRUNCATED_DEAF, Fault.HUGE, Fault.CNAME_LOOP])
async def test_a_sick_name_spoils_only_the_verdict_that_needs_it(make: Callable[..., Assessor], zone: DnsServer, fault: Fault) -> None:
    zone.fault("sender.example", fault)
    found = await judged(make(seconds=1.5))
    assert statuses(found) == PASSED | {"spf": "PROCESSING_FAILED" if fault is not Fault.HUGE else "GRAY"}


async def test_lookups_of_one_message_do_not_wait_for_those_of_another(make: Callable[..., Assessor], zone: DnsServer) -> None:
    zone.add('slow.example TXT "v=spf1 -all"')
    zone.fault("slow.example", Fault.HELD)
    assessor = make()
    slow = asyncio.create_task(judged(assessor, MESSAGE, replace(ENVELOPE, reverse_path="a@slow.example")))
    await zone.arrived("slow.example")
    assert statuses(await judged(assessor)) == PASSED
    assert not slow.done()
    zone.release("slow.example")
    assert (await slow).spf.status == "FAIL"


async def fault(*_args: object, **_kwargs: object) -> None:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(("module", "expected"), [
    (spf, {"spf": "PROCESSING_FAILED"}), (dkim, {"dkim": "PROCESSING_FAILED"}), (dmarc, {"dmarc": "PROCESSING_FAILED"}),
])
async def test_a_fault_in_one_check_is_the_failure_of_its_verdict_only(
    make: Callable[..., Assessor], monkeypatch: pytest.MonkeyPatch, module: object, expected: dict[str, str],
) -> None:
    monkeypatch.setattr(module, "check", fault)
    with structlog.testing.capture_logs() as logs:
        found = await judged(make())
    assert statuses(found) == PASSED | expected
    assert [(entry["event"], entry["check"]) for entry in logs] == [("check.failed", *expected)]
    assert found.authentication


async def test_dmarc_does_not_fail_for_what_was_not_judged(make: Callable[..., Assessor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim, "check", fault)
    with structlog.testing.capture_logs():
        found = await judged(make(), envelope=OTHER_CLIENT)
    assert (found.spf.status, found.dmarc.status) == ("FAIL", "PROCESSING_FAILED")
    monkeypatch.undo()
    found, findings = await make().findings(replace(ENVELOPE, peer=Peer("")), BytesContent(MESSAGE))
    assert (found.spf.status, findings.spf, found.dmarc.status) == ("GRAY", None, "PROCESSING_FAILED")
    found, _ = await make().findings(replace(ENVELOPE, peer=Peer("")), BytesContent(SIGNED))
    assert found.dmarc.status == "PASS"


async def test_content_that_cannot_be_read_is_no_verdict(make: Callable[..., Assessor]) -> None:
    with pytest.raises(SpoolError):
        await make()(ENVELOPE, Unreadable(SIGNED), scan=False)


@pytest.mark.parametrize("octets", [b"", b"\r\n", b"From", bytes(range(256)), b"From: a@b.example\r\n" * 20_000, b"\0" * 300_000])
async def test_no_octets_stop_it(make: Callable[..., Assessor], octets: bytes) -> None:
    found = await judged(make(), octets)
    assert set(statuses(found)) == {"spf", "dkim", "dmarc"}


# --- scanners ---


async def test_without_scan_nobody_is_asked_and_the_verdicts_are_disabled(make: Callable[..., Assessor]) -> None:
    spam = Fake("rspamd:x")
    found = await judged(make(scanners={"spam": spam}))
    assert (found.spam.status, found.virus.status, spam.envelopes) == ("DISABLED", "DISABLED", [])


async def test_with_scan_each_scanner_is_asked_once_and_told_the_clients_name(make: Callable[..., Assessor]) -> None:
    spam, virus = Fake("rspamd:x", Verdict(Status.GRAY, "greylist")), Fake("clamd:x", Verdict(Status.FAIL, "Eicar"))
    found = await judged(make(scanners={"spam": spam, "virus": virus}), scan=True)
    assert (found.spam, found.virus) == (Verdict(Status.GRAY, "greylist"), Verdict(Status.FAIL, "Eicar"))
    assert statuses(found).items() >= PASSED.items()
    assert [envelope.peer.reverse_name for envelope in spam.envelopes] == ["mx.sender.example"]
    assert len(virus.envelopes) == 1


async def test_scan_without_a_scanner_is_gray(make: Callable[..., Assessor]) -> None:
    found = await judged(make(), scan=True)
    assert (found.spam, found.virus) == (Verdict(Status.GRAY, "no scanner is configured"),) * 2


@pytest.mark.parametrize("error", [ScannerDown("connection refused"), RuntimeError("a fault of ours")])
async def test_a_scanner_that_fails_is_the_failure_of_its_verdict_only(make: Callable[..., Assessor], error: Exception) -> None:
    scanners = {"spam": Fake("rspamd:x"), "virus": Fake("clamd:x", error)}
    with structlog.testing.capture_logs():
        found = await judged(make(scanners=scanners), scan=True)
    assert statuses(found) == PASSED | {"spam": "PASS", "virus": "PROCESSING_FAILED"}
    assert found.unscanned == ()


async def test_a_message_may_wait_for_a_scanner_and_then_lacks_only_that(make: Callable[..., Assessor], zone: DnsServer) -> None:
    spam, virus = Fake("rspamd:x"), Fake("clamd:x", ScannerDown("connection refused"))
    assessor = make(scanners={"spam": spam, "virus": virus}, waits=True)
    with pytest.raises(Unscanned) as waits:
        await judged(assessor, scan=True)
    assert waits.value.scanner == "clamd:x"
    earlier = Assessment.from_json(waits.value.assessment.to_json())
    assert statuses(earlier) == PASSED | {"spam": "PASS", "virus": "PROCESSING_FAILED"}
    assert earlier.unscanned == ("virus",)
    asked = len(zone.queries)
    virus.answer = Verdict(Status.PASS)
    found = await assessor(ENVELOPE, BytesContent(SIGNED), scan=True, earlier=earlier)
    assert statuses(found) == PASSED | {"spam": "PASS", "virus": "PASS"}
    assert (found.unscanned, found.client_name) == ((), "mx.sender.example")
    assert (len(spam.envelopes), len(virus.envelopes), len(zone.queries)) == (1, 2, asked)


async def test_what_no_rule_wants_scanned_any_more_is_not_waited_for(make: Callable[..., Assessor]) -> None:
    earlier = Assessment(virus=Verdict(Status.PROCESSING_FAILED), unscanned=("virus",))
    found = await make(scanners={"virus": Fake("clamd:x", ScannerDown("x"))}, waits=True)(ENVELOPE, BytesContent(SIGNED), scan=False, earlier=earlier)
    assert found.unscanned == ()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_busy_scanner_is_always_waited_for(make: Callable[..., Assessor], waits: bool) -> None:
    @contextlib.asynccontextmanager
    async def guard(_name: str) -> AsyncIterator[None]:
        raise ScannerBusy("too many messages wait for it")
        yield

    with pytest.raises(Unscanned) as found:
        await judged(make(scanners={"spam": Fake("rspamd:x"), "virus": Fake("clamd:x")}, guard=guard, waits=waits), scan=True)
    assert found.value.assessment.unscanned == SCANS


async def test_closing_gives_the_scanners_back(make: Callable[..., Assessor]) -> None:
    scanner = Fake("clamd:x")
    await make(scanners={"virus": scanner}).close()
    assert scanner.closed
