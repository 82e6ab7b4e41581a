"""`inbound explain`: what the rules do with a message, and why. One that was received, by its id; or one in a file, that nobody sent."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from inbound.operate.cli import fail
from inbound.operate.cli.queue import data_option, meant, unknown, visit
from inbound.operate.cli.send import HeloName, IpAddress, Ordered


class Answered(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """FUNCTION=FLOW."""

    name = "function=flow"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, _, flow = str(value).rpartition("=")
        if not name or flow.upper() not in ("CONTINUE", "STOP_RULE", "STOP_RULE_SET"):
            self.fail(f"{value!r} is not FUNCTION=FLOW, with CONTINUE, STOP_RULE or STOP_RULE_SET", param, ctx)
        return name, flow.upper()


@click.command()
@click.argument("message", metavar="[ID | FILE]", required=False)
@click.option("--to", "recipients", multiple=True, metavar="ADDR", help="A recipient, for a FILE; repeat it for several.")
@click.option("--from", "sender", default=None, help="The reverse-path; '' for a bounce.  [default: the address of Return-Path, else of From]")
@click.option("--ip", type=IpAddress(), metavar="ADDR", help="The client's address. Without it SPF and IP filters are not judged.")
@click.option("--helo", type=HeloName(), metavar="NAME", help="What the client said in EHLO.")
@click.option("--tls", is_flag=True, help="Suppose that the session was encrypted.")
@click.option("--verdict", "verdicts", type=Ordered(), multiple=True, metavar="NAME=STATUS",
              help="Suppose this verdict: spf, dkim, dmarc, spam or virus = PASS, FAIL, GRAY or PROCESSING_FAILED.")
@click.option("--answer", "answers", type=Answered(), multiple=True, metavar="FUNCTION=FLOW",
              help="Suppose this answer of a synchronous function (its name or ARN): CONTINUE, STOP_RULE or STOP_RULE_SET.")
@click.option("--no-dns", is_flag=True, help="Ask neither DNS nor a scanner: verdicts are GRAY unless --verdict says otherwise.")
@click.option("--rules", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES", show_default=True,
              help="The rule file, for a FILE.")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in the shape that --schema tells.")
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of what --json prints, and explain nothing.")
def explain(message: str | None, recipients: tuple[str, ...], sender: str | None, ip: str | None, helo: str | None, tls: bool,
            verdicts: tuple[tuple[str, str], ...], answers: tuple[tuple[str, str], ...], no_dns: bool, rules: Path, data: Path,
            as_json: bool, as_schema: bool) -> None:
    """Tell what the rules do with a message, and why.

    ID is that of a message in the spool or its history, or the beginning of one: the session, the verdicts, every rule of the revision it
    is judged by, every attempt at every action.

    FILE (- for standard input), with --to, is a message that nobody sent: the same, as it would be under the rule file. Nothing is sent or
    stored. Verdicts are formed as by 'inbound verify'; a synchronous function is supposed to answer CONTINUE.
    """
    if as_schema:
        from inbound.deliver.trace_schema import schema  # noqa: PLC0415  # only when it is asked for

        click.echo(json.dumps(schema(), indent=2))
        return
    if message is None:
        fail("name a message: its id, or a file with --to ADDR")
    if recipients:
        found = _supposed(message, recipients, sender, ip or "", helo or "", tls=tls, verdicts=dict(verdicts), answers=answers, no_dns=no_dns,
                          rules=rules)
    else:
        if message == "-" or Path(message).is_file():
            fail(f"{message} is a file; say whom it is for with --to ADDR")
        given = [name for name, value in (("--from", sender is not None), ("--ip", ip), ("--helo", helo), ("--tls", tls), ("--verdict", verdicts),
                                          ("--answer", answers), ("--no-dns", no_dns)) if value]
        if given:
            fail(f"{', '.join(given)}: for a FILE with --to ADDR; of a message in the spool they are known")
        found = _received(message, data)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        from inbound.operate.cli.route import render  # noqa: PLC0415  # --help need not pay for it

        click.echo(render(found, whole=True))


def _received(message_id: str, data: Path) -> dict[str, Any]:
    """The trace of a message in the spool. Exits with 1 where there is none."""
    from inbound.decide.engine import StopScope  # noqa: PLC0415  # --help need not pay for them
    from inbound.decide.rules import RuleSet  # noqa: PLC0415
    from inbound.deliver.trace import trace  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    if not message_id.isalnum():
        fail(f"{message_id}: no such file, and no message id")

    async def look(spool: Any) -> tuple[Any, str | None, list[str]]:
        entry, begin = await meant(spool, message_id)
        return entry, await spool.revision(entry.envelope.revision) if entry else None, begin

    entry, text, begin = visit(data, look)
    if entry is None:
        fail(unknown(message_id, begin, data), 1)
    return trace(entry, RuleSet.kept(text), StopScope(read().stop_scope))


def _supposed(file: str, recipients: tuple[str, ...], sender: str | None, ip: str, helo: str, *, tls: bool, verdicts: dict[str, str],
              answers: tuple[tuple[str, str], ...], no_dns: bool, rules: Path) -> dict[str, Any]:
    """The trace of a message that nobody sent."""
    from inbound.accept.envelope import Tls  # noqa: PLC0415  # --help need not pay for them
    from inbound.assess.rendering import BytesContent  # noqa: PLC0415
    from inbound.deliver.rehearsal import rehearse  # noqa: PLC0415
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415
    from inbound.operate.cli.verify import envelope  # noqa: PLC0415
    from inbound.operate.house import house, judge  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    content = message_in(file)
    settings = read()
    rule_set = rules_of(rules).rule_set
    supposed = replace(envelope(content, ip=ip, helo=helo, sender=sender), forward_paths=recipients, tls=Tls("TLS", "") if tls else None)
    try:
        here = house(settings, rule_set, dict(answers))
    except ValueError as error:
        fail(f"--answer: {error}")
    return asyncio.run(rehearse(rule_set, supposed, BytesContent(content), here, judge(settings, verdicts, ask=not no_dns)))


def message_in(file: str) -> bytes:
    """The message as it would travel. Exits with 2 where there is no file to read, with 1 for what is no message."""
    from inbound.assess.message import HEAD, parse  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.cli.verify import wire_form  # noqa: PLC0415

    try:
        with click.open_file(file, "rb") as opened:
            content = wire_form(opened.read())
    except (OSError, ValueError) as error:
        fail(f"cannot read {file!r}: {(isinstance(error, OSError) and error.strerror) or error}")
    if not parse(content[:HEAD]).fields:
        fail(f"{file} is not a message: it does not begin with a header field (Name: value)", 1)
    return content
