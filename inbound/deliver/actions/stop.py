"""StopAction: ends the evaluation of the rule set (SES "Stop rule set action")."""

from __future__ import annotations

from inbound.decide.engine import Step, own_flow
from inbound.decide.rules import Stop
from inbound.deliver.actions import Action, Performed
from inbound.deliver.ports import Ports
from inbound.deliver.work import Work


class End(Action):
    """Touches nothing; its flow is what it does."""

    model = Stop

    def sink(self, action: Stop, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        return ""

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:  # noqa: ARG002  # the protocol's signature
        return Performed(own_flow(step.action))


ACTION = End()
