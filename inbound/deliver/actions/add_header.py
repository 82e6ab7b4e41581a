"""AddHeaderAction: a header field on top of the message, for the actions and rules that follow (SES "Add header action")."""

from __future__ import annotations

from inbound.decide.engine import Step
from inbound.decide.rules import AddHeader
from inbound.deliver.actions import Action, Performed
from inbound.deliver.ports import Ports
from inbound.deliver.work import Work


class Add(Action):
    """Changes only the message in hand; done again when a message is resumed."""

    model = AddHeader

    def sink(self, action: AddHeader, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        return ""

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:  # noqa: ARG002  # the protocol's signature
        action: AddHeader = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        work.add_header(action.HeaderName, action.HeaderValue)
        return Performed(detail={"header": f"{action.HeaderName}: {action.HeaderValue}"})


ACTION = Add()
