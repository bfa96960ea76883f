"""The autoscaler against a real API server: targets by `scale`, metrics from a scripted metrics API, what it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from api import resources
from api.models import apps_v1, autoscaling_v2, core_v1
from controller_manager.environment import Options
from machinery.clock import RealClock
from machinery.errors import StatusError
from machinery.meta import rfc3339
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_disruption import web

AUTOSCALERS = resources.of(autoscaling_v2.HorizontalPodAutoscaler)
DEPLOYMENTS = resources.of(apps_v1.Deployment)
EVENTS = resources.of(core_v1.Event)
PODS = resources.of(core_v1.Pod)
NS = "default"
SCALE = 50.0
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}

Obj = dict[str, Any]


class Metrics:
    """The three metrics APIs: each pod uses `cpu` millicores; other paths are answered from `values`."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.cpu: int | None = None
        self.values: dict[str, Obj] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Obj:
        self.asked.append((path, dict(params or {})))
        if path in self.values:
            return self.values[path]
        if path != f"/apis/metrics.k8s.io/v1beta1/namespaces/{NS}/pods" or self.cluster is None:
            raise StatusError("the server could not find the requested resource", code=404)
        if self.cpu is None:
            return {"items": []}
        now = rfc3339(self.cluster.clock.now())
        pods = (await self.cluster.client.list(PODS, NS)).items
        return {
            "items": [
                {
                    "metadata": {"name": pod["metadata"]["name"], "namespace": NS},
                    "timestamp": now,
                    "window": "15s",
                    "containers": [{"name": "main", "usage": {"cpu": f"{self.cpu}m", "memory": "1Mi"}}],
                }
                for pod in pods
            ]
        }


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def cluster(metrics: Metrics) -> AsyncIterator[Cluster]:
    options = Options(hpa_cpu_initialization_period=0.0)
    async with running_cluster(nodes=2, clock=RealClock(SCALE), options=options, rest=metrics) as made:
        metrics.cluster = made
        yield made


def target(replicas: int, name: str = "web", request: str = "200m") -> Obj:
    made = web(replicas)
    made["metadata"]["name"] = name
    made["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": request}}
    return made


def autoscaler(low: int, high: int, *metrics: Obj, name: str = "web", **over: Any) -> Obj:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": low,
        "maxReplicas": high,
        "metrics": list(metrics) or [CPU],
        **over,
    }
    meta = {"name": name, "namespace": NS}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}


def average(value: str) -> Obj:
    return {"type": "AverageValue", "averageValue": value}


async def replicas_of(cluster: Cluster, count: int) -> None:
    async def probe() -> bool:
        found = await cluster.client.get(DEPLOYMENTS, "web", NS)
        return bool(found["spec"]["replicas"] == count and found["status"].get("readyReplicas") == count)

    await eventually(probe, f"{count} replicas")


async def status_with(cluster: Cluster, reason: str, name: str = "web") -> Obj:
    """The status once a condition has that reason; conditions by type beside it."""

    async def probe() -> Obj | None:
        status: Obj = (await cluster.client.get(AUTOSCALERS, name, NS)).get("status") or {}
        by_type = {each["type"]: each for each in status.get("conditions") or ()}
        return {**status, **by_type} if any(each["reason"] == reason for each in by_type.values()) else None

    found: Obj = await eventually(probe, f"a condition {reason}")
    return found


async def told(cluster: Cluster, reason: str) -> list[str]:
    async def probe() -> list[str]:
        events = (await cluster.client.list(EVENTS, NS)).items
        return [each["message"] for each in events if each["reason"] == reason]

    found: list[str] = await eventually(probe, f"an event {reason}")
    return found


async def test_the_worked_example(cluster: Cluster, metrics: Metrics) -> None:
    """Request 200m, target 50 %: 2 pods at 300m become 6; at 50m each 3, and no fewer than the minimum."""
    await cluster.client.create(target(2))
    await replicas_of(cluster, 2)
    metrics.cpu = 300
    rules = {"scaleDown": {"stabilizationWindowSeconds": 0}, "scaleUp": {"stabilizationWindowSeconds": 0}}
    await cluster.client.create(autoscaler(2, 10, behavior=rules))
    await replicas_of(cluster, 6)
    assert "New size: 6; reason: cpu resource utilization (percentage of request) above target" in await told(
        cluster, "SuccessfulRescale"
    )
    metrics.cpu = 50
    await replicas_of(cluster, 3)
    metrics.cpu = 25
    await replicas_of(cluster, 2)
    status = await status_with(cluster, "TooFewReplicas")
    assert status["ScalingLimited"]["status"] == "True"
    assert status["currentMetrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "25m"}}}
    ]
    assert status["desiredReplicas"] == 2


async def test_scale_down_waits_for_the_window(cluster: Cluster, metrics: Metrics) -> None:
    await cluster.client.create(target(4))
    metrics.cpu = 100
    await replicas_of(cluster, 4)
    await cluster.client.create(autoscaler(1, 10))
    await status_with(cluster, "DesiredWithinRange")
    metrics.cpu = 10
    status = await status_with(cluster, "ScaleDownStabilized")
    assert status["currentReplicas"] == 4
    await replicas_of(cluster, 1)  # 300 s of the cluster are 6 s here


@pytest.mark.parametrize(
    ("replicas", "expected", "reason"), [(1, 3, "below Spec.MinReplicas"), (9, 5, "above Spec.MaxReplicas")]
)
async def test_bounds_hold_without_metrics(cluster: Cluster, replicas: int, expected: int, reason: str) -> None:
    await cluster.client.create(target(replicas))
    await cluster.client.create(autoscaler(3, 5))
    await replicas_of(cluster, expected)
    assert f"New size: {expected}; reason: Current number of replicas {reason}" in await told(
        cluster, "SuccessfulRescale"
    )


async def test_without_metrics_the_last_good_state_holds(cluster: Cluster, metrics: Metrics) -> None:
    await cluster.client.create(target(3))
    await cluster.client.create(autoscaler(1, 10))
    status = await status_with(cluster, "FailedGetResourceMetric")
    assert status["ScalingActive"]["message"] == (
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for "
        "resource cpu: no metrics returned from resource metrics API"
    )
    assert (await told(cluster, "FailedComputeMetricsReplicas"))[0] == (
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get "
        "cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"
    )
    assert (await cluster.client.get(DEPLOYMENTS, "web", NS))["spec"]["replicas"] == 3


async def test_one_broken_metric_keeps_it_from_falling_not_from_rising(cluster: Cluster, metrics: Metrics) -> None:
    broken = {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "5"}},
    }
    await cluster.client.create(target(4))
    await replicas_of(cluster, 4)
    metrics.cpu = 10
    await cluster.client.create(autoscaler(1, 10, CPU, broken))
    status = await status_with(cluster, "FailedGetExternalMetric")
    assert (
        "unable to get external metric default/queue/nil: unable to fetch metrics from external metrics API"
        in (status["ScalingActive"]["message"])
    )
    assert (await cluster.client.get(DEPLOYMENTS, "web", NS))["spec"]["replicas"] == 4
    metrics.cpu = 200
    await replicas_of(cluster, 8)


async def test_custom_and_external_metrics(cluster: Cluster, metrics: Metrics) -> None:
    """Several metrics: the highest wins. Pods 30/15 x 2 -> 4; the Ingress 2k/400 -> 5; the queue 45/30 x 2 -> 3."""
    base = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NS}"
    now = rfc3339(cluster.clock.now())
    await cluster.client.create(target(2))
    await replicas_of(cluster, 2)
    names = [pod["metadata"]["name"] for pod in (await cluster.client.list(PODS, NS)).items]
    metrics.values[f"{base}/pods/%2A/packets"] = {
        "items": [{"describedObject": {"name": name}, "timestamp": now, "value": "30"} for name in names]
    }
    metrics.values[f"{base}/ingresses.networking.k8s.io/main/requests"] = {"items": [{"timestamp": now, "value": "2k"}]}
    queue = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NS}/queue"
    metrics.values[queue] = {"items": [{"value": "40"}, {"value": "5"}]}
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}
    selector = {"matchLabels": {"kind": "task"}}
    specs: list[Obj] = [
        {
            "type": "Pods",
            "pods": {"metric": {"name": "packets"}, "target": {"type": "AverageValue", "averageValue": "15"}},
        },
        {
            "type": "Object",
            "object": {
                "metric": {"name": "requests"},
                "describedObject": ingress,
                "target": average("400"),
            },
        },
        {
            "type": "External",
            "external": {"metric": {"name": "queue", "selector": selector}, "target": {"type": "Value", "value": "30"}},
        },
    ]
    await cluster.client.create(autoscaler(1, 20, *specs))
    first = (await told(cluster, "SuccessfulRescale"))[0]
    assert first == "New size: 4; reason: Ingress metric requests above target"  # 5, but no more than double or 4
    status = await status_with(cluster, "ValidMetricFound")
    assert [each["type"] for each in status["currentMetrics"]] == ["Pods", "Object", "External"]
    assert (queue, {"labelSelector": "kind=task"}) in metrics.asked


@pytest.mark.parametrize(
    ("reference", "reason", "text"),
    [
        (("apps/v1", "Deployment", "none"), "FailedGetScale", 'deployments.apps "none" not found'),
        (("apps/v1", "DaemonSet", "web"), "FailedGetScale", "the server could not find the requested resource"),
        (("example.com/v1", "Widget", "web"), "FailedGetScale", 'no matches for kind "Widget" in group "example.com"'),
    ],
)
async def test_targets_that_cannot_be_scaled(
    cluster: Cluster, reference: tuple[str, str, str], reason: str, text: str
) -> None:
    api_version, kind, name = reference
    made = autoscaler(1, 3, scaleTargetRef={"apiVersion": api_version, "kind": kind, "name": name})
    await cluster.client.create(made)
    status = await status_with(cluster, reason)
    expected = f"the HPA controller was unable to get the target's current scale: {text}"
    assert (status["AbleToScale"]["status"], status["AbleToScale"]["message"]) == ("False", expected)
    assert text in await told(cluster, reason)


async def test_two_autoscalers_of_the_same_pods_are_refused(cluster: Cluster, metrics: Metrics) -> None:
    await cluster.client.create(target(2))
    await replicas_of(cluster, 2)
    metrics.cpu = 300
    await cluster.client.create(autoscaler(2, 2))
    await status_with(cluster, "ValidMetricFound")
    await cluster.client.create(autoscaler(2, 2, name="other"))
    status = await status_with(cluster, "AmbiguousSelector", "other")
    assert status["ScalingActive"]["message"] == (
        "pods by selector app=web are controlled by multiple HPAs: [default/other default/web]"
    )


async def test_a_target_of_zero_is_left_alone(cluster: Cluster, metrics: Metrics) -> None:
    await cluster.client.create(target(0))
    metrics.cpu = 300
    await cluster.client.create(autoscaler(1, 5))
    await status_with(cluster, "ScalingDisabled")
    assert (await cluster.client.get(DEPLOYMENTS, "web", NS))["spec"]["replicas"] == 0
