"""Small parts: batches, conditions, the memory of missing capacity, what ends a start, the order of a drain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.models import core_v1, meta_v1
from machinery.clock import VirtualClock
from nodepool_autoscaler import names
from nodepool_autoscaler.batcher import Batcher
from nodepool_autoscaler.catalog import UNAVAILABLE_FOR, Catalog
from nodepool_autoscaler.conditions import Conditions
from nodepool_autoscaler.definitions import definitions
from nodepool_autoscaler.explain import limits_told
from nodepool_autoscaler.lifecycle import kubelet_labels, uninitialized
from nodepool_autoscaler.objects import ClassSpec, ConditionStatus, NodeClaim, NodeClass, seconds
from nodepool_autoscaler.provider import FakeProvider, ProviderError
from nodepool_autoscaler.refusals import listed
from nodepool_autoscaler.termination import drainable, next_to_leave
from scheduler.framework.pod_info import PodInfo
from tests.unit.nodepool_autoscaler.scene import offerings
from tests.unit.scheduler.objects import node, pod, tolerate

# --- batches ---------------------------------------------------------------------------------------------------------


async def batch(times: list[float]) -> float:
    """When a batch ends to which something comes at these instants."""
    clock = VirtualClock()
    batcher = Batcher(clock)
    done: list[float] = []

    async def wait() -> None:
        assert await batcher.wait(100.0)
        done.append(clock.monotonic() - began)

    began = clock.monotonic()
    for each in times:
        clock.call_later(each, batcher.trigger)
    task = asyncio.ensure_future(wait())
    for _ in range(200):
        await clock.advance(0.1)
        if task.done():
            break
    await task
    return round(done[0], 1)


@pytest.mark.parametrize(
    ("times", "ends"),
    [
        pytest.param([1.0], 2.0, id="one"),
        pytest.param([1.0, 1.5, 2.2], 3.2, id="more-within-a-second"),
        pytest.param([0.5 * number for number in range(2, 40)], 11.0, id="never-more-than-ten"),
    ],
)
async def test_batches(times: list[float], ends: float) -> None:
    assert await batch(times) == pytest.approx(ends, abs=0.25)


async def test_nothing_comes() -> None:
    clock = VirtualClock()
    task = asyncio.ensure_future(Batcher(clock).wait(5.0))
    await clock.advance(6.0)
    assert await task is False


# --- conditions ------------------------------------------------------------------------------------------------------


def statuses(told: list[dict[str, Any]] | None) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in told or []}


def test_ready_follows_from_the_others() -> None:
    clock = VirtualClock()
    made = Conditions([], ("A", "B"), clock.now())
    assert statuses(made.finish())["Ready"] == ("Unknown", "ReconcilingDependents")
    made.set("A", False, "Broken", "it is")
    assert statuses(made.finish())["Ready"] == ("False", "UnhealthyDependents")
    made.set("A", True)
    made.set("B", True)
    assert statuses(made.finish())["Ready"] == ("True", "Ready")


async def test_transitions_are_kept_and_nothing_new_is_no_change() -> None:
    clock = VirtualClock()
    first = Conditions([], ("A",), clock.now())
    first.set("A", True)
    told = first.finish()
    assert told is not None
    known = [ConditionStatus(**{**each, "lastTransitionTime": clock.now()}) for each in told]
    await clock.advance(60)
    again = Conditions(known, ("A",), clock.now())
    again.set("A", True)
    assert again.finish() is None
    again.set("A", True, "Other")
    changed = again.finish()
    assert changed is not None and changed[0]["lastTransitionTime"] == told[0]["lastTransitionTime"]


# --- capacity --------------------------------------------------------------------------------------------------------


async def test_an_offering_without_capacity_is_left_out_for_three_minutes() -> None:
    clock, provider = VirtualClock(), FakeProvider(offerings())
    catalog = Catalog(provider, clock)
    await catalog.refresh()
    everything = NodeClass(meta_v1.ObjectMeta(name="default"))
    key = provider.offered[0].key
    catalog.refuse(False, [key])
    assert key not in [each.key for each in catalog.available(everything)]
    assert key in [each.key for each in catalog.known(everything)]
    await clock.advance(UNAVAILABLE_FOR + 1)
    assert key in [each.key for each in catalog.available(everything)]
    narrow = NodeClass(meta_v1.ObjectMeta(name="b"), ClassSpec(zones=["b"], instanceTypes=["m-1x2"]))
    assert {(each.zone, each.instance_type) for each in catalog.available(narrow)} == {("b", "m-1x2")}


async def test_a_cloud_that_does_not_answer_leaves_what_was_known() -> None:
    provider = FakeProvider(offerings())
    catalog = Catalog(provider, VirtualClock())
    await catalog.refresh()
    provider.fails["offerings"] = [ProviderError("down")]
    await catalog.refresh()
    assert catalog.trouble == "down" and catalog.available(NodeClass(meta_v1.ObjectMeta(name="default")))
    await catalog.refresh()
    assert not catalog.trouble


# --- starts and ends -------------------------------------------------------------------------------------------------


def started(*taints: tuple[str, str, str], ready: str = "True", **amounts: Any) -> core_v1.Node:
    made = node("n", taints=taints, **amounts)
    assert made.status is not None
    made.status.conditions = [core_v1.NodeCondition(type="Ready", status=ready)]
    return made


@pytest.mark.parametrize(
    ("there", "reason", "message"),
    [
        pytest.param(started(), "", "", id="ready"),
        pytest.param(started(ready="False"), "NodeNotReady", "Node status is NotReady", id="not-ready"),
        pytest.param(
            started(("cni", "x", "NoExecute")),
            "StartupTaintsExist",
            'StartupTaint "cni=x:NoExecute" still exists',
            id="cni",
        ),
        pytest.param(
            started(("node.kubernetes.io/not-ready", "", "NoSchedule")),
            "KnownEphemeralTaintsExist",
            'KnownEphemeralTaint "node.kubernetes.io/not-ready:NoSchedule" still exists',
            id="ephemeral",
        ),
        pytest.param(
            started(example__com__gpu="0"),
            "ResourceNotRegistered",
            'Resource "example.com/gpu" was requested but not registered',
            id="device",
        ),
    ],
)
def test_when_a_node_can_take_pods(there: core_v1.Node, reason: str, message: str) -> None:
    claim = NodeClaim(meta_v1.ObjectMeta(name="c"))
    claim.spec.startupTaints = [core_v1.Taint(key="cni", effect="NoExecute")]
    if reason == "ResourceNotRegistered":
        claim.spec.resources.requests = {"example.com/gpu": "1", "cpu": "1"}
    assert uninitialized(claim, there) == (reason, message)


def info(name: str, owner: str = "ReplicaSet", **rest: Any) -> PodInfo:
    made = pod(name, {"cpu": "1"}, **rest)
    assert made.metadata is not None
    made.metadata.ownerReferences = [
        meta_v1.OwnerReference(apiVersion="apps/v1", kind=owner, name="o", uid="o", controller=True)
    ]
    return PodInfo(made)


def test_pods_leave_in_order() -> None:
    critical = "system-cluster-critical"
    pods = [
        info("last", "DaemonSet", priorityClassName=critical),
        info("third", priorityClassName=critical),
        info("second", "DaemonSet"),
        info("first"),
    ]
    order = []
    while pods:
        (leaving,) = next_to_leave(pods)
        order.append(leaving.name)
        pods.remove(leaving)
    assert order == ["first", "second", "third", "last"]


def test_what_a_drain_does_not_wait_for() -> None:
    stays = [tolerate(names.DISRUPTED, "Exists")]
    ended = core_v1.PodStatus(phase="Succeeded")
    assert drainable(info("a"))
    assert not any(
        drainable(each) for each in (info("b", "Node"), info("c", tolerations=stays), info("d", status=ended))
    )


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [("30s", 30.0), ("1h30m", 5400.0), ("0s", 0.0), ("Never", None), (None, None), ("soon", None), ("500ms", 0.5)],
)
def test_durations(text: str | None, found: float | None) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["99999999999h", "9" * 400 + "h"])
def test_an_absurd_duration_still_ends_at_some_instant(text: str) -> None:
    """The API server's pattern lets it in; a claim with it must come to its end."""
    found = seconds(text)
    assert found is not None and found > 100 * 365 * 86400
    assert VirtualClock().deadline(found).year > 2100


def test_amounts_in_words() -> None:
    told = listed({"memory": 128 << 20, "cpu": 1500, "pods": 2, "ephemeral-storage": 1 << 30})
    assert told == '{"cpu":"1500m","ephemeral-storage":"1Gi","memory":"128Mi","pods":"2"}'


def test_limits_in_words() -> None:
    """None used, and nothing allowed, is told too."""
    assert limits_told({"cpu": 0, "nodes": 1}, {"cpu": 16000, "nodes": 0}) == "cpu 0 of 16, nodes 1 of 0"


def test_labels_that_a_kubelet_may_not_set_wait_for_registration() -> None:
    labels = {"team": "a", "x.io/y": "z", "kubernetes.io/arch": "amd64", "node-restriction.kubernetes.io/p": "q"}
    assert kubelet_labels({**labels, names.INITIALIZED: "true"}) == {"team": "a", "x.io/y": "z"}


def test_the_kinds_are_upstreams() -> None:
    found = {each["metadata"]["name"]: each["spec"] for each in definitions()}
    assert set(found) == {"nodepools.karpenter.sh", "nodeclaims.karpenter.sh", "nanokubenodeclasses.cloud.nanokube.io"}
    for spec in found.values():
        assert spec["scope"] == "Cluster" and spec["names"]["categories"] == ["karpenter"]
        assert [(each["name"], each["storage"]) for each in spec["versions"]] == [("v1", True)]
