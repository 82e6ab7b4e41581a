"""AWS Signature Version 4 in the Authorization header. Pure; written out because botocore's own takes longer than the request it signs.

AWS "Create a signed AWS API request". Tests hold it to botocore's signer.
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""What S3 takes in place of the SHA-256 of a body, where TLS protects it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials at one moment; `token` is empty where they are not temporary."""

    access: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Keys({self.access})"  # never the secret in a log


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature holds for: a service in a region. `is_s3`: its paths are signed as they are, others encoded once more."""

    service: str
    region: str
    is_s3: bool = False


def signed(method: str, host: str, path: str, headers: Mapping[str, str], payload_hash: str, *, scope: Scope, keys: Keys,
           now: float) -> dict[str, str]:
    """`headers` with those that sign the request: Host, X-Amz-Date, X-Amz-Security-Token, Authorization, for S3 X-Amz-Content-SHA256.

    `path` is percent-encoded, without a query, and but for S3 without empty or dot segments; `now` is in seconds since the epoch. Every
    header given is signed, so no proxy may change one.
    """
    stamp = _stamp(int(now))
    sent = {**headers, "Host": host, "X-Amz-Date": stamp}
    if scope.is_s3:
        sent["X-Amz-Content-SHA256"] = payload_hash
    if keys.token:
        sent["X-Amz-Security-Token"] = keys.token
    lines = sorted((name.lower(), " ".join(value.split())) for name, value in sent.items() if name != "User-Agent")
    names = ";".join(name for name, _ in lines)
    canonical_path = path if scope.is_s3 else urllib.parse.quote(path, safe="/~")
    canonical = "\n".join((method, canonical_path, "", *(f"{name}:{value}" for name, value in lines), "", names, payload_hash))
    where = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{where}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = _keyed(keys.secret, stamp[:8], scope.region, scope.service).copy()
    signature.update(to_sign.encode())
    sent["Authorization"] = f"AWS4-HMAC-SHA256 Credential={keys.access}/{where}, SignedHeaders={names}, Signature={signature.hexdigest()}"
    return sent


@lru_cache(maxsize=4)
def _stamp(now: int) -> str:
    """The same for a second."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"


@lru_cache(maxsize=64)
def _keyed(secret: str, date: str, region: str, service: str) -> hmac.HMAC:
    """An HMAC under the key that is the same for a day, a region and a service: to copy one costs a third of making one."""
    key = b"AWS4" + secret.encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")
