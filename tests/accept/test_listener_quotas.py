"""Quotas at the front door: 450 4.7.1 where it is due, and only for what was accepted."""

from __future__ import annotations

from front_door import Door, front_door
from smtp_client import Client

from inbound.accept import policy, reply
from inbound.accept.policy import Limits, Trust
from inbound.accept.quotas import Quotas
from inbound.accept.rate import Rate

FRONT_END = Trust(front_ends=policy.LOOPBACK)
DAY = 86400.0


async def sent(client: Client, sender: str = "a@sender.example", *recipients: str) -> list[str]:
    """The replies to MAIL and each RCPT; the message is sent when there is a recipient."""
    replies = [await client.say(f"MAIL FROM:<{sender}>")]
    if replies == [str(reply.MAIL_OK)]:
        replies += await client.said(*(f"RCPT TO:<{recipient}>" for recipient in recipients or ("support@example.com",)))
        if str(reply.RCPT_OK) in replies:
            await client.say("DATA")
            await client.send(b".\r\n")
            assert (await client.reply()).startswith("250 2.0.0 OK ")
        else:
            await client.say("RSET")
    return replies


async def as_client(door: Door, address: str) -> Client:
    client = await door.greeted("EHLO front.example")
    await client.said(f"XCLIENT ADDR={address}", "EHLO client.example")
    return client


async def test_a_client_over_its_quota_is_told_to_come_back() -> None:
    async with front_door(trust=FRONT_END, quotas=Quotas(Limits(), client=Rate(2, DAY))) as door:
        client = await as_client(door, "192.0.2.1")
        assert [(await sent(client))[0] for _ in range(3)] == [*[str(reply.MAIL_OK)] * 2, str(reply.CLIENT_QUOTA)]
        assert (await sent(await as_client(door, "192.0.2.1")))[0] == str(reply.CLIENT_QUOTA), "a new session changes nothing"
        assert (await sent(await as_client(door, "192.0.2.2")))[0] == str(reply.MAIL_OK)
        assert len(door.intake.accepted) == 3
        assert door.journal.refusals == [str(reply.CLIENT_QUOTA)] * 2


async def test_a_sender_over_its_quota() -> None:
    async with front_door(quotas=Quotas(Limits(), sender=Rate(1, DAY))) as door:
        client = await door.greeted("EHLO x")
        assert [await sent(client, sender) for sender in ("a@sender.example", "a@sender.example", "b@sender.example", "", "")] == [
            [str(reply.MAIL_OK), str(reply.RCPT_OK)], [str(reply.SENDER_QUOTA)], *[[str(reply.MAIL_OK), str(reply.RCPT_OK)]] * 3]


async def test_a_recipient_over_its_quota_while_others_get_theirs() -> None:
    async with front_door(quotas=Quotas(Limits(), recipient=Rate(1, DAY))) as door:
        client = await door.greeted("EHLO x")
        await sent(client)
        assert await sent(client, "a@x", "support@example.com", "sales@example.com") == \
            [str(reply.MAIL_OK), str(reply.RECIPIENT_QUOTA), str(reply.RCPT_OK)]
        assert door.intake.accepted[1].forward_paths == ("sales@example.com",)


async def test_a_message_that_was_not_accepted_does_not_count() -> None:
    async with front_door(quotas=Quotas(Limits(), sender=Rate(1, DAY), recipient=Rate(1, DAY)), message_size=2000) as door:
        client = await door.greeted("EHLO x")
        for _ in range(3):
            await client.said("MAIL FROM:<a@sender.example>", "RCPT TO:<support@example.com>", "DATA")
            await client.send(b"x" * 3000 + b"\r\n.\r\n")
            assert await client.reply() == str(reply.TOO_LARGE)
        assert await sent(client) == [str(reply.MAIL_OK), str(reply.RCPT_OK)]
