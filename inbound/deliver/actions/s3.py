"""S3Action: the message as one object, prefix + message id (SES "Deliver to S3 bucket action")."""

from __future__ import annotations

from inbound.decide.engine import Step
from inbound.decide.rules import S3
from inbound.deliver.actions import Performed
from inbound.deliver.aws import Aws
from inbound.deliver.work import Work


class Store:
    """Always one PutObject, whatever the size: consumers listen for ObjectCreated:Put. The same key on a repetition."""

    model = S3

    def sink(self, action: S3) -> str:
        return f"s3:{action.BucketName}"

    async def perform(self, step: Step, work: Work, aws: Aws) -> Performed:
        action: S3 = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        body = work.rendering(step)
        key = action.key(work.id)
        await aws.put_object(action.BucketName, key, body)
        return Performed(detail={"bucket": action.BucketName, "key": key, "size": body.size})


ACTION = Store()
