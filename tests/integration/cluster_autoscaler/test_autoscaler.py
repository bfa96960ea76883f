"""The autoscaler against a real API server and a scripted cloud: up, down, and what it says of both."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from api.models import core_v1, meta_v1, policy_v1
from cluster_autoscaler.options import GroupOptions, Options
from machinery.errors import StatusError
from tests.harness.provider import FakeGroup
from tests.integration.cluster_autoscaler.conftest import Run
from tests.integration.cluster_autoscaler.site import Site, until

QUICK = Options(
    group=GroupOptions(unneeded_time=20.0, unready_time=40.0),
    delay_after_add=20.0,
    delay_after_failure=10.0,
    unremovable_recheck=10.0,
)
PASSES = 30.0  # cluster seconds: three passes


def raises(site: Site) -> list[tuple[str, int]]:
    return [(group, asked) for verb, group, asked in site.cloud.calls if verb == "increase"]


async def target(site: Site, group: str, wanted: int) -> None:
    async def is_there() -> bool:
        return site.cloud.groups[group].target == wanted

    await until(is_there)


async def test_a_shortage_is_answered_once_and_told(site: Run) -> None:
    async with site([FakeGroup("a", 0, 3)], QUICK) as there:
        await there.pod("p1")
        await there.pod("p2")
        await there.pod("p3")
        await target(there, "a", 2)  # a machine has 2 CPUs, each pod wants 1
        await there.told("TriggeredScaleUp", "pod triggered scale-up: [{a 0->2 (max: 3)}]", "p1")
        await there.told("ScaledUpGroup", "Scale-up: group a size set to 2 instead of 0 (max: 3)")
        await there.clock.sleep(PASSES)
        assert raises(there) == [("a", 2)]

        async def is_written() -> bool:
            group = (await there.status())["nodeGroups"][0]
            return bool(group["scaleUp"]["status"] == "InProgress")

        await until(is_written)
        document = await there.status()
        assert document["autoscalerStatus"] == "Running"
        assert document["clusterWide"]["health"]["status"] == "Healthy"
        health = document["nodeGroups"][0]["health"]
        assert (health["cloudProviderTarget"], health["minSize"], health["maxSize"]) == (2, 0, 3)
        assert health["nodeCounts"]["unregistered"] == 2


async def test_pods_that_no_group_helps_are_told_why(site: Run) -> None:
    full = FakeGroup("full", 0, 1)
    async with site([FakeGroup("a", 0, 3), full], QUICK) as there:
        there.cloud.add("full")
        await there.pod("huge", "16")
        await there.told(
            "NotTriggerScaleUp",
            "pod didn't trigger scale-up: 1 Insufficient cpu, 1 max node group size reached",
            "huge",
        )
        assert raises(there) == []
        found = there.autoscaler.explainer.scale_up("default", "huge")
        assert found is not None and [list(row.cells) for row in found.tables[0].rows] == [
            ["a", "Insufficient cpu"],
            ["full", "max node group size reached"],
        ]
        group = there.autoscaler.explainer.nodegroup("", "a")
        assert group is not None and "no waiting pod fits" in group.headline


async def test_a_cloud_that_refuses_is_left_alone_for_a_while(site: Run) -> None:
    async with site([FakeGroup("a", 0, 3)], QUICK) as there:
        there.cloud.errors["NodeGroupIncreaseSize"] = "quota exceeded"
        await there.pod("p1")
        await there.told("FailedToScaleUpGroup", "Scale-up failed for group a: quota exceeded")
        await there.told("NotTriggerScaleUp", "1 in backoff after failed scale-up", "p1")
        assert raises(there) == [("a", 1)]
        backoff = (await there.status())["nodeGroups"][0]["scaleUp"]
        assert backoff["status"] == "Backoff"
        assert backoff["backoffInfo"] == {"errorCode": "INTERNAL", "errorMessage": "quota exceeded"}


async def test_a_cloud_that_lies_does_not_drive_the_group_to_its_maximum(site: Run) -> None:
    """It accepts every raise and changes nothing."""
    async with site([FakeGroup("a", 0, 10)], QUICK) as there:
        there.cloud.delivers = there.cloud.moves_target = False
        await there.pod("p1")
        await there.told("TriggeredScaleUp", "a 0->1", "p1")
        await there.clock.sleep(PASSES * 3)
        assert raises(there) == [("a", 1)]


async def test_a_cloud_that_fails_changes_nothing(site: Run) -> None:
    async with site([FakeGroup("a", 0, 3)], QUICK) as there:
        await there.grow("a", 2)
        there.cloud.errors["NodeGroups"] = "down"
        await there.pod("p1", "16")

        async def is_halted() -> bool:
            return "down" in there.autoscaler.explainer.last.halted

        await until(is_halted)
        await there.clock.sleep(PASSES * 3)
        assert there.cloud.calls == []


@pytest.mark.parametrize("bounds", [(5, 1), (-1, 3)])
async def test_bounds_that_make_no_sense_are_not_acted_on(site: Run, bounds: tuple[int, int]) -> None:
    async with site([FakeGroup("a", *bounds), FakeGroup("b", 0, 3)], QUICK) as there:
        await there.pod("p1")
        await target(there, "b", 1)
        assert [group for group, _ in raises(there)] == ["b"]
        assert there.autoscaler.explainer.last.view.troubles["a"].endswith("make no sense")


async def test_empty_nodes_go_until_the_minimum(site: Run) -> None:
    async with site([FakeGroup("a", 1, 3)], QUICK) as there:
        names = await there.grow("a", 3)

        async def delete(name: str) -> None:
            await there.client.delete(core_v1.Node, name)

        deleted: list[str] = []
        there.cloud.on_deleted = lambda group, instance: deleted.append(instance.name)
        await until(lambda: marked(there, names, 3))
        await target(there, "a", 1)
        for name in list(deleted):
            await delete(name)
        await there.told("ScaleDownEmpty", "Scale-down: removing empty node")
        await there.clock.sleep(PASSES)
        assert there.cloud.groups["a"].target == 1
        (left,) = set(names) - set(deleted)
        found = there.autoscaler.explainer.node("", left)
        assert found is not None and found.headline == f"Node {left} stays: NodeGroupMinSizeReached."


async def marked(there: Site, names: list[str], least: int) -> bool:
    """Soft taints of candidates."""
    found = [await there.taints(name) for name in names]
    return sum("DeletionCandidateOfClusterAutoscaler" in each for each in found) >= least


async def test_pods_are_evicted_before_their_node_goes(site: Run) -> None:
    async with site([FakeGroup("a", 0, 3)], QUICK) as there:
        there.cloud.errors["NodeGroups"] = "not yet"  # nothing is decided while the scene is set
        one, two = await there.grow("a", 2)
        await there.pod("busy", "1500m", node=one)
        await there.pod("idle", "100m", node=two)
        there.cloud.errors.clear()

        async def is_gone() -> bool:
            await there.finish_terminating()
            return there.cloud.groups["a"].target == 1

        await until(is_gone)
        assert ("delete", "a", [two]) in there.cloud.calls
        assert "ToBeDeletedByClusterAutoscaler" in await there.taints(two)
        await there.told("ScaleDown", "deleting pod for node scale down", "idle")
        await there.told("ScaleDown", f'Scale-down: removing node "{two}", utilization: 0.05')
        found = there.autoscaler.explainer.node("", one)
        assert found is not None and "NotUnderutilized" in found.headline


async def test_a_drain_that_fails_leaves_the_node_as_it_was(site: Run) -> None:
    options = Options(group=QUICK.group, delay_after_add=20.0, max_pod_eviction_time=20.0, delay_after_failure=3000.0)
    async with site([FakeGroup("a", 0, 3)], options) as there:
        there.cloud.errors["NodeGroups"] = "not yet"  # nothing is decided while the scene is set
        one, two = await there.grow("a", 2)
        await there.pod("busy", "1500m", node=one)
        await there.pod("stays", "100m", node=two, terminationGracePeriodSeconds=0)
        await there.client.patch(core_v1.Pod, "stays", {"metadata": {"finalizers": ["test/hold"]}}, "default")
        there.cloud.errors.clear()
        await there.told("ScaleDownFailed", "pods are still there", two)

        async def is_clean() -> bool:
            return "ToBeDeletedByClusterAutoscaler" not in await there.taints(two)

        await until(is_clean)
        assert there.cloud.groups["a"].target == 2


async def test_a_process_killed_in_the_middle_of_a_drain_leaves_work_that_the_next_one_ends(site: Run) -> None:
    async with site([FakeGroup("a", 0, 3)], QUICK) as there:
        there.cloud.errors["NodeGroups"] = "not yet"  # nothing is decided while the scene is set
        one, two = await there.grow("a", 2)
        await there.pod("busy", "1500m", node=one)
        await there.pod("slow", "100m", node=two, terminationGracePeriodSeconds=30)
        there.cloud.errors.clear()
        await there.told("ScaleDown", "deleting pod for node scale down", "slow")
        await there.kill()
        assert "ToBeDeletedByClusterAutoscaler" in await there.taints(two)
        there.cloud.errors["NodeGroups"] = "not yet"
        await there.start()

        async def is_clean() -> bool:
            return "ToBeDeletedByClusterAutoscaler" not in await there.taints(two)

        await until(
            is_clean
        )  # whoever takes over knows nothing of the drain: the node serves again, until it is decided anew
        assert [call for call in there.cloud.calls if call[0] == "delete"] == []
        await there.finish_terminating()
        there.cloud.errors.clear()
        await target(there, "a", 1)
        assert [call for call in there.cloud.calls if call[0] == "delete"] == [("delete", "a", [two])]
        assert await there.taints(one) == []


@pytest.mark.parametrize(
    ("annotation", "options", "evicted"),
    [
        pytest.param(None, QUICK, False, id="empty-node"),
        pytest.param("true", QUICK, True, id="asked-for"),
        pytest.param(None, replace(QUICK, daemonset_eviction_empty=True), True, id="by-flag"),
        pytest.param("false", replace(QUICK, daemonset_eviction_empty=True), False, id="refused"),
    ],
)
async def test_whether_pods_of_daemon_sets_are_evicted(
    site: Run, annotation: str | None, options: Options, evicted: bool
) -> None:
    async with site([FakeGroup("a", 0, 3)], options) as there:
        there.cloud.errors["NodeGroups"] = "not yet"  # nothing is decided while the scene is set
        one, two = await there.grow("a", 2)
        await there.pod("busy", "1500m", node=one)
        notes = {"cluster-autoscaler.kubernetes.io/enable-ds-eviction": annotation} if annotation else None
        await there.pod("agent", "100m", node=two, owner="agent", kind="DaemonSet", annotations=notes)
        there.cloud.errors.clear()
        await target(there, "a", 1)
        assert bool(await there.events("ScaleDown", "agent")) is evicted


async def budget(there: Site, name: str) -> None:
    labels = {"app": "web"}
    await there.client.create(
        policy_v1.PodDisruptionBudget(
            metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
            spec=policy_v1.PodDisruptionBudgetSpec(minAvailable=1, selector=meta_v1.LabelSelector(matchLabels=labels)),
        )
    )


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        pytest.param({"owner": ""}, "NotReplicated", id="bare"),
        pytest.param(
            {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
            "NotSafeToEvictAnnotation",
            id="annotated",
        ),
        pytest.param(
            {"volumes": [core_v1.Volume(name="v", emptyDir=core_v1.EmptyDirVolumeSource())]},
            "LocalStorageRequested",
            id="emptyDir",
        ),
        pytest.param({"budget": True}, "NotEnoughPdb", id="budget"),
    ],
)
async def test_some_pods_hold_their_node(site: Run, pod: dict[str, Any], why: str) -> None:
    async with site([FakeGroup("a", 0, 3)], QUICK) as there:
        there.cloud.errors["NodeGroups"] = "not yet"  # nothing is decided while the scene is set
        one, two = await there.grow("a", 2)
        await there.pod("busy", "1500m", node=one, owner="busy")
        rest = dict(pod)
        if rest.pop("budget", False):
            await budget(there, "b")
        await there.pod("idle", "100m", node=two, **rest)
        there.cloud.errors.clear()

        async def is_held() -> bool:
            found = there.autoscaler.explainer.node("", two)
            return found is not None and any(why in each.value for each in found.facts)

        await until(is_held)
        await there.clock.sleep(PASSES)
        assert there.cloud.calls == []


async def test_marks_of_an_earlier_process_are_cleaned(site: Run) -> None:
    async with site([FakeGroup("a", 2, 3)], QUICK) as there:
        (one,) = await there.grow("a")
        assert await there.taints(one) == []
        taint = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
        await there.client.patch(core_v1.Node, one, {"spec": {"taints": [taint]}})
        await there.autoscaler._taints.clean([await there.node(one)])
        assert "ToBeDeletedByClusterAutoscaler" not in await there.taints(one)


async def test_machines_that_never_come_are_given_back(site: Run) -> None:
    options = Options(group=GroupOptions(max_node_provision_time=60.0))
    async with site([FakeGroup("a", 0, 3)], options) as there:
        await there.pod("p1")
        await target(there, "a", 1)
        await there.told("ScaleUpTimedOut", "Scale-up timed out for node group a")
        await target(there, "a", 0)
        assert ("delete", "a", ["fake://a-1"]) in there.cloud.calls
        await there.told("NotTriggerScaleUp", "1 in backoff after failed scale-up", "p1")


async def test_too_many_unready_nodes_stop_everything(site: Run) -> None:
    async with site([FakeGroup("a", 0, 9)], QUICK) as there:
        for instance in there.cloud.add("a", 5):
            await there.join(there.cloud.groups["a"], instance, ready=False)
        # Fresh nodes are starting; these count as broken once they are no longer fresh.
        there.autoscaler.registry._options = Options(group=GroupOptions())
        for view in (there.autoscaler._reader,):
            view._defaults = GroupOptions(max_node_startup_time=0.0)

        async def is_told() -> bool:
            try:
                return bool((await there.status())["clusterWide"]["health"]["status"] == "Unhealthy")
            except StatusError:
                return False

        await until(is_told)
        before = list(there.cloud.calls)
        await there.pod("p1")
        await asyncio.sleep(0.5)
        assert there.cloud.calls == before
