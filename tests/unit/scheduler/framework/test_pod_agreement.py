"""Affinity between pods and spreading against the slow reference, while nodes, pods and namespaces come and go."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1, meta_v1
from machinery.selectors import LabelSelector
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler import neighbours
from tests.unit.scheduler.framework.test_agreement import check, placed
from tests.unit.scheduler.reference import Reference
from tests.unit.scheduler.reference_pods import World

seeds = st.integers(0, 2**32)


class Pair:
    """The same random cluster, as a snapshot and for the reference."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.snapshot = ClusterSnapshot(capacity=2)
        self.framework = default_framework(rng=Random(7))
        self.world = World()
        self.nodes: dict[str, core_v1.Node] = {}
        self.pods: dict[str, core_v1.Pod] = {}
        for index in range(rng.randint(2, 7)):
            self.set_node(f"n{index}")
        for namespace in neighbours.NAMESPACES:
            self.set_namespace(namespace)
        self.set_service()
        self.set_owner()
        self.templates = [neighbours.make_pod(rng, f"template{index}") for index in range(3)]
        for index in range(rng.randint(0, 12)):
            self.place(self.instance(f"old{index}"), rng.choice(sorted(self.nodes)))

    def instance(self, name: str) -> core_v1.Pod:
        template = self.rng.choice(self.templates)
        assert template.metadata is not None
        return msgspec.structs.replace(
            template, metadata=msgspec.structs.replace(template.metadata, name=name, uid=name)
        )

    def place(self, pod: core_v1.Pod, home: str) -> None:
        assert pod.metadata is not None and pod.metadata.name is not None
        self.pods[pod.metadata.name] = placed(pod, home)
        self.snapshot.add_pod(PodInfo(self.pods[pod.metadata.name]), home)

    def check(self, pod: core_v1.Pod) -> str:
        return check(self.framework, self.snapshot, Reference(self.nodes.values(), self.pods.values(), self.world), pod)

    def set_node(self, name: str) -> None:
        self.nodes[name] = neighbours.make_node(self.rng, name)
        self.snapshot.set_node(self.nodes[name])

    def set_namespace(self, name: str) -> None:
        self.world.namespaces[name] = neighbours.namespace_labels(self.rng)
        self.snapshot.set_namespace(name, self.world.namespaces[name])

    def set_service(self) -> None:
        labels = neighbours.pod_labels(self.rng) if self.rng.random() < 0.7 else {}
        self.world.services.pop(("default", "svc"), None)
        if labels:
            self.world.services[("default", "svc")] = labels
        if self.snapshot.workloads.set_service("default", "svc", labels):
            self.snapshot.workloads_changed()

    def set_owner(self) -> None:
        selector = meta_v1.LabelSelector(
            matchExpressions=[
                meta_v1.LabelSelectorRequirement(key="app", operator=self.rng.choice(["Exists", "DoesNotExist"]))
            ]
        )
        key = (self.rng.choice(["ReplicaSet", "StatefulSet"]), "default", "owner")
        self.world.owners[key] = selector
        if self.snapshot.workloads.set_owner(key, LabelSelector.from_object(selector)):
            self.snapshot.workloads_changed()

    def change(self) -> None:
        """One random event, told to both sides."""
        rng = self.rng
        match rng.randint(0, 9):
            case 0 | 1 if self.pods:
                gone = rng.choice(sorted(self.pods))
                del self.pods[gone]
                self.snapshot.remove_pod(gone)
            case 2:
                self.set_node(rng.choice(sorted(self.nodes)))
            case 3 if len(self.nodes) > 1:
                name = rng.choice(sorted(self.nodes))
                del self.nodes[name]
                self.snapshot.remove_node(name)
            case 4:
                self.set_node(f"m{rng.randint(0, 9)}")
            case 5 if self.pods:
                old = self.pods[rng.choice(sorted(self.pods))]
                assert old.metadata is not None and old.spec is not None
                changed = msgspec.structs.replace(
                    old, metadata=msgspec.structs.replace(old.metadata, labels=neighbours.pod_labels(rng))
                )
                self.place(neighbours.terminating(changed) if rng.random() < 0.5 else changed, old.spec.nodeName or "")
            case 6:
                self.set_namespace(rng.choice(neighbours.NAMESPACES))
            case 7:
                self.set_service()
            case 8:
                self.set_owner()


@settings(max_examples=400, deadline=None)
@given(seeds)
def test_decisions_agree_with_the_reference_about_neighbours(seed: int) -> None:
    pair = Pair(Random(seed))
    for step in range(5):
        pod = pair.instance(f"pod{step}")
        chosen = pair.check(pod)
        if not chosen and pair.rng.random() < 0.3:
            chosen = pair.rng.choice(sorted(pair.nodes))  # someone else put it there
        if chosen:
            pair.place(pod, chosen)
        if pair.rng.random() < 0.6:
            pair.change()


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_what_a_simulation_did_is_undone_in_the_tallies(seed: int) -> None:
    pair = Pair(Random(seed))
    rng, snapshot = pair.rng, pair.snapshot
    wanted = pair.instance("wanted")
    pair.check(wanted)
    snapshot.fork()
    for name in rng.sample(sorted(pair.pods), rng.randint(0, len(pair.pods))):
        snapshot.remove_pod(name)
    snapshot.add_pod(PodInfo(neighbours.make_pod(rng, "guest")), rng.choice(sorted(pair.nodes)))
    pair.framework.schedule(PodInfo(wanted), snapshot)
    snapshot.revert()
    pair.check(wanted)
