"""Where machines come from: the one interface, our cloud behind it, and a fake for trying everything above it.

Owns the conversation with the cloud's MachineService. Everything raises ProviderError when the cloud does not answer,
errs, or says what cannot be true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from api.models import core_v1
from machinery import grpc as transport
from machinery.errors import NotFound, StatusError
from nodepool_autoscaler import names
from nodepool_autoscaler.model import Offering
from proto.cloud.v1 import machines_pb2 as pb
from scheduler.framework import resources

if TYPE_CHECKING:
    import grpc.aio

TIMEOUT: Final = 20.0  # real seconds


class ProviderError(Exception):
    """The cloud did not do it; asking again may help."""


class NoCapacity(ProviderError):
    """Nothing of what was asked for can be had now. `refused`: keys of the offerings."""

    def __init__(self, message: str, refused: Iterable[tuple[str, str, str]] = ()) -> None:
        super().__init__(message)
        self.refused = tuple(refused)


class MachineNotFound(ProviderError):
    """There is no such machine (any more)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`token`: the uid of the claim it was launched for. `problem`: why it does not come, "" if nothing is wrong."""

    name: str
    provider_id: str
    token: str
    key: tuple[str, str, str]
    state: str = "running"
    problem: str = ""
    out_of_capacity: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def terminating(self) -> bool:
        return self.state == "deleting"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be launched: one machine as the first of these offerings that can be had."""

    token: str
    offerings: tuple[Offering, ...]
    hollow: bool = False
    boot_delay: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[core_v1.Taint, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """Everything may be asked twice for the same thing."""

    async def offerings(self, hollow: bool) -> tuple[list[Offering], frozenset[tuple[str, str, str]]]:
        """All that is offered, and the keys of what cannot be had now."""

    async def launch(self, order: Order) -> tuple[Machine, tuple[tuple[str, str, str], ...]]:
        """The machine, and keys of offerings that could not be had. Raises NoCapacity when none could."""

    async def terminate(self, name: str) -> None:
        """Begin to take it away. Raises MachineNotFound once it is gone."""

    async def machines(self) -> list[Machine]:
        """Those that were launched, until they are gone."""

    async def close(self) -> None: ...


class CloudProvider:
    """Our cloud, at `address`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def _ask(self, method: str, request: Any) -> Any:
        import grpc.aio

        from proto.cloud.v1 import machines_pb2_grpc

        if self._channel is None:
            self._channel = transport.channel(self._address)
        try:
            return await getattr(machines_pb2_grpc.MachineServiceStub(self._channel), method)(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            status: StatusError = transport.status_of(error)
            if isinstance(status, NotFound):
                raise MachineNotFound(status.message) from error
            raise ProviderError(status.message) from error

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def offerings(self, hollow: bool) -> tuple[list[Offering], frozenset[tuple[str, str, str]]]:
        answer = await self._ask("ListOfferings", pb.ListOfferingsRequest(hollow=hollow))
        known = [made for each in answer.offerings if (made := _offering(each)) is not None]
        missing = frozenset(_key(each) for each in answer.offerings if not each.available)
        return known, missing

    async def launch(self, order: Order) -> tuple[Machine, tuple[tuple[str, str, str], ...]]:
        answer = await self._ask(
            "LaunchMachine",
            pb.LaunchMachineRequest(
                token=order.token,
                offerings=[
                    pb.Offering(instance_type=each.instance_type, zone=each.zone, capacity_type=each.capacity_type)
                    for each in order.offerings
                ],
                hollow=order.hollow,
                boot_delay=order.boot_delay,
                labels=order.labels,
                taints=[pb.MachineTaint(key=t.key, value=t.value or "", effect=t.effect) for t in order.taints],
                tags=order.tags,
            ),
        )
        refused = tuple(_key(each) for each in answer.refused)
        if not answer.HasField("machine"):
            told = ", ".join(dict.fromkeys(" ".join(each) for each in refused))
            raise NoCapacity(f"insufficient capacity, all requested instance types were unavailable ({told})", refused)
        machine = _machine(answer.machine)
        if not machine.name or machine.token != order.token:
            raise ProviderError(f"the cloud launched something else: {machine.name!r} for {machine.token!r}")
        return machine, refused

    async def terminate(self, name: str) -> None:
        await self._ask("TerminateMachine", pb.TerminateMachineRequest(name=name))

    async def machines(self) -> list[Machine]:
        answer = await self._ask("ListMachines", pb.ListMachinesRequest())
        return [_machine(each) for each in answer.machines]


def _key(told: pb.Offering) -> tuple[str, str, str]:
    return told.instance_type, told.zone, told.capacity_type


def _offering(told: pb.Offering) -> Offering | None:
    """None for what cannot be true: such an offering takes no part."""
    capacity, allocatable = resources.amounts(told.capacity), resources.amounts(told.allocatable)
    sane = math.isfinite(told.price_per_hour) and told.price_per_hour >= 0 and all(_key(told))
    if not sane or not allocatable.get(resources.CPU) or not allocatable.get(resources.MEMORY):
        return None
    labels = {
        **told.labels,
        names.INSTANCE_TYPE: told.instance_type,
        names.ZONE: told.zone,
        names.CAPACITY_TYPE: told.capacity_type,
    }
    return Offering(*_key(told), told.price_per_hour, capacity, allocatable, labels)


def _machine(told: pb.Machine) -> Machine:
    return Machine(
        name=told.name,
        provider_id=told.provider_id,
        token=told.token,
        key=_key(told.offering),
        state=told.state,
        problem=told.message if told.error_code else "",
        out_of_capacity=told.error_code == "OUT_OF_CAPACITY",
        tags=dict(told.tags),
    )


class FakeProvider:
    """Machines as a dictionary. `unavailable`: keys without capacity. `fails`: errors of the next calls, by verb."""

    def __init__(self, offerings: Sequence[Offering]) -> None:
        self.offered = list(offerings)
        self.unavailable: set[tuple[str, str, str]] = set()
        self.fails: dict[str, list[ProviderError]] = {}
        self.there: dict[str, Machine] = {}
        self.orders: list[Order] = []
        self.lingers = False
        """Whether a machine goes on existing after it was terminated, until `gone`."""

    def _fail(self, verb: str) -> None:
        if self.fails.get(verb):
            raise self.fails[verb].pop(0)

    async def close(self) -> None:
        return

    async def offerings(self, hollow: bool) -> tuple[list[Offering], frozenset[tuple[str, str, str]]]:
        self._fail("offerings")
        return list(self.offered), frozenset(self.unavailable)

    async def launch(self, order: Order) -> tuple[Machine, tuple[tuple[str, str, str], ...]]:
        self._fail("launch")
        for known in self.there.values():
            if known.token == order.token:
                return known, ()
        refused = tuple(each.key for each in order.offerings if each.key in self.unavailable)
        for each in order.offerings:
            if each.key not in self.unavailable:
                name = f"machine-{len(self.orders) + 1}"
                self.orders.append(order)
                made = Machine(name, f"fake://{name}", order.token, each.key, tags=order.tags)
                self.there[name] = made
                return made, refused
        raise NoCapacity("insufficient capacity", refused)

    async def terminate(self, name: str) -> None:
        self._fail("terminate")
        if name not in self.there:
            raise MachineNotFound(f'machine "{name}" not found')
        if self.lingers:
            self.there[name] = replace(self.there[name], state="deleting")
        else:
            del self.there[name]

    def gone(self, name: str) -> None:
        """It is away at last."""
        del self.there[name]

    async def machines(self) -> list[Machine]:
        self._fail("machines")
        return list(self.there.values())
