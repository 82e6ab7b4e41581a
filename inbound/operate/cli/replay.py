"""`inbound replay`: messages that were received, judged again by the rules as they are now. What would be different?"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from inbound.operate.cli import fail
from inbound.operate.cli.queue import data_option, meant, unknown, visit
from inbound.operate.cli.route import safe


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A time (2026-11-24, 2026-11-24T13:00Z; UTC unless it says otherwise), or how long ago: 90s, 15m, 4h, 7d. In epoch seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from inbound.settings import duration  # noqa: PLC0415  # --help need not pay for it

        text = str(value).strip()
        try:
            if text[-1:] in tuple("smhd"):
                return time.time() - float(duration(text))
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a time (2026-11-24, 2026-11-24T13:00Z) nor how long ago (90s, 15m, 4h, 7d)", param, ctx)


@click.command()
@click.argument("message_ids", nargs=-1, metavar="[ID]...")
@click.option("--since", type=Moment(), help="Instead of ids: what was received since then (2026-11-24T13:00Z), or since so long (4h, 7d).")
@click.option("--until", type=Moment(), help="Instead of ids: what was received before then; default: now.")
@click.option("--rule", metavar="NAME", help="Instead of ids: messages with which this rule does something, then or now.")
@click.option("--rules", type=click.Path(path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES", show_default=True,
              help="The rule file to judge them by.")
@click.option("--run", is_flag=True, help="Perform the actions again by these rules, those done before too. The service does it within a second.")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in the shape that --schema tells.")
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of what --json prints, and replay nothing.")
def replay(message_ids: tuple[str, ...], since: float | None, until: float | None, rule: str | None, rules: Path, run: bool, data: Path,
           as_json: bool, as_schema: bool) -> None:
    """Judge messages of the spool and its history again, and tell what the rules as they are now would do differently.

    ID is that of a message that is done or a dead letter, or the beginning of one. Each is compared with its way by the rules it came under.
    A synchronous function answers what it answered then; one that was not asked is supposed to answer CONTINUE. Nothing is sent or stored
    without --run.

    With --run the content is taken from the spool, where INBOUND_RETAIN_CONTENT keeps it, or from the S3 object that the message went to.
    'inbound explain ID' tells what came of it, and what came of it before.
    """
    if as_schema:
        from inbound.deliver.replay_schema import schema  # noqa: PLC0415  # only when it is asked for

        click.echo(json.dumps(schema(), indent=2))
        return
    if bool(message_ids) == any(given is not None for given in (since, until, rule)):
        fail("name messages by their ids, or choose them with --since TIME, --until TIME, --rule NAME")
    from inbound.operate.cli.loading import rules_of  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.replay import Replay, performed, told  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    rule_set, settings = rules_of(rules).rule_set, read()
    compared: list[Any] = []
    begun = time.time()

    async def tell(replay: Replay, found: Any) -> None:
        if run:
            await replay.run(found)
        if as_json:
            compared.append(found)
        else:
            click.echo("\n".join(map(coloured, [*told(found), *performed(replay.ran.get(found.entry.id))])))

    async def look(spool: Any) -> Replay:
        replay = Replay(spool, rule_set, settings)
        named = set()
        for message_id in dict.fromkeys(message_ids):
            if not message_id.isalnum():
                replay.problems.append((message_id, "is no message id"))
                continue
            entry, begin = await meant(spool, message_id)
            if entry is None:
                replay.problems.append((message_id, unknown(message_id, begin, data)))
            elif entry.id not in named:
                named.add(entry.id)
                if (found := await replay.one(entry)) is not None:
                    await tell(replay, found)
        if not message_ids:
            async for found in replay.finished(since, begun if until is None else until, rule):
                await tell(replay, found)
        return replay

    done = visit(data, look)
    if rule is not None and not done.knows(rule):
        fail(f"no rule is named {rule!r} in {rules}, nor in the rules that these messages came under")
    if as_json:
        click.echo(json.dumps(done.to_json(str(rules), compared), indent=2))
    else:
        click.echo("\n".join(map(coloured, done.end(str(rules)))))
        for message_id, problem in done.problems:
            click.echo(f"inbound: {safe(f'{message_id}: {problem}')}", err=True)
    if done.problems:
        raise SystemExit(1)


def coloured(line: str) -> str:
    """A line for the terminal: what goes is red, what comes green."""
    return click.style(safe(line), fg=_COLOURS.get(line[:6])) if line.startswith("    ") else safe(line)


_COLOURS = {"    - ": "red", "    + ": "green", "    ! ": "yellow", "    ~ ": "yellow", "    > ": "cyan"}
