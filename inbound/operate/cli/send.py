"""`inbound send`: a test message by SMTP, and its route when the service is a local `inbound dev`."""

from __future__ import annotations

import json
import smtplib
import sys
import time
import urllib.error
import urllib.request
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

import click

from inbound.operate.cli import fail
from inbound.operate.cli.route import render
from inbound.settings import Address, address


class HostPort(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """HOST:PORT."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            found: Address = address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return found


@click.command()
@click.option("--to", "recipients", multiple=True, required=True, metavar="ADDR", help="A recipient; repeat it for several.")
@click.option("--from", "sender", default="sender@example.net", show_default=True, help="The reverse-path; '' for a bounce.")
@click.option("--subject", default="Test message from inbound send", show_default=True)
@click.option("--eml", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this message as it is.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many times.")
@click.option("--smtp", type=HostPort(), help="Where to send it; default: the running dev, else 127.0.0.1:2525.")
@click.option("--http", type=HostPort(), help="Where to ask for the route; default: the running dev, else 127.0.0.1:8025.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("var"), envvar="INBOUND_DATA", help="The data folder of the running dev.")
@click.option("--json", "as_json", is_flag=True, help="Print the replies and the route as JSON.")
def send(recipients: tuple[str, ...], sender: str, subject: str, eml: Path | None, count: int, smtp: Address | None, http: Address | None,
         data: Path, as_json: bool) -> None:
    """Send a test message, and tell its route when the service is a local dev."""
    running = running_dev(data)
    smtp = smtp or address(running.get("smtp", "127.0.0.1:2525"))
    http = http or address(running.get("http", "127.0.0.1:8025"))
    content = wire_form(eml.read_bytes()) if eml else sample(sender, recipients, subject)
    try:
        if count > 1:
            many(smtp, sender, recipients, content, count, as_json=as_json)
            return
        with connect(smtp) as client:
            reply, refused = transaction(client, sender, recipients, content)
    except Refused as error:
        if as_json:
            click.echo(json.dumps({"reply": str(error)}))
        fail(f"{smtp} answered: {error}", 1)
    except (OSError, smtplib.SMTPException) as error:
        fail(f"no SMTP server answers at {smtp} ({error}); start one with 'inbound dev', or name it with --smtp HOST:PORT", 1)
    route = ask(http, reply.split()[-1])
    if as_json:
        click.echo(json.dumps({"reply": reply, "refused": refused, "route": route}, indent=2))
        return
    for line in refused:
        click.echo(line)
    click.echo(reply)
    if route is not None:
        click.echo(render(route))


def running_dev(data: Path) -> dict[str, str]:
    """What `inbound dev` wrote about itself into its data folder, or nothing."""
    try:
        found: dict[str, str] = json.loads((data / "dev.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def wire_form(data: bytes) -> bytes:
    """The message as it travels: a file saved with bare line feeds gets CRLF; any other is sent as it is."""
    return data if b"\r\n" in data else data.replace(b"\n", b"\r\n")


def sample(sender: str, recipients: tuple[str, ...], subject: str) -> bytes:
    """A small plain message."""
    message = EmailMessage()
    message["From"] = f"Inbound Sender <{sender or 'mailer-daemon@example.net'}>"
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Date"] = formatdate(usegmt=False)
    message["Message-ID"] = make_msgid(domain="example.net")
    message.set_content("Hello,\n\nthis is a test message from `inbound send`.\n")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


class Refused(Exception):
    """The server refused the whole transaction."""


def connect(smtp: Address) -> smtplib.SMTP:
    """A session after EHLO. Raises OSError, SMTPException, Refused."""
    client = smtplib.SMTP(timeout=60)
    code, text = client.connect(smtp.host or "127.0.0.1", smtp.port)
    if code != 220:
        raise Refused(f"{code} {text.decode('ascii', 'replace')}")
    client.ehlo_or_helo_if_needed()
    return client


def transaction(client: smtplib.SMTP, sender: str, recipients: tuple[str, ...], content: bytes) -> tuple[str, list[str]]:
    """(the reply to the final dot, a line for each recipient refused). Raises Refused."""
    _expect(client.mail(sender, [f"size={len(content)}"]), client)
    refused = []
    for recipient in recipients:
        code, text = client.rcpt(recipient)
        if code not in (250, 251):
            refused.append(f"{recipient}: {code} {text.decode('ascii', 'replace')}")
    if len(refused) == len(recipients):
        client.rset()
        raise Refused("; ".join(refused))
    return _expect(client.data(content), client), refused


def _expect(answer: tuple[int, bytes], client: smtplib.SMTP) -> str:
    code, text = answer
    line = f"{code} {text.decode('ascii', 'replace')}"
    if code != 250:
        client.rset()
        raise Refused(line)
    return line


def many(smtp: Address, sender: str, recipients: tuple[str, ...], content: bytes, count: int, *, as_json: bool) -> None:
    """Send the message `count` times over one connection, with a progress bar on a terminal."""
    started = time.monotonic()
    client = connect(smtp)
    with client, click.progressbar(length=count, label="sending", file=sys.stderr) as bar:
        replies: list[str] = []
        while len(replies) < count:
            replies.append(transaction(client, sender, recipients, content)[0])
            bar.update(1)
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps({"replies": replies, "seconds": round(seconds, 3)}))
    else:
        click.echo(replies[-1])
        click.echo(f"{count} messages in {seconds:.1f} s ({count / seconds:.0f} a second)")


def ask(http: Address, message_id: str) -> dict[str, Any] | None:
    """The route of a message from a service that answers on this machine; None when none does, or when it does not know the message."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{http}/messages/{message_id}?wait=40", timeout=45) as answer:
            route: dict[str, Any] = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return route
