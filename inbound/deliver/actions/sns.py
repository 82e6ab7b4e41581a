"""SNSAction: the notification with the message in it (SES "Publish to Amazon SNS topic action"); at most 150 KB."""

from __future__ import annotations

from inbound.decide.engine import Step
from inbound.decide.rules import Sns
from inbound.deliver.actions import Action, Performed
from inbound.deliver.notification import SNS_CONTENT_LIMIT, SNS_MESSAGE_LIMIT, SNS_SUBJECT
from inbound.deliver.ports import Ports
from inbound.deliver.work import Work


class Publish(Action):
    """A message over the limits is bounced with 552 5.2.3; where there is no way to bounce, it is a dead letter with the reason."""

    model = Sns

    def sink(self, action: Sns, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        return f"sns:{action.TopicArn}"

    def unfit(self, step: Step, work: Work) -> str:
        size = work.rendering(step).size
        if size > SNS_CONTENT_LIMIT:
            return f"552 5.2.3 the message has {size} octets; SNS takes {SNS_CONTENT_LIMIT} (150 KB), headers included"
        length = len(work.publication(step).encode("utf-8"))
        return f"552 5.2.3 the notification has {length} octets; SNS takes {SNS_MESSAGE_LIMIT}" if length > SNS_MESSAGE_LIMIT else ""

    def settled(self, step: Step, work: Work, ports: Ports) -> Performed | None:
        unfit = self.unfit(step, work) if ports.bounces else ""
        suppressed = ports.bounces.too_long_suppressed(work, step) if ports.bounces and unfit else None
        return Performed(detail={"unfit": unfit, **suppressed}) if suppressed else None

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:
        action: Sns = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        published = await ports.aws.publish(action.TopicArn, SNS_SUBJECT, work.publication(step))
        return Performed(detail={"topic": action.TopicArn, "messageId": published.message_id})


ACTION = Publish()
