"""Resources in a version that is not the stored one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.conversion import (
    autoscaler_from_storage,
    autoscaler_to_storage,
    event_from_storage,
    event_to_storage,
)
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


def test_autoscalers_keep_what_the_older_version_cannot_say() -> None:
    memory = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization"}}}
    cpu = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    stored = {
        "spec": {"maxReplicas": 3, "metrics": [memory, cpu], "behavior": {"scaleUp": {}}},
        "status": {"desiredReplicas": 2, "conditions": [{"type": "AbleToScale"}]},
    }
    shown = autoscaler_from_storage(stored, None)
    assert shown["spec"] == {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}
    assert shown["status"] == {"currentReplicas": 0, "desiredReplicas": 2}
    shown["spec"]["targetCPUUtilizationPercentage"] = 50
    back = autoscaler_to_storage(shown, stored)
    assert back["spec"]["behavior"] == {"scaleUp": {}} and back["status"]["conditions"] == [{"type": "AbleToScale"}]
    assert back["spec"]["metrics"][0] == memory
    assert back["spec"]["metrics"][1]["resource"]["target"]["averageUtilization"] == 50


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
    patched = load(await newer.patch(ctx(), "ns", "e1", MERGE, b'{"note":"other"}'))
    assert patched["note"] == "other"
    assert load(await core.get(ctx(), "ns", "e1"))["message"] == "other"
    async with newer.watch(ctx(), "ns", WatchOptions(resource_version=made["metadata"]["resourceVersion"])) as watcher:
        await core.delete(ctx(), "ns", "e1", DeleteOptions())
        events: list[Event] = []
        async with asyncio.timeout(5):
            while len(events) < 2:
                events += await watcher.__anext__()
    assert [event.type for event in events] == [b"MODIFIED", b"DELETED"]
    assert load(events[0].raw)["note"] == "other" and load(events[1].line)["object"]["apiVersion"] == "events.k8s.io/v1"


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
