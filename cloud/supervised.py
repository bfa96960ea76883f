"""Real machines: the cluster's supervisor is asked for them over its control socket.

Owns that conversation, one JSON line each way. The supervisor makes network namespaces, cgroups and processes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from cloud.machines import MachineError, NoCapacity, Order
from cloud.model import MAX_REAL, Health, Instance, node_labels

TIMEOUT: Final = 60.0  # real seconds: making a certificate and killing containers take some
LIMIT: Final = 1 << 20


class _Machine(msgspec.Struct):
    node: str
    group: str
    healthy: bool


class _Reply(msgspec.Struct):
    ok: Any = None
    error: str | None = None


class SupervisedMachines:
    """Machines by the supervisor behind `socket`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def look(self) -> dict[str, Health]:
        try:
            found = msgspec.convert(await self._ask("machines"), list[_Machine])
        except msgspec.ValidationError as error:
            raise MachineError(f"the supervisor's answer makes no sense: {error}") from error
        return {each.node: Health(each.group, each.healthy) for each in found}

    async def launch(self, order: Order) -> None:
        instance, group, kind = order.instance, order.group, order.type
        machines = await self.look()
        there = machines.get(instance.name)
        if there is not None and there.group == group.name:
            return  # asked before, and the answer was lost
        if len(machines) >= MAX_REAL:
            raise NoCapacity(f"a cluster has at most {MAX_REAL} real machines")
        labels = node_labels(group, instance.zone)
        await self._ask(
            "node-add",
            node=instance.name,
            group=group.name,
            cpu=kind.cpu,
            memory=kind.memory,
            max_pods=kind.maxPods,
            labels=",".join(f"{key}={value}" for key, value in labels.items()),
            taints=",".join(map(str, group.taints)),
        )

    async def terminate(self, instance: Instance) -> None:
        there = (await self.look()).get(instance.name)
        if there is not None and there.group == instance.group:
            await self._ask("node-remove", node=instance.name)

    async def kill(self, instance: Instance) -> None:
        await self._ask("node-kill", node=instance.name)

    async def play_hollow(self) -> None:
        """Have the process run that plays hollow machines."""
        await self._ask("hollow-machines")

    async def _ask(self, command: str, **arguments: Any) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=LIMIT)
                try:
                    writer.write(msgspec.json.encode({"command": command, **arguments}) + b"\n")
                    raw = await reader.readline()
                finally:
                    writer.close()
            reply = msgspec.json.decode(raw, type=_Reply)
        except (OSError, TimeoutError, ValueError, msgspec.DecodeError) as error:
            raise MachineError(f"the supervisor does not answer: {error}") from error
        if reply.error is not None:
            raise MachineError(reply.error)
        return reply.ok
