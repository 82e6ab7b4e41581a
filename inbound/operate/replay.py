"""Replays messages of the spools of a data folder: finds those that are chosen, compares their way then with their way now, and runs them."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from inbound.accept.spool import Entry, Query, replays
from inbound.decide.engine import StopScope
from inbound.decide.rules import RuleSet
from inbound.deliver.pressure import free_octets, reserve
from inbound.deliver.replay import Comparison, Rules, Summary, compare
from inbound.operate.recall import Gone, Recall
from inbound.service import certain
from inbound.settings import Settings

PAGE = 2_000  # entries of the history that are read at once
TWICE = 2  # content is written to the log of the database, then to the database
SPOOL = "spool"  # where the content is from, if it is not an S3 object


class Spools(Protocol):
    """The spools that are looked at."""

    async def find(self, query: Query) -> list[Entry]:
        """See `Spool.find`."""
        ...

    async def get(self, entry_id: str) -> Entry | None:
        """See `Spool.get`."""
        ...

    async def revision(self, digest: str) -> str | None:
        """See `Spool.revision`."""
        ...

    async def replay(self, entry_id: str, now: float, replay: replays.Replay) -> bool:
        """See `Spool.replay`."""
        ...


async def history(spool: Spools, since: float | None, until: float) -> AsyncIterator[Entry]:
    """What was received at `since` or later and before `until`, oldest first, without steps; a page at a time, for there may be millions."""
    after = -math.inf if since is None else math.nextafter(since, -math.inf)
    limit, told = PAGE, frozenset[str]()
    while page := await spool.find(Query(received_after=after, received_before=until, limit=limit)):
        new = [entry for entry in page if entry.id not in told]
        for entry in new:
            yield entry
        if len(page) < limit:
            return
        last = page[-1].envelope.received_at  # more of this very time may follow
        told = frozenset(entry.id for entry in page if entry.envelope.received_at == last)
        after, limit = math.nextafter(last, -math.inf), max(PAGE, 2 * len(told))


class Replay:
    """The comparisons of a command, one after the other, and what came of them in all. `ran` tells of each message that is to be performed
    again where its content is from: `spool`, or an S3 object.
    """

    def __init__(self, spool: Spools, rule_set: RuleSet, settings: Settings, data: Path, recall: Recall | None = None) -> None:
        self.ran: dict[str, str] = {}
        self.summary = Summary()
        self.unfinished = 0
        self.problems: list[tuple[str, str]] = []
        self._spool = spool
        self._recall = recall or Recall()
        self._data = data
        self._reserve = reserve(settings.max_message_size)
        self._certain = certain(settings)
        self._stop_scope = StopScope(settings.stop_scope)
        self.revision = rule_set.revision
        self._now = self._rules(rule_set)
        self._revisions: dict[str, Rules | None] = {}

    def _rules(self, rule_set: RuleSet) -> Rules:
        return Rules(rule_set, self._certain(rule_set) if self._certain else None)

    def knows(self, rule: str) -> bool:
        """Is a rule of this name in any of the rule sets that it came across?"""
        return any(rule == each.Name for known in (self._now, *self._revisions.values()) if known for each in known.rule_set.rules)

    async def finished(self, since: float | None, until: float, rule: str | None) -> AsyncIterator[Comparison]:
        """Compares what was received from `since` until `until` and is done or dead; with a `rule`, where that does something, then or now."""
        async for listed in history(self._spool, since, until):
            if listed.state not in replays.FINISHED:
                self.unfinished += 1
            elif (entry := await self._spool.get(listed.id)) is not None:
                found = await self._compared(entry)
                if found is not None and (rule is None or found.takes_part(rule)):
                    self.summary.add(found)
                    yield found

    async def one(self, entry: Entry) -> Comparison | None:
        """Compares one message; None where that cannot be, for what it adds to `problems`."""
        if entry.state not in replays.FINISHED:
            self.problems.append((entry.id, "still waits or is in hand: it goes its way by the rules it came under, and can be replayed after that"))
            return None
        found = await self._compared(entry)
        if found is not None:
            self.summary.add(found)
        return found

    async def _compared(self, entry: Entry) -> Comparison | None:
        revision = entry.envelope.revision
        if not revision:
            self.problems.append((entry.id, "its record in the spool is damaged"))
            return None
        if revision not in self._revisions:
            kept = RuleSet.kept(await self._spool.revision(revision))
            self._revisions[revision] = None if kept is None else self._rules(kept)
        then = self._revisions[revision]
        if then is None:
            self.problems.append((entry.id, f"the spool does not hold revision {revision} of the rules any more, by which it was judged"))
            return None
        return compare(entry, then, self._now, self._stop_scope)

    async def run(self, found: Comparison) -> None:
        """Have its actions performed by the rules as they are now; what keeps it from that is one of `problems`."""
        entry, content, place = found.entry, None, SPOOL
        if not found.now.steps:
            self.problems.append((entry.id, "no rule does anything with it now, so it is left as it is"))
            return
        if not entry.has_content:
            if free_octets(self._data) - TWICE * entry.size < self._reserve:
                self.problems.append((entry.id, f"{self._data} has no room for its content: what is free there is for mail that comes"))
                return
            try:
                content, place = await self._recall.content(entry)
            except Gone as why:
                self.problems.append((entry.id, str(why)))
                return
        rule_set = self._now.rule_set
        again = replays.Replay(rule_set.revision, rule_set.text, content)
        if await self._spool.replay(entry.id, time.time(), again):
            self.ran[entry.id] = place
        else:
            self.problems.append((entry.id, "has just been taken in hand, or its content removed; look again in a moment"))

    def to_json(self, rules: str, compared: list[Comparison]) -> dict[str, Any]:
        """As `replay_schema.Replay` tells it."""
        return {
            "rules": rules, "revision": self.revision, "stop_scope": str(self._stop_scope),
            "messages": [{**found.to_json(), "run": self.ran.get(found.entry.id)} for found in compared],
            "judged": self.summary.judged, "different": self.summary.different, "unfinished": self.unfinished,
            "groups": [group.to_json() for group in self.summary.groups],
            "problems": [{"id": message_id, "problem": problem} for message_id, problem in self.problems],
        }
