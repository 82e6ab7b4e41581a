"""`inbound import`: rules from SES, CloudFormation or Terraform as a rules.yaml, and a word on everything that needs a person."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inbound.operate.cli import fail

if TYPE_CHECKING:
    from inbound.operate.importers.draft import Draft

F = TypeVar("F", bound=Callable[..., Any])
SOURCE = click.Path(allow_dash=True, path_type=Path)


def output_options(command: F) -> F:
    """The options that all sources share."""
    for option in (
        click.option("--force", is_flag=True, help="Overwrite the file that -o names."),
        click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rules to this file.  [default: standard output]"),
        click.option("--active", metavar="NAME", help="The rule set in use, where there are several."),
        click.option("--identity", "identities", multiple=True, metavar="DOMAIN|ADDRESS",
                     help="What mail is received for; may be repeated. SES keeps this apart from the rules: aws ses list-identities."),
    ):
        command = option(command)
    return command


@click.group("import")
def import_() -> None:
    """Write a rules.yaml from the rules that SES, a CloudFormation template or a Terraform plan holds.

    Nothing is guessed: what the source does not tell is marked in the file, and told on standard error with its place.
    Exits with 0 if the result passes `inbound check`, with 1 if it needs a person first, with 2 for a source that cannot be read.
    """


@import_.command(short_help="From SES: the JSON of the AWS CLI, or --live.")
@click.argument("files", nargs=-1, type=SOURCE)
@click.option("--live", is_flag=True, help="Ask SES itself, with boto3's own credentials, instead of reading files.")
@click.option("--region", help="With --live: the region.  [default: boto3's own]")
@click.option("--rule-set", "rule_sets", multiple=True, metavar="NAME", help="With --live: this rule set instead of the active one; may be repeated.")
@output_options
def ses(files: tuple[Path, ...], live: bool, region: str | None, rule_sets: tuple[str, ...], **options: Any) -> None:
    """From SES: FILES hold what the AWS CLI prints (- is standard input).

    \b
    aws ses describe-active-receipt-rule-set, or describe-receipt-rule-set --rule-set-name NAME
    aws ses list-receipt-filters
    aws ses list-identities
    """
    from inbound.operate.importers.ses import read  # noqa: PLC0415  # --help need not pay for it

    if live == bool(files):
        raise click.UsageError("give files, or --live")
    if not live and (region or rule_sets):
        raise click.UsageError("--region and --rule-set go with --live")

    def drafted() -> Draft:
        if not live:
            return read((_shown(file), _json(file)) for file in files)
        from inbound.operate.importers.live import documents  # noqa: PLC0415  # brings boto3

        found, active = documents(region, rule_sets)
        draft = read(found)
        if active in draft.rule_sets:
            draft.active, draft.knows_active = active, True
        elif draft.rule_sets:
            draft.remarks.append(f"in SES the active rule set is {active or 'none'}, which is not among these")
        return draft

    _finish(drafted, ["SES"] if live else [_shown(file) for file in files], **options)


@import_.command(short_help="From a CloudFormation template.")
@click.argument("file", type=SOURCE)
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE",
              help="A value that the template does not hold: of a parameter, AWS::Region, AWS::AccountId, a resource (its Ref), RESOURCE.ATTRIBUTE "
              "(its GetAtt), an export; may be repeated.")
@click.option("--stack", "stacks", multiple=True, type=SOURCE, metavar="FILE",
              help="What the AWS CLI prints of the deployed stack: cloudformation describe-stacks, describe-stack-resources or list-stack-resources; "
              "may be repeated. Parameters, names and ARNs are taken from it.")
@output_options
def cloudformation(file: Path, parameters: tuple[str, ...], stacks: tuple[Path, ...], **options: Any) -> None:
    """From a CloudFormation template, YAML or JSON (- is standard input).

    The template in FILE may be your own, what `cdk synth` prints, or what `aws cloudformation get-template` prints.
    """
    from inbound.operate.importers import cloudformation as source  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.importers.stack import values  # noqa: PLC0415

    if wrong := next((each for each in parameters if "=" not in each), None):
        raise click.UsageError(f"--parameter {wrong}: is not NAME=VALUE")

    def drafted() -> Draft:
        given: dict[str, str] = {}
        for stack in stacks:
            given |= values(_json(stack), _shown(stack))
        given |= {name: value for name, _, value in (each.partition("=") for each in parameters)}
        return source.draft(_text(file), _shown(file), given)

    _finish(drafted, [_shown(file)], **options)


@import_.command(short_help="From what `terraform show -json` prints.")
@click.argument("file", type=SOURCE)
@output_options
def terraform(file: Path, **options: Any) -> None:
    """From Terraform: FILE holds what `terraform show -json` prints, of a plan or of the state (- is standard input)."""
    from inbound.operate.importers import terraform as source  # noqa: PLC0415  # --help need not pay for it

    _finish(lambda: source.draft(_json(file), _shown(file)), [_shown(file)], **options)


def _finish(drafted: Callable[[], Draft], sources: Sequence[str], *, output: Path | None, force: bool, active: str | None,
            identities: tuple[str, ...]) -> None:
    """Write the rules and the summary."""
    from inbound.operate.cli.route import safe  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.importers.draft import ImportRefused  # noqa: PLC0415
    from inbound.operate.importers.summary import summary  # noqa: PLC0415
    from inbound.operate.importers.writing import write  # noqa: PLC0415

    if output is not None and output.exists() and not force:
        fail(f"{output} exists; --force overwrites it")
    try:
        draft = drafted()
    except ImportRefused as error:
        fail(safe(error))
    if active is not None:
        if active not in draft.rule_sets:
            fail(f"--active {active}: there is no such rule set here; there is {', '.join(draft.rule_sets) or 'none'}")
        draft.active, draft.knows_active = active, True
    draft.identities += [each for each in identities if each not in draft.identities]
    draft.settle()
    text = write(draft, sources)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)
    told = summary(draft, text, str(output or "rules.yaml"))
    click.echo("\n".join(safe(line) for line in told.lines), err=True)
    if not told.passes:
        sys.exit(1)


def _write(output: Path, text: str) -> None:
    """The whole file or none: what is there stays until the new one is complete. Exits with 2 where it cannot be written."""
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=".inbound-import-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(output.stat().st_mode & 0o777 if output.exists() else 0o644)
        Path(name).replace(output)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        fail(f"cannot write {output}: {error.strerror or error}")


def _shown(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _text(file: Path) -> str:
    try:
        with click.open_file(str(file), "rb") as opened:
            octets: bytes = opened.read()
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror or error}")
    try:
        return octets.decode("utf-16" if octets[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")  # PowerShell's > writes UTF-16
    except UnicodeDecodeError:
        fail(f"{_shown(file)}: is not UTF-8")


def _json(file: Path) -> Any:
    text = _text(file)
    try:
        return json.loads(text) if text.strip() else {}  # the AWS CLI prints nothing for an empty answer
    except (ValueError, RecursionError) as error:
        why = f"not JSON: {error}" if isinstance(error, ValueError) else "is nested too deeply"
        fail(f"{_shown(file)}: {why}" + ("" if "ses" not in text[:200].lower() else "; the AWS CLI prints JSON with --output json"))
