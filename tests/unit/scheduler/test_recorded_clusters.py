"""Recorded clusters (tests/data/clusters): the arrays decide exactly as the slow reference does, pod after pod.

Every waiting pod is decided in the order of the queue and then counts on its node; pods that run are taken away and
decided anew where they were found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from api.models import core_v1
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from tests.placement.recorded import FOLDER, Cluster, load, snapshot_of, storage_of, world_of
from tests.unit.scheduler.framework.test_agreement import check, placed
from tests.unit.scheduler.reference import Reference

RECORDED = sorted(FOLDER.glob("*.json"))
ANEW = 30


class Replay:
    """One recorded cluster, told to both sides."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.snapshot: ClusterSnapshot = snapshot_of(cluster)
        self.framework: Framework = default_framework(rng=Random(5))
        self.world, self.storage = world_of(cluster), storage_of(cluster)
        self.pods = {_uid(pod): pod for pod in cluster.pods if _home(pod)}
        self.promises: list[tuple[core_v1.Pod, str]] = []
        for pod in cluster.pods:
            promised = pod.status.nominatedNodeName if pod.status is not None else None
            if promised and not _home(pod):
                self.promises.append((pod, promised))
                self.framework.nominations.set(PodInfo(pod), promised)

    def decide(self, pod: core_v1.Pod) -> str:
        nodes = self.cluster.nodes
        reference = Reference(nodes, self.pods.values(), self.world, storage=self.storage, promises=self.promises)
        return check(self.framework, self.snapshot, reference, pod)

    def place(self, pod: core_v1.Pod, node: str) -> None:
        self.pods[_uid(pod)] = placed(pod, node)
        self.snapshot.add_pod(PodInfo(self.pods[_uid(pod)]), node)
        self.promises = [(other, home) for other, home in self.promises if _uid(other) != _uid(pod)]
        self.framework.nominations.remove(_uid(pod))

    def waiting(self) -> Sequence[core_v1.Pod]:
        found = [pod for pod in self.cluster.pods if not _home(pod)]
        return sorted(found, key=lambda pod: -((pod.spec and pod.spec.priority) or 0))

    def take(self, pod: core_v1.Pod) -> core_v1.Pod:
        """Take a pod from its node; returns it as it was before it was placed."""
        del self.pods[_uid(pod)]
        self.snapshot.remove_pod(_uid(pod))
        return placed(pod, "")


def _uid(pod: core_v1.Pod) -> str:
    assert pod.metadata is not None
    return pod.metadata.uid or ""


def _home(pod: core_v1.Pod) -> str:
    return (pod.spec.nodeName if pod.spec is not None else None) or ""


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in RECORDED])
def test_arrivals_and_running_pods_are_decided_as_the_formulas_say(path: Path) -> None:
    replay = Replay(load(path))
    for pod in replay.waiting():
        chosen = replay.decide(pod)
        if chosen:
            replay.place(pod, chosen)
    running = sorted(replay.pods.values(), key=_uid)
    for pod in Random(path.stem).sample(running, min(ANEW, len(running))):
        free = replay.take(pod)
        replay.decide(free)
        replay.place(free, _home(pod))


def test_the_recorded_clusters_differ_in_what_decides() -> None:
    """Enough of them, and nothing that decides about placement is in none of them."""
    assert len(RECORDED) >= 20
    seen: Counter[str] = Counter()
    for path in RECORDED:
        cluster = load(path)
        seen["storage"] += bool(cluster.claims)
        seen["limits"] += any(each.spec is not None and each.spec.drivers for each in cluster.csi_nodes)
        seen["zones"] += (
            len({(n.metadata.labels or {}).get("topology.kubernetes.io/zone") for n in cluster.nodes if n.metadata}) > 2
        )
        seen["taints"] += any(node.spec is not None and node.spec.taints for node in cluster.nodes)
        seen["extended"] += any("/" in name for n in cluster.nodes if n.status for name in n.status.allocatable or ())
        seen["images"] += any(node.status is not None and node.status.images for node in cluster.nodes)
        for pod in cluster.pods:
            assert pod.spec is not None and pod.status is not None
            affinity = pod.spec.affinity
            seen["node affinity"] += bool(affinity and affinity.nodeAffinity)
            seen["affinity"] += bool(affinity and affinity.podAffinity)
            seen["anti-affinity"] += bool(affinity and affinity.podAntiAffinity)
            seen["spreading"] += bool(pod.spec.topologySpreadConstraints)
            seen["priorities"] += (pod.spec.priority or 0) > 0
            seen["promised"] += bool(pod.status.nominatedNodeName)
            seen["ports"] += any(port.hostPort for each in pod.spec.containers for port in each.ports or ())
            seen["waiting"] += not _home(pod)
    assert min(seen.values()) > 0, seen
