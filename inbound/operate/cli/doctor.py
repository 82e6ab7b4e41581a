"""`inbound doctor`: does what the rules and settings need work?"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inbound.decide.rules import RuleSet
    from inbound.operate.doctor import Finding


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(file: Path, as_json: bool) -> None:
    """Try what the rules in FILE and the settings need, where that is harmless.

    Buckets (HeadBucket), topics (GetTopicAttributes), keys (DescribeKey), functions (a dry run), roles (AssumeRole), the certificate, the
    smarthost's greeting and login, the DNS records, disk space. Run it with the environment of the service. Exits with 1 when anything is not well.
    """
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415  # --help need not pay for it
    from inbound.operate.cli.route import safe  # noqa: PLC0415

    findings = asyncio.run(_examine(rules_of(file).rule_set))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
            click.echo(f"{mark}  {safe(finding.what)}: {safe(finding.detail)}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


async def _examine(rule_set: RuleSet) -> list[Finding]:
    from inbound.assess.dns import Resolver  # noqa: PLC0415  # see above
    from inbound.deliver.aws.client import AwsClient  # noqa: PLC0415
    from inbound.operate.doctor import examine  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    settings = read()
    aws, resolver = AwsClient(), Resolver(settings.dns)
    try:
        return await examine(settings, rule_set, aws, resolver)
    finally:
        await aws.close()
        await resolver.close()
