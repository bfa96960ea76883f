"""What the node pool autoscaler expects of where machines come from: our cloud over gRPC, and the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.models import core_v1
from cloud.app import serving
from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines
from cloud.machines_service import MachineService
from cloud.model import Outage, State, standard_types
from cloud.orders import Orders
from cloud.provider import CloudProvider as Externalgrpc
from cloud.requests import Requests
from cloud.store import Store
from machinery.clock import RealClock
from nodepool_autoscaler import names
from nodepool_autoscaler.model import Offering
from nodepool_autoscaler.provider import (
    CloudProvider,
    FakeProvider,
    MachineNotFound,
    NoCapacity,
    Order,
    Provider,
    ProviderError,
)
from tests.unit.nodepool_autoscaler.scene import offerings

GIB = 1 << 30


@dataclass
class Subject:
    """`run_out`: let an offering be without capacity."""

    provider: Provider
    run_out: Callable[[Offering], None]


@pytest.fixture(params=["cloud", "fake"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "fake":
        fake = FakeProvider(offerings())
        yield Subject(fake, lambda each: fake.unavailable.add(each.key))
        return
    engine = Engine(
        Core(State("c", 0.0, types=standard_types())), FakeMachines(), Store(tmp_path / "state"), RealClock(1000)
    )
    orders = Orders(engine.core)

    def run_out(offering: Offering) -> None:
        outage = Outage(offering.instance_type, offering.zone, offering.capacity_type)
        orders.set_outage(outage, over=False, now=engine.now())

    address = f"unix:{tmp_path / 'cloud'}"
    service = MachineService(orders, engine, GIB)
    async with serving(address, Externalgrpc(Requests(engine.core), engine.wake), None, service):
        running = asyncio.create_task(engine.run())
        provider = CloudProvider(address)
        try:
            yield Subject(provider, run_out)
        finally:
            await provider.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def gone(provider: Provider, name: str) -> None:
    async with asyncio.timeout(10):
        while any(each.name == name for each in await provider.machines()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def order(token: str, *wanted: Offering) -> Order:
    taint = core_v1.Taint(key="karpenter.sh/unregistered", effect="NoExecute")
    return Order(token, wanted, labels={"team": "a"}, taints=(taint,), tags={"nodeclaim": token})


async def test_offerings_make_sense(subject: Subject) -> None:
    found, missing = await subject.provider.offerings(hollow=False)
    assert found and not missing and len({each.key for each in found}) == len(found)
    for each in found:
        assert each.price > 0 and 0 < each.allocatable["cpu"] <= each.capacity["cpu"]
        assert 0 < each.allocatable["memory"] <= each.capacity["memory"] and each.allocatable["pods"] > 0
        told = tuple(each.labels[key] for key in (names.INSTANCE_TYPE, names.ZONE, names.CAPACITY_TYPE))
        assert told == each.key and names.HOSTNAME not in each.labels


async def test_a_machine_is_launched_once_and_can_be_ended(subject: Subject) -> None:
    provider = subject.provider
    found, _ = await provider.offerings(hollow=False)
    machine, refused = await provider.launch(order("one", found[3], found[0]))
    assert machine.key == found[3].key and not refused and machine.token == "one"
    again, _ = await provider.launch(order("one", found[0]))
    assert (again.name, again.provider_id) == (machine.name, machine.provider_id)
    other, _ = await provider.launch(order("two", found[0]))
    assert {each.name for each in await provider.machines()} == {machine.name, other.name}
    assert machine.tags["nodeclaim"] == "one"
    await provider.terminate(machine.name)
    await gone(provider, machine.name)
    with pytest.raises(MachineNotFound):
        await provider.terminate(machine.name)


async def test_what_cannot_be_had_is_told(subject: Subject) -> None:
    provider = subject.provider
    found, _ = await provider.offerings(hollow=False)
    subject.run_out(found[0])
    _, missing = await provider.offerings(hollow=False)
    assert missing == {found[0].key}
    machine, refused = await provider.launch(order("one", found[0], found[1]))
    assert machine.key == found[1].key and refused == (found[0].key,)
    with pytest.raises(NoCapacity) as error:
        await provider.launch(order("two", found[0]))
    assert error.value.refused == (found[0].key,)


async def test_a_cloud_that_is_not_there(tmp_path: Path) -> None:
    provider = CloudProvider(f"unix:{tmp_path / 'nowhere'}")
    with pytest.raises(ProviderError):
        await provider.machines()
    await provider.close()
