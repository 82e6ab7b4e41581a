"""One call to a service: the request signed, sent, and sent once more where that may help (botocore's standard mode of retries)."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from inbound.deliver.aws import Body
from inbound.deliver.aws.errors import Trouble, trouble
from inbound.deliver.aws.http import ANSWER, Http, NoAnswer, Request, Response
from inbound.deliver.aws.routes import Route
from inbound.deliver.aws.sessions import ATTEMPTS, READ_TIMEOUT
from inbound.deliver.aws.signing import Keys, signed

SKEW = 240.0  # seconds by which a clock may be wrong; AWS takes 300 to 900
BACKOFF = 1.0  # seconds, at most, before it is sent again


class Failed(Exception):
    """The service answered, and not with a success."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.code)
        self.trouble = trouble


class Calls:
    """Calls to all services. `keys` gives the credentials of a role."""

    def __init__(self, http: Http, keys: Callable[[str | None], Awaitable[Keys]], *, clock: Callable[[], float] = time.time) -> None:
        self._http = http
        self._keys = keys
        self._clock = clock
        self._skew = 0.0  # seconds that the services' clock is ahead of ours

    async def call(self, route: Route, body: bytes | Body, payload_hash: str, *, path: str = "", headers: Mapping[str, str] | None = None,
                   role: str | None = None, attempts: int = ATTEMPTS, seconds: float = READ_TIMEOUT, limit: int = ANSWER) -> Response:
        """The answer, with a status below 300. `path` follows the route's. Raises Failed, NoAnswer, SinkDown."""
        while True:
            attempts -= 1
            try:
                return await self._attempt(route, body, payload_hash, path=path, headers=headers or {}, role=role, seconds=seconds, limit=limit)
            except Failed as error:
                if not attempts or not error.trouble.is_worth_repeating:
                    raise
            except NoAnswer as error:
                if not attempts or error.is_repeated:
                    raise
            await asyncio.sleep(random.random() * BACKOFF)  # noqa: S311  # jitter

    async def _attempt(self, route: Route, body: bytes | Body, payload_hash: str, *, path: str, headers: Mapping[str, str], role: str | None,
                       seconds: float, limit: int) -> Response:
        """Once; and once more where the service's clock turns out to be far from ours."""
        for is_corrected in (False, True):
            keys = await self._keys(role)
            sent = signed(route.method, route.host, route.path + path, {**route.headers, **headers}, payload_hash,
                          scope=route.scope, keys=keys, now=self._clock() + self._skew)
            answer = await self._http.send(Request(route.method, route.origin + route.path + path, sent, body, route.proxy, seconds, limit))
            if answer.status < 300:
                return answer
            if is_corrected or not self._correct(answer):
                break
        raise Failed(trouble(answer))

    def _correct(self, answer: Response) -> bool:
        """May a request have been refused for its time? Then take the service's own from now on."""
        if answer.status not in (400, 403):
            return False
        try:
            theirs = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return False
        found = theirs - self._clock()
        is_wrong = abs(found - self._skew) > SKEW
        if is_wrong:
            self._skew = found
        return is_wrong
