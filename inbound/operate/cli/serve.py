"""`inbound serve`: production. Settings from the environment; JSON log lines on stdout."""

from __future__ import annotations

import click


@click.command()
def serve() -> None:
    """Run the service. Settings come from the environment (INBOUND_…), AWS access is boto3's own (AWS_…).

    SIGTERM drains: idle sessions get 421, transactions are finished, the rest waits in the spool. A second signal ends at once.
    """
    from inbound import log, settings  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.run import run  # noqa: PLC0415

    found = settings.read()
    log.configure(found.log, level=found.log_level)
    run(found)
