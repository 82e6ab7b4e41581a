"""The `inbound` command. Each command is a file of its own here, loaded only when it is called, so that `inbound check` stays quick.

Exit codes: 0 done, 1 the thing checked is wrong, 2 usage or settings. One clear line, never a traceback.
"""

from __future__ import annotations

import importlib
import keyword
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

import click

from inbound import __version__

COMMANDS = {
    "dev": "Run everything on this machine: SMTP, rules, and a local AWS to look at.",
    "serve": "Run the service: settings from the environment, real AWS or any endpoint.",
    "send": "Send a test message, and tell its route when the service is a local dev.",
    "explain": "Tell what the rules do with a message, and why: one in the spool, or one that nobody sent.",
    "replay": "Judge messages of the spool and its history again by the rules as they are now.",
    "test": "Run the cases of a folder against the rules.",
    "verify": "Tell the verdicts on a message in a file, and why.",
    "check": "Validate the rule file.",
    "import": "Write a rules.yaml from SES, CloudFormation or Terraform.",
    "export": "Print the rules as SES has them.",
    "prove": "Judge what SES received, and tell where it is not what SES did.",
    "shadow": "Try a candidate rule file on all mail, without acting, and tell what would be different.",
    "policy": "Print the least AWS permissions that the rules need.",
    "dns": "Print the DNS records to publish.",
    "doctor": "Try what the rules need: AWS, certificate, DNS, disk.",
    "queue": "Look at the spool: what waits, what is dead, what happened to a message.",
}


class Commands(click.Group):
    """Finds a command in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"inbound.operate.cli.{name}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="inbound")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Receive email and route it by Amazon SES receipt rules.

    \b
    First minute:
      inbound dev                              in one terminal
      inbound send --to support@example.com    in another
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Entry point of the `inbound` script."""
    try:
        cli(prog_name="inbound")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError):  # the world is not as we need it; what it is says more than where we met it
            fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error) or repr(error))
        settings = sys.modules.get("inbound.settings")  # pydantic-settings is slow to import: only who has read them pays
        if settings is None or not isinstance(error, settings.SettingsError):
            raise
        fail(str(error))


def fail(message: str, code: int = 2) -> NoReturn:
    """Print `inbound: message` to stderr and exit."""
    complain("\n".join(f"inbound: {line}" for line in message.splitlines()), code)


def spool_trouble(data: Path, error: Exception) -> str:
    """What to tell of a spool that cannot be used: which folder it is, and why."""
    why = re.sub(r"^\[Errno [0-9]+\] ", "", str(error))
    return f"cannot use the data folder {data}: {why}"


def complain(message: str, code: int) -> NoReturn:
    """Print `message` as it is to stderr and exit."""
    click.echo(message, err=True)
    sys.exit(code)
