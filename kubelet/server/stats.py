"""Usage of node, pods and containers from the runtime's counters and the machine's cgroup.

Owns the last sample of each counter, from which rates are made. Real time only: what is measured is real. Called by
`server.service`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubelet.pod.cgroups import PodCgroups
from kubelet.records import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from proto.cri.v1 import cri_pb2 as cri
from proto.kubelet.v1 import kubelet_pb2 as pb

NOT_KNOWN: Mapping[str, int] = {}
MIN_WINDOW = 100_000_000  # ns: a rate over less says nothing


@dataclass(slots=True)
class _Counter:
    at: int
    total: int
    rate: int = 0


class Usages:
    """One per kubelet."""

    def __init__(self, node: str, cgroups: PodCgroups) -> None:
        self._node = node
        self._cgroups = cgroups
        self._counters: dict[str, _Counter] = {}

    def summary(self, stats: Iterable[cri.ContainerStats], started: Mapping[str, int] = NOT_KNOWN) -> pb.StatsSummary:
        """What is used now; rates need two samples. `started`: container id to the nanosecond of its start."""
        pods: dict[str, pb.PodUsage] = {}
        seen = {"node"}
        for entry in stats:
            labels = entry.attributes.labels
            uid = labels.get(POD_UID, "")
            name = labels.get(CONTAINER_NAME, "") or entry.attributes.metadata.name
            if not uid or not name:
                continue
            seen.add(entry.attributes.id)
            pod = pods.get(uid)
            if pod is None:
                pod = pods[uid] = pb.PodUsage(
                    namespace=labels.get(POD_NAMESPACE, ""), name=labels.get(POD_NAME, ""), uid=uid
                )
            usage = self._usage(entry)
            usage.start_time_unix_nanos = started.get(entry.attributes.id, 0)
            pod.containers.append(pb.ContainerUsage(name=name, usage=usage))
            _add(pod.usage, usage)
        for gone in self._counters.keys() - seen:
            del self._counters[gone]
        summary = pb.StatsSummary(node=self._node, pods=list(pods.values()))
        machine = self._cgroups.machine_usage()
        if machine is not None:
            at, total, memory, working_set, rss = machine
            summary.usage.CopyFrom(
                pb.Usage(
                    time_unix_nanos=at,
                    cpu_usage_core_nanoseconds=total,
                    cpu_usage_nanocores=self._rate("node", at, total),
                    memory_usage_bytes=memory,
                    memory_working_set_bytes=working_set,
                    memory_rss_bytes=rss,
                )
            )
        else:
            for pod in pods.values():
                _add(summary.usage, pod.usage)
        return summary

    def _usage(self, entry: cri.ContainerStats) -> pb.Usage:
        cpu, memory = entry.cpu, entry.memory
        total = cpu.usage_core_nano_seconds.value
        own = self._rate(entry.attributes.id, cpu.timestamp, total)
        rate = cpu.usage_nano_cores.value if cpu.HasField("usage_nano_cores") else own
        return pb.Usage(
            time_unix_nanos=cpu.timestamp or memory.timestamp,
            cpu_usage_core_nanoseconds=total,
            cpu_usage_nanocores=rate,
            memory_usage_bytes=memory.usage_bytes.value,
            memory_working_set_bytes=memory.working_set_bytes.value,
            memory_rss_bytes=memory.rss_bytes.value,
        )

    def _rate(self, key: str, at: int, total: int) -> int:
        last = self._counters.get(key)
        if last is None or total < last.total:
            self._counters[key] = _Counter(at, total)
            return 0
        if at - last.at < MIN_WINDOW:
            return last.rate
        rate = (total - last.total) * 1_000_000_000 // (at - last.at)
        self._counters[key] = _Counter(at, total, rate)
        return rate


def _add(total: pb.Usage, part: pb.Usage) -> None:
    total.time_unix_nanos = max(total.time_unix_nanos, part.time_unix_nanos)
    total.cpu_usage_nanocores += part.cpu_usage_nanocores
    total.cpu_usage_core_nanoseconds += part.cpu_usage_core_nanoseconds
    total.memory_working_set_bytes += part.memory_working_set_bytes
    total.memory_usage_bytes += part.memory_usage_bytes
    total.memory_rss_bytes += part.memory_rss_bytes
