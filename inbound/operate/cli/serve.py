"""`inbound serve`: production. Settings from the environment; JSON log lines on stdout."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inbound.service import Service


@click.command()
def serve() -> None:
    """Run the service. Settings come from the environment (INBOUND_…), AWS access is boto3's own (AWS_…).

    SIGTERM drains: idle sessions get 421, transactions are finished, the rest waits in the spool. A second signal ends at once.
    """
    from inbound import log, settings  # noqa: PLC0415  # --help need not pay for them
    from inbound.operate.run import run  # noqa: PLC0415

    found = settings.read()
    log.configure(found.log, level=found.log_level, shared=found.processes > 1)
    run(found, started=warn)


def warn(service: Service) -> None:
    """Of variables that are no settings; and of root, which is needed for no port where systemd listens, and for nothing else."""
    from inbound import settings  # noqa: PLC0415  # see `serve`
    from inbound.log import Event  # noqa: PLC0415

    for stranger in settings.strangers():
        service.log.warning(Event.SERVICE_WARNING, warning=stranger)
    if os.geteuid() == 0 and not service.is_supervised:
        service.log.warning(Event.SERVICE_WARNING, warning="this runs as root, which it never needs: use deploy/inbound.service, or a user of its "
                            "own and a port above 1023")
