"""`inbound explain`, from outside: a message in the spool, one in a file, and what is no message at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from inbound import log
from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool import State
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.decide.load import load
from inbound.deliver.memory import MemoryAws
from inbound.deliver.retry import Schedule
from inbound.deliver.sinks import SinkDown
from inbound.deliver.trace_schema import schema
from inbound.deliver.work import Identity
from inbound.deliver.worker import Terms, Worker
from inbound.operate.cli import cli

SAMPLE = Path(__file__).parents[2] / "rules.yaml"
ANN = b"From: Ann <ann@example.net>\r\nSubject: hi\r\n\r\nhello\r\n"
STOPPED = "- everything: stopped before: support@example.com was stopped by Stop (action 4) of support"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with the sample rules and a message, as a user has it."""
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(SAMPLE.read_text())
    Path("ann.eml").write_bytes(ANN)
    yield


def explain(*arguments: object, input: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["explain", *map(str, arguments)], input=input)


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def received(*, fails: bool = False, ids: tuple[str, ...] = (), data: str = "var") -> str:
    """Receive a message for support@example.com, one for each id; the id of the last."""
    async def go() -> str:
        spool = SqliteSpool(Path(data) / "spool")
        await spool.start()
        rule_set = load(Path("rules.yaml")).rule_set
        await spool.keep_revision(rule_set.revision, rule_set.text)
        aws = MemoryAws()
        if fails:
            aws.down["s3:mail"] = SinkDown("NoSuchBucket: mail")
        worker = Worker(spool, aws, Terms(Identity("mx.test", "mx.test"), Schedule()), log.silent())
        message_id = ""
        for message_id in ids or (new_message_id(),):
            envelope = Envelope(message_id, Peer("198.51.100.7", 4711), "client.test", "ann@example.net", ("support@example.com",),
                                1_800_000_000.0, revision=rule_set.revision)
            draft = spool.draft(message_id)
            draft.add(ANN)
            worker.take(await spool.put(envelope, draft))
            await worker.idle()
        await worker.stop(1)
        await spool.stop()
        return message_id

    return asyncio.run(go())


def test_a_message_that_was_received() -> None:
    message_id = received()
    told = lines(explain(message_id))
    assert told[:5] == [f"id {message_id}", "received 2027-01-15T08:00:00.000Z", "size 51 octets",
                        "client 198.51.100.7 (unknown), HELO client.test, no TLS", "sender ann@example.net"]
    assert "+ support: support@example.com matches support@example.com" in told
    assert any(line.startswith(f"S3 done s3://mail/support/{message_id} ") for line in told)
    assert told[-2:] == [STOPPED, "done"]


def test_its_beginning_is_enough_while_no_other_begins_with_it() -> None:
    received(ids=("abc1" + "0" * 36, "abc2" + "0" * 36))
    assert lines(explain("abc2"))[0] == f"id abc2{'0' * 36}"
    both = explain("abc")
    assert (both.exit_code, both.stderr) == (1, f"inbound: 2 messages begin with abc: abc1{'0' * 36}, abc2{'0' * 36}\n")


def test_a_failure_tells_the_sinks_own_error_and_what_waits() -> None:
    told = lines(explain(received(fails=True)))
    assert "S3 failed NoSuchBucket: mail" in " ".join(told)
    assert any(line.startswith("attempt 1 ") and line.endswith("failed: NoSuchBucket: mail") for line in told)
    assert "Lambda waiting arn:aws:lambda:us-east-1:000000000000:function:support" in told
    assert told[-1].startswith("deferred: NoSuchBucket: mail; waits for s3:mail, ")


def test_a_revision_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    message_id = received()

    async def gone(_spool: SqliteSpool, _digest: str) -> None:
        return None

    monkeypatch.setattr(SqliteSpool, "revision", gone)
    told = lines(explain(message_id))
    revision = load(SAMPLE).rule_set.revision
    assert f"the spool does not hold revision {revision} of the rules any more, so which of them matched, and why, cannot be told" in told
    assert any(line.startswith("support: S3 (action 2) action, attempt 1, ") for line in told)


def test_json_is_of_the_documented_shape() -> None:
    message_id = received()
    told = json.loads(explain(message_id, "--json").stdout)
    jsonschema.validate(told, json.loads(explain("--schema").stdout))
    assert told["id"] == message_id
    assert json.loads(CliRunner().invoke(cli, ["queue", "show", message_id, "--json"]).stdout).items() >= told.items()
    jsonschema.validate(json.loads(explain("ann.eml", "--to", "x@example.com", "--no-dns", "--json").stdout), schema())


def test_a_session_that_never_was_has_no_time_and_no_port() -> None:
    """They were 1970 and 0."""
    command = ["ann.eml", "--to", "support@example.com", "--no-dns", "--ip", "198.51.100.7"]
    printed = explain(*command, "--json").stdout
    told = json.loads(printed)
    jsonschema.validate(told, json.loads(explain("--schema").stdout))
    assert (told["session"]["client"], told["session"]["port"], told["session"]["connected"]) == ("198.51.100.7", None, None)
    assert "1970" not in printed
    assert "1970" not in explain(*command).stdout
    assert json.loads(explain(received(), "--json").stdout)["session"]["port"] == 4711


def test_a_message_that_nobody_sent() -> None:
    told = lines(explain("ann.eml", "--to", "support+1@example.com", "--to", "x@example.org", "--no-dns", "--tls", "--verdict", "spf=FAIL"))
    assert told[:5] == ["size 51 octets", "client not told (--ip), TLS", "sender ann@example.net", "recipients support+1@example.com",
                        "x@example.org: 550 5.1.1 Requested action not taken: mailbox unavailable (no rule matches it)"]
    assert told[6].startswith("verdicts spf FAIL, dkim GRAY")
    assert "+ support: support+1@example.com matches support@example.com" in told
    assert "S3 would s3://mail/support/<message id>" in told
    assert told[-1] == "nothing was sent"
    assert not Path("var").exists()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_colour_on_a_terminal_unless_the_user_wants_none(environment: dict[str, str], coloured: bool) -> None:
    command = ["explain", "ann.eml", "--to", "x@example.com", "--no-dns"]
    assert ("\x1b[32m" in CliRunner().invoke(cli, command, color=True, env=environment).stdout) is coloured
    assert "\x1b" not in CliRunner().invoke(cli, command, env=environment).stdout


def test_a_message_from_standard_input() -> None:
    assert lines(explain("-", "--to", "x@example.com", "--no-dns", input=ANN))[-1] == "nothing was sent"


def test_a_blocked_client() -> None:
    assert lines(explain("ann.eml", "--to", "x@example.com", "--no-dns", "--ip", "192.0.2.1"))[-1] == (
        "refused at connect: 554 5.7.1 192.0.2.1 blocked; no rule runs")


def synchronous() -> None:
    Path("rules.yaml").write_text(SAMPLE.read_text().replace("InvocationType: Event", "InvocationType: RequestResponse"))


def test_what_a_function_answers_can_be_supposed() -> None:
    synchronous()
    assert "Lambda would arn:aws:lambda:us-east-1:000000000000:function:support (CONTINUE is assumed: the function decides)" in lines(
        explain("ann.eml", "--to", "support@example.com", "--no-dns"))
    told = lines(explain("ann.eml", "--to", "support@example.com", "--no-dns", "--answer", "support=stop_rule"))
    assert "Lambda would arn:aws:lambda:us-east-1:000000000000:function:support -> STOP_RULE" in told
    assert "+ everything: support@example.com matches the identity example.com" in told


@pytest.mark.parametrize(("bounce", "told"), [
    ("session", "former@example.com: 550 5.1.1 Mailbox does not exist (nothing comes of it but the bounce of left-the-company (action 1))"),
    ("dsn", "Bounce would 550 5.1.1 Mailbox does not exist to ann@example.net"),
])
def test_a_recipient_that_a_rule_bounces(bounce: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_BOUNCE", bounce)
    Path("rules.yaml").write_text(SAMPLE.read_text().replace("Enabled: false", "Enabled: true"))
    assert told in lines(explain("ann.eml", "--to", "former@example.com", "--no-dns"))


def test_what_strangers_wrote_does_not_steer_the_terminal() -> None:
    Path("ann.eml").write_bytes(b"Return-Path: <\x1b[2J@example.net>\r\n" + ANN)
    result = explain("ann.eml", "--to", "\x1b[2J@example.com", "--no-dns")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (("0" * 40,), 2, "there is no spool in var; name the data folder of the service with --data DIR"),
    (("ann.eml",), 2, "ann.eml is a file; say whom it is for with --to ADDR"),
    (("none.eml",), 2, "none.eml: no such file, and no message id"),
    (("none.eml", "--to", "a@example.com"), 2, "cannot read 'none.eml': No such file or directory"),
    ((".", "--to", "a@example.com"), 2, "cannot read '.': Is a directory"),
    (("noise", "--to", "a@example.com"), 1, "noise is not a message: it does not begin with a header field (Name: value)"),
    (("ann.eml", "--to", "a@example.com", "--rules", "none.yaml"), 2, "none.yaml: no such file"),
    (("ann.eml", "--to", "a@example.com", "--no-dns", "--answer", "f=STOP_RULE"), 2,
     "--answer: no rule invokes a function 'f' with RequestResponse; there is none"),
    (("0" * 40, "--no-dns", "--ip", "192.0.2.1"), 2, "--ip, --no-dns: for a FILE with --to ADDR; of a message in the spool they are known"),
    ((), 2, "name a message: its id, or a file with --to ADDR"),
])
def test_bad_input_is_one_line(arguments: tuple[str, ...], code: int, says: str) -> None:
    Path("noise").write_bytes(b"\xff\x00\x01 no header\n")
    done = explain(*arguments)
    assert (done.exit_code, done.stderr, done.stdout) == (code, f"inbound: {says}\n", "")


def test_an_unknown_id() -> None:
    received()
    done = explain("0" * 40)
    assert (done.exit_code, done.stderr) == (1, f"inbound: no message {'0' * 40!r} in the spool of var\n")


def test_bad_rules_are_told_as_by_check() -> None:
    Path("rules.yaml").write_text("RuleSets: 1\n")
    done = explain("ann.eml", "--to", "a@example.com")
    assert done.exit_code == 1
    assert done.stderr.startswith("rules.yaml:1:11: RuleSets: ")


def test_a_settings_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from inbound.operate.cli import main

    monkeypatch.setenv("INBOUND_STOP_SCOPE", "nonsense")
    monkeypatch.setattr("sys.argv", ["inbound", "explain", "ann.eml", "--to", "a@example.com"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def facts(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_state_of_a_received_one_in_json() -> None:
    told = facts(explain(received(fails=True), "--json"))
    assert (told["state"], told["waits_for"], told["rules"][0]["actions"][1]["state"]) == (State.DEFERRED, "s3:mail", "failed")


@pytest.mark.parametrize(("setting", "value", "said"), [
    ("BARE_NEWLINE", "reject", "550 5.5.2 Bare CR or LF in the message; lines end with CRLF"),
    ("MAX_HEADER_SIZE", "20", "552 5.3.4 Message header too large"),
])
def test_what_the_limits_on_content_refuse_is_told(setting: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mixed.eml").write_bytes(ANN + b"bare\nnewline\r\n")
    assert said not in explain("mixed.eml", "--to", "support@example.com", "--no-dns").stdout
    monkeypatch.setenv(f"INBOUND_{setting}", value)
    assert said in explain("mixed.eml", "--to", "support@example.com", "--no-dns").stdout
