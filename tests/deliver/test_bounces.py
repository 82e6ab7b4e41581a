"""Bounces through the worker and the way out: what is sent, recorded, suppressed, retried, signed, and what goes on after it."""

from __future__ import annotations

import email
import json
from pathlib import Path
from typing import Any

import dkim
import pytest
from bouncing import GONE, HOST, bounces, envelope, step, work
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from worker_bench import MESSAGE, OTHER_TOPIC, S3, SNS, STOP, TOPIC, Bench, rule

from inbound.accept.spool import Outcome, State
from inbound.assess.dkim.sign import key_record, sign
from inbound.deliver.dsn import Failure
from inbound.deliver.folder import BounceFolder
from inbound.deliver.memory import MemorySmarthost
from inbound.deliver.retry import Circuit
from inbound.deliver.sinks import MessageFailed, MessageRefused, SinkDown, SinkFailure

BOUNCE = {"BounceAction": GONE}
BOUNCE_TOPIC = {"BounceAction": GONE | {"TopicArn": TOPIC}}
SINK = "smtp:mail.test:25"
LARGE = MESSAGE + b"y" * 154_000


async def detail(bench: Bench, message: str, index: int = 0) -> dict[str, Any]:
    """What the last attempt at a step did."""
    steps = (await bench.entry(message)).steps
    return dict([record for record in steps if (record.rule, record.index, record.part) == ("one", index, "action")][-1].detail)


async def test_it_is_sent_to_the_reverse_path_recorded_and_the_rules_go_on() -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE_TOPIC, S3), rule("two", SNS), smarthost=host) as bench:
        message = await bench.send("u@example.com", "v@example.com")
        ((recipient, octets),) = host.sent
        assert recipient == "a@example.net"
        parsed = email.message_from_bytes(octets)
        assert await detail(bench, message) == {
            "action": "Bounce", "to": "a@example.net", "bounce": "550 5.1.1 Mailbox does not exist", "messageId": parsed["Message-ID"][1:-1],
            "reply": "250 2.0.0 OK 1",
        }
        assert octets.count(b"Final-Recipient: ") == 2
        assert bench.aws.calls == [f"sns:{TOPIC}", "s3:mail", f"sns:{OTHER_TOPIC}"]
        assert json.loads(bench.aws.published[0][2])["receipt"]["action"]["type"] == "Bounce"
        assert [record.sink for record in (await bench.entry(message)).steps][:1] == [SINK]
        assert await bench.state(message) is State.DONE


async def test_a_suppressed_bounce_is_recorded_the_rules_go_on_and_the_topic_hears_of_it() -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE_TOPIC, S3), smarthost=host) as bench:
        message = await bench.send(content=b"Auto-Submitted: auto-replied\r\n" + MESSAGE)
        assert host.calls == 0
        assert (await detail(bench, message))["suppressed"] == "it is automatic (Auto-Submitted: auto-replied)"
        assert bench.aws.calls == [f"sns:{TOPIC}", "s3:mail"]
        assert await bench.state(message) is State.DONE


async def test_a_suppressed_bounce_waits_for_no_smarthost_and_says_nothing_of_its_health() -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE, S3), smarthost=host) as bench:
        host.down = SinkDown("connection refused")
        for _ in range(6):
            await bench.send()
        assert bench.worker.sinks.states()[SINK] is Circuit.OPEN
        message = await bench.send(content=b"Auto-Submitted: auto-replied\r\n" + MESSAGE)
        assert await bench.state(message) is State.DONE
        assert bench.worker.sinks.states()[SINK] is Circuit.OPEN
        assert host.calls == 5


async def test_our_own_bounce_that_comes_back_is_not_bounced() -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE), smarthost=host) as bench:
        await bench.send()
        assert len(host.sent) == 1
        again = await bench.send(content=host.sent[0][1])
        assert len(host.sent) == 1
        assert "suppressed" in await detail(bench, again)


async def test_the_cap_suppresses_and_a_bounce_that_did_not_go_out_does_not_count() -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE), smarthost=host) as bench:
        host.faults = [MessageFailed("RCPT: 450 later")]
        first = await bench.send()
        for _ in range(19):
            await bench.send()
        await bench.later(60)
        assert await bench.state(first) is State.DONE
        assert len(host.sent) == 20
        over = await bench.send()
        assert "cap of 20" in (await detail(bench, over))["suppressed"]
        bench.ticks += 180
        await bench.send()
        assert len(host.sent) == 21


async def test_what_the_smarthost_refuses_for_good_is_recorded_and_the_rules_go_on() -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE, S3), smarthost=host) as bench:
        host.faults = [MessageRefused("RCPT: 550 5.1.1 unknown")]
        message = await bench.send()
        assert (await detail(bench, message))["refused"] == "RCPT: 550 5.1.1 unknown"
        assert bench.aws.calls == ["s3:mail"]
        assert await bench.state(message) is State.DONE
        assert bench.worker.sinks.states()[SINK] is Circuit.CLOSED


@pytest.mark.parametrize(("fault", "waits_for"), [(SinkDown("connection refused"), SINK), (MessageFailed("RCPT: 450 later"), "")])
async def test_what_time_may_cure_is_tried_again_and_sent_once(fault: SinkFailure, waits_for: str) -> None:
    host = MemorySmarthost()
    async with Bench(rule("one", BOUNCE, S3), smarthost=host) as bench:
        host.faults = [fault]
        message = await bench.send()
        entry = await bench.entry(message)
        assert (entry.state, entry.sink, entry.error) == (State.DEFERRED, waits_for, f"{SINK}: {fault}")
        assert bench.aws.calls == []
        await bench.later(60)
        assert await bench.state(message) is State.DONE
        assert [record.outcome for record in (await bench.entry(message)).steps if record.index == 0] == [Outcome.FAILED, Outcome.DONE]
        assert len(host.sent) == 1


async def test_a_smarthost_that_is_down_is_left_alone_and_holds_up_nobody_else() -> None:
    host = MemorySmarthost()
    async with Bench(rule("a", BOUNCE, to="a@example.com"), rule("b", S3, to="b@example.com"), smarthost=host) as bench:
        host.down = SinkDown("connection refused")
        waiting = [await bench.send("a@example.com") for _ in range(12)]
        assert bench.worker.sinks.states()[SINK] is Circuit.OPEN
        assert host.calls == 5
        stored = await bench.send("b@example.com")
        assert await bench.state(stored) is State.DONE
        host.down = None
        await bench.later(900)
        while any([await bench.state(message) is State.DEFERRED for message in waiting]):
            await bench.later(900)
        assert len(host.sent) == 12


async def test_a_repeated_bounce_has_the_same_message_id() -> None:
    host = MemorySmarthost()
    way = bounces(host)
    for _ in range(2):
        await way.bounce(await work(MESSAGE), step(), Failure("550", "5.1.1", "gone"), "postmaster@example.com")
    first, second = (email.message_from_bytes(octets)["Message-ID"] for _, octets in host.sent)
    assert first == second


async def test_without_a_smarthost_it_waits_for_one() -> None:
    async with Bench(rule("one", BOUNCE)) as bench:
        message = await bench.send()
        entry = await bench.entry(message)
        assert (entry.state, entry.error) == (State.DEFERRED, "smtp: no smarthost is configured; set INBOUND_SMARTHOST")


class TestTooLongForSns:
    async def test_it_is_bounced_and_later_rules_go_on(self) -> None:
        host = MemorySmarthost()
        async with Bench(rule("one", SNS), rule("two", S3), smarthost=host) as bench:
            message = await bench.send("u@example.com", content=LARGE)
            ((recipient, octets),) = host.sent
            assert recipient == "a@example.net"
            assert b"\r\nFrom: postmaster@example.com\r\n" in octets
            assert b"\r\nDiagnostic-Code: smtp; 552 5.2.3 Message length exceeds limit set by recipient\r\nStatus: 5.2.3\r\n" in octets
            assert b"Return-Path" not in octets
            assert bench.aws.calls == ["s3:mail"]
            told = await detail(bench, message)
            assert told["unfit"].startswith("552 5.2.3 the message has 154")
            assert (told["action"], told["bounce"]) == ("SNS", "552 5.2.3 Message length exceeds limit set by recipient")
            assert await bench.state(message) is State.DONE

    async def test_json_over_the_limit_is_the_same(self) -> None:
        host = MemorySmarthost()
        async with Bench(rule("one", SNS), smarthost=host) as bench:
            message = await bench.send(content=MESSAGE + b"\x01" * 60_000)
            assert len(host.sent) == 1
            assert (await detail(bench, message))["unfit"].startswith("552 5.2.3 the notification has ")

    async def test_a_topic_that_is_down_has_no_part_in_it(self) -> None:
        host = MemorySmarthost()
        async with Bench(rule("one", SNS), smarthost=host) as bench:
            bench.aws.down[f"sns:{OTHER_TOPIC}"] = SinkDown("throttled")
            for _ in range(6):
                await bench.send()
            assert bench.worker.sinks.states()[f"sns:{OTHER_TOPIC}"] is Circuit.OPEN
            message = await bench.send(content=LARGE)
            assert await bench.state(message) is State.DONE
            assert bench.worker.sinks.states()[f"sns:{OTHER_TOPIC}"] is Circuit.OPEN
            assert len(host.sent) == 1

    async def test_a_smarthost_that_is_down_is_waited_for_not_the_topic(self) -> None:
        host = MemorySmarthost()
        async with Bench(rule("one", SNS), smarthost=host) as bench:
            host.faults = [SinkDown("connection refused")]
            message = await bench.send(content=LARGE)
            assert (await bench.entry(message)).sink == SINK
            await bench.later(60)
            assert await bench.state(message) is State.DONE
            assert len(host.sent) == 1
            assert bench.aws.calls == []

    async def test_a_suppressed_one_is_no_dead_letter(self) -> None:
        host = MemorySmarthost()
        async with Bench(rule("one", SNS, STOP), smarthost=host) as bench:
            message = await bench.send(content=b"List-Id: x\r\n" + LARGE)
            assert (await detail(bench, message))["suppressed"] == "it is list mail (List-Id)"
            assert await bench.state(message) is State.DONE
            assert host.calls == 0


RSA = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
ED25519 = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
async def test_a_signed_bounce_verifies(key: bytes) -> None:
    host = MemorySmarthost()
    way = bounces(host, sign=lambda octets: sign(octets, domain="example.com", selector="s1", key_pem=key))
    await way.bounce(await work(b"Subject: \xff x\nTo: a\r\n\r\n"), step(), Failure("550", "5.1.1", "gone"), "postmaster@example.com")
    octets = host.sent[0][1]
    assert octets.startswith(b"DKIM-Signature: ")
    asked = []

    def dns(name: bytes, **_: object) -> bytes:
        asked.append(name)
        return key_record(key).encode()

    assert dkim.verify(octets, dnsfunc=dns)
    assert asked == [b"s1._domainkey.example.com."]
    assert not dkim.verify(octets.replace(b"To: ann@", b"To: eve@"), dnsfunc=dns)


class TestFolder:
    async def test_each_bounce_is_a_file_of_its_own(self, tmp_path: Path) -> None:
        way = bounces(BounceFolder(tmp_path / "var" / "bounces"))  # type: ignore[arg-type]
        told = await way.bounce(await work(MESSAGE), step(), Failure("550", "5.1.1", "gone"), "postmaster@example.com")
        other = envelope(message_id="v" * 40)
        await way.bounce(await work(MESSAGE, other), step(), Failure("550", "5.1.1", "gone"), "postmaster@example.com")
        found = sorted((tmp_path / "var" / "bounces").iterdir())
        assert len(found) == 2
        assert told["reply"] in map(str, found)
        assert {email.message_from_bytes(path.read_bytes())["To"] for path in found} == {"ann@sender.example"}
        assert {f"<{path.stem}@{HOST}>" for path in found} == {email.message_from_bytes(path.read_bytes())["Message-ID"] for path in found}

    async def test_one_that_cannot_be_written_is_tried_again(self, tmp_path: Path) -> None:
        (tmp_path / "bounces").write_text("in the way")
        way = BounceFolder(tmp_path / "bounces")
        assert way.sink == f"folder:{tmp_path / 'bounces'}"
        with pytest.raises(SinkDown, match=r"cannot write .*: (File exists|Not a directory)"):
            await way.send(b"x", "a@example.net", name="one", smtputf8=False)
