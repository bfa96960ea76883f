"""ResourceQuota: charging without oversubscription, refusals in upstream's words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from api import quota as rules
from apiserver.admission.resource_quota import Charge, Refused, plan_charge
from machinery.errors import AlreadyExists, Forbidden
from tests.unit.apiserver.admission.conftest import Cluster, a_pod

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def cpu(request: str) -> Obj:
    return {"resources": {"requests": {"cpu": request}}}


async def a_quota(cluster: Cluster, hard: Mapping[str, str], name: str = "q", **spec: Any) -> None:
    """A quota that the quota controller has seen."""
    await cluster.create("resourcequotas", {"metadata": {"name": name}, "spec": {"hard": dict(hard), **spec}})
    status = {"hard": dict(hard), "used": dict.fromkeys(hard, "0")}
    await cluster.patch("resourcequotas", name, {"status": status}, sub="status")


async def used(cluster: Cluster, name: str = "q") -> Obj:
    quota = await cluster.get("resourcequotas", name)
    found: Obj = quota["status"]["used"]
    return found


async def test_the_story_of_a_quota(cluster: Cluster) -> None:
    await a_quota(cluster, {"pods": "2", "requests.cpu": "1"})
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify requests.cpu for: c0$"):
        await cluster.create("pods", a_pod("p1"))
    await cluster.create("pods", a_pod("p1", cpu("400m")))
    assert await used(cluster) == {"pods": "1", "requests.cpu": "400m"}
    with pytest.raises(Forbidden) as caught:
        await cluster.create("pods", a_pod("p2", cpu("800m")))
    assert caught.value.message == (
        'pods "p2" is forbidden: exceeded quota: q, requested: requests.cpu=800m, used: requests.cpu=400m, '
        "limited: requests.cpu=1"
    )
    await cluster.create("pods", a_pod("p2", cpu("600m")))
    with pytest.raises(Forbidden) as caught:
        await cluster.create("pods", a_pod("p3", cpu("1")))
    assert caught.value.message == (
        'pods "p3" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=1, '
        "limited: pods=2,requests.cpu=1"
    )


async def test_concurrent_creates_never_exceed_the_quota(cluster: Cluster) -> None:
    await a_quota(cluster, {"configmaps": "5"})

    async def one(number: int) -> bool:
        try:
            await cluster.create("configmaps", {"metadata": {"name": f"c{number}"}})
        except Forbidden:
            return False
        return True

    outcomes = await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(outcomes) == 5
    assert await used(cluster) == {"configmaps": "5"}


async def test_failed_writes_give_back_what_they_were_charged(cluster: Cluster) -> None:
    await a_quota(cluster, {"configmaps": "3"}, "first")
    await a_quota(cluster, {"count/configmaps": "1"}, "second")
    await cluster.create("configmaps", {"metadata": {"name": "one"}})
    with pytest.raises(Forbidden, match="exceeded quota: second"):
        await cluster.create("configmaps", {"metadata": {"name": "two"}})
    assert await used(cluster, "first") == {"configmaps": "1"}
    await cluster.patch("resourcequotas", "second", {"status": {"hard": {"count/configmaps": "9"}}}, sub="status")
    with pytest.raises(AlreadyExists):
        await cluster.create("configmaps", {"metadata": {"name": "one"}})
    assert await used(cluster, "first") == {"configmaps": "1"}
    assert await used(cluster, "second") == {"count/configmaps": "1"}


async def test_dry_runs_are_judged_and_not_charged(cluster: Cluster) -> None:
    await a_quota(cluster, {"configmaps": "1"})
    await cluster.create("configmaps", {"metadata": {"name": "one"}}, dry=True)
    assert await used(cluster) == {"configmaps": "0"}
    await cluster.create("configmaps", {"metadata": {"name": "one"}})
    with pytest.raises(Forbidden):
        await cluster.create("configmaps", {"metadata": {"name": "two"}}, dry=True)


async def test_updates_are_charged_by_the_difference(cluster: Cluster) -> None:
    await a_quota(cluster, {"services.nodeports": "1", "services": "2"})
    await cluster.create("services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    assert await used(cluster) == {"services.nodeports": "0", "services": "1"}
    await cluster.patch("services", "web", {"spec": {"type": "NodePort"}})
    assert await used(cluster) == {"services.nodeports": "1", "services": "1"}
    two = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    with pytest.raises(Forbidden, match=r"requested: services.nodeports=1, used: services.nodeports=1"):
        await cluster.patch("services", "web", {"spec": {"ports": two}})


async def test_a_quota_that_no_controller_has_seen_limits_nothing(cluster: Cluster) -> None:
    await cluster.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "0"}}})
    await cluster.create("configmaps", {"metadata": {"name": "one"}})


def selected(scope: str, operator: str = "Exists", *values: str) -> Obj:
    chosen = {"scopeName": scope, "operator": operator, **({"values": list(values)} if values else {})}
    return {"spec": {"scopeSelector": {"matchExpressions": [chosen]}}}


@pytest.mark.parametrize(
    ("spec", "quota", "expected"),
    [
        pytest.param({}, {"spec": {}}, True, id="no-scope"),
        pytest.param({"activeDeadlineSeconds": 5}, {"spec": {"scopes": ["Terminating"]}}, True, id="terminating"),
        pytest.param({}, {"spec": {"scopes": ["Terminating"]}}, False, id="not-terminating"),
        pytest.param({"containers": [cpu("1")]}, {"spec": {"scopes": ["BestEffort"]}}, False, id="burstable"),
        pytest.param({"containers": [{}]}, {"spec": {"scopes": ["BestEffort"]}}, True, id="best-effort"),
        pytest.param({"priorityClassName": "high"}, selected("PriorityClass", "In", "high"), True, id="class-in"),
        pytest.param({"priorityClassName": "low"}, selected("PriorityClass", "In", "high"), False, id="class-not-in"),
        pytest.param({}, selected("PriorityClass", "DoesNotExist"), True, id="no-class"),
        pytest.param(
            {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["a"]}]}}},
            selected("CrossNamespacePodAffinity"),
            True,
            id="cross-namespace",
        ),
    ],
)
def test_scopes(spec: Obj, quota: Obj, expected: bool) -> None:
    assert rules.in_scope(rules.PODS, {"spec": spec}, quota) is expected


@pytest.mark.parametrize(
    ("target", "obj", "expected"),
    [
        pytest.param(("apps", "deployments"), {}, {"count/deployments.apps": 1}, id="count"),
        pytest.param(("", "secrets"), {}, {"count/secrets": 1, "secrets": 1}, id="core-count"),
        pytest.param(
            ("", "pods"), {"status": {"phase": "Succeeded"}, "spec": {}}, {"count/pods": 1}, id="finished-pod"
        ),
        pytest.param(
            ("", "pods"),
            {"spec": {"containers": [{"resources": {"requests": {"x.y/gpu": "2"}, "limits": {"cpu": "1"}}}]}},
            {"count/pods": 1, "pods": 1, "requests.x.y/gpu": 2, "limits.cpu": 1},
            id="extended",
        ),
        pytest.param(
            ("", "services"),
            {"spec": {"type": "LoadBalancer", "ports": [{}, {}]}},
            {"count/services": 1, "services": 1, "services.nodeports": 2, "services.loadbalancers": 1},
            id="load-balancer",
        ),
        pytest.param(
            ("", "persistentvolumeclaims"),
            {"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2"}}}},
            {
                "count/persistentvolumeclaims": 1,
                "persistentvolumeclaims": 1,
                "requests.storage": 2,
                "fast.storageclass.storage.k8s.io/requests.storage": 2,
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims": 1,
            },
            id="claim",
        ),
    ],
)
def test_usage(target: tuple[str, str], obj: Obj, expected: dict[str, int]) -> None:
    counted = rules.usage(target, obj, NOW)
    assert {name: number for name, number in counted.items() if number} == expected
    assert all(rules.concerns(target, name) for name in expected)
    assert all(rules.counted_resource(name) == target for name in expected)


def test_a_name_without_known_usage_refuses() -> None:
    quota = {"metadata": {"name": "q"}, "status": {"hard": {"configmaps": "1"}, "used": {}}}
    charge = Charge(("", "configmaps"), {}, rules.usage(("", "configmaps"), {}, NOW), {})
    with pytest.raises(Refused, match="status unknown for quota: q, resources: configmaps"):
        plan_charge(quota, charge)
