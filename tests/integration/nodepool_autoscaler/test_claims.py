"""NodePools and NodeClaims against the real API server: from a pod that waits to a node, and to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from api.models import core_v1, policy_v1, storage_v1
from machinery.errors import Invalid, StatusError
from nodepool_autoscaler import names
from nodepool_autoscaler.objects import CLAIMS, NODE_CLAIMS, NODE_POOLS, NodeClaim
from nodepool_autoscaler.provider import Order, ProviderError
from tests.integration.nodepool_autoscaler import site as sites
from tests.integration.nodepool_autoscaler.site import Site, running_site, until


def pool(**spec: Any) -> dict[str, Any]:
    """One that never disrupts."""
    return sites.pool(**{"disruption": {"consolidateAfter": "Never"}, **spec})


async def ended(site: Site, claim: NodeClaim) -> None:
    """The claim, its node and its machine are gone; others may have come for its pods."""

    async def gone() -> bool:
        names_ = [each.name for each in await site.claims()]
        node = claim.status.nodeName
        return claim.name not in names_ and node not in await site.nodes() and node not in site.provider.there

    await until(gone, f"the end of {claim.name}")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site(100.0) as made:
        yield made


async def test_a_pod_that_waits_gets_a_node_and_the_node_its_end(site: Site) -> None:
    taint = {"key": "team", "value": "a", "effect": "NoSchedule"}
    template = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}}, "taints": [taint]}
    await site.client.create(pool(template=template), resource=NODE_POOLS)
    await site.waiting("web", tolerations=[core_v1.Toleration(key="team", operator="Exists")])
    (claim,) = await site.initialized()
    assert claim.name.startswith("default-") and claim.metadata.finalizers == [names.FINALIZER]
    labels = claim.metadata.labels or {}
    assert {key: labels[key] for key in (names.NODE_POOL, names.INSTANCE_TYPE, names.CAPACITY_TYPE, "team")} == {
        names.NODE_POOL: "default",
        names.INSTANCE_TYPE: "m-1x2",
        names.CAPACITY_TYPE: "on-demand",
        "team": "a",
    }
    assert (claim.metadata.ownerReferences or [])[0].kind == "NodePool"
    assert {each.type: each.status for each in claim.status.conditions} == {
        "Launched": "True", "Registered": "True", "Initialized": "True", "Ready": "True",
    }  # fmt: skip
    node = (await site.nodes())[claim.status.nodeName]
    assert node.metadata is not None and node.spec is not None
    assert node.metadata.labels is not None and node.metadata.labels["karpenter.sh/registered"] == "true"
    assert node.metadata.labels["karpenter.sh/initialized"] == "true" and node.metadata.labels["team"] == "a"
    assert names.FINALIZER in (node.metadata.finalizers or []) and (node.metadata.annotations or {})["note"] == "x"
    assert [(each.key, each.effect) for each in node.spec.taints or []] == [("team", "NoSchedule")]
    assert await site.told("web", "Nominated") == f"Pod should schedule on: nodeclaim/{claim.name}"

    async def counted() -> bool:
        status = (await site.pool()).status
        return status.resources.get("nodes") == "1" and status.resources.get("cpu") == "1"

    await until(counted, "the pool's resources")
    found = await site.pool()
    assert {each.type: each.status for each in found.status.conditions}["Ready"] == "True"
    assert names.POOL_HASH in (found.metadata.annotations or {})
    told = site.autoscaler.explainer.nodeclaim("", claim.name)
    assert told is not None and "was made for 1 pods" in told.headline
    assert ["m-1x2", "a", "on-demand"] in [list(row.cells)[:3] for row in told.tables[1].rows]

    await site.bind("web", claim.status.nodeName)
    await site.client.delete(core_v1.Node, claim.status.nodeName)  # by the user: everything goes, in order
    await ended(site, claim)
    assert not (await site.client.list(core_v1.Pod)).items  # evicted


async def test_deleting_a_claim_respects_budgets_until_its_grace_period_is_over(site: Site) -> None:
    await site.client.create(pool(template={"terminationGracePeriod": "5m"}), resource=NODE_POOLS)
    await site.waiting("web")
    (claim,) = await site.initialized()
    await site.bind("web", claim.status.nodeName)
    budget: Any = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    await site.client.create(budget)
    status = {
        "disruptionsAllowed": 0,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
        "observedGeneration": 1,
    }
    await site.client.patch(policy_v1.PodDisruptionBudget, "web", {"status": status}, "default", subresource="status")
    began = site.clock.monotonic()
    await site.client.delete(CLAIMS, claim.name)

    async def draining() -> bool:
        condition = (await site.client.get(CLAIMS, claim.name)).condition("Drained")
        return condition is not None and condition.reason == "Draining"

    await until(draining)
    node = (await site.nodes())[claim.status.nodeName]
    assert node.spec is not None and names.DISRUPTED in [each.key for each in node.spec.taints or []]
    assert "pods are waiting to be evicted" in await site.told(claim.status.nodeName, "FailedDraining")
    await ended(site, claim)
    assert site.clock.monotonic() - began >= 100.0  # of 300: stamps are whole seconds, a hundred of the cluster's


async def test_startup_taints_and_readiness_hold_initialisation(site: Site) -> None:
    startup = {"key": "cni", "effect": "NoExecute"}
    await site.client.create(pool(template={"startupTaints": [startup]}), resource=NODE_POOLS)
    await site.waiting("web")

    async def held() -> str:
        for claim in await site.claims():
            condition = claim.condition("Initialized")
            if condition is not None and condition.reason == "StartupTaintsExist":
                return claim.status.nodeName
        return ""

    name = await until(held)
    await site.client.patch(core_v1.Node, name, {"spec": {"taints": []}})
    await site.initialized()
    assert len(site.provider.orders) == 1  # the node counted while it started


async def test_an_offering_without_capacity_is_left_out(site: Site) -> None:
    site.provider.unavailable = {("m-1x2", zone, "on-demand") for zone in "abc"}
    site.provider.fails["offerings"] = []
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")
    (claim,) = await site.initialized()
    assert (claim.metadata.labels or {})[names.INSTANCE_TYPE] == "m-2x4"


async def test_no_capacity_at_all_is_told_and_tried_again(site: Site) -> None:
    lied, honest = frozenset[Any](), site.provider.offerings

    async def silent(hollow: bool) -> Any:
        offered, _ = await honest(hollow)
        return offered, lied  # says that everything can be had

    site.provider.offerings = silent  # type: ignore[method-assign]
    site.provider.unavailable = {each.key for each in site.provider.offered}
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")

    async def refused() -> bool:
        events = (await site.client.list(core_v1.Event)).items
        return any(each.reason == "InsufficientCapacityError" for each in events)

    await until(refused)
    assert not site.provider.there
    site.provider.unavailable = set()
    await site.initialized()  # after the three minutes


async def test_a_cloud_that_fails_is_asked_again(site: Site) -> None:
    site.provider.fails["launch"] = [ProviderError("on fire"), ProviderError("on fire")]
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")

    async def told() -> bool:
        found = [claim.condition("Launched") for claim in await site.claims()]
        return any(each is not None and each.reason == "LaunchFailed" and each.message == "on fire" for each in found)

    await until(told)
    await site.initialized()
    assert len(site.provider.orders) == 1


async def test_a_machine_that_never_joins_is_given_up() -> None:
    async with running_site(1000.0) as site:
        await gives_up(site)


async def gives_up(site: Site) -> None:
    site.join = False
    await site.client.create(pool(limits={"nodes": "1"}), resource=NODE_POOLS)
    await site.waiting("web")

    async def unhealthy() -> bool:
        found = {each.type: each.status for each in (await site.pool()).status.conditions}
        return found.get(names.NODE_REGISTRATION_HEALTHY) == "False"

    await until(unhealthy)  # two launches, one after the other
    assert len(site.provider.orders) >= 2 and len(site.provider.there) <= 1


async def test_what_belongs_to_nobody_is_collected(site: Site) -> None:
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")
    (claim,) = await site.initialized()
    await site.client.patch(CLAIMS, claim.name, {"metadata": {"finalizers": None}})
    await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
    await site.client.delete(CLAIMS, claim.name)  # gone at once, the machine runs on

    async def empty() -> bool:
        return not site.provider.there

    await until(empty, "no machine without a claim")


async def test_a_claim_whose_machine_is_gone_goes_too(site: Site) -> None:
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")
    (claim,) = await site.initialized()
    site.provider.gone(claim.status.nodeName)
    await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
    down = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    await site.client.patch(core_v1.Node, claim.status.nodeName, down, subresource="status")
    await site.settled()


async def test_limits_and_impossible_pods_are_told(site: Site) -> None:
    await site.client.create(pool(limits={"cpu": "1"}), resource=NODE_POOLS)
    await site.waiting("web")
    await site.initialized()
    await site.waiting("more", "900m")
    await site.waiting("giant", "900")
    told = await site.told("more", "FailedScheduling")
    assert told == 'Failed to schedule pod, all available instance types exceed limits for nodepool: "default"'
    assert "no instance type has enough resources" in await site.told("giant", "FailedScheduling")
    assert len(await site.claims()) == 1
    decision = site.autoscaler.explainer.nodepool("", "default")
    assert decision is not None and "2 pods do not fit it" in decision.headline


async def test_a_pool_without_its_class_launches_nothing_and_says_so(site: Site) -> None:
    made = pool()
    made["spec"]["template"]["spec"]["nodeClassRef"]["name"] = "nowhere"
    await site.client.create(made, resource=NODE_POOLS)
    await site.waiting("web")

    async def told() -> bool:
        found = {each.type: (each.status, each.reason) for each in (await site.pool()).status.conditions}
        return found.get("NodeClassReady") == ("False", "NodeClassNotFound") and found["Ready"][0] == "False"

    await until(told)
    assert "no nodepools found" in await site.told("web", "FailedScheduling")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weight": 0}, "weight"),
    ({"disruption": {"consolidateAfter": "soon"}}, "consolidateAfter"),
    (
        {"disruption": {"consolidateAfter": "0s", "budgets": [{"nodes": "1", "schedule": "@daily"}]}},
        "'schedule' must be set with 'duration'",
    ),
    (
        {"template": {"requirements": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}},
        'label "kubernetes.io/hostname" is restricted',
    ),
    (
        {"template": {"requirements": [{"key": "karpenter.sh/nodepool", "operator": "Exists"}]}},
        'label "karpenter.sh/nodepool" is restricted',
    ),
    (
        {"template": {"requirements": [{"key": "a", "operator": "In", "values": []}]}},
        "requirements with operator 'In' must have a value defined",
    ),
    (
        {"template": {"requirements": [{"key": "a", "operator": "Gt", "values": ["1", "2"]}]}},
        "must have a single positive integer value",
    ),
    (
        {"template": {"requirements": [{"key": "a", "operator": "In", "values": ["b"], "minValues": 2}]}},
        "requirements with 'minValues' must have at least that many values",
    ),
    ({"template": {"metadata": {"labels": {"k8s.io/x": "y"}}}}, 'label domain "k8s.io" is restricted'),
    ({"template": {"terminationGracePeriod": "Never"}}, "terminationGracePeriod"),
]


async def test_what_is_refused_defaults_and_what_never_changes(site: Site) -> None:
    for change, message in REFUSED:
        with pytest.raises(Invalid) as refused:
            await site.client.create(pool(**change), resource=NODE_POOLS)
        assert message in refused.value.message
    bare = pool()
    del bare["spec"]["disruption"]
    made = await site.client.create(bare, resource=NODE_POOLS)
    assert made["spec"]["disruption"] == {
        "consolidateAfter": "0s", "consolidationPolicy": "WhenEmptyOrUnderutilized", "budgets": [{"nodes": "10%"}],
    }  # fmt: skip
    assert made["spec"]["template"]["spec"]["expireAfter"] == "720h"
    await site.waiting("web")
    (claim,) = await site.initialized()
    with pytest.raises(StatusError, match="spec is immutable"):
        await site.client.patch(NODE_CLAIMS, claim.name, {"spec": {"expireAfter": "1h"}})


async def test_a_cloud_that_launches_something_else_is_not_believed(site: Site) -> None:
    honest, wrong = site.provider.launch, next(each for each in site.provider.offered if each.key[0] == "m-16x64")
    lies = 2

    async def lie(order: Order) -> Any:
        nonlocal lies
        machine, refused = await honest(order)
        if lies:
            lies -= 1
            machine = replace(machine, key=wrong.key)
            site.provider.there[machine.name] = machine
        return machine, refused

    site.join = False
    site.provider.launch = lie  # type: ignore[method-assign]
    made = pool()
    smalls = {"key": names.INSTANCE_TYPE, "operator": "In", "values": ["m-1x2", "m-2x4"]}
    made["spec"]["template"]["spec"]["requirements"].append(smalls)
    await site.client.create(made, resource=NODE_POOLS)
    await site.waiting("web")

    async def told() -> bool:
        found = [claim.condition("Launched") for claim in await site.claims()]
        return any(each is not None and "was not asked for" in each.message for each in found)

    await until(told)

    async def launched() -> bool:
        return any(claim.is_true(names.LAUNCHED) for claim in await site.claims())

    await until(launched)
    assert [each.key[0] for each in site.provider.there.values()] == ["m-1x2"]  # what was wrong is gone again


async def test_a_claim_of_the_users_own_is_launched_and_lives_without_a_pool(site: Site) -> None:
    own = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {"name": "mine"},
        "spec": {
            "nodeClassRef": {"group": "cloud.nanokube.io", "kind": "NanokubeNodeClass", "name": "default"},
            "requirements": [{"key": names.ZONE, "operator": "In", "values": ["c"]}],
            "resources": {"requests": {"cpu": "3"}},
        },
    }
    await site.client.create(own, resource=NODE_CLAIMS)
    (claim,) = await site.initialized()
    labels = claim.metadata.labels or {}
    assert (labels[names.INSTANCE_TYPE], labels[names.ZONE], labels[names.CAPACITY_TYPE]) == ("m-4x8", "c", "spot")
    await site.client.delete(NODE_CLAIMS, "mine")
    await site.settled()


async def test_volumes_are_detached_before_the_machine_goes(site: Site) -> None:
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")
    (claim,) = await site.initialized()
    attachment: Any = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": "a"},
        "spec": {
            "attacher": "example.com",
            "nodeName": claim.status.nodeName,
            "source": {"persistentVolumeName": "disk"},
        },
    }
    await site.client.create(attachment)
    await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
    await site.client.delete(CLAIMS, claim.name)

    async def waits() -> bool:
        found = await site.claims()
        condition = found[0].condition("VolumesDetached") if found else None
        return condition is not None and condition.reason == "AwaitingVolumeDetachment"

    await until(waits)
    assert site.provider.there
    assert "disk" in await site.told(claim.status.nodeName, "AwaitingVolumeDetachment")
    await site.client.delete(storage_v1.VolumeAttachment, "a")
    await site.settled()


async def test_a_pod_that_must_not_be_disrupted_holds_the_drain(site: Site) -> None:
    await site.client.create(pool(), resource=NODE_POOLS)
    await site.waiting("web")
    (claim,) = await site.initialized()
    await site.bind("web", claim.status.nodeName)
    note = {"metadata": {"annotations": {names.DO_NOT_DISRUPT: "true"}}}
    await site.client.patch(core_v1.Pod, "web", note, "default")
    await site.client.delete(CLAIMS, claim.name)
    await site.told(claim.status.nodeName, "FailedDraining")
    assert (await site.client.list(core_v1.Pod)).items[0].metadata.deletionTimestamp is None  # type: ignore[union-attr]
    await site.client.patch(core_v1.Pod, "web", {"metadata": {"annotations": None}}, "default")
    await ended(site, claim)
