"""Invoke: a function's answer, and whose failure it is when there is none."""

from __future__ import annotations

import hashlib
import json

from inbound.deliver.aws import Answer
from inbound.deliver.aws.calls import Calls
from inbound.deliver.aws.http import NoAnswer
from inbound.deliver.aws.routes import Routes
from inbound.deliver.aws.sessions import SYNCHRONOUS_TIMEOUT
from inbound.deliver.sinks import MessageFailed, SinkDown

_ANSWER = 8 * 1024 * 1024  # octets; Lambda's own limit is 6 MB


class Functions:
    """All functions. None is ever invoked again here: what it did before it failed, nobody knows."""

    def __init__(self, calls: Calls, routes: Routes) -> None:
        self._calls = calls
        self._routes = routes

    async def invoke(self, arn: str, event: str, *, wait: bool) -> Answer:
        """Invoke it. Raises Failed, SinkDown, and MessageFailed where the function itself failed."""
        kind, payload = "RequestResponse" if wait else "Event", event.encode()
        route = await self._routes.function(arn, kind)
        try:
            answer = await self._calls.call(route, payload, hashlib.sha256(payload).hexdigest(), attempts=1, seconds=SYNCHRONOUS_TIMEOUT,
                                            limit=_ANSWER)
        except NoAnswer as error:
            if wait and error.is_waited_for:
                raise SinkDown(f"the function did not answer within {SYNCHRONOUS_TIMEOUT:.0f} s") from error
            raise
        if answer.status not in ((200,) if wait else (200, 202)):
            raise SinkDown(f"the endpoint does not answer as Lambda does ({answer.status} to Invoke)")
        failed = answer.headers.get("X-Amz-Function-Error")
        if failed:
            raise MessageFailed(f"the function failed ({failed}): {_error(answer.body)}")
        return Answer(answer.status, answer.body)


def _error(payload: bytes) -> str:
    try:
        data = json.loads(payload)
        return f"{data.get('errorType', '')}: {data.get('errorMessage', '')}"[:500]
    except (ValueError, AttributeError, RecursionError):
        return payload[:500].decode("utf-8", "replace")
