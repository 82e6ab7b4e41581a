"""`inbound dev`: everything on one machine. SMTP in, the rules, and a local AWS in which what the rules name is created."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbound.operate.cli.send import HostPort
from inbound.settings import Address, address

if TYPE_CHECKING:
    from inbound.decide.rules import RuleSet
    from inbound.operate.dev import FunctionSource
    from inbound.service import Service
    from inbound.settings import Settings


KEEP_CONTENT = 7 * 86400.0  # seconds that content is kept here unless the environment says otherwise


class Endpoint(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """HOST:PORT of a local AWS to start, or the URL of one that runs."""

    name = "host:port or url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address | str:
        if isinstance(value, Address) or str(value).startswith(("http://", "https://")):
            return value if isinstance(value, Address) else str(value).rstrip("/")
        try:
            found: Address = address(value)
        except ValueError as error:
            self.fail(f"{error}, or a URL (http://127.0.0.1:5000)", param, ctx)
        return found


class Function(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """NAME=FILE:HANDLER."""

    name = "name=file:handler"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from inbound.operate.dev import parse_function  # noqa: PLC0415  # --help need not pay for it

        try:
            return parse_function(value)
        except ValueError as error:
            self.fail(str(error).removeprefix("--function "), param, ctx)


@click.command()
@click.option("--rules", type=click.Path(dir_okay=False, path_type=Path), default=Path("rules.yaml"), envvar="INBOUND_RULES", show_default=True,
              help="The rule file; a sample is written if there is none.")
@click.option("--smtp", type=HostPort(), default="127.0.0.1:2525", show_default=True, help="Where to listen for SMTP.")
@click.option("--http", type=HostPort(), default="127.0.0.1:8025", show_default=True, help="Where to listen for HTTP.")
@click.option("--aws", type=Endpoint(), default="127.0.0.1:4566", show_default=True,
              help="Where the local AWS listens; or the URL of one that runs already (moto, floci, another ministack).")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), default=Path("var"), envvar="INBOUND_DATA", show_default=True,
              help="Spool and local AWS keep their data here.")
@click.option("--function", "functions", type=Function(), multiple=True, metavar="NAME=FILE:HANDLER",
              help="The code of a Lambda function that the rules name, Python or JavaScript; others get a sample that logs the event.")
def dev(rules: Path, smtp: Address, http: Address, aws: Address | str, data: Path, functions: tuple[FunctionSource, ...]) -> None:
    """Run everything on this machine, with nothing but pip: SMTP in, the rules, and a local AWS to look at.

    What the rules name is created in the local AWS, again at every change of the rules: buckets, topics (each with a queue NAME-dev
    subscribed to it), keys and functions. Only test credentials are used, whatever AWS profile you have.
    """
    from inbound import log, settings  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.cli import fail  # noqa: PLC0415
    from inbound.operate.cli.screen import HIDDEN, Screen  # noqa: PLC0415
    from inbound.operate.dev import by_name  # noqa: PLC0415
    from inbound.operate.dev.certificate import own_certificate  # noqa: PLC0415
    from inbound.operate.run import run  # noqa: PLC0415
    from inbound.operate.sample import write_sample  # noqa: PLC0415

    began = time.monotonic()
    try:
        by_name(functions)
        written = write_sample(rules)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write a sample rule file to {rules}: {error.strerror or error}; choose another place with --rules FILE")
    found = settings.read(rules=rules, data=data, listen=(smtp,), http_listen=http)
    if "retain_content" not in found.model_fields_set:
        found = found.model_copy(update={"retain_content": KEEP_CONTENT})
    if found.tls_cert is None:
        cert, key = own_certificate(found.data / "tls", found.hostname)
        found = found.model_copy(update={"tls_cert": cert, "tls_key": key})
    screen = Screen(where="" if data == Path("var") else f" --data {data}")
    log.configure(renderer=screen.render, hidden=HIDDEN, level=found.log_level)
    setup = Setup(found, aws, functions, screen)

    def started(service: Service) -> None:
        for stranger in settings.strangers():
            service.log.warning(log.Event.SERVICE_WARNING, warning=stranger)
        setup.note(service)
        first_screen(setup, service, written=written, seconds=time.monotonic() - began)

    run(found, setup.around, started=started, ended=setup.forget)


class Setup:
    """The local AWS around the service."""

    def __init__(self, settings: Settings, aws: Address | str, functions: tuple[FunctionSource, ...], screen: Any) -> None:
        self.settings = settings
        self.functions = functions
        self.screen = screen
        self.aws = aws
        self.endpoint = ""
        self.region = ""
        self.created: list[str] = []

    @contextlib.asynccontextmanager
    async def around(self, settings: Settings) -> AsyncIterator[Service]:
        """Start the local AWS, then hand out a service that uses it and nothing else."""
        from inbound import log  # noqa: PLC0415  # see `dev`
        from inbound.assess.trial import Trial  # noqa: PLC0415
        from inbound.decide.load import load  # noqa: PLC0415
        from inbound.deliver.aws import Access  # noqa: PLC0415
        from inbound.deliver.folder import BounceFolder  # noqa: PLC0415
        from inbound.operate.dev import LocalAws, LocalAwsError, Provision, wanted  # noqa: PLC0415
        from inbound.service import Service  # noqa: PLC0415
        from inbound.settings import SettingsError  # noqa: PLC0415

        needs = wanted(load(settings.rules).rule_set)
        self.region = needs.region
        async with contextlib.AsyncExitStack() as stack:
            local = None
            if isinstance(self.aws, str):
                self.endpoint = self.aws
            else:
                local = LocalAws(folder=settings.data / "aws", address=self.aws.host or "127.0.0.1", port=self.aws.port, account=needs.account,
                                 region=needs.region)
                try:
                    await local.start()
                except LocalAwsError as error:
                    raise SettingsError(str(error)) from None
                stack.push_async_callback(local.stop)
                self.endpoint = local.endpoint
                stack.push_async_callback(_cancel, asyncio.create_task(self._watch(local)))
            provision = Provision(endpoint=self.endpoint, functions=self.functions)
            access = Access(endpoint_url=self.endpoint, region=needs.region, session=lambda: local_session(needs.region), proxies=False)

            async def on_rules(rule_set: RuleSet) -> None:
                await self._provide(provision, local, rule_set)

            service = Service(settings, log.get(), access=access, on_rules=on_rules, production=False, trial=Trial(),
                              smarthost=BounceFolder(settings.data / "bounces"),
                              chosen_with={"smtp": "--smtp HOST:PORT", "http": "--http HOST:PORT"})
            self.screen.names = lambda: names(service.rules.current.rule_set)
            stack.push_async_callback(_cancel, asyncio.create_task(self._follow(provision)))
            yield service

    async def _provide(self, provision: Any, local: Any, rule_set: RuleSet) -> None:
        from inbound.operate.dev import ProvisionError, wanted  # noqa: PLC0415  # see `dev`
        from inbound.settings import SettingsError  # noqa: PLC0415

        try:
            if local is not None:
                await local.use_account(wanted(rule_set).account)
            lines = await provision.ensure(rule_set)
        except ProvisionError as error:
            if not self.created:
                raise SettingsError(str(error)) from None
            lines = [str(error)]
        self._tell(lines)
        self.created += lines

    async def _follow(self, provision: Any) -> None:
        async for lines in provision.follow():
            self._tell(lines)

    async def _watch(self, local: Any) -> None:
        self._tell([f"{await local.ended()}; what needs it waits until you start inbound dev again"])

    def _tell(self, lines: list[str]) -> None:
        from inbound import log  # noqa: PLC0415  # see `dev`

        for line in lines:
            log.get().info(log.Event.DEV_AWS, line=line)

    def note(self, service: Service) -> None:
        """Leave a note in the data folder, so that `inbound send` finds this dev whatever its ports are."""
        about = {"pid": os.getpid(), "smtp": str(service.addresses[0]), "http": str(service.http), "aws": self.endpoint}
        (self.settings.data / "dev.json").write_text(json.dumps(about), encoding="utf-8")

    def forget(self) -> None:
        """Take the note away, if it is ours."""
        path = self.settings.data / "dev.json"
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
                path.unlink()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def local_session(region: str) -> Any:
    """A botocore session with test credentials and nothing of the user's own AWS. Slow: it loads boto3."""
    from inbound.operate.dev.session import core_session  # noqa: PLC0415  # only when a call is made

    return core_session(region)


def names(rule_set: RuleSet) -> list[str]:
    """What the enabled rules name as recipients."""
    found: dict[str, None] = {}
    for rule in rule_set.rules:
        if rule.Enabled:
            found.update(dict.fromkeys(rule.Recipients or [f"anything at {i}" for i in rule_set.identities]))
    return list(found)


def first_screen(setup: Setup, service: Service, *, written: bool, seconds: float) -> None:
    """Where everything is, and the next command to try."""
    rules = setup.settings.rules
    default = all(str(a) == d for a, d in ((service.addresses[0], "127.0.0.1:2525"), (service.http, "127.0.0.1:8025")))
    where = "" if default else setup.screen.where
    recipient = example(service.rules.current.rule_set)
    lines = [
        f"inbound dev is ready ({seconds:.1f} s)",
        "",
        f"  SMTP    {service.addresses[0]}  STARTTLS with {setup.settings.tls_cert}",
        f"  HTTP    http://{service.http}  (/healthz, /readyz, /metrics, /messages/ID)",
        f"  AWS     {setup.endpoint}  keys test / test, region {setup.region}",
        *([] if isinstance(setup.aws, str) else [f"          what functions print is in {setup.settings.data / 'aws' / 'ministack.log'}"]),
        f"  rules   {rules}" + (" (the sample, just written)" if written else "") + "  change it while this runs",
        f"  data    {setup.settings.data}  bounces are files in {setup.settings.data / 'bounces'}",
        "",
        "Now try in another terminal:",
        f"  inbound send --to {recipient}{where}",
        "",
        "Ctrl-C stops it.",
    ]
    click.echo("\n".join(lines))


def example(rule_set: RuleSet) -> str:
    """A recipient that the rules accept."""
    for entry in names(rule_set):
        if "@" in entry:
            return entry
        domain = entry.removeprefix("anything at ")
        return f"hello@sub{domain}" if domain.startswith(".") else f"hello@{domain}"
    return "ADDRESS"


