"""The SES notification and the Lambda event, field by field as consumers know them (SES "Contents of notifications").

Pure: an action's caller says what happened, this says it in SES's words.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from inbound.accept.envelope import Envelope
from inbound.assess.message import Message
from inbound.assess.rendering import HeaderField
from inbound.assess.verdicts import Assessment, Status
from inbound.compact import encoded_by
from inbound.decide.rules import S3, AnyAction, Bounce, Lambda, Sns, Stop, Workmail

SNS_SUBJECT = "Amazon SES Email Receipt Notification"
SNS_CONTENT_LIMIT = 150 * 1024  # octets of the message, our header fields included
SNS_MESSAGE_LIMIT = 262_144  # octets of JSON
SNS_HEADERS_LIMIT = 10_240  # octets of names and values
LAMBDA_HEADERS_LIMIT = 51_200
LAMBDA_EVENT_LIMIT = 262_144  # octets of JSON that an asynchronous invocation takes everywhere

_LARGEST_SHARE = 32_768
_SMALLEST_SHARE = 64

_ENCODINGS = {"UTF-8": "UTF8", "Base64": "BASE64"}
_UNFIT = re.compile("[\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Received:
    """What a notification tells of a message: at one action of one rule.

    `fields` are all header fields as that rule's consumers see them (`rendering.visible_fields`), `recipients` those that the rule matched,
    `scan` its ScanEnabled, `milliseconds` the time from receipt to the action.
    """

    envelope: Envelope
    message: Message
    fields: Sequence[HeaderField]
    assessment: Assessment
    recipients: Sequence[str]
    scan: bool
    milliseconds: int


def notification(received: Received, action: AnyAction, content: bytes | None = None) -> str:
    """The JSON that goes to the action's topic; without content it fits, whatever the header of the message holds (see `_fitting`).

    `content` is the whole message as consumers get it; only an SNSAction tells it, as text (UTF-8, else U+FFFD) or in Base64.
    """
    receipt = _receipt(received, action)

    def told(mail: dict[str, Any]) -> dict[str, Any]:
        return {"notificationType": "Received", "mail": mail, "receipt": receipt}

    mail = _mail(received, SNS_HEADERS_LIMIT)
    if not isinstance(action, Sns) or content is None:
        return _fitting(told, mail, SNS_MESSAGE_LIMIT)
    encoded = base64.b64encode(content).decode("ascii") if action.Encoding == "Base64" else content.decode("utf-8", "replace")
    return _json({**told(mail), "content": encoded})


def lambda_event(received: Received, action: Lambda) -> str:
    """The JSON event of a LambdaAction: one record, never with the content. It fits, whatever the header of the message holds."""
    receipt = _receipt(received, action)

    def told(mail: dict[str, Any]) -> dict[str, Any]:
        return {"Records": [{"eventSource": "aws:ses", "eventVersion": "1.0", "ses": {"mail": mail, "receipt": receipt}}]}

    return _fitting(told, _mail(received, LAMBDA_HEADERS_LIMIT), LAMBDA_EVENT_LIMIT)


def action_object(action: AnyAction, *, message_id: str) -> dict[str, str]:
    """`receipt.action`. Raises TypeError for AddHeader and Connect, which have no topic and so are never told of."""
    topic = {"topicArn": action.TopicArn} if action.TopicArn else {}
    return {"type": action.kind, **topic, **_parameters(action, message_id)}


def _parameters(action: AnyAction, message_id: str) -> dict[str, str]:
    match action:
        case S3():
            return {"bucketName": action.BucketName, "objectKeyPrefix": action.ObjectKeyPrefix, "objectKey": action.key(message_id)}
        case Sns():
            return {"encoding": _ENCODINGS[action.Encoding]}
        case Lambda():
            return {"functionArn": action.FunctionArn, "invocationType": action.InvocationType}
        case Bounce():
            status = {"statusCode": action.StatusCode} if action.StatusCode else {}
            return {"smtpReplyCode": action.SmtpReplyCode, **status, "message": action.Message, "sender": action.Sender}
        case Stop():
            return {}
        case Workmail():
            return {"organizationArn": action.OrganizationArn}
        case _:
            raise TypeError(f"no notification tells of {action.kind}")


def _mail(received: Received, limit: int) -> dict[str, Any]:
    envelope, message = received.envelope, received.message
    headers, cut = _headers(received.fields, limit)
    return {
        "timestamp": _timestamp(envelope.received_at),
        "source": envelope.reverse_path,
        "messageId": envelope.message_id,
        "destination": message.destination,
        "headersTruncated": cut or message.truncated,
        "headers": headers,
        "commonHeaders": {"returnPath": envelope.reverse_path, **message.common},
    }


def _headers(fields: Sequence[HeaderField], limit: int) -> tuple[list[dict[str, str]], bool]:
    """Whole fields until the first that does not fit, and whether one did not: `limit` counts UTF-8 octets of names and values."""
    headers: list[dict[str, str]] = []
    for name, value in fields:
        limit -= len(name) + len(value.encode("utf-8", "replace"))
        if limit < 0:
            return headers, True
        headers.append({"name": name, "value": value})
    return headers, False


def _fitting(told: Callable[[dict[str, Any]], dict[str, Any]], mail: dict[str, Any], limit: int) -> str:
    """The JSON, with no more of the message's header than fits into so many octets.

    commonHeaders and destination are whole as long as they fit, as in SES; but a stranger must not make dead letters by a header alone.
    """
    text, share = _json(told(mail)), _LARGEST_SHARE
    while len(text.encode("utf-8")) > limit:
        if share < _SMALLEST_SHARE:
            break  # it is not the header
        text, share = _json(told(_cut(mail, share))), share // 2
    return text


def _cut(mail: dict[str, Any], share: int) -> dict[str, Any]:
    """The same with at most `share` characters in each thing of the message's header that is told."""
    headers, _ = _headers([(each["name"], each["value"]) for each in mail["headers"]], share)
    common = {key: value[:share] if isinstance(value, str) else _first(value, share) for key, value in mail["commonHeaders"].items()}
    common["returnPath"] = mail["source"]
    return {**mail, "destination": _first(mail["destination"], share), "headersTruncated": True, "headers": headers, "commonHeaders": common}


def _first(texts: Sequence[str], share: int) -> list[str]:
    """As many of the texts as have `share` characters together."""
    found: list[str] = []
    for text in texts:
        share -= len(text)
        if share < 0:
            break
        found.append(text)
    return found


def _receipt(received: Received, action: AnyAction) -> dict[str, Any]:
    judged = received.assessment
    policy = {"dmarcPolicy": judged.dmarc_policy} if judged.dmarc.status is Status.FAIL and judged.dmarc_policy else {}
    return {
        "timestamp": _timestamp(received.envelope.received_at),
        "processingTimeMillis": max(1, received.milliseconds),
        "recipients": list(received.recipients),
        "spamVerdict": {"status": judged.spam.status if received.scan else Status.DISABLED},
        "virusVerdict": {"status": judged.virus.status if received.scan else Status.DISABLED},
        "spfVerdict": {"status": judged.spf.status},
        "dkimVerdict": {"status": judged.dkim.status},
        "dmarcVerdict": {"status": judged.dmarc.status},
        **policy,
        "action": action_object(action, message_id=received.envelope.message_id),
    }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


_encode = encoded_by(ascii_only=False)


def _json(told: dict[str, Any]) -> str:
    """Compact JSON, text beyond ASCII as it is, always valid UTF-8; U+FFFE and U+FFFF escaped, as SQS takes no message that holds them."""
    text = _encode(told)
    if text.isascii():
        return text  # nothing unfit in it, without a look at each character
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}" if found[0] > "\ufffd" else "\ufffd", text)
