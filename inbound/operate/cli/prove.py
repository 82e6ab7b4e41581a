"""`inbound prove`: do we judge, write and route as SES did? Its own stored objects and messages are the oracle."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inbound.operate.cli import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbound.decide.rules import RuleSet
    from inbound.operate.proof.report import Report
    from inbound.operate.proof.sources import Source

_REDRAW = 0.2  # seconds


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@click.option("--rules", "rules", type=click.Path(path_type=Path), help="Also hold these rules against what SES did with each message.")
@click.option("--limit", type=click.IntRange(min=1), help="Judge no more than so many messages.")
@click.option("--at-once", type=click.IntRange(1, 64), default=8, show_default=True, help="Messages fetched and judged at the same time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every difference.")
def prove(places: tuple[str, ...], rules: Path | None, limit: int | None, at_once: int, as_json: bool) -> None:
    """Judge messages that SES received, and tell field by field where it is not what SES did.

    A PLACE is s3://BUCKET/PREFIX, a folder or a file: objects that SES stored, and JSON of SNS, SQS or Lambda (.json, .jsonl). Client,
    HELO and envelope are taken from SES's own header fields; then these are stripped, and the message is judged as it came.

    DNS is asked now: a key that is gone or a record that has changed is told apart from a difference of ours. Spam and viruses are judged where
    INBOUND_RSPAMD and INBOUND_CLAMD name scanners. Nothing is written or sent. Exits with 1 when there is a difference of ours.
    """
    from inbound import log  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415
    from inbound.operate.cli.route import safe  # noqa: PLC0415
    from inbound.operate.proof.report import Report  # noqa: PLC0415
    from inbound.operate.proof.sources import SourceError, source  # noqa: PLC0415

    log.configure(level="error")
    rule_set = rules_of(rules).rule_set if rules is not None else None
    report = Report()
    try:
        asyncio.run(_run([source(place) for place in places], rule_set, report, limit=limit, at_once=at_once))
    except SourceError as error:
        fail(safe(error))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False, default=str))
    elif report.messages:
        click.echo("\n".join(safe(line) for line in report.told()))
    if report.messages == 0:
        fail(safe(": ".join(("no message of SES was found there", *report.why_none()))))
    if report.ours:
        sys.exit(1)


async def _run(sources: list[Source], rule_set: RuleSet | None, report: Report, *, limit: int | None, at_once: int) -> None:
    from inbound import log  # noqa: PLC0415  # --help need not pay for them
    from inbound.assess.dns import Resolver  # noqa: PLC0415
    from inbound.assess.verdicts import SCANS  # noqa: PLC0415
    from inbound.operate.proof.judging import Judge  # noqa: PLC0415
    from inbound.operate.proof.proof import prove as proved  # noqa: PLC0415
    from inbound.service import assessor, scanners  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    settings = read().model_copy(update={"scan_failure": "continue"})
    configured = list(scanners(settings))
    report.not_compared += [f"{name} verdict: no scanner is configured" for name in SCANS if name not in configured]
    judge = Judge(assessor(settings, log.get()), Resolver(settings.dns), scanners=configured, rules=rule_set)
    try:
        await proved(sources, judge, report, limit=limit, at_once=at_once, progress=_progress())
    finally:
        await judge.close()
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", err=True, nl=False)


def _progress() -> Callable[[int], None]:
    """Redraws how far it is, on a terminal."""
    if not sys.stderr.isatty():
        return lambda _count: None
    drawn = 0.0

    def draw(count: int) -> None:
        nonlocal drawn
        if time.monotonic() - drawn > _REDRAW:
            drawn = time.monotonic()
            click.echo(f"\r{count} messages judged", err=True, nl=False)

    return draw
