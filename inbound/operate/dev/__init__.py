"""The local AWS of `inbound dev`: a process of its own, what the rules name created in it, and test credentials for all of it."""

from inbound.operate.dev.credentials import NO_PROXIES, dev_environment, dev_session
from inbound.operate.dev.functions import FunctionSource, parse_function
from inbound.operate.dev.local_aws import LocalAws, LocalAwsError
from inbound.operate.dev.provision import Provision, ProvisionError, queue_name
from inbound.operate.dev.wanted import Wanted, wanted

__all__ = [
    "NO_PROXIES", "FunctionSource", "LocalAws", "LocalAwsError", "Provision", "ProvisionError", "Wanted",
    "dev_environment", "dev_session", "parse_function", "queue_name", "wanted",
]
