"""DaemonSets against a real API server (in process, memory store) and hollow nodes."""

from __future__ import annotations

from typing import Any

import pytest

from api import resources
from api.models import apps_v1, core_v1
from client.client import PatchType
from client.informer import EventHandler
from controller_manager.objects import is_ready
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

SETS = resources.of(apps_v1.DaemonSet)
PODS = resources.of(core_v1.Pod)
NODES = resources.of(core_v1.Node)
REVISIONS = resources.of(apps_v1.ControllerRevision)
NS = "default"

Obj = dict[str, Any]


def agent(image: str = "agent:1", pod_spec: Obj | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": NS},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "main", "image": image}], **(pod_spec or {})},
            },
            **spec,
        },
    }


async def by_node(cluster: Cluster) -> dict[str, list[Obj]]:
    found: dict[str, list[Obj]] = {}
    for pod in (await cluster.client.list(PODS, NS)).items:
        found.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    return found


async def settled(cluster: Cluster, count: int, updated: int | None = None) -> Obj:
    async def probe() -> Obj:
        live: Obj = await cluster.client.get(SETS, "agent", NS)
        status = live["status"]
        assert status.get("observedGeneration") == live["metadata"]["generation"], status
        assert status["desiredNumberScheduled"] == status["currentNumberScheduled"] == count, status
        assert status["numberReady"] == status.get("numberAvailable", 0) == count, status
        assert status.get("updatedNumberScheduled", 0) == (count if updated is None else updated), status
        assert sum(map(len, (await by_node(cluster)).values())) == count
        return live

    found: Obj = await eventually(probe, f"set on {count} nodes")
    return found


async def set_image(cluster: Cluster, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await cluster.client.patch(SETS, "agent", patch, NS, type=PatchType.STRATEGIC)


async def label(cluster: Cluster, node: str, labels: Obj) -> None:
    await cluster.client.patch(NODES, node, {"metadata": {"labels": labels}})


async def test_one_pod_on_every_node_that_comes_and_goes() -> None:
    async with running_cluster(nodes=3) as cluster:
        await cluster.client.create(agent())
        live = await settled(cluster, 3)
        assert live["status"]["numberMisscheduled"] == 0
        pods = await by_node(cluster)
        assert sorted(pods) == ["n1", "n2", "n3"]
        spec, meta = pods["n1"][0]["spec"], pods["n1"][0]["metadata"]
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required == {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
        }
        tolerated = {(each["key"], each["effect"]) for each in spec["tolerations"] if "tolerationSeconds" not in each}
        assert tolerated == {
            ("node.kubernetes.io/not-ready", "NoExecute"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
            ("node.kubernetes.io/disk-pressure", "NoSchedule"),
            ("node.kubernetes.io/memory-pressure", "NoSchedule"),
            ("node.kubernetes.io/pid-pressure", "NoSchedule"),
            ("node.kubernetes.io/unschedulable", "NoSchedule"),
        }
        (revision,) = (await cluster.client.list(REVISIONS, NS)).items
        digest = revision["metadata"]["labels"]["controller-revision-hash"]
        assert revision["metadata"]["name"] == f"agent-{digest}"
        assert meta["labels"] == {
            "app": "agent",
            "controller-revision-hash": digest,
            "pod-template-generation": "1",
        }
        await cluster.add_node("n4")
        await settled(cluster, 4)


async def test_selectors_and_taints_choose_the_nodes() -> None:
    async with running_cluster(nodes=3) as cluster:
        await label(cluster, "n1", {"disk": "ssd"})
        await cluster.client.create(agent(pod_spec={"nodeSelector": {"disk": "ssd"}}))
        await settled(cluster, 1)
        await label(cluster, "n2", {"disk": "ssd"})
        await settled(cluster, 2)
        await label(cluster, "n1", {"disk": "hdd"})
        await settled(cluster, 1)
        assert list(await by_node(cluster)) == ["n2"]
        taint = {"key": "only", "value": "me", "effect": "NoExecute"}
        await cluster.client.patch(NODES, "n2", {"spec": {"taints": [taint]}})
        await settled(cluster, 0)


async def test_cordoned_nodes_keep_and_get_their_pods() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.patch(NODES, "n1", {"spec": {"unschedulable": True}})
        await cluster.client.create(agent())
        await settled(cluster, 1)


@pytest.mark.parametrize(
    ("update", "lowest", "most"),
    [
        pytest.param({"maxUnavailable": 1}, 3, 4, id="one at a time"),
        pytest.param({"maxUnavailable": "50%"}, 2, 4, id="half"),
        pytest.param({"maxSurge": 1, "maxUnavailable": 0}, 4, 5, id="surge"),
    ],
)
async def test_a_rolling_update_keeps_its_limits(update: Obj, lowest: int, most: int) -> None:
    async with running_cluster(nodes=4) as cluster:
        await cluster.client.create(agent(updateStrategy={"type": "RollingUpdate", "rollingUpdate": update}))
        await settled(cluster, 4)
        pods = cluster.manager.environment.informers.informer(core_v1.Pod)
        counts: list[tuple[int, int]] = []

        def note(*_: core_v1.Pod) -> None:
            living = [each for each in pods.lister.list(NS) if each.metadata and not each.metadata.deletionTimestamp]
            counts.append((sum(map(is_ready, living)), len(living)))

        pods.add_handler(EventHandler(on_add=note, on_update=note, on_delete=note))
        counts.clear()
        await set_image(cluster, "agent:2")
        await settled(cluster, 4)
        assert min(ready for ready, _ in counts) >= lowest
        assert max(total for _, total in counts) <= most
        images = {pod["spec"]["containers"][0]["image"] for pods in (await by_node(cluster)).values() for pod in pods}
        assert images == {"agent:2"}


async def test_on_delete_waits_for_the_user() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(agent(updateStrategy={"type": "OnDelete"}))
        await settled(cluster, 2)
        await set_image(cluster, "agent:2")
        await settled(cluster, 2, updated=0)
        (pod,) = (await by_node(cluster))["n1"]
        await cluster.client.delete(PODS, pod["metadata"]["name"], NS)
        await settled(cluster, 2, updated=1)


async def test_failed_and_doubled_pods_are_replaced() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(agent())
        await settled(cluster, 1)
        (pod,) = (await by_node(cluster))["n1"]
        await cluster.client.patch(
            PODS, pod["metadata"]["name"], {"status": {"phase": "Failed"}}, NS, subresource="status"
        )

        async def replaced() -> bool:
            now = (await by_node(cluster))["n1"][0]
            return bool(now["metadata"]["uid"] != pod["metadata"]["uid"])

        await eventually(replaced, "a new pod")
        await settled(cluster, 1)
        orphan = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "orphan", "namespace": NS, "labels": {"app": "agent"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "agent:0"}]},
        }
        await cluster.client.create(orphan)
        await settled(cluster, 1)


async def test_rolling_back_uses_the_old_revision() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(agent())
        await settled(cluster, 1)
        await set_image(cluster, "agent:2")
        await settled(cluster, 1)
        await set_image(cluster, "agent:1")
        await settled(cluster, 1)
        revisions = (await cluster.client.list(REVISIONS, NS)).items
        assert sorted(each["revision"] for each in revisions) == [2, 3]


async def test_no_write_without_a_change() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(agent())
        live = await settled(cluster, 2)
        for node in ("n1", "n2"):
            await label(cluster, node, {"touched": "yes"})
        await cluster.add_node("n3")
        await settled(cluster, 3)
        controller = next(each for each in cluster.manager.running if each.name == "daemonset")
        reconciles = controller.metrics.reconciles  # type: ignore[attr-defined]
        assert reconciles < 60
        assert live["metadata"]["generation"] == 1
