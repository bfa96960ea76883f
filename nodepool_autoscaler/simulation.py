"""Nodes that do not exist yet, in the scheduler's snapshot: claims under way, and one node for each offering of a pool.

Owns the making of such Node objects, and which DaemonSets' pods are on them. Everything here happens inside a fork of
the snapshot and is undone with it.
"""
# mypy: disable-error-code="union-attr,type-var"

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from api.daemons import daemon_pod
from api.models import apps_v1, core_v1, meta_v1
from nodepool_autoscaler import names
from nodepool_autoscaler.model import Amounts, NodeState, Offering, Pool
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.decision import FitError
from scheduler.framework.framework import Framework, PluginEntry
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.resources import CPU
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_entries

_POINTS = frozenset({"preEnqueue", "queueSort", "filter"})
_AMONG_PODS = frozenset({"PodTopologySpread", "InterPodAffinity"})


def without_node(info: PodInfo) -> PodInfo:
    """The pod as its controller would make it again: on no node."""
    pod = info.pod
    if pod.spec is None or not pod.spec.nodeName:
        return info
    status = msgspec.structs.replace(pod.status, nominatedNodeName=None) if pod.status is not None else None
    return PodInfo(msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, nodeName=None), status=status))


def quantities(amounts: Amounts) -> dict[str, str]:
    """As a ResourceList."""
    return {name: f"{amount}m" if name == CPU else str(amount) for name, amount in amounts.items()}


def made_node(
    name: str, labels: Mapping[str, str], taints: Sequence[core_v1.Taint], allocatable: Amounts
) -> core_v1.Node:
    """A ready node without pods."""
    listed = quantities(allocatable)
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels={names.HOSTNAME: name, **labels}),
        spec=core_v1.NodeSpec(taints=list(taints) or None),
        status=core_v1.NodeStatus(allocatable=listed, capacity=listed),
    )


def future_node(state: NodeState) -> core_v1.Node:
    """What a node will be once its claim is initialised: without the taints of its start."""
    claim = state.claim
    assert claim is not None
    offered = node_facts.allocatable(state.node) if state.node is not None else {}
    labels = {
        **(state.offering.labels if state.offering is not None else {}),
        **claim.labels,
        **(node_facts.labels(state.node) if state.node is not None else {}),
    }
    known = {name: amount for name, amount in offered.items() if amount}  # a device is 0 until its plugin has come
    return made_node(state.name, labels, claim.taints, {**claim.allocatable, **known})


class Simulator:
    """Over one snapshot, with the pods that every new node gets."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        entries = [PluginEntry(entry.plugin, points=_POINTS) for entry in default_entries()]
        self.framework = Framework(entries)
        self._alone = Framework([each for each in entries if each.plugin.name not in _AMONG_PODS])
        self._daemons: list[core_v1.Pod] = []

    def set_daemons(self, daemons: Iterable[apps_v1.DaemonSet]) -> None:
        """Those whose pods every new node may get."""
        self._daemons = [pod for daemon in daemons if (pod := daemon_pod(daemon)) is not None]

    def feasible(self, info: PodInfo) -> BoolArray:
        """By column; to be read before the snapshot changes."""
        return self.framework.evaluate(info, self.snapshot).feasible

    def feasible_alone(self, info: PodInfo) -> BoolArray:
        """The same, whatever other pods are where."""
        self.framework.signature(info)  # the pod keeps the first one it is given: the one that tells more apart
        return self._alone.evaluate(info, self.snapshot).feasible

    def error(self, info: PodInfo) -> FitError:
        return self.framework.evaluate(info, self.snapshot).error()

    def place(self, info: PodInfo, columns: BoolArray) -> str:
        """Put the pod on the first of these columns that has room; "" when there is none."""
        feasible = self.feasible(info)
        hits = feasible[: len(columns)] & columns
        column = int(hits.argmax()) if len(hits) else 0
        if not len(hits) or not hits[column]:
            return ""
        node = self.snapshot.name_at(column)
        self.snapshot.add_pod(info, node)
        return node

    def columns(self, wanted: Iterable[str]) -> BoolArray:
        """A mask of these nodes."""
        mask = np.zeros(self.snapshot.width, dtype=np.bool_)
        for name in wanted:
            column = self.snapshot.column(name)
            if column is not None:
                mask[column] = True
        return mask

    def add_node(self, node: core_v1.Node) -> int:
        self.snapshot.set_node(node)
        column = self.snapshot.column(node_facts.name(node))
        assert column is not None
        return column

    def add_daemons(self, columns: Sequence[int], present: Iterable[PodInfo] = ()) -> dict[int, list[core_v1.Pod]]:
        """Let every DaemonSet's pod run where it may; by column. Those whose pod is `present` are left out."""
        known: set[tuple[str, str | None]] = {info.owner for info in present if info.owner[0] == "DaemonSet"}
        found: dict[int, list[core_v1.Pod]] = {column: [] for column in columns}
        for pod in self._daemons:
            if ("DaemonSet", pod.metadata.name) in known:
                continue
            hits = self.feasible(PodInfo(pod))
            chosen = [column for column in columns if hits[column]]
            for column in chosen:
                self.add_daemon(pod, self.snapshot.name_at(column))
                found[column].append(pod)
        return found

    def add_daemon(self, pod: core_v1.Pod, node: str) -> PodInfo:
        """One DaemonSet's pod on one node."""
        own = f"{pod.metadata.name}-{node}"
        metadata = msgspec.structs.replace(pod.metadata, name=own, uid=f"daemon/{pod.metadata.namespace}/{own}")
        info = PodInfo(core_v1.Pod(metadata=metadata, spec=pod.spec))
        self.snapshot.add_pod(info, node)
        return info


@dataclass(frozen=True, slots=True)
class Shape:
    """An offering with one choice of the pool's own labels."""

    offering: Offering
    labels: Mapping[str, str]


class Shapes:
    """Everything that a pool could launch, the cheapest first, as empty nodes in the snapshot."""

    def __init__(self, simulator: Simulator, pool: Pool, shapes: Sequence[Shape]) -> None:
        self.pool = pool
        self.shapes = tuple(shapes)
        self._simulator = simulator
        made = [
            simulator.add_node(
                made_node(f"{pool.name}/{number}", shape.labels, pool.taints, shape.offering.allocatable)
            )
            for number, shape in enumerate(self.shapes)
        ]
        self.columns: IntArray = np.array(made, dtype=np.int64)
        found = simulator.add_daemons(made)
        self.daemons = tuple(tuple(found[column]) for column in made)

    def __len__(self) -> int:
        return len(self.shapes)

    def fits(self, feasible: BoolArray) -> BoolArray:
        """Those whose column is feasible."""
        return feasible[self.columns] if len(self.columns) else np.zeros(0, dtype=np.bool_)

    def holds(self, requests: Amounts, pods: int) -> BoolArray:
        """Those with room for so much beside their daemons."""
        snapshot = self._simulator.snapshot
        hits = np.ones(len(self), dtype=np.bool_)
        for name, amount in requests.items():
            row = snapshot.rows.get(name)
            if row is None:
                hits &= amount <= 0
            elif amount > 0:
                hits &= snapshot.free[row, self.columns] >= amount
        hits &= snapshot.free[snapshot.rows["pods"], self.columns] >= pods
        return hits

    def amounts(self, resource: str) -> IntArray:
        """Capacity of each in one resource; nodes count as one each."""
        return np.array(
            [1 if resource == "nodes" else each.offering.capacity.get(resource, 0) for each in self.shapes],
            dtype=np.int64,
        )

    def values(self, key: str) -> list[str | None]:
        """Of a label, by shape."""
        return [each.labels.get(key) for each in self.shapes]

    def alike(self, shape: int, keys: Collection[str]) -> BoolArray:
        """Those with the same values of these labels as one of them."""
        hits = np.ones(len(self), dtype=np.bool_)
        for key in keys:
            values = self.values(key)
            hits &= np.array([value == values[shape] for value in values], dtype=np.bool_)
        return hits

    def offered(self, mask: BoolArray) -> Iterator[Shape]:
        return (each for each, wanted in zip(self.shapes, mask.tolist(), strict=True) if wanted)
