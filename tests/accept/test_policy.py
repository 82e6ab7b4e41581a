"""The listener's decisions, without a session: who may connect, what MAIL may say, who may receive."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import pytest

from inbound.accept import policy, reply
from inbound.accept.policy import Limits
from inbound.accept.reply import Refusal, Reply, ReplyError, TemporaryFailure


@dataclass(frozen=True)
class Rules:
    """A pinned revision with the answers it was made with."""

    admitting: bool = True
    answer: Reply = reply.RCPT_OK
    postmasters: str | None = "postmaster@example.com"
    revision: str = "r1"

    def admits(self, address: str) -> bool:
        return self.admitting

    def recipient(self, address: str, *, tls: bool) -> Reply:
        return reply.NEED_TLS if address.startswith("secret@") and not tls else self.answer

    def takes(self, size: int, *, tls: bool) -> bool:
        return size <= 500 or tls

    def postmaster(self) -> str | None:
        return self.postmasters


# --- connections ---

LIMITS = Limits(connections=10, connections_per_client=3, trusted=(IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:7::/48")))


@pytest.mark.parametrize(("address", "connections", "of_client", "expected"), [
    ("192.0.2.1", 10, 3, None),
    ("192.0.2.1", 11, 1, reply.TOO_MANY_CONNECTIONS),
    ("192.0.2.1", 10, 4, reply.TOO_MANY_FROM_CLIENT),
    ("2001:db8::1", 10, 4, reply.TOO_MANY_FROM_CLIENT),
    ("127.0.0.1", 10, 4, None),
    ("127.9.9.9", 10, 4, None),
    ("::1", 10, 4, None),
    ("198.51.100.77", 10, 4, None),
    ("2001:db8:7:1::1", 10, 4, None),
    ("127.0.0.1", 11, 1, reply.TOO_MANY_CONNECTIONS),
    ("198.51.100.77", 11, 1, reply.TOO_MANY_CONNECTIONS),
])
def test_connection(address: str, connections: int, of_client: int, expected: Reply | None) -> None:
    """Loopback and trusted networks have no limit of their own, but the limit of all holds for them too."""
    assert policy.connection(address, Rules(), LIMITS, connections=connections, of_client=of_client) == expected


@pytest.mark.parametrize(("address", "inside"), [
    ("198.51.100.77", True), ("198.51.101.77", False), ("2001:db8:7::1", True), ("2001:db8:8::1", False), ("::1", False)])
def test_is_in(address: str, inside: bool) -> None:
    assert policy.is_in(address, LIMITS.trusted) is inside
    assert not policy.is_in(address, ())


def test_a_filter_blocks_before_anything_is_counted() -> None:
    refusal = policy.connection("127.0.0.1", Rules(admitting=False), LIMITS, connections=99, of_client=99)
    assert str(refusal) == "554 5.7.1 127.0.0.1 blocked"


@pytest.mark.parametrize(("host", "address"), [
    ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:DB8:0:0::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1"), ("::1", "::1"),
])
def test_client_address(host: str, address: str) -> None:
    assert policy.client_address(host) == address


@pytest.mark.parametrize(("address", "key"), [
    ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::/64"), ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
    ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
])
def test_client_key_is_the_64_of_an_ipv6_address(address: str, key: str) -> None:
    assert policy.client_key(address) == key


# --- MAIL ---


@pytest.mark.parametrize(("parameters", "body"), [
    ({}, "7BIT"), ({"SIZE": "0"}, "7BIT"), ({"SIZE": "1000"}, "7BIT"), ({"SIZE": "00000000000000001000"}, "7BIT"), ({"BODY": "8BITMIME"}, "8BITMIME"),
    ({"BODY": "8bitmime", "SIZE": "1"}, "8BITMIME"), ({"BODY": "7bit"}, "7BIT"),
])
def test_mail_parameters_are_taken(parameters: dict[str, str], body: str) -> None:
    assert policy.mail_parameters(parameters, Limits(message_size=1000), esmtp=True) == body


@pytest.mark.parametrize(("parameters", "expected"), [
    ({"SIZE": "1001"}, reply.TOO_LARGE), ({"SIZE": "9" * 20}, reply.TOO_LARGE), ({"SIZE": "9" * 21}, reply.BAD_PARAMETER),
    ({"SIZE": "9" * 400}, reply.BAD_PARAMETER), ({"SIZE": ""}, reply.BAD_PARAMETER), ({"SIZE": "-1"}, reply.BAD_PARAMETER),
    ({"SIZE": "\u0661"}, reply.BAD_PARAMETER), ({"SIZE": "\u00b2"}, reply.BAD_PARAMETER), ({"SIZE": "1\n"}, reply.BAD_PARAMETER),
    ({"SIZE": "1_0"}, reply.BAD_PARAMETER), ({"BODY": ""}, reply.BAD_PARAMETER), ({"BODY": "BINARYMIME"}, reply.BAD_PARAMETER),
    ({"SMTPUTF8": ""}, reply.UNKNOWN_PARAMETER), ({"SIZE": "1", "RET": "FULL"}, reply.UNKNOWN_PARAMETER), ({"AUTH": "<>"}, reply.UNKNOWN_PARAMETER),
])
def test_mail_parameters_are_refused(parameters: dict[str, str], expected: Reply) -> None:
    with pytest.raises(Refusal) as caught:
        policy.mail_parameters(parameters, Limits(message_size=1000), esmtp=True)
    assert caught.value.reply == expected


@pytest.mark.parametrize(("parameters", "tls", "taken"), [
    ({}, False, True), ({"SIZE": "500"}, False, True), ({"SIZE": "501"}, False, False), ({"SIZE": "501"}, True, True),
])
def test_what_is_too_long_for_everybody_is_refused_by_its_declared_size(parameters: dict[str, str], tls: bool, taken: bool) -> None:
    if taken:
        policy.declared_size(parameters, Rules(), tls=tls)
        return
    with pytest.raises(Refusal) as caught:
        policy.declared_size(parameters, Rules(), tls=tls)
    assert caught.value.reply == reply.TOO_LARGE


def test_helo_has_no_parameters() -> None:
    assert policy.mail_parameters({}, Limits(), esmtp=False) == "7BIT"
    with pytest.raises(Refusal) as caught:
        policy.mail_parameters({"SIZE": "1"}, Limits(), esmtp=False)
    assert caught.value.reply == reply.UNKNOWN_PARAMETER


# --- RCPT ---


def refused(address: str, rules: Rules, *, accepted: int = 0, limits: Limits | None = None) -> ReplyError:
    with pytest.raises(ReplyError) as caught:
        policy.recipient(address, rules, limits or Limits(), accepted=accepted, tls=False)
    return caught.value


def test_recipient_is_what_the_rules_accept_spelled_as_it_came() -> None:
    assert policy.recipient("A.B@Example.com", Rules(), Limits(), accepted=0, tls=False) == "A.B@Example.com"


def test_postmaster_without_a_domain_is_the_rules_postmaster() -> None:
    assert policy.recipient("Postmaster", Rules(), Limits(), accepted=0, tls=False) == "postmaster@example.com"
    assert refused("postmaster", Rules(postmasters=None)).reply == reply.NO_SUCH_RECIPIENT
    assert refused("postmaster", Rules(answer=reply.NO_SUCH_RECIPIENT)).reply == reply.NO_SUCH_RECIPIENT


def test_recipients_are_limited_before_the_rules_are_asked() -> None:
    limits = Limits(recipients=2)
    assert policy.recipient("a@example.com", Rules(), limits, accepted=1, tls=False) == "a@example.com"
    error = refused("a@example.com", Rules(answer=reply.NO_SUCH_RECIPIENT), accepted=2, limits=limits)
    assert (type(error), error.reply) == (TemporaryFailure, reply.TOO_MANY_RECIPIENTS)


def test_at_least_100_recipients_by_default() -> None:
    """RFC 5321 section 4.5.3.1.8."""
    assert Limits().recipients >= 100


@pytest.mark.parametrize(("answer", "kind"), [
    (reply.NO_SUCH_RECIPIENT, Refusal), (reply.NEED_TLS, Refusal), (reply.TLS_UNAVAILABLE, TemporaryFailure),
])
def test_a_refusal_of_the_rules_is_temporary_or_not_by_its_code(answer: Reply, kind: type[ReplyError]) -> None:
    error = refused("a@example.com", Rules(answer=answer))
    assert (type(error), error.reply) == (kind, answer)


def test_rules_are_told_of_tls() -> None:
    assert refused("secret@example.com", Rules()).reply == reply.NEED_TLS
    assert policy.recipient("secret@example.com", Rules(), Limits(), accepted=0, tls=True) == "secret@example.com"


@pytest.mark.parametrize(("limits", "address", "expected"), [
    (Limits(), "192.0.2.1", "MAILMAX=1000 RCPTMAX=1000"),
    (Limits(messages=7, recipients=100), "2001:db8::1", "MAILMAX=7 RCPTMAX=100"),
    (Limits(messages=0), "192.0.2.1", "RCPTMAX=1000"),
    (Limits(), "127.0.0.1", "RCPTMAX=1000"),
    (LIMITS, "198.51.100.9", "RCPTMAX=1000"),
    (Limits(messages=10**6, recipients=10**6), "192.0.2.1", ""),
])
def test_the_limits_that_are_announced(limits: Limits, address: str, expected: str) -> None:
    """RFC 9422 has no value for no limit, and none of more than six digits."""
    assert policy.announced(address, limits) == expected


@pytest.mark.parametrize(("address", "messages", "welcome"), [
    ("192.0.2.1", 2, True), ("192.0.2.1", 3, False), ("127.0.0.1", 999, True), ("198.51.100.9", 999, True), ("2001:db8:7::1", 999, True)])
def test_messages_of_one_connection(address: str, messages: int, welcome: bool) -> None:
    limits = dataclasses.replace(LIMITS, messages=2)
    if welcome:
        policy.message(address, limits, of_connection=messages)
    else:
        with pytest.raises(TemporaryFailure) as refused:
            policy.message(address, limits, of_connection=messages)
        assert refused.value.reply == reply.TOO_MANY_MESSAGES
    policy.message(address, dataclasses.replace(limits, messages=0), of_connection=10**6)
