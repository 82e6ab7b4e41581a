"""What a blocklist says of a client is the answer to RCPT, once it is known; and who is not asked about."""

from __future__ import annotations

import asyncio
import ipaddress

from front_door import HOSTNAME, front_door, until

from inbound.accept import policy, reply
from inbound.accept.policy import Trust
from inbound.log import Event

FRONT_END = Trust(front_ends=policy.LOOPBACK)
GREETING = f"220 {HOSTNAME} ESMTP"
LISTED = "554 5.7.1 Client address 8.8.8.8 is listed by bl.example: see https://bl.example/"
AS_CLIENT = ("XCLIENT ADDR=8.8.8.8", "EHLO client.example", "MAIL FROM:<a@sender.example>")


class Lists:
    """Looks clients up, and remembers whom."""

    def __init__(self, answer: tuple[str, str] | None = ("bl.example", "see https://bl.example/"), *, held: bool = False) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def listed(self, address: str) -> tuple[str, str] | None:
        self.asked.append(address)
        await self.go.wait()
        return self.answer


async def test_recipients_of_a_listed_client_are_refused_with_the_reason() -> None:
    lists = Lists()
    async with front_door(trust=FRONT_END, listed=lists.listed) as door:
        client = await door.greeted("EHLO front.example")
        assert (await client.said(*AS_CLIENT))[2] == str(reply.MAIL_OK)
        assert await client.said("RCPT TO:<support@example.com>", "RCPT TO:<nobody@example.com>", "DATA") == \
            [LISTED, LISTED, str(reply.NO_RECIPIENTS)]
        assert lists.asked == ["8.8.8.8"]
        refused = door.journal.of(Event.SESSION_REFUSED)
        assert [(event["client"], event["reason"], event["recipient"]) for event in refused[:2]] == \
            [("8.8.8.8", "dnsbl", "support@example.com"), ("8.8.8.8", "dnsbl", "nobody@example.com")]


async def test_a_client_that_no_list_names_comes_through() -> None:
    lists = Lists(None)
    async with front_door(trust=FRONT_END, listed=lists.listed) as door:
        client = await door.greeted("EHLO front.example")
        await client.said(*AS_CLIENT)
        assert await client.say("RCPT TO:<support@example.com>") == str(reply.RCPT_OK)


async def test_the_answer_is_awaited_at_rcpt_and_nowhere_else() -> None:
    lists = Lists(held=True)
    async with front_door(trust=FRONT_END, listed=lists.listed) as door:
        client = await door.greeted("EHLO front.example")
        assert (await client.said(*AS_CLIENT))[2] == str(reply.MAIL_OK)
        answer = asyncio.create_task(client.say("RCPT TO:<support@example.com>"))
        await until(lambda: lists.asked)
        assert not answer.done()
        lists.go.set()
        assert await answer == LISTED


async def test_a_client_that_a_filter_allows_is_not_asked_about() -> None:
    lists = Lists()
    async with front_door(trust=FRONT_END, listed=lists.listed) as door:
        door.intake.rules.allowed.add("8.8.8.8")
        client = await door.greeted("EHLO front.example")
        await client.said(*AS_CLIENT)
        assert await client.say("RCPT TO:<support@example.com>") == str(reply.RCPT_OK)
        assert lists.asked == []


async def test_loopback_and_trusted_clients_are_not_asked_about() -> None:
    lists = Lists()
    async with front_door(trust=FRONT_END, listed=lists.listed, trusted=(ipaddress.ip_network("8.0.0.0/8"),)) as door:
        client = await door.greeted("EHLO front.example", "MAIL FROM:<a@sender.example>")
        assert await client.say("RCPT TO:<support@example.com>") == str(reply.RCPT_OK)
        await client.say("RSET")
        assert (await client.said(*AS_CLIENT, "RCPT TO:<support@example.com>"))[3] == str(reply.RCPT_OK)
        assert lists.asked == []


async def test_a_search_that_fails_lists_nobody() -> None:
    async def broken(_address: str) -> tuple[str, str] | None:
        raise ValueError("broken")

    async with front_door(trust=FRONT_END, listed=broken, failures=1) as door:
        client = await door.greeted("EHLO front.example")
        assert (await client.said(*AS_CLIENT, "RCPT TO:<support@example.com>"))[3] == str(reply.RCPT_OK)


async def test_a_client_that_leaves_ends_its_search() -> None:
    lists = Lists(held=True)
    async with front_door(trust=FRONT_END, listed=lists.listed) as door:
        client = await door.greeted("EHLO front.example")
        await client.said("XCLIENT ADDR=8.8.8.8")
        await until(lambda: lists.asked)
        before = len(asyncio.all_tasks())
        await client.say("QUIT")
        await until(lambda: len(asyncio.all_tasks()) < before)
