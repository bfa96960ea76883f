"""StatefulSets against a real API server (in process, memory store) and hollow nodes."""

from __future__ import annotations

import asyncio
from typing import Any

from api import resources
from api.models import apps_v1, core_v1
from client.client import PatchType
from client.informer import EventHandler
from controller_manager.objects import is_ready
from machinery.clock import RealClock
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

SETS = resources.of(apps_v1.StatefulSet)
PODS = resources.of(core_v1.Pod)
CLAIMS = resources.of(core_v1.PersistentVolumeClaim)
REVISIONS = resources.of(apps_v1.ControllerRevision)
NS = "default"

Obj = dict[str, Any]


def web(replicas: int = 3, image: str = "nginx:1", **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": NS},
        "spec": {
            "replicas": replicas,
            "serviceName": "web",
            "selector": {"matchLabels": {"tier": "web"}},
            "template": {
                "metadata": {"labels": {"tier": "web"}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
            **spec,
        },
    }


def data() -> list[Obj]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return [{"metadata": {"name": "data"}, "spec": spec}]


async def pods_of(cluster: Cluster) -> dict[str, Obj]:
    return {pod["metadata"]["name"]: pod for pod in (await cluster.client.list(PODS, NS)).items}


def images(pods: dict[str, Obj]) -> dict[str, str]:
    return {name: pod["spec"]["containers"][0]["image"] for name, pod in pods.items()}


async def settled(cluster: Cluster, replicas: int, updated: int | None = None) -> Obj:
    async def probe() -> Obj:
        live: Obj = await cluster.client.get(SETS, "web", NS)
        status = live["status"]
        assert status.get("observedGeneration") == live["metadata"]["generation"], status
        assert status["replicas"] == status["availableReplicas"] == status.get("readyReplicas", 0) == replicas, status
        assert status.get("updatedReplicas", 0) == (replicas if updated is None else updated), status
        return status or {"": ""}

    found: Obj = await eventually(probe, f"set at {replicas}")
    return found


async def patch(cluster: Cluster, spec: Obj) -> None:
    await cluster.client.patch(SETS, "web", {"spec": spec}, NS, type=PatchType.STRATEGIC)


async def set_image(cluster: Cluster, image: str) -> None:
    await patch(cluster, {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}})


async def test_names_labels_claims_and_order() -> None:
    async with running_cluster(nodes=2) as cluster:
        came: list[tuple[str, int]] = []
        pods = cluster.manager.environment.informers.informer(core_v1.Pod)

        def note(pod: core_v1.Pod) -> None:
            came.append((pod.metadata.name or "", sum(map(is_ready, pods.lister.list(NS)))))  # type: ignore[union-attr]

        pods.add_handler(EventHandler(on_add=note))
        await cluster.client.create(web(volumeClaimTemplates=data()))
        status = await settled(cluster, 3)
        assert came == [("web-0", 0), ("web-1", 1), ("web-2", 2)]
        assert status["currentRevision"] == status["updateRevision"]
        assert status["currentReplicas"] == status["updatedReplicas"] == 3
        assert status["collisionCount"] == 0
        for ordinal, pod in enumerate((await pods_of(cluster)).values()):
            meta, spec = pod["metadata"], pod["spec"]
            assert meta["generateName"] == "web-"
            assert meta["labels"] == {
                "tier": "web",
                "statefulset.kubernetes.io/pod-name": f"web-{ordinal}",
                "apps.kubernetes.io/pod-index": str(ordinal),
                "controller-revision-hash": status["updateRevision"],
            }
            assert (spec["hostname"], spec["subdomain"]) == (f"web-{ordinal}", "web")
            assert spec["volumes"][0] == {
                "name": "data",
                "persistentVolumeClaim": {"claimName": f"data-web-{ordinal}"},
            }
        claims = (await cluster.client.list(CLAIMS, NS)).items
        assert [each["metadata"]["name"] for each in claims] == ["data-web-0", "data-web-1", "data-web-2"]
        assert claims[0]["metadata"]["labels"] == {"tier": "web"}
        assert "ownerReferences" not in claims[0]["metadata"]
        (revision,) = (await cluster.client.list(REVISIONS, NS)).items
        assert revision["metadata"]["name"] == status["updateRevision"]
        assert revision["revision"] == 1
        assert revision["data"]["spec"]["template"]["$patch"] == "replace"
        digest = revision["metadata"]["labels"]["controller.kubernetes.io/hash"]
        assert revision["metadata"]["name"] == f"web-{digest}"

        await patch(cluster, {"replicas": 1})
        await settled(cluster, 1)
        assert list(await pods_of(cluster)) == ["web-0"]
        assert len((await cluster.client.list(CLAIMS, NS)).items) == 3, "claims are retained"
        name = "statefulset.kubernetes.io/pod-name"
        await cluster.client.patch(PODS, "web-0", {"metadata": {"labels": {name: "another"}}}, NS)

        async def restored() -> bool:
            return bool((await pods_of(cluster))["web-0"]["metadata"]["labels"][name] == "web-0")

        await eventually(restored, "the label that names the pod")


async def test_a_rolling_update_goes_down_from_the_top_and_back() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(web())
        first = await settled(cluster, 3)
        gone: list[str] = []
        lowest = 3
        pods = cluster.manager.environment.informers.informer(core_v1.Pod)

        def note(pod: core_v1.Pod) -> None:
            nonlocal lowest
            gone.append(pod.metadata.name or "")  # type: ignore[union-attr]
            lowest = min(lowest, sum(map(is_ready, pods.lister.list(NS))))

        pods.add_handler(EventHandler(on_delete=note))
        await set_image(cluster, "nginx:2")
        second = await settled(cluster, 3)
        assert gone == ["web-2", "web-1", "web-0"]
        assert lowest == 2
        assert second["currentRevision"] == second["updateRevision"] != first["updateRevision"]

        await set_image(cluster, "nginx:1")
        third = await settled(cluster, 3)
        assert third["updateRevision"] == first["updateRevision"], "the old revision is used again"
        found = {
            each["metadata"]["name"]: each["revision"] for each in (await cluster.client.list(REVISIONS, NS)).items
        }
        assert found == {first["updateRevision"]: 3, second["updateRevision"]: 2}


async def test_a_partition_holds_the_lower_ordinals_back() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(web(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))
        first = await settled(cluster, 3)
        await set_image(cluster, "nginx:2")
        status = await settled(cluster, 3, updated=1)
        assert images(await pods_of(cluster)) == {"web-0": "nginx:1", "web-1": "nginx:1", "web-2": "nginx:2"}
        assert status["currentRevision"] == first["currentRevision"]
        assert status["currentReplicas"] == 2
        # A pod below the partition that is lost comes back as it was.
        lost = (await pods_of(cluster))["web-0"]["metadata"]["uid"]
        await cluster.client.delete(PODS, "web-0", NS)

        async def back() -> bool:
            pod = (await pods_of(cluster))["web-0"]
            return bool(pod["metadata"]["uid"] != lost and pod["status"].get("phase") == "Running")

        await eventually(back, "web-0 back")
        assert images(await pods_of(cluster))["web-0"] == "nginx:1"
        await patch(cluster, {"updateStrategy": {"rollingUpdate": {"partition": 0}}})
        await settled(cluster, 3)
        assert set(images(await pods_of(cluster)).values()) == {"nginx:2"}


async def test_on_delete_replaces_only_what_is_deleted() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(2, updateStrategy={"type": "OnDelete"}))
        await settled(cluster, 2)
        await set_image(cluster, "nginx:2")
        await settled(cluster, 2, updated=0)
        await cluster.client.delete(PODS, "web-1", NS)
        await settled(cluster, 2, updated=1)
        assert images(await pods_of(cluster)) == {"web-0": "nginx:1", "web-1": "nginx:2"}


async def test_parallel_starts_all_at_once_from_its_first_ordinal() -> None:
    async with running_cluster(nodes=1) as cluster:
        cluster.ready_images = lambda pod: False
        await cluster.client.create(web(4, podManagementPolicy="Parallel", ordinals={"start": 5}))

        async def there() -> bool:
            return sorted(await pods_of(cluster)) == ["web-5", "web-6", "web-7", "web-8"]

        await eventually(there, "four pods")
        await patch(cluster, {"replicas": 1})

        async def one() -> bool:
            return sorted(await pods_of(cluster)) == ["web-5"]

        await eventually(one, "one pod")


async def test_an_unready_pod_stops_the_ordered_start() -> None:
    async with running_cluster(nodes=1) as cluster:
        cluster.ready_images = lambda pod: pod.metadata is not None and pod.metadata.name != "web-1"
        await cluster.client.create(web(3))

        async def stuck() -> bool:
            status = (await cluster.client.get(SETS, "web", NS))["status"]
            return bool(status["replicas"] == 2 and status.get("readyReplicas") == 1)

        await eventually(stuck, "waiting for web-1")
        await asyncio.sleep(0.3)
        assert sorted(await pods_of(cluster)) == ["web-0", "web-1"]


async def test_min_ready_seconds_delay_the_next_pod() -> None:
    clock = RealClock(5)
    async with running_cluster(nodes=1, clock=clock) as cluster:
        begin = clock.monotonic()
        await cluster.client.create(web(2, minReadySeconds=20))
        await settled(cluster, 2)
        assert clock.monotonic() - begin > 25, "two pods, one after the other, timestamps in whole seconds"


async def test_an_ended_pod_is_made_again() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(1))
        await settled(cluster, 1)
        before = (await pods_of(cluster))["web-0"]["metadata"]["uid"]
        await cluster.client.patch(PODS, "web-0", {"status": {"phase": "Failed"}}, NS, subresource="status")

        async def again() -> bool:
            pod = (await pods_of(cluster))["web-0"]
            return bool(pod["metadata"]["uid"] != before and pod["status"]["phase"] == "Running")

        await eventually(again, "a new web-0")


async def test_pods_on_a_dead_node_are_not_doubled() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(2))
        await settled(cluster, 2)
        before = {name: pod["metadata"]["uid"] for name, pod in (await pods_of(cluster)).items()}
        cluster.alive.clear()
        await cluster.add_node("n2")
        await cluster.client.delete(PODS, "web-1", NS)
        await asyncio.sleep(0.5)
        now = {name: pod["metadata"]["uid"] for name, pod in (await pods_of(cluster)).items()}
        assert now == before, "the name stays taken while the old pod may still run"
        await cluster.client.delete(PODS, "web-1", NS, grace_period_seconds=0)

        async def moved() -> bool:
            pods = await pods_of(cluster)
            moved = pods["web-1"]["metadata"]["uid"] != before["web-1"]
            return bool(moved and pods["web-1"]["spec"].get("nodeName") == "n2")

        await eventually(moved, "web-1 on the living node")


async def test_claims_follow_the_retention_policy() -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    async with running_cluster(nodes=1) as cluster:
        wanted = web(2, volumeClaimTemplates=data(), persistentVolumeClaimRetentionPolicy=policy)
        await cluster.client.create(wanted)
        await settled(cluster, 2)
        claim = await cluster.client.get(CLAIMS, "data-web-1", NS)
        assert claim["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet"
        await patch(cluster, {"replicas": 1})

        async def marked() -> bool:
            claims = {each["metadata"]["name"]: each for each in (await cluster.client.list(CLAIMS, NS)).items}
            last = claims.get("data-web-1")
            return "data-web-0" in claims and (last is None or "deletionTimestamp" in last["metadata"])

        await eventually(marked, "the claim of web-1 deleted")
        first = await cluster.client.get(CLAIMS, "data-web-0", NS)
        assert "deletionTimestamp" not in first["metadata"]
        await cluster.client.delete(SETS, "web", NS, propagation_policy="Background")

        async def all_marked() -> bool:
            claims = (await cluster.client.list(CLAIMS, NS)).items
            return all("deletionTimestamp" in each["metadata"] for each in claims)

        await eventually(all_marked, "all claims deleted")


async def test_a_pod_that_comes_back_waits_for_its_condemned_claim_to_go() -> None:
    policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(2, volumeClaimTemplates=data(), persistentVolumeClaimRetentionPolicy=policy))
        await settled(cluster, 2)
        held = {"metadata": {"finalizers": ["example.com/held"]}}
        before = (await cluster.client.patch(CLAIMS, "data-web-1", held, NS))["metadata"]["uid"]
        await patch(cluster, {"replicas": 1})

        async def condemned() -> bool:
            claim = await cluster.client.get(CLAIMS, "data-web-1", NS)
            return "web-1" not in await pods_of(cluster) and "deletionTimestamp" in claim["metadata"]

        await eventually(condemned, "web-1 to go, its claim to be held")
        await patch(cluster, {"replicas": 2})
        await asyncio.sleep(0.5)
        assert "web-1" not in await pods_of(cluster), "a pod must not start on a claim that is going"
        await cluster.client.patch(CLAIMS, "data-web-1", {"metadata": {"finalizers": None}}, NS)
        await settled(cluster, 2)
        claim = await cluster.client.get(CLAIMS, "data-web-1", NS)
        assert claim["metadata"]["uid"] != before


async def test_max_unavailable_updates_several_at_once() -> None:
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(web(5, podManagementPolicy="Parallel", updateStrategy=update))
        await settled(cluster, 5)
        lowest = 5
        pods = cluster.manager.environment.informers.informer(core_v1.Pod)

        def note(*_: core_v1.Pod) -> None:
            nonlocal lowest
            living = [each for each in pods.lister.list(NS) if each.metadata and not each.metadata.deletionTimestamp]
            lowest = min(lowest, sum(map(is_ready, living)))

        pods.add_handler(EventHandler(on_update=note, on_delete=note))
        await set_image(cluster, "nginx:2")
        await settled(cluster, 5)
        assert lowest == 3


async def test_history_is_cut_to_the_limit() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(1, revisionHistoryLimit=1))
        for number in range(1, 5):
            await set_image(cluster, f"nginx:{number}")
            await settled(cluster, 1)

        async def cut() -> bool:
            revisions = (await cluster.client.list(REVISIONS, NS)).items
            return sorted(each["revision"] for each in revisions) == [3, 4]

        await eventually(cut, "two revisions")


async def test_a_pod_that_fails_again_and_again_is_made_ever_more_slowly() -> None:
    async with running_cluster() as cluster:
        pods = cluster.manager.environment.informers.informer(core_v1.Pod)
        failed: asyncio.Queue[str] = asyncio.Queue()
        made = 0

        def note(pod: core_v1.Pod) -> None:
            nonlocal made
            made += 1
            failed.put_nowait(pod.metadata.name or "")  # type: ignore[union-attr]

        pods.add_handler(EventHandler(on_add=note))
        await cluster.client.create(web(1))
        for _ in range(2):
            name = await asyncio.wait_for(failed.get(), 10)
            await cluster.client.patch(PODS, name, {"status": {"phase": "Failed"}}, NS, subresource="status")
        await asyncio.wait_for(failed.get(), 10)
        begin = cluster.clock.monotonic()
        await cluster.client.patch(PODS, "web-0", {"status": {"phase": "Failed"}}, NS, subresource="status")
        await asyncio.wait_for(failed.get(), 10)
        assert cluster.clock.monotonic() - begin > 0.8
        assert made == 4


async def test_an_orphan_with_the_right_name_is_adopted_and_gets_its_labels() -> None:
    async with running_cluster(nodes=1) as cluster:
        orphan = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": NS, "labels": {"tier": "web"}},
            "spec": {"containers": [{"name": "main", "image": "nginx:1"}]},
        }
        await cluster.client.create(orphan)
        await cluster.client.create(web(1, updateStrategy={"type": "OnDelete"}))

        async def adopted() -> bool:
            meta = (await pods_of(cluster))["web-0"]["metadata"]
            owners = [each["kind"] for each in meta.get("ownerReferences", ())]
            return bool(owners == ["StatefulSet"] and meta["labels"].get("apps.kubernetes.io/pod-index") == "0")

        await eventually(adopted, "web-0 adopted")
