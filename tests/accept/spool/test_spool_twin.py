"""The twins answer alike: whatever is asked of both spools, in any order, with stops and crashes between."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from letters import Clock, drafted, envelope, octets, read, step

from inbound.accept.spool import Judged, Query, Spool, SpoolError, State, Update
from inbound.accept.spool.memory import MemorySpool
from inbound.accept.spool.replays import Replay
from inbound.accept.spool.sqlite import SqliteSpool

THRESHOLD = 2000
START = 1_700_000_000.0

times = st.integers(-3, 30).map(lambda offset: START + offset)
sinks = st.sampled_from(["", "bucket", "topic"])
errors = st.sampled_from(["", "Refused", "STRASSE 100%", "straße"])
steps = st.lists(st.builds(step, st.sampled_from("abc"), st.integers(0, 3)), max_size=2)
plain = st.builds(
    Update,
    steps=steps,
    attempts=st.none() | st.integers(0, 9),
    error=st.none() | errors,
    sink=st.none() | sinks,
    assessment=st.none() | st.text(max_size=5),
    clear_steps=st.booleans(),
)
judgements = st.builds(
    lambda run, revision, kind, refused: Judged(run, revision, kind, f"told {kind}" if kind else "", tuple(refused)),
    st.sampled_from(["a", "b"]), st.sampled_from(["r0", "r1"]), st.sampled_from(["", "k", "l"]), st.lists(st.text(max_size=3), max_size=2),
)
updates = st.one_of(
    plain,
    st.builds(lambda update, at, judged: replace(update, state=State.DEAD, finished=at, judged=judged), plain, times, judgements),
    st.builds(lambda update, at, judged: replace(update, state=State.DONE, finished=at, judged=judged), plain, times, judgements),
    st.builds(lambda update, due: replace(update, state=State.DEFERRED, due=due), plain, times),
    st.builds(lambda update, at: replace(update, state=State.DEAD, finished=at), plain, times),
    st.builds(lambda update, at, drop: replace(update, state=State.DONE, finished=at, drop_content=drop), plain, times, st.booleans()),
    st.builds(lambda update, due: replace(update, due=due), plain, times),
)
queries = st.builds(
    Query,
    states=st.lists(st.sampled_from(list(State)), max_size=3),
    error=st.sampled_from(["", "refused", "strasse", "%"]),
    sink=sinks,
    received_before=st.none() | times,
    received_after=st.none() | times,
    limit=st.integers(0, 5) | st.just(1000),
)


class Twins(RuleBasedStateMachine):
    """One spool on disk, one in memory, and a clock that both read."""

    ids: Bundle[str] = Bundle("ids")

    @initialize()
    def open(self) -> None:
        self.clock = Clock(START)
        self.root = Path(tempfile.mkdtemp(prefix="twins", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.runner = asyncio.Runner()
        self.folder = self.root / "0"
        self.memory = MemorySpool(clock=self.clock, blob_threshold=THRESHOLD)
        self.disk = SqliteSpool(self.folder, clock=self.clock, blob_threshold=THRESHOLD)
        self.known: list[str] = []
        self.both(lambda spool: spool.start())

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.both(lambda spool: spool.stop())
            self.runner.close()
            shutil.rmtree(self.root)

    def both(self, ask: Callable[[Spool], Awaitable[Any]]) -> Any:
        """The one answer of the two, be it an error."""
        answers = [self.runner.run(self.answer(spool, ask)) for spool in (self.disk, self.memory)]
        assert answers[0] == answers[1]
        return answers[0]

    async def answer(self, spool: Spool, ask: Callable[[Spool], Awaitable[Any]]) -> Any:
        try:
            return await ask(spool)
        except (KeyError, SpoolError) as error:
            return type(error)

    @rule(
        target=ids,
        size=st.sampled_from([0, 10, THRESHOLD, THRESHOLD + 1, 9000]),
        received=times,
        held=st.booleans(),
        name=st.integers(0, 9),
    )
    def put(self, size: int, received: float, held: bool, name: int) -> Any:
        message = envelope(f"message-{name}", received=received, revision=f"r{name % 3}")

        async def ask(spool: Spool) -> Any:
            draft = await drafted(spool, message.message_id, octets(size))
            try:
                return await spool.put(message, draft, held=held)
            finally:
                await draft.discard()

        if message.message_id in self.known:
            return multiple()  # what a second put of one id does is told by the contract's own test
        self.both(ask)
        self.known.append(message.message_id)
        return message.message_id

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(limit=st.integers(0, 4))
    def claim(self, limit: int) -> None:
        self.both(lambda spool: spool.claim(self.clock.now, limit))

    @rule(id_=ids, update=updates)
    def update(self, id_: str, update: Update) -> None:
        self.both(lambda spool: spool.update(id_, update))

    @rule(id_=ids, received=times)
    def judge_anew(self, id_: str, received: float) -> None:
        self.both(lambda spool: spool.update(id_, Update(envelope=envelope(id_, received=received, revision="r9"))))

    @rule(some=st.lists(ids, max_size=3), revision=st.sampled_from([None, None, ("r1", "text")]))
    def retry(self, some: list[str], revision: tuple[str, str] | None) -> None:
        self.both(lambda spool: spool.retry(some, self.clock.now, revision=revision))

    @rule(some=st.lists(ids, max_size=3))
    def drop(self, some: list[str]) -> None:
        for id_ in self.both(lambda spool: spool.drop(some)):
            self.known.remove(id_)

    @rule(sink=sinks, limit=st.integers(0, 3))
    def release(self, sink: str, limit: int) -> None:
        self.both(lambda spool: spool.release(sink, self.clock.now, limit))

    @rule(finished=times, content=times, keep=st.sets(st.sampled_from(["r0", "r1", "r2"])))
    def sweep(self, finished: float, content: float, keep: set[str]) -> None:
        self.both(lambda spool: spool.sweep(finished_before=finished, content_before=content, keep_revisions=keep))
        self.known = [id_ for id_ in self.known if self.both(lambda spool, id_=id_: spool.get(id_)) is not None]  # type: ignore[misc]

    @rule(id_=ids, size=st.none() | st.sampled_from([10, THRESHOLD + 1, 9000]))
    def replay(self, id_: str, size: int | None) -> None:
        again = Replay("r2", "text", None if size is None else octets(size))
        self.both(lambda spool: spool.replay(id_, self.clock.now, again))

    @rule(octets=st.sampled_from([0, 1, 10, 11, 5000, 100_000]))
    def shed(self, octets: int) -> None:
        self.both(lambda spool: spool.shed(octets))

    @rule(number=st.integers(0, 2))
    def keep_revision(self, number: int) -> None:
        self.both(lambda spool: spool.keep_revision(f"r{number}", "text"))

    @rule(run=st.sampled_from(["a", "b"]), revision=st.sampled_from(["r0", "r1"]))
    def open_tally(self, run: str, revision: str) -> None:
        self.both(lambda spool: spool.open_tally(run, revision, self.clock.now))

    @rule(query=queries)
    def find(self, query: Query) -> None:
        self.both(lambda spool: spool.find(query))

    @rule(id_=ids)
    def read(self, id_: str) -> None:
        self.both(lambda spool: read(spool, id_))

    @rule()
    def restart(self) -> None:
        self.both(lambda spool: spool.stop())
        self.both(lambda spool: spool.start())

    @rule()
    def crash(self) -> None:
        image = self.root / str(int(self.folder.name) + 1)
        shutil.copytree(self.folder, image, ignore=shutil.ignore_patterns("*-shm", "lock"))
        self.runner.run(self.disk.stop())
        self.folder = image
        self.disk = SqliteSpool(image, clock=self.clock, blob_threshold=THRESHOLD)
        self.runner.run(self.disk.start())
        self.memory = self.memory.crash()

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.both(lambda spool: spool.counts())
        self.both(lambda spool: spool.next_due())
        self.both(lambda spool: spool.waiting())
        for id_ in self.known:
            self.both(lambda spool, id_=id_: spool.get(id_))  # type: ignore[misc]
        for run in ("a", "b"):
            self.both(lambda spool, run=run: spool.tallies(run))  # type: ignore[misc]
            self.both(lambda spool, run=run: spool.counted(run, "r1", "k", 3))  # type: ignore[misc]
        for digest in ("r0", "r1", "r2"):
            self.both(lambda spool, digest=digest: spool.revision(digest))  # type: ignore[misc]


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
