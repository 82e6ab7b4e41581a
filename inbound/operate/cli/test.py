"""`inbound test`: do the rules do with messages what the cases in a folder say? Without network, before any mail depends on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbound.operate.cli import complain, fail

if TYPE_CHECKING:
    from inbound.operate.cases import CaseFile, Result

EXAMPLE = """Cases:
  - Name: support mail is stored
    To: [support@example.com]"""
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.argument("place", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("tests/rules"))
@click.option("--rules", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES", show_default=True,
              help="The rule file, for case files that name none.")
@click.option("--record", is_flag=True, help="Write what happens as the expectation of each case that differs or has none.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the results as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test(place: Path, rules: Path, record: bool, junit: Path | None, as_json: bool) -> None:
    """Run the cases in DIR (*.yaml, default tests/rules; or one file) against the rules, without network.

    A case is a message and what shall come of it: the reply at RCPT, the rules that run, their actions. Exits with 1 where something
    else would happen, and shows the difference. pytest runs the same files where its ini file says: inbound_cases = tests/rules
    """
    from inbound.decide.problem import RulesError, RulesUnreadableError  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.cases import CaseFile, files_in  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    paths = files_in(place)
    if not paths:
        what = f"there are no cases (*.yaml) in {place}" if place.is_dir() else f"there is no folder {place}"
        fail(f"{what}. A case file begins so, and --record writes the rest:\n{EXAMPLE}")
    settings = read()
    try:
        files = [CaseFile(path, rules, settings) for path in paths]
        results = [(file, [file.run(number) for number, _ in file]) for file in files]
        recorded = sum(file.record(found) for file, found in results) if record else 0
    except RulesUnreadableError as error:
        fail(str(error))
    except RulesError as error:
        complain(str(error), 1)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror or error}")
    _tell(results, recorded=recorded if record else None, as_json=as_json)
    if junit is not None:
        _write_junit(junit, [result for _, found in results for result in found])
    if not record and any(result.difference for _, found in results for result in found):
        raise SystemExit(1)


def _tell(results: Sequence[tuple[CaseFile, Sequence[Result]]], *, recorded: int | None, as_json: bool) -> None:
    every = [result for _, found in results for result in found]
    differ = [result for result in every if result.difference]
    if as_json:
        click.echo(json.dumps({"cases": [_facts(result) for result in every], "differ": len(differ), "recorded": recorded or 0}, indent=2))
        return
    for result in every:
        click.echo("\n".join(_lines(result, quiet=recorded is not None)))
    count = f"{len(every)} case{'s' * (len(every) != 1)}"
    if recorded is not None:
        click.echo(f"{count}, {recorded} recorded; look at what was written before you keep it" if recorded else f"{count}, all as expected")
    else:
        click.echo(f"{count}, " + (click.style(f"{len(differ)} differ{'s' * (len(differ) == 1)}", fg="red") if differ else "all as expected"))


def _lines(result: Result, *, quiet: bool) -> Iterator[str]:
    from inbound.operate.cli.route import safe  # noqa: PLC0415  # --help need not pay for it

    where = safe(f"{result.path}:{result.line}: {result.name}")
    if not result.difference:
        yield f"{click.style('ok  ', fg='green')}  {where}"
        return
    yield f"{click.style('rec ', fg='yellow') if quiet else click.style('FAIL', fg='red')}  {where}"
    if not quiet:
        yield from (f"    {click.style(safe(line), fg=_COLOURS.get(line[:1]))}" for line in result.difference)


def _facts(result: Result) -> dict[str, Any]:
    return {"file": str(result.path), "line": result.line, "name": result.name, "ok": not result.difference,
            "difference": list(result.difference), "happened": result.happened}


def _write_junit(path: Path, results: Sequence[Result]) -> None:
    """The form that CI servers read: a testcase each, a failure with the difference."""
    from xml.etree import ElementTree  # noqa: PLC0415  # only when it is asked for

    suite = ElementTree.Element("testsuite", name="inbound test", tests=str(len(results)), errors="0",
                                failures=str(sum(bool(result.difference) for result in results)))
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", classname=str(result.path), name=_xml(result.name), file=str(result.path),
                                      line=str(result.line))
        if result.difference:
            ElementTree.SubElement(case, "failure", message="something else happens").text = _xml("\n".join(result.difference))
    try:
        ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}")


def _xml(text: str) -> str:
    """The text without what XML 1.0 cannot hold."""
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)
