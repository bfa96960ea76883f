"""CPU, memory and network use of containers and pods, from cgroup samplers that keep their files open.

Owns the samplers and the previous reading of each, from which the rate is computed over at least one second. Reads on
demand only: nobody asking costs nothing. Called by the gRPC door.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from linux.cgroup import Cgroups, Sample, Sampler
from proto.cri.v1 import cri_pb2 as cri
from runtime.containers import Container, Containers
from runtime.network import PodNetwork
from runtime.records import RUNNING
from runtime.sandboxes import Sandbox

WINDOW_NS = 1_000_000_000  # real time: this measures real processes


@dataclass
class _Series:
    sampler: Sampler
    base: Sample  # start of the current window
    rate: int | None = None  # nano cores over the last whole window


def plan_rate(base: Sample, now: Sample, known: int | None) -> tuple[Sample, int | None]:
    """(new base, rate): a new rate once the window is at least a second wide, else the known one. Pure."""
    width = now.at_ns - base.at_ns
    if width < 0:
        return now, known
    if width < WINDOW_NS:
        return base, known
    return now, max(0, (now.cpu_ns - base.cpu_ns) * 1_000_000_000 // width)


def _value(number: int) -> cri.UInt64Value:
    return cri.UInt64Value(value=number)


def cpu_usage(sample: Sample, rate: int | None) -> cri.CpuUsage:
    """A reading as the CRI's CPU usage."""
    usage = cri.CpuUsage(timestamp=sample.at_ns, usage_core_nano_seconds=_value(sample.cpu_ns))
    if rate is not None:
        usage.usage_nano_cores.value = rate
    return usage


def memory_usage(sample: Sample, limit: int) -> cri.MemoryUsage:
    """A reading as the CRI's memory usage; `limit` 0 means none."""
    return cri.MemoryUsage(
        timestamp=sample.at_ns,
        working_set_bytes=_value(sample.working_set),
        available_bytes=_value(max(0, limit - sample.working_set)),
        usage_bytes=_value(sample.memory),
        rss_bytes=_value(sample.rss),
        page_faults=_value(sample.page_faults),
        major_page_faults=_value(sample.major_page_faults),
    )


class Statistics:
    """Samplers of a node's groups."""

    def __init__(self, cgroups: Cgroups, containers: Containers, network: PodNetwork) -> None:
        self._cgroups = cgroups
        self._containers = containers
        self._network = network
        self._series: dict[str, _Series] = {}
        self._folders: dict[str, tuple[float, int, int]] = {}

    def _sample(self, group: str) -> tuple[Sample, int | None] | None:
        series = self._series.get(group)
        try:
            if series is None:
                sampler = self._cgroups.sampler(group)
                first = sampler.sample()
                self._series[group] = _Series(sampler, first)
                return first, None
            now = series.sampler.sample()
        except OSError:
            self.forget(group)
            return None
        series.base, series.rate = plan_rate(series.base, now, series.rate)
        return now, series.rate

    def forget(self, group: str) -> None:
        """Close a group's files."""
        series = self._series.pop(group, None)
        if series is not None:
            series.sampler.close()

    def prune(self, alive: Iterable[str]) -> None:
        """Close the files of groups that are gone."""
        for group in set(self._series) - set(alive):
            self.forget(group)

    def container(self, container: Container) -> cri.ContainerStats | None:
        """Statistics of a running container."""
        record, config = container.record, container.config
        if record.state != RUNNING:
            return None
        found = self._sample(record.cgroup)
        if found is None:
            return None
        sample, rate = found
        used, inodes = self._writable(record.id)
        return cri.ContainerStats(
            attributes=cri.ContainerAttributes(
                id=record.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
            ),
            cpu=cpu_usage(sample, rate),
            memory=memory_usage(sample, config.linux.resources.memory_limit_in_bytes),
            writable_layer=cri.FilesystemUsage(
                timestamp=sample.at_ns,
                fs_id=cri.FilesystemIdentifier(mountpoint=str(self._containers.bundle(container) / "upper")),
                used_bytes=_value(used),
                inodes_used=_value(inodes),
            ),
        )

    def _writable(self, identity: str) -> tuple[int, int]:
        """(bytes, inodes) of a container's writable layer as last measured; see `measure_layers`."""
        return self._folders.get(identity, (0.0, 0, 0))[1:]

    def measure_layers(self, max_age: float = 10.0) -> None:
        """Walk the writable layers that were not measured lately. Blocking: call from a thread."""
        now = time.monotonic()
        current = self._containers.listed()
        for container in current:
            known = self._folders.get(container.record.id)
            if container.record.state == RUNNING and (known is None or now - known[0] > max_age):
                used, inodes = folder_usage(str(self._containers.bundle(container) / "upper"))
                self._folders[container.record.id] = (now, used, inodes)
        for gone in set(self._folders) - {each.record.id for each in current}:
            self._folders.pop(gone, None)

    def sandbox(self, sandbox: Sandbox) -> cri.PodSandboxStats | None:
        """Statistics of a pod: its whole group, its network, its containers."""
        record, config = sandbox.record, sandbox.config
        found = self._sample(record.cgroup_parent)
        if found is None:
            return None
        sample, rate = found
        stats = cri.PodSandboxStats(
            attributes=cri.PodSandboxAttributes(
                id=record.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
            ),
            linux=cri.LinuxPodSandboxStats(
                cpu=cpu_usage(sample, rate),
                memory=memory_usage(sample, config.linux.resources.memory_limit_in_bytes),
                process=cri.ProcessUsage(timestamp=sample.at_ns, process_count=_value(sample.pids)),
            ),
        )
        members = [self.container(each) for each in self._containers.of_sandbox(record.id) if not each.record.internal]
        stats.linux.containers.extend(each for each in members if each is not None)
        if record.link and record.ready:
            with suppress(OSError):
                rx, rx_errors, tx, tx_errors = self._network.statistics(record.link)
                stats.linux.network.timestamp = sample.at_ns
                stats.linux.network.default_interface.CopyFrom(
                    cri.NetworkInterfaceUsage(
                        name="eth0",
                        rx_bytes=_value(rx),
                        rx_errors=_value(rx_errors),
                        tx_bytes=_value(tx),
                        tx_errors=_value(tx_errors),
                    )
                )
        return stats

    def close(self) -> None:
        """Close all files."""
        self.prune(())


def folder_usage(folder: str) -> tuple[int, int]:
    """(bytes on disk, inodes) below a folder."""
    used = inodes = 0
    stack = [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                        inodes += 1
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
        except OSError:
            continue
    return used, inodes
