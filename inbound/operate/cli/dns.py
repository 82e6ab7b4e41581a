"""`inbound dns`: the DNS records to publish, ready for a zone file."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict

import click

from inbound.operate.cli import fail


@click.command()
@click.argument("domain")
@click.option("--hostname", help="The public name of this host; default: INBOUND_HOSTNAME.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dns(domain: str, hostname: str | None, as_json: bool) -> None:
    """Print the DNS records to publish so that mail for DOMAIN comes to this host: MX, SPF, DKIM, MTA-STS, TLS reports, TLSA.

    TLSA and MTA-STS come with a certificate, INBOUND_TLS_CERT; DKIM, for bounces, with INBOUND_DKIM_KEY.
    """
    from inbound.operate.records import mta_sts, records, signing  # noqa: PLC0415  # --help need not pay for it
    from inbound.settings import read  # noqa: PLC0415

    settings = read()
    name = hostname or settings.hostname
    for what, value in (("DOMAIN", domain), ("the host name", name)):
        if not re.fullmatch(r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}", value):
            fail(f"{what} is not a full domain name: {value!r}" + ("; set INBOUND_HOSTNAME or --hostname" if value == name else ""))
    try:
        certificate = settings.tls_cert.read_bytes() if settings.tls_cert else None
        found = records(domain, name, certificate=certificate, policy_id=time.strftime("%Y%m%d%H%M%S", time.gmtime()))
    except (OSError, ValueError) as error:
        fail(f"INBOUND_TLS_CERT: {settings.tls_cert} can not be read as a PEM certificate: {_why(error)}")
    if settings.dkim_key is not None:
        try:
            found.append(signing(settings.dkim_domain, settings.dkim_selector, settings.dkim_key.read_bytes()))
        except (OSError, ValueError) as error:
            fail(f"INBOUND_DKIM_KEY: {settings.dkim_key} can not be read as a key to sign with: {_why(error)}")
    if as_json:
        click.echo(json.dumps({"records": [asdict(r) for r in found], "mta_sts": mta_sts(name) if certificate else None}, indent=2))
        return
    for record in found:
        click.echo(f"; {record.why}\n{record.line()}\n")
    if certificate:
        click.echo(f"; at https://mta-sts.{domain}/.well-known/mta-sts.txt")
        click.echo("".join(f";   {line}\n" for line in mta_sts(name).splitlines()))


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
