"""The composition root: builds every port, starts them in order, drains and stops them. Nothing else constructs I/O objects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import MappingProxyType

from inbound.accept.listener import Listener, bind
from inbound.accept.policy import LOOPBACK, Limits, Trust
from inbound.accept.quotas import Quotas
from inbound.accept.rate import Rate
from inbound.accept.spool import Spool, SpoolError, SpoolFull
from inbound.accept.spool.sqlite import SqliteSpool
from inbound.accept.tls import Certificate, CertificateError
from inbound.assess.assessor import Assessor, Guard, unguarded
from inbound.assess.dkim.sign import sign as dkim_sign
from inbound.assess.dns import Resolver
from inbound.assess.dnsbl import Blocklist, Blocklists
from inbound.assess.scanning import Scanner
from inbound.assess.spam import Rspamd
from inbound.assess.trial import Trial
from inbound.assess.virus import Clamd
from inbound.bulletin import Bulletin
from inbound.decide.engine import StopScope
from inbound.decide.load import Loaded, RulesError
from inbound.decide.rules import RuleSet
from inbound.decide.session_bounce import Certain
from inbound.decide.watch import RuleBook
from inbound.deliver.alerts import Alerts
from inbound.deliver.aws import Access, Aws
from inbound.deliver.aws.client import AwsClient
from inbound.deliver.backscatter import Caps
from inbound.deliver.bounces import Bounces, BounceTerms, Sign
from inbound.deliver.channels import channels
from inbound.deliver.intake import Rejection, SpoolIntake
from inbound.deliver.pressure import Bounds, Pressure, reserve
from inbound.deliver.retry import Schedule
from inbound.deliver.shadow import Shadow
from inbound.deliver.shadow_state import state_file
from inbound.deliver.smtp import Smarthost, SmtpSmarthost
from inbound.deliver.standing import Standing
from inbound.deliver.vigil import Vigil
from inbound.deliver.work import Identity
from inbound.deliver.worker import Terms, Worker
from inbound.log import Event, Log
from inbound.memory import Reserve
from inbound.metrics import Metrics
from inbound.mishap import handler, keep_going
from inbound.settings import Settings, SettingsError, SmtpAddress

SWEEP = 60.0  # seconds between looks for traces whose time is over
LISTENER_DRAIN = 15.0  # seconds that transactions have to finish at a stop
SPACE = 1.0  # seconds between looks whether a full disk takes what a start has to write
WORKER_DRAIN = 10.0  # seconds that messages in hand have
ALERTS_DRAIN = 2.0  # seconds that alerts have which were not told yet

SMTPS = "smtps"  # the name of inherited sockets where TLS begins with the connection
CHOSEN_WITH = MappingProxyType({"smtp": "INBOUND_LISTEN", "http": "INBOUND_HTTP_LISTEN"})

OnRules = Callable[[RuleSet], Awaitable[None]]


async def _nothing(_rules: RuleSet) -> None:
    return None


class Service:
    """One process that receives mail. `on_rules` is awaited before a revision takes effect; it may refuse it by raising.

    `trial` stands in for scanners and DNS, and orders verdicts: never in production. `smarthost` takes the place of INBOUND_SMARTHOST.
    `chosen_with` names what an operator chooses the addresses with, for the error that one of them is taken. `inherited` sockets of systemd,
    by name, take the place of INBOUND_LISTEN. One of several processes has a `spool` folder of its own, is handed the text of its rules by
    `source` and told when to ask for it again (`rules.refresh`), and what it would tell of them is told by others. One that does not listen
    (`listens`) only works off what its spool holds. One of them `tells` the log of the shadow, which each follows by itself.
    """

    def __init__(self, settings: Settings, log: Log, *, access: Access | None = None, aws: Aws | None = None, on_rules: OnRules = _nothing,
                 production: bool = True, trial: Trial | None = None, smarthost: Smarthost | None = None,
                 chosen_with: Mapping[str, str] = CHOSEN_WITH, inherited: Mapping[str, list[socket.socket]] = MappingProxyType({}),
                 spool: Path | None = None, source: Callable[[], str] | None = None, listens: bool = True, tells: bool = True) -> None:
        self.settings = settings
        self.log = log
        self.production = production
        self.chosen_with = chosen_with
        self._inherited = inherited
        if SMTPS in inherited and settings.tls_cert is None:
            raise SettingsError("systemd passes a socket named smtps, which needs a certificate: set INBOUND_TLS_CERT and INBOUND_TLS_KEY")
        self.certificate = certificate(settings, log)
        self.metrics = Metrics()
        self.memory = Reserve()
        self.spool: Spool = SqliteSpool(spool or settings.spool, metrics=self.metrics)
        self.aws: Aws = aws or AwsClient(access)
        hook = settings.alert_hook.get_secret_value() if settings.alert_hook else None
        self.alerts = Alerts(channels(self.aws, settings.alert_topic, hook), log, host=settings.hostname, metrics=self.metrics)
        self.pressure = Pressure(self.spool, settings.data, bounds(settings), log, metrics=self.metrics, tell=self.alerts.tell,
                                 memory=self.memory)
        self.trial = trial
        self.assessor = assessor(settings, log, guard=self._scanner, trial=trial)
        self.blocklists = blocklists(settings, log)
        self.bounces = bounces(settings, smarthost or _smarthost(settings))
        self.bulletin = Bulletin(settings, log, self.metrics, self.alerts.tell, production=production, scanners=scanners(settings))
        self._source = source
        self._listens = listens
        self.shadow = Shadow(self.spool, state_file(settings.data), log, stop_scope=StopScope(settings.stop_scope), clock=time.time,
                             certain=certain(settings), tells=tells)
        self.worker = Worker(self.spool, self.aws, terms(settings), log, assess=trial.assessor(self.assessor) if trial else self.assessor,
                             bounces=self.bounces, metrics=self.metrics, tell=self.alerts.tell, shadow=self.shadow,
                             note=self.memory.note)
        self.rules = RuleBook(settings.rules, on_load=self._adopt, on_error=self._rejected, tls=self.certificate is not None or not production,
                              smarthost=self.bounces is not None, source=source)
        self.intake = SpoolIntake(self.spool, self.worker, lambda: self.rules.current.rule_set, log, pressure=self.pressure,
                                  tls_works=self._tls_works, rejection=Rejection(settings.reject, settings.reject_timeout),
                                  certain=certain(settings), metrics=self.metrics)
        self.listener = Listener(self.intake, log, hostname=settings.hostname, limits=limits(settings), trust=trust(settings, production=production),
                                 tls=self.certificate, smtputf8=settings.smtputf8, reverse_name=self.assessor.reverse_name,
                                 listed=self.blocklists.listed if self.blocklists else None, quotas=quotas(settings),
                                 metrics=self.metrics, memory=self.memory)
        self.memory.on_short = (self.listener.relieve, self.pressure.short)
        self.standing = Standing(self.spool, self.worker.sinks, self.pressure, self.metrics, is_serving=lambda: self.ready,
                                 has_rules=lambda: self.rules.current.rule_set.name is not None, sessions=lambda: self.listener.sessions,
                                 expires=self._expires, clock=time.time)
        self.vigil = Vigil(self.spool, self.worker.sinks, self.alerts.tell, expires=self._expires)
        self.addresses: list[SmtpAddress] = []
        self.http = settings.http_listen
        self.ready = False
        self.is_supervised = False  # by systemd, which listens on privileged ports for us
        self._on_rules = on_rules
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the rules, open the spool, begin with what waits, listen. Raises RulesError, SpoolError, SettingsError; then nothing runs.

        On a full disk it waits for space: who would start it again and again may give up before there is any.
        """
        asyncio.get_running_loop().set_exception_handler(handler(self.log, self.memory.note))
        await self.rules.read()
        sockets, secure = self._bind()
        try:
            await self._with_space(self.spool.start)
        except BaseException:
            for sock in (*sockets, *secure):
                sock.close()
            raise
        try:
            await self._begin(sockets, secure)
        except BaseException:
            await self.spool.stop()
            raise

    async def _begin(self, sockets: list[socket.socket], secure: list[socket.socket]) -> None:
        await self._with_space(self.rules.adopt)
        counts = await self.spool.counts()
        waiting = {str(state): count for state, count in counts.items() if count and state != "done"}
        if waiting:
            self.log.info(Event.SPOOL_RECOVERED, **waiting)
        await self.pressure.look()
        await self.shadow.look()
        await self.worker.start()
        await self.listener.open(sockets, secure)
        watches = [self._sweep, self.pressure.watch, self.vigil.watch, self.alerts.run, self.shadow.watch]
        if self._source is None:
            watches.append(self.rules.watch)
        if self.certificate is not None:
            watches.append(self.certificate.watch)
        self._tasks = [asyncio.create_task(keep_going(watch, self.log, self.memory.note)) for watch in watches]
        self.ready = True
        self.log.info(Event.SERVICE_STARTED, smtp=[str(a) for a in self.addresses], http=str(self.http), hostname=self.settings.hostname,
                      rules=str(self.settings.rules), revision=self.rules.current.rule_set.revision, data=str(self.settings.data))
        if self._source is None:
            self.bulletin.started(self.rules.current.rule_set)

    async def _with_space(self, begin: Callable[[], Awaitable[None]]) -> None:
        is_told = False
        while True:
            try:
                await begin()
                return
            except SpoolFull as error:
                if not is_told:
                    self.log.error(Event.SPOOL_FAILED, error=f"{self.settings.data}: {error}; the start waits for space")
                is_told = True
                await asyncio.sleep(SPACE)

    async def stop(self) -> None:
        """Drain: idle sessions get 421, transactions and messages in hand are finished, leases given back."""
        self.ready = False
        self.log.info(Event.SERVICE_DRAINING)
        await self.listener.drain(LISTENER_DRAIN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.worker.stop(WORKER_DRAIN)
        await self.alerts.flush(ALERTS_DRAIN)
        await self.assessor.close()
        if self.blocklists:
            await self.blocklists.close()
        await self.aws.close()
        await self.spool.stop()
        self.log.info(Event.SERVICE_STOPPED)

    def _bind(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """The sockets to speak SMTP on, and those where TLS begins with the connection."""
        inherited = [(sock, name == SMTPS) for name, found in self._inherited.items() for sock in found]
        bound = inherited or (bind_all(self.settings.listen, self.chosen_with["smtp"]) if self._listens else [])
        for sock, tls in bound:
            host, port = sock.getsockname()[:2]
            self.addresses.append(SmtpAddress(host, port, tls))
        return [sock for sock, tls in bound if not tls], [sock for sock, tls in bound if tls]

    def _tls_works(self) -> bool:
        return self.certificate is not None and self.certificate.works

    def _expires(self) -> float | None:
        return None if self.certificate is None else self.certificate.ends

    async def _adopt(self, loaded: Loaded) -> None:
        """Before a revision takes effect: keep its text where a restart finds it, and let `inbound dev` create what it names."""
        rule_set = loaded.rule_set
        await self.spool.keep_revision(rule_set.revision, rule_set.text)
        await self._on_rules(rule_set)
        self.worker.know(rule_set)
        self.metrics.forget("rule", {rule.Name for rule in rule_set.rules})
        if self._source is None:
            self.bulletin.loaded(loaded)

    async def _rejected(self, error: RulesError) -> None:
        self.bulletin.rejected(error, self.rules.current.rule_set.revision)

    def _scanner(self, name: str) -> AbstractAsyncContextManager[None]:
        return self.worker.sinks.scanner(name)

    def _revisions(self) -> list[str]:
        """Those in use: of the rules, and of the candidate beside them."""
        used = (self.rules.current.rule_set, self.shadow.candidate)
        return [rule_set.revision for rule_set in used if rule_set is not None]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = time.time()
            try:
                await self.spool.sweep(finished_before=now - self.settings.retain, content_before=now - self.settings.retain_content,
                                       keep_revisions=self._revisions())
            except SpoolError as error:
                self.log.error(Event.SPOOL_FAILED, error=str(error))


def bind_all(addresses: Sequence[SmtpAddress], chosen_with: str) -> list[tuple[socket.socket, bool]]:
    """Listening sockets for these addresses, each with whether TLS begins with the connection. Raises SettingsError that names `chosen_with`."""
    bound: list[tuple[socket.socket, bool]] = []
    for address in addresses:
        try:
            bound += [(sock, address.tls) for sock in bind(address.host, address.port)]
        except OSError as error:
            for sock, _ in bound:
                sock.close()
            raise SettingsError(f"cannot listen on {address}: {error.strerror or error}; choose another with {chosen_with}") from None
    return bound


def assessor(settings: Settings, log: Log, *, guard: Guard = unguarded, trial: Trial | None = None) -> Assessor:
    """The checks on messages, with the scanners and the DNS servers of the settings."""
    resolver = trial.resolver(settings.dns) if trial else Resolver(settings.dns)
    chosen = {**(trial.scanners if trial else {}), **scanners(settings)}
    return Assessor(resolver, log, hostname=settings.hostname, relaxed=settings.dkim_verdict == "relaxed", scanners=chosen, guard=guard,
                    waits=settings.scan_failure == "retry")


def scanners(settings: Settings) -> dict[str, Scanner]:
    """The scanners that are configured, by the verdict they form."""
    found: dict[str, Scanner] = {}
    if settings.clamd:
        found["virus"] = Clamd(settings.clamd, limit=settings.clamd_max_size, timeout=settings.scan_timeout)
    if settings.rspamd:
        found["spam"] = Rspamd(settings.rspamd, limit=settings.rspamd_max_size, timeout=settings.scan_timeout)
    return found


def limits(settings: Settings) -> Limits:
    """The listener's limits."""
    return Limits(
        message_size=settings.max_message_size, header_size=settings.max_header_size, recipients=settings.max_recipients,
        messages=settings.max_messages, connections=settings.max_connections, connections_per_client=settings.max_connections_per_client,
        errors=settings.max_errors, junk=settings.max_junk_commands, hops=settings.max_hops, bare_newlines=settings.bare_newline == "accept",
        command_timeout=settings.command_timeout, data_timeout=settings.data_timeout, min_data_rate=settings.min_data_rate,
        trusted=settings.trusted,
    )


def bounds(settings: Settings) -> Bounds:
    """From where on senders have to keep their mail."""
    age = settings.retry_for / 2 if settings.spool_age is None else settings.spool_age
    most = settings.spool_max and max(1, settings.spool_max // settings.processes)
    return Bounds(reserve(settings.max_message_size), most, age)


def quotas(settings: Settings) -> Quotas:
    """How much each client, sender and recipient may have."""
    client, sender, recipient = (Rate(*rate) if rate else None for rate in (settings.rate_client, settings.rate_sender, settings.rate_recipient))
    return Quotas(limits(settings), client=client, sender=sender, recipient=recipient)


def blocklists(settings: Settings, log: Log) -> Blocklists | None:
    """The blocklists of the settings; None where there are none."""
    if not settings.dnsbl:
        return None
    lists = [Blocklist(each.zone, each.answers) for each in settings.dnsbl]
    return Blocklists(lists, Resolver(settings.dns), log, clock=time.monotonic)


def terms(settings: Settings) -> Terms:
    """The worker's terms."""
    return Terms(
        identity=Identity(settings.hostname, settings.authentication_id),
        schedule=Schedule(settings.retry_min, settings.retry_max, settings.retry_for),
        stop_scope=StopScope(settings.stop_scope), keep_content=settings.retain_content > 0,
    )


def certain(settings: Settings) -> Callable[[RuleSet], Certain] | None:
    """What is said in the session rather than by a bounce; None: nothing is."""
    scope = StopScope(settings.stop_scope)
    return (lambda rule_set: Certain(rule_set, scope)) if settings.bounce == "session" else None


def bounces(settings: Settings, smarthost: Smarthost | None) -> Bounces | None:
    """The way out for bounces, or None where there is no smarthost. Raises SettingsError for a key that cannot sign."""
    signature = _signature(settings)
    if smarthost is None:
        return None
    caps = Caps(Rate(*settings.bounce_rate), Rate(*settings.bounce_rate_per_sender))
    return Bounces(smarthost, BounceTerms(settings.hostname, signature), caps)


def _smarthost(settings: Settings) -> Smarthost | None:
    return SmtpSmarthost(settings.smarthost, settings.hostname) if settings.smarthost else None


def _signature(settings: Settings) -> Sign | None:
    """What signs bounces. Tried once, so that a wrong key is known at the start."""
    if settings.dkim_key is None:
        return None
    try:
        key = settings.dkim_key.read_bytes()

        def sign(message: bytes) -> bytes:  # no partial: that would show the key to whoever prints it
            return dkim_sign(message, domain=settings.dkim_domain, selector=settings.dkim_selector, key_pem=key)

        sign(b"From: postmaster@example.com\r\n\r\n")
    except OSError as error:
        raise SettingsError(f"INBOUND_DKIM_KEY: cannot read {settings.dkim_key}: {error.strerror or error}") from None
    except ValueError as error:
        raise SettingsError(f"INBOUND_DKIM_KEY: {settings.dkim_key} is not a key to sign with (PEM, RSA or Ed25519): {error}") from None
    return sign


def trust(settings: Settings, *, production: bool) -> Trust:
    """Who may speak for other clients; on a machine of one's own, everything on it."""
    return Trust(proxies=settings.proxy_from, front_ends=settings.trusted if production else (*settings.trusted, *LOOPBACK))


def certificate(settings: Settings, log: Log) -> Certificate | None:
    """The configured certificate, or None. Raises SettingsError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        return Certificate(settings.tls_cert, settings.tls_key, log)
    except CertificateError as error:
        raise SettingsError(str(error)) from None


@contextlib.contextmanager
def event_loop_runner() -> Iterator[asyncio.Runner]:
    """An asyncio runner on uvloop where it exists."""
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner
