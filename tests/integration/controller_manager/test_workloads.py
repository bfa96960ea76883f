"""Deployments, ReplicaSets, Services and owners against a real API server (in process, memory store)."""

from __future__ import annotations

from typing import Any

from api import resources
from api.models import apps_v1, core_v1, discovery_v1, meta_v1
from client.client import PatchType
from client.informer import EventHandler
from controller_manager.objects import is_ready
from machinery.errors import NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

DEPLOYMENTS = resources.of(apps_v1.Deployment)
SETS = resources.of(apps_v1.ReplicaSet)
PODS = resources.of(core_v1.Pod)
SLICES = resources.of(discovery_v1.EndpointSlice)
EVENTS = resources.of(core_v1.Event)
NS = "default"


def web(replicas: int = 3, image: str = "nginx:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NS},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": image, "ports": [{"containerPort": 8080}]}]},
            },
            **spec,
        },
    }


async def status_of(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = (await cluster.client.get(DEPLOYMENTS, "web", NS)).get("status", {})
    return found


async def settled(cluster: Cluster, replicas: int, timeout: float = 60.0) -> None:
    async def probe() -> bool:
        live = await cluster.client.get(DEPLOYMENTS, "web", NS)
        status = live.get("status", {})
        return bool(
            status.get("observedGeneration") == live["metadata"]["generation"]
            and status.get("availableReplicas", 0) == status.get("updatedReplicas", 0) == replicas
            and status.get("replicas", 0) == replicas
        )

    await eventually(probe, f"deployment at {replicas}", timeout)


async def set_image(cluster: Cluster, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await cluster.client.patch(DEPLOYMENTS, "web", patch, NS, type=PatchType.STRATEGIC)


async def sets_by_image(cluster: Cluster) -> dict[str, dict[str, Any]]:
    found = (await cluster.client.list(SETS, NS)).items
    return {each["spec"]["template"]["spec"]["containers"][0]["image"]: each for each in found}


async def test_rollout_rollback_scale_and_history() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(web(revisionHistoryLimit=1))
        await settled(cluster, 3)
        meta = (await cluster.client.get(DEPLOYMENTS, "web", NS))["metadata"]
        assert meta["generation"] == 1 and meta["annotations"]["deployment.kubernetes.io/revision"] == "1"
        conditions = {each["type"]: each for each in (await status_of(cluster))["conditions"]}
        assert conditions["Progressing"]["reason"] == "NewReplicaSetAvailable"
        assert conditions["Available"]["reason"] == "MinimumReplicasAvailable"

        await set_image(cluster, "nginx:2")
        await settled(cluster, 3)
        sets = await sets_by_image(cluster)
        assert {image: each["spec"]["replicas"] for image, each in sets.items()} == {"nginx:1": 0, "nginx:2": 3}

        await set_image(cluster, "nginx:1")
        await settled(cluster, 3)
        back = (await sets_by_image(cluster))["nginx:1"]
        assert back["metadata"]["uid"] == sets["nginx:1"]["metadata"]["uid"], "the old set is used again"
        notes = back["metadata"]["annotations"]
        assert notes["deployment.kubernetes.io/revision"] == "3"
        assert notes["deployment.kubernetes.io/revision-history"] == "1"
        live = await cluster.client.get(DEPLOYMENTS, "web", NS)
        assert live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"

        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, NS)
        await settled(cluster, 5)
        await set_image(cluster, "nginx:3")
        await settled(cluster, 5)

        async def trimmed() -> bool:
            return set(await sets_by_image(cluster)) == {"nginx:1", "nginx:3"}

        await eventually(trimmed, "history cut to one old set")

        async def told() -> bool:
            events = (await cluster.client.list(EVENTS, NS)).items
            texts = [each["message"] for each in events if each["reason"] == "ScalingReplicaSet"]
            return any(text.startswith("Scaled up replica set web-") and text.endswith("from 0 to 3") for text in texts)

        await eventually(told, "ScalingReplicaSet events")


async def test_a_rolling_update_never_falls_below_its_minimum() -> None:
    async with running_cluster(nodes=3) as cluster:
        await cluster.client.create(web(10))
        await settled(cluster, 10)
        pods = cluster.manager.environment.informers.informer(core_v1.Pod)
        lowest = 10

        def count(*_: core_v1.Pod) -> None:
            nonlocal lowest
            living = [each for each in pods.lister.list(NS) if each.metadata and not each.metadata.deletionTimestamp]
            lowest = min(lowest, sum(is_ready(each) for each in living))

        pods.add_handler(EventHandler(on_update=count, on_delete=count))
        for image in ("nginx:2", "nginx:3", "nginx:4"):
            await set_image(cluster, image)
            await settled(cluster, 10)
        assert 8 <= lowest < 10, "25 % of 10 may be unavailable, and no more"


async def test_recreate_never_mixes_versions() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(strategy={"type": "Recreate"}))
        await settled(cluster, 3)
        mixed: list[set[str]] = []

        def look(*_: core_v1.Pod) -> None:
            pods = cluster.manager.environment.informers.informer(core_v1.Pod).lister.list(NS)
            images = {each.spec.containers[0].image or "" for each in pods if each.spec}
            if len(images) > 1:
                mixed.append(images)

        cluster.manager.environment.informers.informer(core_v1.Pod).add_handler(EventHandler(on_add=look))
        await set_image(cluster, "nginx:2")
        await settled(cluster, 3)
        assert mixed == []


async def test_a_bad_image_stops_the_rollout_and_keeps_the_old_pods() -> None:
    async with running_cluster(nodes=1) as cluster:
        cluster.ready_images = lambda pod: bool(pod.spec and pod.spec.containers[0].image != "bad")
        await cluster.client.create(web(4))
        await settled(cluster, 4)
        await set_image(cluster, "bad")

        async def stuck() -> bool:
            status = await status_of(cluster)
            return bool(status.get("updatedReplicas") == 2 and status.get("availableReplicas") == 3)

        await eventually(stuck, "a stuck rollout with 25 % surge and unavailable")
        await set_image(cluster, "nginx:1")
        await settled(cluster, 4)


async def test_pause_and_resume() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(2))
        await settled(cluster, 2)
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}}, NS)
        await set_image(cluster, "nginx:2")

        async def paused() -> bool:
            conditions = {each["type"]: each.get("reason") for each in (await status_of(cluster))["conditions"]}
            return bool(conditions["Progressing"] == "DeploymentPaused")

        await eventually(paused, "the paused condition")
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 4}}, NS)

        async def scaled() -> bool:
            sets = await sets_by_image(cluster)
            return set(sets) == {"nginx:1"} and sets["nginx:1"]["spec"]["replicas"] == 4

        await eventually(scaled, "scaling while paused, without a rollout")
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}}, NS)
        await settled(cluster, 4)
        assert (await sets_by_image(cluster))["nginx:2"]["spec"]["replicas"] == 4


async def test_replicaset_adopts_releases_and_replaces() -> None:
    async with running_cluster(nodes=1) as cluster:
        stray = core_v1.Pod(
            metadata=meta_v1.ObjectMeta(name="stray", namespace=NS, labels={"app": "web"}),
            spec=core_v1.PodSpec(containers=[core_v1.Container(name="main", image="nginx:1")]),
        )
        await cluster.client.create(stray)
        rs = {**web(2), "kind": "ReplicaSet"}
        del rs["spec"]["replicas"]
        rs["spec"] = {**rs["spec"], "replicas": 2}
        await cluster.client.create(rs)

        async def adopted() -> bool:
            pods = (await cluster.client.list(PODS, NS, label_selector="app=web")).items
            return len(pods) == 2 and all(each["metadata"].get("ownerReferences") for each in pods)

        await eventually(adopted, "adoption of the stray pod and one pod made")
        await cluster.client.patch(PODS, "stray", {"metadata": {"labels": {"app": "other"}}}, NS)

        async def released() -> bool:
            alone = await cluster.client.get(PODS, "stray", NS)
            pods = (await cluster.client.list(PODS, NS, label_selector="app=web")).items
            return not alone["metadata"].get("ownerReferences") and len(pods) == 2

        await eventually(released, "release of the relabelled pod and its replacement")


async def test_endpoints_follow_readiness() -> None:
    async with running_cluster(nodes=1) as cluster:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": NS},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }
        await cluster.client.create(service)

        async def slices() -> list[dict[str, Any]]:
            return (await cluster.client.list(SLICES, NS, label_selector="kubernetes.io/service-name=web")).items

        await eventually(slices, "an empty slice")
        await cluster.client.create(web(3))

        async def ready(count: int) -> bool:
            endpoints = [each for one in await slices() for each in one.get("endpoints") or ()]
            legacy = await cluster.client.get(resources.of(core_v1.Endpoints), "web", NS)
            addresses = [a for subset in legacy.get("subsets") or () for a in subset.get("addresses") or ()]
            return sum(bool(each["conditions"]["ready"]) for each in endpoints) == count == len(addresses)

        await eventually(lambda: ready(3), "three ready endpoints")
        victim = (await cluster.client.list(PODS, NS, label_selector="app=web")).items[0]
        condition = {"type": "Ready", "status": "False"}
        await cluster.client.patch(
            PODS,
            victim["metadata"]["name"],
            {"status": {"conditions": [condition]}},
            NS,
            type=PatchType.STRATEGIC,
            subresource="status",
        )
        await eventually(lambda: ready(2), "the unready pod out of service")
        spec = {"nodeName": "ghost", "containers": [{"name": "main", "image": "busybox"}]}
        meta = {"name": "stray", "namespace": NS, "labels": {"app": "web"}}
        await cluster.client.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        status = {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}], "phase": "Running"}
        await cluster.client.patch(PODS, "stray", {"status": status}, NS, subresource="status")

        async def skipped() -> bool:
            events = (await cluster.client.list(EVENTS, NS)).items
            return any(each["reason"] == "FailedToUpdateEndpointSlices" for each in events)

        await eventually(skipped, "the pod of a node that is not there to be left out")

        async def addresses() -> list[str]:
            return [each["addresses"][0] for one in await slices() for each in one.get("endpoints") or ()]

        assert "10.9.9.9" not in await addresses()
        await cluster.add_node("ghost")

        async def joined() -> bool:
            return "10.9.9.9" in await addresses()

        await eventually(joined, "it to join when its node comes")
        await cluster.client.delete(resources.of(core_v1.Service), "web", NS)

        async def gone() -> bool:
            try:
                await cluster.client.get(resources.of(core_v1.Endpoints), "web", NS)
            except NotFound:
                return not await slices()
            return False

        await eventually(gone, "endpoints of the deleted Service to go")
