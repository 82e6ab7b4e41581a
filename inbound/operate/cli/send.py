"""`inbound send`: a test message by SMTP, and its route when the service is a local `inbound dev`."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import smtplib
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from email import policy
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


class Ordered(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """NAME=STATUS."""

    name = "name=status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        from inbound.assess.trial import ORDERED  # noqa: PLC0415  # --help need not pay for it
        from inbound.assess.verdicts import VERDICTS  # noqa: PLC0415

        name, _, status = str(value).partition("=")
        name, status = name.strip().lower(), status.strip().upper()
        if name not in VERDICTS or status not in ORDERED:
            self.fail(f"{value!r} is not NAME=STATUS, with {', '.join(VERDICTS)} and {', '.join(ORDERED)}", param, ctx)
        return name, status


class IpAddress(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """An IP address."""

    name = "ip"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            self.fail(f"{value!r} is not an IP address (192.0.2.1, 2001:db8::1)", param, ctx)


class HeloName(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """What a client may call itself."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from inbound.accept.address import helo_name  # noqa: PLC0415  # --help need not pay for it

        if helo_name(str(value).encode()) != value:
            self.fail(f"{value!r} is not one word of printable ASCII (client.example)", param, ctx)
        return str(value)


@dataclass(frozen=True, slots=True)
class Guise:
    """As whom the message is sent: the client's address and its name for itself, where they are not our own; over TLS or not."""

    ip: str | None = None
    helo: str | None = None
    tls: bool = False


@click.command()
@click.option("--to", "recipients", multiple=True, required=True, metavar="ADDR", help="A recipient; repeat it for several.")
@click.option("--from", "sender", default="sender@example.net", show_default=True, help="The reverse-path; '' for a bounce.")
@click.option("--subject", default="Test message from inbound send", show_default=True)
@click.option("--eml", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this message as it is.")
@click.option("--eicar", is_flag=True, help="Attach the harmless file that every virus scanner reports.")
@click.option("--gtube", is_flag=True, help="Write the line that every spam scanner reports.")
@click.option("--sign", is_flag=True, help="Sign it by DKIM for its From domain; a running dev gets to know the key.")
@click.option("--verdict", "verdicts", type=Ordered(), multiple=True, metavar="NAME=STATUS",
              help="Have a running dev form this verdict: spf, dkim, dmarc, spam or virus = PASS, FAIL, GRAY or PROCESSING_FAILED.")
@click.option("--ip", type=IpAddress(), metavar="ADDR", help="Send as if from this IP address, by XCLIENT: to a dev, or from INBOUND_TRUSTED.")
@click.option("--helo", type=HeloName(), metavar="NAME", help="Say EHLO with this name.")
@click.option("--tls", is_flag=True, help="Start TLS first; the certificate is not checked.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many times.")
@click.option("--smtp", type=HostPort(), help="Where to send it; default: the running dev, else 127.0.0.1:2525.")
@click.option("--http", type=HostPort(), help="Where to ask for the route; default: the running dev, else 127.0.0.1:8025.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("var"), envvar="INBOUND_DATA", help="The data folder of the running dev.")
@click.option("--json", "as_json", is_flag=True, help="Print the replies and the route as JSON.")
def send(recipients: tuple[str, ...], sender: str, subject: str, eml: Path | None, eicar: bool, gtube: bool, sign: bool,
         verdicts: tuple[tuple[str, str], ...], ip: str | None, helo: str | None, tls: bool, count: int, smtp: Address | None,
         http: Address | None, data: Path, as_json: bool) -> None:
    """Send a test message, and tell its route when the service is a local dev."""
    running = running_dev(data)
    smtp = smtp or address(running.get("smtp", "127.0.0.1:2525"))
    http = http or address(running.get("http", "127.0.0.1:8025"))
    if eml and (eicar or gtube):
        fail("--eicar and --gtube make the test message; with --eml put them into the file")
    content = wire_form(eml.read_bytes()) if eml else sample(sender, recipients, subject, eicar=eicar, gtube=gtube)
    if sign or verdicts:
        content = ordered(http, content, sign=sign, verdicts=dict(verdicts))
    guise = Guise(ip, helo, tls)
    try:
        if count > 1:
            many(smtp, guise, sender, recipients, content, count, as_json=as_json)
            return
        with connect(smtp, guise) as client:
            reply, refused = transaction(client, sender, recipients, content)
    except Refused as error:
        if as_json:
            click.echo(json.dumps({"reply": str(error)}))
        fail(f"{smtp} answered: {error}", 1)
    except (OSError, smtplib.SMTPException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        fail(f"no SMTP server answers at {smtp} ({why}); start one with 'inbound dev', or name it with --smtp HOST:PORT", 1)
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


def ordered(http: Address, content: bytes, *, sign: bool, verdicts: dict[str, str]) -> bytes:
    """The message as it is to be sent, once the running dev knows of it: the verdicts it shall have, and the key that it is signed with."""
    content, records = signed(content) if sign else (content, {})
    sent = content if content.endswith(b"\r\n") else content + b"\r\n"  # as smtplib sends it
    order = {"sha256": hashlib.sha256(sent).hexdigest(), "verdicts": verdicts, "records": records}
    request = urllib.request.Request(f"http://{http}/dev/orders", json.dumps(order).encode(), {"Content-Type": "application/json"})
    try:
        with local_opener().open(request, timeout=10):
            return content
    except (OSError, urllib.error.URLError) as error:
        fail(f"--sign and --verdict need a running 'inbound dev', and none answers at http://{http} ({error}); name it with --http HOST:PORT", 1)


def signed(content: bytes) -> tuple[bytes, dict[str, str]]:
    """The message with a signature of its From domain by a new key, and the DNS record of that key."""
    from inbound.assess.author import author  # noqa: PLC0415  # only where it is asked for
    from inbound.assess.dkim.sign import key_record, new_key  # noqa: PLC0415
    from inbound.assess.dkim.sign import sign as signature  # noqa: PLC0415
    from inbound.assess.message import HEAD, parse  # noqa: PLC0415

    found = author(content[:HEAD], parse(content[:HEAD]))
    if not found.domain:
        fail(f"--sign signs for the From domain of a message: {found.problem}", 1)
    key, selector = new_key(), f"inbound-{secrets.token_hex(4)}"
    line = signature(content, domain=found.domain, selector=selector, key_pem=key)
    return line + content, {f"{selector}._domainkey.{found.domain}": key_record(key)}


def sample(sender: str, recipients: tuple[str, ...], subject: str, *, eicar: bool = False, gtube: bool = False) -> bytes:
    """A small message: plain, with the line that is spam to every scanner, with the attachment that is a virus to every scanner."""
    message = EmailMessage(policy.default if is_ascii((sender, *recipients)) else policy.SMTPUTF8)
    message["From"] = f"Inbound Sender <{sender or 'mailer-daemon@example.net'}>"
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Date"] = formatdate(usegmt=False)
    message["Message-ID"] = make_msgid(domain="example.net")
    text = "Hello,\n\nthis is a test message from `inbound send`.\n"
    if eicar or gtube:
        from inbound.assess.trial import EICAR, GTUBE  # noqa: PLC0415  # only where it is asked for

        text += f"\n{GTUBE.decode()}\n" if gtube else ""
    message.set_content(text)
    if eicar:
        message.add_attachment(EICAR, maintype="application", subtype="octet-stream", filename="eicar.com")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def is_ascii(addresses: Iterable[str]) -> bool:
    """Do they go through every SMTP server?"""
    return all(address.isascii() for address in addresses)


class Refused(Exception):
    """The server refused the whole transaction."""


def connect(smtp: Address, guise: Guise) -> smtplib.SMTP:
    """A session after EHLO. Raises OSError, SMTPException, Refused."""
    try:
        client = smtplib.SMTP(smtp.host or "127.0.0.1", smtp.port, guise.helo, timeout=60)
    except smtplib.SMTPConnectError as error:
        text = error.smtp_error
        raise Refused(f"{error.smtp_code} {text.decode('ascii', 'replace') if isinstance(text, bytes) else text}") from None
    client.ehlo_or_helo_if_needed()
    if guise.tls:
        _start_tls(client)
    if guise.ip:
        if not client.has_extn("xclient"):
            raise Refused("XCLIENT, which --ip needs, is not offered to you; 'inbound dev' takes it from this machine, 'inbound serve' from "
                          "INBOUND_TRUSTED")
        _greeted(client.docmd("XCLIENT", f"ADDR={'IPV6:' if ':' in guise.ip else ''}{guise.ip}"))
        client.ehlo()
    return client


def _greeted(answer: tuple[int, bytes]) -> None:
    code, text = answer
    if code != 220:
        raise Refused(f"{code} {text.decode('ascii', 'replace')}")


def _start_tls(client: smtplib.SMTP) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _greeted(client.starttls(context=context))
    except smtplib.SMTPNotSupportedError:
        raise Refused("STARTTLS is not offered") from None
    client.ehlo()


def transaction(client: smtplib.SMTP, sender: str, recipients: tuple[str, ...], content: bytes) -> tuple[str, list[str]]:
    """(the reply to the final dot, a line for each recipient refused). Raises Refused."""
    international = [] if is_ascii((sender, *recipients)) else ["SMTPUTF8"]
    if international and not client.has_extn("smtputf8"):
        raise Refused("SMTPUTF8, which an address beyond ASCII needs, is not offered; INBOUND_SMTPUTF8=true offers it")
    _expect(client.mail(sender, [f"size={len(content)}", *international]), client)
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


def many(smtp: Address, guise: Guise, sender: str, recipients: tuple[str, ...], content: bytes, count: int, *, as_json: bool) -> None:
    """Send the message `count` times over one connection, with a progress bar on a terminal."""
    started = time.monotonic()
    client = connect(smtp, guise)
    with client, click.progressbar(length=count, label="sending", file=sys.stderr) as bar:
        replies: list[str] = []
        refused: dict[str, None] = {}  # each line once, though each message may bring it
        while len(replies) < count:
            try:
                reply, lines = transaction(client, sender, recipients, content)
            except Refused as error:
                raise Refused(f"{error} (message {len(replies) + 1} of {count})") from None
            replies.append(reply)
            refused.update(dict.fromkeys(lines))
            bar.update(1)
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps({"replies": replies, "refused": list(refused), "seconds": round(seconds, 3)}))
    else:
        for line in refused:
            click.echo(line)
        click.echo(replies[-1])
        click.echo(f"{count} messages in {seconds:.1f} s ({count / seconds:.0f} a second)")


def local_opener() -> urllib.request.OpenerDirector:
    """Opens URLs of this machine, whatever proxy the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(http: Address, message_id: str) -> dict[str, Any] | None:
    """The route of a message from a service that answers on this machine; None when none does, or when it does not know the message."""
    try:
        with local_opener().open(f"http://{http}/messages/{message_id}?wait=40", timeout=45) as answer:
            route: dict[str, Any] = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return route
