"""Cluster IPs and node ports: reserve, next, release, rebuild."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.registry.allocators import AddressAllocator, AllocationError, PortAllocator, ServiceAllocators


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
            port = allocator.next(["TCP"])
            assert port not in held
            assert 30000 <= port <= 30039
            held.append(port)
        elif action == "release" and held:
            allocator.release("TCP", held.pop())


def test_one_port_serves_two_protocols() -> None:
    allocator = PortAllocator()
    allocator.reserve("TCP", 31000)
    allocator.reserve("UDP", 31000)
    with pytest.raises(AllocationError, match="provided port is already allocated"):
        allocator.reserve("TCP", 31000)
    with pytest.raises(AllocationError, match="The range of valid ports is 30000-32767"):
        allocator.reserve("TCP", 80)


def test_the_index_is_rebuilt_from_stored_services() -> None:
    stored: list[dict[str, Any]] = [
        {"spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": [{"nodePort": 31000, "protocol": "UDP"}]}},
        {"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.10"], "healthCheckNodePort": 31001}},
        {"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}},
        {"spec": {"type": "ClusterIP", "clusterIPs": ["192.168.0.1"]}},
    ]
    allocators = ServiceAllocators("10.96.0.0/16", services=lambda: stored)
    allocators.load()
    for address in ("10.96.0.9", "10.96.0.10"):
        with pytest.raises(AllocationError):
            allocators.addresses.reserve(address)
    for protocol, port in (("UDP", 31000), ("TCP", 31001)):
        with pytest.raises(AllocationError):
            allocators.ports.reserve(protocol, port)
    allocators.ports.reserve("TCP", 31000)
