"""What an answer that is no success says, and whether time can cure it. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from inbound.deliver.aws.http import Response
from inbound.deliver.sinks import MessageRefused, SinkDown

_TOO_LARGE = frozenset(("EntityTooLarge", "RequestEntityTooLargeException", "RequestTooLargeException", "413"))
_TRANSIENT = frozenset(("RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"))
_THROTTLED = frozenset((
    "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
    "BandwidthLimitExceeded", "LimitExceededException", "RequestThrottled", "SlowDown", "429",
))
_TRANSIENT_STATUSES = frozenset((500, 502, 503, 504))
_TOKEN = re.compile(r"(x-amz-security-token\W{1,8})[\w+/=%-]++", re.IGNORECASE)
_LENGTH = 1000  # octets of an error's text that people are shown


@dataclass(frozen=True, slots=True)
class Trouble:
    """An answer that is no success: AWS's code for it, its text, and for S3 the region that it names."""

    status: int
    code: str
    text: str
    region: str = ""

    @property
    def is_throttling(self) -> bool:
        """Too many requests: fewer may go through."""
        return self.code in _THROTTLED or self.status == 429

    @property
    def is_worth_repeating(self) -> bool:
        """At once, as botocore's standard mode of retries does."""
        return self.status in _TRANSIENT_STATUSES or self.code in _TRANSIENT or self.is_throttling

    def failure(self) -> SinkDown | MessageRefused:
        """Final is only what no repetition could cure; everything that an operator or time can repair is retried."""
        told = without_token(f"{self.code}: {self.text}" if self.code else self.text)
        too_long = self.code in ("InvalidParameter", "InvalidParameterException") and "too long" in self.text.lower()
        return MessageRefused(told) if self.code in _TOO_LARGE or too_long or self.status == 413 else SinkDown(told)


def trouble(response: Response) -> Trouble:
    """What the answer says: XML of S3 and SNS, JSON of Lambda; where it says nothing, the status does."""
    code, text, region = _from_json(response) if "json" in response.headers.get("Content-Type", "") else _from_xml(response.body)
    code = code or response.headers.get("x-amzn-ErrorType", "").partition(":")[0]
    return Trouble(response.status, _line(code) or str(response.status), _line(text) or response.phrase,
                   response.headers.get("x-amz-bucket-region") or region)


def elements(body: bytes, *names: str) -> list[str]:
    """The texts of the first elements of these names, whatever their namespace; empty where there is none, or no XML."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat bounds what entities may become, and the answer is bounded
    except (ElementTree.ParseError, ValueError):
        return [""] * len(names)
    return [next((found.text or "" for found in root.iter() if found.tag.rpartition("}")[2] == name), "").strip() for name in names]


def _from_xml(body: bytes) -> tuple[str, str, str]:
    code, text, region = elements(body, "Code", "Message", "Region")
    return code, text, region


def _from_json(response: Response) -> tuple[str, str, str]:
    try:
        told = json.loads(response.body or b"{}")
        text = str(told.get("message") or told.get("Message") or "")
        code = str(told.get("__type") or told.get("code") or "").rpartition("#")[2].partition(":")[0]
    except (ValueError, AttributeError, RecursionError):
        return "", "", ""
    return response.headers.get("x-amzn-ErrorType", "").partition(":")[0] or code, text, ""


def without_token(text: str) -> str:
    """The text without the session token that a service shows where a signature is wrong: it quotes the request's header fields."""
    return _TOKEN.sub(r"\1…", text)


def _line(text: str) -> str:
    return " ".join(without_token(text).split())[:_LENGTH]
