"""`inbound verify`: the verdicts on a message in a file, and why."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbound.operate.cli import fail

if TYPE_CHECKING:
    from inbound.accept.envelope import Envelope
    from inbound.assess.assessor import Findings
    from inbound.assess.verdicts import Assessment


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--ip", default="", help="The client's address. Without it SPF is not judged.")
@click.option("--helo", default="", help="What the client said in EHLO.  [default: its address]")
@click.option("--from", "sender", default=None, help="The reverse-path; '' for a bounce.  [default: the address of Return-Path, else of From]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(file: Path, ip: str, helo: str, sender: str | None, as_json: bool) -> None:
    """Tell the verdicts on the message in FILE (- for standard input), and why.

    SPF, DKIM and DMARC by DNS (INBOUND_DNS, else the system's), spam and viruses where INBOUND_RSPAMD and INBOUND_CLAMD name scanners.
    Keys are asked for now, and times are compared with now: an old message may have had other verdicts when it came.
    Exits with 1 when a verdict is FAIL.
    """
    from inbound import log  # noqa: PLC0415  # --help need not pay for them
    from inbound.settings import read  # noqa: PLC0415

    log.configure(level="error")
    try:
        with click.open_file(str(file), "rb") as opened:
            content = wire_form(opened.read())
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror or error}")
    found = envelope(content, ip=client_address(ip), helo=helo, sender=sender)
    assessment, findings = asyncio.run(judge(read(), found, content))
    if as_json:
        click.echo(json.dumps(as_facts(found, assessment, findings), indent=2))
    else:
        click.echo("\n".join(told(found, assessment, findings)))
    if any(verdict.status == "FAIL" for verdict in assessment.verdicts().values()):
        raise SystemExit(1)


def wire_form(data: bytes) -> bytes:
    """The message as it travelled: lines end with CRLF."""
    return data if b"\r\n" in data else data.replace(b"\n", b"\r\n")


def client_address(text: str) -> str:
    """The address, or nothing if none was given; exits for what is none."""
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        return fail(f"--ip: {text!r} is no IP address (192.0.2.1, 2001:db8::1)")


def envelope(content: bytes, *, ip: str, helo: str, sender: str | None) -> Envelope:
    """The envelope that is supposed."""
    from inbound.accept.envelope import Envelope, Peer, new_message_id  # noqa: PLC0415  # --help need not pay for it

    reverse_path = supposed_sender(content) if sender is None else sender.strip("<>")
    return Envelope(new_message_id(), Peer(ip), helo or (f"[{ip}]" if ip else ""), reverse_path, ("postmaster@localhost",), time.time())


def supposed_sender(content: bytes) -> str:
    """The address in the topmost Return-Path, else the first in From."""
    from inbound.assess import addresses  # noqa: PLC0415  # --help need not pay for it
    from inbound.assess.message import HEAD, parse  # noqa: PLC0415

    fields = parse(content[:HEAD]).fields
    for name in ("return-path", "from"):
        first = next((each for each in fields if each.name.lower() == name), None)
        if first is not None:
            found = [address for item in addresses.read(first.value) for address in item.addresses]
            return found[0] if found else ""
    return ""


async def judge(settings: Any, supposed: Envelope, content: bytes) -> tuple[Assessment, Findings]:
    """The verdicts, and the findings behind three of them."""
    from inbound import log  # noqa: PLC0415  # --help need not pay for them
    from inbound.assess.rendering import BytesContent  # noqa: PLC0415
    from inbound.assess.verdicts import SCANS  # noqa: PLC0415
    from inbound.service import assessor  # noqa: PLC0415

    message = BytesContent(content)
    checks = assessor(settings.model_copy(update={"scan_failure": "continue"}), log.get())
    try:
        found, findings = await checks.findings(supposed, message)
        return await checks(supposed, message, scan=True, earlier=replace(found, unscanned=SCANS)), findings
    finally:
        await checks.close()


def as_facts(supposed: Envelope, assessment: Assessment, findings: Findings) -> dict[str, Any]:
    """For programs."""
    return {
        "client": supposed.peer.address, "helo": supposed.helo, "sender": supposed.reverse_path,
        "verdicts": {name: asdict(verdict) for name, verdict in assessment.verdicts().items()}, "dmarc_policy": assessment.dmarc_policy,
        "author": asdict(findings.author), "spf": asdict(findings.spf) if findings.spf else None,
        "dkim": [asdict(each) for each in findings.dkim.signatures], "dkim_omitted": findings.dkim.omitted, "dmarc": asdict(findings.dmarc),
    }


def told(supposed: Envelope, assessment: Assessment, findings: Findings) -> list[str]:
    """For people."""
    from inbound.operate.cli.route import safe  # noqa: PLC0415  # --help need not pay for it

    client = f"{supposed.peer.address}, HELO {safe(supposed.helo)}" if supposed.peer.address else "not told (--ip)"
    lines = [f"client      {client}", f"sender      {safe(supposed.reverse_path or '<>')}",
             f"author      {safe(findings.author.domain or findings.author.problem)}", ""]
    for name, verdict in assessment.verdicts().items():
        lines.append(f"{name:<12}{click.style(f'{verdict.status!s:<19}', fg=_COLOURS.get(verdict.status, 'yellow'))}{safe(verdict.reason)}")
        if name == "dkim":
            lines += [f"            {each.result!s:<10} {safe(described(each))}" for each in findings.dkim.signatures]
    return lines


def described(signature: Any) -> str:
    """One signature in a line."""
    size = f", {signature.bits} bits" if signature.bits else ""
    who = f"d={signature.domain} s={signature.selector}{f', {signature.algorithm}' if signature.algorithm else ''}{size}"
    return f"{who}: {signature.reason}" if signature.reason else who


_COLOURS = {"PASS": "green", "FAIL": "red", "DISABLED": "bright_black"}
