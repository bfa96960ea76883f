"""A machine: a network namespace with an address and a cgroup of a declared size, for the processes of one node.

Owns the making, freezing, cutting off and removal of both. Declared capacity is enforced by the machine's cgroup where
the kernel allows it, so that a node's allocatable is honest. What runs inside is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloud.network import Underlay
from linux import netns
from linux.cgroup import Cgroups, Limits
from machinery import quantity

CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class Machine:
    """`cgroup` is relative to the cgroup mount; `port` is the machine's cable on the switch."""

    name: str
    underlay: Underlay
    netns: Path
    address: str
    cgroup: str
    cpu: str
    memory: str

    @property
    def port(self) -> str:
        return f"m{self.address.rpartition('.')[2]}"

    @property
    def system_cgroup(self) -> str:
        """Where the node's own processes run, apart from its pods."""
        return f"{self.cgroup}/system"

    def build(self, cgroups: Cgroups) -> None:
        """Make namespace, cable and cgroups. Idempotent."""
        if not netns.is_pinned(str(self.netns)):
            self.netns.unlink(missing_ok=True)
            self.underlay.unplug(self.port)  # a cable left by a namespace that is gone
            netns.create(str(self.netns))
        self.underlay.connect(self.netns, self.port, self.address)
        quota = max(1000, quantity.milli(self.cpu) * CPU_PERIOD_US // 1000)
        memory = quantity.value(self.memory)
        cgroups.create(self.cgroup, Limits(cpu_quota_us=quota, cpu_period_us=CPU_PERIOD_US, memory_bytes=memory))
        cgroups.create(self.system_cgroup)

    def enter(self, cgroups: Cgroups, pid: int) -> None:
        """Move the calling single-threaded process (`pid`) into the machine."""
        cgroups.attach(self.system_cgroup, pid)
        netns.enter(str(self.netns))

    def freeze(self, cgroups: Cgroups) -> None:
        """Stop all its processes from running, containers included: a hung machine."""
        cgroups.freeze(self.cgroup)

    def thaw(self, cgroups: Cgroups) -> None:
        """Let a frozen machine run again."""
        cgroups.thaw(self.cgroup)

    def power_off(self, cgroups: Cgroups) -> bool:
        """Pull the plug: every process and container dies at once. False when something would not die."""
        return cgroups.kill(self.cgroup)

    def remove(self, cgroups: Cgroups) -> bool:
        """Power off and take namespace, cable and cgroups down. False when a cgroup would not go."""
        cgroups.kill(self.cgroup)
        self.underlay.unplug(self.port)
        netns.delete(str(self.netns))
        return cgroups.remove(self.cgroup)
