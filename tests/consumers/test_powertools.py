"""Powertools for AWS Lambda, in Python and TypeScript, over every golden case: its models refuse just what they refuse of SES too.

That it reads each field right is in tests/deliver/test_notification_consumers.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes.common import DictWrapper
from aws_lambda_powertools.utilities.data_classes.ses_event import SESMessage
from aws_lambda_powertools.utilities.parser.models import SesModel
from emitted import EVENTS, NOTIFICATIONS, message
from pydantic import ValidationError

COMMON = ("from", "to", "date", "messageId", "subject")
"""What Powertools has every message carry. SES leaves a field out that the message does not have."""

WHOLE = "23-dmarc-failed/1-judged-Lambda.event.json"
"""A scanned message with every common header, that fails DMARC: it has all that the models ask for."""


def departures(event: dict[str, Any]) -> set[str]:
    """Fields of which both models ask for more than SES gives.

    They know neither DISABLED, the scan verdicts of a rule without ScanEnabled, nor a function that is waited for.
    """
    common, receipt = message(event)["mail"]["commonHeaders"], message(event)["receipt"]
    found = {f"mail.commonHeaders.{name}" for name in COMMON if name not in common}
    found |= {f"receipt.{name}.status" for name in ("spamVerdict", "virusVerdict") if receipt[name]["status"] == "DISABLED"}
    if receipt["action"]["invocationType"] != "Event":
        found.add("receipt.action.invocationType")
    return found


def in_record(fields: set[str]) -> set[str]:
    return {f"Records.0.ses.{field}" for field in fields}


@pytest.mark.parametrize("name", EVENTS)
def test_the_python_model_accepts_our_events_as_far_as_those_of_ses(name: str) -> None:
    refused = set()
    try:
        SesModel.model_validate(EVENTS[name])
    except ValidationError as error:
        refused = {".".join(str(part) for part in found["loc"]) for found in error.errors()}
    assert refused == in_record(departures(EVENTS[name]))


def unreadable(told: DictWrapper) -> Iterator[str]:
    """The attributes that fail when they are read, of the object and of those within."""
    for name, attribute in vars(type(told)).items():
        if isinstance(attribute, property):
            try:
                value = getattr(told, name)
                for each in value if isinstance(value, Iterator) else [value]:
                    if isinstance(each, DictWrapper):
                        yield from unreadable(each)
            except KeyError as error:
                yield str(error.args[0])


@pytest.mark.parametrize("name", EVENTS | NOTIFICATIONS)
def test_every_attribute_of_the_data_classes_can_be_read_but_those_of_absent_fields(name: str) -> None:
    told = message((EVENTS | NOTIFICATIONS)[name])
    expected = {field for field in COMMON if field not in told["mail"]["commonHeaders"]}
    if told["receipt"]["action"]["type"] != "Lambda":
        expected |= {"functionArn", "invocationType"}
    assert set(unreadable(SESMessage(told))) == expected


@pytest.fixture(scope="module")
def refused(node: str, npm: Path) -> dict[str, list[str]]:
    """What SesSchema refuses, by event; and of two that are wrong."""
    wrong = json.loads(json.dumps(EVENTS[WHOLE]))
    wrong["Records"][0]["ses"]["mail"]["timestamp"] = "yesterday"
    done = subprocess.run([node, "issues.mjs"], cwd=npm, input=json.dumps(EVENTS | {"wrong": wrong, "empty": {"Records": []}}),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", EVENTS)
def test_the_typescript_schema_accepts_our_events_as_far_as_those_of_ses(name: str, refused: dict[str, list[str]]) -> None:
    expected = departures(EVENTS[name])
    if "dmarcPolicy" not in message(EVENTS[name])["receipt"]:  # which SES tells only of a message that fails DMARC
        expected.add("receipt.dmarcPolicy")
    assert set(refused[name]) == in_record(expected)


def test_an_event_that_has_all_that_the_models_ask_for_is_accepted_whole(refused: dict[str, list[str]]) -> None:
    assert refused[WHOLE] == []
    assert departures(EVENTS[WHOLE]) == set()
    assert (refused["wrong"], refused["empty"]) == (["Records.0.ses.mail.timestamp"], ["Records"])
