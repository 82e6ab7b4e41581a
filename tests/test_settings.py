"""Each setting from its variable, its default, and one clear line for each wrong value; the README's table is held to `Settings`.

`python tests/test_settings.py` prints that table.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import SecretStr, ValidationError

from inbound import settings
from inbound.operate.cli import COMMANDS, cli
from inbound.settings import Address, Dnsbl, Rate, Settings, SettingsError, SmtpAddress, SmtpServer

README = Path(__file__).parents[1] / "README.md"
UNITS = {"d": 86400, "h": 3600, "m": 60}

FROM_THE_ENVIRONMENT: dict[str, tuple[str, Any]] = {
    "listen": ("0.0.0.0:25, [::1]:2525,:587", (SmtpAddress("0.0.0.0", 25), SmtpAddress("::1", 2525), SmtpAddress("", 587))),
    "hostname": ("mx.example.com", "mx.example.com"),
    "rules": ("/etc/inbound/rules.yaml", Path("/etc/inbound/rules.yaml")),
    "data": ("/var/lib/inbound", Path("/var/lib/inbound")),
    "http_listen": ("[::]:0", Address("::", 0)),
    "authserv_id": ("example.com", "example.com"),
    "max_message_size": ("10m", 10 * 1024 * 1024),
    "max_recipients": ("100", 100),
    "max_messages": ("0", 0),
    "max_connections": ("5", 5),
    "max_connections_per_client": ("6", 6),
    "max_errors": ("7", 7),
    "max_hops": ("10", 10),
    "max_junk_commands": ("50", 50),
    "max_header_size": ("256k", 262_144),
    "bare_newline": ("reject", "reject"),
    "command_timeout": ("90", 90.0),
    "data_timeout": ("1.5m", 90.0),
    "min_data_rate": ("0", 0),
    "trusted": ("10.0.0.0/8, 2001:db8::/32", (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))),
    "dns": ("192.0.2.53, 127.0.0.1:5353,[2001:db8::53]:53, 2001:db8::1", (Address("192.0.2.53", 53), Address("127.0.0.1", 5353),
                                                                          Address("2001:db8::53", 53), Address("2001:db8::1", 53))),
    "dnsbl": ("zen.Example.org=127.0.0.[2..4;9], bl.example", (Dnsbl("zen.example.org", "127.0.0.[2..4;9]"), Dnsbl("bl.example"))),
    "rate_client": ("100/h", Rate(100, 3600.0)),
    "rate_sender": ("5/10m", Rate(5, 600.0)),
    "rate_recipient": ("1/s", Rate(1, 1.0)),
    "dkim_verdict": ("relaxed", "relaxed"),
    "clamd": ("clamd.internal:3310", Address("clamd.internal", 3310)),
    "clamd_max_size": ("60m", 60 * 1024 * 1024),
    "rspamd_max_size": ("60m", 60 * 1024 * 1024),
    "rspamd": ("rspamd.internal:11333", "http://rspamd.internal:11333"),
    "scan_timeout": ("2m", 120.0),
    "scan_failure": ("retry", "retry"),
    "reject": ("SPF, virus", ("virus", "spf")),
    "reject_timeout": ("5s", 5.0),
    "bounce": ("dsn", "dsn"),
    "smarthost": ("smtp://me:p%40ss@mail.example.com:587", SmtpServer("mail.example.com", 587, "required", "me", "p@ss")),
    "bounce_rate": ("5/10m", Rate(5, 600.0)),
    "bounce_rate_per_sender": ("3/s", Rate(3, 1.0)),
    "proxy_from": ("10.1.2.3/8,192.0.2.1", (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("192.0.2.1/32"))),
    "smtputf8": ("true", True),
    "processes": ("4", 4),
    "stop_scope": ("message", "message"),
    "retry_for": ("2d", 2 * 86400.0),
    "retry_min": ("1s", 1.0),
    "retry_max": ("20m", 1200.0),
    "spool_max": ("10g", 10 * 1024**3),
    "spool_age": ("1h", 3600.0),
    "alert_topic": ("arn:aws:sns:us-east-1:123456789012:alerts", "arn:aws:sns:us-east-1:123456789012:alerts"),
    "alert_hook": ("https://hooks.example.com/a?token=b", SecretStr("https://hooks.example.com/a?token=b")),
    "retain": ("0", 0.0),
    "retain_content": ("1h", 3600.0),
    "log": ("json", "json"),
    "log_level": ("warning", "warning"),
}
PAIRED = {"tls_cert": Path("chain.pem"), "tls_key": Path("key.pem")}
SIGNING = {"dkim_key": Path("dkim.pem"), "dkim_selector": "s1._a", "dkim_domain": "example.com"}

WRONG = [
    ("listen", "2525", "HOST:PORT"),
    ("listen", "127.0.0.1:25,b", "HOST:PORT"),
    ("listen", "127.0.0.1:65536", "HOST:PORT"),
    ("listen", "::1:25", "HOST:PORT"),
    ("listen", "smtp://127.0.0.1:25", "HOST:PORT nor smtps://HOST:PORT"),
    ("listen", "smtps://", "smtps://HOST:PORT"),
    ("listen", "smtps://0.0.0.0:465/", "smtps://HOST:PORT"),
    ("listen", ",", "HOST:PORT"),
    ("http_listen", "127.0.0.1", "HOST:PORT"),
    ("http_listen", "127.0.0.1:1,127.0.0.1:2", "HOST:PORT"),
    ("hostname", "mx example", "host name"),
    ("hostname", "mx\r\nX: 1", "host name"),
    ("hostname", "a" * 256, "host name"),
    ("authserv_id", "a;b", "letters, digits"),
    ("max_message_size", "large", "size in octets (41943040, 512k, 40m)"),
    ("max_message_size", "-1", "size in octets"),
    ("max_message_size", "9" * 16, "size in octets"),
    ("max_message_size", "1023", "greater than or equal to 1024"),
    ("dns", "ns.example.com", "IP addresses"),
    ("dns", "192.0.2.53:x", "IP addresses"),
    ("processes", "0", "greater than or equal to 1"),
    ("processes", "two", "valid integer"),
    ("dnsbl", "zen", "not a DNS blocklist"),
    ("dnsbl", "zen.example=127.0.0", "not a DNS blocklist"),
    ("dnsbl", "zen.example=127.0.0.256", "not a DNS blocklist"),
    ("dnsbl", "zen.example=127.0.0.[]", "not a DNS blocklist"),
    ("rate_client", "0/h", "not so many in a time"),
    ("rate_sender", "20", "not so many in a time"),
    ("rate_recipient", "20 per hour", "not so many in a time"),
    ("dkim_verdict", "loose", "'exact' or 'relaxed'"),
    ("clamd", "clamd", "path of a socket"),
    ("clamd", "run/clamd.ctl", "path of a socket"),
    ("rspamd", "rspamd", "HOST:PORT nor a URL"),
    ("rspamd", "ftp://rspamd:21", "HOST:PORT nor a URL"),
    ("rspamd", "http://user@rspamd:11333", "HOST:PORT nor a URL"),
    ("scan_failure", "stop", "'continue' or 'retry'"),
    ("reject", "virus,dkim", "virus, spam, dmarc, spf"),
    ("max_recipients", "many", "valid integer"),
    ("max_recipients", "99", "greater than or equal to 100"),
    ("max_messages", "-1", "greater than or equal to 0"),
    ("max_connections", "0", "greater than or equal to 1"),
    ("max_connections_per_client", "0", "greater than or equal to 1"),
    ("max_errors", "1.5", "valid integer"),
    ("bare_newline", "normalize", "'accept' or 'reject'"),
    ("max_junk_commands", "9", "greater than or equal to 10"),
    ("max_header_size", "many", "is not a size"),
    ("max_hops", "9", "greater than or equal to 10"),
    ("command_timeout", "5 minutes", "time (90s, 15m, 4h, 7d)"),
    ("command_timeout", "0", "greater than or equal to 1"),
    ("data_timeout", "-1", "time"),
    ("min_data_rate", "-1", "greater than or equal to 0"),
    ("trusted", "10.0.0.0/33", "comma list of IP networks (10.0.0.0/8, 2001:db8::/32)"),
    ("trusted", "localhost", "comma list of IP networks"),
    ("bounce", "later", "'session' or 'dsn'"),
    ("bounce_rate", "many", "so many in a time (20/h, 5/10m)"),
    ("bounce_rate", "0/h", "so many in a time"),
    ("bounce_rate_per_sender", "20", "so many in a time"),
    ("proxy_from", "10.0.0.1-10.0.0.9", "comma list of IP networks (10.0.0.0/8, 2001:db8::/32)"),
    ("smtputf8", "utf-8", "valid boolean"),
    ("stop_scope", "rule", "'recipients' or 'message'"),
    ("retry_for", "inf", "time"),
    ("retry_for", "9" * 10, "time"),
    ("retry_min", "0", "greater than 0"),
    ("retry_max", "nan", "time"),
    ("spool_max", "0", "greater than or equal to 1"),
    ("spool_max", "most", "size in octets"),
    ("spool_age", "0", "greater than or equal to 1"),
    ("alert_topic", "alerts", "the ARN of an SNS topic (arn:aws:sns:us-east-1:123456789012:alerts)"),
    ("alert_topic", "arn:aws:sqs:us-east-1:123456789012:alerts", "the ARN of an SNS topic"),
    ("retain", "1w", "time"),
    ("retain_content", "", None),  # an empty variable is one that is not set
    ("log", "xml", "'text' or 'json'"),
    ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"INBOUND_{name.upper()}"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("INBOUND_")]:
        monkeypatch.delenv(name)


def test_every_setting_is_covered_here() -> None:
    assert {*FROM_THE_ENVIRONMENT, *PAIRED, *SIGNING} == set(Settings.model_fields)


@pytest.mark.parametrize("name", FROM_THE_ENVIRONMENT)
def test_a_setting_comes_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = FROM_THE_ENVIRONMENT[name]
    monkeypatch.setenv(variable(name), text)
    read = settings.read()
    assert getattr(read, name) == value
    assert type(getattr(read, name)) is type(value)
    assert value != default(name), "choose a value that is not the default"


def test_certificate_and_key_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in PAIRED.items():
        monkeypatch.setenv(variable(name), str(path))
    read = settings.read()
    assert {name: getattr(read, name) for name in PAIRED} == PAIRED


def test_listening_with_tls_from_the_start_needs_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_LISTEN", "127.0.0.1:25, smtps://127.0.0.1:465")
    assert refused() == "INBOUND_LISTEN names smtps://127.0.0.1:465, which needs a certificate: set INBOUND_TLS_CERT and INBOUND_TLS_KEY"
    for name, path in PAIRED.items():
        monkeypatch.setenv(variable(name), str(path))
    assert [(str(listen), listen.tls) for listen in settings.read().listen] == [("127.0.0.1:25", False), ("smtps://127.0.0.1:465", True)]


@pytest.mark.parametrize(("given", "lacking"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_one_of_certificate_and_key_is_not_enough(given: str, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(given), "file.pem")
    assert refused() == f"{variable(given)} is set without {variable(lacking)}; they go together, set both or none"


@pytest.mark.parametrize(("name", "text", "value"), [
    ("clamd", "/run/clamav/clamd.ctl", Path("/run/clamav/clamd.ctl")),
    ("rspamd", "https://rspamd.internal/", "https://rspamd.internal"),
    ("rspamd", "http://[::1]:11333/scan/", "http://[::1]:11333/scan"),
])
def test_a_scanner_may_be_named_in_other_ways(name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(name), text)
    assert getattr(settings.read(), name) == value


def test_key_selector_and_domain_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SIGNING.items():
        monkeypatch.setenv(variable(name), str(value))
    read = settings.read()
    assert {name: getattr(read, name) for name in SIGNING} == SIGNING


def test_a_part_of_key_selector_and_domain_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_DKIM_KEY", "dkim.pem")
    assert refused() == ("INBOUND_DKIM_SELECTOR and INBOUND_DKIM_DOMAIN not set; INBOUND_DKIM_KEY, INBOUND_DKIM_SELECTOR, INBOUND_DKIM_DOMAIN "
                         "go together, set all or none")


@pytest.mark.parametrize("text", ["exa mple.com", "example..com", "example.com.", "-a.example", "b\u00fccher.example"])
def test_what_is_no_name_in_dns_is_neither_selector_nor_domain(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_DKIM_DOMAIN", text)
    assert refused() == f"INBOUND_DKIM_DOMAIN: {text!r} is not a name in DNS (bounces, example.com)"


@pytest.mark.parametrize(("url", "server"), [
    ("smtp://mail.example.com", SmtpServer("mail.example.com", 25, "optional")),
    ("smtp://mail.example.com/?starttls=required", SmtpServer("mail.example.com", 25, "required")),
    ("smtp://me:secret@mail.example.com?starttls=optional", SmtpServer("mail.example.com", 25, "optional", "me", "secret")),
    ("smtp://me:secret@127.0.0.1:2525?starttls=off", SmtpServer("127.0.0.1", 2525, "off", "me", "secret")),
    ("smtps://me%40example.com:%2F%3A%20@[::1]", SmtpServer("::1", 465, "implicit", "me@example.com", "/: ")),
])
def test_a_smarthost_is_an_smtp_url(url: str, server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_SMARTHOST", url)
    read = settings.read()
    assert read.smarthost == server
    assert "secret" not in f"{read!r}{read.smarthost}"


@pytest.mark.parametrize(("url", "expected"), [
    ("mail.example.com:587", "neither smtp:// nor smtps://"),
    ("http://mail.example.com", "neither smtp:// nor smtps://"),
    ("smtp://", "no host"),
    ("smtp://me:secret@:25", "no host"),
    ("smtp://mail.example.com:0", "the port"),
    ("smtp://mail.example.com:65536", "the port"),
    ("smtp://me:secret@mail.example.com:x", "the port"),
    ("smtp://[::1:25", "no IPv6 address"),
    ("smtp://me@mail.example.com", "user and password go together"),
    ("smtp://:secret@mail.example.com", "user and password go together"),
    ("smtp://me:sec/ret@mail.example.com", "percent-encode"),
    ("smtp://me:sec#ret@mail.example.com", "percent-encode"),
    ("smtp://me:sec?ret@mail.example.com", "after '?' it takes"),
    ("smtp://me:sec ret@mail.example.com", "percent-encode"),
    ("smtp://mail.example.com/inbox", "more than a host"),
    ("smtp://mail.example.com?starttls=maybe", "starttls=required, starttls=optional or starttls=off"),
    ("smtp://mail.example.com?tls=off", "starttls=required, starttls=optional or starttls=off"),
    ("smtps://mail.example.com?starttls=off", "encrypted from the start"),
])
def test_a_wrong_smarthost_is_one_line_that_does_not_tell_the_password(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_SMARTHOST", url)
    line = refused()
    assert line.startswith("INBOUND_SMARTHOST: is not an SMTP URL (smtp://user:password@mail.example.com:587?starttls=required): ")
    assert expected in line
    assert len(line.splitlines()) == 1
    assert not {"secret", "sec", "ret@"} & set(re.split(r"[^a-z@]", line))


@pytest.mark.parametrize("url", ["hooks.example.com/geheim", "ftp://hooks.example.com/geheim", "https:///geheim", "https://hooks.example.com/ge heim",
                                 "https://[::1/geheim", "https://hooks.example.com:0/geheim", "https://hooks.example.com:x/geheim"])
def test_a_wrong_hook_is_one_line_that_does_not_tell_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_ALERT_HOOK", url)
    assert refused() == "INBOUND_ALERT_HOOK: is not a URL that begins with https:// or http:// (https://hooks.example.com/inbound?token=\u2026)"


def test_nothing_shows_the_hook() -> None:
    read = settings.read(alert_hook="https://hooks.example.com/geheim")
    assert "geheim" not in f"{read!r}{read}{read.model_dump()}{read.model_dump_json()}"


def test_waits_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_RETRY_MIN", "1h")
    assert refused() == "INBOUND_RETRY_MIN (3600 s) is longer than INBOUND_RETRY_MAX (900 s)"


@pytest.mark.parametrize(("name", "text", "expected"), WRONG)
def test_a_wrong_value_is_one_line_with_name_value_and_what_is_expected(
    name: str, text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable(name), text)
    if expected is None:
        assert getattr(settings.read(), name) == default(name)
        return
    line = refused()
    assert line.startswith(f"{variable(name)}: ")
    assert expected in line
    held = line.removeprefix(f"{variable(name)}: ")
    assert repr(text) in held or re.search(rf"\(it is {re.escape(text)}(\.0)?\)", held), f"{line!r} does not show what it holds"
    assert len(line.splitlines()) == 1


def test_every_wrong_setting_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_LOG", "xml")
    monkeypatch.setenv("INBOUND_MAX_HOPS", "many")
    assert [line.split(":")[0] for line in refused().splitlines()] == ["INBOUND_MAX_HOPS", "INBOUND_LOG"]


def test_the_defaults_are_those_of_a_first_look() -> None:
    read = settings.read()
    assert [str(address) for address in read.listen] == ["127.0.0.1:2525"]
    assert str(read.http_listen) == "127.0.0.1:8025"
    assert (read.rules, read.data, read.spool) == (Path("rules.yaml"), Path("var"), Path("var/spool"))
    assert read.hostname == read.authentication_id == socket.gethostname()
    assert read.max_message_size == 41943040
    assert (read.retry_for, read.retry_min, read.retry_max) == (4 * 3600, 60, 900)


def test_the_authserv_id_is_the_host_name_unless_it_is_set() -> None:
    assert settings.read(hostname="mx.example.com").authentication_id == "mx.example.com"
    assert settings.read(hostname="mx.example.com", authserv_id="example.com").authentication_id == "example.com"


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_HOSTNAME", "from.environment")
    assert settings.read(hostname="from.argument").hostname == "from.argument"


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOUND_SERVICE_HOST", "10.0.0.1")  # Kubernetes sets it where a Service is called inbound
    assert settings.read()


def test_a_misspelt_variable_is_told_and_what_kubernetes_sets_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INBOUND_LISTENN", "INBOUND_XYZZY", "INBOUND_LOG", "inbound_data", "INBOUND_PORT_25_TCP", "INBOUND_SERVICE_HOST"):
        monkeypatch.setenv(name, "")
    assert settings.strangers() == [
        "INBOUND_LISTENN is no setting and does nothing; did you mean INBOUND_LISTEN?", "INBOUND_XYZZY is no setting and does nothing"]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings.read().hostname = "other"  # type: ignore[misc]  # mypy knows it, too


@pytest.mark.parametrize("text", ["127.0.0.1:25", "[::1]:25", "mx.example.com:0", ":8025"])
def test_an_address_is_printed_as_it_is_written(text: str) -> None:
    assert str(settings.address(text)) == text


def options() -> list[tuple[str, str, Any]]:
    """Each option of a command that a variable can set: the command, the variable, the default."""
    commands = [command for name in COMMANDS if (command := cli.get_command(click.Context(cli), name)) is not None]
    assert len(commands) == len(COMMANDS)
    commands += [inner for command in commands for inner in getattr(command, "commands", {}).values()]
    return [(command.name, option.envvar, option.default) for command in commands for option in command.params if option.envvar]


def test_an_option_with_a_variable_is_the_setting_of_that_name() -> None:
    assert options()
    for command, name, value in options():
        assert value == default(name.removeprefix("INBOUND_").lower()), f"{command}: {name}"


def refused() -> str:
    """The words of the SettingsError that reading the environment ends with."""
    with pytest.raises(SettingsError) as caught:
        settings.read()
    return str(caught.value)


def default(name: str) -> Any:
    """A setting's default value."""
    return Settings.model_fields[name].get_default(call_default_factory=True, validated_data={})


def default_text(name: str) -> str:
    """A setting's default as one would write it into the environment; empty when the default is to have none."""
    value = default(name)
    if isinstance(value, Address | Rate):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, float):
        return next((f"{value / seconds:g}{unit}" for unit, seconds in UNITS.items() if value and value % seconds == 0), f"{value:g}")
    return "" if value is None else str(value)


def table() -> list[str]:
    """The README's table of settings, line by line."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no description"
        text = "the system's" if name == "hostname" else f"`{default_text(name)}`" if default_text(name) else ""
        rows.append(f"| `{variable(name)}` | {text} | {field.description} |".replace("|  |", "| |"))
    return rows


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if default_text(name)])
def test_the_default_that_the_readme_shows_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(name), default_text(name))
    assert getattr(settings.read(), name) == default(name)


def test_the_readme_has_the_table_of_settings() -> None:
    found = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README.read_text(), re.DOTALL)
    assert found is not None, "README.md needs the table between <!-- settings --> and <!-- /settings -->"
    expected = "\n".join(table())
    assert found[1].strip() == expected, f"README.md's table of settings differs from Settings; it should be\n\n{expected}\n"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
