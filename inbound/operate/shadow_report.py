"""What was counted of a candidate, as `inbound shadow` tells it: from the tallies of every process's spool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inbound.accept.spool import Entry, Tally
from inbound.accept.spool.lock import Lock
from inbound.accept.spool.several import SeveralSpools, spool_folder, spool_numbers
from inbound.decide.load import RulesError, load
from inbound.deliver.shadow_state import ShadowState, read_trouble, state_file
from inbound.deliver.trace import stamp

TRACES = 10_000  # of one group that are looked through for recipients who would be refused
REFUSED_SHOWN = 20


def live(data: Path) -> list[int]:
    """The numbers of the spools that a process owns just now."""
    return [number for number in spool_numbers(data) if not Lock(spool_folder(data, number) / "lock").is_free()]


def latest(tallies: Iterable[Tally]) -> str:
    """The revision that was taken last, or counted last; empty where none was taken."""
    found = max(tallies, key=lambda tally: tally.last, default=None)
    return found.revision if found else ""


def merged(spools: Iterable[Sequence[Tally]]) -> list[Tally]:
    """The tallies of several spools as those of one."""
    found: dict[tuple[str, str], Tally] = {}
    for tally in (tally for tallies in spools for tally in tallies):
        known = found.get((tally.revision, tally.kind), replace(tally, messages=0))
        found[tally.revision, tally.kind] = replace(known, messages=known.messages + tally.messages, first=min(known.first, tally.first),
                                                    last=max(known.last, tally.last))
    return list(found.values())


def counts(tallies: Collection[Tally], revision: str) -> tuple[int, int]:
    """How many messages this revision judged, and how many of them would go another way."""
    ours = [tally for tally in tallies if tally.revision == revision]
    return sum(tally.messages for tally in ours), sum(tally.messages for tally in ours if tally.kind)


def state(found: ShadowState | None, spools: Sequence[Sequence[Tally]], data: Path, revision: str = "") -> dict[str, Any]:
    """The document of `shadow_schema.State`, for the revision that counts or another one."""
    tallies = merged(spools)
    current = latest(tallies)
    judged, differ = counts(tallies, revision or current)
    is_on, is_running = found is not None and found.stopped is None, bool(live(data))
    return {
        "state": "off" if found is None else "on" if is_on else "stopped",
        "file": found.file if found else "",
        "started": stamp(found.started) if found else None,
        "stopped": stamp(found.stopped) if found and found.stopped is not None else None,
        "running": is_running,
        "revision": revision or current,
        "trouble": _trouble(found, current, read_trouble(state_file(data), found.run) if is_running else "") if found and is_on else "",
        "judged": judged,
        "differ": differ,
    }


def _trouble(found: ShadowState, revision: str, of_service: str) -> str:
    """What is wrong with the file as we see it; else what the service finds wrong."""
    try:
        loaded = load(Path(found.file))
    except RulesError as error:
        return _first(str(error))
    if of_service:
        return f"{_first(of_service)}, says the service, which may not see what you see"
    return "" if loaded.rule_set.revision == revision else f"{found.file} has revision {loaded.rule_set.revision}, which no service has taken yet"


def _first(errors: str) -> str:
    first, *more = errors.splitlines()
    return first + (f" (and {len(more)} more errors)" if more else "")


async def report(spool: SeveralSpools, found: ShadowState, data: Path, *, examples: int, revision: str = "") -> dict[str, Any]:
    """The document of `shadow_schema.Report`."""
    spools = await spool.tallies(found.run)
    tallies = merged(spools)
    told = state(found, spools, data, revision)
    ours = [tally for tally in tallies if tally.revision == told["revision"] and tally.kind and tally.messages]
    ours.sort(key=lambda tally: (-tally.messages, tally.first, tally.kind))
    others = sorted({tally.revision for tally in tallies} - {told["revision"]}, key=lambda name: _latest_time(tallies, name))
    counted = [(name, *counts(tallies, name)) for name in others]
    return told | {
        "groups": [await _group(spool, found.run, tally, examples) for tally in ours],
        "earlier": [{"revision": name, "judged": judged, "differ": differ} for name, judged, differ in counted if judged],
    }


def _latest_time(tallies: Iterable[Tally], revision: str) -> float:
    """When a revision was taken or counted last."""
    return max(tally.last for tally in tallies if tally.revision == revision)


async def _group(spool: SeveralSpools, run: str, tally: Tally, examples: int) -> dict[str, Any]:
    told = json.loads(tally.told) if tally.told else {"removed": [], "added": [], "moved": [], "notes": ["differs in one of many more ways"]}
    refuses = any(note.startswith("a recipient is refused") for note in told["notes"]) or not tally.told
    entries = await spool.counted(run, tally.revision, tally.kind, TRACES if refuses else examples)
    refused = Counter(recipient for _, recipients in entries for recipient in recipients)
    return {
        "kind": tally.kind, "messages": tally.messages, "first": stamp(tally.first), "last": stamp(tally.last), **told,
        "refused": [{"recipient": recipient, "messages": messages} for recipient, messages in refused.most_common(REFUSED_SHOWN)],
        "examples": [_example(entry) for entry, _ in entries[:examples]],
    }


def _example(entry: Entry) -> dict[str, Any]:
    envelope = entry.envelope
    return {"id": entry.id, "received": stamp(envelope.received_at), "sender": envelope.reverse_path, "recipients": list(envelope.forward_paths)}
