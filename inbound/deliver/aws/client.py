"""`Aws` over HTTP: puts the parts together, and says every failure in the sinks' words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from inbound.deliver.aws import Access, Answer, Body, DataKey, Published
from inbound.deliver.aws.calls import Calls, Failed
from inbound.deliver.aws.credentials import Credentials
from inbound.deliver.aws.functions import Functions
from inbound.deliver.aws.http import Http
from inbound.deliver.aws.objects import Objects
from inbound.deliver.aws.routes import Routes
from inbound.deliver.aws.sessions import Sessions
from inbound.deliver.aws.threads import Threads
from inbound.deliver.aws.topics import Topics


class AwsClient:
    """What the actions need of AWS, and what the doctor asks of it. Nothing is loaded or connected before the first call."""

    def __init__(self, access: Access | None = None) -> None:
        self._threads = Threads()
        self._sessions = Sessions(access or Access())
        self._credentials = Credentials(self._sessions, self._threads)
        self._services: asyncio.Task[_Services] | None = None

    async def put_object(self, bucket: str, key: str, body: Body, *, metadata: Mapping[str, str] | None = None, role: str | None = None) -> None:
        try:
            await (await self._ready()).objects.put(bucket, key, body, metadata or {}, role=role)
        except Failed as error:
            raise error.trouble.failure() from error

    async def publish(self, topic_arn: str, subject: str, message: str, *, role: str | None = None) -> Published:
        return await (await self._ready()).topics.publish(topic_arn, subject, message, role=role)

    async def invoke(self, function_arn: str, event: str, *, wait: bool) -> Answer:
        try:
            return await (await self._ready()).functions.invoke(function_arn, event, wait=wait)
        except Failed as error:
            raise error.trouble.failure() from error

    async def data_key(self, key_arn: str, context: Mapping[str, str], *, role: str | None = None) -> DataKey:
        def generate() -> DataKey:
            client = self._sessions.client("kms", _region(key_arn), role=role)
            answer = client.generate_data_key(KeyId=key_arn, KeySpec="AES_256", EncryptionContext=dict(context))
            return DataKey(answer["Plaintext"], answer["CiphertextBlob"])

        return await self._threads.run(generate)

    async def look(self, on: str, name: str, *, role: str | None = None) -> None:
        """Is the bucket, topic, key, function or role there, and ours to use? Harmless: changes nothing. Raises SinkDown."""
        def head() -> None:
            if on == "bucket":
                self._sessions.client("s3", None, role=role).head_bucket(Bucket=name)
            elif on == "topic":
                self._sessions.client("sns", _region(name), role=role).get_topic_attributes(TopicArn=name)
            elif on == "key":
                self._sessions.client("kms", _region(name), role=role).describe_key(KeyId=name)
            elif on == "function":
                self._sessions.client("lambda", _region(name), single=True).invoke(FunctionName=name, InvocationType="DryRun")
            else:
                self._sessions.client("sts", None).assume_role(RoleArn=name, RoleSessionName="inbound")

        await self._threads.run(head)

    async def close(self) -> None:
        await self._credentials.close()
        if self._services is not None:
            self._services.cancel()
            (services,) = await asyncio.gather(self._services, return_exceptions=True)
            if isinstance(services, _Services):
                await services.topics.close()
                await services.http.close()
        self._threads.close()

    async def _ready(self) -> _Services:
        """Made on the first call; where that fails, on the next."""
        if self._services is None or (self._services.done() and (self._services.cancelled() or self._services.exception())):
            self._services = asyncio.get_running_loop().create_task(self._make())
        if self._services.done():
            return self._services.result()
        return await asyncio.shield(self._services)

    async def _make(self) -> _Services:
        http = Http(await self._threads.run(self._sessions.ca_bundle))
        await http.open()
        calls, routes = Calls(http, self._credentials.keys), Routes(self._sessions, self._threads)
        return _Services(http, Objects(calls, routes, self._sessions, self._threads), Topics(calls, routes), Functions(calls, routes))


@dataclass(frozen=True, slots=True)
class _Services:
    """The services, over one set of connections."""

    http: Http
    objects: Objects
    topics: Topics
    functions: Functions


def _region(arn: str) -> str:
    return arn.split(":")[3]
