"""The environment as one frozen `Settings`; the only reader of os.environ.

Credentials and region are boto3's own (`AWS_*`, profiles, roles). The README's table of settings is held to this module by a test,
so each field's description is written for people.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_SUPERVISOR = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SECRETS = frozenset(("smarthost", "alert_hook"))  # settings whose value no error shows
_SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class SettingsError(Exception):
    """One line for each setting that is wrong: its name, what it holds, what it expects."""


class Address(NamedTuple):
    """A host (name or IP address) and a TCP port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SmtpAddress(NamedTuple):
    """Where SMTP is spoken; with `tls`, written `smtps://HOST:PORT`, TLS begins with the connection."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        return f"{'smtps://' if self.tls else ''}{Address(self.host, self.port)}"


def address(text: Any) -> Any:
    """`HOST:PORT`, `[IPV6]:PORT` or `:PORT`. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*)):([0-9]{1,5})", str(text).strip())
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT (127.0.0.1:2525, [::1]:2525)")
    return Address(match[1] or match[2] or "", int(match[3]))


def _addresses(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    found = tuple(_smtp_address(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise ValueError(f"{text!r} names no HOST:PORT (127.0.0.1:2525, [::1]:2525, smtps://0.0.0.0:465)")
    return found


def _smtp_address(text: str) -> SmtpAddress:
    try:
        host, port = address(text.removeprefix("smtps://"))
        return SmtpAddress(host, port, text.startswith("smtps://"))
    except ValueError:
        raise ValueError(f"{text!r} is neither HOST:PORT nor smtps://HOST:PORT (127.0.0.1:2525, [::1]:2525, smtps://0.0.0.0:465)") from None


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:\[\]-]{1,255}", text):
        raise ValueError(f"{text!r} is not a host name or address literal (mx.example.com, [192.0.2.1])")
    return text


def _authserv_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,255}", text):
        raise ValueError(f"{text!r} is not a word of letters, digits, '.', '_' and '-' (mx.example.com)")
    return text


def duration(text: Any) -> Any:
    """Seconds from `90`, `90s`, `15m`, `4h` or `7d`. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time (90s, 15m, 4h, 7d)")
    return float(match[1]) * _UNITS[match[2] or "s"]


def size(text: Any) -> Any:
    """Octets from `41943040`, `512k`, `40m` or `1g`. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)b?", str(text).strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size in octets (41943040, 512k, 40m)")
    return int(match[1]) * _SIZES[match[2]]


def _networks(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a comma list of IP networks (10.0.0.0/8, 2001:db8::/32)") from None


def _servers(text: Any) -> Any:
    """IP addresses of DNS servers, the port 53 where none is given."""
    if not isinstance(text, str):
        return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(Address(str(ipaddress.ip_address(host)), port) for host, port in map(_server, parts))
    except ValueError:
        raise ValueError(f"{text!r} is not a comma list of IP addresses or IP:PORT (192.0.2.53, 127.0.0.1:5353, [::1]:53)") from None


def _server(text: str) -> Address:
    try:
        return Address(str(ipaddress.ip_address(text.strip("[]"))), 53)
    except ValueError:
        found: Address = address(text)
        return found


def _socket(text: Any) -> Any:
    """An absolute path, or HOST:PORT."""
    if not isinstance(text, str):
        return text
    if text.startswith("/"):
        return Path(text)
    try:
        return address(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither HOST:PORT nor the path of a socket (127.0.0.1:3310, /run/clamav/clamd.ctl)") from None


def _url(text: Any) -> Any:
    """A URL, or HOST:PORT of one."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(https?)://)?([^/?#@\s]+:[0-9]+|[^/?#@\s:]+|\[[^\]]*\])(/[^?#\s]*)?", str(text).strip())
    if match is None or not (match[1] or ":" in match[2]):
        raise ValueError(f"{text!r} is neither HOST:PORT nor a URL (127.0.0.1:11333, http://rspamd.internal:11333)")
    return f"{match[1] or 'http'}://{match[2]}{(match[3] or '').rstrip('/')}"


def topic(text: Any) -> Any:
    """The ARN of an SNS topic. Raises ValueError."""
    if text is None or re.fullmatch(r"arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}", str(text).strip()):
        return text and str(text).strip()
    raise ValueError(f"{text!r} is not the ARN of an SNS topic (arn:aws:sns:us-east-1:123456789012:alerts)")


def _hook(text: Any) -> Any:
    """A URL that nothing shows. Raises ValueError, which never tells what the text holds."""
    if not isinstance(text, str):
        return text
    if not re.fullmatch(r"https?://[!-~]+", text.strip()) or not _has_host(text.strip()):
        raise ValueError("is not a URL that begins with https:// or http:// (https://hooks.example.com/inbound?token=…)")
    return SecretStr(text.strip())


def _has_host(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _refused(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    found = {part.strip().lower() for part in text.split(",") if part.strip()}
    if not found <= set(REFUSABLE):
        raise ValueError(f"{text!r} is not a comma list of {', '.join(REFUSABLE)}")
    return tuple(name for name in REFUSABLE if name in found)


REFUSABLE = ("virus", "spam", "dmarc", "spf")
"""The verdicts whose FAIL can be refused before a message is accepted."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """An SMTP server to send through. `tls` is `implicit`, or what STARTTLS is: `required`, `optional` or `off`.

    Nothing that shows it shows the password.
    """

    host: str
    port: int
    tls: Literal["implicit", "required", "optional", "off"]
    username: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return str(Address(self.host, self.port))


def smtp_server(text: Any) -> Any:
    """`smtp://[USER:PASSWORD@]HOST[:PORT][?starttls=required|optional|off]` or `smtps://…`; user and password may be percent-encoded.

    Without a port it is 25, for smtps 465. Without `starttls` it is required where there is a password, else optional. Raises ValueError, which
    never tells what the text holds.
    """
    if not isinstance(text, str):
        return text
    try:
        return _smtp_server(text.strip())
    except ValueError as error:
        raise ValueError(f"is not an SMTP URL (smtp://user:password@mail.example.com:587?starttls=required): {error}") from None


def _smtp_server(text: str) -> SmtpServer:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("it holds a space or another character that a URL cannot hold; percent-encode it")
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError("its brackets hold no IPv6 address") from None
    if url.scheme not in ("smtp", "smtps"):
        raise ValueError("it begins with neither smtp:// nor smtps://")
    if url.path not in ("", "/") or url.fragment:
        raise ValueError("there is more than a host, a port and ?starttls=; percent-encode '/', '?', '#' and '@' in the password")
    username, password = unquote(url.username or ""), unquote(url.password or "")
    if bool(username) != bool(password):
        raise ValueError("user and password go together (user:password@host)")
    tls = _tls(url, has_login=bool(username))
    host, port = _host_and_port(url)
    return SmtpServer(host, port, tls, username, password)


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    host = url.hostname or ""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", host):
        raise ValueError("it names no host")
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port is not a number from 1 to 65535")
    return host, port or (465 if url.scheme == "smtps" else 25)


def _tls(url: SplitResult, *, has_login: bool) -> Literal["implicit", "required", "optional", "off"]:
    query = parse_qsl(url.query, keep_blank_values=True)
    if url.scheme == "smtps":
        if query:
            raise ValueError("smtps is encrypted from the start; it takes no ?starttls=")
        return "implicit"
    match query:
        case []:
            return "required" if has_login else "optional"
        case [("starttls", ("required" | "optional" | "off") as told)]:
            return told
    raise ValueError("after '?' it takes starttls=required, starttls=optional or starttls=off")


class Rate(NamedTuple):
    """So many in so many seconds."""

    number: int
    seconds: float

    def __str__(self) -> str:
        unit = next((unit for unit, seconds in _UNITS.items() if seconds == self.seconds), f"{self.seconds:g}s")
        return f"{self.number}/{unit}"


def rate(text: Any) -> Any:
    """`20/h`, `5/10m`. Raises ValueError."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"([1-9][0-9]{0,8})/(([1-9][0-9]{0,8})?[smhd])", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not so many in a time (20/h, 5/10m)")
    return Rate(int(match[1]), duration(match[2] if match[3] else f"1{match[2]}"))


class Dnsbl(NamedTuple):
    """A DNS blocklist: its zone, and the pattern of the answers that mean `listed` (empty: any usual one)."""

    zone: str
    answers: str = ""

    def __str__(self) -> str:
        return f"{self.zone}={self.answers}" if self.answers else self.zone


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_OCTETS = rf"(?:{_OCTET}|\[{_OCTET}(?:\.\.{_OCTET})?(?:;{_OCTET}(?:\.\.{_OCTET})?)*\])"
_DNSBL = re.compile(r"(?P<zone>(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9-]{1,63})"
                    rf"(?:=(?P<answers>{_OCTETS}(?:\.{_OCTETS}){{3}}))?")


def _dnsbls(text: Any) -> Any:
    """A comma list of `zone` or `zone=127.0.0.[2..11]`. Raises ValueError."""
    if not isinstance(text, str):
        return text
    found = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        match = _DNSBL.fullmatch(each)
        if match is None:
            raise ValueError(f"{each!r} is not a DNS blocklist (zen.spamhaus.org, or zen.spamhaus.org=127.0.0.[2..11])")
        found.append(Dnsbl(match["zone"].lower(), match["answers"] or ""))
    return tuple(found)


def _dkim_name(text: str) -> str:
    if not re.fullmatch(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.|$)){0,20}(?<!\.)", text):
        raise ValueError(f"{text!r} is not a name in DNS (bounces, example.com)")
    return text


Duration = Annotated[float, BeforeValidator(duration)]
Size = Annotated[int, BeforeValidator(size)]
Network = IPv4Network | IPv6Network


class Settings(BaseSettings):
    """Everything an operator can set, each as `INBOUND_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="INBOUND_", frozen=True, extra="ignore", env_ignore_empty=True)

    listen: Annotated[tuple[SmtpAddress, ...], NoDecode, BeforeValidator(_addresses)] = Field(
        (SmtpAddress("127.0.0.1", 2525),), description="SMTP addresses, a comma list; `smtps://HOST:PORT` begins with TLS; port 0 lets the system "
        "choose and prints the port")
    hostname: Annotated[str, AfterValidator(_host_name)] = Field(
        default_factory=socket.gethostname, description="our name in the greeting, in Received and in bounces")
    rules: Path = Field(Path("rules.yaml"), description="the rule file, reloaded when it changes")
    data: Path = Field(Path("var"), description="the data folder; the spool lies in it")
    processes: int = Field(1, ge=1, le=64, description="processes that receive mail (`inbound serve`), each with a spool of its own below the data "
                           "folder; limits on connections, quotas and rates hold for each of them")
    http_listen: Annotated[Address, NoDecode, BeforeValidator(address)] = Field(
        Address("127.0.0.1", 8025), description="HTTP address: /healthz, /readyz, /metrics, /messages/ID; the last "
        "only by address, this host or `INBOUND_HOSTNAME`, or a name without a dot, so that no web page can read it by DNS rebinding")
    tls_cert: Path | None = Field(None, description="certificate chain (PEM) for STARTTLS and smtps, read again when it changes")
    tls_key: Path | None = Field(None, description="its private key (PEM)")
    authserv_id: Annotated[str, AfterValidator(_authserv_id)] = Field(
        "", description="our name in Authentication-Results; default: the host name. A sender's header that claims it is renamed")
    max_message_size: Size = Field(
        40 * 1024 * 1024, ge=1024, description="octets of a message, headers included; more is refused with 552 5.3.4")
    max_header_size: Size = Field(
        0, ge=0, description="octets of a header block; more is refused with 552 5.3.4. `0` sets no limit: the message is stored whole, the first "
        "100 KiB of its header are read")
    max_recipients: int = Field(1000, ge=100, description="recipients of one message; more get 452 4.5.3")
    max_messages: int = Field(1000, ge=0, description="messages of one connection, then 421 4.7.0; `0` sets no limit")
    max_connections: int = Field(1000, ge=1, description="SMTP connections in all; more get 421 4.7.0")
    max_connections_per_client: int = Field(50, ge=1, description="SMTP connections of one IPv4 address or IPv6 /64; more get 421 4.7.0")
    max_errors: int = Field(20, ge=1, description="refused commands of one session, then 421 4.7.0")
    max_junk_commands: int = Field(100, ge=10, description="commands of one session, between two messages, that bring none nearer (NOOP, RSET, EHLO, "
        "VRFY, ...), then 421 4.7.0")
    max_hops: int = Field(50, ge=10, description="Received fields of a message; more is a mail loop, 554 5.4.6")
    bare_newline: Literal["accept", "reject"] = Field(
        "accept", description="a CR or LF alone in a message: `accept` keeps it as it came, and it never ends a line, nor the message; "
        "`reject` refuses the message with 550 5.5.2, in BDAT as in DATA")
    command_timeout: Duration = Field(300.0, ge=1, description="time for a whole SMTP command to arrive")
    data_timeout: Duration = Field(180.0, ge=1, description="longest silence within DATA or BDAT")
    min_data_rate: int = Field(500, ge=0, description="octets a second that a message must bring on average once it has taken three minutes")
    trusted: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        (), description="networks without per-client limits (loopback has none, either), whose front ends may name their clients by XCLIENT; "
        "a comma list")
    proxy_from: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        (), description="networks of load balancers, a comma list: every connection from there must begin with a PROXY header (version 1 or 2), "
        "and none from elsewhere may")
    smtputf8: bool = Field(False, description="`true` offers SMTPUTF8: addresses and header fields beyond ASCII")
    dns: Annotated[tuple[Address, ...] | None, NoDecode, BeforeValidator(_servers)] = Field(
        None, description="DNS servers for SPF, DKIM, DMARC and the client's name: a list of `IP` or `IP:PORT`; default: those of /etc/resolv.conf")
    dnsbl: Annotated[tuple[Dnsbl, ...], NoDecode, BeforeValidator(_dnsbls)] = Field(
        (), description="DNS blocklists: a list of `ZONE` or `ZONE=127.0.0.[2..11]` (the answers that count). Recipients of a client that is listed "
        "get 554 5.7.1. An Allow filter overrides it, trusted networks are not asked about, and a list that does not answer lists nobody")
    rate_client: Annotated[Rate | None, NoDecode, BeforeValidator(rate)] = Field(
        None, description="most messages of one client address (IPv6: /64) in a time, as `100/h`; more get 450 4.7.1. Loopback and trusted networks "
        "are exempt; each process counts for itself")
    rate_sender: Annotated[Rate | None, NoDecode, BeforeValidator(rate)] = Field(
        None, description="most messages of one reverse-path in a time; more get 450 4.7.1")
    rate_recipient: Annotated[Rate | None, NoDecode, BeforeValidator(rate)] = Field(
        None, description="most messages to one recipient in a time; more get 450 4.7.1")
    dkim_verdict: Literal["exact", "relaxed"] = Field(
        "exact", description="whose signature makes dkimVerdict PASS: the From domain's own, or (`relaxed`) any of the same organization's")
    clamd: Annotated[Address | Path | None, NoDecode, BeforeValidator(_socket)] = Field(
        None, description="clamd, for the virus verdict: `HOST:PORT` or the path of its socket")
    clamd_max_size: Size = Field(25 * 1024 * 1024, ge=1, description="octets of a message that clamd is asked about at most; as its StreamMaxLength")
    rspamd: Annotated[str | None, NoDecode, BeforeValidator(_url)] = Field(
        None, description="rspamd's normal worker, for the spam verdict: `HOST:PORT` or a URL")
    rspamd_max_size: Size = Field(25 * 1024 * 1024, ge=1, description="octets of a message that rspamd is asked about at most; no more than its "
                                                                       "max_message")
    scan_timeout: Duration = Field(60.0, ge=0.1, description="time that a scanner has for a message")
    scan_failure: Literal["continue", "retry"] = Field(
        "continue", description="when a scanner does not answer: `continue` with the verdict PROCESSING_FAILED, or `retry`: the message waits for "
        "the scanner as for a sink, up to the retry time, then it is a dead letter")
    reject: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_refused)] = Field(
        (), description="verdicts whose FAIL is refused with 550 before a message is accepted: a comma list of `virus`, `spam`, `dmarc` "
        "(unless the domain's policy is none), `spf`. `virus` and `spam` scan every message, whatever ScanEnabled says")
    reject_timeout: Duration = Field(20.0, ge=0.1, description="time that those verdicts have; after it the message is accepted, and judged later")
    bounce: Literal["session", "dsn"] = Field(
        "session", description="`session`: where a bounce is all that the rules do for a recipient, it is the answer to RCPT; `dsn`: never")
    smarthost: Annotated[SmtpServer | None, NoDecode, BeforeValidator(smtp_server)] = Field(
        None, description="SMTP URL that bounces are sent through (`smtp://user:password@mail.example.com:587`, `smtps://…`); "
        "`?starttls=` is `required` (default where there is a password), `optional` (default elsewhere) or `off`")
    bounce_rate: Annotated[Rate, NoDecode, BeforeValidator(rate)] = Field(
        Rate(1000, 3600.0), description="most bounces sent in a time; what is over is suppressed")
    bounce_rate_per_sender: Annotated[Rate, NoDecode, BeforeValidator(rate)] = Field(
        Rate(20, 3600.0), description="most bounces sent to one reverse-path in a time")
    dkim_key: Path | None = Field(None, description="private key (PEM, RSA or Ed25519) that bounces are signed with")
    dkim_selector: Annotated[str, AfterValidator(_dkim_name)] = Field(
        "", description="its selector: the public key is the TXT record SELECTOR._domainkey.DOMAIN")
    dkim_domain: Annotated[str, AfterValidator(_dkim_name)] = Field("", description="its domain: that of the Sender of your bounces")
    stop_scope: Literal["recipients", "message"] = Field(
        "recipients", description="what a Stop ends: the evaluation for the recipients its rule matched, or for the whole message")
    retry_for: Duration = Field(4 * 3600.0, ge=1, description="how long a failing action is retried, then the message is a dead letter")
    retry_min: Duration = Field(60.0, gt=0, description="first wait before a retry")
    retry_max: Duration = Field(15 * 60.0, gt=0, description="longest wait before a retry")
    spool_max: Size | None = Field(
        None, ge=1, description="octets that the spool may take; beyond, MAIL gets 452 4.3.1; default: what the disk holds")
    spool_age: Duration | None = Field(
        None, ge=1, description="how long the oldest message may wait for a sink; beyond, MAIL gets 451 4.3.2, so that senders' queues carry the "
        "outage; default: half of `INBOUND_RETRY_FOR`")
    alert_topic: Annotated[str | None, BeforeValidator(topic)] = Field(
        None, description="ARN of an SNS topic that alerts are published to")
    alert_hook: Annotated[SecretStr | None, NoDecode, BeforeValidator(_hook)] = Field(
        None, description="URL that gets alerts as JSON, by POST; nothing shows it")
    retain: Duration = Field(7 * 86400.0, ge=0, description="how long the trace of a finished message is kept")
    retain_content: Duration = Field(
        0.0, ge=0, description="how long the content of a finished message is kept for `inbound replay`, room permitting (in `inbound dev` 7d)")
    log: Literal["", "text", "json"] = Field("", description="`text` or `json`; default: text on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least level that is logged")

    @model_validator(mode="after")
    def _pairs(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, lacking = ("CERT", "KEY") if self.tls_key is None else ("KEY", "CERT")
            raise ValueError(f"INBOUND_TLS_{given} is set without INBOUND_TLS_{lacking}; they go together, set both or none")
        if self.tls_cert is None and any(listen.tls for listen in self.listen):
            named = next(listen for listen in self.listen if listen.tls)
            raise ValueError(f"INBOUND_LISTEN names {named}, which needs a certificate: set INBOUND_TLS_CERT and INBOUND_TLS_KEY")
        dkim = {"INBOUND_DKIM_KEY": self.dkim_key, "INBOUND_DKIM_SELECTOR": self.dkim_selector, "INBOUND_DKIM_DOMAIN": self.dkim_domain}
        if any(dkim.values()) and not all(dkim.values()):
            lacking_names = " and ".join(name for name, value in dkim.items() if not value)
            raise ValueError(f"{lacking_names} not set; {', '.join(dkim)} go together, set all or none")
        if self.retry_min > self.retry_max:
            raise ValueError(f"INBOUND_RETRY_MIN ({self.retry_min:g} s) is longer than INBOUND_RETRY_MAX ({self.retry_max:g} s)")
        return self

    @property
    def spool(self) -> Path:
        """The spool's folder."""
        return self.data / "spool"

    @property
    def authentication_id(self) -> str:
        """The authserv-id of RFC 8601 that we write and defend."""
        return self.authserv_id or self.hostname


class Supervisor(NamedTuple):
    """What systemd passes in the environment: (descriptor, name) of listening sockets, where to notify, the watchdog's seconds (0: none)."""

    sockets: tuple[tuple[int, str], ...] = ()
    notify: str = ""
    watchdog: float = 0.0


def supervisor() -> Supervisor:
    """What systemd passed to this very process; empty elsewhere. Children do not inherit it."""
    environment = {name: os.environ.pop(name, "") for name in _SUPERVISOR}
    ours = str(os.getpid())
    count = int(environment["LISTEN_FDS"] or 0) if environment["LISTEN_PID"] == ours else 0
    names = environment["LISTEN_FDNAMES"].split(":")
    watched = environment["WATCHDOG_PID"] in ("", ours)
    return Supervisor(
        sockets=tuple((3 + n, names[n] if n < len(names) else "") for n in range(count)),
        notify=environment["NOTIFY_SOCKET"],
        watchdog=int(environment["WATCHDOG_USEC"] or 0) / 1e6 if watched else 0.0,
    )


def read(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` beat the environment. Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(e) for e in error.errors())) from None


def strangers() -> list[str]:
    """A line for each variable that looks like a setting and is none, for nobody would miss what a misspelt one does.

    Kubernetes sets INBOUND_PORT… and INBOUND_SERVICE_… where a service is named `inbound`.
    """
    names = [name.upper() for name in Settings.model_fields]
    given = sorted(name.removeprefix("INBOUND_") for name in os.environ if name.startswith("INBOUND_"))
    found = [name for name in given if name.upper() not in names and not re.match(r"(PORT|SERVICE)(_|$)", name)]
    meant = {name: difflib.get_close_matches(name, names, 1) for name in found}
    return [f"INBOUND_{name} is no setting and does nothing" + (f"; did you mean INBOUND_{close[0]}?" if close else "")
            for name, close in meant.items()]


def _line(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    value = error.get("input")
    shown = "" if repr(value) in message or error["loc"][0] in _SECRETS else f" (it is {value!r})"
    return f"INBOUND_{str(error['loc'][0]).upper()}: {message}{shown}"
