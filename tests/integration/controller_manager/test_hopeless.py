"""Workloads that can never run: the status or an event says why, and nobody runs hot over them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api import resources
from api.models import core_v1
from client.controller import Controller
from tests.integration.controller_manager import test_daemonsets, test_jobs, test_statefulsets
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

EVENTS = resources.of(core_v1.Event)
NS = "default"

Obj = dict[str, Any]


def no_pods() -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": NS},
        "spec": {"hard": {"pods": "0"}},
    }


def controller(cluster: Cluster, name: str) -> Controller:
    found = next(each for each in cluster.manager.running if each.name == name)
    assert isinstance(found, Controller)
    return found


async def failures(cluster: Cluster) -> list[Obj]:
    return [each for each in (await cluster.client.list(EVENTS, NS)).items if each["reason"] == "FailedCreate"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        pytest.param("job", test_jobs.job(parallelism=5, completions=5), id="Job"),
        pytest.param("statefulset", test_statefulsets.web(5), id="StatefulSet"),
        pytest.param("statefulset", test_statefulsets.web(5, podManagementPolicy="Parallel"), id="Parallel"),
        pytest.param("daemonset", test_daemonsets.agent(), id="DaemonSet"),
    ],
)
async def test_refused_pods_are_retried_ever_more_slowly(name: str, wanted: Obj) -> None:
    async with running_cluster(nodes=3) as cluster:
        await cluster.client.create(no_pods())

        async def counted() -> bool:
            quota = await cluster.client.get(resources.of(core_v1.ResourceQuota), "none", NS)
            return "hard" in (quota.get("status") or {})

        await eventually(counted, "the quota in force")
        await cluster.client.create(wanted)
        (event, *_) = await eventually(lambda: failures(cluster), "an event that tells why")
        assert "quota" in event["message"]
        metrics = controller(cluster, name).metrics
        before = metrics.reconciles
        await asyncio.sleep(2)
        # 5 ms doubling: within the first two seconds at most nine tries, however many pods are missing.
        assert metrics.reconciles - before <= 12
        assert metrics.errors > 0


async def test_what_is_deleted_under_its_controller_leaves_no_error() -> None:
    async with running_cluster(nodes=2) as cluster:
        for round_ in range(3):
            for wanted in (test_jobs.job(), test_statefulsets.web(2), test_daemonsets.agent()):
                await cluster.client.create(wanted)
            await asyncio.sleep(0.05 * round_)
            for resource, name in (
                (test_jobs.JOBS, "work"),
                (test_statefulsets.SETS, "web"),
                (test_daemonsets.SETS, "agent"),
            ):
                await cluster.client.delete(resource, name, NS, propagation_policy="Background")

            async def gone() -> bool:
                return not (await cluster.client.list(test_jobs.PODS, NS)).items

            await eventually(gone, "all pods gone")
        for name in ("job", "statefulset", "daemonset"):
            assert controller(cluster, name).metrics.errors <= 3, name
