"""Cases: messages that nobody sent, and what the rules shall do with them. The words of a case file, and its expectations as text.

A case file is YAML of the same small and strict kind as the rule file. What an expectation does not name is not compared.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, ValidationError, model_validator

from inbound.accept.address import helo_name
from inbound.decide.document import Document, read
from inbound.decide.problem import KeyPath, Problem, RulesError, shown
from inbound.decide.rules import S3, Action, AddHeader, AnyAction, Bounce, Connect, Lambda, Sns, Stop, Strict, Workmail
from inbound.decide.wording import in_words

VerdictName = Literal["spf", "dkim", "dmarc", "spam", "virus"]
VerdictStatus = Literal["PASS", "FAIL", "GRAY", "PROCESSING_FAILED"]
FlowName = Literal["CONTINUE", "STOP_RULE", "STOP_RULE_SET"]
Kind = Literal["S3", "SNS", "Lambda", "Bounce", "AddHeader", "Stop", "WorkMail", "Connect"]

TYPES: Mapping[str, tuple[str, type[Any]]] = {
    "S3": ("S3Action", S3), "SNS": ("SNSAction", Sns), "Lambda": ("LambdaAction", Lambda), "Bounce": ("BounceAction", Bounce),
    "AddHeader": ("AddHeaderAction", AddHeader), "Stop": ("StopAction", Stop), "WorkMail": ("WorkmailAction", Workmail),
    "Connect": ("ConnectAction", Connect),
}
"""The type of an action, as traces name it: its key in the rules, and its model."""

_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9@./_+=-]*(?: [A-Za-z0-9@./_+=()-]+)*")
_MEANINGFUL = frozenset(("null", "true", "false"))


def _some(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("is an empty list; write at least one")
    return value


def _ip(value: str | None) -> str | None:
    try:
        return value if value is None else str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{shown(value)} is not an IP address (192.0.2.1, 2001:db8::1)") from None


def _name(value: str | None) -> str | None:
    if value is not None and helo_name(value.encode()) != value:
        raise ValueError(f"{shown(value)} is not one word of printable ASCII (client.example)")
    return value


class ExpectedStep(Strict):
    """One action that is done, of which rule; with all its parameters under SES's name for its type, or by `Action`, its type, alone."""

    Rule: str = Field(description="The rule whose action it is.")
    Recipients: tuple[str, ...] | None = Field(None, description="Those it is done for; not compared unless written.")
    Action: Kind | None = Field(None, description="Its type, where its parameters do not matter.")
    S3Action: S3 | None = None
    SNSAction: Sns | None = None
    LambdaAction: Lambda | None = None
    BounceAction: Bounce | None = None
    AddHeaderAction: AddHeader | None = None
    StopAction: Stop | None = None
    WorkmailAction: Workmail | None = None
    ConnectAction: Connect | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ExpectedStep:
        if len([name for name in self.model_fields_set if name.endswith("Action")]) != 1:
            raise ValueError(f"a step is exactly one of {', '.join(KEYS)}, or Action with its type")
        return self

    def view(self) -> dict[str, Any]:
        """As plain data."""
        told: dict[str, Any] = {"Rule": self.Rule}
        if self.Recipients is not None:
            told["Recipients"] = list(self.Recipients)
        if self.Action is not None:
            return {**told, "Action": self.Action}
        key = next(name for name in KEYS if name in self.model_fields_set)
        return {**told, key: parameters(getattr(self, key))}


KEYS = tuple(Action.model_fields)


class Expectation(Strict):
    """What shall come of the message."""

    Refused: str | None = Field(None, description="The reply that refuses the message as a whole, at connect, RCPT or DATA, or its beginning.")
    Replies: dict[str, str] | None = Field(None, description="Recipient: the reply to RCPT for it, or its beginning.")
    Rules: tuple[str, ...] | None = Field(None, description="The rules that run, in their order.")
    Steps: tuple[ExpectedStep, ...] | None = Field(None, description="The actions that are done, in their order.")
    Bounces: tuple[str, ...] | None = Field(None, description="The bounces that are sent: code, status, text; or 'suppressed: reason'.")
    Disposition: Literal["COMPLETED", "STOPPED", "UNMATCHED"] | None = Field(None, description="How the walk through the rules ends.")

    @model_validator(mode="after")
    def _something(self) -> Expectation:
        if not self.model_fields_set:
            raise ValueError(f"expects nothing; write one of {', '.join(type(self).model_fields)}")
        return self


class Case(Strict):
    """A message, and what shall come of it."""

    Name: Annotated[str, Field(min_length=1)] = Field(description="What it is about, unique in its file.")
    To: Annotated[tuple[str, ...], AfterValidator(_some)] = Field(description="The recipients.")
    From: str | None = Field(None, description="The reverse-path; '' for a bounce; without it the address of Return-Path, else of From.")
    Ip: Annotated[str | None, AfterValidator(_ip)] = Field(None, description="The client's address; without it IP filters are not judged.")
    Helo: Annotated[str | None, AfterValidator(_name)] = Field(None, description="What the client said in EHLO.")
    Tls: StrictBool = Field(False, description="Whether the session was encrypted.")
    Verdicts: dict[VerdictName, VerdictStatus] = Field({}, description="Verdicts; all others are GRAY, as where nobody looks.")
    Answers: dict[str, FlowName] = Field({}, description="What synchronous functions answer, by name or ARN; all others CONTINUE.")
    Message: str | None = Field(None, description="The message, header and body; a small one unless written.")
    Eml: str | None = Field(None, description="A file with the message, from the folder of the case file.")
    Expect: Expectation | None = Field(None, description="What shall come of it; `inbound test --record` writes it.")

    @model_validator(mode="after")
    def _one_message(self) -> Case:
        if self.Message is not None and self.Eml is not None:
            raise ValueError("has both Message and Eml; write one of them")
        return self


class CaseFile(Strict):
    """The whole of a case file."""

    Rules: str | None = Field(None, description="The rule file, from the folder of this one; without it the one of the command.")
    Cases: Annotated[tuple[Case, ...], AfterValidator(_some)] = Field(description="The cases.")


@dataclass(frozen=True, slots=True)
class Cases:
    """A case file without errors, and where each value stands in it."""

    document: Document
    file: CaseFile

    def problem(self, number: int, key: str, message: str) -> Problem:
        """A problem with the value under a key of the case with this number."""
        return self.document.problem(("Cases", number, key), message)


def parse(text: str, name: str) -> Cases:
    """The cases in the text; `name` stands for the file in every problem. Raises RulesError."""
    document = read(text, name, ("Tls",), empty="is empty; it needs Cases")
    problems = [*document.problems]
    try:
        file = CaseFile.model_validate(document.data)
    except ValidationError as error:
        raise RulesError(sorted([*problems, *in_words(document, error, CaseFile)])) from None
    problems += _contradictions(document, file)
    if problems:
        raise RulesError(sorted(problems))
    return Cases(document, file)


def _contradictions(document: Document, file: CaseFile) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for number, case in enumerate(file.Cases):
        path: KeyPath = ("Cases", number)
        if case.Name in first:
            line, _ = document.place(("Cases", first[case.Name], "Name"))
            yield document.problem((*path, "Name"), f"two cases have the name {case.Name!r}, the first at line {line}")
        first.setdefault(case.Name, number)
        replies = case.Expect.Replies if case.Expect and case.Expect.Replies else {}
        for address in (address for address in replies if address not in case.To):
            yield document.problem((*path, "Expect", "Replies", address), "is not among To", key=True)


def parameters(action: AnyAction) -> dict[str, Any]:
    """What is written of an action, without what is so anyway."""
    told: dict[str, Any] = action.model_dump(mode="json", exclude_defaults=True)
    return told


# --- what came of a message, in the words of an expectation ---


def outcome(trace: Mapping[str, Any], to: Sequence[str]) -> dict[str, Any]:
    """Everything that an expectation may name, from the trace of a supposed message; `to` are its recipients as the case has them."""
    replies = {address: each["reply"] for address, each in zip(to, trace["recipients"], strict=True)}
    refused = trace["refused"]
    ran = [] if refused else [rule for rule in trace["rules"] if rule["reason"] == "matched"]
    done = [(rule, action) for rule in ran for action in rule["actions"] if action["state"] != "not run"]
    details = [attempt["detail"] for _, action in done for attempt in action["attempts"]]
    return {
        "Refused": refused["reply"] if refused else None,
        "Replies": replies,
        "Rules": [rule["name"] for rule in ran],
        "Steps": [_step(rule["name"], action) for rule, action in done],
        "Bounces": [_bounce(detail) for detail in details if "bounce" in detail],
        "Disposition": trace["disposition"] or None,
    }


def _step(rule: str, action: Mapping[str, Any]) -> dict[str, Any]:
    key, model = TYPES[action["action"]]
    return {"Rule": rule, "Recipients": action["recipients"], key: parameters(model.model_validate(action["parameters"]))}


def _bounce(detail: Mapping[str, Any]) -> str:
    return f"suppressed: {detail['suppressed']}" if "suppressed" in detail else str(detail["bounce"])


def recorded(happened: Mapping[str, Any]) -> dict[str, Any]:
    """The expectation to write for what happened: of the replies only the refusals, of the rest what there is."""
    refusals = {address: reply for address, reply in happened["Replies"].items() if not reply.startswith("2")}
    steps = [{key: value for key, value in step.items() if key != "Recipients" or len(happened["Replies"]) > 1} for step in happened["Steps"]]
    told = {"Refused": happened["Refused"], "Replies": refusals, "Rules": happened["Rules"], "Steps": steps, "Bounces": happened["Bounces"]}
    return {key: value for key, value in told.items() if value or key == "Rules"}


def compared(expect: Expectation, happened: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What is expected and what happened, as lines of YAML, each with what the expectation names and nothing else."""
    expected = {name: _plain(getattr(expect, name)) for name in type(expect).model_fields if name in expect.model_fields_set}
    actual = {name: _as_named(name, value, happened[name]) for name, value in expected.items()}
    return list(lines(expected)), list(lines(actual))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [each.view() if isinstance(each, ExpectedStep) else each for each in value]
    return value


def _as_named(name: str, expected: Any, actual: Any) -> Any:
    """What happened, as far and in the form in which it is expected."""
    if name == "Refused":
        return expected if actual and _begins(actual, expected) else actual
    if name == "Replies":
        return {address: reply if _begins(actual[address], reply) else actual[address] for address, reply in expected.items()}
    if name == "Steps":
        return [_step_as_named(expected[index] if index < len(expected) else step, step) for index, step in enumerate(actual)]
    return actual


def _begins(reply: str, beginning: str) -> bool:
    return f"{reply} ".startswith(f"{beginning} ")


def _step_as_named(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in actual.items() if key != "Recipients" or "Recipients" in expected}
    if "Action" not in expected:
        return told
    kinds = {key: kind for kind, (key, _) in TYPES.items()}
    return {"Action" if key in kinds else key: kinds.get(key, value) for key, value in told.items()}


# --- as YAML ---


def lines(told: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """An expectation as lines of a case file."""
    for key, value in told.items():
        if key == "Steps" and value:
            yield f"{indent}{key}:"
            for step in value:
                for number, (name, part) in enumerate(step.items()):
                    yield f"{indent}  {'  ' if number else '- '}{name}: {inline(part)}"
        elif isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from (f"{indent}  {_scalar(name)}: {_scalar(text)}" for name, text in value.items())
        elif key == "Bounces" and value:
            yield f"{indent}{key}:"
            yield from (f"{indent}  - {_scalar(text)}" for text in value)
        else:
            yield f"{indent}{key}: {inline(value)}"


def inline(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return "null" if value is None else _scalar(value)


def _scalar(text: Any) -> str:
    plain = str(text)
    return plain if _PLAIN.fullmatch(plain) and plain.lower() not in _MEANINGFUL else json.dumps(plain, ensure_ascii=False)
