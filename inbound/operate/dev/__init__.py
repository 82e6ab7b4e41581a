"""The local AWS of `inbound dev`: a process of its own, what the rules name created in it, and test credentials for all of it.

`session` is not imported here: it loads boto3, which only those who make calls should wait for.
"""

from inbound.operate.dev.credentials import KEY, SECRET, dev_environment
from inbound.operate.dev.functions import FunctionSource, by_name, parse_function
from inbound.operate.dev.local_aws import LocalAws, LocalAwsError
from inbound.operate.dev.provision import Provision, ProvisionError
from inbound.operate.dev.wanted import Wanted, queue_name, wanted

__all__ = [
    "KEY", "SECRET", "FunctionSource", "LocalAws", "LocalAwsError", "Provision", "ProvisionError", "Wanted",
    "by_name", "dev_environment", "parse_function", "queue_name", "wanted",
]
