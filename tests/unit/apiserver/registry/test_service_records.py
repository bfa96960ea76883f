"""Several API servers on one store: no cluster IP and no node port is given twice, whoever asks for what."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.allocation_records import (
    ADDRESSES,
    PORTS,
    Record,
    read_record,
    record_key,
    recorded_port,
    write_record,
)
from apiserver.registry.allocation_repair import AllocationRepair, plan_repair
from apiserver.registry.allocators import Value
from apiserver.registry.store import DeleteOptions, ListOptions, Registry, RequestContext
from apiserver.registry.strategies.services import ServiceStrategy, connect_allocators
from apiserver.storage.interface import OnWrite, Store, prefix_end
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock, VirtualClock
from machinery.errors import Invalid, StatusError
from machinery.meta import rfc3339

Obj = dict[str, Any]
KINDS = {"services", "ipaddresses", "servicecidrs", "configmaps"}
MERGE = "application/merge-patch+json"
CTX = RequestContext(UserInfo("tester"))
RANGE = "10.50.0.0/24"


class LateStore:
    """A memory store whose watches lag: two servers over it do not know of each other's last writes."""

    def __init__(self, below: MemoryStore, delay: float) -> None:
        self._below = below
        self._delay = delay
        self.on_write: OnWrite | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    async def watch(self, prefix: bytes, after: int) -> Any:
        return _LateWatch(await self._below.watch(prefix, after), self._delay)


class _LateWatch:
    def __init__(self, below: Any, delay: float) -> None:
        self._below = below
        self._delay = delay

    async def next(self) -> Any:
        found = await self._below.next()
        await asyncio.sleep(self._delay)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


class Server:
    """A registry over a shared store."""

    def __init__(self, store: Store, seed: int = 1, cidr: str = RANGE) -> None:
        self.store = store
        self.registry = Registry(store, RealClock(), [each for each in RESOURCES if each.plural in KINDS])
        connect_allocators(self.registry, cidr)
        self.services = self.registry.resource("", "v1", "services")
        assert isinstance(self.services.strategy, ServiceStrategy)
        allocators = self.services.strategy.allocators
        allocators.addresses._ranges[cidr]._rng = allocators.ports._rng = random.Random(seed)
        self.repair = AllocationRepair(store, self.services.cache, allocators, RealClock())

    async def create(self, name: str, **spec: Any) -> Obj:
        spec.setdefault("ports", [{"port": 80}])
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        made: Obj = msgspec.json.decode(await self.services.create(CTX, "default", body))
        return made

    async def patch(self, name: str, patch: Obj) -> Obj:
        raw = await self.services.patch(CTX, "default", name, MERGE, msgspec.json.encode(patch))
        changed: Obj = msgspec.json.decode(raw)
        return changed

    async def delete(self, name: str) -> None:
        await self.services.delete(CTX, "default", name, DeleteOptions())

    async def addresses(self) -> dict[str, Obj]:
        page = await self.registry.resource("networking.k8s.io", "v1", "ipaddresses").list(CTX, "", ListOptions())
        return {each["metadata"]["name"]: each for each in map(msgspec.json.decode, page.items)}

    async def ports(self) -> set[Value | None]:
        return {recorded_port(each.key) for each in (await self.store.range(PORTS, prefix_end(PORTS))).items}


@contextlib.asynccontextmanager
async def servers(
    count: int = 2, delay: float = 0.0, *, same_seed: bool = True, cidr: str = RANGE
) -> AsyncIterator[list[Server]]:
    below = MemoryStore()
    stores: list[Any] = [LateStore(below, delay) if delay else below for _ in range(count)]
    made = [Server(store, 1 if same_seed else number, cidr) for number, store in enumerate(stores)]
    tasks = [asyncio.ensure_future(each.registry.run()) for each in made]
    for each in made:
        await each.registry.wait_ready()
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_address_in_other_letters_keeps_its_record() -> None:
    async with servers(1, cidr="fd00:10::/112") as (one,):
        made = await one.create("web", clusterIP="FD00:10::AB", ipFamilies=["IPv6"])
        assert made["spec"]["clusterIP"] == "FD00:10::AB"
        (record,) = await one.addresses()
        stored, _ = await one.store.get(record_key(record))
        assert stored is not None
        old = write_record(record, ("default", "web"), "2020-01-01T00:00:00Z")
        await one.store.replace(stored.key, old, stored.mod_revision)
        await one.repair.repair()
        assert list(await one.addresses()) == [record]
        with pytest.raises(Invalid, match="already allocated"):
            await one.create("other", clusterIP="fd00:10::ab", ipFamilies=["IPv6"])
        await one.delete("web")
        assert not await one.addresses()
        await one.create("other", clusterIP="fd00:10::ab", ipFamilies=["IPv6"])


async def test_the_record_is_upstreams_object() -> None:
    async with servers(1) as (one,):
        made = await one.create("web")
        address = made["spec"]["clusterIP"]
        (record,) = (await one.addresses()).values()
        assert record["metadata"]["name"] == address
        assert record["metadata"]["labels"] == {
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }
        assert record["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}
        assert record["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "one transaction"
        await one.delete("web")
        assert await one.addresses() == {}


async def test_records_follow_the_service_through_its_types() -> None:
    async with servers(1) as (one,):
        await one.create("web", type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
        assert await one.ports() == {30080}
        await one.patch("web", {"spec": {"type": "ClusterIP"}})
        assert await one.ports() == set() and len(await one.addresses()) == 1
        await one.patch("web", {"spec": {"type": "ExternalName", "externalName": "x.example", "clusterIP": None}})
        assert await one.addresses() == {}
        await one.patch("web", {"metadata": {"labels": {"a": "b"}}})
        back = await one.patch("web", {"spec": {"type": "ClusterIP", "externalName": None}})
        assert list(await one.addresses()) == [back["spec"]["clusterIP"]]


async def test_a_dry_run_records_nothing() -> None:
    async with servers(1) as (one,):
        body = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
        await one.services.create(RequestContext(UserInfo("tester"), dry_run=True), "default", body)
        assert await one.addresses() == {}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        pytest.param(
            {"clusterIP": "10.50.0.7"},
            "spec.clusterIPs",
            'Invalid value: ["10.50.0.7"]: failed to allocate IP 10.50.0.7: provided IP is already allocated',
            id="address",
        ),
        pytest.param(
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30077}]},
            "spec.ports[0].nodePort",
            "Invalid value: 30077: provided port is already allocated",
            id="port",
        ),
    ],
)
async def test_one_value_asked_of_many_servers_is_given_once(spec: Obj, field: str, message: str) -> None:
    async with servers(4, delay=0.2) as group:
        answers = await asyncio.gather(
            *(each.create(f"s{number}", **spec) for number, each in enumerate(group)), return_exceptions=True
        )
        refused = [each for each in answers if isinstance(each, Invalid)]
        assert len(refused) == 3 and sum(isinstance(each, dict) for each in answers) == 1, answers
        for each in refused:
            assert [(cause["field"], cause["message"]) for cause in each.causes] == [(field, message)]


async def test_many_servers_choose_different_values() -> None:
    async with servers(3, delay=0.1) as group:  # all choose in the same order
        made = await asyncio.gather(
            *(each.create(f"s{n}-{k}", type="NodePort") for n, each in enumerate(group) for k in range(5))
        )
        addresses = Counter(each["spec"]["clusterIP"] for each in made)
        ports = Counter(each["spec"]["ports"][0]["nodePort"] for each in made)
        assert len(addresses) == len(ports) == 15
        assert set(await group[0].addresses()) <= set(addresses)


async def test_changes_race_too() -> None:
    async with servers(2, delay=0.1) as group:
        for number, each in enumerate(group):
            await each.create(f"s{number}")
        patch = {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30099}]}}
        answers = await asyncio.gather(
            *(each.patch(f"s{number}", patch) for number, each in enumerate(group)), return_exceptions=True
        )
        assert {type(each) for each in answers} == {dict, Invalid}, answers


async def test_what_another_server_gave_back_can_be_had() -> None:
    async with servers(2, delay=0.05) as (one, two):
        await one.create("a", clusterIP="10.50.0.9")
        with pytest.raises(Invalid):
            await two.create("b", clusterIP="10.50.0.9")
        await one.delete("a")

        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(StatusError):
                    await two.create("b", clusterIP="10.50.0.9")
                    break
                await asyncio.sleep(0.01)


def record(owner: str, *, age: float = 0.0, address: str = "10.50.0.9") -> bytes:
    return write_record(address, ("default", owner), rfc3339(datetime.now(UTC) - timedelta(seconds=age)))


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        pytest.param(lambda: record("gone", age=120), True, id="of a Service that is gone"),
        pytest.param(lambda: record("gone"), False, id="of one that may be coming"),
        pytest.param(lambda: record("web"), True, id="our own"),
        pytest.param(lambda: b'{"kind":"IPAddress","metadata":{"name":"10.50.0.9"}}', False, id="a user's"),
        pytest.param(lambda: b"nonsense", False, id="unreadable"),
    ],
)
async def test_records_of_nobody(stored: Callable[[], bytes], *, given: bool) -> None:
    """Ages count from now: tests are collected long before they run."""
    async with servers(1) as (one,):
        await one.store.create(record_key("10.50.0.9"), stored())
        try:
            await one.create("web", clusterIP="10.50.0.9")
        except Invalid as error:
            assert not given, error
        else:
            assert given
            found, _ = await one.store.get(record_key("10.50.0.9"))
            assert found is not None and read_record("10.50.0.9", found.value).owner == ("default", "web")


async def test_repair_writes_what_is_missing_and_removes_what_is_stale() -> None:
    async with servers(1) as (one,):
        made = await one.create("web", type="NodePort")
        address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
        for prefix in (ADDRESSES, PORTS):
            for each in (await one.store.range(prefix, prefix_end(prefix))).items:
                await one.store.delete(each.key, each.mod_revision)
        await one.store.create(record_key("10.50.0.9"), record("gone", age=120))
        await one.store.create(record_key("10.50.0.10"), record("coming", address="10.50.0.10"))
        await one.registry.feed.sync()
        await one.repair.repair()
        await one.registry.feed.sync()
        assert set(await one.addresses()) == {address, "10.50.0.10"}
        assert await one.ports() == {port}


OWNERS = st.tuples(st.just("default"), st.sampled_from("abc"))
VALUES = st.sampled_from(["10.50.0.1", "10.50.0.2", 30001, 30002])
OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"
RECORDS = st.builds(Record, OWNERS, st.booleans(), st.sampled_from([OLD, YOUNG, "", "x"]))


@given(st.dictionaries(VALUES, OWNERS), st.dictionaries(VALUES, RECORDS))
def test_a_repair_never_takes_a_record_from_its_service(held: Any, records: Any) -> None:
    clock = VirtualClock(datetime(2026, 1, 1, 1, 0, 30, tzinfo=UTC))
    missing, stale = plan_repair(held, records, clock)
    assert missing == {value: owner for value, owner in held.items() if value not in records}
    for value in stale:
        assert records[value].ours and records[value].owner != held.get(value) and records[value].created != YOUNG


@pytest.mark.parametrize("value", ["10.50.0.1", "fd00::5", 30001, 65535])
def test_a_record_can_be_read_back(value: Value) -> None:
    assert read_record(value, write_record(value, ("ns", "n"), OLD)) == Record(("ns", "n"), True, OLD)
    if not isinstance(value, str):
        assert recorded_port(record_key(value)) == value
