"""A slow scheduler in plain Python, node by node, from the documented formulas: what the arrays must agree with.

Shares nothing with the scheduler but the API types and quantity parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from api.models import core_v1
from machinery import quantity
from tests.unit.scheduler.reference_nodes import (
    Taint,
    pinned,
    requests,
    scoring,
    selected,
    term_holds,
    tolerated,
    units,
)
from tests.unit.scheduler.reference_pods import Affinities, Spreading, World
from tests.unit.scheduler.reference_volumes import PodOnNodes, Storage

Reasons = tuple[str, ...]
UNSCHEDULABLE: Taint = ("node.kubernetes.io/unschedulable", "", "NoSchedule")


class Reference:
    """Nodes in order of names; pods by node. `promises`: pods that wait for a node they were promised, with its name.

    One object answers for one state of a cluster: what it has worked out about a pod it keeps.
    """

    def __init__(
        self,
        nodes: Iterable[core_v1.Node],
        pods: Iterable[core_v1.Pod],
        world: World | None = None,
        *,
        storage: Storage | None = None,
        promises: Sequence[tuple[core_v1.Pod, str]] = (),
    ) -> None:
        self.nodes = list(nodes)
        self.pods = list(pods)
        self.world = world if world is not None else World()
        self.storage = storage
        self.promises = promises
        self._by_node: dict[str, list[core_v1.Pod]] = {}
        for pod in self.pods:
            assert pod.spec is not None
            self._by_node.setdefault(pod.spec.nodeName or "", []).append(pod)
        self._homes = [(pod, node) for node in self.nodes for pod in self._on(node)]
        self._kept: dict[tuple[int, str], tuple[core_v1.Pod, Affinities, Spreading, PodOnNodes | None]] = {}

    def _on(self, node: core_v1.Node) -> list[core_v1.Pod]:
        assert node.metadata is not None
        return self._by_node.get(node.metadata.name or "", [])

    def _about(self, pod: core_v1.Pod, action: str) -> tuple[core_v1.Pod, Affinities, Spreading, PodOnNodes | None]:
        key = (id(pod), action)
        if key not in self._kept:
            volumes = PodOnNodes(pod, self.storage, self.pods) if self.storage is not None else None
            spreading = Spreading(pod, self.nodes, self._homes, self.world, action)
            self._kept[key] = (pod, Affinities(pod, self._homes, self.world), spreading, volumes)
        return self._kept[key]

    @staticmethod
    def _offered(node: core_v1.Node, name: str) -> int:
        assert node.status is not None
        return units(name, quantity.parse((node.status.allocatable or {}).get(name, "0")))

    def _taken(self, node: core_v1.Node, name: str) -> int:
        return sum(requests(pod).get(name, 0) for pod in self._on(node))

    # --- filters -------------------------------------------------------------------------------------------------

    def rejection(self, pod: core_v1.Pod) -> str:
        """Why no node is even looked at; "" when nodes are."""
        return PodOnNodes(pod, self.storage, self.pods).rejection() if self.storage is not None else ""

    def promised(self, pod: core_v1.Pod) -> str:
        """The node that this pod was promised; "" if none was."""
        return next((node for other, node in self.promises if _uid(other) == _uid(pod)), "")

    def refusal(self, pod: core_v1.Pod, node: core_v1.Node) -> tuple[Reasons, bool]:
        """(reasons, resolvable); no reasons when the node passes: as it is, and beside the pods it was promised to."""
        assert node.metadata is not None
        plain = self._refusal(pod, node)
        ahead = [
            msgspec.structs.replace(other, spec=msgspec.structs.replace(other.spec, nodeName=home))
            for other, home in self.promises
            if home == node.metadata.name and _uid(other) != _uid(pod) and _priority(other) >= _priority(pod)
            if other.spec is not None
        ]
        if plain[0] or not ahead:
            return plain
        return Reference(self.nodes, [*self.pods, *ahead], self.world, storage=self.storage)._refusal(pod, node)

    def _refusal(self, pod: core_v1.Pod, node: core_v1.Node) -> tuple[Reasons, bool]:
        assert pod.spec is not None and node.spec is not None and node.metadata is not None
        named = pinned(pod)
        if named is not None and node.metadata.name not in named:
            return ("node(s) didn't satisfy plugin(s) [NodeAffinity]",), False
        if node.spec.unschedulable and not tolerated(pod, UNSCHEDULABLE):
            return ("node(s) were unschedulable",), False
        for taint in node.spec.taints or []:
            if taint.effect != "PreferNoSchedule" and not tolerated(pod, (taint.key, taint.value or "", taint.effect)):
                return ("node(s) had untolerated taint(s)",), False
        if not selected(pod, node):
            return ("node(s) didn't match Pod's node affinity/selector",), False
        wanted = _ports(pod)
        for other in self._on(node):
            for protocol, ip, number in _ports(other):
                for mine in wanted:
                    if mine[0] == protocol and mine[2] == number and (mine[1] == ip or "0.0.0.0" in (mine[1], ip)):
                        return ("node(s) didn't have free ports for the requested pod ports",), True
        reasons = []
        resolvable = True
        if len(self._on(node)) + 1 > self._offered(node, "pods"):
            reasons.append("Too many pods")
        for name, amount in requests(pod).items():
            if amount > self._offered(node, name) - self._taken(node, name):
                reasons.append(f"Insufficient {name}")
                resolvable = resolvable and amount <= self._offered(node, name)
        if reasons:
            return tuple(reasons), resolvable
        _, affinities, spreading, volumes = self._about(pod, "DoNotSchedule")
        if volumes is not None:
            listed, can = volumes.refusal(node)
            if listed:
                return tuple(listed), can
        refused = spreading.refusal(node)
        return refused if refused[0] else affinities.refusal(node)

    # --- scores --------------------------------------------------------------------------------------------------

    def scores(self, pod: core_v1.Pod) -> dict[str, dict[str, int]]:
        """Weighted scores by node and plugin, for nodes that pass; plugins that tell nothing apart may be left out."""
        fitting = [node for node in self.nodes if not self.refusal(pod, node)[0]]
        _, affinities, spreading, _ = self._about(pod, "ScheduleAnyway")
        result: dict[str, dict[str, int]] = {}
        for plugin, weight, by_node in (
            ("TaintToleration", 3, _normalized([self._unwelcome(pod, node) for node in fitting], reverse=True)),
            ("NodeAffinity", 2, _normalized([self._preferred(pod, node) for node in fitting], reverse=False)),
            ("NodeResourcesFit", 1, [self._least_allocated(pod, node) for node in fitting]),
            ("PodTopologySpread", 2, spreading.scores(fitting)),
            ("InterPodAffinity", 2, affinities.scores(fitting)),
            ("NodeResourcesBalancedAllocation", 1, [self._balanced(pod, node) for node in fitting]),
            ("ImageLocality", 1, [self._images(pod, node) for node in fitting]),
        ):
            for node, score in zip(fitting, by_node, strict=True):
                assert node.metadata is not None
                result.setdefault(node.metadata.name or "", {})[plugin] = weight * score
        return result

    @staticmethod
    def _unwelcome(pod: core_v1.Pod, node: core_v1.Node) -> int:
        assert node.spec is not None
        return sum(
            taint.effect == "PreferNoSchedule" and not tolerated(pod, (taint.key, taint.value or "", taint.effect))
            for taint in node.spec.taints or []
        )

    @staticmethod
    def _preferred(pod: core_v1.Pod, node: core_v1.Node) -> int:
        assert pod.spec is not None
        wanted = pod.spec.affinity.nodeAffinity if pod.spec.affinity else None
        preferred = (wanted.preferredDuringSchedulingIgnoredDuringExecution if wanted else None) or []
        return sum(each.weight for each in preferred if term_holds(node, each.preference))

    def _least_allocated(self, pod: core_v1.Pod, node: core_v1.Node) -> int:
        total = kinds = 0
        for name in ("cpu", "memory"):
            capacity = self._offered(node, name)
            if not capacity:
                continue
            kinds += 1
            asked = sum(scoring(other).get(name, 0) for other in [*self._on(node), pod])
            total += (capacity - asked) * 100 // capacity if asked <= capacity else 0
        return total // kinds if kinds else 0

    def _balanced(self, pod: core_v1.Pod, node: core_v1.Node) -> int:
        asked = requests(pod)
        if not asked.get("cpu", 0) and not asked.get("memory", 0):
            return 0

        def evenness(extra: dict[str, int]) -> int:
            shares = [
                min((self._taken(node, name) + extra.get(name, 0)) / self._offered(node, name), 1.0)
                for name in ("cpu", "memory")
                if self._offered(node, name)
            ]
            spread = abs((shares[0] - shares[1]) / 2) if len(shares) == 2 else 0.0
            return int((1 - spread) * 100)

        return 50 + (50 + evenness(asked) - evenness({})) // 2

    def _images(self, pod: core_v1.Pod, node: core_v1.Node) -> int:
        assert pod.spec is not None
        mib = 1024 * 1024
        containers = [*pod.spec.containers, *(pod.spec.initContainers or [])]
        total = 0
        for each in containers:
            name = each.image or ""
            if ":" not in name.rsplit("/", 1)[-1]:
                name += ":latest"
            owners = [other for other in self.nodes if name in _sizes(other)]
            if name in _sizes(node):
                total += int(_sizes(node)[name] * (len(owners) / len(self.nodes)))
        most = 1000 * mib * len(containers)
        return 100 * (min(max(total, 23 * mib), most) - 23 * mib) // (most - 23 * mib)


def _uid(pod: core_v1.Pod) -> str:
    assert pod.metadata is not None
    return pod.metadata.uid or ""


def _priority(pod: core_v1.Pod) -> int:
    assert pod.spec is not None
    return pod.spec.priority or 0


def _sizes(node: core_v1.Node) -> dict[str, int]:
    assert node.status is not None
    return {name: image.sizeBytes or 0 for image in node.status.images or [] for name in image.names or []}


def _ports(pod: core_v1.Pod) -> list[tuple[str, str, int]]:
    assert pod.spec is not None
    return [
        (port.protocol or "TCP", port.hostIP or "0.0.0.0", port.hostPort)
        for each in pod.spec.containers
        for port in each.ports or []
        if port.hostPort
    ]


def _normalized(raw: list[int], *, reverse: bool) -> list[int]:
    largest = max(raw, default=0)
    scaled = [score * 100 // largest if largest else 0 for score in raw]
    return [100 - score for score in scaled] if reverse else scaled
