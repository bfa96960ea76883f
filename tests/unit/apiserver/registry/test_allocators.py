"""Cluster IPs and node ports: reserve, next, release, rebuild."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.registry.allocators import (
    AddressAllocator,
    AddressRanges,
    AllocationError,
    Key,
    PortAllocator,
    ServiceAllocators,
)


def test_random_addresses_leave_the_static_band_free() -> None:
    allocator = AddressAllocator("10.96.0.0/16", random.Random(1))
    found = [ipaddress.IPv4Address(allocator.next()) for _ in range(500)]
    assert len(set(found)) == 500
    assert min(found) > ipaddress.IPv4Address("10.96.1.0")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        pytest.param("10.97.0.1", "the provided network does not match the current range", id="outside"),
        pytest.param("10.96.0.0", "is not in the valid range", id="network-address"),
        pytest.param("10.96.255.255", "is not in the valid range", id="broadcast"),
        pytest.param("10.96.0.1", "provided IP is already allocated", id="taken"),
    ],
)
def test_addresses_that_cannot_be_had(address: str, why: str) -> None:
    allocator = AddressAllocator("10.96.0.0/16")
    allocator.reserve("10.96.0.1")
    with pytest.raises(AllocationError, match=why):
        allocator.reserve(address)


def test_a_small_range_is_used_up_to_the_last_address_and_then_full() -> None:
    allocator = AddressAllocator("10.0.0.0/29", random.Random(1))
    found = {allocator.next() for _ in range(6)}
    assert found == {f"10.0.0.{index}" for index in range(1, 7)}
    with pytest.raises(AllocationError, match="range is full"):
        allocator.next()
    allocator.release("10.0.0.3")
    assert allocator.next() == "10.0.0.3"


@given(st.lists(st.sampled_from(["next", "release"]), max_size=60), st.integers(0, 2**16))
def test_no_port_is_given_twice(actions: list[str], seed: int) -> None:
    allocator = PortAllocator(30000, 30039, random.Random(seed))
    held: list[int] = []
    for action in actions:
        if action == "next" and len(held) < 40:
            port = allocator.next()
            assert port not in held
            assert 30000 <= port <= 30039
            held.append(port)
        elif action == "release" and held:
            allocator.release(held.pop())


def test_a_port_is_given_once() -> None:
    allocator = PortAllocator()
    allocator.reserve(31000)
    with pytest.raises(AllocationError, match="provided port is already allocated"):
        allocator.reserve(31000)
    with pytest.raises(AllocationError, match="The range of valid ports is 30000-32767"):
        allocator.reserve(80)


class Stored:
    """Services as a list of changes."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, Key, dict[str, Any] | None]] = []
        self.forgotten = 0

    def put(self, name: str, spec: dict[str, Any] | None) -> None:
        self.changes.append((len(self.changes) + 1, ("ns", name), None if spec is None else {"spec": spec}))

    def everything(self) -> tuple[int, list[tuple[Key, dict[str, Any]]]]:
        last = {key: service for _, key, service in self.changes}
        return len(self.changes), [(key, service) for key, service in last.items() if service is not None]

    def since(self, revision: int) -> list[tuple[int, Key, dict[str, Any] | None]] | None:
        return None if revision < self.forgotten else [change for change in self.changes if change[0] > revision]


def test_the_index_is_built_from_stored_services() -> None:
    stored = Stored()
    stored.put(
        "a", {"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": [{"nodePort": 31000, "protocol": "UDP"}]}
    )
    stored.put("b", {"type": "LoadBalancer", "clusterIPs": ["10.96.0.10"], "healthCheckNodePort": 31001})
    stored.put("c", {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]})
    stored.put("d", {"type": "ClusterIP", "clusterIPs": ["192.168.0.1"]})
    allocators = ServiceAllocators("10.96.0.0/16", services=stored)
    allocators.load()
    for address in ("10.96.0.9", "10.96.0.10"):
        with pytest.raises(AllocationError):
            allocators.addresses.reserve(address)
    for port in (31000, 31001):
        with pytest.raises(AllocationError):
            allocators.ports.reserve(port)
    allocators.ports.reserve(31002)


@pytest.mark.parametrize("forgotten", [0, 100])
def test_services_of_other_servers_are_taken_over(forgotten: int) -> None:
    stored = Stored()
    stored.forgotten = forgotten
    allocators = ServiceAllocators("10.96.0.0/16", services=stored)
    allocators.load()
    stored.put("theirs", {"clusterIPs": ["10.96.0.9"], "ports": [{"nodePort": 31000}], "type": "NodePort"})
    allocators.load()
    with pytest.raises(AllocationError):
        allocators.addresses.reserve("10.96.0.9")
    stored.put("theirs", {"clusterIPs": ["10.96.0.9"], "ports": [{"nodePort": 31001}], "type": "NodePort"})
    allocators.load()
    allocators.ports.reserve(31000)
    with pytest.raises(AllocationError):
        allocators.ports.reserve(31001)
    stored.put("theirs", None)
    allocators.load()
    allocators.addresses.reserve("10.96.0.9")


def test_a_value_that_was_given_again_is_not_freed_by_an_old_deletion() -> None:
    stored = Stored()
    allocators = ServiceAllocators("10.96.0.0/16", services=stored)
    stored.put("first", {"clusterIPs": ["10.96.0.9"]})
    allocators.load()
    allocators.give_back(["10.96.0.9"])  # this server deletes the first one
    allocators.addresses.reserve("10.96.0.9")
    allocators.note(("ns", "second"), ["10.96.0.9"])  # and gives its address to a second
    stored.put("first", None)  # only now the deletion comes round
    allocators.load()
    with pytest.raises(AllocationError):
        allocators.addresses.reserve("10.96.0.9")


def test_a_full_range_is_followed_by_the_next_that_is_ready() -> None:
    ranges = AddressRanges("10.0.0.0/30", random.Random(1))
    assert {ranges.next(), ranges.next()} == {"10.0.0.1", "10.0.0.2"}
    assert ranges.set_ranges({"10.0.0.0/30": True, "10.1.0.0/30": True, "10.2.0.0/30": False, "2001:db8::/120": True})
    for address in ("10.0.0.1", "10.0.0.2"):  # told anew
        ranges.hold(address)
    assert {ranges.next(), ranges.next()} == {"10.1.0.1", "10.1.0.2"}
    with pytest.raises(AllocationError, match="range is full"):
        ranges.next()
    with pytest.raises(AllocationError, match="does not match the current range"):
        ranges.reserve("10.2.0.1")
    assert not ranges.set_ranges({"10.0.0.0/30": True, "10.1.0.0/30": True, "10.2.0.0/30": True})
    ranges.reserve("10.2.0.1")


def test_an_address_is_taken_in_all_ranges_that_have_it() -> None:
    ranges = AddressRanges("10.0.0.0/24", random.Random(1))
    ranges.set_ranges({"10.0.0.0/24": True, "10.0.0.0/16": True})
    ranges.reserve("10.0.0.9")
    ranges.set_ranges({"10.0.0.0/24": False, "10.0.0.0/16": True})
    with pytest.raises(AllocationError, match="already allocated"):
        ranges.reserve("10.0.0.9")
    ranges.release("10.0.0.9")
    ranges.reserve("10.0.0.9")


def test_stored_addresses_are_known_in_ranges_that_come_later() -> None:
    stored = Stored()
    stored.put("a", {"type": "ClusterIP", "clusterIPs": ["10.7.0.9"]})
    found = {"10.96.0.0/16": True}
    allocators = ServiceAllocators("10.96.0.0/16", services=stored, ranges=lambda: found)
    allocators.load()
    found["10.7.0.0/16"] = True
    allocators.load()
    with pytest.raises(AllocationError, match="already allocated"):
        allocators.addresses.reserve("10.7.0.9")
