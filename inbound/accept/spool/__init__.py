"""The spool: what was accepted, what is due, what was done.

`Spool` is the contract; `sqlite` keeps it on disk, `memory` is its twin for tests with fault knobs, and one test-suite holds both
to it. Nothing here says SQLite, so that an engine shared by several machines can take its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from inbound.accept.envelope import Envelope

if TYPE_CHECKING:
    from inbound.accept.spool.replays import Replay

KINDS = 1000  # tallies of one candidate's revision: senders choose whom their messages are for, and so how many kinds of difference there are
OTHERS = "others"  # the kind of all that come after these


class SpoolError(Exception):
    """The spool could not do it; nothing was written. Our own trouble, so temporary to the sender."""


class SpoolFull(SpoolError):
    """No space is left for it (ENOSPC, EDQUOT, SQLITE_FULL)."""


class SpoolShort(SpoolError, MemoryError):
    """Memory is missing for it: to whoever looks for signs of that, no other than a MemoryError of their own."""


class SpoolDamaged(SpoolError):
    """The content of one entry is not what was stored: gone, or of another length. No repetition cures it, but people may."""


class SpoolLocked(SpoolError):
    """Another live process holds this spool. The message names its pid where known."""


class SpoolVersion(SpoolError):
    """The spool was written by a newer version of inbound; it is left untouched."""


class State(StrEnum):
    """Where an entry stands."""

    ACTIVE = "active"  # leased to a live process, being worked
    DEFERRED = "deferred"  # waiting until `due`
    DEAD = "dead"  # given up, kept for people: a dead letter
    DONE = "done"  # every step done; the trace is kept for the retention time


class Outcome(StrEnum):
    """How one attempt at one step went."""

    DONE = "done"
    FAILED = "failed"  # time may cure it
    FINAL = "final"  # no repetition of this message could cure it


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One attempt at one step. The step's flow is the flow of its attempt with outcome DONE.

    `part` is `action`, or `topic` for the notification that the action's TopicArn asks for. `digest` identifies the action's
    parameters and recipients, so that a resumed message cannot be driven by another rule's records. `started` is seconds since the epoch.
    `detail` is small JSON for people: an object key, an SNS message id, the answer of a function.
    """

    rule: str
    index: int
    part: str
    digest: str
    attempt: int
    started: float
    milliseconds: int
    outcome: Outcome
    flow: str = ""
    sink: str = ""
    error: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted message: its envelope, its place in the queue, and its trace so far.

    `due` and `finished` are seconds since the epoch (`finished` 0.0 while unfinished). `since` is when its retry time began: at
    receipt, or when someone asked to retry a dead letter. `attempts` counts the failed rounds of work since then.
    `sink` names what it waits for, `error` the last failure. `assessment` is the JSON text the assess stage recorded, or empty.
    """

    id: str
    envelope: Envelope
    size: int
    state: State
    due: float
    since: float = 0.0
    attempts: int = 0
    error: str = ""
    sink: str = ""
    assessment: str = ""
    disposition: str = ""
    finished: float = 0.0
    has_content: bool = True
    steps: tuple[StepRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """What a candidate rule set makes of one message, beside the rules that it goes by: in which `run` of the shadow, under which `revision`.

    `kind` names the difference, empty where there is none; `told` is JSON text that says it, the same for all messages of a kind. `refused`
    are the recipients that the candidate would not have accepted.
    """

    run: str
    revision: str
    kind: str = ""
    told: str = ""
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """How many messages a candidate's revision was tried on with one `kind` of difference, or with none, and when it was first and last.

    The tally of those without a difference is there from the beginning, with times of its own: when the revision was taken, and taken again.
    """

    revision: str
    kind: str
    told: str
    messages: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Update:
    """A change to one entry, applied whole. None leaves a field as it is; `steps` are appended.

    `state` DEFERRED needs `due`; DONE and DEAD need `finished`; DONE with `drop_content` removes the content.
    Any state but ACTIVE gives the lease back. `judged` goes with DONE and DEAD, and counts each message once a run and revision: what was
    counted of it before, as a dead letter, is counted no more.
    """

    steps: Sequence[StepRecord] = ()
    state: State | None = None
    due: float | None = None
    attempts: int | None = None
    error: str | None = None
    sink: str | None = None
    assessment: str | None = None
    disposition: str | None = None
    finished: float | None = None
    envelope: Envelope | None = None
    drop_content: bool = False
    clear_steps: bool = False
    judged: Judged | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How full the spool is. `oldest` is the earliest `since` of what waits, in seconds since the epoch, None when nothing does.

    Of what is DEFERRED or ACTIVE, it leaves out what waits for nothing but its own next attempt: one message that fails for reasons of its
    own is no outage. `octets` is about what the messages, kept ones and dead letters included, take where they are stored. `spare` is about
    what more can be stored, of small messages, before it takes more of the disk than it does.
    """

    oldest: float | None
    octets: int
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """The DEFERRED entries that wait for one sink: how many, and when the oldest was received, in seconds since the epoch."""

    messages: int
    oldest: float


class Content(Protocol):
    """The stored octets of one message, exactly as they came after dot-unstuffing."""

    @property
    def size(self) -> int:
        """How many octets."""
        ...

    def head(self, limit: int) -> bytes:
        """The first `limit` octets, or all of them."""
        ...

    def open(self) -> BinaryIO:
        """A new seekable binary reader over all octets; the caller closes it."""
        ...


class Draft(Protocol):
    """Content that is still arriving: in memory while small, then a blob file. Every draft ends in one `put`, or in `discard`."""

    @property
    def size(self) -> int:
        """How many octets were added so far."""
        ...

    def add(self, piece: bytes) -> bool:
        """Take the next octets; True when `flush` should be awaited before more is added. Never blocks."""
        ...

    async def flush(self) -> None:
        """Write what is held in memory to the blob file; a small draft stays in memory. Raises SpoolError, and then all of it is lost."""
        ...

    def head(self, limit: int) -> bytes:
        """The first `limit` octets added so far (at least 128 KiB of them are always at hand)."""
        ...

    async def content(self) -> Content:
        """All octets, for who must see them before `put`; none may be added after this. Raises SpoolError."""
        ...

    def forget(self) -> None:
        """Let go of what is held in memory, at once; harmless after `put`. The draft can only be discarded after this."""
        ...

    async def discard(self) -> None:
        """Forget it and remove the blob file, if there is one. Never raises; harmless after a successful `put`."""
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries to list: all of the given restrictions hold. `error` is a case-insensitive substring; times are epoch seconds, and
    exclude what was received at that very time.
    """

    states: Collection[State] = ()
    error: str = ""
    sink: str = ""
    received_before: float | None = None
    received_after: float | None = None
    limit: int = 1000


class Spool(Protocol):
    """What was accepted, what is due, what was done. One live process at a time owns it; others may look and ask (`sqlite` visitor)."""

    async def start(self) -> None:
        """Open, lock, migrate, give back the leases of a dead owner, remove half-written blobs; nothing if it is open.

        Raises SpoolLocked, SpoolVersion, SpoolError.
        """
        ...

    async def stop(self) -> None:
        """Commit what waits, give back every lease (due at once), close and unlock. Everything asked afterwards raises SpoolError."""
        ...

    def draft(self, message_id: str) -> Draft:
        """A new empty draft for the content of `message_id`. Raises ValueError for an id that is no plain file name."""
        ...

    async def put(self, envelope: Envelope, draft: Draft, *, held: bool = True, assessment: str = "") -> Entry:
        """Make the message durable; when this returns, it survives a power cut. Raises SpoolError, SpoolFull: then nothing is kept.

        When the caller is cancelled, the message is either whole, and due at once, or absent.
        `assessment` is what was judged before. `held` leases it to this process at once (ACTIVE), to be worked from memory; else it is
        DEFERRED and due at once.
        """
        ...

    async def claim(self, now: float, limit: int) -> list[Entry]:
        """Lease up to `limit` due entries, oldest received first, with their steps. Leased entries are not given out again."""
        ...

    async def update(self, entry_id: str, update: Update, *, lazy: bool = False) -> None:
        """Apply `update`; when this returns it is durable. `lazy` lets it wait up to 50 ms to share another commit.

        Raises KeyError for an entry that is gone, ValueError for an update that lacks what its state needs, SpoolError otherwise.
        """
        ...

    async def content(self, entry_id: str) -> Content:
        """The content of an entry. Raises KeyError where it is not kept any more, SpoolDamaged where it is not whole, SpoolError where
        it cannot be read.
        """
        ...

    async def get(self, entry_id: str) -> Entry | None:
        """One entry with its steps."""
        ...

    async def find(self, query: Query) -> list[Entry]:
        """The entries that match, oldest received first, without their steps."""
        ...

    async def counts(self) -> dict[State, int]:
        """How many entries are in each state (all states present)."""
        ...

    async def next_due(self) -> float | None:
        """When the next DEFERRED entry is due, or None."""
        ...

    async def waiting(self) -> dict[str, int]:
        """How many DEFERRED entries wait for each sink; entries that wait for none are not counted."""
        ...

    async def backlog(self) -> dict[str, Backlog]:
        """What waits for each sink, as `waiting` counts it."""
        ...

    async def load(self) -> Load:
        """How full the spool is. Cheap enough to be asked every second."""
        ...

    async def probe(self) -> None:
        """Write something and forget it, to see whether messages could be kept. Raises SpoolError, SpoolFull."""
        ...

    async def release(self, sink: str, now: float, limit: int) -> int:
        """Make up to `limit` entries that wait for `sink` due at `now`; how many.

        Those tried least come first, and of these the oldest: what fails for reasons of its own is in nobody's way.
        """
        ...

    async def retry(self, entry_ids: Collection[str], now: float, *, revision: tuple[str, str] | None = None) -> list[str]:
        """Make DEAD and DEFERRED entries due at `now`, a dead letter with `since` now and no attempts; the ids it did this to.

        With `revision`, a digest and its text, which is stored, they are judged anew by it, and what was recorded of their steps is forgotten,
        as far as it was not before a replay.
        """
        ...

    async def replay(self, entry_id: str, now: float, replay: Replay) -> bool:
        """Judge a DONE or DEAD entry again: due at `now` with `since` now, its retry time afresh, and a mark after what is recorded of it.

        The text of the revision is stored with it. False, and nothing is changed, for an entry that is gone or in another state, and for one
        whose content is neither kept nor given as long as it was.
        """
        ...

    async def drop(self, entry_ids: Collection[str]) -> list[str]:
        """Remove entries with content and trace, unless they are ACTIVE in a live process; the ids removed."""
        ...

    async def clock_set(self, now: float, *, forward: float, longest: float) -> None:
        """The wall clock shows `now` since it was set; `forward` is by how many seconds, 0 where it was set back or nobody knows.

        What waits or is in hand loses no retry time by it: `since` of all that entered before moves with a clock set forward. And nothing
        waits for hours because it was set back: what is due later than `longest` seconds from now is due now.
        """
        ...

    async def keep_revision(self, digest: str, text: str) -> None:
        """Store the text of a rule set revision, before an entry names it."""
        ...

    async def revision(self, digest: str) -> str | None:
        """The text that `keep_revision` stored."""
        ...

    async def open_tally(self, run: str, revision: str, now: float) -> None:
        """From now on messages are counted in this run, under this revision; what was counted in other runs is forgotten."""
        ...

    async def tallies(self, run: str) -> list[Tally]:
        """What was counted in a run."""
        ...

    async def counted(self, run: str, revision: str, kind: str, limit: int) -> list[tuple[Entry, tuple[str, ...]]]:
        """Up to `limit` of the entries still there that were counted with this kind of difference, those that entered last first, without their
        steps; each with the recipients that the candidate would not have accepted.
        """
        ...

    async def sweep(self, *, finished_before: float, content_before: float, keep_revisions: Collection[str]) -> int:
        """Remove DONE entries finished before `finished_before`, content of those finished before `content_before`, and revisions
        that no entry names and `keep_revisions` does not hold; how many entries went. DEFERRED, ACTIVE and DEAD never expire.
        """
        ...

    async def shed(self, octets: int) -> int:
        """Make room: remove the content of DONE entries, of those finished first, until at least `octets` of it are gone or none is left;
        how many octets went. Their traces stay.
        """
        ...
