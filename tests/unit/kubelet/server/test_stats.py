"""Usage as the kubelet tells it: rates between samples, sums of pods, starts of containers."""

from __future__ import annotations

from typing import Any, cast

from kubelet.pod.cgroups import PodCgroups
from kubelet.records import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from kubelet.server.stats import Usages
from proto.cri.v1 import cri_pb2 as cri

S = 1_000_000_000


class NoCgroups:
    def machine_usage(self) -> Any:
        return None


def stats(container: str, at: int, cpu: int, memory: int = 5) -> cri.ContainerStats:
    labels = {POD_UID: "u", POD_NAME: "web", POD_NAMESPACE: "ns", CONTAINER_NAME: container}
    return cri.ContainerStats(
        attributes=cri.ContainerAttributes(id=f"id-{container}", labels=labels),
        cpu=cri.CpuUsage(timestamp=at, usage_core_nano_seconds=cri.UInt64Value(value=cpu)),
        memory=cri.MemoryUsage(timestamp=at, working_set_bytes=cri.UInt64Value(value=memory)),
    )


def test_rates_sums_and_starts() -> None:
    usages = Usages("n", cast(PodCgroups, NoCgroups()))
    usages.summary([stats("a", 100 * S, 0), stats("b", 100 * S, 0)])
    told = usages.summary([stats("a", 110 * S, 5 * S), stats("b", 110 * S, S, 7)], {"id-a": 90 * S})
    pod = told.pods[0]
    assert (pod.namespace, pod.name) == ("ns", "web")
    found = {each.name: each.usage for each in pod.containers}
    assert (found["a"].cpu_usage_nanocores, found["b"].cpu_usage_nanocores) == (S // 2, S // 10)
    assert (found["a"].start_time_unix_nanos, found["b"].start_time_unix_nanos) == (90 * S, 0)
    assert (pod.usage.cpu_usage_nanocores, pod.usage.memory_working_set_bytes) == (S * 6 // 10, 12)
    assert told.usage.cpu_usage_core_nanoseconds == 6 * S
