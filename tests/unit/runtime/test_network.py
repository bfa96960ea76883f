"""Addresses and sysctls of pods."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.faults import BadConfig, RuntimeFault
from runtime.network import PodNetwork, check_sysctls, plan_address, pod_mac


@given(st.sets(st.integers(2, 30)), st.integers(0, 31))
def test_address_is_free_and_inside(taken: set[int], last: int) -> None:
    addresses = [f"10.0.0.{each}" for each in taken]
    if len(taken) == 29:
        with pytest.raises(RuntimeFault, match="no IP addresses available"):
            plan_address("10.0.0.0/27", addresses, f"10.0.0.{last}")
        return
    found = plan_address("10.0.0.0/27", addresses, f"10.0.0.{last}")
    assert found not in addresses
    assert 2 <= int(found.rpartition(".")[2]) <= 30


def test_freed_address_is_not_given_again_at_once() -> None:
    assert plan_address("10.0.0.0/24", [], "10.0.0.9") == "10.0.0.10"
    assert plan_address("10.0.0.0/24", [], "10.0.0.254") == "10.0.0.2"
    assert plan_address("10.0.0.0/24", [], "10.9.9.9") == "10.0.0.2"


def test_mac_follows_the_address() -> None:
    assert pod_mac("10.1.2.3") == bytes.fromhex("0a580a010203")


@pytest.mark.parametrize(
    ("name", "host", "fine"),
    [
        pytest.param("net.core.somaxconn", False, True, id="net"),
        pytest.param("net.core.somaxconn", True, False, id="net-on-host-network"),
        pytest.param("kernel.shm_rmid_forced", False, True, id="ipc"),
        pytest.param("kernel.panic", False, False, id="global"),
        pytest.param("net/../kernel/panic", False, False, id="escape"),
        pytest.param("vm.swappiness", False, False, id="vm"),
    ],
)
def test_sysctls(name: str, host: bool, fine: bool) -> None:
    if fine:
        check_sysctls({name: "1"}, host_network=host)
        return
    with pytest.raises(BadConfig):
        check_sysctls({name: "1"}, host_network=host)


def test_cidr_is_remembered(tmp_path: Path) -> None:
    network = PodNetwork(tmp_path / "network.json")
    assert network.pod_cidr == ""
    network.configure("10.244.3.7/24")
    assert PodNetwork(tmp_path / "network.json").pod_cidr == "10.244.3.0/24"
    for bad in ("x", "10.0.0.0/99", "fd00::/64"):
        with pytest.raises(BadConfig):
            network.configure(bad)
    (tmp_path / "network.json").write_text("broken")
    assert PodNetwork(tmp_path / "network.json").pod_cidr == ""
