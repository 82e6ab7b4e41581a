"""`inbound check`: is the rule file right? For people, for editors (`--schema`), and for a pipeline before it deploys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbound.operate.cli import fail

if TYPE_CHECKING:
    from inbound.decide.load import Loaded, Problem


@click.command()
@click.argument("file", type=click.Path(path_type=Path), envvar="INBOUND_RULES", default=Path("rules.yaml"))
@click.option("--tls/--no-tls", default=None, help="Whether the service has a certificate. Rules that require TLS are errors without one; "
              "not told, they are warnings.")
@click.option("--smarthost/--no-smarthost", default=None, help="Whether the service has a smarthost. Rules that bounce are errors without one; "
              "not told, they are warnings.")
@click.option("--dkim-domain", metavar="DOMAIN", envvar="INBOUND_DKIM_DOMAIN", default="",
              help="The domain that bounces are signed for. Bounces that no signature vouches for are warnings.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of the file, for editors, and read no file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, tls: bool | None, smarthost: bool | None, dkim_domain: str, strict: bool, as_schema: bool, as_json: bool) -> None:
    """Validate the rule FILE (default: INBOUND_RULES, else rules.yaml).

    Every error is one line, FILE:LINE:COLUMN: what is wrong. Exits with 0 for a good file, 1 for one with errors, 2 when there is none.

    A warning ends with its code in brackets; the comment '# inbound: allow CODE - reason' on its line silences it.
    """
    from inbound.decide.load import RulesError, RulesUnreadableError, load  # noqa: PLC0415  # --help need not pay for pydantic
    from inbound.decide.unsigned import unsigned  # noqa: PLC0415

    if as_schema:
        from inbound.decide.schema import schema  # noqa: PLC0415  # only when it is asked for

        click.echo(json.dumps(schema(), indent=2))
        return
    try:
        loaded = load(file, tls=tls is not False, smarthost=smarthost is not False)
    except RulesUnreadableError as error:
        fail(str(error))
    except RulesError as error:
        _report(error.problems, (), {"file": str(file), "ok": False}, as_json)
        sys.exit(1)
    else:
        needs = (*(loaded.needs_certificate if tls is None else ()), *(loaded.needs_smarthost if smarthost is None else ()))
        warnings = tuple(sorted((*loaded.warnings, *loaded.unsilenced(needs), *unsigned(loaded, dkim_domain))))
        _report((), warnings, _facts(file, loaded), as_json)
        if not as_json:
            click.echo(_line(file, loaded))
        if strict and warnings:
            sys.exit(1)


def _facts(file: Path, loaded: Loaded) -> dict[str, Any]:
    return {"file": str(file), "ok": True, "ruleSets": len(loaded.rule_file.RuleSets), "rules": _rules(loaded),
            "active": loaded.rule_set.name, "revision": loaded.rule_set.revision}


def _line(file: Path, loaded: Loaded) -> str:
    sets, rules = len(loaded.rule_file.RuleSets), _rules(loaded)
    return (f"{file}: OK, {sets} rule set{'s' * (sets != 1)}, {rules} rule{'s' * (rules != 1)}, "
            f"active: {loaded.rule_set.name or 'none'} (revision {loaded.rule_set.revision})")


def _rules(loaded: Loaded) -> int:
    return sum(len(rules) for rules in loaded.rule_file.RuleSets.values())


def _report(errors: tuple[Problem, ...], warnings: tuple[Problem, ...], facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**facts, "errors": [_json(e) for e in errors], "warnings": [_json(w) for w in warnings]}))
        return
    for error in errors:
        click.echo(str(error), err=True)
    for warning in warnings:
        click.echo(f"{warning.file}:{warning.line}:{warning.column}: warning: {warning.message} [{warning.code}]", err=True)


def _json(problem: Problem) -> dict[str, Any]:
    return {"line": problem.line, "column": problem.column, "message": problem.message, **({"code": problem.code} if problem.code else {})}
