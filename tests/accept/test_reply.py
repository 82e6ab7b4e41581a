"""The table of replies: well-formed, temporary where the trouble is ours, and the only place where replies are made."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from inbound.accept import connection, inspection, listener, policy, reception, reply, session
from inbound.accept.reply import Refusal, Reply, ReplyError, TemporaryFailure

TABLE = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}
OURS = {"INTERNAL", "SPOOL_FAILED", "SPOOL_FULL", "SHUTTING_DOWN", "TOO_MANY_CONNECTIONS", "TOO_MANY_FROM_CLIENT", "TOO_MANY_RECIPIENTS",
        "TLS_UNAVAILABLE", "CANNOT_REQUIRE_TLS", "PROXY_EXPECTED"}


@pytest.mark.parametrize("name", TABLE)
def test_every_reply_is_one_line_with_an_enhanced_code_of_its_class(name: str) -> None:
    line = TABLE[name].octets
    assert re.fullmatch(rb"354 [\x20-\x7e]+\r\n|([245])\d\d \1\.\d{1,3}\.\d{1,3} [\x20-\x7e]+\r\n", line)
    assert len(line) <= 512, "RFC 5321 section 4.5.3.1.5"


@pytest.mark.parametrize("name", TABLE)
def test_every_refusal_has_a_reason_for_the_log_and_no_other_reply_has(name: str) -> None:
    assert bool(TABLE[name].reason) == TABLE[name].is_refusal


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_our_trouble_is_temporary(name: str) -> None:
    assert TABLE[name].is_temporary


def test_no_text_tells_internals() -> None:
    for name, entry in TABLE.items():
        assert not re.search(r"spool|sqlite|python|aiosmtpd|exception|errno|/", entry.text, re.IGNORECASE), name


def test_reply_classes() -> None:
    ok, later, never = Reply(250, "2.0.0", "a"), Reply(450, "4.0.0", "b"), Reply(550, "5.0.0", "c")
    assert [(r.is_refusal, r.is_temporary) for r in (ok, later, never)] == [(False, False), (True, True), (True, False)]
    assert str(never) == "550 5.0.0 c"
    assert Reply(354, "", "go on").octets == b"354 go on\r\n"
    for kind in (Refusal, TemporaryFailure):
        error = kind(never)
        assert isinstance(error, ReplyError)
        assert (error.reply, str(error)) == (never, "550 5.0.0 c")


def test_a_reply_is_ascii_whatever_it_was_made_of() -> None:
    assert Reply(554, "5.7.1", "b\u00fccher").octets == b"554 5.7.1 b?cher\r\n"


def test_made_replies() -> None:
    assert str(reply.accepted("abc")) == "250 2.0.0 OK abc"
    assert str(reply.blocked("2001:db8::1")) == "554 5.7.1 2001:db8::1 blocked"


@pytest.mark.parametrize("module", [connection, inspection, listener, policy, reception, session], ids=lambda module: module.__name__)
def test_replies_are_made_nowhere_else(module: object) -> None:
    """But the greeting and the reply to HELO, which tell the host name, and have no enhanced code."""
    made = [node for node in ast.walk(ast.parse(inspect.getsource(module)))  # type: ignore[arg-type]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reply"]
    codes = [ast.literal_eval(node.args[0]) for node in made]
    assert codes == ([220, 250] if module is listener else [])
