"""Test credentials: what `inbound dev` does must never reach an account that costs money."""

from __future__ import annotations

import os

KEY = SECRET = "test"  # noqa: S105  what every local AWS accepts; the first screen shows it


def dev_environment(endpoint: str, region: str) -> dict[str, str]:
    """The variables that give a process (a function, a shell) test credentials, this endpoint and no AWS files of the user's."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
