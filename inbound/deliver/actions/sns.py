"""SNSAction: the notification with the message in it (SES "Publish to Amazon SNS topic action"); at most 150 KB."""

from __future__ import annotations

from inbound.decide.engine import Step
from inbound.decide.rules import Sns
from inbound.deliver.actions import Performed
from inbound.deliver.notification import SNS_CONTENT_LIMIT, SNS_MESSAGE_LIMIT, SNS_SUBJECT
from inbound.deliver.ports import Ports
from inbound.deliver.sinks import MessageRefused
from inbound.deliver.work import Work


class Publish:
    """Too large a message cannot be cured by repetition: until bounces exist it is a dead letter with the reason."""

    model = Sns

    def sink(self, action: Sns, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        return f"sns:{action.TopicArn}"

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:
        action: Sns = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        size = work.rendering(step).size
        if size > SNS_CONTENT_LIMIT:
            raise MessageRefused(f"552 5.2.3 the message has {size} octets; SNS takes {SNS_CONTENT_LIMIT} (150 KB), headers included")
        message = work.notification(step, with_content=True)
        length = len(message.encode("utf-8"))
        if length > SNS_MESSAGE_LIMIT:
            raise MessageRefused(f"552 5.2.3 the notification has {length} octets; SNS takes {SNS_MESSAGE_LIMIT}")
        published = await ports.aws.publish(action.TopicArn, SNS_SUBJECT, message)
        return Performed(detail={"topic": action.TopicArn, "messageId": published.message_id})


ACTION = Publish()
