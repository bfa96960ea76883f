"""Scheduling decisions per second, in process: arrays against a plain Python loop, in one run.

    python -m bench.scheduler [--nodes 100 1000 5000] [--rounds 5]

Rows: a pod evaluated on all nodes from nothing; a pod of a known template (the common case), counted on its node as
the scheduler does; the plain loop that computes the same filters and scores node by node; a pod that fits nowhere;
pods that look at other pods: spread over zones and nodes because a Service selects them, held apart by a hard
constraint over zones, kept off one another's nodes by required anti-affinity, and drawn to each other's zone by a
preference; pods with a claim of their own that is to be provisioned where they go, and pods whose claims are bound to
volumes of single nodes; a pod that preempts others on full nodes.
Medians of CPU time; read the last column, the ratio to the plain loop, since machines differ.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from api.models import core_v1, meta_v1, storage_v1
from scheduler.framework.framework import Framework
from scheduler.framework.node_facts import balance
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework

GIB = 2**30
HOSTNAME = "kubernetes.io/hostname"
CPU_REQUEST, MEMORY_REQUEST = 100, 128 * 2**20


def make_node(index: int) -> core_v1.Node:
    name = f"node-{index}"
    taints = None
    if index % 20 == 0:
        taints = [core_v1.Taint(key="dedicated", value="batch", effect="NoSchedule")]
    elif index % 10 == 3:
        taints = [core_v1.Taint(key="spot", effect="PreferNoSchedule")]
    cpus = (4, 8, 16)[index % 3]
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(
            name=name,
            labels={"kubernetes.io/hostname": name, "zone": f"zone-{index % 3}", "disk": "ssd" if index % 2 else "hdd"},
        ),
        spec=core_v1.NodeSpec(taints=taints),
        status=core_v1.NodeStatus(allocatable={"cpu": str(cpus), "memory": f"{cpus * 4}Gi", "pods": "110"}),
    )


def make_pod(index: int, cpu: str = f"{CPU_REQUEST}m") -> core_v1.Pod:
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name=f"pod-{index}", namespace="default", uid=f"uid-{index}"),
        spec=core_v1.PodSpec(
            nodeSelector={"disk": "ssd"},
            containers=[
                core_v1.Container(
                    name="app",
                    image="busybox",
                    resources=core_v1.ResourceRequirements(requests={"cpu": cpu, "memory": "128Mi"}),
                )
            ],
        ),
    )


class PlainNode:
    """What a loop over nodes reads, already parsed."""

    __slots__ = ("blocked", "cpu", "cpu_used", "labels", "memory", "memory_used", "name", "pods", "soft")

    def __init__(self, node: core_v1.Node) -> None:
        assert node.metadata is not None and node.spec is not None and node.status is not None
        allocatable = node.status.allocatable or {}
        effects = [taint.effect for taint in node.spec.taints or []]
        self.name = node.metadata.name or ""
        self.labels = node.metadata.labels or {}
        self.blocked = "NoSchedule" in effects
        self.soft = effects.count("PreferNoSchedule")
        self.cpu = int(allocatable["cpu"]) * 1000
        self.memory = int(allocatable["memory"].removesuffix("Gi")) * GIB
        self.cpu_used = self.memory_used = self.pods = 0


def plain_schedule(nodes: Sequence[PlainNode], selector: dict[str, str]) -> PlainNode | None:
    """The same decision, one node at a time."""
    fitting: list[tuple[int, PlainNode]] = []
    softest = 0
    for node in nodes:
        if node.blocked or node.pods >= 110:
            continue
        if any(node.labels.get(key) != value for key, value in selector.items()):
            continue
        cpu, memory = node.cpu_used + CPU_REQUEST, node.memory_used + MEMORY_REQUEST
        if cpu > node.cpu or memory > node.memory:
            continue
        least = ((node.cpu - cpu) * 100 // node.cpu + (node.memory - memory) * 100 // node.memory) // 2
        change = balance(cpu, node.cpu, memory, node.memory) - balance(
            node.cpu_used, node.cpu, node.memory_used, node.memory
        )
        fitting.append((least + 50 + (50 + change) // 2, node))
        softest = max(softest, node.soft)
    best, best_score = None, -1
    for score, node in fitting:
        total = score + 3 * (100 - node.soft * 100 // softest if softest else 100)
        if total > best_score:
            best, best_score = node, total
    return best


def median_micros(work: Callable[[], None], clear: Callable[[], None], count: int, rounds: int) -> float:
    """CPU time of one of `count` steps of `work`, without that of clearing up; the first round warms up."""
    samples = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        samples.append((time.process_time() - start) / count * 1e6)
        clear()
    return statistics.median(samples[1:])


def bench(node_count: int, rounds: int) -> list[tuple[str, float]]:
    nodes = [make_node(index) for index in range(node_count)]
    snapshot = ClusterSnapshot()
    for node in nodes:
        snapshot.set_node(node)
    pods = [PodInfo(make_pod(index)) for index in range(300)]
    framework = default_framework(rng=random.Random(1))

    def place(forgetful: bool) -> None:
        for pod in pods:
            if forgetful:
                framework.forget()
            snapshot.add_pod(pod, framework.schedule(pod, snapshot).node)

    def clear() -> None:
        for pod in pods:
            snapshot.remove_pod(pod.uid)

    plain = [PlainNode(node) for node in nodes]
    plain_count = max(2, 20_000 // node_count)

    def loop() -> None:
        for _ in range(plain_count):
            best = plain_schedule(plain, {"disk": "ssd"})
            if best is not None:
                best.cpu_used += CPU_REQUEST
                best.memory_used += MEMORY_REQUEST
                best.pods += 1

    big = PodInfo(make_pod(0, cpu="500"))

    def refuse() -> None:
        for _ in range(100):
            framework.forget()
            error = framework.schedule(big, snapshot).error
            assert error is not None and error.message

    return [
        ("evaluate all nodes anew", median_micros(lambda: place(True), clear, len(pods), rounds)),
        ("pod of a known template", median_micros(lambda: place(False), clear, len(pods), rounds)),
        ("plain Python loop", median_micros(loop, clear, plain_count, rounds)),
        ("fits nowhere, with its message", median_micros(refuse, clear, 100, rounds)),
        *neighbours(snapshot, rounds),
        *volumes(snapshot, rounds),
        preemption(node_count, rounds),
    ]


def term(key: str) -> core_v1.PodAffinityTerm:
    selector = meta_v1.LabelSelector(matchLabels={"app": "web"})
    return core_v1.PodAffinityTerm(topologyKey=key, labelSelector=selector)


def labelled(index: int, **spec: Any) -> PodInfo:
    pod = make_pod(index)
    assert pod.metadata is not None and pod.spec is not None
    pod.metadata.labels = {"app": "web"}
    for name, value in spec.items():
        setattr(pod.spec, name, value)
    return PodInfo(pod)


def neighbours(snapshot: ClusterSnapshot, rounds: int) -> list[tuple[str, float]]:
    """Pods whose place depends on pods of other nodes."""
    hard = core_v1.TopologySpreadConstraint(
        maxSkew=1,
        topologyKey="zone",
        whenUnsatisfiable="DoNotSchedule",
        labelSelector=meta_v1.LabelSelector(matchLabels={"app": "web"}),
    )
    apart = core_v1.Affinity(
        podAntiAffinity=core_v1.PodAntiAffinity(requiredDuringSchedulingIgnoredDuringExecution=[term(HOSTNAME)])
    )
    near = core_v1.Affinity(
        podAffinity=core_v1.PodAffinity(
            preferredDuringSchedulingIgnoredDuringExecution=[
                core_v1.WeightedPodAffinityTerm(podAffinityTerm=term("zone"), weight=50)
            ]
        )
    )
    rows = []
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("spread by default", {}),
        ("spread over zones, hard", {"topologySpreadConstraints": [hard]}),
        ("required anti-affinity", {"affinity": apart}),
        ("preferred affinity", {"affinity": near}),
    ]
    for name, spec in kinds:
        if not spec:
            snapshot.workloads.set_service("default", "web", {"app": "web"})
            snapshot.workloads_changed()
        pods = [labelled(index, **spec) for index in range(min(300, snapshot.node_count // 4))]
        framework = default_framework(rng=random.Random(1))

        def place(pods: Sequence[PodInfo] = pods, framework: Framework = framework) -> None:
            for pod in pods:
                decision = framework.schedule(pod, snapshot)
                assert decision.node, decision.error
                snapshot.add_pod(pod, decision.node)

        def clear(pods: Sequence[PodInfo] = pods) -> None:
            for pod in pods:
                snapshot.remove_pod(pod.uid)

        rows.append((name, median_micros(place, clear, len(pods), rounds)))
        if not spec:
            snapshot.workloads.set_service("default", "web", None)
            snapshot.workloads_changed()
    return rows


def make_claim(index: int, volume: str = "") -> core_v1.PersistentVolumeClaim:
    marks = {"pv.kubernetes.io/bind-completed": "yes"} if volume else None
    return core_v1.PersistentVolumeClaim(
        metadata=meta_v1.ObjectMeta(
            name=f"claim-{index}", namespace="default", uid=f"c-{index}", resourceVersion="1", annotations=marks
        ),
        spec=core_v1.PersistentVolumeClaimSpec(
            accessModes=["ReadWriteOnce"],
            storageClassName="standard",
            volumeName=volume or None,
            resources=core_v1.VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )


def make_volume(index: int, host: str) -> core_v1.PersistentVolume:
    there = core_v1.NodeSelectorRequirement(key=HOSTNAME, operator="In", values=[host])
    terms = core_v1.NodeSelector(nodeSelectorTerms=[core_v1.NodeSelectorTerm(matchExpressions=[there])])
    return core_v1.PersistentVolume(
        metadata=meta_v1.ObjectMeta(name=f"volume-{index}", resourceVersion="1"),
        spec=core_v1.PersistentVolumeSpec(
            storageClassName="standard",
            capacity={"storage": "1Gi"},
            accessModes=["ReadWriteOnce"],
            local=core_v1.LocalVolumeSource(path=f"/volumes/{index}"),
            nodeAffinity=core_v1.VolumeNodeAffinity(required=terms),
        ),
        status=core_v1.PersistentVolumeStatus(phase="Bound"),
    )


def volumes(snapshot: ClusterSnapshot, rounds: int) -> list[tuple[str, float]]:
    """Pods with one claim each; reserving it is part of the work."""
    catalog = snapshot.volumes
    catalog.classes["standard"] = storage_v1.StorageClass(
        metadata=meta_v1.ObjectMeta(name="standard"), provisioner="p", volumeBindingMode="WaitForFirstConsumer"
    )
    rows = []
    for name, bound in (("claims to be provisioned", False), ("claims bound to local volumes", True)):
        pods = []
        for index in range(min(300, snapshot.node_count // 4)):
            volume = f"volume-{index}" if bound else ""
            if bound:
                catalog.set_volume(volume, make_volume(index, f"node-{index * 2 + 1}"))
            catalog.set_claim(("default", f"claim-{index}"), make_claim(index, volume))
            pod = make_pod(index)
            assert pod.spec is not None
            source = core_v1.PersistentVolumeClaimVolumeSource(claimName=f"claim-{index}")
            pod.spec.volumes = [core_v1.Volume(name="data", persistentVolumeClaim=source)]
            pods.append(PodInfo(pod))
        framework = default_framework(rng=random.Random(1))

        def place(pods: Sequence[PodInfo] = pods, framework: Framework = framework) -> None:
            for pod in pods:
                decision = framework.schedule(pod, snapshot)
                if decision.node:  # one in ten of the volumes is on a node with a taint
                    framework.claim(pod, decision.node, snapshot)
                    snapshot.add_pod(pod, decision.node)

        def clear(pods: Sequence[PodInfo] = pods, framework: Framework = framework) -> None:
            for pod in pods:
                if (home := snapshot.home_of(pod.uid)) is not None:
                    framework.release(pod, home, snapshot)
                    snapshot.remove_pod(pod.uid)

        rows.append((name, median_micros(place, clear, len(pods), rounds)))
    return rows


def preemption(node_count: int, rounds: int) -> tuple[str, float]:
    """One decision of an important pod where every node is full of eight others."""
    snapshot = ClusterSnapshot()
    for index in range(node_count):
        snapshot.set_node(make_node(index))
        cpus = (4, 8, 16)[index % 3]
        for number in range(8):
            snapshot.add_pod(PodInfo(make_pod(8 * index + number, cpu=f"{cpus * 125}m")), f"node-{index}")
    wanted = make_pod(-1, cpu="1")
    assert wanted.spec is not None
    wanted.spec.priority = 1000
    framework = default_framework(rng=random.Random(1))
    info = PodInfo(wanted)

    def preempt() -> None:
        for _ in range(3):
            error = framework.schedule(info, snapshot).error
            assert error is not None and error.post.victims

    return "preempts others", median_micros(preempt, lambda: None, 3, rounds)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.scheduler", description="Scheduling decisions per second.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    print("| nodes | what | us/pod | pods/s | times faster than the plain loop |\n|---|---|---|---|---|")
    for count in args.nodes:
        rows = bench(count, args.rounds)
        plain = dict(rows)["plain Python loop"]
        for name, micros in rows:
            print(f"| {count} | {name} | {micros:.1f} | {1e6 / micros:.0f} | {plain / micros:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
