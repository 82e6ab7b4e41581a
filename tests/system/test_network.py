"""The service on a real network: behind a load balancer, over TLS, with names from DNS and addresses beyond ASCII, down to what is delivered."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from dns_server import DnsServer, Fault
from journal import Journal
from process import clean_environment, connected, reply

from inbound import settings
from inbound.accept import listener
from inbound.accept.envelope import Peer
from inbound.accept.tls import Certificate
from inbound.assess.trial import Trial
from inbound.deliver.memory import MemoryAws
from inbound.log import Event
from inbound.service import Service
from inbound.settings import Address, SettingsError, SmtpAddress

TOPIC = "arn:aws:sns:us-east-1:000000000000:inbound"
RULES = f"""
Identities: [info@bücher.example, example.com]
RuleSets:
  default:
    - Name: secret
      Recipients: [secret@example.com]
      TlsPolicy: Require
      Actions: [{{S3Action: {{BucketName: secret}}}}]
    - Name: kept
      Recipients: [u@example.com, info@bücher.example]
      Actions: [{{S3Action: {{BucketName: mail}}}}, {{SNSAction: {{TopicArn: "{TOPIC}"}}}}]
"""
LAX = RULES.replace("TlsPolicy: Require", "TlsPolicy: Optional")
HERE = SmtpAddress("127.0.0.1", 0)
ZONE = """
1.2.0.192.in-addr.arpa  PTR  mail.client.example
mail.client.example     A    192.0.2.1
2.2.0.192.in-addr.arpa  PTR  pretender.bank.example
pretender.bank.example  A    198.51.100.1
sender.example          TXT  "v=spf1 ip4:192.0.2.1 -all"
"""
LETTER = ("MAIL FROM:<alice@sender.example>", "RCPT TO:<u@example.com>")


class Network:
    """A running service and what came out of it."""

    def __init__(self, service: Service, aws: MemoryAws, journal: Journal) -> None:
        self.service = service
        self.aws = aws
        self.events = journal.events
        self.until = journal.until

    @property
    def port(self) -> int:
        return self.service.addresses[0].port

    async def said(self, *commands: str, before: bytes = b"", port: int = 0, tls: ssl.SSLContext | None = None) -> list[str]:
        """The replies to commands, the greeting first; `before` is sent ahead of everything, `tls` begins with the connection."""
        if tls is not None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port, ssl=tls, server_hostname="mx.test")
            try:
                return await self._say(reader, writer, commands)
            finally:
                writer.close()
        async with connected(port or self.port) as (reader, writer):
            writer.write(before)
            return await self._say(reader, writer, commands)

    async def _say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, commands: tuple[str, ...]) -> list[str]:
        replies = [await reply(reader)]
        for command in commands:
            writer.write(command.encode() + b"\r\n")
            replies.append(await reply(reader))
        return replies

    async def delivered(self, *commands: str, body: str = "Subject: x\r\n\r\nbody", **how: Any) -> str:
        """Send a message; its id, once all is done with it."""
        replies = await self.said("EHLO client.test", *commands, "DATA", f"{body}\r\n.", **how)
        assert replies[-1].startswith("250 2.0.0 OK "), replies
        message_id = replies[-1].split()[-1]
        await self.until(Event.MESSAGE_DONE, lambda event: event["id"] == message_id)
        return message_id


@asynccontextmanager
async def running(folder: Path, rules: str = LAX, *, production: bool = True, **told: Any) -> AsyncIterator[Network]:
    """A service with these settings, on the twin of AWS."""
    (folder / "rules.yaml").write_text(rules)
    journal = Journal()
    found = settings.read(**{"rules": folder / "rules.yaml", "data": folder / "data", "listen": (HERE,), "hostname": "mx.test"} | told)
    aws = MemoryAws()
    service = Service(found, journal.log, aws=aws, production=production, trial=None if "dns" in told else Trial())
    await service.start()
    try:
        yield Network(service, aws, journal)
    finally:
        await service.stop()


def certificate(folder: Path, by: trustme.CA) -> dict[str, Path]:
    """The settings of a certificate that was just issued."""
    issued = by.issue_cert("mx.test")
    cert, key = folder / "cert.pem", folder / "key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    cert.write_bytes(issued.cert_chain_pems[0].bytes())
    return {"tls_cert": cert, "tls_key": key}


def trusting(by: trustme.CA) -> ssl.SSLContext:
    """A client that trusts this authority."""
    context = ssl.create_default_context()
    by.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


# --- behind a load balancer, with DNS ---


@pytest.mark.parametrize(("address", "named"), [("192.0.2.1", "mail.client.example"), ("192.0.2.2", "unknown"), ("192.0.2.3", "unknown")],
                         ids=["confirmed", "not-confirmed", "no-name"])
async def test_received_and_spf_tell_the_client_that_the_load_balancer_names(address: str, named: str, tmp_path: Path) -> None:
    """Spec §1.5: the name is in Received and is what `helo=` says; without one, `unknown` and the address."""
    with DnsServer(ZONE) as dns:
        async with running(tmp_path, dns=(Address(*dns.address),), proxy_from="127.0.0.0/8") as network:
            message_id = await network.delivered(*LETTER, before=f"PROXY TCP4 {address} 198.51.100.25 4000 25\r\n".encode())
            head = network.aws.objects["mail", message_id].decode()
            assert f"Received: from client.test ({named} [{address}])\r\n by mx.test with SMTP id {message_id}\r\n" in head
            assert f"helo={address if named == 'unknown' else named};" in head
            assert f"client-ip={address};" in head
            assert f"Received-SPF: {'pass' if address == '192.0.2.1' else 'fail'} " in head
            entry = await network.service.spool.get(message_id)
            assert entry is not None
            assert entry.envelope.peer == Peer(address, 4000, "" if named == "unknown" else named)
            assert (await network.until(Event.MESSAGE_RECEIVED))["client"] == address


async def test_a_name_is_looked_up_once_for_many_sessions(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns:
        async with running(tmp_path, dns=(Address(*dns.address),), proxy_from="127.0.0.0/8") as network:
            for _ in range(3):
                await network.delivered(*LETTER, before=b"PROXY TCP4 192.0.2.1 198.51.100.25 4000 25\r\n")
            assert dns.asked("1.2.0.192.in-addr.arpa", "PTR") == 1


async def test_silent_dns_delays_the_reply_by_no_more_than_the_time_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "NAME_SECONDS", 0.2)
    with DnsServer(ZONE, faults={"1.2.0.192.in-addr.arpa": Fault.SILENT}) as dns:
        async with running(tmp_path, dns=(Address(*dns.address),), proxy_from="127.0.0.0/8") as network:
            began = asyncio.get_running_loop().time()
            replies = await network.said("EHLO client.test", *LETTER, "DATA", "\r\n.", before=b"PROXY TCP4 192.0.2.1 198.51.100.25 4000 25\r\n")
            assert replies[-1].startswith("250 2.0.0 OK ")
            assert asyncio.get_running_loop().time() - began < 2


# --- trust ---


async def test_xclient_is_for_trusted_networks_and_in_dev_for_this_machine(tmp_path: Path) -> None:
    said = ("EHLO front.test", "XCLIENT ADDR=127.0.0.9 NAME=spike.example")
    for number, (told, production, expected) in enumerate([({}, True, "550 5.7.0 "), ({"trusted": "10.0.0.0/8"}, True, "550 5.7.0 "),
                                                           ({"trusted": "127.0.0.0/8"}, True, "220 "), ({}, False, "220 ")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with running(folder, production=production, **told) as network:
            assert (await network.said(*said))[-1].startswith(expected)


# --- TLS ---


async def test_a_listener_with_tls_from_the_first_octet(authority: trustme.CA, tmp_path: Path) -> None:
    listen = (HERE, HERE._replace(tls=True))
    async with running(tmp_path, RULES, listen=listen, **certificate(tmp_path, authority)) as network:
        plain, secure = network.service.addresses
        assert [str(plain), str(secure)] == [f"127.0.0.1:{plain.port}", f"smtps://127.0.0.1:{secure.port}"]
        assert (await network.until(Event.SERVICE_STARTED))["smtp"] == [str(plain), str(secure)]
        message_id = await network.delivered(LETTER[0], "RCPT TO:<secret@example.com>", port=secure.port, tls=trusting(authority))
        assert ("secret", message_id) in network.aws.objects
        entry = await network.service.spool.get(message_id)
        assert entry is not None
        assert entry.envelope.tls is not None
        assert entry.envelope.tls.version == "TLSv1.3"


async def test_a_rule_that_requires_tls(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spec §10 row 12: 530 where a certificate could serve, 451 when it no longer can."""
    async with running(tmp_path, RULES, **certificate(tmp_path, authority)) as network:
        commands = ("EHLO x", LETTER[0], "RCPT TO:<secret@example.com>", "RCPT TO:<u@example.com>")
        assert [line[:9] for line in (await network.said(*commands))[2:]] == ["250 2.1.0", "530 5.7.0", "250 2.1.5"]
        monkeypatch.setattr(Certificate, "works", False)
        replies = await network.said(*commands, "RSET", "STARTTLS")
        assert [line[:9] for line in replies[2:]] == ["250 2.1.0", "451 4.7.0", "250 2.1.5", "250 2.0.0", "454 4.7.0"]
        assert "STARTTLS" not in replies[1]


async def test_a_new_certificate_is_used_and_a_bad_one_is_not(authority: trustme.CA, tmp_path: Path) -> None:
    other = trustme.CA()
    async with running(tmp_path, listen=(HERE._replace(tls=True),), **certificate(tmp_path, authority)) as network:
        await network.said("NOOP", tls=trusting(authority))
        (tmp_path / "new.pem").write_text("-----BEGIN")
        (tmp_path / "new.pem").rename(tmp_path / "cert.pem")  # at once: what is half written is refused for another reason
        rejected = await network.until(Event.TLS_REJECTED)
        assert rejected["error"].startswith(f"INBOUND_TLS_CERT: {tmp_path / 'cert.pem'} is not ")
        await network.said("NOOP", tls=trusting(authority))
        certificate(tmp_path, other)
        await network.until(Event.TLS_LOADED)
        await network.said("NOOP", tls=trusting(other))
        with pytest.raises(ssl.SSLCertVerificationError):
            await network.said("NOOP", tls=trusting(authority))


async def test_a_socket_of_systemd_with_tls_needs_a_certificate(tmp_path: Path) -> None:
    (sock,) = listener.bind("127.0.0.1", 0)
    with sock, pytest.raises(SettingsError, match="smtps, which needs a certificate: set INBOUND_TLS_CERT and INBOUND_TLS_KEY"):
        Service(settings.read(data=tmp_path), structlog.get_logger(), aws=MemoryAws(), inherited={"smtps": [sock]})


async def test_a_socket_of_systemd_with_tls(authority: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(LAX)
    (sock,) = listener.bind("127.0.0.1", 0)
    found = settings.read(rules=tmp_path / "rules.yaml", data=tmp_path / "data", **certificate(tmp_path, authority))
    journal, aws = Journal(), MemoryAws()
    service = Service(found, journal.log, aws=aws, inherited={"smtps": [sock]}, trial=Trial())
    await service.start()
    try:
        network = Network(service, aws, journal)
        assert (await network.said("NOOP", tls=trusting(authority)))[-1] == "250 2.0.0 OK"
    finally:
        await service.stop()


# --- addresses ---


async def test_consumers_see_addresses_beyond_ascii_as_they_were_sent(tmp_path: Path) -> None:
    """RFC 6531 section 3.7.3: trace fields of such a message are UTF-8."""
    async with running(tmp_path, smtputf8=True) as network:
        message_id = await network.delivered("MAIL FROM:<jörg@пример.example> SMTPUTF8", "RCPT TO:<Info@BÜCHER.example>",
                                             body="From: Jörg <jörg@пример.example>\r\nTo: Info@BÜCHER.example\r\nSubject: Grüße\r\n\r\nbody")
        stored = network.aws.objects["mail", message_id].decode()
        assert stored.startswith("Return-Path: <jörg@пример.example>\r\nReceived: from client.test ")
        assert "\r\n for Info@BÜCHER.example;\r\n" in stored
        ((_, _, text),) = network.aws.published
        told = json.loads(text)
        assert told["mail"]["source"] == "jörg@пример.example"
        assert told["mail"]["destination"] == told["receipt"]["recipients"] == ["Info@BÜCHER.example"]
        assert told["mail"]["commonHeaders"]["from"] == ["Jörg <jörg@пример.example>"]
        assert told["mail"]["commonHeaders"]["subject"] == "Grüße"


async def test_one_address_in_u_labels_and_a_labels_is_one_recipient(tmp_path: Path) -> None:
    async with running(tmp_path, smtputf8=True) as network:
        await network.delivered("MAIL FROM:<> SMTPUTF8", "RCPT TO:<info@bücher.example>", "RCPT TO:<INFO@xn--bcher-kva.example>")
        ((_, _, text),) = network.aws.published
        assert len(json.loads(text)["receipt"]["recipients"]) == 1


@pytest.mark.parametrize(("identities", "recipients", "meant"), [
    ("example.com, example.org", "example.com, example.org", "postmaster@example.com"),
    ("info@example.org, postmaster@example.org, example.com", "postmaster@example.org, example.com", "postmaster@example.org"),
    ("info@example.org, example.com", "example.com", None),
], ids=["domain", "address", "address-without-a-postmaster"])
async def test_postmaster_is_at_the_first_identity(identities: str, recipients: str, meant: str | None, tmp_path: Path) -> None:
    """Spec §10 row 32, whether that is a domain or an address; whether there is such a mailbox is for the rules to say."""
    rules = f"""
Identities: [{identities}]
RuleSets:
  default:
    - {{Name: all, Recipients: [{recipients}], Actions: [{{SNSAction: {{TopicArn: "{TOPIC}"}}}}]}}
"""
    async with running(tmp_path, rules) as network:
        if meant is None:
            assert (await network.said("EHLO x", LETTER[0], "RCPT TO:<postmaster>"))[-1].startswith("550 5.1.1 ")
            return
        await network.delivered(LETTER[0], "RCPT TO:<PostMaster>")
        ((_, _, text),) = network.aws.published
        assert json.loads(text)["receipt"]["recipients"] == [meant]


# --- inbound send ---


async def send(network: Network, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """`inbound send --json` to the service: exit status, what it printed, its complaint."""
    where = ("--smtp", f"127.0.0.1:{network.port}", "--http", "127.0.0.1:9", "--json")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "inbound", "send", *where, *arguments],
        env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


async def test_send_as_another_client(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(tmp_path, RULES, production=False, **certificate(tmp_path, authority)) as network:
        for ip in ("192.0.2.77", "2001:db8::77"):
            status, told, complaint = await send(network, "--to", "secret@example.com", "--ip", ip, "--helo", "client.example", "--tls")
            assert status == 0, complaint
            entry = await network.service.spool.get(told["reply"].split()[-1])
            assert entry is not None
            assert (entry.envelope.peer.address, entry.envelope.helo, entry.envelope.tls is not None) == (ip, "client.example", True)
        status, told, _ = await send(network, "--to", "secret@example.com")
        assert (status, told["reply"][:30]) == (1, "secret@example.com: 530 5.7.0 ")


async def test_send_where_it_may_not_be_another_client(tmp_path: Path) -> None:
    async with running(tmp_path) as network:
        for option, said in (("--ip=192.0.2.77", "XCLIENT, which --ip needs, is not offered to you; 'inbound dev' takes it from this machine"),
                             ("--tls", "STARTTLS is not offered")):
            status, _, complaint = await send(network, "--to", "u@example.com", option)
            assert (status, len(complaint.splitlines())) == (1, 1)
            assert said in complaint
        status, _, complaint = await send(network, "--to", "info@bücher.example")
        assert (status, len(complaint.splitlines())) == (1, 1)
        assert "INBOUND_SMTPUTF8=true" in complaint


async def test_send_to_an_address_beyond_ascii(tmp_path: Path) -> None:
    async with running(tmp_path, smtputf8=True) as network:
        status, told, _ = await send(network, "--to", "info@bücher.example", "--from", "jörg@sender.example", "--helo", "[192.0.2.1]")
        assert status == 0
        message_id = told["reply"].split()[-1]
        await network.until(Event.MESSAGE_DONE)
        stored = network.aws.objects["mail", message_id].decode()
        assert stored.startswith("Return-Path: <jörg@sender.example>\r\nReceived: from [192.0.2.1] ")
        assert "\r\nTo: info@bücher.example\r\n" in stored


@pytest.mark.parametrize(("option", "value"), [("--ip", "client.example"), ("--ip", "192.0.2.256"), ("--helo", "two words"), ("--helo", "a\r\nMAIL"),
                                               ("--helo", "")])
def test_send_says_what_it_expects(option: str, value: str) -> None:
    done = subprocess.run([sys.executable, "-m", "inbound", "send", "--to", "u@example.com", option, value], env=clean_environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert repr(value) in done.stderr
    assert "Traceback" not in done.stderr


# --- wrong settings ---


@pytest.mark.parametrize(("told", "said"), [
    ({"LISTEN": "smtps://127.0.0.1:0"}, "INBOUND_LISTEN names smtps://127.0.0.1:0, which needs a certificate: set INBOUND_TLS_CERT and"),
    ({"LISTEN": "smtp://127.0.0.1:0"}, "INBOUND_LISTEN: 'smtp://127.0.0.1:0' is neither HOST:PORT nor smtps://HOST:PORT ("),
    ({"TLS_CERT": "nowhere.pem", "TLS_KEY": "key.pem"}, "INBOUND_TLS_CERT: nowhere.pem cannot be read: no such file or directory; it should be a"),
    ({"TLS_CERT": "cert.pem", "TLS_KEY": "other.pem"}, "INBOUND_TLS_KEY: other.pem is the key of another certificate than the first in cert.pem"),
    ({"PROXY_FROM": "10.0.0.0/33"}, "INBOUND_PROXY_FROM: '10.0.0.0/33' is not a comma list of IP networks (10.0.0.0/8, 2001:db8::/32)"),
    ({"SMTPUTF8": "perhaps"}, "INBOUND_SMTPUTF8: Input should be a valid boolean"),
], ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "")
def test_a_wrong_setting_is_one_line_before_any_port_is_opened(told: dict[str, str], said: str, authority: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(LAX)
    certificate(tmp_path, authority)
    (tmp_path / "other.pem").write_bytes(authority.issue_cert("mx.test").private_key_pem.bytes())
    environment = clean_environment() | {"INBOUND_LISTEN": "127.0.0.1:0", "INBOUND_HTTP_LISTEN": "127.0.0.1:0"}
    done = subprocess.run([sys.executable, "-m", "inbound", "serve"], cwd=tmp_path, env=environment | {f"INBOUND_{k}": v for k, v in told.items()},
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "var").exists()


# --- rules ---


async def test_of_a_thousand_warnings_the_log_has_the_first_and_their_number(tmp_path: Path) -> None:
    rule = "    - Name: r{0}\n      Recipients: [u@example.com, u@example.com]\n      Actions: [S3Action: {{BucketName: mail}}]\n"
    async with running(tmp_path, "RuleSets:\n  default:\n" + "".join(rule.format(n) for n in range(30))) as network:
        warnings = [event["warning"] for event in network.events if event["event"] is Event.SERVICE_WARNING]
        assert len(warnings) == 21
        assert warnings[-1].endswith("rules.yaml has 10 more warnings: inbound check")


# --- blocklists and quotas ---


async def test_a_client_that_a_blocklist_names_is_refused_unless_a_filter_allows_it(tmp_path: Path) -> None:
    zone = '8.8.8.8.bl.example A 127.0.0.4\n8.8.8.8.bl.example TXT "an example"\n9.9.9.9.bl.example A 127.0.0.4\n4.4.8.8.bl.example A 127.0.0.9'
    rules = LAX + "Filters:\n  - Name: friends\n    IpFilter: {Policy: Allow, Cidr: 9.9.9.0/24}\n"
    with DnsServer(zone) as server:
        told = {"dns": (Address(*server.address),), "proxy_from": "127.0.0.0/8", "dnsbl": "bl.example=127.0.0.[2..7]"}
        async with running(tmp_path, rules, **told) as network:
            answers = {}
            for client in ("8.8.8.8", "9.9.9.9", "8.8.4.4"):
                answers[client] = (await network.said("EHLO x", *LETTER, before=f"PROXY TCP4 {client} 127.0.0.1 4000 25\r\n".encode()))[-1]
    assert answers == {"8.8.8.8": "554 5.7.1 Client address 8.8.8.8 is listed by bl.example: an example",
                       "9.9.9.9": "250 2.1.5 Recipient OK", "8.8.4.4": "250 2.1.5 Recipient OK"}


async def test_quotas_of_the_settings_hold(tmp_path: Path) -> None:
    async with running(tmp_path, proxy_from="127.0.0.0/8", rate_client="1/d", rate_sender="2/d", rate_recipient="3/d") as network:
        async def first_refusal(client: str, sender: str) -> str:
            replies = await network.said("EHLO x", f"MAIL FROM:<{sender}>", "RCPT TO:<u@example.com>", "DATA", "x\r\n.",
                                         before=f"PROXY TCP4 {client} 127.0.0.1 4000 25\r\n".encode())
            return next((line for line in replies if line[0] in "45"), "")

        sent = [("192.0.2.1", "a@x.example"), ("192.0.2.1", "b@x.example"), ("192.0.2.2", "a@x.example"), ("192.0.2.3", "a@x.example"),
                ("192.0.2.4", "c@x.example"), ("192.0.2.5", "d@x.example")]
        assert [(await first_refusal(*each))[:9] + each[1][:1] for each in sent] == \
            ["a", "450 4.7.1b", "a", "450 4.7.1a", "c", "450 4.7.1d"]
