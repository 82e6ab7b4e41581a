"""SMTPUTF8 (RFC 6531) at the front door: taken only where it is switched on, and only in a transaction that says so."""

from __future__ import annotations

import unicodedata

import pytest
from front_door import HOSTNAME, Door, Rules, front_door
from smtp_client import Client

from inbound.accept import address, reply
from inbound.accept.reply import Refusal, Reply
from inbound.decide.rules import RuleFile
from inbound.deliver.intake import PinnedRules

MAIL = "MAIL FROM:<alice@sender.example> SMTPUTF8"


async def say(client: Client, command: str) -> str:
    """Send a command in UTF-8; its reply."""
    await client.send(command.encode() + b"\r\n")
    return await client.reply()


async def send(client: Client, *commands: str) -> list[str]:
    """Send commands and an empty message; the replies to the commands."""
    replies = [await say(client, command) for command in commands]
    await client.said("DATA")
    await client.send(b".\r\n")
    assert (await client.reply()).startswith("250 2.0.0 OK ")
    return replies


def accept_all(door: Door) -> None:
    """Rules that take every recipient."""
    class All(Rules):
        def recipient(self, address: str, *, tls: bool) -> Reply:
            return reply.RCPT_OK

    door.intake.rules = All()


async def test_it_is_offered_where_it_is_switched_on_and_8bitmime_with_it() -> None:
    offers = []
    for on in (False, True):
        async with front_door(smtputf8=on) as door:
            offers.append((await (await door.greeted()).say("EHLO x")).replace("250-", "250 ").split("\n250 "))
    assert "SMTPUTF8" not in offers[0]
    assert {"SMTPUTF8", "8BITMIME"} < set(offers[1])


async def test_a_transaction_in_utf8() -> None:
    async with front_door(smtputf8=True) as door:
        accept_all(door)
        client = await door.greeted("EHLO client.example")
        assert await send(client, "MAIL FROM:<jörg@bücher.example> BODY=8BITMIME SMTPUTF8", "RCPT TO:<мир@пример.example>",
                          "RCPT TO:<a@example.com>") == [str(reply.MAIL_OK), str(reply.RCPT_OK), str(reply.RCPT_OK)]
        (envelope,) = door.intake.accepted
        assert envelope.smtputf8
        assert (envelope.reverse_path, envelope.forward_paths) == ("jörg@bücher.example", ("мир@пример.example", "a@example.com"))
        assert envelope.parameters == ("BODY=8BITMIME", "SMTPUTF8")
        assert type(envelope).from_json(envelope.to_json()) == envelope


async def test_a_transaction_that_does_not_say_so_is_in_ascii() -> None:
    async with front_door(smtputf8=True) as door:
        accept_all(door)
        client = await door.greeted("EHLO client.example")
        assert [await say(client, command) for command in ("MAIL FROM:<jörg@sender.example>", "MAIL FROM:<alice@bücher.example> SIZE=1")] == \
            [str(reply.NOT_ASCII)] * 2
        assert str(reply.NOT_ASCII).startswith("553 5.6.7 ")
        assert await send(client, "MAIL FROM:<alice@sender.example>", "RCPT TO:<jörg@example.com>", "RCPT TO:<a@bücher.example>",
                          "RCPT TO:<a@example.com>") == [str(reply.MAIL_OK), *[str(reply.NOT_ASCII)] * 2, str(reply.RCPT_OK)]
        assert [await say(client, command) for command in (MAIL, "RSET", "MAIL FROM:<alice@sender.example>", "RCPT TO:<jörg@example.com>")][-1] == \
            str(reply.NOT_ASCII), "one transaction's word does not hold for the next"
        assert [envelope.smtputf8 for envelope in door.intake.accepted] == [False]


async def test_where_it_is_off_nothing_of_it_is_known() -> None:
    async with front_door() as door:
        accept_all(door)
        client = await door.greeted("EHLO client.example")
        assert await say(client, MAIL) == str(reply.UNKNOWN_PARAMETER)
        assert await say(client, "MAIL FROM:<jörg@sender.example>") == str(reply.NOT_ASCII)
        assert await say(client, "EHLO bücher.example") == str(reply.NEED_NAME)


async def test_its_parameter_has_no_value_and_needs_ehlo() -> None:
    async with front_door(smtputf8=True) as door:
        client = await door.greeted("EHLO client.example")
        assert await client.said(f"{MAIL}=1", f"{MAIL} SMTPUTF8", "HELO client.example", MAIL) == \
            [str(reply.BAD_PARAMETER), str(reply.BAD_PARAMETER), f"250 {HOSTNAME}", str(reply.UNKNOWN_PARAMETER)]


async def test_helo_may_be_a_u_label() -> None:
    async with front_door(smtputf8=True) as door:
        client = await door.greeted()
        assert (await say(client, "EHLO bücher.example")).startswith("250-")
        await client.send(b"EHLO b\xfccher.example\r\n")
        assert await client.reply() == str(reply.NEED_NAME)
        await send(client, MAIL, "RCPT TO:<support@example.com>")
        assert door.intake.accepted[0].helo == "bücher.example"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_an_address_is_kept_as_it_was_sent(form: str) -> None:
    spelling = unicodedata.normalize(form, "jörg") + "@example.com"  # type: ignore[arg-type]  # a normalization form
    async with front_door(smtputf8=True) as door:
        accept_all(door)
        client = await door.greeted("EHLO x")
        await send(client, f"MAIL FROM:<{spelling}> SMTPUTF8", f"RCPT TO:<{spelling}>")
        assert (door.intake.accepted[0].reverse_path, door.intake.accepted[0].forward_paths) == (spelling, (spelling,))


RULES = {"Identities": ["bücher.example"], "RuleSets": {"default": [
    {"Name": "one", "Recipients": ["Jörg@bücher.example", "info@XN--BCHER-KVA.example"], "Actions": [{"S3Action": {"BucketName": "mail"}}]}]}}


@pytest.mark.parametrize(("recipient", "expected"), [
    ("jörg@bücher.example", reply.RCPT_OK),
    ("JÖRG@BÜCHER.EXAMPLE", reply.RCPT_OK),
    ("jörg@xn--bcher-kva.example", reply.RCPT_OK),
    ("Jörg@Xn--Bcher-Kva.Example", reply.RCPT_OK),
    (unicodedata.normalize("NFD", "jörg@bücher.example"), reply.RCPT_OK),
    ("jörg+label@bücher.example", reply.RCPT_OK),
    ('"jörg"@bücher.example', reply.RCPT_OK),
    ("info@bücher.example", reply.RCPT_OK),
    ("INFO@BÜCHER.example", reply.RCPT_OK),
    ("jorg@bücher.example", reply.NO_SUCH_RECIPIENT),
    ("joerg@bücher.example", reply.NO_SUCH_RECIPIENT),
    ("jörg@bucher.example", reply.NO_SUCH_RECIPIENT),
    ("jörg@bu\u0308\u0308cher.example", reply.NO_SUCH_RECIPIENT),
    ("j\u043erg@b\u00fccher.example", reply.NO_SUCH_RECIPIENT),  # CYRILLIC SMALL LETTER O
    ("info@b\u00fc\u0441her.example", reply.NO_SUCH_RECIPIENT),  # CYRILLIC SMALL LETTER ES
    ("info@xn--bcher-kvb.example", reply.NO_SUCH_RECIPIENT),
    ("info@xn--.example", reply.BAD_RECIPIENT),
    ("info@xn--\u00fc.example", reply.NO_SUCH_RECIPIENT),
])
async def test_u_labels_and_a_labels_match_one_rule_in_any_case(recipient: str, expected: Reply) -> None:
    """Spec §10 row 4; what only looks alike is another address."""
    async with front_door(smtputf8=True) as door:
        door.intake.rules = PinnedRules(RuleFile.model_validate(RULES).active(), tls_works=lambda: True)  # type: ignore[assignment]
        client = await door.greeted("EHLO x", MAIL)
        assert await say(client, f"RCPT TO:<{recipient}>") == str(expected)


# --- the grammar ---

GOOD = ["ü@example.com", "用户@例え.テスト", "ünï.cödé+x@example.com", '"j ö"@example.com', "a@bücher.example", "a@ü", "\U0001f600@example.com",
        "a\u200cb@example.com", "क्\u200dष@example.com", "\u0301x@example.com", "ü" * 32 + "@example.com", "a@" + "ü" * 100 + ".example"]


@pytest.mark.parametrize("text", GOOD, ids=ascii)
def test_what_is_printable_is_taken_in_utf8_only(text: str) -> None:
    expected = text.removeprefix('"').replace('"@', "@") if " " not in text else text
    for path in (f"<{text}>", f" <@route.example:{text}>", f"<{text}> SIZE=1"):
        assert address.forward_path(b"TO:" + path.encode(), utf8=True)[0] == expected
        assert address.reverse_path(b"FROM:" + path.encode(), utf8=True)[0] == expected
        with pytest.raises(Refusal) as caught:
            address.forward_path(b"TO:" + path.encode())
        assert caught.value.reply is reply.NOT_ASCII


BAD = [
    "ü\u0085@example.com".encode(), "ü\u2028@example.com".encode(), "ü\u2029@example.com".encode(), "ü\u202e@example.com".encode(),
    "ü\u00a0@example.com".encode(), "ü\u200b@example.com".encode(), "ü\ufeff@example.com".encode(), "ü\ue000@example.com".encode(),
    "ü\U000e0041@example.com".encode(), "ü@exam\u00adple.com".encode(), "ü\u0080@example.com".encode(), "ü\uffff@example.com".encode(),
    b"\xff@example.com", b"\xc0\xae@example.com", b"\xed\xa0\x80@example.com", b"\xf8\x88\x80\x80\x80@example.com", b"\xc3@example.com",
    b"a@b\xfccher.example", "ü @example.com".encode(), "ü@example..com".encode(), "ü@-a.example".encode(), "ü@a-.example".encode(),
    "ü@[ü]".encode(), "ü<@example.com".encode(), "ü(a)@example.com".encode(), '"ü@example.com'.encode(), '"ü"x@example.com'.encode(),
    b'"\\\xc3\xbc"@example.com', ("ü" * 33 + "@example.com").encode(), ("a@" + "ü" * 126 + ".example").encode(), "ü".encode(), "@ü.example".encode(),
]


@pytest.mark.parametrize("octets", BAD, ids=lambda octets: ascii(octets)[:40])
def test_what_cannot_be_seen_or_is_no_utf8_is_refused(octets: bytes) -> None:
    for read, keyword, expected in ((address.forward_path, b"TO:", reply.BAD_RECIPIENT), (address.reverse_path, b"FROM:", reply.BAD_SENDER)):
        with pytest.raises(Refusal) as caught:
            read(keyword + b"<" + octets + b">", utf8=True)
        assert caught.value.reply is expected
    assert address.helo_name(octets.replace(b" ", b""), utf8=True) is None or octets.decode().isprintable()


@pytest.mark.parametrize("argument", [b"TO:<" + b"a@" + b"x" * 64 + b".example>", b"TO:<a@example..com>", b'TO:<"a\x00"@example.com>', b"TO:<a b@c>"])
def test_ascii_is_judged_as_ever(argument: bytes) -> None:
    with pytest.raises(Refusal):
        address.forward_path(argument, utf8=True)
