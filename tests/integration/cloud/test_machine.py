"""Machines and their network, for real: cables, addresses, partitions, capacity, and nothing left behind."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.machine import Machine
from cloud.network import Underlay
from linux import netns
from linux.cgroup import Cgroups
from linux.netlink import Netlink
from tests.harness.nanokube import eventually

NETWORK = ipaddress.IPv4Network("10.250.199.0/24")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    underlay = Underlay("test199", NETWORK, tmp_path / "netns" / "switch", tmp_path / "netns" / "host")
    cgroups = Cgroups()
    made = [
        Machine(
            name=f"m{number}",
            underlay=underlay,
            netns=tmp_path / "netns" / f"m{number}",
            address=str(NETWORK[number]),
            cgroup=f"nanokube/test-machines/m{number}",
            cpu="1500m",
            memory="256Mi",
        )
        for number in (11, 12)
    ]
    underlay.build()
    for machine in made:
        machine.build(cgroups)
    yield made
    for machine in made:
        assert machine.remove(cgroups)
    underlay.remove()
    assert cgroups.remove("nanokube/test-machines")


def reaches(machine: Machine | None, address: str) -> bool:
    def ping() -> bool:
        argv = ["busybox", "ping", "-c", "1", "-W", "1", address]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    return ping() if machine is None else netns.run_in(str(machine.netns), ping)


def test_machines_and_the_host_reach_each_other(machines: list[Machine]) -> None:
    one, two = machines
    assert reaches(one, two.address)
    assert reaches(None, one.address)
    assert reaches(one, str(NETWORK[1]))


def test_a_partition_cuts_one_machine_and_heals(machines: list[Machine]) -> None:
    one, two = machines
    two.underlay.set_port(two.port, False)
    assert not reaches(one, two.address)
    assert reaches(None, one.address)
    two.underlay.set_port(two.port, True)
    eventually(lambda: reaches(one, two.address), "the cable to carry again")


def test_building_again_changes_nothing(machines: list[Machine]) -> None:
    for machine in machines:
        machine.underlay.build()
        machine.build(Cgroups())
    assert reaches(machines[0], machines[1].address)


def test_the_declared_size_is_the_cgroups_limit(machines: list[Machine]) -> None:
    cgroups = Cgroups()
    folders = cgroups.folders(machines[0].cgroup)
    if cgroups.layout.unified:
        assert Path(folders[""], "memory.max").read_text().strip() == str(256 << 20)
        assert Path(folders[""], "cpu.max").read_text().split()[0] == "150000"
    else:
        assert Path(folders["memory"], "memory.limit_in_bytes").read_text().strip() == str(256 << 20)
        assert Path(folders["cpu"], "cpu.cfs_quota_us").read_text().strip() == "150000"


def test_pulling_the_plug_kills_what_runs_inside(machines: list[Machine]) -> None:
    machine, cgroups = machines[0], Cgroups()
    process = subprocess.Popen(["sleep", "3600"])
    cgroups.attach(machine.system_cgroup, process.pid)
    assert machine.power_off(cgroups)
    assert process.wait(5) == -9


def test_removal_leaves_no_link_and_no_pin(tmp_path: Path) -> None:
    before = set(os.listdir("/sys/class/net"))
    underlay = Underlay("test198", NETWORK, tmp_path / "netns" / "switch", tmp_path / "netns" / "host")
    for _ in range(2):
        underlay.build(["10.199.0.0/16"])
        with Netlink() as nl:
            assert nl.exists(underlay.host_link)
        underlay.remove()
        underlay.remove()
    assert set(os.listdir("/sys/class/net")) == before
    assert not list((tmp_path / "netns").iterdir())
