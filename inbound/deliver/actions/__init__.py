"""The actions, one file each. A file names its model from `decide.rules` and how to perform it; it is found by lying here.

SES: an action with a TopicArn publishes its notification after it ran; the worker does that for all of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from inbound.decide.engine import Flow, Step
from inbound.deliver.ports import Ports
from inbound.deliver.work import Work


@dataclass(frozen=True, slots=True)
class Performed:
    """An action ran: what follows, and what it did, for people."""

    flow: Flow = Flow.CONTINUE
    detail: Mapping[str, Any] = field(default_factory=dict)


class Action(Protocol):
    """How to perform one type of action."""

    model: type[Any]
    """Its model in decide.rules."""

    def sink(self, action: Any, ports: Ports) -> str:
        """The sink it calls, or empty: then it only changes `work`, and is done again when a message is resumed."""
        ...

    def unfit(self, step: Step, work: Work) -> str:  # noqa: ARG002  # for those that can say
        """Why the sink could never take this message, or an empty text. It is bounced then, and the sink is not called."""
        return ""

    def settled(self, step: Step, work: Work, ports: Ports) -> Performed | None:  # noqa: ARG002  # for those that can say
        """What the step comes to where no sink needs to be called for it, whatever state it is in; None where one does."""
        return None

    async def perform(self, step: Step, work: Work, ports: Ports) -> Performed:
        """Do it. Raises SinkDown, MessageFailed or MessageRefused."""
        ...


@cache
def known() -> dict[type[Any], Action]:
    """Every action in this folder, by model. Raises RuntimeError when two files claim one model, or the folder cannot be read."""
    found: dict[type[Any], Action] = {}
    for module in pkgutil.iter_modules(__path__):
        action: Action = importlib.import_module(f"{__name__}.{module.name}").ACTION
        if action.model in found:
            raise RuntimeError(f"two actions for {action.model.__name__}")
        found[action.model] = action
    if not found:  # pkgutil takes a folder that cannot be read for an empty one: with no file descriptor left, say
        raise RuntimeError(f"no actions are found in {', '.join(__path__)}")
    return found


def of(step: Step) -> Action:
    """The action that performs this step. Raises KeyError for one that is not supported; the loader lets no such rule in."""
    return known()[type(step.action)]
