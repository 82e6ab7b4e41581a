"""botocore's sessions and clients: who we are to AWS, and its own calls for what is seldom asked. Everything here blocks.

Credentials, profiles, regions and AWS_ENDPOINT_URL[_SERVICE] are botocore's own. It is imported on first use: it weighs 25 MB and a third
of a second.
"""

from __future__ import annotations

import threading
from typing import Any

from inbound.deliver.aws import Access

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 60.0
SYNCHRONOUS_TIMEOUT = 30.0  # SES: a RequestResponse function has 30 seconds
ATTEMPTS = 2  # at each call, unless it must not be repeated


class Sessions:
    """A session for each role (None: our own), and clients of it; each is made once, however many threads ask."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.RLock()
        self._sessions: dict[str | None, Any] = {}
        self._clients: dict[tuple[str, str | None, bool, str | None], Any] = {}

    def client(self, service: str, region: str | None, *, single: bool = False, role: str | None = None) -> Any:
        """botocore's client; `single` makes one attempt, with the time that a synchronous function has."""
        key = (service, region, single, role)
        client = self._clients.get(key)
        if client is None:
            with self._lock:
                client = self._clients.get(key)
                if client is None:
                    client = self._clients[key] = self.make(service, region, single=single, role=role)
        return client

    def session(self, role: str | None = None) -> Any:
        """The session of a role, whose credentials are renewed well before they expire. Without a role our own."""
        with self._lock:
            if role not in self._sessions:
                import botocore.session  # noqa: PLC0415  # on first use, see above

                if role is None:
                    self._sessions[role] = self.access.session() if self.access.session else botocore.session.Session()
                else:
                    self._sessions[role] = _assumed(role, self.make("sts", None))
            return self._sessions[role]

    def region(self) -> str:
        """The region of what has none in its ARN."""
        configured: str | None = self.session().get_config_variable("region")
        return self.access.region or configured or "us-east-1"

    def ca_bundle(self) -> str:
        """The file of the certificate authorities that AWS's certificates are held to."""
        from botocore.httpsession import get_cert_path  # noqa: PLC0415  # on first use, see above

        configured: str | None = self.session().get_config_variable("ca_bundle")
        return configured or str(get_cert_path(verify=True))

    def make(self, service: str, region: str | None, *, single: bool = False, role: str | None = None, **more: Any) -> Any:
        """A new client."""
        from botocore.config import Config  # noqa: PLC0415  # on first use, see above

        config = Config(
            connect_timeout=CONNECT_TIMEOUT, read_timeout=SYNCHRONOUS_TIMEOUT if single else READ_TIMEOUT, max_pool_connections=64,
            retries={"mode": "standard", "total_max_attempts": 1 if single else ATTEMPTS}, user_agent_extra="inbound",
            proxies=None if self.access.proxies else {},
        )
        with self._lock:  # botocore's sessions are not made for several threads
            return self.session(role).create_client(service, region_name=region or self.region(), endpoint_url=self.access.endpoint_url,
                                                    config=config, **more)


def _assumed(role: str, sts: Any) -> Any:
    """A session whose credentials are the role's, taken from STS when they are needed and again before they end."""
    import botocore.session  # noqa: PLC0415  # on first use, see above
    from botocore.credentials import DeferredRefreshableCredentials  # noqa: PLC0415

    def fetch() -> dict[str, str]:
        found = sts.assume_role(RoleArn=role, RoleSessionName="inbound")["Credentials"]
        return {"access_key": found["AccessKeyId"], "secret_key": found["SecretAccessKey"], "token": found["SessionToken"],
                "expiry_time": found["Expiration"].isoformat()}

    core = botocore.session.Session()
    renewed = DeferredRefreshableCredentials(refresh_using=fetch, method="sts-assume-role")
    core._credentials = renewed  # type: ignore[attr-defined]  # botocore has no public way to set credentials that renew themselves
    return core
