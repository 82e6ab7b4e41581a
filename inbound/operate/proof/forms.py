"""How SES writes against how we write: header fields, the stored octets, and JSON, made from SES's own results so that DNS plays no part.

Consumers read these, so every difference is ours, except those that we chose (README, "Compatibility with SES").
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from inbound.assess import forged
from inbound.assess.message import HEAD, Message, parse
from inbound.assess.rendering import BytesContent, HeaderField, render
from inbound.assess.verdicts import Assessment, Status, Verdict, trace_headers
from inbound.decide.rules import S3, AnyAction, Bounce, Lambda, Sns, Stop, Workmail
from inbound.deliver.notification import Received, lambda_event, notification
from inbound.operate.proof.difference import Tally, Whose
from inbound.operate.proof.stored import SIGNED, Stored, without_signed
from inbound.operate.proof.told import Told

_RENAMED = forged.INSERTION.decode("ascii")
_HELO = re.compile(r"helo=[^;]*;")
_ENCODINGS = {"BASE64": "Base64"}
_ACTIONS: Mapping[Any, tuple[Any, dict[str, str]]] = {  # SES's type -> the model, and what its fields are called in the notification
    "S3": (S3, {"BucketName": "bucketName", "ObjectKeyPrefix": "objectKeyPrefix"}),
    "SNS": (Sns, {"Encoding": "encoding"}),
    "Lambda": (Lambda, {"FunctionArn": "functionArn", "InvocationType": "invocationType"}),
    "Bounce": (Bounce, {"SmtpReplyCode": "smtpReplyCode", "StatusCode": "statusCode", "Message": "message", "Sender": "sender"}),
    "Stop": (Stop, {}),
    "WorkMail": (Workmail, {"OrganizationArn": "organizationArn"}),
}
_AS_GIVEN = frozenset({"mail.timestamp", "mail.source", "mail.messageId", "mail.commonHeaders.returnPath", "receipt.timestamp", "receipt.recipients",
                       "receipt.processingTimeMillis"})
"""Taken from SES, or a matter of the moment: nothing that could be held against SES's own."""


def trace(stored: Stored) -> tuple[HeaderField, ...]:
    """The header fields that we write where SES has these results."""
    scanned = Assessment(spam=_verdict(stored.spam), virus=_verdict(stored.virus), authentication=stored.authentication)
    return trace_headers(stored.envelope, scanned, hostname=stored.host, authserv_id=stored.authserv_id, scan=bool(stored.spam or stored.virus))


def _verdict(status: str) -> Verdict:
    return Verdict(Status(status) if status in set(Status) else Status.DISABLED)


def compare_fields(tally: Tally, stored: Stored) -> bool:
    """Count SES's header fields on top of the message. True if all are written the same."""
    ours = {name: value.replace("\r\n ", " ") for name, value in trace(stored)}
    same = True
    for name, value in stored.fields:
        if name not in SIGNED:
            written = ours.pop(name, None)
            same &= tally.compare(f"{name} as written", value, written, _why(value, written or ""))
    for name, value in ours.items():
        same &= tally.compare(f"{name} as written", None, value, "SES does not write it here")
    return same


def _why(theirs: str, ours: str) -> str:
    if _HELO.sub("", theirs) == _HELO.sub("", ours):
        return "helo= is another name of the client: what it said in EHLO, or what DNS calls it"
    return "another form for the same facts"


def compare_octets(tally: Tally, stored: Stored) -> None:
    """Count the stored object as a whole, without SES's receipt and signature."""
    content = BytesContent(stored.content)
    renamed = forged.offsets(content, authserv_id=stored.authserv_id)
    ours = render(content, trace=trace(stored), forged=renamed).read()
    theirs = without_signed(stored.octets)
    whose, cause = (Whose.DESIGN, "header fields that pass for SES's are renamed here") if renamed else (Whose.OURS, "other octets")
    if theirs == ours:
        tally.equal += 1
    else:
        tally.compare("object", _around(theirs, ours), _around(ours, theirs), cause, whose)


def _around(octets: bytes, other: bytes) -> str:
    """Where two objects part: the place, and the octets there."""
    at = next((number for number, (one, two) in enumerate(zip(octets, other, strict=False)) if one != two), min(len(octets), len(other)))
    return f"{len(octets)} octets, at {at}: {octets[max(0, at - 20) : at + 40]!r}"


def compare_json(tally: Tally, told: Told, stored: Stored, assessment: Assessment) -> dict[str, tuple[Any, Any]]:
    """Count the JSON of a notification or Lambda event, apart from the verdicts; those are returned by name: SES's status, and ours."""
    ours = _ours(told, stored, assessment)
    if ours is None:
        tally.compare("receipt.action.type", told.action.get("type"), None, "an action of which nothing is told here")
        return {}
    theirs: dict[str, Any] = {"mail": dict(told.mail), "receipt": dict(told.receipt)}
    if not told.event:
        theirs["notificationType"] = told.data.get("notificationType")
    _compare_headers(tally, theirs["mail"].pop("headers", None), ours["mail"].pop("headers"))
    left, right = dict(_leaves(theirs)), dict(_leaves(ours))
    verdicts: dict[str, tuple[Any, Any]] = {}
    for path in {**left, **right}:
        name = path.removeprefix("receipt.").removesuffix("Verdict.status")
        if path.endswith("Verdict.status"):
            verdicts[name] = left.get(path), right.get(path)
        elif path == "receipt.dmarcPolicy":
            verdicts["dmarcPolicy"] = left.get(path), right.get(path)
        elif path not in _AS_GIVEN:
            tally.compare(path, left.get(path), right.get(path), "another value in JSON for the same message")
    return verdicts


def _ours(told: Told, stored: Stored, assessment: Assessment) -> dict[str, Any] | None:
    action = _action(told)
    if action is None:
        return None
    message = parse(stored.content[:HEAD], authserv_id=stored.authserv_id)
    received = Received(
        envelope=_envelope(told, stored), message=message, fields=_fields(stored, message), assessment=assessment,
        recipients=told.recipients, scan=_scanned(told), milliseconds=1)
    if told.event and isinstance(action, Lambda):
        event: dict[str, Any] = json.loads(lambda_event(received, action))["Records"][0]["ses"]
        return event
    published: dict[str, Any] = json.loads(notification(received, action))
    return published


def _scanned(told: Told) -> bool:
    spam = told.receipt.get("spamVerdict")
    return isinstance(spam, dict) and spam.get("status") != Status.DISABLED


def _envelope(told: Told, stored: Stored) -> Any:
    source = told.mail.get("source")
    return replace(stored.envelope, reverse_path=source if isinstance(source, str) else stored.envelope.reverse_path)


def _fields(stored: Stored, message: Message) -> tuple[HeaderField, ...]:
    """All header fields as SES shows them: those of AddHeader, its own, whose form is compared elsewhere, and the sender's."""
    return (*stored.added, *stored.fields, *((each.name, each.value) for each in message.fields))


def _compare_headers(tally: Tally, theirs: Any, ours: Sequence[Mapping[str, str]]) -> None:
    """Count each entry of `mail.headers`, in order."""
    left = [(str(each.get("name")), str(each.get("value"))) for each in theirs if isinstance(each, dict)] if isinstance(theirs, list) else []
    right = [(each["name"], each["value"]) for each in ours]
    for what, start, end, begin, stop in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if what == "equal":
            tally.equal += end - start
            continue
        for one, two in _paired(left[start:end], right[begin:stop]):
            name = (one or two or ("", ""))[0]
            renamed = bool(two and two[0].startswith(_RENAMED))
            whose, cause = (Whose.DESIGN, "header fields that pass for SES's are renamed here") if renamed else (Whose.OURS, "another header in JSON")
            tally.compare(f"mail.headers {name}", one and list(one), two and list(two), cause, whose)


def _paired(one: Sequence[HeaderField], two: Sequence[HeaderField]) -> Iterator[tuple[HeaderField | None, HeaderField | None]]:
    for number in range(max(len(one), len(two))):
        yield (one[number] if number < len(one) else None), (two[number] if number < len(two) else None)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is no object, by its path; lists count as one value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _action(told: Told) -> AnyAction | None:
    """The action that SES tells of, as a rule of ours would hold it; None for one that is never told of here."""
    data = dict(told.action)
    if not isinstance(data.get("type"), str) or data["type"] not in _ACTIONS:
        return None
    model, names = _ACTIONS[data["type"]]
    if model is S3 and not isinstance(data.get("objectKeyPrefix"), str):
        data["objectKeyPrefix"] = str(data.get("objectKey", "")).removesuffix(told.message_id)
    if model is Sns:
        data["encoding"] = _ENCODINGS.get(str(data.get("encoding")), "UTF-8")
    made: AnyAction = model.model_construct(**{ours: data.get(theirs) for ours, theirs in {**names, "TopicArn": "topicArn"}.items()})
    return made
