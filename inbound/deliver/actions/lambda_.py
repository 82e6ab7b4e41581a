"""LambdaAction: the event, without the content (SES "Invoke Lambda function action"). A synchronous answer decides what follows."""

from __future__ import annotations

import json

from inbound.decide.engine import Flow, Step
from inbound.decide.rules import Lambda
from inbound.deliver.actions import Action, Performed
from inbound.deliver.ports import Ports
from inbound.deliver.sinks import MessageFailed
from inbound.deliver.work import Work


class Invoke(Action):
    """An error or time-out of a synchronous function is a failure to retry, never CONTINUE."""

    model = Lambda

    def sink(self, action: Lambda, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        return f"lambda:{action.FunctionArn}"

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:
        action: Lambda = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        wait = action.InvocationType == "RequestResponse"
        answer = await ports.aws.invoke(action.FunctionArn, await work.event(step, action), wait=wait)
        if not wait:
            return Performed(detail={"function": action.FunctionArn, "status": answer.status})
        payload = answer.payload[:2000].decode("utf-8", "replace")
        return Performed(disposition(answer.payload), {"function": action.FunctionArn, "answer": payload})


def disposition(payload: bytes) -> Flow:
    """The flow in a function's answer, in any letter case; unknown or missing is CONTINUE. Raises MessageFailed for what is not JSON."""
    try:
        answer = json.loads(payload or b"null")
    except (ValueError, RecursionError):
        raise MessageFailed(f"the function's answer is not JSON: {payload[:200]!r}") from None
    word = answer.get("disposition") if isinstance(answer, dict) else None
    try:
        return Flow(word.upper()) if isinstance(word, str) else Flow.CONTINUE
    except ValueError:
        return Flow.CONTINUE


ACTION = Invoke()
