"""`inbound replay`, from outside: what other rules would have done with messages of the spool and its history, and what cannot be replayed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from inbound import log
from inbound.accept.envelope import Envelope, Peer, new_message_id
from inbound.accept.spool.several import spool_folder
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.decide.load import load
from inbound.deliver.memory import MemoryAws
from inbound.deliver.replay_schema import schema
from inbound.deliver.retry import Schedule
from inbound.deliver.sinks import MessageRefused, SinkDown
from inbound.deliver.work import Identity
from inbound.deliver.worker import Terms, Worker
from inbound.operate import replay as replaying
from inbound.operate.cli import cli

NOON = 1_768_478_400.0  # 2026-01-15T12:00:00Z
ARN = "arn:aws:lambda:us-east-1:000000000000:function:ask"
RULES = """Identities: [example.com]
ActiveRuleSet: default
RuleSets:
  default:
"""
STORE = """    - Name: store
      Recipients: [a@example.com, b@example.com]
      Actions:
        - S3Action: {BucketName: %s}
"""
ASK = """    - Name: ask
      Recipients: [a@example.com]
      Actions:
        - LambdaAction: {FunctionArn: "%s", InvocationType: RequestResponse}
        - S3Action: {BucketName: asked}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(STORE % "mail")


def write(*rules: str, file: str = "rules.yaml", more: str = "") -> None:
    Path(file).write_text(RULES + "".join(rules) + more)


def replay(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def received(*recipients: Sequence[str], process: int = 1, at: float = NOON, aws: MemoryAws | None = None) -> list[str]:
    """Receive a message for each of these recipients, a minute after the other, as the rule file is; their ids."""
    async def go() -> list[str]:
        spool = SqliteSpool(spool_folder(Path("var"), process))
        await spool.start()
        rule_set = load(Path("rules.yaml")).rule_set
        await spool.keep_revision(rule_set.revision, rule_set.text)
        worker = Worker(spool, aws or MemoryAws(), Terms(Identity("mx.test", "mx.test"), Schedule()), log.silent())
        ids = []
        for minute, to in enumerate(recipients):
            envelope = Envelope(new_message_id(), Peer("198.51.100.7", 4711), "client.test", "ann@example.net", tuple(to), at + 60 * minute,
                                revision=rule_set.revision)
            draft = spool.draft(envelope.message_id)
            draft.add(b"Subject: hi\r\n\r\nhello\r\n")
            worker.take(await spool.put(envelope, draft))
            await worker.idle()
            ids.append(envelope.message_id)
        await worker.stop(1)
        await spool.stop()
        return ids

    return asyncio.run(go())


def A(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}@example.com" for name in names)


def lines(result: Result) -> list[str]:
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(found, schema())
    return found


def revision(file: str = "rules.yaml") -> str:
    return load(Path(file)).rule_set.revision


def test_nothing_different_is_one_line() -> None:
    (message_id,) = received(A("a"))
    assert lines(replay(message_id[:8])) == [
        f"{message_id} 2026-01-15T12:00:00.000Z ann@example.net -> a@example.com: the same",
        f"1 message judged by rules.yaml, revision {revision()}: it would go the same way",
    ]


def test_another_bucket_is_told_with_both() -> None:
    (message_id,) = received(A("a"))
    write(STORE % "archive")
    assert lines(replay(message_id)) == [
        f"{message_id} 2026-01-15T12:00:00.000Z ann@example.net -> a@example.com: another way",
        "- store: S3Action: {BucketName: mail}",
        "+ store: S3Action: {BucketName: archive}",
        f"1 message judged by rules.yaml, revision {revision()}: 1 would go another way",
    ]


def test_another_file_than_the_one_in_force() -> None:
    (message_id,) = received(A("a", "b"))
    write(STORE.replace(", b@example.com", "") % "mail", file="new.yaml")
    assert lines(replay(message_id, "--rules", "new.yaml"))[1:] == [
        "- store: S3Action: {BucketName: mail} for a@example.com, b@example.com",
        "+ store: S3Action: {BucketName: mail} for a@example.com",
        "! b@example.com is refused: no enabled rule matches it",
        f"1 message judged by new.yaml, revision {revision('new.yaml')}: 1 would go another way",
    ]


def test_the_history_is_grouped_by_what_differs() -> None:
    """Whomever a message is for: two for other people differ in the same way."""
    first, second, third = received(A("a"), A("b"), A("a", "b"))
    write((STORE % "mail").replace("[a@example.com, b@example.com]", "[example.com]"),
          more="""    - Name: b
      Recipients: [b@example.com]
      Actions: [{StopAction: {Scope: RuleSet}}]
""")
    found = told(replay("--since", "2026-01-15", "--json"))
    assert [message["difference"] is None for message in found["messages"]] == [True, False, False]
    assert (found["judged"], found["different"], found["unfinished"], found["problems"]) == (3, 2, 0, [])
    assert [(group["messages"], group["examples"], group["notes"]) for group in found["groups"]] == [
        (1, [second], ["ends STOPPED, not COMPLETED"]), (1, [third], [])]
    write(STORE % "archive")
    assert [(group["messages"], group["examples"]) for group in told(replay("--since", "2026-01-15", "--json"))["groups"]] == [
        (3, [first, second, third])]
    assert lines(replay("--since", "2026-01-15")) == [
        *(f"{each} 2026-01-15T12:0{minute}:00.000Z ann@example.net -> {to}: another way" for minute, (each, to) in enumerate((
            (first, "a@example.com"), (second, "b@example.com"), (third, "a@example.com, b@example.com")))),
        f"3 messages judged by rules.yaml, revision {revision()}: 3 would go another way",
        f"3 messages: {first}, {second}, {third}",
        "- store: S3Action: {BucketName: mail}",
        "+ store: S3Action: {BucketName: archive}",
    ]


def test_of_many_what_differs_is_told_once() -> None:
    """A message is a line; a step for other people is no other one in a group."""
    ids = received(*[A("a")] * 5, A("a", "b"))
    write((STORE % "mail").replace(", b@example.com", ""), STORE.replace("store", "b").replace("a@example.com, ", "") % "other")
    few, many = lines(replay(*ids[3:])), lines(replay(*ids))
    assert few[3:6] == [
        "- store: S3Action: {BucketName: mail} for a@example.com, b@example.com",
        "+ store: S3Action: {BucketName: mail} for a@example.com",
        "+ b: S3Action: {BucketName: other} for b@example.com",
    ]
    assert many[6:] == [
        f"6 messages judged by rules.yaml, revision {revision()}: 1 would go another way",
        f"1 message: {ids[5]}",
        "+ b: S3Action: {BucketName: other}",
        "~ store: S3Action: {BucketName: mail} for other recipients, or in another order",
    ]


@pytest.mark.parametrize("page", [1, 2, 2_000])
def test_since_counts_and_until_does_not_however_long_the_pages(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In messages of several processes, some of the very same moment."""
    monkeypatch.setattr(replaying, "PAGE", page)
    first = received(A("a"), A("b"), A("a"))
    second = received(A("a"), A("b"), A("a"), process=2)
    third = received(A("a"), process=3, at=NOON + 60)

    def chosen(*arguments: str) -> list[str]:
        return [message["id"] for message in told(replay(*arguments, "--json"))["messages"]]

    assert sorted(chosen("--since", "2020-01-01")) == sorted(first + second + third)
    assert sorted(chosen("--since", "2026-01-15T12:01Z")) == sorted([*first[1:], *second[1:], *third])
    assert sorted(chosen("--until", "2026-01-15T12:01:00+00:00")) == sorted([first[0], second[0]])
    assert sorted(chosen("--since", "2026-01-15T13:01+01:00", "--until", "2026-01-15T12:02")) == sorted([first[1], second[1], *third])
    assert chosen("--since", "1s") == chosen("--since", "2026-01-16") == []


def test_a_rule_chooses_what_it_does_something_with_then_or_now() -> None:
    a, b = received(A("a"), A("b"))
    write(STORE % "mail", ASK % ARN)
    assert [message["id"] for message in told(replay("--rule", "ask", "--json"))["messages"]] == [a]
    assert [message["id"] for message in told(replay("--rule", "store", "--json"))["messages"]] == [a, b]
    missing = replay("--rule", "other")
    assert (missing.exit_code, missing.stderr) == (
        2, "inbound: no rule is named 'other' in rules.yaml, nor in the rules that these messages came under\n")


def test_a_function_answers_what_it_answered() -> None:
    """Even one that is asked by another rule now; one that was never asked is supposed to go on."""
    write(ASK % ARN)
    aws = MemoryAws()
    aws.answers[ARN] = lambda _event: b'{"disposition": "STOP_RULE"}'
    (message_id,) = received(A("a"), aws=aws)
    write((ASK % ARN).replace("Name: ask", "Name: other"))
    (message,) = told(replay(message_id, "--json"))["messages"]
    assert [[next(key for key in step if key.endswith("Action")) for step in message[way]["steps"]] for way in ("then", "now")] == [
        ["LambdaAction"], ["LambdaAction"]]
    assert message["now"]["assumed"] == []
    write(ASK % ARN.replace(":ask", ":new"))
    assert lines(replay(message_id))[1:6] == [
        f"- ask: LambdaAction: {{FunctionArn: \"{ARN}\", InvocationType: RequestResponse}}",
        f"+ ask: LambdaAction: {{FunctionArn: \"{ARN}\", InvocationType: RequestResponse}}".replace(":ask\"", ":new\""),
        "+ ask: S3Action: {BucketName: asked}",
        f"! supposes that {ARN.replace(':ask', ':new')} answers CONTINUE",
        f"1 message judged by rules.yaml, revision {revision()}: 1 would go another way",
    ]


def test_a_dead_letter_tells_what_was_never_done() -> None:
    write(STORE % "mail", "        - SNSAction: {TopicArn: \"arn:aws:sns:us-east-1:000000000000:t\"}\n")
    aws = MemoryAws()
    aws.down["s3:mail"] = MessageRefused("EntityTooLarge")
    (message_id,) = received(A("a"), aws=aws)
    assert lines(replay(message_id))[:3] == [
        f"{message_id} 2026-01-15T12:00:00.000Z ann@example.net -> a@example.com: the same; a dead letter",
        "! never done: store: S3Action: {BucketName: mail}",
        "! never done: store: SNSAction: {TopicArn: \"arn:aws:sns:us-east-1:000000000000:t\"}",
    ]


def test_what_still_waits_is_left_out() -> None:
    aws = MemoryAws()
    aws.down["s3:mail"] = SinkDown("no route")
    (message_id,) = received(A("a"), at=time.time(), aws=aws)
    by_id = replay(message_id)
    assert (by_id.exit_code, by_id.stdout) == (1, "no message was judged\n")
    assert by_id.stderr == (f"inbound: {message_id}: still waits or is in hand: it goes its way by the rules it came under, and can be replayed "
                            "after that\n")
    assert lines(replay("--since", "2026-01-01")) == ["1 message still waiting or in hand left out", "no message was judged"]


def test_rules_that_are_gone_are_told_for_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    (message_id,) = received(A("a"))

    async def gone(_spool: SqliteSpool, _digest: str) -> None:
        return None

    monkeypatch.setattr(SqliteSpool, "revision", gone)
    found = replay("--since", "2026-01-01", "--json")
    assert (found.exit_code, json.loads(found.stdout)["problems"]) == (1, [
        {"id": message_id, "problem": f"the spool does not hold revision {revision()} of the rules any more, by which it was judged"}])


def test_an_unknown_id_does_not_keep_the_others_from_being_judged() -> None:
    (message_id,) = received(A("a"))
    found = replay("nosuch", message_id, message_id)
    assert (found.exit_code, found.stderr) == (1, "inbound: nosuch: no message 'nosuch' in the spool of var\n")
    assert len(found.stdout.splitlines()) == 2


def test_a_message_that_is_named_twice_is_replayed_once() -> None:
    (message_id,) = received(A("a"))
    assert told(replay(message_id, message_id[:8], message_id[:7], "--json"))["judged"] == 1


def test_what_comes_while_it_runs_is_not_replayed_or_a_busy_service_would_keep_it_for_ever() -> None:
    (message_id,), (later,) = received(A("a"), at=time.time() - 60), received(A("a"), at=time.time() + 60)
    assert [message["id"] for message in told(replay("--since", "1h", "--json"))["messages"]] == [message_id]
    assert [message["id"] for message in told(replay("--until", "2100-01-01", "--json"))["messages"]] == [message_id, later]


def test_content_from_s3_never_takes_the_room_that_is_kept_for_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else many that wait for a sink that is down would close the door."""
    (message_id,) = received(A("a"))
    monkeypatch.setattr(replaying, "free_octets", lambda _folder: 64 << 20)
    found = replay(message_id, "--run")
    assert (found.exit_code, found.stderr) == (
        1, f"inbound: {message_id}: var has no room for its content: what is free there is for mail that comes\n")


def test_control_characters_of_strangers_do_not_reach_the_terminal() -> None:
    found = replay("\x1b[31m", "x")
    assert "\x1b" not in found.output


def test_what_is_no_id_means_no_message() -> None:
    received(A("a"))
    found = replay("", "../spool")
    assert (found.exit_code, found.stderr.splitlines()) == (1, ["inbound: : is no message id", "inbound: ../spool: is no message id"])


def test_a_damaged_record_is_told_in_one_line() -> None:
    (message_id,) = received(A("a"))
    with sqlite3.connect("var/spool/spool.sqlite3") as connection:
        connection.execute("UPDATE entry SET envelope = '{'")
    connection.close()
    for arguments in ((message_id,), ("--since", "2020-01-01"), (message_id, "--run")):
        found = replay(*arguments)
        assert (found.exit_code, found.stderr) == (1, f"inbound: {message_id}: its record in the spool is damaged\n")


@pytest.mark.parametrize("endpoint", ["nonsense", "http://127.0.0.1:9"])
def test_a_sink_that_cannot_be_asked_for_the_content_is_told_in_one_line(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    (message_id,) = received(A("a"))
    found = replay(message_id, "--run")
    (line,) = found.stderr.splitlines()
    assert found.exit_code == 1
    assert line.startswith(f"inbound: {message_id}: its content is not in the spool any more (INBOUND_RETAIN_CONTENT keeps it), and s3://mail/")
    assert endpoint in line


@pytest.mark.parametrize(("arguments", "code", "says"), [
    ((), 2, "name messages by their ids, or choose them with --since TIME, --until TIME, --rule NAME"),
    (("abc", "--since", "4h"), 2, "name messages by their ids, or choose them with --since TIME"),
    (("--since", "yesterday"), 2, "'yesterday' is neither a time (2026-11-24, 2026-11-24T13:00Z) nor how long ago (90s, 15m, 4h, 7d)"),
    (("--since", "2026-13-01"), 2, "'2026-13-01' is neither a time"),
    (("--until", ""), 2, "'' is neither a time"),
    (("--since", "9999999999d"), 2, "'9999999999d' is neither a time"),
    (("abc", "--rules", "none.yaml"), 2, "none.yaml"),
    (("abc", "--rules", "bad.yaml"), 1, "bad.yaml:2:"),
    (("abc", "--data", "nowhere"), 2, "there is no spool in nowhere"),
])
def test_bad_input_is_one_line(arguments: tuple[str, ...], code: int, says: str) -> None:
    Path("bad.yaml").write_text("Identities: [example.com]\nBogus: 1\n")
    received(A("a"))
    found = replay(*arguments)
    assert found.exit_code == code
    assert says in found.stderr
    assert "Traceback" not in found.output
    assert found.stdout == ""


def test_the_schema_is_printed() -> None:
    assert json.loads(replay("--schema").stdout) == schema()
