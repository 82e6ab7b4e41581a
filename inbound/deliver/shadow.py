"""The shadow: every message that is done or dead is also judged by a candidate rule set, which acts on nothing.

It follows the state file and the candidate's own file, so that `inbound shadow` needs no way to talk to a running service.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from inbound.accept import policy
from inbound.accept.spool import Entry, Judged, Spool, SpoolError, StepRecord
from inbound.accept.spool.replays import PART
from inbound.changes import follow
from inbound.decide.change import change
from inbound.decide.engine import Mail, StopScope
from inbound.decide.load import Loaded, RulesError, parse
from inbound.decide.routes import route
from inbound.decide.rules import RuleSet
from inbound.decide.session_bounce import Certain
from inbound.decide.watch import RuleBook
from inbound.deliver.replay import recorded
from inbound.deliver.shadow_state import ShadowState, ShadowStateError, read_state, write_trouble
from inbound.log import Event, Log
from inbound.mishap import keep_going

CertainOf = Callable[[RuleSet], Certain]


class Shadow:
    """The candidate of one process, if there is one. `certain` is None where no bounce is said in the session.

    Of several processes that follow the same files, one `tells` the log of it.
    """

    def __init__(self, spool: Spool, state: Path, log: Log, *, stop_scope: StopScope, clock: Callable[[], float], certain: CertainOf | None = None,
                 tells: bool = True) -> None:
        self._spool = spool
        self._path = state
        self._log = log
        self._stop_scope = stop_scope
        self._clock = clock
        self._certain_of = certain
        self._tells = tells
        self._state: ShadowState | None = None
        self._trouble = ""  # with the state file, when it was last told
        self._looking = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._is_left = False  # did a watch end? The next one has to follow the candidate again
        self._certain: dict[str, Certain] = {}  # by revision: those of the candidate, and of the rules in force
        self.candidate: RuleSet | None = None

    # --- following ---

    async def watch(self) -> None:
        """Follow both files until cancelled; what is in hand then is still judged."""
        try:
            await follow(self.look, self._path)
        finally:
            self._is_left = True
            await self._leave()

    async def look(self) -> None:
        """Look at the state file once, and do as it says. Never raises: mail does not depend on it."""
        async with self._looking:
            try:
                state = await asyncio.to_thread(read_state, self._path)
            except ShadowStateError as error:
                self._complain(str(error))
                return
            self._trouble = ""
            if state != self._state or self._is_left:
                before, self._state, self._is_left = self._state, state, False
                await self._leave()
                self.candidate = None
                if state is not None and state.stopped is None:
                    await self._begin(state)
                elif before is not None and before.stopped is None and self._tells:
                    self._log.info(Event.SHADOW_STOPPED, file=before.file)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble and self._tells:
            self._log.warning(Event.SERVICE_WARNING, warning=trouble)
        self._trouble = trouble

    async def _leave(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _begin(self, state: ShadowState) -> None:
        async def adopt(loaded: Loaded) -> None:
            await self._take(state, loaded.rule_set)
            if self._tells:
                await self._leave_word(state, "")
                self._log.info(Event.SHADOW_LOADED, file=state.file, rules=len(loaded.rule_set.rules), revision=loaded.rule_set.revision)

        async def rejected(error: RulesError) -> None:
            if self._tells:
                await self._leave_word(state, str(error))
            if self.candidate is None:
                await self._fall_back(state)
            if self._tells:
                kept = self.candidate.revision if self.candidate else ""
                self._log.warning(Event.SHADOW_REJECTED, file=state.file, errors=str(error).splitlines(), kept=kept)

        book = RuleBook(Path(state.file), on_load=adopt, on_error=rejected)
        try:
            await book.refresh()
        except Exception as error:
            self._log.exception(Event.SERVICE_WARNING, warning=f"{state.file} is not tried: {error!r}")
            await self._leave_word(state, f"{state.file} is not tried: {error!r}")
            return
        self._following = asyncio.create_task(keep_going(book.watch, self._log))

    async def _leave_word(self, state: ShadowState, trouble: str) -> None:
        """For `inbound shadow`, which may see a file that the service does not see."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(write_trouble, self._path, state.run, trouble)

    async def _fall_back(self, state: ShadowState) -> None:
        """At a start where the file holds nothing good: the last revision that was tried, or the one that the run began with."""
        with contextlib.suppress(SpoolError):
            tallies = await self._spool.tallies(state.run)
            latest = max((tally for tally in tallies if not tally.kind), key=lambda tally: tally.last, default=None)
            found = RuleSet.kept(await self._spool.revision(latest.revision)) if latest else None
            if found is not None:
                await self._take(state, await asyncio.to_thread(found.ready))
                return
        with contextlib.suppress(RulesError):
            await self._take(state, (await asyncio.to_thread(parse, state.text, state.file)).rule_set)

    async def _take(self, state: ShadowState, rule_set: RuleSet) -> None:
        """Judge by this revision from now on."""
        try:
            await self._spool.keep_revision(rule_set.revision, rule_set.text)
            await self._spool.open_tally(state.run, rule_set.revision, self._clock())
        except SpoolError as error:  # the first message that is judged opens the tally as well
            self._log.error(Event.SPOOL_FAILED, error=str(error))
        self.candidate = rule_set

    # --- judging ---

    def judge(self, entry: Entry, rule_set: RuleSet, records: Iterable[StepRecord]) -> Judged | None:
        """What the candidate makes of a message that `rule_set` has judged, and of whose steps there are these records. None without a candidate,
        and for a replay: that was not received.

        Never raises: the message has its own way to go.
        """
        candidate, state = self.candidate, self._state
        if candidate is None or state is None or any(record.part == PART for record in entry.steps):
            return None
        try:
            envelope = entry.envelope
            mail = Mail(envelope.forward_paths, envelope.tls is not None, self._stop_scope)
            client = policy.client_address(envelope.peer.address) if envelope.peer.address else ""
            flows = recorded(records)
            then = route(rule_set, mail, client, flows, self._certain_under(rule_set))
            found = change(then, route(candidate, mail, client, flows, self._certain_under(candidate)))
        except Exception as error:
            self._log.exception(Event.WORKER_FAILED, id=entry.id, error=f"shadow: {error!r}")
            return None
        if found is None:
            return Judged(state.run, candidate.revision)
        return Judged(state.run, candidate.revision, found.kind, found.told, found.refused)

    def _certain_under(self, rule_set: RuleSet) -> Certain | None:
        if self._certain_of is None:
            return None
        if rule_set.revision not in self._certain:
            self._certain = dict(list(self._certain.items())[-3:])
            self._certain[rule_set.revision] = self._certain_of(rule_set)
        return self._certain[rule_set.revision]
