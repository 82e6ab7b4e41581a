"""Quotas by client, sender and recipient, on a clock that only tests move."""

from __future__ import annotations

import ipaddress

import pytest

from inbound.accept import reply
from inbound.accept.policy import Limits
from inbound.accept.quotas import Quotas
from inbound.accept.rate import Rate
from inbound.accept.reply import Reply, TemporaryFailure

THREE = Rate(3, 60.0)
CLIENT = "192.0.2.1"


def refused(quotas: Quotas, client: str = CLIENT, sender: str = "a@sender.example", recipient: str = "u@example.com",
            now: float = 0.0) -> Reply | None:
    """The answer that one more message gets; it is counted where there is none."""
    try:
        quotas.check_mail(client, sender, now)
        quotas.check_recipient(recipient, now)
    except TemporaryFailure as failure:
        return failure.reply
    quotas.count(client, sender, [recipient], now)
    return None


def test_without_quotas_nothing_is_refused() -> None:
    quotas = Quotas(Limits())
    assert [refused(quotas) for _ in range(1000)] == [None] * 1000


def test_a_client_has_its_quota_and_others_have_theirs() -> None:
    quotas = Quotas(Limits(), client=THREE)
    assert [refused(quotas) for _ in range(4)] == [None, None, None, reply.CLIENT_QUOTA]
    assert refused(quotas, "192.0.2.2") is None
    assert refused(quotas, now=19.0) is reply.CLIENT_QUOTA
    assert refused(quotas, now=21.0) is None


def test_the_addresses_of_one_ipv6_network_are_one_client() -> None:
    quotas = Quotas(Limits(), client=Rate(1, 60.0))
    assert refused(quotas, "2001:db8::1") is None
    assert refused(quotas, "2001:db8::ffff:2") is reply.CLIENT_QUOTA
    assert refused(quotas, "2001:db8:0:1::1") is None


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "10.1.2.3"])
def test_loopback_and_trusted_clients_have_none(client: str) -> None:
    quotas = Quotas(Limits(trusted=(ipaddress.ip_network("10.0.0.0/8"),)), client=Rate(1, 60.0))
    assert [refused(quotas, client) for _ in range(3)] == [None] * 3


def test_a_sender_has_its_quota_whatever_the_case_of_its_letters_and_the_client() -> None:
    quotas = Quotas(Limits(), sender=Rate(1, 60.0))
    assert refused(quotas, "127.0.0.1", "Ann@Sender.example") is None
    assert refused(quotas, "192.0.2.7", "ann@sender.EXAMPLE") is reply.SENDER_QUOTA
    assert refused(quotas, "192.0.2.7", "bob@sender.example") is None


def test_the_null_reverse_path_has_none() -> None:
    quotas = Quotas(Limits(), sender=Rate(1, 60.0))
    assert [refused(quotas, sender="") for _ in range(3)] == [None] * 3


def test_a_recipient_has_its_quota_and_a_message_counts_once_for_it() -> None:
    quotas = Quotas(Limits(), recipient=Rate(2, 60.0))
    quotas.count(CLIENT, "a@sender.example", ["u@example.com", "U@example.com", "v@example.com"], 0.0)
    assert refused(quotas, recipient="u@Example.com") is None
    assert refused(quotas, recipient="u@example.com") is reply.RECIPIENT_QUOTA
    assert refused(quotas, recipient="w@example.com") is None


def test_what_was_only_asked_about_does_not_count() -> None:
    quotas = Quotas(Limits(), client=Rate(1, 60.0), sender=Rate(1, 60.0), recipient=Rate(1, 60.0))
    for _ in range(10):
        quotas.check_mail(CLIENT, "a@sender.example", 0.0)
        quotas.check_recipient("u@example.com", 0.0)
