"""`inbound queue`: the spool, from beside a running service or without one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from inbound.operate.cli import fail, spool_trouble
from inbound.operate.cli.route import safe

T = TypeVar("T")
STATES = ("active", "deferred", "dead", "done")
ENTRIES = 100_000  # in a spool with more, an id is not looked for by its beginning


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data DIR`."""
    folder = click.Path(path_type=Path, readable=False)  # click's own word on one that may not be read takes three lines
    return click.option("--data", type=folder, default=Path("var"), envvar="INBOUND_DATA", show_default=True,
                        help="The data folder of the service.")(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def queue() -> None:
    """Look at the spool: what waits, what is dead, what happened to a message."""


def visit(data: Path, look: Callable[[Any], Awaitable[T]]) -> T:
    """Run `look` on the spools of a data folder, as one. Ends the command with one line when there is none."""
    from inbound.accept.spool import SpoolError  # noqa: PLC0415  # --help need not pay for it
    from inbound.accept.spool.several import SeveralSpools  # noqa: PLC0415

    async def go() -> T:
        spool = SeveralSpools(data)
        await spool.start()
        try:
            return await look(spool)
        finally:
            await spool.stop()

    try:
        return asyncio.run(go())
    except FileNotFoundError:
        fail(f"there is no spool in {data}; name the data folder of the service with --data DIR")
    except SpoolError as error:
        fail(spool_trouble(data, error))


async def meant(spool: Any, message_id: str) -> tuple[Any, list[str]]:
    """The entry with this id, or whose id alone begins with it; else None. And the ids that begin with it, where none is it."""
    from inbound.accept.spool import Query  # noqa: PLC0415  # --help need not pay for it

    entry = await spool.get(message_id)
    if entry is not None or sum((await spool.counts()).values()) > ENTRIES:
        return entry, []
    begin = [each.id for each in await spool.find(Query(limit=ENTRIES)) if each.id.startswith(message_id.lower())]
    return await spool.get(begin[0]) if len(begin) == 1 else None, begin


def unknown(message_id: str, begin: list[str], data: Path) -> str:
    """What to say of an id that means no message, or several: those that `begin` with it."""
    if begin:
        return f"{len(begin)} messages begin with {message_id}: {', '.join(begin[:3])}{' …' * (len(begin) > 3)}"
    return f"no message {message_id!r} in the spool of {data}"


class Age(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A time span: 90s, 15m, 4h, 7d."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from inbound.settings import duration  # noqa: PLC0415  # --help need not pay for it

        try:
            seconds: float = duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return seconds


@queue.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these states; default: all but done.")
@click.option("--older", type=Age(), help="Only what was received longer ago than this: 15m, 4h, 7d.")
@click.option("--newer", type=Age(), help="Only what was received since then.")
@click.option("--error", default="", metavar="TEXT", help="Only what failed with this text in its error, in any case.")
@click.option("--sink", default="", metavar="NAME", help="Only what waits for this sink, or failed there: s3:BUCKET, sns:ARN, lambda:ARN.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1))
@data_option
@json_option
def list_(states: tuple[str, ...], older: float | None, newer: float | None, error: str, sink: str, limit: int, data: Path, as_json: bool) -> None:
    """List entries, oldest first, and how many there are of each state."""
    from inbound.accept.spool import Query, State  # noqa: PLC0415  # --help need not pay for it

    now = time.time()
    query = Query(
        states=[State(s) for s in states or STATES[:3]], error=error, limit=1_000_000 if sink else limit,
        received_before=None if older is None else now - older, received_after=None if newer is None else now - newer,
    )

    async def look(spool: Any) -> tuple[list[Any], dict[Any, int]]:
        return await spool.find(query), await spool.counts()

    entries, counts = visit(data, look)
    if sink:
        entries = [entry for entry in entries if sink in (entry.sink, entry.error.partition(": ")[0])][:limit]
    if as_json:
        click.echo(json.dumps({"counts": {str(k): v for k, v in counts.items()}, "entries": [fact(e) for e in entries]}, indent=2))
        return
    for entry in entries:
        click.echo(line(entry, now))
        if entry.error:
            click.echo(f"    {safe(entry.error)}")
    click.echo(", ".join(f"{counts[State(s)]} {s}" for s in STATES))


def line(entry: Any, now: float) -> str:
    """One entry of the list for people."""
    envelope = entry.envelope
    when = f"retry in {human(entry.due - now)}" if entry.state == "deferred" else ""
    told = f"{safe(envelope.reverse_path or '<>')} -> {safe(', '.join(envelope.forward_paths))}  {when}"
    return f"{entry.id}  {entry.state:<8}  {human(now - envelope.received_at):>5}  {entry.size:>9}  {told}".rstrip()


@queue.command()
@click.argument("message_id")
@data_option
@json_option
def show(message_id: str, data: Path, as_json: bool) -> None:
    """Show one message: session, verdicts, what each rule did and each attempt, and the outline of its parts."""
    from inbound.assess.outline import bounded_outline  # noqa: PLC0415  # --help need not pay for it
    from inbound.decide.engine import StopScope  # noqa: PLC0415
    from inbound.decide.rules import RuleSet  # noqa: PLC0415
    from inbound.deliver.trace import trace  # noqa: PLC0415
    from inbound.operate.cli.route import render  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    async def look(spool: Any) -> tuple[Any, str | None, Any]:
        entry = await spool.get(message_id)
        if entry is None:
            return None, None, None
        outline = None
        if entry.has_content:
            outline = await asyncio.to_thread(bounded_outline, await spool.content(message_id))
        return entry, await spool.revision(entry.envelope.revision), outline

    entry, text, outline = visit(data, look)
    if entry is None:
        fail(f"no message {message_id} in the spool of {data}", 1)
    found = trace(entry, RuleSet.kept(text), StopScope(read().stop_scope))
    found["outline"] = outline_json(outline)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=True))
    else:
        click.echo(render(found, whole=True))


def chosen_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`[ID…] [--all] [--error TEXT]`."""
    for option in (
        click.option("--error", default="", metavar="TEXT", help="Only dead letters with this text in their error, in any case."),
        click.option("--all", "everything", is_flag=True, help="Every dead letter."),
        click.argument("message_ids", nargs=-1),
    ):
        command = option(command)
    return command


@queue.command()
@chosen_options
@click.option("--current-rules", is_flag=True, help="Judge them anew by the rule file as it is now, from the first rule on.")
@click.option("--rules", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES", show_default=True,
              help="The rule file, for --current-rules.")
@data_option
@json_option
def retry(message_ids: tuple[str, ...], everything: bool, error: str, current_rules: bool, rules: Path, data: Path, as_json: bool) -> None:
    """Try messages again at once: dead letters with a fresh retry time, and those that wait. A running service takes them within a second.

    They go on at the step that failed, by the rules they were received under, unless --current-rules says otherwise.
    """
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415  # --help need not pay for it

    chosen = _choose(message_ids, everything, error, data)
    rule_set = rules_of(rules).rule_set if current_rules else None

    async def look(spool: Any) -> list[str]:
        done: list[str] = await spool.retry(chosen, time.time(), revision=(rule_set.revision, rule_set.text) if rule_set else None)
        return done

    if not chosen:
        _none(error, as_json=as_json)
        return
    _report(chosen, visit(data, look), "will be tried again", "is neither dead nor waiting", as_json=as_json)


@queue.command()
@chosen_options
@data_option
@json_option
def drop(message_ids: tuple[str, ...], everything: bool, error: str, data: Path, as_json: bool) -> None:
    """Remove messages with content and trace, for ever."""
    chosen = _choose(message_ids, everything, error, data)
    if not chosen:
        _none(error, as_json=as_json)
        return
    done = visit(data, lambda spool: spool.drop(chosen))
    _report(chosen, done, "is gone", "is not there, or is being worked just now", as_json=as_json)


def _choose(message_ids: tuple[str, ...], everything: bool, error: str, data: Path) -> list[str]:
    from inbound.accept.spool import Query, State  # noqa: PLC0415  # --help need not pay for it

    if bool(message_ids) == (everything or bool(error)):
        fail("name message ids, or choose dead letters with --all or --error TEXT")
    if message_ids:
        return list(message_ids)
    dead = visit(data, lambda spool: spool.find(Query(states=[State.DEAD], error=error, limit=1_000_000)))
    return [entry.id for entry in dead]


def _none(error: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"done": [], "not_done": []}))
    else:
        click.echo("there are no dead letters" + (f" with {error!r} in their error" if error else ""))


def _report(chosen: list[str], done: list[str], did: str, did_not: str, *, as_json: bool) -> None:
    missed = [i for i in chosen if i not in set(done)]
    if as_json:
        click.echo(json.dumps({"done": done, "not_done": missed}))
    else:
        for message_id in done:
            click.echo(f"{message_id} {did}")
        for message_id in missed:
            click.echo(f"inbound: {message_id} {did_not}", err=True)
    if missed:
        raise SystemExit(1)


def fact(entry: Any) -> dict[str, Any]:
    """One entry of the list as JSON."""
    from inbound.deliver.trace import stamp  # noqa: PLC0415  # --help need not pay for it

    return {
        "id": entry.id, "state": str(entry.state), "received": stamp(entry.envelope.received_at), "size": entry.size,
        "sender": entry.envelope.reverse_path, "recipients": list(entry.envelope.forward_paths), "attempts": entry.attempts,
        "due": stamp(entry.due) if entry.state == "deferred" else None, "sink": entry.sink, "error": entry.error, "revision": entry.envelope.revision,
    }


def outline_json(outline: Any) -> Any:
    """The outline of a message's parts as JSON; a reason in words where it could not be made."""
    return outline.to_json() if hasattr(outline, "to_json") else None if outline is None else str(outline)


def human(seconds: float) -> str:
    """A time span in its largest unit: 42s, 17m, 3h, 2d."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
