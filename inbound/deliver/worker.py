"""The worker: takes an entry, walks the engine, performs each step, records how it went, and defers or gives up visibly.

A step's outcome is committed before the next step with a side effect runs, so a crash repeats one step at most. The recorded flows
of an entry drive the engine again when it is resumed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Generator
from dataclasses import dataclass, replace
from typing import Protocol

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content, Entry, Outcome, Spool, SpoolDamaged, SpoolError, State, StepRecord, Update
from inbound.accept.spool.replays import runs
from inbound.assess.scanning import ScannerBusy, ScannerDown, Unscanned
from inbound.assess.turns import turns
from inbound.assess.verdicts import Assessment
from inbound.decide.engine import Disposition, Flow, Mail, Step, StopScope, evaluate, scan_wanted
from inbound.decide.rules import RuleSet
from inbound.deliver import actions
from inbound.deliver.actions import Performed
from inbound.deliver.alerts import Kind, Tell, untold
from inbound.deliver.aws import Aws
from inbound.deliver.bounces import Bounces
from inbound.deliver.notification import SNS_MESSAGE_LIMIT, SNS_SUBJECT
from inbound.deliver.ports import Ports
from inbound.deliver.retry import Schedule
from inbound.deliver.shadow import Shadow
from inbound.deliver.sinks import MessageRefused, SinkBusy, SinkClosed, SinkDown, SinkFailure, Sinks, set_within
from inbound.deliver.timekeeper import Timekeeper
from inbound.deliver.trace import ACTION, TOPIC, notifies
from inbound.deliver.work import Identity, Work
from inbound.log import Event, Log
from inbound.metrics import BOUNCES, DEAD, DEFERRED, DONE, DONE_SECONDS, STEP_SECONDS, STEPS, VERDICTS, Metrics
from inbound.mishap import Note, keep_going, unnoted


class Assess(Protocol):
    """Forms the verdicts."""

    async def __call__(self, envelope: Envelope, content: Content, *, scan: bool, earlier: Assessment | None = None) -> Assessment:
        """`scan`: spam and viruses shall be looked for. `earlier` is what was formed before a scanner was out of reach.

        Raises Unscanned for a message that waits for a scanner, and nothing else, whatever the message holds.
        """
        ...


_COUNTED = {Outcome.DONE: "success", Outcome.FAILED: "failure", Outcome.FINAL: "refused"}
IN_HAND = 512  # messages worked at once
FROM_SPOOL = 128  # of these, places kept for messages read back from the spool: new ones never bar their way
LOOK = 1.0  # seconds between looks for entries that are due, or that someone asked to retry


@dataclass(frozen=True, slots=True)
class Terms:
    """How the worker treats messages: who we are, when to retry, what to keep."""

    identity: Identity
    schedule: Schedule
    stop_scope: StopScope = StopScope.RECIPIENTS
    keep_content: bool = False


class StepStopped(Exception):
    """The walk ends here for now: the message is deferred or dead as `update` says."""

    def __init__(self, update: Update) -> None:
        super().__init__(update.error)
        self.update = update


class Unjudgeable(Exception):
    """The rules by which the message is to be judged are not at hand, or are not those that its steps were recorded under."""


class Worker:
    """Works entries: those just accepted, from memory, and those that come due."""

    def __init__(self, spool: Spool, aws: Aws, terms: Terms, log: Log, *, assess: Assess | None = None, clock: Timekeeper | None = None,
                 monotonic: Callable[[], float] = time.monotonic, bounces: Bounces | None = None, metrics: Metrics | None = None,
                 tell: Tell = untold, shadow: Shadow | None = None, note: Note = unnoted) -> None:
        self._spool = spool
        self._shadow = shadow
        self._ports = Ports(aws, bounces)
        self._terms = terms
        self._assess = assess
        self._log = log
        self._timekeeper = clock or Timekeeper(time.time, time.monotonic)
        self._clock = self._timekeeper.now
        self._followed = (-1, 0.0)  # the timekeeper's `times` and `forward` that the spool knows of
        self._known_forward: dict[str, float] = {}  # `forward` when the `since` of what is in hand was read
        self._metrics = metrics or Metrics()
        self._tell_operator = tell
        self._note = note
        self.sinks = Sinks(self._release, log, clock=monotonic)
        self._rule_sets: dict[str, RuleSet] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        self._feeder: asyncio.Task[None] | None = None
        self._stopping = False

    # --- taking ---

    def know(self, rule_set: RuleSet) -> None:
        """A revision that messages may name from now on, so that it need not be read from the spool."""
        self._rule_sets[rule_set.revision] = rule_set
        while len(self._rule_sets) > 16:
            del self._rule_sets[next(iter(self._rule_sets))]

    @property
    def has_room(self) -> bool:
        """May a message just accepted be worked from memory?"""
        return len(self._tasks) < IN_HAND - FROM_SPOOL and not self._stopping

    def take(self, entry: Entry, forward: float | None = None) -> None:
        """Work an entry that is leased to this process; `forward` is the timekeeper's when it was read, if that was not just now."""
        self._clock()
        self._known_forward[entry.id] = self._timekeeper.forward if forward is None else forward
        task = asyncio.get_running_loop().create_task(self._work(entry))
        self._tasks[entry.id] = task
        task.add_done_callback(lambda _: self._ended(entry.id, task))

    def _ended(self, entry_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(entry_id) is not task:
            return  # it was claimed again before this was told
        del self._tasks[entry_id], self._known_forward[entry_id]
        if len(self._tasks) <= IN_HAND - FROM_SPOOL:
            self._freed.set()

    async def start(self) -> None:
        """Begin with what waits: due entries at once, and one message to each sink that was down."""
        actions.known()  # while files can be read: no message shall find that they cannot
        for name in await self._spool.waiting():
            self.sinks.expect(name)
        self._feeder = asyncio.create_task(keep_going(self._feed, self._log, self._note))

    async def stop(self, seconds: float) -> None:
        """Take nothing more; let what is in hand finish within `seconds`. The rest is worked after the next start."""
        self._stopping = True
        if self._feeder:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
        await self.sinks.stop()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def settled(self, entry_id: str, seconds: float) -> None:
        """Return when the message is not in hand any more, or after `seconds`."""
        task = self._tasks.get(entry_id)
        if task is not None:
            await asyncio.wait((task,), timeout=seconds)

    async def idle(self) -> None:
        """Return when nothing is in hand. For tests."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _feed(self) -> None:
        """Claim due entries, oldest first, while there is room."""
        while True:
            await self._free_places()
            self._wake.clear()
            wait = LOOK
            try:
                await self._follow_the_clock()
                wait = await self._claim(max(0, IN_HAND - len(self._tasks)))
            except SpoolError as error:
                self._note(error)
                self._log.error(Event.SPOOL_FAILED, error=str(error))
            if wait:
                await set_within(self._wake, wait)

    async def _follow_the_clock(self) -> None:
        """Tell the spool that the clock was set; and once at the start, since it may have been set while nothing ran."""
        now = self._clock()
        times, forward = self._timekeeper.times, self._timekeeper.forward
        known, known_forward = self._followed
        if times == known:
            return
        if known >= 0:
            self._log.warning(Event.SERVICE_WARNING, warning="the clock was set; retry times of what waits follow it")
        await self._spool.clock_set(now, forward=forward - known_forward, longest=self._terms.schedule.maximum)
        self._followed = times, forward

    def _since(self, entry: Entry) -> float:
        """When its retry time began, by the clock as it is set now."""
        return entry.since + self._timekeeper.forward - self._known_forward[entry.id]

    async def _free_places(self) -> None:
        """Rather many entries at once, a little later; but where messages hang, those places that there are."""
        if len(self._tasks) > IN_HAND - FROM_SPOOL:
            self._freed.clear()
            await set_within(self._freed, LOOK)

    async def _claim(self, room: int) -> float:
        """Work as many of the due entries as there is room for. For how many seconds there is nothing to do then, as far as is known."""
        forward = self._followed[1]
        entries = await self._spool.claim(self._clock(), room)
        for entry in entries:
            self.take(entry, forward)
        if len(entries) == room:
            return 0.0
        due = await self._spool.next_due()
        return LOOK if due is None else min(LOOK, max(0.0, due - self._clock()) + 0.001)

    async def _release(self, sink: str, limit: int) -> int:
        while True:
            try:
                released = await self._spool.release(sink, self._clock(), limit)
            except Exception as error:  # of whatever kind: nobody else would let go what waits
                self._note(error)
                self._log.error(Event.SPOOL_FAILED, error=str(error) or repr(error))
                await asyncio.sleep(LOOK)
            else:
                self._wake.set()
                return released

    # --- working ---

    async def _work(self, entry: Entry) -> None:
        record = Record(entry)
        try:
            update = await self._walk(entry, record)
        except StepStopped as stopped:
            update = stopped.update
        except SpoolDamaged as damaged:
            update = Update(steps=record.take(), state=State.DEAD, finished=self._clock(), error=str(damaged), sink="")
        except SpoolError as error:
            self._note(error)
            self._log.error(Event.SPOOL_FAILED, id=entry.id, error=str(error))
            update = self._later(entry, f"spool: {error}", record=record)
        except asyncio.CancelledError:
            raise
        except Unjudgeable as error:
            cure = f"to judge it by the rules as they are: inbound queue retry {entry.id} --current-rules"
            update = self._later(entry, f"{error}; {cure}", record=record)
        except Exception as error:
            self._note(error)
            self._log.exception(Event.WORKER_FAILED, id=entry.id, error=repr(error))
            update = self._later(entry, f"internal error: {error!r}", record=record)
        if self._shadow is not None and self._shadow.candidate is not None:
            update = self._shadowed(self._shadow, entry, update, record)
        await self._commit(entry, update, record, lazy=update.state is State.DONE)
        if update.sink:
            self.sinks.waits(update.sink, failed=update.attempts is not None)
        self._tell(entry, update, record)

    def _shadowed(self, shadow: Shadow, entry: Entry, update: Update, record: Record) -> Update:
        """The update that ends a message, with what the candidate rules make of it."""
        rule_set = self._rule_sets.get(entry.envelope.revision)
        if rule_set is None or update.state not in (State.DONE, State.DEAD):
            return update
        return replace(update, judged=shadow.judge(entry, rule_set, record.steps()))

    async def _walk(self, entry: Entry, record: Record) -> Update:
        """Drive the engine to its end. Raises StepStopped when the message has to wait or is dead."""
        rule_set = await self._rule_set(entry.envelope.revision)
        work = self._begin(entry)
        mail = self._mail(entry.envelope)
        scan = scan_wanted(rule_set, mail)
        if not entry.assessment or work.assessment.unscanned or (scan and work.assessment.lacking):
            await self._judge(work, entry, record, scan=scan)
        engine = evaluate(rule_set, mail)
        disposition = await self._steps(engine, entry, work, record)
        return Update(
            steps=record.pending, state=State.DONE, finished=self._clock(), disposition=disposition, error="", sink="",
            assessment=record.take_assessment(), drop_content=not self._terms.keep_content,
        )

    def _mail(self, envelope: Envelope) -> Mail:
        return Mail(envelope.forward_paths, envelope.tls is not None, self._terms.stop_scope)

    async def assess(self, envelope: Envelope, content: Content, *, scan: bool) -> Assessment:
        """The verdicts on a message that is not accepted yet; `scan` it in any case, or only if a rule wants it. Raises Unscanned."""
        if self._assess is None:
            return Assessment()
        wanted = scan or scan_wanted(await self._rule_set(envelope.revision), self._mail(envelope))
        return self._counted(await self._assess(envelope, content, scan=wanted))

    def _counted(self, found: Assessment) -> Assessment:
        for name, verdict in found.verdicts().items():
            self._metrics.count(VERDICTS, name, verdict.status)
        return found

    async def _judge(self, work: Work, entry: Entry, record: Record, *, scan: bool) -> None:
        """Form the verdicts; they are recorded with the first step. Raises StepStopped when the message waits for a scanner."""
        if self._assess is None:
            return
        await self._open(work, entry)
        earlier = replace(work.assessment, unscanned=work.assessment.lacking) if entry.assessment else None
        try:
            found = await self._assess(entry.envelope, work.content, scan=scan, earlier=earlier)
        except Unscanned as waits:
            record.assessment = waits.assessment.to_json()
            raise StepStopped(self._unscanned(entry, waits, record)) from waits
        work.judged(self._counted(found))
        record.assessment = found.to_json()

    def _unscanned(self, entry: Entry, waits: Unscanned, record: Record) -> Update:
        """A message waits for a scanner as it would for a sink."""
        cause = waits.cause
        if isinstance(cause, ScannerBusy):
            return self._parked(entry, waits.scanner, SinkBusy(), record)
        if isinstance(cause, ScannerDown) and not cause.asked:
            return self._parked(entry, waits.scanner, cause, record)
        return self._later(entry, f"{waits.scanner}: {waits.cause}", sink=self._awaited(waits.scanner), record=record)

    async def _open(self, work: Work, entry: Entry) -> None:
        if not work.is_open:
            await work.open(await self._spool.content(entry.id))

    def _begin(self, entry: Entry) -> Work:
        assessment = Assessment.from_json(entry.assessment) if entry.assessment else Assessment()
        return Work(entry.envelope, assessment, self._terms.identity, clock=self._clock)

    async def _steps(self, engine: Generator[Step, Flow, Disposition], entry: Entry, work: Work, record: Record) -> Disposition:
        try:
            step = next(engine)
            while True:
                flow = await self._step(step, entry, work, record)
                if notifies(step):
                    await self._part(TOPIC, step, entry, work, record)
                step = engine.send(flow)
        except StopIteration as end:
            disposition: Disposition = end.value
            return disposition

    async def _step(self, step: Step, entry: Entry, work: Work, record: Record) -> Flow:
        if self._sink(step):
            return await self._part(ACTION, step, entry, work, record)
        performed = await actions.of(step).perform(step, work, self._ports)
        if record.flow(step, ACTION) is None:
            record.add(self._outcome(ACTION, step, "", 1, self._clock(), Outcome.DONE, performed))
        return performed.flow

    async def _part(self, part: str, step: Step, entry: Entry, work: Work, record: Record) -> Flow:
        """The action itself or its notification: skipped when recorded as done, else performed and recorded."""
        done = record.flow(step, part)
        if done is not None:
            return done
        if record.has_effects:
            await self._commit(entry, Update(steps=record.take()), record, lazy=False)
        await self._open(work, entry)
        sink = self._sink(step)
        attempt = record.attempts(step, part) + 1
        started = self._clock()
        clock = time.perf_counter()
        await turns().come()
        settled = actions.of(step).settled(step, work, self._ports) if part == ACTION else None
        if settled is not None:
            record.add(self._outcome(part, step, "", attempt, started, Outcome.DONE, settled))
            return settled.flow
        try:
            sink, call = self._call(part, step, work)
            async with self.sinks.call(sink):
                started, clock = self._clock(), time.perf_counter()
                performed = await call()
        except (SinkClosed, SinkBusy) as error:
            raise StepStopped(self._expired(self._parked(entry, sink, error, record), part, step)) from error
        except SinkFailure as error:
            final = isinstance(error, MessageRefused)
            failed = self._outcome(part, step, sink, attempt, started, Outcome.FINAL if final else Outcome.FAILED, error=str(error), clock=clock)
            record.add(failed)
            update = self._failed(entry, error, sink, record)
            raise StepStopped(update if final else self._expired(update, part, step)) from error
        record.add(self._outcome(part, step, sink, attempt, started, Outcome.DONE, performed, clock=clock), effect=True)
        return performed.flow

    def _sink(self, step: Step) -> str:
        return actions.of(step).sink(step.action, self._ports)

    def _call(self, part: str, step: Step, work: Work) -> tuple[str, Callable[[], Awaitable[Performed]]]:
        """The sink to call, and the call. What the action's own sink could never take is bounced; MessageRefused where bounces have no way."""
        if part == TOPIC:
            role = _role(step)
            return f"sns:{step.action.TopicArn}" + (f" as {role}" if role else ""), lambda: self._publish(step, work)
        action, bounces = actions.of(step), self._ports.bounces
        unfit = action.unfit(step, work)
        if not unfit:
            return self._sink(step), lambda: action.perform(step, work, self._ports)
        if bounces is None:
            raise MessageRefused(unfit)
        return bounces.sink, lambda: self._bounce(bounces, step, work, unfit)

    async def _bounce(self, bounces: Bounces, step: Step, work: Work, unfit: str) -> Performed:
        return Performed(detail={"unfit": unfit, **await bounces.too_long(work, step)})

    async def _publish(self, step: Step, work: Work) -> Performed:
        topic = step.action.TopicArn or ""
        notification = await work.notification(step)
        if (length := len(notification.encode("utf-8"))) > SNS_MESSAGE_LIMIT:
            raise MessageRefused(f"the notification has {length} octets; SNS takes {SNS_MESSAGE_LIMIT}")
        published = await self._ports.aws.publish(topic, SNS_SUBJECT, notification, role=_role(step))
        return Performed(detail={"topic": topic, "messageId": published.message_id})

    def _expired(self, update: Update, part: str, step: Step) -> Update:
        if update.state is State.DEAD:
            self._metrics.count(STEPS, step.rule.Name, step.action.kind, part, "expired")
        return update

    def _outcome(self, part: str, step: Step, sink: str, attempt: int, started: float, outcome: Outcome, performed: Performed | None = None, *,
                 error: str = "", clock: float | None = None) -> StepRecord:
        seconds = 0.0 if clock is None else time.perf_counter() - clock
        labels = (step.rule.Name, step.action.kind, part)
        self._metrics.count(STEPS, *labels, _COUNTED[outcome])
        if clock is not None:
            self._metrics.observe(STEP_SECONDS, seconds, *labels)
        if performed is not None and "bounce" in performed.detail:
            self._metrics.count(BOUNCES, next((word for word in ("suppressed", "refused") if word in performed.detail), "sent"))
        return StepRecord(
            rule=step.rule.Name, index=step.index, part=part, digest=step.digest, attempt=attempt, started=started,
            milliseconds=round(seconds * 1000),
            outcome=outcome, flow=performed.flow if performed else "", sink=sink, error=error[:2000],
            detail={"action": step.action.kind, **(performed.detail if performed else {})},
        )

    # --- ending ---

    def _failed(self, entry: Entry, error: SinkFailure, sink: str, record: Record) -> Update:
        if isinstance(error, MessageRefused):
            return Update(steps=record.take(), state=State.DEAD, finished=self._clock(), error=str(error), sink="")
        return self._later(entry, f"{sink}: {error}", sink=self._awaited(sink) if isinstance(error, SinkDown) else "", record=record)

    def _awaited(self, sink: str) -> str:
        """The sink that failed, whose recovery lets the message go. One that takes others meanwhile is not waited for, only the time is."""
        return "" if self.sinks.is_letting_go(sink) else sink

    def _parked(self, entry: Entry, sink: str, error: Exception, record: Record) -> Update:
        """The call was not made: no attempt is counted; the sink's recovery or its room lets the message go.

        Given up only where the sink has just failed: a backlog that slept through its time with us shall still be tried.
        """
        now, schedule = self._clock(), self._terms.schedule
        left = self._since(entry) + schedule.give_up_after - now
        busy = isinstance(error, SinkBusy)
        if left <= 0 and not busy and self.sinks.is_down(sink):
            return Update(steps=record.take(), state=State.DEAD, finished=now, error=f"{sink}: {error}", sink="")
        wait = schedule.maximum if busy else min(schedule.maximum, max(left, 1.0) if left > 0 else schedule.minimum)
        return Update(steps=record.take(), state=State.DEFERRED, due=now + wait, sink=sink, error="" if busy else f"{sink}: {error}")

    def _later(self, entry: Entry, error: str, *, sink: str = "", record: Record | None = None) -> Update:
        now = self._clock()
        steps = record.take() if record else ()
        attempts = entry.attempts + 1
        due = self._terms.schedule.next_attempt(attempts, now=now, since=self._since(entry), dice=random.random())  # noqa: S311  # jitter
        if due is None:
            return Update(steps=steps, state=State.DEAD, finished=now, error=error, sink="", attempts=attempts)
        return Update(steps=steps, state=State.DEFERRED, due=due, error=error, sink=sink, attempts=attempts)

    async def _commit(self, entry: Entry, update: Update, record: Record, *, lazy: bool) -> None:
        """Record what happened. What was done cannot be undone, so trouble with the spool is waited out here."""
        if (assessment := record.take_assessment()) is not None:
            update = replace(update, assessment=assessment)
        wait = 0.1
        while True:
            try:
                await self._spool.update(entry.id, update, lazy=lazy)
                return
            except KeyError:
                return  # someone dropped it
            except Exception as error:  # of whatever kind: nobody else would give the message back
                self._note(error)
                self._log.error(Event.SPOOL_FAILED, id=entry.id, error=str(error) or repr(error))
                await asyncio.sleep(wait)
                wait = min(wait * 2, 10.0)

    def _tell(self, entry: Entry, update: Update, record: Record) -> None:
        now, marked = self._clock(), {"replay": True} if record.is_replay else {}
        if update.state is State.DONE:
            envelope = entry.envelope
            self._metrics.count(DONE, update.disposition or "")
            began = envelope.received_at
            if record.is_replay:
                began = self._since(entry)
            else:
                self._metrics.observe(DONE_SECONDS, max(0.0, now - began))
            self._log.info(Event.MESSAGE_DONE, id=entry.id, disposition=update.disposition or "", sender=envelope.reverse_path,
                           recipients=envelope.forward_paths, size=entry.size, steps=record.done(),
                           seconds=round(now - began, 3), **marked)
        elif update.state is State.DEFERRED and update.error:
            self._metrics.count(DEFERRED)
            self._log.warning(Event.MESSAGE_DEFERRED, id=entry.id, error=update.error, retry_in=round((update.due or now) - now, 1), **marked)
        elif update.state is State.DEAD:
            self._metrics.count(DEAD)
            self._tell_operator(Kind.DEAD_LETTERS, f"{entry.id}: {update.error}")
            self._log.error(Event.MESSAGE_DEAD, id=entry.id, error=update.error, retry=f"inbound queue retry {entry.id}", **marked)

    async def _rule_set(self, revision: str) -> RuleSet:
        found = self._rule_sets.get(revision)
        if found is None:
            text = await self._spool.revision(revision)
            found = RuleSet.kept(text)
            if found is None:
                trouble = "does not hold" if text is None else "holds in another version's form"
                raise Unjudgeable(f"the spool {trouble} revision {revision} of the rules, by which it is to be judged")
            self.know(found)
        return found


def _role(step: Step) -> str | None:
    """The role that the action, and so its notification, is done as; one that fails must not hold up what goes to the topic without it."""
    role: str | None = getattr(step.action, "IamRoleArn", None)
    return role


def _word(record: StepRecord) -> str:
    """What was special about a step."""
    if record.part == TOPIC:
        return " topic"
    return next((f" {word}" for word in ("suppressed", "refused") if word in record.detail), " bounced" if "unfit" in record.detail else "")


class Record:
    """The step records of one entry since its last replay: those in the spool, and those still to be committed, the assessment with them."""

    def __init__(self, entry: Entry) -> None:
        self._known: dict[tuple[str, int, str], StepRecord] = {}
        self._attempts: dict[tuple[str, int, str], int] = {}
        self.pending: list[StepRecord] = []
        self.assessment: str | None = None
        self.has_effects = False
        earlier, present = runs(entry.steps)
        self.is_replay = bool(earlier)
        for step in present:
            self._remember(step)

    def flow(self, step: Step, part: str) -> Flow | None:
        """The recorded flow of a step that is done, or None. Raises Unjudgeable when the record is of another rule's step."""
        found = self._known.get((step.rule.Name, step.index, part))
        if found is None:
            return None
        if found.digest != step.digest:
            raise Unjudgeable(f"what is recorded of rule {step.rule.Name}, action {step.index + 1}, is of another revision of the rules")
        return Flow(found.flow)

    def attempts(self, step: Step, part: str) -> int:
        """How often it was tried."""
        return self._attempts.get((step.rule.Name, step.index, part), 0)

    def done(self) -> list[str]:
        """What was done, in order, a few words for each step: `support: S3 12 ms`."""
        return [f"{s.rule}: {s.detail.get('action', '')}{_word(s)}{f' {s.milliseconds} ms' if s.sink else ''}" for s in self._known.values()]

    def steps(self) -> Collection[StepRecord]:
        """The records of what is done."""
        return self._known.values()

    def add(self, record: StepRecord, *, effect: bool = False) -> None:
        """Keep a record until the next commit; `effect` asks for one before the next side effect."""
        self.pending.append(record)
        self.has_effects = self.has_effects or effect
        self._remember(record)

    def take(self) -> list[StepRecord]:
        """The records to commit now."""
        taken, self.pending, self.has_effects = self.pending, [], False
        return taken

    def take_assessment(self) -> str | None:
        """The assessment, if that is to be committed now."""
        taken, self.assessment = self.assessment, None
        return taken

    def _remember(self, record: StepRecord) -> None:
        key = (record.rule, record.index, record.part)
        self._attempts[key] = max(record.attempt, self._attempts.get(key, 0))
        if record.outcome is Outcome.DONE:
            self._known[key] = record
