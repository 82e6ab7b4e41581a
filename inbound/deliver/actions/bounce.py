"""BounceAction: a DSN to the reverse-path, through the smarthost (SES "Return bounce response action"). What follows it still runs."""

from __future__ import annotations

from inbound.decide.engine import Step
from inbound.decide.rules import Bounce
from inbound.deliver.actions import Action, Performed
from inbound.deliver.dsn import Failure
from inbound.deliver.ports import Ports
from inbound.deliver.sinks import SinkDown
from inbound.deliver.work import Work


class Return(Action):
    """A bounce that a guard suppresses, or that the smarthost refuses for good, is recorded as that, and the rules go on."""

    model = Bounce

    def sink(self, action: Bounce, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        return ports.bounces.sink if ports.bounces else "smtp"

    def settled(self, step: Step, work: Work, ports: Ports) -> Performed | None:
        action: Bounce = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        suppressed = ports.bounces.suppressed(work, _failure(action), action.Sender) if ports.bounces else None
        return Performed(detail=suppressed) if suppressed else None

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:
        action: Bounce = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        if ports.bounces is None:
            raise SinkDown("no smarthost is configured; set INBOUND_SMARTHOST")
        return Performed(detail=await ports.bounces.bounce(work, step, _failure(action), action.Sender))


def _failure(action: Bounce) -> Failure:
    return Failure(action.SmtpReplyCode, action.StatusCode or "", action.Message)


ACTION = Return()
