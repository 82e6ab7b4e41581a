"""A result of SPF is kept while DNS says the same, and never where it may depend on more than the client and the domain."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import inbound.assess.spf
from inbound.assess.answers import Answer, Answers, Outcome, Question
from inbound.assess.spf import SpfResult, evaluate
from inbound.assess.spf_memory import ANSWERS, SIZE, Asked, SpfMemory


def txt(text: str) -> Answer:
    return Answer(Outcome.FOUND, texts=(text.encode(),))


def ask(memory: SpfMemory, dns: Mapping[Question, Answer], sender: str = "a@sender.example", ip: str = "192.0.2.1", helo: str = "x") -> SpfResult:
    answers = Answers(recall=lambda asked: dns.get(asked, Answer(Outcome.NXDOMAIN)))
    return evaluate(answers, ip=ip, helo=helo, mail_from=sender, memory=memory)


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    judge = inbound.assess.spf._Query.judge

    def counted(self):
        made.append(self.o)
        return judge(self)

    monkeypatch.setattr(inbound.assess.spf._Query, "judge", counted)
    return made


RECORD = Question("sender.example", "TXT")


def test_the_same_client_and_domain_are_evaluated_once(evaluations: list[str]) -> None:
    memory, dns = SpfMemory(), {RECORD: txt("v=spf1 ip4:192.0.2.1 -all")}
    assert [ask(memory, dns, f"{name}@sender.example").result for name in "abc"] == ["pass"] * 3
    assert len(evaluations) == 1
    assert ask(memory, dns, ip="192.0.2.2").result == "fail"
    assert ask(memory, dns, sender="", helo="sender.example").identity == "helo"
    assert len(evaluations) == 3


def test_what_dns_says_now_counts() -> None:
    memory, dns = SpfMemory(), {RECORD: txt("v=spf1 ip4:192.0.2.1 -all")}
    assert ask(memory, dns).result == "pass"
    dns[RECORD] = txt("v=spf1 -all")
    assert ask(memory, dns).result == "fail"
    del dns[RECORD]
    assert ask(memory, dns).result == "none"


def test_a_record_with_macros_is_evaluated_for_every_sender() -> None:
    memory = SpfMemory()
    dns = {RECORD: txt("v=spf1 exists:%{l}.allowed.example -all"), Question("a.allowed.example", "A"): Answer(Outcome.FOUND, values=("127.0.0.2",))}
    assert ask(memory, dns, "a@sender.example").result == "pass"
    assert ask(memory, dns, "b@sender.example").result == "fail"


def test_an_explanation_with_macros_is_made_for_every_sender() -> None:
    memory = SpfMemory()
    dns = {RECORD: txt("v=spf1 -all exp=why.sender.example"), Question("why.sender.example", "TXT"): txt("not for %{l}")}
    assert ask(memory, dns, "a@sender.example").domain_explanation == "not for a"
    assert ask(memory, dns, "b@sender.example").domain_explanation == "not for b"


def test_trouble_with_dns_is_not_kept() -> None:
    memory, dns = SpfMemory(), {RECORD: Answer(Outcome.TIMEOUT, reason="no answer")}
    assert ask(memory, dns).result == "temperror"
    assert memory.find(Asked("192.0.2.1", "sender.example", "mailfrom"), Answers(dns)) is None


def test_what_is_kept_has_a_bound() -> None:
    memory, dns = SpfMemory(), {RECORD: txt("v=spf1 ip4:192.0.2.1 -all")}
    for number in range(SIZE + 1):
        ask(memory, dns, ip=f"198.51.{number // 256}.{number % 256}")
    assert memory.find(Asked("198.51.0.0", "sender.example", "mailfrom"), Answers(dns)) is None
    assert memory.find(Asked("198.51.0.1", "sender.example", "mailfrom"), Answers(dns)) is not None
    many = {Question(f"n{number}.example", "A"): Answer(Outcome.NXDOMAIN) for number in range(ANSWERS + 1)}
    result = ask(SpfMemory(), dns)
    memory.keep(Asked("192.0.2.9", "large.example", "mailfrom"), result, Answers(many))
    assert memory.find(Asked("192.0.2.9", "large.example", "mailfrom"), Answers(many)) is None
