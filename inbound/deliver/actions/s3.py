"""S3Action: the message as one object, prefix + message id (SES "Deliver to S3 bucket action")."""

from __future__ import annotations

import os

from inbound.decide.engine import Step
from inbound.decide.rules import S3
from inbound.deliver.actions import Action, Performed
from inbound.deliver.aws import Body
from inbound.deliver.encryption import NONCE, Encrypted, context
from inbound.deliver.encryption import metadata as encryption_metadata
from inbound.deliver.ports import Ports
from inbound.deliver.work import Work


class Store(Action):
    """Always one PutObject, whatever the size: consumers listen for ObjectCreated:Put. The same key on a repetition."""

    model = S3

    def sink(self, action: S3, ports: Ports) -> str:  # noqa: ARG002  # the protocol's signature
        """The bucket; a key or a role that fails must not hold up what goes there without it."""
        key = f" {action.KmsKeyArn}" if action.KmsKeyArn else ""
        role = f" as {action.IamRoleArn}" if action.IamRoleArn else ""
        return f"s3:{action.BucketName}{key}{role}"

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:
        action: S3 = step.action  # type: ignore[assignment]  # `known` gave it to its own model
        body: Body = work.rendering(step)
        key = action.key(work.id)
        metadata = None
        if action.KmsKeyArn:
            described = context(message_id=work.id, rule=step.rule.Name, key_arn=action.KmsKeyArn)
            data_key = await ports.aws.data_key(action.KmsKeyArn, described, role=action.IamRoleArn)
            nonce = os.urandom(NONCE)
            metadata = encryption_metadata(data_key, nonce, described, body.size)
            body = Encrypted(body, data_key.plain, nonce)
        await ports.aws.put_object(action.BucketName, key, body, metadata=metadata, role=action.IamRoleArn)
        return Performed(detail={"bucket": action.BucketName, "key": key, "size": body.size})


ACTION = Store()
