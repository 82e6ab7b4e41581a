"""`inbound replay`: messages that were received, judged again by the rules as they are now. What would be different?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from inbound.operate.cli import fail
from inbound.operate.cli.differing import differing, marked, messages, step
from inbound.operate.cli.queue import data_option, meant, unknown, visit
from inbound.operate.cli.route import safe

FEW = 5  # messages named by their ids, of each of which all that is different is told


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
    from inbound.operate.replay import Replay  # noqa: PLC0415
    from inbound.settings import read  # noqa: PLC0415

    rule_set, settings = rules_of(rules).rule_set, read()
    compared: list[Any] = []
    begun, whole = time.time(), 0 < len(message_ids) <= FEW

    async def tell(replay: Replay, found: Any) -> None:
        if run:
            await replay.run(found)
        if as_json:
            compared.append(found)
        else:
            click.echo("\n".join(_line(found, replay.ran.get(found.entry.id), whole=whole)))

    async def look(spool: Any) -> Replay:
        replay = Replay(spool, rule_set, settings, data)
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
        click.echo("\n".join(_end(done, str(rules), whole=whole)))
        for message_id, problem in done.problems:
            click.echo(f"inbound: {safe(f'{message_id}: {problem}')}", err=True)
    if done.problems:
        raise SystemExit(1)


def _line(found: Any, place: str | None, *, whole: bool) -> Iterator[str]:
    """One comparison: a line, and where it is told by itself as a `whole`, one for all that is different."""
    told, undone, again = found.to_json(), found.not_performed, _again(place)
    head = f"{told['id']}  {told['received']}  {told['sender'] or '<>'} -> {', '.join(told['recipients'])}: "
    head += ("another way" if found.difference else "the same") + "; a dead letter" * (told["state"] == "dead")
    if not whole:
        lacks = f", {len(undone)} step{'s' * (len(undone) != 1)} never done" if undone else ""
        yield safe(head + lacks + f"; {again}" * bool(again))
        return
    yield safe(head)
    if found.difference is not None:
        yield from differing(told["difference"], several=len(told["recipients"]) > 1)
        for function in dict.fromkeys((*found.then.assumed, *found.now.assumed)):
            yield marked("!", f"supposes that {function} answers CONTINUE")
    for each in undone:
        yield marked("!", f"never done: {step(each)}")
    if again:
        yield marked(">", again)


def _again(place: str | None) -> str:
    """Whether its actions are performed again, and with the content from where."""
    from inbound.operate.replay import SPOOL  # noqa: PLC0415  # --help need not pay for it

    return "" if place is None else "to be performed again" + (f", with the content from {place}" if place != SPOOL else "")


def _end(done: Any, rules: str, *, whole: bool) -> Iterator[str]:
    """The summary; with the groups where the messages were not told as a whole."""
    judged, different = done.summary.judged, done.summary.different
    if done.unfinished:
        yield f"{messages(done.unfinished)} still waiting or in hand left out"
    if not judged:
        yield "no message was judged"
        return
    outcome = f"{different} would go another way" if different else "all would go the same way" if judged > 1 else "it would go the same way"
    yield f"{messages(judged)} judged by {safe(rules)}, revision {done.revision}: {outcome}"
    for group in () if whole else done.summary.groups:
        yield f"{messages(group.messages)}: {', '.join(group.examples)}{', …' * (group.messages > len(group.examples))}"
        yield from differing(group.to_json())
    if done.ran:
        yield f"{messages(len(done.ran))} to be performed again, by the service within a second if it runs: inbound explain {next(iter(done.ran))}"
