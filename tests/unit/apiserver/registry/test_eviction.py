"""Evictions and the budgets that refuse them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.eviction import needs_no_budget, needs_no_disruption, plan_disruption
from apiserver.registry.store import Registry, RequestContext
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock
from machinery.errors import BadRequest, Conflict, NotFound, StatusError, TooManyRequests

Obj = dict[str, Any]
NOW = "2026-01-01T00:00:00Z"


def ctx() -> RequestContext:
    return RequestContext(UserInfo("tester"))


def load(raw: bytes) -> Obj:
    obj: Obj = msgspec.json.decode(raw)
    return obj


def budget(allowed: int = 1, observed: int = 1, **status: Any) -> Obj:
    return {
        "metadata": {"name": "guard", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": observed, "disruptionsAllowed": allowed, **status},
    }


def test_a_disruption_is_counted() -> None:
    status = plan_disruption(budget(2), "web", NOW)
    assert status == {"observedGeneration": 1, "disruptionsAllowed": 1, "disruptedPods": {"web": NOW}}


def test_the_last_disruption_is_told() -> None:
    status = plan_disruption(budget(1), "web", NOW)
    assert [(each["type"], each["status"], each["reason"]) for each in status["conditions"]] == [
        ("DisruptionAllowed", "False", "InsufficientPods")
    ]


@pytest.mark.parametrize(
    ("state", "text", "retry"),
    [
        pytest.param(
            budget(0, desiredHealthy=2, currentHealthy=2),
            "The disruption budget guard needs 2 healthy pods and has 2 currently",
            0,
            id="spent",
        ),
        pytest.param(
            budget(1, observed=0), "The disruption budget guard is still being processed by the server.", 10, id="stale"
        ),
    ],
)
def test_a_budget_refuses(state: Obj, text: str, retry: int) -> None:
    with pytest.raises(TooManyRequests, match="Cannot evict pod as it would violate") as caught:
        plan_disruption(state, "web", NOW)
    assert caught.value.causes == [{"reason": "DisruptionBudget", "message": text}]
    assert caught.value.retry_after_seconds == retry


@pytest.mark.parametrize(
    ("status", "meta", "expected"),
    [
        pytest.param({"phase": "Running"}, {}, False, id="running"),
        pytest.param({"phase": "Succeeded"}, {}, True, id="finished"),
        pytest.param({"phase": "Pending"}, {}, True, id="pending"),
        pytest.param({"phase": "Running"}, {"deletionTimestamp": NOW}, True, id="going"),
    ],
)
def test_pods_without_need_of_a_budget(status: Obj, meta: Obj, expected: bool) -> None:
    assert needs_no_budget({"metadata": meta, "status": status}) is expected


@pytest.mark.parametrize(
    ("ready", "policy", "current", "expected"),
    [
        pytest.param("True", "AlwaysAllow", 2, False, id="ready pods always count"),
        pytest.param("False", "AlwaysAllow", 0, True, id="unhealthy ones may always go"),
        pytest.param("False", None, 2, True, id="the budget is healthy"),
        pytest.param("False", None, 1, False, id="the budget is not healthy"),
    ],
)
def test_unready_pods(ready: str, policy: str | None, current: int, expected: bool) -> None:
    state = budget(0, desiredHealthy=2, currentHealthy=current)
    if policy:
        state["spec"]["unhealthyPodEvictionPolicy"] = policy
    pod = {"status": {"conditions": [{"type": "Ready", "status": ready}]}}
    assert needs_no_disruption(pod, state) is expected


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(MemoryStore(), RealClock(), RESOURCES)
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    yield registry
    task.cancel()
    await asyncio.wait((task,))


async def running_pod(registry: Registry) -> None:
    pods = registry.resource("", "v1", "pods")
    spec = {"nodeName": "alpha", "containers": [{"name": "main", "image": "nginx"}]}
    await pods.create(ctx(), "ns", {"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec})
    status = b'{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}'
    await pods.patch(ctx(), "ns", "web", "application/merge-patch+json", status, subresource="status")


async def test_an_eviction_marks_the_pod_and_spends_the_budget(registry: Registry) -> None:
    await running_pod(registry)
    pods, budgets = registry.resource("", "v1", "pods"), registry.resource("policy", "v1", "poddisruptionbudgets")
    made = budget(1, desiredHealthy=1, currentHealthy=2)
    await budgets.create(ctx(), "ns", {"metadata": {"name": "guard"}, "spec": made["spec"]})
    generation = load(await budgets.get(ctx(), "ns", "guard"))["metadata"].get("generation") or 0
    status = {"status": {**made["status"], "observedGeneration": generation}}
    patch = msgspec.json.encode(status)
    await budgets.patch(ctx(), "ns", "guard", "application/merge-patch+json", patch, subresource="status")
    body = {"metadata": {"name": "web"}, "deleteOptions": {"gracePeriodSeconds": 5}}
    dry = {**body, "deleteOptions": {"dryRun": ["All"]}}
    assert load(await pods.create(ctx(), "ns", dry, name="web", subresource="eviction"))["status"] == "Success"
    assert load(await budgets.get(ctx(), "ns", "guard"))["status"]["disruptionsAllowed"] == 1
    assert load(await pods.create(ctx(), "ns", body, name="web", subresource="eviction"))["status"] == "Success"
    pod = load(await pods.get(ctx(), "ns", "web"))
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 5
    assert pod["status"]["conditions"][-1]["reason"] == "EvictionByEvictionAPI"
    spent = load(await budgets.get(ctx(), "ns", "guard"))["status"]
    assert spent["disruptionsAllowed"] == 0 and list(spent["disruptedPods"]) == ["web"]


async def test_a_spent_budget_keeps_the_pod(registry: Registry) -> None:
    await running_pod(registry)
    pods, budgets = registry.resource("", "v1", "pods"), registry.resource("policy", "v1", "poddisruptionbudgets")
    await budgets.create(ctx(), "ns", {"metadata": {"name": "guard"}, "spec": budget()["spec"]})
    with pytest.raises(TooManyRequests):
        await pods.create(ctx(), "ns", {"metadata": {"name": "web"}}, name="web", subresource="eviction")
    assert "deletionTimestamp" not in load(await pods.get(ctx(), "ns", "web"))["metadata"]


async def change_when_asked(registry: Registry, status: bytes) -> list[int]:
    """Have the pod's status change right after an eviction has looked at it for the first time; counts the looks."""
    pods, looks = registry.resource("", "v1", "pods"), [0]
    look = pods.get

    async def looked(context: RequestContext, namespace: str, name: str, *rest: Any, **more: Any) -> bytes:
        found = await look(context, namespace, name, *rest, **more)
        looks[0] += 1
        if looks[0] == 1:
            await pods.patch(ctx(), "ns", "web", "application/merge-patch+json", status, subresource="status")
        return found

    pods.get = looked  # type: ignore[method-assign, assignment]
    return looks


READY = b'{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}'
UNREADY = b'{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"False"}]}}'
PENDING = b'{"status":{"phase":"Pending","conditions":null}}'


@pytest.mark.parametrize(
    ("before", "state", "text"),
    [
        pytest.param(UNREADY, budget(0, desiredHealthy=1, currentHealthy=1), "still being processed", id="unready"),
        pytest.param(PENDING, budget(0, desiredHealthy=1, currentHealthy=1), "needs 1 healthy pods", id="pending"),
    ],
)
async def test_a_pod_that_became_ready_meanwhile_costs_budget(
    registry: Registry, before: bytes, state: Obj, text: str
) -> None:
    await running_pod(registry)
    pods, budgets = registry.resource("", "v1", "pods"), registry.resource("policy", "v1", "poddisruptionbudgets")
    await pods.patch(ctx(), "ns", "web", "application/merge-patch+json", before, subresource="status")
    await budgets.create(ctx(), "ns", {"metadata": {"name": "guard"}, "spec": state["spec"]})
    generation = load(await budgets.get(ctx(), "ns", "guard"))["metadata"].get("generation") or 0
    patch = msgspec.json.encode({"status": {**state["status"], "observedGeneration": generation}})
    await budgets.patch(ctx(), "ns", "guard", "application/merge-patch+json", patch, subresource="status")
    await change_when_asked(registry, READY)
    with pytest.raises(TooManyRequests) as caught:
        await pods.create(ctx(), "ns", {"metadata": {"name": "web"}}, name="web", subresource="eviction")
    assert text in caught.value.causes[0]["message"]
    pod = load(await pods.get(ctx(), "ns", "web"))
    assert "deletionTimestamp" not in pod["metadata"]
    assert [each["type"] for each in pod["status"]["conditions"]] == ["Ready"]


@pytest.mark.parametrize("stale", [False, True])
async def test_a_client_may_say_which_version_it_means(registry: Registry, stale: bool) -> None:
    await running_pod(registry)
    pods = registry.resource("", "v1", "pods")
    version = load(await pods.get(ctx(), "ns", "web"))["metadata"]["resourceVersion"]
    if stale:
        await pods.patch(ctx(), "ns", "web", "application/merge-patch+json", UNREADY, subresource="status")
    body = {"metadata": {"name": "web"}, "deleteOptions": {"preconditions": {"resourceVersion": version}}}
    if not stale:
        await pods.create(ctx(), "ns", body, name="web", subresource="eviction")
    else:
        with pytest.raises(Conflict):
            await pods.create(ctx(), "ns", body, name="web", subresource="eviction")
    pod = load(await pods.get(ctx(), "ns", "web"))
    assert ("deletionTimestamp" in pod["metadata"]) is not stale


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        pytest.param("web", {"metadata": {"name": "other"}}, BadRequest, id="other name"),
        pytest.param("web", {}, BadRequest, id="no name"),
        pytest.param("ghost", {"metadata": {"name": "ghost"}}, NotFound, id="missing"),
    ],
)
async def test_evictions_that_make_no_sense(registry: Registry, name: str, body: Obj, error: type[StatusError]) -> None:
    await running_pod(registry)
    with pytest.raises(error):
        await registry.resource("", "v1", "pods").create(ctx(), "ns", body, name=name, subresource="eviction")
