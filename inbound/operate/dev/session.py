"""A boto3 session with test credentials and nothing of the user's own AWS. Importing it loads boto3.

boto3 looks in some forty environment variables and two files, and many of them name a profile, an endpoint, a region or a role.
"""

from __future__ import annotations

import os

import boto3
import botocore.session

from inbound.operate.dev.credentials import KEY, SECRET

NO_PROXIES: dict[str, str] = {}
"""For `botocore.config.Config(proxies=…)`: loopback is reached directly, whatever HTTP_PROXY says."""


def core_session(region: str) -> botocore.session.Session:
    """A botocore session that signs with test credentials and reads neither the environment nor ~/.aws.

    Its clients want `endpoint_url` and a Config with `proxies=NO_PROXIES`; only for those two would they still look at the environment.
    """
    core = botocore.session.Session()
    for name, (in_file, _, default, conversion) in list(core.session_var_map.items()):
        core.session_var_map[name] = (in_file, None, default, conversion)
    core.set_config_variable("config_file", os.devnull)
    core.set_config_variable("credentials_file", os.devnull)
    core.set_config_variable("region", region)
    core.set_credentials(KEY, SECRET)
    return core


def dev_session(region: str) -> boto3.session.Session:
    """`core_session` as boto3 knows it."""
    return boto3.session.Session(botocore_session=core_session(region))
