"""The channels that alerts go by: an SNS topic, and a web hook."""

from __future__ import annotations

import aiohttp

from inbound.deliver.alerts import SECONDS, Alert, AlertFailed, Channel
from inbound.deliver.aws import Aws
from inbound.deliver.sinks import SinkFailure

SUBJECT_LENGTH = 99  # SNS takes less than 100 characters, of US-ASCII


class Topic:
    """An SNS topic, with the service's own identity."""

    name = "topic"

    def __init__(self, aws: Aws, arn: str) -> None:
        self._aws = aws
        self._arn = arn

    async def send(self, alert: Alert) -> None:
        subject = f"inbound {alert.host}: {alert.summary}"[:SUBJECT_LENGTH]
        try:
            await self._aws.publish(self._arn, subject, alert.to_json())
        except SinkFailure as error:
            raise AlertFailed(f"{self._arn}: {error}") from error


class Hook:
    """A URL that gets a POST. It may hold a secret, so nothing of it but that there is one is ever shown."""

    name = "hook"

    def __init__(self, url: str) -> None:
        self._url = url

    async def send(self, alert: Alert) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "inbound"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
                session.post(self._url, data=alert.to_json(), headers=headers, allow_redirects=False) as answer,
            ):
                if not 200 <= answer.status < 300:
                    raise AlertFailed(f"the hook answered {answer.status}")
        except aiohttp.ClientConnectorError as error:
            raise AlertFailed(f"the hook cannot be reached: {error.os_error.strerror or type(error.os_error).__name__}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise AlertFailed(f"the hook failed: {type(error).__name__}") from None


def channels(aws: Aws, topic: str | None, hook: str | None) -> list[Channel]:
    """Those that are configured."""
    return [*((Topic(aws, topic),) if topic else ()), *((Hook(hook),) if hook else ())]
