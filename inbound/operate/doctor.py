"""Tries for real what a rule file and the settings need, where that is harmless: AWS resources, certificate, smarthost, DNS, disk."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from inbound.assess.dns import Resolver
from inbound.decide.rules import Bounce, RuleSet
from inbound.deliver.aws.client import AwsClient
from inbound.deliver.pressure import free_octets, reserve
from inbound.deliver.sinks import SinkDown, SinkFailure
from inbound.deliver.smtp import SmtpSmarthost
from inbound.operate.policy import Need, needs
from inbound.settings import Settings, SmtpServer

SECONDS = 20.0  # for each check
SOON = datetime.timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried: is it well, and what was seen or what to do."""

    what: str
    ok: bool
    detail: str


async def examine(settings: Settings, rule_set: RuleSet, aws: AwsClient, resolver: Resolver) -> list[Finding]:
    """Every check, run together; none takes longer than 20 seconds, none raises."""
    wanted = _once(needs(rule_set, settings.alert_topic))
    checks = [_tried(f"{need.on} {need.name}" + (f" as {need.role}" if need.role else ""), _aws(aws, need)) for need in wanted]
    checks.append(_tried("disk", _disk(settings)))
    if settings.tls_cert is not None:
        checks.append(_tried("certificate", _certificate(settings.tls_cert)))
    if settings.smarthost is not None:
        checks.append(_tried(f"smarthost {settings.smarthost}", _smarthost(settings.smarthost, settings.hostname)))
    checks += [_tried(f"SPF of {domain}", _spf(resolver, domain, settings.hostname)) for domain in bounce_domains(rule_set)]
    checks += [_tried(f"MX of {domain}", _mx(resolver, domain, settings.hostname)) for domain in domains(rule_set)]
    checks.append(_tried(f"address of {settings.hostname}", _address(resolver, settings.hostname)))
    return list(await asyncio.gather(*checks))


def bounce_domains(rule_set: RuleSet) -> list[str]:
    """The domains that the enabled rules send bounces from."""
    senders = [action.only.Sender for rule in rule_set.rules if rule.Enabled for action in rule.Actions if isinstance(action.only, Bounce)]
    return list(dict.fromkeys(sender.rpartition("@")[2] for sender in senders))


def domains(rule_set: RuleSet) -> list[str]:
    """The domains that mail is received for: of the identities, else of the recipients."""
    entries = rule_set.identities or [entry for rule in rule_set.rules if rule.Enabled for entry in rule.Recipients]
    return list(dict.fromkeys(entry.rpartition("@")[2].lstrip(".") for entry in entries))


LOOKS = {"bucket": "s3:ListBucket", "topic": "sns:GetTopicAttributes", "key": "kms:DescribeKey"}
UNKNOWN = "DNS does not answer:"
NAMELESS = "INBOUND_HOSTNAME is the public name that MX records name"
FORBIDDEN = ("403", "AccessDenied", "AuthorizationError")

Check = Callable[[], Awaitable[str]]


class Unwell(Exception):
    """What is wrong, and what to do."""


async def _tried(what: str, check: Check) -> Finding:
    try:
        return Finding(what, True, await asyncio.wait_for(check(), SECONDS))
    except (Unwell, SinkFailure, OSError, ValueError) as error:
        return Finding(what, False, str(error))
    except TimeoutError:
        return Finding(what, False, f"no answer within {SECONDS:.0f} s")


def _once(wanted: list[Need]) -> list[Need]:
    """One look at each thing, though it may need several permissions."""
    return list({(need.role, need.on, need.name): need for need in reversed(wanted)}.values())[::-1]


def _aws(aws: AwsClient, need: Need) -> Check:
    async def check() -> str:
        try:
            await aws.look(need.on, need.name, role=need.role or None)
        except SinkDown as error:
            if need.on in LOOKS and any(word in str(error) for word in FORBIDDEN):
                return f"can not be seen ({error}): to look needs {LOOKS[need.on]}, to receive only {need.action}"
            raise
        return "is there, and ours to use"

    return check


def _disk(settings: Settings) -> Check:
    async def check() -> str:
        place = next(p for p in (settings.data, *settings.data.absolute().parents) if p.exists())
        free, reserved = free_octets(place), reserve(settings.max_message_size)
        if free < reserved:
            raise Unwell(f"{free // 2**20} MB free at {place}; no mail is taken below {reserved // 2**20} MB, and an outage needs room too")
        return f"{free // 2**20} MB free at {place}"

    return check


def _certificate(path: Path) -> Check:
    async def check() -> str:
        certificate = x509.load_pem_x509_certificate(await asyncio.to_thread(path.read_bytes))
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        if left < SOON:
            raise Unwell(f"{path} expires {certificate.not_valid_after_utc:%Y-%m-%d}; renew it")
        return f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}"

    return check


def _smarthost(server: SmtpServer, hostname: str) -> Check:
    async def check() -> str:
        name = await SmtpSmarthost(server, hostname).greet()
        return f"answers as {name}" + (f", and lets {server.username} in" if server.username else "")

    return check


def _spf(resolver: Resolver, domain: str, hostname: str) -> Check:
    async def check() -> str:
        answer = await resolver.lookup(domain, "TXT")
        if answer.failed:
            raise Unwell(f"{UNKNOWN} {answer.outcome}")
        found = [text for text in answer.texts if text.lower().split(b" ")[0] == b"v=spf1"]
        if len(found) != 1:
            wanted = f'{domain}. IN TXT "v=spf1 a:{hostname} ~all"'
            raise Unwell(f"{len(found)} SPF records, where there must be one; bounces from it are distrusted. Publish: {wanted}")
        return found[0].decode("ascii", "backslashreplace")

    return check


def _mx(resolver: Resolver, domain: str, hostname: str) -> Check:
    async def check() -> str:
        answer = await resolver.lookup(domain, "MX")
        names = [name.rstrip(".").lower() for name in answer.values]
        if answer.failed:
            raise Unwell(f"{UNKNOWN} {answer.outcome}")
        if not names:
            wanted = f"publish: {domain}. IN MX 10 {hostname}." if "." in hostname else f"publish an MX record with the name of this host; {NAMELESS}"
            raise Unwell(f"{answer.outcome}; {wanted}")
        if hostname.lower() not in names:
            raise Unwell(f"names {', '.join(names)}, not {hostname}; mail goes there")
        return f"names {hostname}"

    return check


def _address(resolver: Resolver, hostname: str) -> Check:
    async def check() -> str:
        answers = [await resolver.lookup(hostname, rdtype) for rdtype in ("A", "AAAA")]
        addresses = [value for answer in answers for value in answer.values]
        if not addresses:
            failed = next((answer for answer in answers if answer.failed), None)
            raise Unwell(f"{UNKNOWN} {failed.outcome}" if failed else f"{answers[0].outcome}; {NAMELESS}")
        for address in addresses:
            reverse = await resolver.lookup(_reverse(address), "PTR")
            if reverse.failed:
                raise Unwell(f"{address}: {UNKNOWN} {reverse.outcome}")
            if hostname.lower() not in (name.rstrip(".").lower() for name in reverse.values):
                raise Unwell(f"{address} has no PTR record that says {hostname}; bounces from it are distrusted")
        return ", ".join(addresses)

    return check


def _reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer
