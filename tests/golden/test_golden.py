"""Each folder beside this file is a case: message, envelope and rules in, exactly what consumers see out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inbound.accept.envelope import Envelope, Peer
from inbound.assess import forged, message, rendering
from inbound.assess.authentication import Authentication, Clause
from inbound.assess.verdicts import Assessment, Status, Verdict, trace_headers
from inbound.decide.engine import Mail, Step, evaluate, own_flow
from inbound.decide.rules import S3, AddHeader, Lambda, RuleSet, Sns
from inbound.deliver.notification import Received, lambda_event, notification

HOST = "mx.example.org"
CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/case.yaml"))


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_consumers_see(folder: Path, request: pytest.FixtureRequest) -> None:
    case = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    seen = dict(_seen(case, (folder / "message.eml").read_bytes()))
    assert seen, "the case shows nothing to anyone"
    if request.config.getoption("--write-golden"):
        _write(folder, seen)
    expected = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in {"case.yaml", "message.eml"}}
    assert sorted(seen) == sorted(expected)
    for name, octets in seen.items():
        assert octets.decode("utf-8", "surrogateescape") == expected[name].decode("utf-8", "surrogateescape"), name


def _write(folder: Path, seen: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        if path.name not in {"case.yaml", "message.eml", *seen}:
            path.unlink()
    for name, octets in seen.items():
        (folder / name).write_bytes(octets)


def _seen(case: dict[str, Any], raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a case, by name."""
    envelope = _envelope(case.get("envelope", {}))
    rules = RuleSet.model_validate({"name": "default", "rules": case["rules"], "identities": ["example.com"]})
    added: list[tuple[str, str]] = []
    engine = evaluate(rules, Mail(envelope.forward_paths))
    step, number = next(engine), 1
    while True:
        if isinstance(step.action, AddHeader):
            added.append((step.action.HeaderName, step.action.HeaderValue))
        for kind, octets in _of_step(step, envelope, _assessment(case.get("verdicts", {}), case.get("authentication")), raw, added):
            yield f"{number}-{step.rule.Name}-{step.action.kind}.{kind}", octets
        try:
            step, number = engine.send(own_flow(step.action)), number + 1
        except StopIteration:
            return


def _of_step(
    step: Step, envelope: Envelope, assessment: Assessment, raw: bytes, added: list[tuple[str, str]]
) -> Iterator[tuple[str, bytes]]:
    content = rendering.BytesContent(raw)
    parsed = message.parse(content.head(message.HEAD), authserv_id=HOST)
    scan = step.rule.ScanEnabled
    trace = trace_headers(envelope, assessment, hostname=HOST, authserv_id=HOST, scan=scan)
    rendered = rendering.render(content, added=added, trace=trace, forged=forged.offsets(content, authserv_id=HOST))
    fields = rendering.visible_fields(parsed, added=added, trace=trace)
    received = Received(envelope, parsed, fields, assessment, step.recipients, scan, milliseconds=321)
    if isinstance(step.action, S3):
        yield "object.eml", rendered.read()
    if isinstance(step.action, Lambda):
        yield "event.json", _readable(lambda_event(received, step.action))
    if step.action.TopicArn:
        content_of_sns = rendered.read() if isinstance(step.action, Sns) else None
        yield "notification.json", _readable(notification(received, step.action, content_of_sns))


def _readable(compact: str) -> bytes:
    assert json.dumps(json.loads(compact), separators=(",", ":"), ensure_ascii=False) == compact
    return (json.dumps(json.loads(compact), indent=1, ensure_ascii=False) + "\n").encode()


def _envelope(told: dict[str, Any]) -> Envelope:
    return Envelope(
        message_id="o2h3vbd0i5q1r8ud0c5k4b8a1n7e6tq0fls9gmp1",
        peer=Peer(told.get("peer", "192.0.2.10"), 51234, told.get("reverse_name", "mail.sender.example")),
        helo=told.get("helo", "mail.sender.example"),
        reverse_path=told.get("reverse_path", "ann@sender.example"),
        forward_paths=tuple(told.get("forward_paths", ["support@example.com"])),
        received_at=1_755_105_366.2509,
    )


def _assessment(told: dict[str, str], said: dict[str, Any] | None) -> Assessment:
    verdicts = {name: Verdict(Status(status)) for name, status in told.items() if name != "dmarc_policy"}
    authentication = Authentication(**{**said, "dkim": tuple(Clause(**clause) for clause in said.get("dkim", ()))}) if said else None
    return Assessment(**verdicts, dmarc_policy=told.get("dmarc_policy", ""), authentication=authentication)
