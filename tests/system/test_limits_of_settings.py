"""Every limit of the listener is a setting, and each reaches it."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import IPv4Network

import pytest

from inbound import service, settings
from inbound.accept.policy import Limits

TOLD = {
    "max_message_size": "2048", "max_header_size": "1024", "max_recipients": "101", "max_messages": "2", "max_connections": "3",
    "max_connections_per_client": "4", "max_errors": "5", "max_junk_commands": "16", "max_hops": "17", "bare_newline": "reject",
    "command_timeout": "7s", "data_timeout": "8s", "min_data_rate": "9", "trusted": "192.0.2.0/24",
}
EXPECTED = Limits(
    message_size=2048, header_size=1024, recipients=101, messages=2, connections=3, connections_per_client=4, errors=5, junk=16, hops=17,
    bare_newlines=False, command_timeout=7.0, data_timeout=8.0, min_data_rate=9, trusted=(IPv4Network("192.0.2.0/24"),),
)


def test_every_limit_comes_from_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TOLD.items():
        monkeypatch.setenv(f"INBOUND_{name.upper()}", value)
    assert service.limits(settings.read()) == EXPECTED
    assert not [field.name for field in fields(Limits) if getattr(EXPECTED, field.name) == getattr(Limits(), field.name)], "shown by a default"


def test_the_defaults_of_the_settings_are_those_of_the_limits() -> None:
    assert service.limits(settings.read()) == Limits()
