"""Each folder of `bounces` is a case: message, envelope and rules in, exactly what the smarthost gets out."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path
from typing import Any

import pytest
import yaml
from bouncing import bounces, envelope, steps, work
from flufl.bounce import all_failures

from inbound.assess.rendering import BytesContent
from inbound.decide.rules import AddHeader, Bounce, Sns
from inbound.deliver.dsn import Failure
from inbound.deliver.memory import MemorySmarthost

CASES = sorted(path.parent for path in (Path(__file__).parent / "bounces").glob("*/case.yaml"))


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
async def test_the_smarthost_gets(folder: Path, request: pytest.FixtureRequest) -> None:
    case = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    seen = await sent(case, (folder / "message.eml").read_bytes())
    assert seen, "the case bounces nothing"
    if request.config.getoption("--write-golden"):
        for name, octets in seen.items():
            (folder / name).write_bytes(octets)
    expected = golden(folder)
    assert sorted(seen) == sorted(expected)
    for name, octets in seen.items():
        assert octets.decode("utf-8", "surrogateescape") == expected[name].decode("utf-8", "surrogateescape"), name


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
async def test_what_reads_bounces_finds_the_failed_addresses(folder: Path) -> None:
    case = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    expected = {name.encode() for name in case.get("failed", case["envelope"]["forward_paths"])}
    for octets in (await sent(case, (folder / "message.eml").read_bytes())).values():
        temporary, permanent = all_failures(email.message_from_bytes(octets))
        assert set(permanent) == expected
        assert not temporary


def golden(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-*.eml")}


async def sent(case: dict[str, Any], raw: bytes) -> dict[str, bytes]:
    """What goes out for each step that bounces, by file name."""
    told = envelope(**{**case["envelope"], "forward_paths": tuple(case["envelope"]["forward_paths"])})
    found = {}
    for number, step in enumerate(steps(case["rules"], told.forward_paths), 1):
        smarthost = MemorySmarthost()
        message = await work(raw, told)
        if isinstance(step.action, AddHeader):
            message.add_header(step.action.HeaderName, step.action.HeaderValue)
        if isinstance(step.action, Bounce):
            failure = Failure(step.action.SmtpReplyCode, step.action.StatusCode or "", step.action.Message)
            await bounces(smarthost).bounce(message, step, failure, step.action.Sender)
        if isinstance(step.action, Sns):
            await message.open(BytesContent(raw + b"x" * 160_000))
            await bounces(smarthost).too_long(message, step)
        if smarthost.sent:
            ((recipient, octets),) = smarthost.sent
            assert recipient == case.get("to", told.reverse_path)
            found[f"{number}-{step.rule.Name}-{step.action.kind}.eml"] = octets
    return found
