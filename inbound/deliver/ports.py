"""What actions reach the outside through, handed to each of them whole."""

from __future__ import annotations

from dataclasses import dataclass

from inbound.deliver.aws import Aws
from inbound.deliver.bounces import Bounces


@dataclass(frozen=True, slots=True)
class Ports:
    """The doors that lead out of the service. `bounces` is None where no smarthost is configured."""

    aws: Aws
    bounces: Bounces | None = None
