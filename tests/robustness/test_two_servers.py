"""Two API servers on one etcd that is killed meanwhile: an address or port that was asked for has one holder."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.allocation_records import ADDRESSES, PORTS
from apiserver.registry.allocators import Value
from apiserver.registry.store import Registry, RequestContext
from apiserver.registry.strategies.services import connect_allocators
from apiserver.storage.etcd import EtcdStore
from apiserver.storage.interface import prefix_end
from apiserver.storage.keys import resource_prefix
from machinery.clock import RealClock
from machinery.errors import Invalid, StatusError
from tests.contract.etcd_server import EtcdServer

SERVICES = resource_prefix("", "services")
CTX = RequestContext(UserInfo("tester"))
SEED, COUNT, WRITERS = 20261121, 60, 4
ANSWERED, REFUSED, UNKNOWN = "created", "refused", "unknown"


def service(name: str, number: int) -> dict[str, Any]:
    ports = [{"port": 80, "nodePort": 30200 + number}]
    spec = {"type": "NodePort", "clusterIP": f"10.60.0.{number + 10}", "ports": ports}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def writer(registry: Registry, name: str, rng: random.Random, told: dict[str, str]) -> None:
    """Ask for every value once, in an order of one's own; values are alike, names differ."""
    services = registry.resource("", "v1", "services")
    for number in rng.sample(range(COUNT), COUNT):
        asked = f"{name}-{number}"
        try:
            await services.create(CTX, "default", service(asked, number))
        except Invalid:
            told[asked] = REFUSED
        except StatusError:
            told[asked] = UNKNOWN
        else:
            told[asked] = ANSWERED


async def test_no_value_is_given_twice(tmp_path: Path) -> None:
    etcd = EtcdServer(tmp_path)
    etcd.start()
    stores = [EtcdStore(etcd.target) for _ in range(2)]
    kinds = [each for each in RESOURCES if each.plural in {"services", "ipaddresses", "servicecidrs"}]
    registries = [Registry(store, RealClock(), kinds) for store in stores]
    for registry in registries:
        connect_allocators(registry, "10.60.0.0/16")
    running = [asyncio.ensure_future(each.run()) for each in registries]
    rng, told = random.Random(SEED), dict[str, str]()
    try:
        for registry in registries:
            await registry.wait_ready()
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                registry, own = registries[number % 2], random.Random(rng.random())
                group.create_task(writer(registry, f"w{number}", own, told))
            while len(told) < WRITERS * COUNT // 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            etcd.kill()
            etcd.start()
        found = (await stores[0].range(SERVICES, prefix_end(SERVICES))).items
        recorded = {
            each.key
            for prefix in (ADDRESSES, PORTS)
            for each in (await stores[0].range(prefix, prefix_end(prefix))).items
        }
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for store in stores:
            await store.close()
        etcd.kill()
    holders: dict[Value, str] = {}
    for each in found:
        obj = msgspec.json.decode(each.value)
        for value in (obj["spec"]["clusterIP"], obj["spec"]["ports"][0]["nodePort"]):
            assert holders.setdefault(value, obj["metadata"]["name"]) == obj["metadata"]["name"], value
    stored = set(holders.values())
    answered = {name for name, answer in told.items() if answer == ANSWERED}
    assert answered <= stored, "an acknowledged Service is not there"
    assert stored <= {name for name, answer in told.items() if answer != REFUSED}, "a refused Service is there"
    assert len(answered) > COUNT / 2 and len(recorded) == 2 * len(stored)
