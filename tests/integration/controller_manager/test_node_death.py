"""A node falls silent: what upstream's timers make of it, at many times their speed."""

from __future__ import annotations

import time

from api import resources
from api.models import core_v1
from client.client import key_of
from controller_manager.environment import Options
from controller_manager.node_ttl import ANNOTATION
from machinery.clock import RealClock
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_workloads import EVENTS, NS, PODS, settled, web

NODES = resources.of(core_v1.Node)
SCALE = 200.0


async def taints(cluster: Cluster, name: str) -> set[tuple[str, str]]:
    node = await cluster.client.get(NODES, name)
    return {(each["key"], each["effect"]) for each in node["spec"].get("taints") or ()}


async def test_pods_of_a_dead_node_are_replaced_and_it_may_come_back() -> None:
    async with running_cluster(
        nodes=3, clock=RealClock(SCALE), options=Options(cluster_cidr="10.244.0.0/16")
    ) as cluster:
        client = cluster.client
        await cluster.client.create(web(6))
        await settled(cluster, 6)
        ranges = {each["spec"].get("podCIDR") for each in (await client.list(NODES)).items}
        assert ranges == {"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"}

        async def told() -> bool:
            nodes = (await client.list(NODES)).items
            return all((each["metadata"].get("annotations") or {}).get(ANNOTATION) == "0" for each in nodes)

        await eventually(told, "how long kubelets may keep secrets")

        cluster.alive.discard("n2")
        died = time.monotonic()

        async def unknown() -> bool:
            node = await client.get(NODES, "n2")
            ready = next(each for each in node["status"]["conditions"] if each["type"] == "Ready")
            return bool(ready["status"] == "Unknown" and ready["reason"] == "NodeStatusUnknown")

        await eventually(unknown, "Ready=Unknown")
        assert (time.monotonic() - died) * SCALE >= 40, "not before the grace period (less one heartbeat)"

        async def tainted() -> bool:
            key = "node.kubernetes.io/unreachable"
            return await taints(cluster, "n2") == {(key, "NoSchedule"), (key, "NoExecute")}

        await eventually(tainted, "both taints")

        async def unready() -> bool:
            pods = (await client.list(PODS, NS)).items
            lost = [each for each in pods if each["spec"]["nodeName"] == "n2"]
            return bool(lost) and all(
                condition["status"] == "False"
                for each in lost
                for condition in each["status"]["conditions"]
                if condition["type"] == "Ready"
            )

        await eventually(unready, "Ready=False on the pods of the lost node")

        async def replaced() -> bool:
            pods = (await client.list(core_v1.Pod, NS)).items
            living = [each for each in pods if each.metadata and each.metadata.deletionTimestamp is None]
            lost = [each for each in pods if each.spec and each.spec.nodeName == "n2"]
            assert all(each.spec and each.spec.nodeName != "n2" for each in living)
            return len(living) == 6 and bool(lost)

        await eventually(replaced, "replacement elsewhere, the lost pods staying Terminating")
        assert (time.monotonic() - died) * SCALE >= 40 + 300, "not before their tolerationSeconds"
        pods = (await client.list(PODS, NS)).items
        lost = [each for each in pods if each["spec"]["nodeName"] == "n2"]
        targets = [c for each in lost for c in each["status"]["conditions"] if c["type"] == "DisruptionTarget"]
        assert {each["reason"] for each in targets} == {"DeletionByTaintManager"}
        events = {each["reason"] for each in (await client.list(EVENTS, NS)).items}
        assert {"TaintManagerEviction", "NodeNotReady"} <= events

        cluster.alive.add("n2")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        await client.patch(NODES, "n2", {"status": {"conditions": [ready]}}, subresource="status")

        async def clean() -> bool:
            return not await taints(cluster, "n2")

        await eventually(clean, "the taints to go when the node is back")


async def test_a_short_silence_changes_nothing() -> None:
    async with running_cluster(nodes=2, clock=RealClock(20.0)) as cluster:
        await cluster.client.create(web(2))
        await settled(cluster, 2)
        before = {each["metadata"]["uid"] for each in (await cluster.client.list(PODS, NS)).items}
        cluster.alive.discard("n2")
        await cluster.clock.sleep(30)
        cluster.alive.add("n2")
        await cluster.clock.sleep(40)
        assert not await taints(cluster, "n2")
        assert {each["metadata"]["uid"] for each in (await cluster.client.list(PODS, NS)).items} == before


async def test_nobody_is_evicted_when_all_nodes_fall_silent() -> None:
    async with running_cluster(nodes=3, clock=RealClock(SCALE)) as cluster:
        await cluster.client.create(web(3))
        await settled(cluster, 3)
        before = {key_of(each) for each in (await cluster.client.list(PODS, NS)).items}
        cluster.alive.clear()

        async def silent() -> bool:
            nodes = (await cluster.client.list(NODES)).items
            states = [c["status"] for each in nodes for c in each["status"]["conditions"] if c["type"] == "Ready"]
            return states == ["Unknown"] * 3

        await eventually(silent, "all nodes Unknown")
        await cluster.clock.sleep(500)
        assert {key_of(each) for each in (await cluster.client.list(PODS, NS)).items} == before
        for name in ("n1", "n2", "n3"):
            assert ("node.kubernetes.io/unreachable", "NoExecute") not in await taints(cluster, name)


async def test_pods_of_a_removed_node_are_collected() -> None:
    async with running_cluster(nodes=2, clock=RealClock(SCALE)) as cluster:
        await cluster.client.create(web(4))
        await settled(cluster, 4)
        cluster.alive.discard("n2")
        await cluster.client.delete(NODES, "n2")

        async def moved() -> bool:
            pods = (await cluster.client.list(PODS, NS)).items
            return len(pods) == 4 and all(each["spec"].get("nodeName") == "n1" for each in pods)

        await eventually(moved, "pods of the removed node to be deleted and replaced")


async def test_toleration_zero_and_cordon() -> None:
    async with running_cluster(nodes=2, clock=RealClock(SCALE)) as cluster:
        client = cluster.client
        taint = {"key": "example.com/gone", "effect": "NoExecute"}
        await client.create(web(4))
        await settled(cluster, 4)
        cluster.alive.discard("n2")  # so that the scheduler here leaves it alone
        await client.patch(NODES, "n2", {"spec": {"taints": [taint], "unschedulable": True}})

        async def emptied() -> bool:
            pods = (await client.list(core_v1.Pod, NS)).items
            on = [
                e
                for e in pods
                if e.spec and e.spec.nodeName == "n2" and e.metadata and not e.metadata.deletionTimestamp
            ]
            return not on

        await eventually(emptied, "untolerated NoExecute to evict at once")

        async def cordoned() -> bool:
            return ("node.kubernetes.io/unschedulable", "NoSchedule") in await taints(cluster, "n2")

        await eventually(cordoned, "the unschedulable taint")
        assert ("example.com/gone", "NoExecute") in await taints(cluster, "n2"), "other people's taints are kept"
