"""Test credentials, and nothing of the user's own AWS: what `inbound dev` does must never reach an account that costs money.

boto3 looks in some forty environment variables and two files, and many of them name a profile, an endpoint, a region or a role.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import boto3

KEY = SECRET = "test"  # noqa: S105  what every local AWS accepts; the first screen shows it
NO_PROXIES: dict[str, str] = {}
"""For `botocore.config.Config(proxies=…)`: loopback is reached directly, whatever HTTP_PROXY says."""


def dev_session(region: str) -> boto3.session.Session:
    """A session that signs with test credentials and reads neither the environment nor ~/.aws.

    Its clients want `endpoint_url` and a Config with `proxies=NO_PROXIES`; only those two still look at the environment.
    """
    import boto3
    import botocore.session

    core = botocore.session.Session()
    for name, (in_file, _, default, conversion) in list(core.session_var_map.items()):
        core.session_var_map[name] = (in_file, None, default, conversion)
    core.set_config_variable("config_file", os.devnull)
    core.set_config_variable("credentials_file", os.devnull)
    return boto3.session.Session(
        aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=region, botocore_session=core)


def dev_environment(endpoint: str, region: str) -> dict[str, str]:
    """The variables that give a process of its own (a function, a shell) the same: test credentials, this endpoint, no AWS files."""
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
