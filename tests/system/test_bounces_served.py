"""Bounces through the front door: a service with a real listener, a spool on disk and a smarthost that speaks SMTP; AWS is in memory."""

from __future__ import annotations

import email
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from journal import Journal
from process import converse
from smarthost import smarthost

from inbound import settings
from inbound.assess.trial import Trial
from inbound.deliver.memory import MemoryAws
from inbound.log import Event
from inbound.service import Service
from inbound.settings import SmtpAddress, SmtpServer

TOPIC = "arn:aws:sns:us-east-1:000000000000:told"
BOUNCE = "BounceAction: {SmtpReplyCode: 550, StatusCode: 5.1.1, Message: Mailbox does not exist, Sender: postmaster@example.com"
RULES = f"""
Identities: [example.com]
RuleSets:
  default:
    - Name: gone
      Recipients: [gone@example.com]
      Actions:
        - {BOUNCE}}}
        - StopAction: {{Scope: RuleSet}}
    - Name: full
      Recipients: [full@example.com]
      Actions:
        - BounceAction: {{SmtpReplyCode: 450, Message: "Für später", Sender: postmaster@example.com}}
        - StopAction: {{Scope: RuleSet}}
    - Name: told
      Recipients: [told@example.com]
      Actions:
        - {BOUNCE}, TopicArn: "{TOPIC}"}}
        - StopAction: {{Scope: RuleSet}}
    - Name: copied
      Recipients: [copied@example.com]
      Actions:
        - {BOUNCE}}}
    - Name: everything
      Recipients: [copied@example.com, kept@example.com]
      Actions:
        - S3Action: {{BucketName: mail}}
"""
PUBLISH = f"""
Identities: [example.com]
RuleSets:
  default:
    - Name: publish
      Actions: [SNSAction: {{TopicArn: "{TOPIC}"}}]
"""
MAIL = b"MAIL FROM:<ann@example.net>\r\n"
EHLO = b"EHLO client.example\r\n"
DATA = b"DATA\r\n"
LETTER = b"From: ann@example.net\r\nSubject: hello\r\n\r\nhi\r\n.\r\n"
LARGE = b"From: ann@example.net\r\nSubject: hello\r\n\r\n" + (b"x" * 98 + b"\r\n") * 1600 + b".\r\n"


def to(*names: str) -> list[bytes]:
    return [f"RCPT TO:<{name}@example.com>\r\n".encode() for name in names]


class Running:
    """A service, what it logged, and its AWS."""

    def __init__(self, service: Service, aws: MemoryAws, journal: Journal) -> None:
        self.service = service
        self.aws = aws
        self.events = journal.events
        self.until = journal.until

    async def said(self, *commands: bytes) -> list[str]:
        """The replies to these commands after EHLO."""
        return (await converse(self.service.addresses[0].port, EHLO, *commands))[2:]

    async def detail(self, message_id: str) -> list[dict[str, Any]]:
        """What the steps of a message did, once it is done."""
        await self.until(Event.MESSAGE_DONE, lambda e: e["id"] == message_id)
        entry = await self.service.spool.get(message_id)
        assert entry is not None
        return [dict(step.detail) for step in entry.steps if step.outcome == "done"]


@asynccontextmanager
async def running(folder: Path, port: int, rules: str = RULES, *, server: SmtpServer | None = None, **told: Any) -> AsyncIterator[Running]:
    (folder / "rules.yaml").write_text(rules)
    journal = Journal()
    found = settings.read(rules=folder / "rules.yaml", data=folder / "data", listen=(SmtpAddress("127.0.0.1", 0),), hostname="mx.test",
                          smarthost=server or SmtpServer("127.0.0.1", port, "off"), retry_min=0.02, retry_max=0.1, **told)
    aws = MemoryAws()
    service = Service(found, journal.log, aws=aws, trial=Trial())
    await service.start()
    try:
        yield Running(service, aws, journal)
    finally:
        await service.stop()


async def test_a_bounce_that_is_certain_is_the_answer_to_rcpt_in_the_rules_own_words(tmp_path: Path) -> None:
    async with smarthost() as host, running(tmp_path, host.port) as service:
        replies = await service.said(MAIL, *to("gone", "Gone+label", "full", "nobody", "kept"), DATA, LETTER)
        assert replies[1:6] == ["550 5.1.1 Mailbox does not exist", "550 5.1.1 Mailbox does not exist", "450 4.0.0 F?r sp?ter",
                                "550 5.1.1 Requested action not taken: mailbox unavailable", "250 2.1.5 Recipient OK"]
        message_id = replies[-1].removeprefix("250 2.0.0 OK ")
        assert [step["action"] for step in await service.detail(message_id)] == ["S3"]
        refused = [event for event in service.events if event["event"] is Event.SESSION_REFUSED]
        assert [event["reason"] for event in refused] == ["bounce", "bounce", "bounce", "no rule"]
        assert host.got == []


async def test_nobody_else_to_send_it_to(tmp_path: Path) -> None:
    async with smarthost() as host, running(tmp_path, host.port) as service:
        assert (await service.said(b"MAIL FROM:<>\r\n", *to("gone"), DATA))[1:] == ["550 5.1.1 Mailbox does not exist",
                                                                                   "554 5.5.1 No valid recipients"]


@pytest.mark.parametrize(("name", "actions"), [("told", ["Bounce", "Bounce", "Stop"]), ("copied", ["Bounce", "S3"])])
async def test_what_is_not_certain_is_bounced_later(name: str, actions: list[str], tmp_path: Path) -> None:
    async with smarthost() as host, running(tmp_path, host.port) as service:
        replies = await service.said(MAIL, *to(name), DATA, LETTER)
        assert replies[1] == "250 2.1.5 Recipient OK"
        detail = await service.detail(replies[-1].split()[-1])
        assert [step["action"] for step in detail] == actions
        sender, recipients, octets, _, _ = host.got[0]
        assert (sender, recipients) == ("<>", ["ann@example.net"])
        assert email.message_from_bytes(octets)["Message-ID"] == f"<{detail[0]['messageId']}>"
        assert f"Final-Recipient: rfc822; {name}@example.com\r\n".encode() in octets
        assert detail[0]["reply"] == "250 2.0.0 queued as 1"


async def test_in_dsn_mode_every_bounce_is_sent(tmp_path: Path) -> None:
    async with smarthost() as host, running(tmp_path, host.port, bounce="dsn") as service:
        replies = await service.said(MAIL, *to("gone", "full"), DATA, LETTER)
        assert replies[1:3] == ["250 2.1.5 Recipient OK"] * 2
        detail = await service.detail(replies[-1].split()[-1])
        assert [step["bounce"] for step in detail if step["action"] == "Bounce"] == ["550 5.1.1 Mailbox does not exist", "450 4.0.0 F?r sp?ter"]
        assert len(host.got) == 2


async def test_a_null_reverse_path_is_not_bounced(tmp_path: Path) -> None:
    async with smarthost() as host, running(tmp_path, host.port, bounce="dsn") as service:
        replies = await service.said(b"MAIL FROM:<>\r\n", *to("gone"), DATA, LETTER)
        detail = await service.detail(replies[-1].split()[-1])
        assert detail[0]["suppressed"] == "the reverse-path is null"
        assert host.got == []


async def test_a_sender_that_spf_and_dmarc_do_not_vouch_for_is_not_bounced(tmp_path: Path) -> None:
    async with smarthost() as host, running(tmp_path, host.port, bounce="dsn") as service:
        forged = LETTER.replace(b"example.net", b"example.org")
        replies = await service.said(b"MAIL FROM:<ann@example.org>\r\n", *to("gone"), DATA, forged)
        detail = await service.detail(replies[-1].split()[-1])
        assert detail[0]["suppressed"] == "the sender may be forged: neither SPF nor DMARC passes"
        assert host.got == []


class TestTooLongForSns:
    async def test_it_is_refused_by_its_size_where_everything_is_only_published(self, tmp_path: Path) -> None:
        async with smarthost() as host, running(tmp_path, host.port, PUBLISH) as service:
            too_long = b"MAIL FROM:<ann@example.net> SIZE=153601\r\n"
            assert await service.said(too_long, MAIL, *to("a")) == ["552 5.3.4 Message too large", "250 2.1.0 Sender OK", "250 2.1.5 Recipient OK"]
            assert (await service.said(b"MAIL FROM:<ann@example.net> SIZE=153600\r\n"))[0] == "250 2.1.0 Sender OK"

    async def test_it_is_refused_after_data_where_size_was_not_told(self, tmp_path: Path) -> None:
        async with smarthost() as host, running(tmp_path, host.port, PUBLISH) as service:
            assert (await service.said(MAIL, *to("a", "b"), DATA, LARGE))[-1] == "552 5.3.4 Message too large"
            assert await service.service.spool.counts() == dict.fromkeys(await service.service.spool.counts(), 0)

    async def test_it_is_bounced_where_something_else_comes_of_it(self, tmp_path: Path) -> None:
        rules = PUBLISH + "    - Name: store\n      Recipients: [kept@example.com]\n      Actions: [S3Action: {BucketName: mail}]\n"
        async with smarthost() as host, running(tmp_path, host.port, rules) as service:
            assert (await service.said(MAIL, *to("a"), DATA, LARGE))[-1] == "552 5.3.4 Message too large", "for a nothing else does"
            replies = await service.said(b"MAIL FROM:<ann@example.net> SIZE=160041\r\n", *to("a", "kept"), DATA, LARGE)
            message_id = replies[-1].split()[-1]
            assert [step["action"] for step in await service.detail(message_id)] == ["SNS", "S3"]
            assert b"552 5.2.3 Message length exceeds limit set by recipient" in host.got[0][2]
            assert list(service.aws.objects) == [("mail", message_id)]

    async def test_in_dsn_mode_it_is_bounced(self, tmp_path: Path) -> None:
        async with smarthost() as host, running(tmp_path, host.port, PUBLISH, bounce="dsn") as service:
            replies = await service.said(b"MAIL FROM:<ann@example.net> SIZE=160041\r\n", *to("a"), DATA, LARGE)
            await service.detail(replies[-1].split()[-1])
            assert len(host.got) == 1


async def test_a_login_that_fails_is_the_smarthosts_trouble_and_the_password_is_told_nowhere(tmp_path: Path) -> None:
    async with smarthost(login=True) as host:
        wrong = SmtpServer("127.0.0.1", host.port, "off", "me", "geheim")
        async with running(tmp_path, host.port, bounce="dsn", server=wrong) as service:
            await service.said(MAIL, *to("gone"), DATA, LETTER)
            deferred = await service.until(Event.MESSAGE_DEFERRED)
            assert deferred["error"].startswith(f"smtp:127.0.0.1:{host.port}: 535 ")
            entry = await service.service.spool.get(deferred["id"])
            assert "geheim" not in f"{service.events}{entry}{service.service.settings!r}"
        assert host.got == []


async def test_a_smarthost_that_was_down_gets_what_waited_for_it(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    async with running(tmp_path, port, bounce="dsn") as service:
        ids = [(await service.said(MAIL, *to("gone"), DATA, LETTER))[-1].split()[-1] for _ in range(6)]
        down = await service.until(Event.SINK_DOWN)
        assert down["sink"] == f"smtp:127.0.0.1:{port}"
        async with smarthost(port=port) as host:
            for message_id in ids:
                assert "reply" in (await service.detail(message_id))[0]
            assert len(host.got) == 6
            assert len({email.message_from_bytes(octets)["Message-ID"] for _, _, octets, _, _ in host.got}) == 6
        assert (await service.until(Event.SINK_UP))["sink"] == down["sink"]
