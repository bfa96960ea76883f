"""Resources in a version that is not the stored one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry import autoscaler_versions
from apiserver.registry.conversion import event_from_storage, event_to_storage
from apiserver.registry.store import DeleteOptions, Event, ListOptions, Registry, RequestContext, WatchOptions
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock
from machinery.errors import BadRequest, Invalid

Obj = dict[str, Any]
MERGE = "application/merge-patch+json"


def ctx() -> RequestContext:
    return RequestContext(UserInfo("tester"))


def load(raw: bytes) -> Obj:
    obj: Obj = msgspec.json.decode(raw)
    return obj


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(MemoryStore(), RealClock(), RESOURCES)
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    yield registry
    task.cancel()
    await asyncio.wait((task,))


CORE_EVENT = {
    "metadata": {"name": "e1"},
    "involvedObject": {"kind": "Pod", "name": "p1", "namespace": "ns"},
    "reason": "Boom",
    "message": "text",
    "type": "Warning",
    "source": {"component": "kubelet"},
}


def test_events_round_trip() -> None:
    shown = event_from_storage(CORE_EVENT, None)
    assert shown["regarding"]["name"] == "p1" and shown["note"] == "text"
    assert "involvedObject" not in shown and "message" not in shown
    assert event_to_storage(shown, None) == CORE_EVENT


def cpu(percentage: int) -> Obj:
    target = {"type": "Utilization", "averageUtilization": percentage}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


BY_VALUE: Obj = {"type": "AverageValue", "averageValue": "100Mi"}
DESCRIBED = {"kind": "Ingress", "name": "front", "apiVersion": "networking.k8s.io/v1"}
QUEUE: Obj = {"name": "depth", "selector": {"matchLabels": {"q": "a"}}}
METRICS: list[tuple[Obj, str]] = [
    (
        {"type": "Resource", "resource": {"name": "memory", "target": BY_VALUE}},
        '{"type":"Resource","resource":{"name":"memory","targetAverageValue":"100Mi"}}',
    ),
    (
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "main", "target": BY_VALUE}},
        '{"type":"ContainerResource","containerResource":{"name":"cpu","targetAverageValue":"100Mi",'
        '"container":"main"}}',
    ),
    (
        {"type": "Pods", "pods": {"metric": QUEUE, "target": BY_VALUE}},
        '{"type":"Pods","pods":{"metricName":"depth","targetAverageValue":"100Mi",'
        '"selector":{"matchLabels":{"q":"a"}}}}',
    ),
    (
        {
            "type": "Object",
            "object": {
                "metric": {"name": "hits"},
                "describedObject": DESCRIBED,
                "target": {"type": "Value", "value": "1k"},
            },
        },
        '{"type":"Object","object":{"target":{"kind":"Ingress","name":"front","apiVersion":"networking.k8s.io/v1"},'
        '"metricName":"hits","targetValue":"1k"}}',
    ),
    (
        {"type": "External", "external": {"metric": QUEUE, "target": {"type": "Value", "value": "30"}}},
        '{"type":"External","external":{"metricName":"depth","metricSelector":{"matchLabels":{"q":"a"}},'
        '"targetValue":"30"}}',
    ),
]


@pytest.mark.parametrize(("metric", "older"), METRICS, ids=[metric["type"] for metric, _ in METRICS])
def test_metrics_of_the_newer_version_are_annotations_of_the_older(metric: Obj, older: str) -> None:
    stored = {"metadata": {"name": "web", "annotations": {"a": "b"}}, "spec": {"metrics": [cpu(60), metric]}}
    shown = autoscaler_versions.from_storage(stored, None)
    assert shown["metadata"]["annotations"] == {"a": "b", "autoscaling.alpha.kubernetes.io/metrics": f"[{older}]"}
    assert shown["spec"] == {"targetCPUUtilizationPercentage": 60}
    back = autoscaler_versions.to_storage(shown, None)
    assert back["metadata"] == stored["metadata"] and back["spec"] == stored["spec"]


def test_the_state_of_autoscalers_goes_through_annotations() -> None:
    current = {"averageUtilization": 33, "averageValue": "120m"}
    condition = {"type": "AbleToScale", "status": "True", "lastTransitionTime": None}
    used = {"type": "Pods", "pods": {"metric": {"name": "qps"}, "current": {"averageValue": "5"}}}
    status = {
        "desiredReplicas": 2,
        "currentReplicas": 1,
        "conditions": [condition],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": current}}, used],
    }
    stored = {"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, "metrics": [cpu(80)]}, "status": status}
    shown = autoscaler_versions.from_storage(stored, None)
    assert shown["metadata"]["annotations"] == {
        "autoscaling.alpha.kubernetes.io/conditions": (
            '[{"type":"AbleToScale","status":"True","lastTransitionTime":null}]'
        ),
        "autoscaling.alpha.kubernetes.io/current-metrics": (
            '[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":33,"currentAverageValue":"120m"}},'
            '{"type":"Pods","pods":{"metricName":"qps","currentAverageValue":"5"}}]'
        ),
    }
    assert shown["status"] == {"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 33}
    assert autoscaler_versions.to_storage(shown, None) == stored


def test_the_behavior_of_autoscalers_has_its_internal_spelling() -> None:
    policy = {"type": "Pods", "value": 4, "periodSeconds": 15}
    up = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [policy], "tolerance": "100m"}
    spec = {"metrics": [cpu(80)], "behavior": {"scaleUp": up}}
    shown = autoscaler_versions.from_storage({"metadata": {}, "spec": spec}, None)
    assert shown["metadata"]["annotations"] == {
        "autoscaling.alpha.kubernetes.io/behavior": (
            '{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max",'
            '"Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":"100m"},"ScaleDown":null}'
        )
    }
    assert autoscaler_versions.to_storage(shown, None)["spec"] == spec


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"type":"Odd"}]', '{"type":"Pods"}', "null", '[{"type":"Pods"}]'])
def test_annotations_that_cannot_be_read_are_ignored(text: str) -> None:
    annotations = dict.fromkeys((autoscaler_versions.METRICS, autoscaler_versions.BEHAVIOR), text)
    sent = {"metadata": {"name": "web", "annotations": annotations}, "spec": {"maxReplicas": 2}}
    read = autoscaler_versions.to_storage(sent, None)
    assert read == {"metadata": {"name": "web"}, "spec": {"maxReplicas": 2, "metrics": [cpu(80)]}}


async def test_one_event_in_two_versions(registry: Registry) -> None:
    core = registry.resource("", "v1", "events")
    newer = registry.resource("events.k8s.io", "v1", "events")
    made = load(await core.create(ctx(), "ns", load(msgspec.json.encode(CORE_EVENT))))
    shown = load(await newer.get(ctx(), "ns", "e1"))
    assert shown["apiVersion"] == "events.k8s.io/v1" and shown["note"] == "text"
    assert shown["metadata"] == made["metadata"]
    page = await newer.list(ctx(), "ns", ListOptions(field_selector="regarding.kind=Pod"))
    assert [load(raw) for raw in page.items] == [shown]
    assert newer.form.bare(page.items[0]).startswith(b'{"metadata":')
    with pytest.raises(BadRequest, match=r"field label not supported: involvedObject\.kind"):
        await newer.list(ctx(), "ns", ListOptions(field_selector="involvedObject.kind=Pod"))
    with pytest.raises(Invalid, match='message: Invalid value: "other": field is immutable'):
        await newer.patch(ctx(), "ns", "e1", MERGE, b'{"note":"other"}')
    series = {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}
    patched = load(await newer.patch(ctx(), "ns", "e1", MERGE, msgspec.json.encode({"series": series})))
    assert patched["series"] == series
    assert load(await core.get(ctx(), "ns", "e1"))["series"] == series
    async with newer.watch(ctx(), "ns", WatchOptions(resource_version=made["metadata"]["resourceVersion"])) as watcher:
        await core.delete(ctx(), "ns", "e1", DeleteOptions())
        events: list[Event] = []
        async with asyncio.timeout(5):
            while len(events) < 2:
                events += await watcher.__anext__()
    assert [event.type for event in events] == [b"MODIFIED", b"DELETED"]
    assert (
        load(events[0].raw)["series"] == series and load(events[1].line)["object"]["apiVersion"] == "events.k8s.io/v1"
    )


async def test_an_autoscaler_made_in_the_older_version(registry: Registry) -> None:
    older = registry.resource("autoscaling", "v1", "horizontalpodautoscalers")
    newer = registry.resource("autoscaling", "v2", "horizontalpodautoscalers")
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 80,
    }
    made = load(await older.create(ctx(), "ns", {"metadata": {"name": "web"}, "spec": spec}))
    assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["targetCPUUtilizationPercentage"] == 80
    stored = load(await newer.get(ctx(), "ns", "web"))
    assert stored["apiVersion"] == "autoscaling/v2"
    assert stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    changed, created = await older.update(
        ctx(), "ns", "web", {"metadata": {"name": "web"}, "spec": {**spec, "maxReplicas": 5}}
    )
    assert not created and load(changed)["spec"]["maxReplicas"] == 5


async def test_new_events_of_the_newer_version_are_judged_more_strictly(registry: Registry) -> None:
    newer = registry.resource("events.k8s.io", "v1", "events")
    regarding = {"namespace": "default", "kind": "Pod", "name": "web"}
    meta = {"metadata": {"name": "web"}}
    with pytest.raises(Invalid) as caught:
        await newer.create(ctx(), "default", {**meta, "regarding": regarding, "deprecatedCount": 2})
    assert caught.value.message == (
        'Event "web" is invalid: [eventTime: Required value, type: Invalid value: "": has invalid value: , '
        'count: Invalid value: "": needs to be unset]'
    )
    older = registry.resource("", "v1", "events")
    event = {"metadata": {"name": "web"}, "involvedObject": regarding, "count": 2}
    assert await older.create(ctx(), "default", event)
