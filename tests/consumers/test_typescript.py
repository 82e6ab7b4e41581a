"""What TypeScript functions are compiled against: our events are of the types that @types/aws-lambda gives SES."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from emitted import EVENTS, NOTIFICATIONS, message

ERROR = re.compile(r"^\S*?(\d+)\.ts\(\d+,\d+\): error TS\d+: (.*(?:\n .*)*)", re.MULTILINE)
UNKNOWN = {"S3": "objectKeyPrefix", "SNS": "encoding"}  # real notifications have them, the types do not; nobody who parses JSON minds

Compile = Callable[[str, Mapping[str, dict[str, Any]]], dict[str, list[str]]]


@pytest.fixture
def refusals(node: str, npm: Path) -> Compile:
    """What tsc says of each value, by name, that is not of a type of @types/aws-lambda."""

    def check(of_type: str, values: Mapping[str, dict[str, Any]]) -> dict[str, list[str]]:
        folder = Path(tempfile.mkdtemp(dir=npm))
        for number, value in enumerate(values.values()):
            literal = json.dumps(value, ensure_ascii=False)
            (folder / f"{number}.ts").write_text(f'import type {{ {of_type} }} from "aws-lambda";\nexport const e: {of_type} = {literal};\n')
        files = sorted(str(path) for path in folder.iterdir())
        done = subprocess.run(
            [node, str(npm / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict", "--skipLibCheck", "--pretty", "false", *files],
            cwd=npm, capture_output=True, text=True, timeout=60, check=False)
        said: dict[str, list[str]] = {}
        for number, text in ERROR.findall(done.stdout):
            said.setdefault(list(values)[int(number)], []).append(text)
        assert bool(said) == bool(done.returncode), done.stdout + done.stderr
        return said

    return check


def departures(told: dict[str, Any]) -> list[str]:
    """Where the types ask for more than SES gives: each phrase is in one error.

    They have every message carry Date and Message-ID and every bounce a StatusCode, which is optional in a BounceAction, and they take
    `sender` for a list; in real notifications it is a string.
    """
    common, action = told["mail"]["commonHeaders"], told["receipt"]["action"]
    found = []
    if absent := [name for name in ("date", "messageId") if name not in common]:
        found.append(", ".join(absent))
    if "sender" in common:
        found.append("Type 'string' is not assignable to type 'string[]'")
    if action["type"] == "Bounce" and "statusCode" not in action:
        found.append("'statusCode' is missing")
    return found


def test_every_event_is_an_ses_event(refusals: Compile) -> None:
    assert len(EVENTS) > 5
    assert refusals("SESEvent", EVENTS) == {}


def test_every_notification_tells_of_an_ses_message_but_where_the_types_ask_for_more_than_ses_gives(refusals: Compile) -> None:
    messages = {name: copy.deepcopy(message(told)) for name, told in NOTIFICATIONS.items()}
    assert {told["receipt"]["action"]["type"] for told in messages.values()} == {"S3", "SNS", "Bounce", "WorkMail", "Lambda", "Stop"}
    for told in messages.values():
        told["receipt"]["action"].pop(UNKNOWN.get(told["receipt"]["action"]["type"], ""), None)
    said = refusals("SESMessage", messages)
    expected = {name: found for name, told in messages.items() if (found := departures(told))}
    assert said.keys() == expected.keys()
    for name, phrases in expected.items():
        assert len(said[name]) == len(phrases), said[name]
        assert all(phrase in text for phrase, text in zip(phrases, said[name], strict=True)), said[name]


def test_the_types_refuse_what_ses_does_not_emit(refusals: Compile) -> None:
    sound = message(NOTIFICATIONS["14-scan-on-and-off/1-scanned-S3.notification.json"])

    def but(*path: str, value: object) -> dict[str, Any]:
        made: dict[str, Any] = copy.deepcopy(sound)
        made["receipt"]["action"].pop("objectKeyPrefix")
        place = made
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        return made

    wrong = {
        "a status": but("receipt", "spamVerdict", "status", value="OK"),
        "a policy": but("receipt", "dmarcPolicy", value="REJECT"),
        "a time as text": but("receipt", "processingTimeMillis", value="321"),
        "an action": but("receipt", "action", "type", value="AddHeader"),
        "a null": but("mail", "source", value=None),
        "an unknown field": but("mail", "subject", value="Hello"),
    }
    assert refusals("SESMessage", wrong | {"nothing": but("mail", "source", value="")}).keys() == wrong.keys()
