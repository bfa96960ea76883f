"""Where machines come from: the one interface, and an implementation in memory for trying everything above it.

`Machines` is real (`cloud.supervised`, `cloud.hollow`) or a fake that is chosen by a flag, never silently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cloud.model import Group, Health, Instance, InstanceType


class MachineError(Exception):
    """It could not be done now; the message says why."""


class NoCapacity(MachineError):
    """There is no room for one more machine."""


@dataclass(frozen=True)
class Order:
    """What is to be launched: the group may be gone when only the end of a machine is wanted."""

    instance: Instance
    group: Group
    type: InstanceType


class Machines(Protocol):
    """Everything raises MachineError, and may be asked twice for the same thing."""

    async def look(self) -> dict[str, Health]:
        """All machines that exist, by instance name."""

    async def launch(self, order: Order) -> None:
        """Boot a machine whose node then joins the cluster."""

    async def terminate(self, instance: Instance) -> None:
        """Take it away for good; nothing there is fine."""

    async def kill(self, instance: Instance) -> None:
        """Let it die: it is still there and does nothing any more."""


@dataclass
class FakeMachines:
    """Machines as a dictionary. `refuse`: why launches fail, "" when they do not."""

    there: dict[str, Health] = field(default_factory=dict)
    refuse: str = ""

    async def look(self) -> dict[str, Health]:
        return dict(self.there)

    async def launch(self, order: Order) -> None:
        if self.refuse:
            raise MachineError(self.refuse)
        self.there[order.instance.name] = Health(order.instance.group)

    async def terminate(self, instance: Instance) -> None:
        self.there.pop(instance.name, None)

    async def kill(self, instance: Instance) -> None:
        if instance.name in self.there:
            self.there[instance.name] = Health(instance.group, healthy=False)
