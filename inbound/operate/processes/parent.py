"""The parent of several processes: binds the addresses, watches the rule file, answers HTTP, and keeps its children running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from inbound.accept.spool import SpoolError
from inbound.accept.spool.several import spool_folder, spool_numbers
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.assess.trial import Trial
from inbound.bulletin import Bulletin
from inbound.decide.load import Loaded, RulesError, digest_of, text_of
from inbound.decide.watch import RuleBook
from inbound.deliver.alerts import Kind
from inbound.log import Event, Log
from inbound.metrics import RELOADS, RULES_GOOD, Metrics, Snapshot, lasting, merge
from inbound.mishap import keep_going
from inbound.operate.processes.channel import Channel, Failed, Unanswered
from inbound.operate.station import READY
from inbound.service import CHOSEN_WITH, SMTPS, bind_all, scanners
from inbound.settings import Settings, SettingsError, SmtpAddress

START = 86400.0  # seconds that a child has to start: it may migrate its spool, or wait for space on the disk
TAKE = 120.0  # seconds that a child has to take new rules
ANSWER = 10.0  # seconds for an answer to what is no work
GLANCE = 2.0  # seconds for an answer that HTTP waits for: those who ask have little patience
DEAF = 60.0  # seconds after which a child that does not answer is killed
LOOK = 10.0  # seconds between looks whether a child is alive
STOP = 35.0  # seconds that children have to drain
RESTART_MIN, RESTART_MAX = 0.5, 30.0  # seconds until a child that ended is started anew
TOLD_BY_PARENT = frozenset({RELOADS.name, RULES_GOOD.name})


class Child:
    """One child: what it is, and the process that it is just now."""

    def __init__(self, number: int, *, listens: bool) -> None:
        self.number = number
        self.listens = listens
        self.channel: Channel | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.digest = ""  # of the rules that it has
        self.started = False  # takes mail
        self.last: Snapshot = {}  # its numbers when it last told them
        self.past: Snapshot = {}  # what counts on of the processes that it was before
        self.reader: asyncio.Task[None] | None = None

    async def numbers(self) -> Snapshot:
        """Its numbers, with those of the processes that it was before; of one that does not answer at once those of its last answer."""
        with contextlib.suppress(Failed, Unanswered):
            self.last = await self.ask("numbers", seconds=GLANCE)
        return merge([self.past, self.last])

    def ended(self) -> None:
        """The process is gone."""
        self.channel, self.started = None, False
        self.past, self.last = merge([self.past, lasting(self.last)]), {}

    async def ask(self, question: str, *details: Any, seconds: float = ANSWER) -> Any:
        """Its answer. Raises Failed, Unanswered."""
        if self.channel is None:
            raise Unanswered(question)
        return await self.channel.ask(question, *details, seconds=seconds)


class Parent:
    """The whole service, as `operate/run.py` starts and stops one, and as HTTP asks one."""

    trial: Trial | None = None

    def __init__(self, settings: Settings, log: Log, *, inherited: Mapping[str, list[socket.socket]], left_over: Sequence[int] = ()) -> None:
        self.settings = settings
        self.log = log
        self.chosen_with = CHOSEN_WITH
        self.addresses: list[SmtpAddress] = []
        self.http = settings.http_listen
        self.is_supervised = False
        if SMTPS in inherited and settings.tls_cert is None:
            raise SettingsError("systemd passes a socket named smtps, which needs a certificate: set INBOUND_TLS_CERT and INBOUND_TLS_KEY")
        self._inherited = inherited
        self._sockets: dict[str, list[socket.socket]] = {}
        self._metrics = Metrics()
        self._bulletin = Bulletin(settings, log, self._metrics, self._tell, production=True, scanners=scanners(settings))
        self._latest = ""  # of the rule file, good or not
        self._text = ""  # of the revision in force
        self._revision = ""
        self.rules = RuleBook(settings.rules, on_load=self._adopt, on_error=self._rejected, tls=settings.tls_cert is not None,
                              smarthost=settings.smarthost is not None, source=self._read)
        self._children = [Child(number, listens=True) for number in range(1, settings.processes + 1)]
        self._children += [Child(number, listens=False) for number in left_over]
        self._tasks: list[asyncio.Task[None]] = []
        self._tellings: set[asyncio.Task[None]] = set()
        self._stopping = False

    # --- start and stop ---

    async def start(self) -> None:
        """Raises RulesError, SettingsError, SpoolError; then nothing runs."""
        self._revision = (await self.rules.read()).rule_set.revision
        self._text = self._latest
        self._bind()
        try:
            await asyncio.gather(*(self._spawn(child) for child in self._children))
        except BaseException:
            await self._end_all(0.0)
            raise
        await self.rules.adopt()
        self._tasks = [asyncio.create_task(self._keep(child)) for child in self._children]
        self._tasks += [asyncio.create_task(self._look_after(child)) for child in self._children]
        self._tasks.append(asyncio.create_task(keep_going(self.rules.watch, self.log)))
        rule_set = self.rules.current.rule_set
        self.log.info(Event.SERVICE_STARTED, smtp=[str(a) for a in self.addresses], http=str(self.http), hostname=self.settings.hostname,
                      rules=str(self.settings.rules), revision=rule_set.revision, data=str(self.settings.data), processes=self.settings.processes)
        for child in self._children:
            if not child.listens:
                self.log.info(Event.SPOOL_RECOVERED, spool=str(spool_folder(self.settings.data, child.number)))
        self._bulletin.started(rule_set)

    async def stop(self) -> None:
        """Let every child drain."""
        self._stopping = True
        self.log.info(Event.SERVICE_DRAINING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close_sockets()
        await self._end_all(STOP)
        self.log.info(Event.SERVICE_STOPPED)

    def _bind(self) -> None:
        bound = [(sock, name == SMTPS) for name, found in self._inherited.items() for sock in found]
        for sock, tls in bound or bind_all(self.settings.listen, self.chosen_with["smtp"]):
            self._sockets.setdefault(SMTPS if tls else "smtp", []).append(sock)
            sock.listen(1024)  # now, so that a connection waits for the first child rather than being refused
            host, port = sock.getsockname()[:2]
            self.addresses.append(SmtpAddress(host, port, tls))

    def _close_sockets(self) -> None:
        for sockets in self._sockets.values():
            for sock in sockets:
                sock.close()

    # --- children ---

    async def _spawn(self, child: Child) -> None:
        """Start the process of a child, until it takes mail. Raises SettingsError, SpoolError, RulesError."""
        ours, theirs = socket.socketpair()
        sockets = self._sockets if child.listens else {}
        descriptors = {name: [sock.fileno() for sock in found] for name, found in sockets.items()}
        with theirs:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "inbound.operate.processes.child", str(child.number), str(theirs.fileno()), json.dumps(descriptors),
                stdin=subprocess.DEVNULL, start_new_session=True,  # Ctrl-C would end it in its first moments with a traceback
                pass_fds=(theirs.fileno(), *(number for numbers in descriptors.values() for number in numbers)))
        child.channel = await Channel.over(ours, {})
        child.reader = asyncio.create_task(child.channel.run())
        text = self._text
        try:
            await child.ask("start", text, seconds=START)
        except Failed as failed:
            raise (SettingsError if failed.kind == "SettingsError" else SpoolError)(str(failed)) from None
        except Unanswered:
            raise SpoolError(f"process {child.number} did not start; what it printed says why") from None
        child.digest = digest_of(text)
        child.started = True

    async def _keep(self, child: Child) -> None:
        """Start the child anew whenever it ends."""
        wait = RESTART_MIN
        while True:
            started = time.monotonic()
            status = await self._ended(child)
            self.log.error(Event.PROCESS_ENDED, process=child.number, status=status)
            wait = RESTART_MIN if time.monotonic() - started > RESTART_MAX else min(RESTART_MAX, 2 * wait)
            await asyncio.sleep(wait)
            try:
                await self._spawn(child)
            except (SettingsError, SpoolError, OSError) as error:
                self.log.error(Event.PROCESS_FAILED, process=child.number, error=str(error))
                self._kill(child)

    async def _ended(self, child: Child) -> int:
        """Wait until it has; its exit status."""
        status = 0 if child.process is None else await child.process.wait()
        if child.reader is not None:
            await asyncio.wait((child.reader,))
        child.ended()
        return status

    async def _look_after(self, child: Child) -> None:
        """Kill a child that does not answer, and bring it the rules that it lacks."""
        while True:
            await asyncio.sleep(LOOK)
            if not child.started:
                continue
            process = child.process
            try:
                await child.ask("alive", seconds=DEAF)
                await self._bring_rules(child)
            except Unanswered:
                if child.started and child.process is process:
                    self.log.error(Event.PROCESS_FAILED, process=child.number, error=f"did not answer for {DEAF:g} s, and is killed")
                    self._kill(child)

    def _kill(self, child: Child) -> None:
        if child.process is not None and child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()

    async def _end_all(self, seconds: float) -> None:
        if seconds:
            await asyncio.gather(*(child.ask("stop") for child in self._children), return_exceptions=True)
            await asyncio.wait([asyncio.create_task(self._ended(child)) for child in self._children], timeout=seconds)
        for child in self._children:
            self._kill(child)
        await asyncio.gather(*(self._ended(child) for child in self._children))

    # --- rules ---

    def _read(self) -> str:
        self._latest = text_of(self.settings.rules)
        return self._latest

    async def _adopt(self, loaded: Loaded) -> None:
        self._text, self._revision = self._latest, loaded.rule_set.revision
        self._bulletin.loaded(loaded)
        await asyncio.gather(*(self._bring_rules(child) for child in self._children), return_exceptions=True)

    async def _bring_rules(self, child: Child) -> None:
        """Hand the child the rules, unless it has them. What it cannot take now, it is brought again. Raises Unanswered."""
        text, revision = self._text, self._revision
        digest = digest_of(text)
        if child.started and child.digest != digest:
            with contextlib.suppress(Failed):
                if await child.ask("rules", text, seconds=TAKE) == revision:
                    child.digest = digest

    async def _rejected(self, error: RulesError) -> None:
        self._bulletin.rejected(error, self.rules.current.rule_set.revision)

    def _tell(self, kind: Kind, detail: str, what: str = "", *, over: bool = False) -> None:
        """An alert of ours goes out through the first child that takes it: it has the channels."""
        task = asyncio.get_running_loop().create_task(self._pass_on(kind, detail, what, over=over))
        self._tellings.add(task)
        task.add_done_callback(self._tellings.discard)

    async def _pass_on(self, kind: Kind, detail: str, what: str, *, over: bool) -> None:
        for child in self._children:
            with contextlib.suppress(Failed, Unanswered):
                await child.ask("alert", str(kind), detail, what, over)
                return

    # --- what HTTP asks ---

    async def readiness(self) -> dict[str, Any]:
        """Ready when every process is that takes mail and answers; one that is being started leaves its mail to the others."""
        running = [child for child in self._children if child.started]
        answers = await asyncio.gather(*(child.ask("readiness", seconds=GLANCE) for child in running), return_exceptions=True)
        told = [(child, answer) for child, answer in zip(running, answers, strict=True) if isinstance(answer, dict)]
        listening: list[dict[str, Any]] = [answer for child, answer in told if child.listens]
        if self._stopping or not listening:
            return {"status": "draining" if self._stopping else "down", "error": "no process takes mail"}
        unready = next((answer for answer in listening if answer["status"] != READY), None)
        if unready is not None:
            return unready
        counts = [answer["spool"] for _, answer in told if "spool" in answer]
        return {"status": READY, "revision": self.rules.current.rule_set.revision,
                "spool": {state: sum(each[state] for each in counts) for state in counts[0]}}

    async def numbers(self) -> Snapshot:
        """The numbers of all, as one; those on rules are the parent's own."""
        found = await asyncio.gather(*(child.numbers() for child in self._children))
        theirs = [{name: series for name, series in each.items() if name not in TOLD_BY_PARENT} for each in found]
        return merge([self._metrics.snapshot(), *theirs])

    async def message(self, message_id: str, wait: float) -> dict[str, Any] | None:
        """From whichever process knows it, as soon as it answers."""
        asked = [asyncio.create_task(child.ask("message", message_id, wait, seconds=wait + GLANCE)) for child in self._children if child.started]
        try:
            for answer in asyncio.as_completed(asked):
                with contextlib.suppress(Failed, Unanswered):
                    found: dict[str, Any] | None = await answer
                    if found is not None:
                        return found
            return None
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def left_over(settings: Settings) -> list[int]:
    """The numbers of the spools that more processes left behind, as far as something is in them."""
    others = [number for number in await asyncio.to_thread(spool_numbers, settings.data) if number > settings.processes]
    return [number for number in others if await _is_in_use(settings, number)]


async def _is_in_use(settings: Settings, number: int) -> bool:
    spool = SqliteSpool(spool_folder(settings.data, number), visitor=True)
    try:
        await spool.start()
        try:
            return any((await spool.counts()).values())
        finally:
            await spool.stop()
    except (SpoolError, OSError):  # whoever is to work it off will say what is wrong with it
        return True


