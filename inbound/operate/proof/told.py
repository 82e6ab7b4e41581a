"""JSON in which SES told of a message, out of whatever it travelled in: SNS, SQS, Lambda events, lists and lines of them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DEPTH = 12
_TEXTS = ("Message", "Body", "body")  # keys that hold JSON as text: SNS, SQS, SQS in a Lambda event
_INNER = ("Messages", "Records", "Sns", "ses", "SNS")


@dataclass(frozen=True, slots=True)
class Told:
    """One notification, or with `event` the record of one Lambda event. `where` is the file it comes from."""

    where: str
    data: Mapping[str, Any]
    event: bool

    @property
    def message_id(self) -> str:
        """SES's message id."""
        return str(self.mail.get("messageId", ""))

    @property
    def mail(self) -> Mapping[str, Any]:
        """The mail object."""
        return _object(self.data.get("mail"))

    @property
    def receipt(self) -> Mapping[str, Any]:
        """The receipt object."""
        return _object(self.data.get("receipt"))

    @property
    def action(self) -> Mapping[str, Any]:
        """The action of the receipt."""
        return _object(self.receipt.get("action"))

    @property
    def recipients(self) -> tuple[str, ...]:
        """The recipients of the receipt."""
        listed = self.receipt.get("recipients")
        return tuple(str(each) for each in listed) if isinstance(listed, list) else ()

    @property
    def content(self) -> bytes | None:
        """The whole message, where SES sent it along."""
        text = self.data.get("content")
        if not isinstance(text, str):
            return None
        if self.action.get("encoding") != "BASE64":
            return text.encode("utf-8", "replace")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None

    @property
    def lossy(self) -> bool:
        """Did octets get lost on the way into JSON?"""
        return self.action.get("encoding") != "BASE64" and "\ufffd" in str(self.data.get("content", ""))


def read(text: str, where: str) -> list[Told]:
    """Everything that SES told in a JSON document, or in lines of JSON. Raises ValueError for text that is neither."""
    try:
        documents = [json.loads(text)]
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        documents = [json.loads(line) for line in lines]
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return [told for document in documents for told in _unwrapped(document, where, _DEPTH)]


def _unwrapped(data: Any, where: str, depth: int) -> Iterator[Told]:
    if depth == 0:
        return
    if isinstance(data, list):
        for each in data:
            yield from _unwrapped(each, where, depth - 1)
    elif isinstance(data, dict):
        if isinstance(data.get("mail"), dict) and isinstance(data.get("receipt"), dict):
            yield Told(where, data, event="notificationType" not in data)
            return
        for key in _TEXTS:
            if isinstance(data.get(key), str):
                yield from _unwrapped(_parsed(data[key]), where, depth - 1)
        for key in _INNER:
            yield from _unwrapped(data.get(key), where, depth - 1)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
