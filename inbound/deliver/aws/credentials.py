"""The credentials of each role as they are now, without a wait unless there is no other way: to renew them may take a call elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

from inbound.deliver.aws.sessions import Sessions
from inbound.deliver.aws.signing import Keys
from inbound.deliver.aws.threads import Threads
from inbound.deliver.sinks import SinkDown

MANDATORY = 600  # seconds before their end from which a call waits for the renewal; botocore begins one 900 seconds before


class Credentials:
    """Those of our own and of every role used so far."""

    def __init__(self, sessions: Sessions, threads: Threads) -> None:
        self._sessions = sessions
        self._threads = threads
        self._sources: dict[str | None, Any] = {}
        self._keys: dict[str | None, Keys] = {}
        self._renewals: dict[str | None, asyncio.Task[Keys]] = {}

    async def keys(self, role: str | None) -> Keys:
        """What to sign with now. Raises SinkDown."""
        keys, source = self._keys.get(role), self._sources.get(role)
        if keys is None or source is None:
            return await asyncio.shield(self._renewal(role))
        if _ends_within(source, None):
            renewal = self._renewal(role)
            if _ends_within(source, MANDATORY):
                return await asyncio.shield(renewal)
        return keys

    async def close(self) -> None:
        """Begin no more renewals."""
        for task in self._renewals.values():
            task.cancel()
        await asyncio.gather(*self._renewals.values(), return_exceptions=True)

    def _renewal(self, role: str | None) -> asyncio.Task[Keys]:
        """One at a time for a role."""
        task = self._renewals.get(role)
        if task is None:
            task = self._renewals[role] = asyncio.get_running_loop().create_task(self._renew(role))
            task.add_done_callback(lambda done: (self._renewals.pop(role, None), done.cancelled() or done.exception()))
        return task

    async def _renew(self, role: str | None) -> Keys:
        source, frozen = await self._threads.run(lambda: self._frozen(role))
        self._sources[role] = source
        keys = self._keys[role] = Keys(frozen.access_key, frozen.secret_key, frozen.token or "")
        return keys

    def _frozen(self, role: str | None) -> tuple[Any, Any]:
        source = self._sources.get(role) or self._sessions.session(role).get_credentials()
        frozen = source.get_frozen_credentials() if source else None
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            raise SinkDown("NoCredentialsError: Unable to locate credentials")
        return source, frozen


def _ends_within(source: Any, seconds: int | None) -> bool:
    """Do the credentials end so soon, or (None) soon enough to renew them? Those that do not renew themselves never do."""
    needed = getattr(source, "refresh_needed", None)
    return needed is not None and bool(needed(seconds))
