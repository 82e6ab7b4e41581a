"""`inbound shadow`: tries a candidate rule file on every message that is received, without acting, and tells what would be different."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from inbound.operate.cli import fail
from inbound.operate.cli.differing import differing, messages
from inbound.operate.cli.queue import data_option, human, json_option, visit
from inbound.operate.cli.route import safe

if TYPE_CHECKING:
    from inbound.accept.spool.several import SeveralSpools
    from inbound.deliver.shadow_state import ShadowState

PATIENCE = 10.0  # seconds that a running service has to take a candidate: it looks when the file changes, and a large one takes a second to read
PAUSE = 0.05
RECIPIENTS = 3  # recipients of an example that are shown


@click.command()
@click.argument("what", metavar="[FILE | stop | report]", required=False)
@click.option("--examples", type=click.IntRange(0, 1000), default=3, show_default=True, help="Messages to name of each difference; for report.")
@click.option("--revision", default="", metavar="REVISION", help="Report on an earlier revision of the candidate.")
@data_option
@json_option
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of what --json prints, and do nothing.")
def shadow(what: str | None, examples: int, revision: str, data: Path, as_json: bool, as_schema: bool) -> None:
    """Try a candidate rule FILE on every message: from now on each is also judged by it, and nothing is done.

    FILE is followed: a change takes effect as one of the rule file would, and is counted as a revision of its own. With several processes and
    after restarts it goes on, until 'inbound shadow stop'. (A file that is called stop or report is named ./stop or ./report.)

    'inbound shadow report' tells which messages would have gone another way, grouped by what differs; 'inbound shadow' alone how far it came.
    A message is judged when all is done, or it is a dead letter. Mail that the rules in force refuse is not seen.
    """
    if as_schema:
        from inbound.deliver.shadow_schema import schema  # noqa: PLC0415  # only when it is asked for

        click.echo(json.dumps(schema(), indent=2))
    elif what == "report":
        _report(data, examples, revision, as_json=as_json)
    elif revision:
        fail("--revision is for inbound shadow report")
    elif what is None:
        _tell(data, as_json=as_json)
    elif what == "stop":
        _stop(data, as_json=as_json)
    else:
        _start(what, data, as_json=as_json)


# --- what it does ---


def _start(file: str, data: Path, *, as_json: bool) -> None:
    from inbound.accept.envelope import new_message_id  # noqa: PLC0415  # --help need not pay for them
    from inbound.decide.load import text_of  # noqa: PLC0415
    from inbound.deliver.shadow_state import ShadowState, ShadowStateError, read_state, state_file, write_state  # noqa: PLC0415
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    _owned(data)
    path = Path(file).absolute()
    loaded = rules_of(Path(file))
    try:
        before = read_state(state_file(data))
    except ShadowStateError:
        before = None  # it is replaced
    if before is not None and before.stopped is None and before.file == str(path):
        if not as_json:
            click.echo(f"{file} is tried already, and followed; to count from nothing: inbound shadow stop, then this again")
        _tell(data, as_json=as_json)
        return
    visit(data, lambda spool: spool.tallies(""))  # a spool that cannot be used is told of before anything is written
    write_state(state_file(data), ShadowState(new_message_id()[:16], str(path), text_of(Path(file)), time.time()))
    for warning in (*loaded.warnings, *loaded.unsilenced((*loaded.needs_certificate, *loaded.needs_smarthost))):
        click.echo(f"{warning.file}:{warning.line}:{warning.column}: warning: {warning.message} [{warning.code}]", err=True)
    if _same(path, read().rules):
        click.echo(f"inbound: {file} is the rule file in force itself: nothing will differ", err=True)
    _await_taken(data, loaded.rule_set.revision)
    _tell(data, as_json=as_json)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _await_taken(data: Path, revision: str) -> None:
    """Wait until every process that runs has taken the candidate, so that 'from now on' is true when the command ends."""
    from inbound.deliver.shadow_state import read_state, state_file  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.shadow_report import live  # noqa: PLC0415

    found = read_state(state_file(data))
    run = found.run if found else ""

    async def look(spool: SeveralSpools) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            taken = [any(tally.revision == revision for tally in tallies) for tallies in await spool.tallies(run)]
            if sum(taken) >= len(live(data)):
                return
            await asyncio.sleep(PAUSE)

    visit(data, look)


def _stop(data: Path, *, as_json: bool) -> None:
    from inbound.deliver.shadow_state import state_file, write_state  # noqa: PLC0415  # --help need not pay for it

    _owned(data)
    found = _state(data)
    if found is None or found.stopped is not None:
        fail(f"no candidate is tried in {data}; begin with: inbound shadow FILE", 1)
    write_state(state_file(data), replace(found, stopped=time.time(), text=""))
    _tell(data, as_json=as_json)


def _tell(data: Path, *, as_json: bool) -> None:
    from inbound.operate.shadow_report import state  # noqa: PLC0415  # --help need not pay for it

    found = _state(data)
    told = state(found, visit(data, lambda spool: spool.tallies(found.run if found else "")), data)
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(_head(told)))


def _report(data: Path, examples: int, revision: str, *, as_json: bool) -> None:
    from inbound.operate.shadow_report import report  # noqa: PLC0415  # --help need not pay for it

    found = _state(data)
    if found is None:
        fail(f"no candidate was ever tried in {data}; begin with: inbound shadow FILE", 1)
    told = visit(data, lambda spool: report(spool, found, data, examples=examples, revision=revision))
    if revision and not told["judged"]:
        known = ", ".join(each["revision"] for each in told["earlier"])
        fail(f"no message was judged by revision {revision}; there is {known or 'none'}", 1)
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join((*_head(told), *_body(told))))


def _state(data: Path) -> ShadowState | None:
    """The state of the data folder. Exits where it cannot be read."""
    from inbound.deliver.shadow_state import ShadowStateError, read_state, state_file  # noqa: PLC0415  # --help need not pay for it

    if not data.is_dir():
        _no_folder(data)
    try:
        return read_state(state_file(data))
    except ShadowStateError as error:
        fail(str(error), 1)


def _owned(data: Path) -> None:
    """What is written here has to be read by the service. Exits with 2 where it would not be."""
    try:
        owner = data.stat().st_uid
    except FileNotFoundError:
        _no_folder(data)
    if owner != os.geteuid():
        fail(f"the data folder {data} belongs to user {_name(owner)}, and you are {_name(os.geteuid())}: run this as the service's user")


def _no_folder(data: Path) -> NoReturn:
    fail(f"there is no data folder {data}; name that of the service with --data DIR")


def _name(number: int) -> str:
    import pwd  # noqa: PLC0415  # --help need not pay for it

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


# --- what it tells people ---


def _head(told: dict[str, Any]) -> Iterator[str]:
    if told["state"] == "off":
        yield "no candidate is tried; begin with: inbound shadow FILE"
        return
    when = f"since {_when(told['started'])}" if told["state"] == "on" else f"from {_when(told['started'])} to {_when(told['stopped'])}"
    yield f"{safe(told['file'])}: {'tried' if told['state'] == 'on' else 'was tried'} {when}, revision {told['revision'] or 'none yet'}"
    if told["state"] == "on" and not told["running"]:
        yield "no service runs on this data folder now; it goes on with the next start"
    if told["trouble"]:
        kept = f"; revision {told['revision']} counts on" if told["revision"] else ""
        yield click.style(f"{safe(told['trouble'])}{kept}", fg="red")
    yield messages(told["judged"]) + " judged" + (f", {told['differ']} would have gone another way" if told["judged"] else "")


def _body(told: dict[str, Any]) -> Iterator[str]:
    for group in told["groups"]:
        yield ""
        yield click.style(f"{messages(group['messages'])}, the last {human(time.time() - _seconds(group['last']))} ago", bold=True)
        yield from differing(group)
        for each in group["refused"]:
            yield f"        {safe(each['recipient'])}  {messages(each['messages'])}"
        for each in group["examples"]:
            shown = ", ".join(map(safe, each["recipients"][:RECIPIENTS])) + " …" * (len(each["recipients"]) > RECIPIENTS)
            yield click.style(f"    inbound explain {each['id']}   {safe(each['sender'] or '<>')} -> {shown}", dim=True)
    if told["earlier"]:
        yield ""
        for each in told["earlier"]:
            yield f"revision {each['revision']}: {messages(each['judged'])} judged, {each['differ']} would have gone another way"
    if told["groups"]:
        yield ""
        yield "- only the rules in force, + only the candidate. Mail that was refused in the session is not seen."


def _when(stamp: str) -> str:
    return f"{stamp[:16].replace('T', ' ')} UTC"


def _seconds(stamp: str) -> float:
    from datetime import datetime  # noqa: PLC0415  # --help need not pay for it

    return datetime.fromisoformat(stamp).timestamp()
