"""Verdicts end to end: a message by SMTP to `inbound serve` beside the real clamd and rspamd and a DNS server, and what S3 and Lambda hold."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer, Fault
from letters_with_attachments import letter, zipped
from process import Serve, converse, message
from scanners import EICAR, GTUBE, ClamdAddresses, free_port
from sink import Sink

from inbound.assess.dkim.sign import key_record, new_key, sign

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: scanned
      Recipients: [scanned@example.com]
      ScanEnabled: true
      Actions: [{S3Action: {BucketName: scanned}}]
    - Name: plain
      Recipients: [example.com]
      Actions: [{S3Action: {BucketName: plain}}]
"""
KEY = new_key()
RECORD = " ".join(f'"{part}"' for part in (key_record(KEY)[:250], key_record(KEY)[250:]))
ZONE = f"""
    sender.example               TXT  "v=spf1 ip4:127.0.0.1 -all"
    _dmarc.sender.example        TXT  "v=DMARC1; p=reject"
    s._domainkey.sender.example  TXT  {RECORD}
    bank.example                 TXT  "v=spf1 ip4:192.0.2.1 -all"
    _dmarc.bank.example          TXT  "v=DMARC1; p=reject"
    _dmarc.quiet.example         TXT  "v=DMARC1; p=none"
    helo.evil.example            TXT  "v=spf1 ip4:127.0.0.1 -all"
    evil.example                 TXT  "v=spf1 ip4:127.0.0.1 -all"
"""
SENDER = "ann@sender.example"
QUICK = {"retry_min": "0.2", "retry_max": "0.3"}


def signed(octets: bytes, domain: str = "sender.example") -> bytes:
    return sign(octets, domain=domain, selector="s", key_pem=KEY) + octets


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running


class Receiver:
    """A service, and what it stored."""

    def __init__(self, folder: Path, sink: Sink, dns: DnsServer, **settings: str) -> None:
        self.sink = sink
        self.serve = Serve(folder, RULES, sink.endpoint, dns=dns.setting, **settings)

    async def __aenter__(self):
        await self.serve.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert await self.serve.kill(signal.SIGTERM) == 0

    async def reply(self, octets: bytes, *, sender: str = SENDER, recipient: str = "plain@example.com", helo: str = "mx.sender.example") -> str:
        """The reply to the final dot."""
        body = octets.removesuffix(b"\r\n")
        return (await converse(self.serve.port, b"EHLO %b\r\n" % helo.encode(), *message(recipient, body, sender)))[-1]

    async def stored(self, octets: bytes, bucket: str = "plain", **session: str) -> bytes:
        reply = await self.reply(octets, **session)
        assert reply.startswith("250 2.0.0 OK "), reply
        key = f"{bucket}/{reply.split()[-1]}"
        await self.sink.until(lambda: key in self.sink.objects)
        return self.sink.objects[key]

    async def header(self, octets: bytes, name: str, bucket: str = "plain", **session: str) -> str:
        """The topmost field of that name, unfolded."""
        block = (await self.stored(octets, bucket, **session)).partition(b"\r\n\r\n")[0].decode()
        found = re.search(rf"^{name}: ([^\r\n]*(?:\r\n [^\r\n]*)*)", block, re.MULTILINE)
        return found[1].replace("\r\n", "") if found else ""

    async def scans(self, octets: bytes) -> dict[str, str]:
        """The X-SES verdicts on a message to the rule that scans."""
        block = (await self.stored(octets, "scanned", recipient="scanned@example.com")).partition(b"Received-SPF:")[0].decode()
        return dict(re.findall(r"^X-SES-(\w+)-Verdict: (\w+)\r$", block, re.MULTILINE))


@pytest.fixture
async def receiver(tmp_path: Path, sink: Sink, dns: DnsServer) -> AsyncIterator[Receiver]:
    async with Receiver(tmp_path, sink, dns) as running:
        yield running


# --- the real scanners ---


@pytest.mark.parametrize("over", ["TCP", "Unix socket"])
async def test_the_real_scanners_judge_a_real_session(
    tmp_path: Path, sink: Sink, dns: DnsServer, clamd: ClamdAddresses, rspamd: int, over: str,
) -> None:
    address = f"127.0.0.1:{clamd.port}" if over == "TCP" else str(clamd.path)
    async with Receiver(tmp_path, sink, dns, clamd=address, rspamd=f"127.0.0.1:{rspamd}") as receiver:
        assert await receiver.scans(letter()) == {"Spam": "PASS", "Virus": "PASS"}
        for infected in (b"Subject: x\r\n\r\n" + EICAR + b"\r\n", letter("see below\n", EICAR), letter("see below\n", zipped(EICAR)),
                         letter("see below\n", b"x" * 400_000, EICAR)):
            assert (await receiver.scans(infected))["Virus"] == "FAIL"
        assert await receiver.scans(letter(f"Hello\n\n{GTUBE.decode()}\n")) == {"Spam": "FAIL", "Virus": "PASS"}
        unscanned = await receiver.stored(letter("see below\n", EICAR))
        assert b"X-SES-" not in unscanned.partition(b"\r\n\r\n")[0], "where no rule scans"
        assert not [event for event in receiver.serve.events if event["event"] == "service.warning" and "scanner" in event["warning"]]


async def test_viruses_and_spam_can_be_refused_before_they_are_ours(
    tmp_path: Path, sink: Sink, dns: DnsServer, clamd: ClamdAddresses, rspamd: int,
) -> None:
    settings = {"clamd": str(clamd.path), "rspamd": f"http://127.0.0.1:{rspamd}", "reject": "virus,spam"}
    async with Receiver(tmp_path, sink, dns, **settings) as receiver:
        for infected in (letter("see below\n", EICAR), letter("see below\n", b"x" * 400_000, EICAR)):
            assert re.fullmatch(r"550 5\.7\.1 Message refused: it carries a virus \(Eicar-Test-Signature.*\)", await receiver.reply(infected))
        assert await receiver.reply(letter(f"{GTUBE.decode()}\n")) == "550 5.7.1 Message refused: it is taken for spam"
        assert await receiver.scans(letter()) == {"Spam": "PASS", "Virus": "PASS"}
        await receiver.stored(letter())
        await sink.until(lambda: len(sink.objects) >= 3)  # the first message is another rule's still when the second is stored
        assert len(sink.objects) == 3, "two of one message, for two rules, and the one of the other"
        refused = [event for event in receiver.serve.events if event["event"] == "session.refused"]
        assert [event["reason"] for event in refused] == ["virus", "virus", "spam"]
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and EICAR in path.read_bytes()]
    assert kept == [], "no malware is stored"


@pytest.mark.parametrize("scanner", ["clamd", "rspamd"])
async def test_a_scanner_that_is_down_never_keeps_a_message_out(tmp_path: Path, sink: Sink, dns: DnsServer, scanner: str) -> None:
    async with Receiver(tmp_path, sink, dns, **{scanner: f"127.0.0.1:{free_port()}"}, reject="virus,spam") as receiver:
        failed, other = ("Virus", "Spam") if scanner == "clamd" else ("Spam", "Virus")
        assert await receiver.scans(letter()) == {failed: "PROCESSING_FAILED", other: "GRAY"}
        warnings = [event["warning"] for event in receiver.serve.events if event["event"] == "service.warning" and "ScanEnabled" in event["warning"]]
        assert len(warnings) == 1
        assert f"no {other.lower()} scanner is configured" in warnings[0]


async def test_a_message_may_wait_for_its_scanner(tmp_path: Path, sink: Sink, dns: DnsServer) -> None:
    waiting = {"scan_failure": "retry", "retry_for": "1s", "spool_age": "1h"}
    async with Receiver(tmp_path, sink, dns, clamd=f"127.0.0.1:{free_port()}", **waiting, **QUICK) as receiver:
        reply = await receiver.reply(letter(), recipient="scanned@example.com")
        assert reply.startswith("250 ")
        dead = await receiver.serve.until(lambda event: event["event"] == "message.dead")
        assert dead["error"].startswith("clamd:127.0.0.1:")
        await receiver.stored(letter())
        assert not [key for key in sink.objects if key.startswith("scanned/")]


# --- mail authentication ---


async def test_a_signed_message_passes_and_one_byte_changed_fails_with_the_reason(receiver: Receiver) -> None:
    good = signed(letter())
    expected = ("mx.test; spf=pass (spfCheck: domain of sender.example designates 127.0.0.1 as permitted sender) client-ip=127.0.0.1; "
                "envelope-from=ann@sender.example; helo=127.0.0.1; dkim=pass header.i=@sender.example; dmarc=pass header.from=sender.example;")
    assert await receiver.header(good, "Authentication-Results") == expected
    bad = good.replace(b"how are you", b"who are you")
    assert await receiver.header(bad, "Authentication-Results") == expected.replace("dkim=pass", "dkim=fail")
    found = await route(receiver, bad)
    assert found["verdicts"]["dkim"] == {
        "status": "FAIL", "reason": "sender.example: body hash did not verify: the body is not the one that was signed"}
    assert found["authentication"]["dkim"] == [["fail", "sender.example"]]


async def route(receiver: Receiver, octets: bytes, **session: str) -> dict[str, Any]:
    """The trace of a message that was sent, from the spool."""
    reply = await receiver.reply(octets, **session)
    message_id = reply.split()[-1]
    done = await receiver.serve.until(lambda event: event["event"] == "message.done" and event["id"] == message_id)
    assert done
    told = await inbound(receiver, "queue", "show", message_id, "--json")
    found: dict[str, Any] = json.loads(told)
    return found


async def inbound(receiver: Receiver, *arguments: str) -> str:
    """What a command prints, run on the data of the service."""
    import asyncio
    import sys

    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "inbound", *arguments, env=receiver.serve.environment,
                                                   cwd=receiver.serve.folder, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode()


async def test_what_dmarc_and_spf_say_can_refuse(tmp_path: Path, sink: Sink, dns: DnsServer) -> None:
    async with Receiver(tmp_path, sink, dns, reject="dmarc,spf") as receiver:
        forged = letter().replace(b"ann@sender.example", b"ann@bank.example")
        assert await receiver.reply(forged, sender="x@evil.example") == "550 5.7.26 Message refused: it fails the DMARC policy of bank.example"
        assert await receiver.reply(signed(letter()), sender="x@bank.example") == (
            "550 5.7.23 Message refused: domain of bank.example does not designate 127.0.0.1 as permitted sender")
        quiet = letter().replace(b"ann@sender.example", b"ann@quiet.example")
        assert (await receiver.reply(quiet, sender="x@evil.example")).startswith("250 "), "p=none asks for nothing"
        assert "dkim=pass" in await receiver.header(signed(letter()), "Authentication-Results")


async def test_dns_that_does_not_answer_delays_neither_the_reply_nor_other_messages(tmp_path: Path, sink: Sink) -> None:
    with DnsServer(ZONE, faults={"sender.example": Fault.HELD}) as slow:
        async with Receiver(tmp_path, sink, slow) as receiver:
            held = (await receiver.reply(letter())).split()
            assert held[:3] == ["250", "2.0.0", "OK"]
            await slow.arrived("sender.example")
            assert "spf=pass" in await receiver.header(letter(), "Authentication-Results", sender="x@evil.example")
            assert f"plain/{held[3]}" not in sink.objects
            slow.release("sender.example")
            await sink.until(lambda: f"plain/{held[3]}" in sink.objects)


@pytest.mark.parametrize(("fault", "result"), [
    (Fault.SILENT, "temperror"), (Fault.SERVFAIL, "temperror"), (Fault.REFUSED, "temperror"), (Fault.TRUNCATED_DEAF, "temperror"),
    (Fault.WRONG_ID, "temperror"), (Fault.WRONG_QUESTION, "temperror"), (Fault.GARBAGE, "temperror"), (Fault.HUGE, "none"),
    (Fault.CNAME_LOOP, "temperror"),
])
async def test_dns_in_trouble_is_a_verdict_and_no_refusal(tmp_path: Path, sink: Sink, fault: Fault, result: str) -> None:
    with DnsServer(ZONE, faults={"sender.example": fault}) as troubled:
        async with Receiver(tmp_path, sink, troubled) as receiver:
            troubled_id = (await receiver.reply(letter())).split()[3]
            assert "spf=pass" in await receiver.header(letter(), "Authentication-Results", sender="x@evil.example"), "others are judged meanwhile"
            await sink.until(lambda: f"plain/{troubled_id}" in sink.objects)
            assert f"spf={result}".encode() in sink.objects[f"plain/{troubled_id}"]


# --- "Composition Kills" (Chen, Paxson, Jiang, USENIX Security 2020), where the pieces meet ---

COMPOSED = {
    "two From fields": b"From: a@evil.example\r\nFrom: ceo@bank.example\r\nSubject: x\r\n\r\nhi\r\n",
    "two From fields, the other first": b"From: ceo@bank.example\r\nFrom: a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "a From field with a space before its colon": b"From : ceo@bank.example\r\nFrom: a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "a folded From name": b"From\r\n : ceo@bank.example\r\nFrom: a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "a From field in the first line's continuation": b" From: ceo@bank.example\r\nFrom: a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "two addresses": b"From: a@evil.example, ceo@bank.example\r\nSubject: x\r\n\r\nhi\r\n",
    "two addresses, the other first": b"From: ceo@bank.example, a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "two addresses in angles": b"From: <ceo@bank.example><a@evil.example>\r\nSubject: x\r\n\r\nhi\r\n",
    "an address in the display name": b"From: ceo@bank.example <a@evil.example>\r\nSubject: x\r\n\r\nhi\r\n",
    "a quoted address": b'From: "ceo@bank.example"@evil.example\r\nSubject: x\r\n\r\nhi\r\n',
    "a commented domain": b"From: ceo@bank.example(.evil.example)\r\nSubject: x\r\n\r\nhi\r\n",
    "a comment before the domain": b"From: a@(bank.example)evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "a source route": b"From: <@bank.example,@any.example:a@evil.example>\r\nSubject: x\r\n\r\nhi\r\n",
    "NUL in From": b"From: ceo@bank.example\0a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "NUL in the name": b"From\0: ceo@bank.example\r\nFrom: a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "a bare CR that hides a field": b"X: y\rFrom: ceo@bank.example\r\nFrom: a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "an encoded word in From": b"From: =?utf-8?q?ceo=40bank=2Eexample=2C?= a@evil.example\r\nSubject: x\r\n\r\nhi\r\n",
    "an encoded address": b"From: =?utf-8?q?=3Cceo=40bank=2Eexample=3E?= <a@evil.example>\r\nSubject: x\r\n\r\nhi\r\n",
    "no From": b"Sender: ceo@bank.example\r\nSubject: x\r\n\r\nhi\r\n",
    "a group": b"From: bank: ceo@bank.example, a@evil.example;\r\nSubject: x\r\n\r\nhi\r\n",
}


async def test_composed_messages_never_pass_dmarc_for_the_bank(receiver: Receiver) -> None:
    """The sender controls evil.example, SPF passes for it, and every message is signed for it by a key that does not exist."""
    passes = {}
    for name, octets in COMPOSED.items():
        results = await receiver.header(octets, "Authentication-Results", sender="a@evil.example", helo="helo.evil.example")
        assert "spf=pass" in results, name
        passes[name] = re.findall(r" dmarc=(\w+)(?: header\.from=([^;]*))?;", results)
        assert len(passes[name]) == 1, name
    assert {name: found for name, found in passes.items() if found[0][0] == "pass" and "bank" in found[0][1]} == {}
    # where the From address is evil.example's beyond doubt, DMARC has nothing against it: that domain publishes no policy
    doubtless = {name for name, found in passes.items() if found[0] == ("none", "evil.example")}
    assert doubtless <= {"an encoded word in From", "an encoded address"}, passes
    assert {found[0][0] for name, found in passes.items() if name not in doubtless} == {"fail"}


async def test_an_empty_reverse_path_with_a_chosen_helo_does_not_pass_for_another_domain(receiver: Receiver) -> None:
    results = await receiver.header(b"From: ceo@bank.example\r\nSubject: x\r\n\r\nhi\r\n", "Authentication-Results", sender="",
                                    helo="helo.evil.example")
    assert "spf=pass" in results
    assert "envelope-from=postmaster@helo.evil.example;" in results
    assert "dmarc=fail header.from=bank.example;" in results


async def test_a_forged_result_is_renamed_and_ours_comes_first(receiver: Receiver) -> None:
    forged = b"Authentication-Results: mx.test; dmarc=pass header.from=bank.example\r\nX-SES-Spam-Verdict: PASS\r\n" + letter()
    stored = await receiver.stored(forged)
    names = re.findall(rb"^([\w-]+):", stored.partition(b"\r\n\r\n")[0], re.MULTILINE)
    assert names[:6] == [b"Return-Path", b"Received", b"Received-SPF", b"Authentication-Results", b"X-Forged-Authentication-Results",
                         b"X-Forged-X-SES-Spam-Verdict"]
    assert names.count(b"Authentication-Results") == 1


async def test_a_body_that_grew_behind_its_signature_does_not_help_dmarc(receiver: Receiver) -> None:
    octets = letter()
    body = octets.partition(b"\r\n\r\n")[2]
    line = with_length(octets, len(body))
    grown = line + octets + b"<p>Pay here</p>\r\n"
    results = await receiver.header(grown, "Authentication-Results", sender="a@evil.example")
    assert "dmarc=fail header.from=sender.example;" in results
    assert (await route(receiver, grown, sender="a@evil.example"))["verdicts"]["dkim"]["status"] != "PASS"


def with_length(octets: bytes, length: int) -> bytes:
    """A valid signature line with l=."""
    import dkim

    signer = dkim.DKIM(octets)
    line: bytes = signer.sign(b"s", b"sender.example", pkcs1(), canonicalize=(b"simple", b"simple"), length=True)
    assert b"l=%d" % length in line
    return line


def pkcs1() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

    return load_pem_private_key(KEY, None).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
