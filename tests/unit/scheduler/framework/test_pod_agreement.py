"""Affinity between pods and spreading against the slow reference, while nodes, pods and namespaces come and go."""

from __future__ import annotations

import random

import msgspec
from hypothesis import HealthCheck, given, settings
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

Named = dict[str, core_v1.Pod]


def change(
    data: st.DataObject, snapshot: ClusterSnapshot, world: World, nodes: dict[str, core_v1.Node], pods: Named
) -> None:
    """One random event, told to both sides."""
    match data.draw(st.integers(0, 8)):
        case 0 if pods:
            gone = data.draw(st.sampled_from(sorted(pods)))
            del pods[gone]
            snapshot.remove_pod(gone)
        case 1:
            name = data.draw(st.sampled_from(sorted(nodes)))
            nodes[name] = data.draw(neighbours.nodes(name))
            snapshot.set_node(nodes[name])
        case 2 if len(nodes) > 1:
            name = data.draw(st.sampled_from(sorted(nodes)))
            del nodes[name]
            snapshot.remove_node(name)
        case 3:
            name = f"m{len(nodes)}"
            nodes[name] = data.draw(neighbours.nodes(name))
            snapshot.set_node(nodes[name])
        case 4 if pods:
            name = data.draw(st.sampled_from(sorted(pods)))
            old = pods[name]
            assert old.metadata is not None and old.spec is not None
            pods[name] = msgspec.structs.replace(
                old, metadata=msgspec.structs.replace(old.metadata, labels=data.draw(neighbours.pod_labels))
            )
            if data.draw(st.booleans()):
                neighbours.terminating(pods[name])
            snapshot.add_pod(PodInfo(pods[name]), old.spec.nodeName or "")
        case 5:
            name = data.draw(st.sampled_from(neighbours.NAMESPACES))
            world.namespaces[name] = data.draw(neighbours.namespace_labels)
            snapshot.set_namespace(name, world.namespaces[name])
        case 6:
            labels = data.draw(neighbours.pod_labels)
            namespace = data.draw(st.sampled_from(neighbours.NAMESPACES))
            world.services.pop((namespace, "svc"), None)
            if labels:
                world.services[(namespace, "svc")] = labels
            if snapshot.workloads.set_service(namespace, "svc", labels):
                snapshot.workloads_changed()
        case 7:
            selector = data.draw(neighbours.selectors()) or meta_v1.LabelSelector()
            key = (data.draw(st.sampled_from(["ReplicaSet", "StatefulSet"])), "default", "owner")
            # A selector that contradicts the services' would be merged differently; owners select their own pods.
            selector.matchLabels = None
            world.owners[key] = selector
            if snapshot.workloads.set_owner(key, LabelSelector.from_object(selector)):
                snapshot.workloads_changed()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_decisions_agree_with_the_reference_about_neighbours(data: st.DataObject) -> None:
    snapshot = ClusterSnapshot(capacity=2)
    framework = default_framework(rng=random.Random(7))
    world = World()
    nodes = {f"n{index}": data.draw(neighbours.nodes(f"n{index}")) for index in range(data.draw(st.integers(1, 6)))}
    for each in nodes.values():
        snapshot.set_node(each)
    for namespace in neighbours.NAMESPACES:
        world.namespaces[namespace] = data.draw(neighbours.namespace_labels)
        snapshot.set_namespace(namespace, world.namespaces[namespace])
    templates = [data.draw(neighbours.pods(f"template{index}")) for index in range(3)]
    pods: Named = {}
    for step in range(data.draw(st.integers(1, 8))):
        template = data.draw(st.sampled_from(templates))
        assert template.metadata is not None
        name = f"pod{step}"
        pod = msgspec.structs.replace(
            template, metadata=msgspec.structs.replace(template.metadata, name=name, uid=name)
        )
        chosen = check(framework, snapshot, Reference(nodes.values(), pods.values(), world), pod)
        if not chosen and data.draw(st.booleans()):
            chosen = data.draw(st.sampled_from(sorted(nodes)))  # someone else put it there
        if chosen:
            pods[name] = placed(pod, chosen)
            snapshot.add_pod(PodInfo(pods[name]), chosen)
        change(data, snapshot, world, nodes, pods)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_what_a_simulation_did_is_undone_in_the_tallies(data: st.DataObject) -> None:
    snapshot = ClusterSnapshot(capacity=2)
    framework = default_framework(rng=random.Random(7))
    nodes = {f"n{index}": data.draw(neighbours.nodes(f"n{index}")) for index in range(3)}
    for each in nodes.values():
        snapshot.set_node(each)
    pods: Named = {}
    for index in range(4):
        home = data.draw(st.sampled_from(sorted(nodes)))
        pods[f"pod{index}"] = placed(data.draw(neighbours.pods(f"pod{index}")), home)
        snapshot.add_pod(PodInfo(pods[f"pod{index}"]), home)
    wanted = data.draw(neighbours.pods("wanted"))
    check(framework, snapshot, Reference(nodes.values(), pods.values()), wanted)
    snapshot.fork()
    for name in data.draw(st.lists(st.sampled_from(sorted(pods)), unique=True)):
        snapshot.remove_pod(PodInfo.uid_of(pods[name]))
    snapshot.add_pod(PodInfo(data.draw(neighbours.pods("guest"))), data.draw(st.sampled_from(sorted(nodes))))
    framework.schedule(PodInfo(wanted), snapshot)
    snapshot.revert()
    check(framework, snapshot, Reference(nodes.values(), pods.values()), wanted)
