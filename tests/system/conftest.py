"""The services that are started here ask a DNS server that knows nothing, and not that of the machine; none outlives its test."""

from running import dns_that_knows_nothing, no_process_outlives_its_test  # noqa: F401  # fixtures of every test here
