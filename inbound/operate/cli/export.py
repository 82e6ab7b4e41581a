"""`inbound export`: the rules in SES's own JSON, to be put back into SES or compared with what it has."""

from __future__ import annotations

import json
from pathlib import Path

import click

from inbound.operate.cli import fail


@click.group()
def export() -> None:
    """Print the rules as another system has them."""


@export.command(short_help="In SES's JSON.")
@click.argument("file", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES")
@click.option("--rule-set", metavar="NAME", help="The rule set to print.  [default: the active one]")
def ses(file: Path, rule_set: str | None) -> None:
    """Print a rule set of FILE as `aws ses describe-active-receipt-rule-set` does, with the filters as `list-receipt-filters` does.

    Each of Rules and Filters is what the operations CreateReceiptRule and CreateReceiptFilter of SES take.
    """
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.importers.ses import export as exported  # noqa: PLC0415

    rule_file = rules_of(file).rule_file
    name = rule_set or rule_file.active_name
    if name is None:
        fail(f"{file}: no rule set is active; name one with --rule-set: {', '.join(rule_file.RuleSets) or 'there is none'}")
    if name not in rule_file.RuleSets:
        fail(f"{file}: has no rule set {name!r}; there is {', '.join(rule_file.RuleSets)}")
    click.echo(json.dumps(exported(rule_file, name), indent=2, ensure_ascii=False))
