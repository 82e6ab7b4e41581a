"""The RFC 7208 test suite once more, each scenario served by a real DNS server to the real resolver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dns_server import DnsServer, Fault

from inbound.assess.dns import Resolver
from inbound.assess.spf import check

SCENARIOS = list(yaml.safe_load_all((Path(__file__).parent / "rfc7208-tests.yml").read_text("utf-8")))


def zone(records: dict[str, list[Any]]) -> Iterator[str]:
    """The scenario in master file format; names that DNS cannot hold are not in it."""
    for owner, data in records.items():
        if all(0 < len(label) < 64 for label in owner.rstrip(".").split(".")):
            has_txt = any("TXT" in each for each in data if isinstance(each, dict))
            for each in data:
                yield from line(owner, each, has_txt=has_txt)


def line(owner: str, record: Any, *, has_txt: bool) -> Iterator[str]:
    if record == "TIMEOUT":
        return
    ((kind, value),) = record.items()
    if value in ("TIMEOUT", "NONE") or (kind == "SPF" and has_txt):
        return
    if kind in ("TXT", "SPF"):
        strings = [part[at : at + 255] for part in ([value] if isinstance(value, str) else value) for at in range(0, len(part), 255)]
        yield f"{name(owner)} TXT " + " ".join(f'"{escaped(part)}"' for part in strings or [""])
    elif kind == "MX":
        yield f"{name(owner)} MX {value[0]} {name(value[1])}"
    else:
        yield f"{name(owner)} {kind} {name(value) if kind in ('CNAME', 'PTR') else value}"


def name(text: str) -> str:
    return ".".join(escaped(label) for label in text.rstrip(".").split(".")) + "."


def escaped(text: str) -> str:
    return "".join(chr(octet) if chr(octet).isalnum() and octet < 128 else f"\\{octet:03}" for octet in text.encode())


def dead(records: dict[str, list[Any]]) -> Iterator[str]:
    """Names that do not answer: TIMEOUT stands for the types that were not written before it."""
    for owner, data in records.items():
        answers_txt = any("TXT" in each and each["TXT"] not in ("NONE", "TIMEOUT") for each in data if isinstance(each, dict))
        if not answers_txt and ("TIMEOUT" in data or {"TXT": "TIMEOUT"} in data):
            yield name(owner)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[each["description"] for each in SCENARIOS])
async def test_rfc_7208_over_dns(scenario: dict[str, Any]) -> None:
    records = scenario["zonedata"]
    with DnsServer("\n".join(zone(records)), faults=dict.fromkeys(dead(records), Fault.SERVFAIL)) as server:
        resolver = Resolver([server.address])
        for case in scenario["tests"].values():
            result = await check(resolver, ip=case["host"], helo=case["helo"], mail_from=case["mailfrom"], budget=resolver.budget())
            assert result.result in ([case["result"]] if isinstance(case["result"], str) else case["result"]), (case, result)
            if "explanation" in case:
                assert result.domain_explanation == case["explanation"].replace("DEFAULT", "")
