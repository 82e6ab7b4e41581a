"""`inbound policy`: the least IAM permissions that rules.yaml needs."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES")
@click.option("--principal", default="arn:aws:iam::ACCOUNT:role/INBOUND", show_default=True, metavar="ARN",
              help="The identity that inbound runs as, for the policies of buckets, topics, keys, functions and roles.")
@click.option("--alert-topic", default=None, envvar="INBOUND_ALERT_TOPIC", metavar="ARN", help="The topic that alerts are published to.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: identity, roles, resources.")
def policy(file: Path, principal: str, alert_topic: str | None, as_json: bool) -> None:
    """Print the least IAM policy that the rules in FILE and alerts need, and the statements for what is in another account.

    Policies that name ses.amazonaws.com do not let inbound in: it calls AWS with its own credentials.
    """
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415  # --help need not pay for it
    from inbound.operate.policy import policies  # noqa: PLC0415
    from inbound.settings import topic  # noqa: PLC0415

    try:
        alerts = topic(alert_topic or None)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--alert-topic") from None
    found = policies(rules_of(file).rule_set, principal, alerts)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo("# for the identity that inbound runs as")
    click.echo(json.dumps(found["identity"], indent=2))
    for role, both in found["roles"].items():
        click.echo(f"\n# for the role {role}: what it may do, and its trust policy")
        click.echo(json.dumps(both["policy"], indent=2))
        click.echo(json.dumps(both["trust"], indent=2))
    for name, statement in found["resources"].items():
        click.echo(f"\n# in the policy of {name}, where it is in another account")
        click.echo(json.dumps(statement, indent=2))
