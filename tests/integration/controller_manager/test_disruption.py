"""Disruption budgets, evictions and expiring Jobs against a real API server (in process, memory store)."""

from __future__ import annotations

from typing import Any

import pytest

from api import resources
from api.models import apps_v1, batch_v1, core_v1, policy_v1
from client.client import PatchType
from machinery.clock import RealClock
from machinery.errors import NotFound, TooManyRequests
from machinery.meta import rfc3339
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_jobs import end, job, running

BUDGETS = resources.of(policy_v1.PodDisruptionBudget)
DEPLOYMENTS = resources.of(apps_v1.Deployment)
JOBS = resources.of(batch_v1.Job)
PODS = resources.of(core_v1.Pod)
NS = "default"

Obj = dict[str, Any]


def web(replicas: int) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NS},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx"}]},
            },
        },
    }


def budget(**spec: Any) -> Obj:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": NS},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }


async def status_when(cluster: Cluster, **wanted: Any) -> Obj:
    async def probe() -> Obj:
        status: Obj = (await cluster.client.get(BUDGETS, "web", NS))["status"]
        assert wanted.items() <= status.items(), status
        return status

    found: Obj = await eventually(probe, f"budget with {wanted}")
    return found


async def settled(cluster: Cluster) -> None:
    """Until the controller has seen the end of every pod that an eviction named."""

    async def probe() -> bool:
        return "disruptedPods" not in (await cluster.client.get(BUDGETS, "web", NS))["status"]

    await eventually(probe, "no disrupted pods")


async def evict(cluster: Cluster, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NS}}
    await cluster.client.create_subresource(PODS, name, NS, "eviction", body)


async def test_evictions_keep_the_budget() -> None:
    async with running_cluster(nodes=2) as cluster:
        unready: set[str] = set()
        cluster.ready_images = lambda pod: not unready
        await cluster.client.create(budget(minAvailable=2))
        await status_when(cluster, expectedPods=0, disruptionsAllowed=0, desiredHealthy=2, observedGeneration=1)
        await cluster.client.create(web(3))
        status = await status_when(cluster, currentHealthy=3, expectedPods=3, desiredHealthy=2, disruptionsAllowed=1)
        assert [(each["type"], each["reason"]) for each in status["conditions"]] == [
            ("DisruptionAllowed", "SufficientPods")
        ]
        unready.add("successors stay unready")
        pods = [pod["metadata"]["name"] for pod in (await cluster.client.list(PODS, NS)).items]
        await evict(cluster, pods[0])
        status = await status_when(cluster, currentHealthy=2, expectedPods=3, disruptionsAllowed=0)
        await settled(cluster)
        with pytest.raises(TooManyRequests):
            await evict(cluster, pods[1])
        assert status["conditions"][0]["reason"] == "InsufficientPods"


async def test_shares_follow_the_scale_of_the_deployment() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(web(4))
        await cluster.client.create(budget(maxUnavailable="25%"))
        await status_when(cluster, expectedPods=4, currentHealthy=4, desiredHealthy=3, disruptionsAllowed=1)
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 8}}, NS)
        await status_when(cluster, expectedPods=8, currentHealthy=8, desiredHealthy=6, disruptionsAllowed=2)


async def test_pods_that_cannot_be_counted_allow_nothing() -> None:
    async with running_cluster(nodes=1) as cluster:
        wanted = job(parallelism=2, completions=2)
        wanted["spec"]["template"]["metadata"] = {"labels": {"app": "web"}}
        await cluster.client.create(wanted)
        await running(cluster, 2)
        await cluster.client.create(budget(maxUnavailable=1))
        status = await status_when(cluster, disruptionsAllowed=0, observedGeneration=1)
        assert status["conditions"][0]["reason"] == "SyncFailed"
        assert "jobs.batch does not implement the scale subresource" in status["conditions"][0]["message"]


async def test_an_announced_disruption_that_never_came_is_taken_back() -> None:
    async with running_cluster(nodes=1, clock=RealClock(100)) as cluster:
        await cluster.client.create(web(1))

        async def one() -> str:
            pod = (await cluster.client.list(PODS, NS)).items[0]
            return str(pod["metadata"]["name"]) if pod["status"]["phase"] == "Running" else ""

        name = await eventually(one, "a pod")
        told = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": rfc3339(cluster.clock.now())}
        await cluster.client.patch(
            PODS, name, {"status": {"conditions": [told]}}, NS, type=PatchType.STRATEGIC, subresource="status"
        )

        async def back() -> bool:
            pod = await cluster.client.get(PODS, name, NS)
            found = {each["type"]: each["status"] for each in pod["status"]["conditions"]}
            return bool(found["DisruptionTarget"] == "False")

        await eventually(back, "condition taken back")


async def test_finished_jobs_expire() -> None:
    async with running_cluster(nodes=1, clock=RealClock(10)) as cluster:
        await cluster.client.create(job(ttlSecondsAfterFinished=5))
        (pod,) = await running(cluster, 1)
        await end(cluster, pod)

        async def gone() -> bool:
            try:
                await cluster.client.get(JOBS, "work", NS)
            except NotFound:
                return not (await cluster.client.list(PODS, NS)).items
            return False

        await eventually(gone, "job and pod gone")
