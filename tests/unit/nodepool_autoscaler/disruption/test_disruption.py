"""Disruption as a whole, on virtual time."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from machinery.errors import Conflict, ServiceUnavailable
from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.controller import Options
from nodepool_autoscaler.model import Budget
from tests.unit.nodepool_autoscaler.disruption.town import Town, Work, pool
from tests.unit.nodepool_autoscaler.scene import demand, offering, offerings

LARGE = offering(8, 32)
SMALL = offering(2, 4)
SPOT = demand(names.CAPACITY_TYPE, "In", names.SPOT)


async def test_empty_nodes_go_together() -> None:
    async with Town() as town:
        for _ in range(3):
            town.add(SMALL)
        await town.wait(40)
        assert town.nodes == []
        assert sorted(set(town.reasons("DisruptionTerminating"))) == [
            "Disrupting Node: Empty",
            "Disrupting NodeClaim: Empty",
        ]
        assert len({at for at, _, _ in town.ended}) == 1


async def test_a_node_is_given_time_after_its_last_pod() -> None:
    async with Town(pool(consolidate_after=300.0)) as town:
        town.add(SMALL)
        town.work["web"] = Work(1)
        await town.wait(1000)
        assert len(town.nodes) == 1
        town.work["web"].replicas = 0
        await town.wait(290)
        assert len(town.nodes) == 1
        await town.wait(60)
        assert town.nodes == []


async def test_never_means_never() -> None:
    async with Town(pool(consolidate_after=None)) as town:
        town.add(SMALL)
        await town.wait(1800)
        assert len(town.nodes) == 1
        assert 'NodePool "default" has consolidation disabled' in town.reasons("Unconsolidatable")


async def test_pods_of_two_halves_end_on_one() -> None:
    async with Town() as town:
        town.add(offering(4, 8))
        town.add(offering(4, 8))
        town.work["web"] = Work(4, cpu="900m")
        await town.wait(300)
        assert town.types == ["m-4x8"] and len(town.running()) == 4


async def test_a_node_too_large_is_replaced_by_the_cheapest_that_fits() -> None:
    async with Town() as town:
        town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        await town.wait(300)
        assert town.types == ["m-2x4"] and len(town.running()) == 1
        assert "Launching NodeClaim: Underutilized" in town.reasons("DisruptionLaunching")
        assert "Waiting on readiness to continue disruption" in town.reasons("DisruptionWaitingReadiness")
        assert town.disruption.metrics[
            'voluntary_disruption_decisions_total{decision="replace",reason="underutilized",consolidation_type="single"}'
        ]


async def test_the_old_node_stays_until_the_new_one_is_initialized() -> None:
    async with Town() as town:
        town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        town.boots = False
        await town.wait(120)
        assert town.types == ["m-2x4", "m-8x32"] and len(town.running()) == 1 and not town.ended
        town.boots = True
        await town.wait(120)
        assert town.types == ["m-2x4"] and len(town.running()) == 1


async def test_many_go_at_once_into_one() -> None:
    async with Town(offers=offerings(((2, 4), (8, 32)), zones=("a",))) as town:
        for _ in range(6):
            town.add(offering(2, 4))
        town.work["web"] = Work(6, cpu="1", memory="3Gi")
        await town.wait(2)
        await town.wait(600)
        assert len(town.running()) == 6
        assert town.price < 6 * SMALL.price


async def test_a_pool_may_ask_for_empty_nodes_only() -> None:
    async with Town(pool(consolidation_policy="WhenEmpty")) as town:
        town.add(LARGE)
        town.work["web"] = Work(1)
        await town.wait(600)
        assert town.types == ["m-8x32"]
        assert 'NodePool "default" has non-empty consolidation disabled' in town.reasons("Unconsolidatable")
        town.work["web"].replicas = 0
        await town.wait(120)
        assert town.nodes == []


@pytest.mark.parametrize(
    ("work", "told"),
    [
        pytest.param(
            Work(1, notes={names.DO_NOT_DISRUPT: "true"}),
            'Pod has "karpenter.sh/do-not-disrupt" annotation (Pod=default/web-1)',
            id="do-not-disrupt",
        ),
        pytest.param(Work(1, least=1), "Pdb prevents pod evictions (PodDisruptionBudget=[default/web])", id="budget"),
    ],
)
async def test_pods_can_hold_their_node(work: Work, told: str) -> None:
    async with Town() as town:
        town.add(LARGE)
        town.work["web"] = work
        await town.wait(1200)
        assert town.types == ["m-8x32"]
        assert told in town.reasons("DisruptionBlocked")
        assert town.reasons("DisruptionBlocked").count(told) <= 2 * 11  # told to both, at most each two minutes


async def test_protection_for_a_while_ends() -> None:
    async with Town() as town:
        town.add(LARGE)
        town.work["web"] = Work(1, notes={names.DO_NOT_DISRUPT: "10m"})
        await town.wait(3)
        (pod,) = town.running()
        from api.models import core_v1

        pod.pod.status = core_v1.PodStatus(startTime=town.clock.now())
        await town.wait(590)
        assert town.types == ["m-8x32"]
        await town.wait(200)
        assert town.types != ["m-8x32"]


async def test_a_budget_bounds_what_goes_at_once_and_nothing_is_forgotten() -> None:
    async with Town(pool(budgets=(Budget("2"),))) as town:
        for _ in range(7):
            town.add(SMALL)
        await town.wait(30)
        assert len(town.nodes) == 5
        await town.wait(300)
        assert town.nodes == []


async def test_a_budget_of_nothing_is_told() -> None:
    async with Town(pool(budgets=(Budget("0"),))) as town:
        town.add(SMALL)
        await town.wait(600)
        assert len(town.nodes) == 1
        message = "No allowed disruptions for disruption reason Empty due to blocking budget"
        assert 1 <= town.reasons("DisruptionBlocked").count(message) <= 11


async def test_a_window_without_disruption() -> None:
    night = Budget("0", schedule="0 0 * * *", duration=1800.0)
    async with Town(pool(budgets=(night, Budget("100%")))) as town:
        town.add(SMALL)
        await town.wait(1800 - 60)
        assert len(town.nodes) == 1
        await town.wait(180)
        assert town.nodes == []


async def test_drifted_nodes_are_replaced_one_after_the_other() -> None:
    async with Town(pool(hash="1", consolidate_after=None, budgets=(Budget("1"),))) as town:
        old = [town.add(SMALL) for _ in range(3)]
        town.work["web"] = Work(3, cpu="1500m", memory="3Gi")
        await town.wait(60)
        town.change_pool(hash="2")
        await town.wait(5)
        assert all(town.claim(name).is_true(names.DRIFTED) for name in old)  # type: ignore[union-attr]
        assert {town.claim(name).conditions[names.DRIFTED].reason for name in old} == {"NodePoolDrifted"}  # type: ignore[union-attr]
        await town.wait(900)
        assert not set(old) & set(town.nodes) and len(town.running()) == 3
        assert {reason for _, _, reason in town.ended} == {"Drifted"}


async def test_requirements_that_a_node_does_not_meet_any_more_are_drift() -> None:
    async with Town(pool(consolidate_after=None)) as town:
        name = town.add(LARGE)
        town.work["web"] = Work(1)
        await town.wait(10)
        town.change_pool(requirements=(demand(names.INSTANCE_TYPE, "In", "m-2x4"),))
        await town.wait(3)
        assert town.claim(name).conditions[names.DRIFTED].reason == "RequirementsDrifted"  # type: ignore[union-attr]
        town.change_pool(requirements=())
        await town.wait(600)
        assert names.DRIFTED not in town.claim(name).conditions or name not in town.nodes  # type: ignore[union-attr]


async def test_expiry_asks_for_no_budget() -> None:
    async with Town(pool(expire_after=4600.0, consolidate_after=None, budgets=(Budget("0"),))) as town:
        old = [town.add(SMALL, age=3600.0) for _ in range(2)]
        town.work["web"] = Work(2, cpu="1500m", memory="3Gi", notes={names.DO_NOT_DISRUPT: "true"})
        await town.wait(990)
        assert town.nodes == old
        await town.wait(100)
        assert not set(old) & set(town.nodes) and len(town.running()) == 2
        assert (
            town.disruption.metrics[
                'nodeclaims_disrupted_total{reason="expired",nodepool="default",capacity_type="on-demand"}'
            ]
            == 2
        )


async def test_an_interrupted_machine_is_drained_at_once() -> None:
    async with Town(pool(requirements=(SPOT,), consolidate_after=None)) as town:
        name = town.add(offering(2, 4, capacity_type=names.SPOT))
        town.work["web"] = Work(1)
        await town.wait(10)
        import msgspec

        from api.models import core_v1

        state = town.states[name]
        assert state.node is not None and state.node.spec is not None
        taint = core_v1.Taint(key="nanokube.io/spot-interruption", value="terminating", effect="NoSchedule")
        node = msgspec.structs.replace(state.node, spec=msgspec.structs.replace(state.node.spec, taints=[taint]))
        town.scene.snapshot.set_node(node)
        town.states[name] = replace(state, node=node)
        await town.wait(60)
        assert name not in town.nodes and len(town.running()) == 1
        assert "Spot interruption warning was triggered" in town.reasons("SpotInterrupted")


async def test_a_replacement_that_is_lost_leaves_the_node_as_it_was() -> None:
    async with Town() as town:
        name = town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        town.boots = False
        await town.wait(60)
        (replacement,) = set(town.nodes) - {name}
        town.scene.remove(replacement)
        await town.wait(5)
        state = town.states[name]
        assert state.claim is not None and not state.claim.is_true(names.DISRUPTION_REASON)
        assert state.node is not None and state.node.spec is not None and not state.node.spec.taints
        town.boots = True
        await town.wait(300)
        assert town.types == ["m-2x4"]


async def test_a_replacement_that_never_comes_is_given_up() -> None:
    async with Town() as town:
        name = town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        town.boots = False
        await town.wait(50)
        assert names.DISRUPTION_REASON in town.claim(name).conditions  # type: ignore[union-attr]
        await town.wait(610)
        assert not town.ended
        failures = [name for name in town.disruption.metrics if name.startswith("voluntary_disruption_queue_failures")]
        assert failures


async def test_launches_that_fail_change_nothing() -> None:
    async with Town() as town:
        name = town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        town.refuses_launches = True
        await town.wait(300)
        assert town.types == ["m-8x32"] and not town.ended
        assert town.disruption.queue.busy == {} and names.DISRUPTION_REASON not in town.claim(name).conditions  # type: ignore[union-attr]
        assert any("no launches today" in each.outcome for each in town.disruption.memory.tried)


async def test_marks_of_an_earlier_process_are_removed() -> None:
    async with Town(pool(consolidate_after=None)) as town:
        name = town.add(SMALL)
        town.work["web"] = Work(1)
        await town.mark(town.states[name], "Empty")
        await town.wait(15)
        state = town.states[name]
        assert state.node is not None and state.node.spec is not None and not state.node.spec.taints


async def test_pods_that_come_meanwhile_save_the_node() -> None:
    async with Town() as town:
        name = town.add(SMALL)
        await town.wait(5)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        await town.wait(600)
        assert town.nodes == [name]
        assert any(each.outcome.startswith("abandoned") for each in town.disruption.memory.tried)


GATE = "SpotToSpotConsolidation"
SPOT_TYPES = offerings(tuple((1, gib) for gib in range(1, 20)), zones=("a",), capacity_types=(names.SPOT,))


@pytest.mark.parametrize(
    ("gate", "offers", "told"),
    [
        pytest.param(
            False,
            SPOT_TYPES,
            "SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node",
            id="off",
        ),
        pytest.param(
            True,
            SPOT_TYPES[:14],
            f"{GATE} requires 15 cheaper instance type options than the current candidate to consolidate, got 14",
            id="too-few",
        ),
        pytest.param(True, SPOT_TYPES[:17], "", id="enough"),
    ],
)
async def test_spot_for_spot(gate: bool, offers: list[object], told: str) -> None:
    async with Town(pool(requirements=(SPOT,)), offers=offers, options=Options(spot_to_spot=gate)) as town:  # type: ignore[arg-type]
        town.add(SPOT_TYPES[18])
        town.work["web"] = Work(1, cpu="100m", memory="1Gi")
        await town.wait(300)
        if told:
            assert town.types == ["m-1x19"] and told in town.reasons("Unconsolidatable")
        else:
            assert town.types == ["m-1x1"]


async def test_what_is_remembered_of_a_node() -> None:
    async with Town() as town:
        name = town.add(SMALL)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        await town.wait(120)
        told = town.disruption.memory.node(name)
        assert told is not None and told.headline == f"Node {name} stays: Can't replace with a cheaper node."
        assert {fact.what: fact.value for fact in told.facts}["price"] == "$0.1000 per hour"
        budgets = town.disruption.memory.budgets_of("default")
        assert budgets is not None
        assert [list(row.cells) for row in budgets.rows] == [["Underutilized", "1", "1"]]


async def test_pods_that_were_there_before_do_not_make_a_node_busy_again() -> None:
    """As after a restart: caches tell of all pods as if they had just come."""
    async with Town(pool(consolidate_after=600.0)) as town:
        name = town.add(SMALL)
        await town.wait(500)
        town.disruption.upkeep.pod_event(name, town.clock.now() - timedelta(seconds=900))
        await town.wait(150)
        assert town.nodes == []


@pytest.mark.parametrize(("grace", "goes"), [(None, False), (300.0, True)])
async def test_drift_does_not_wait_for_pods_whose_drain_ends_anyway(grace: float | None, goes: bool) -> None:
    async with Town(pool(hash="1", consolidate_after=None)) as town:
        name = town.add(SMALL)
        town.work["web"] = Work(1, cpu="1500m", least=1)
        await town.wait(10)
        town.set_grace(name, grace)
        town.change_pool(hash="2")
        await town.wait(120)
        assert any(ended == name for _, ended, _ in town.ended) is goes
        if not goes:
            assert "Pdb prevents pod evictions (PodDisruptionBudget=[default/web])" in town.reasons("DisruptionBlocked")
        town.wrong.clear()  # what is asked here is just that


def unmarked(town: Town, name: str) -> bool:
    state = town.states[name]
    assert state.node is not None and state.node.spec is not None and state.claim is not None
    return not state.node.spec.taints and names.DISRUPTION_REASON not in state.claim.conditions


async def test_a_conflict_while_marking_is_no_failure() -> None:
    async with Town() as town:
        name = town.add(SMALL)
        town.fails[f"mark {name}"] = [Conflict("somebody was faster")] * 3
        await town.wait(60)
        assert town.nodes == []


async def test_a_node_that_cannot_be_marked_is_left_out_of_a_deletion() -> None:
    async with Town() as town:
        names_ = [town.add(SMALL) for _ in range(3)]
        town.fails[f"mark {names_[1]}"] = [ServiceUnavailable("not now")]
        await town.wait(22)
        assert town.nodes == [names_[1]] and names_[1] not in town.disruption.queue.busy
        await town.wait(60)
        assert town.nodes == []


async def test_a_node_that_cannot_be_marked_is_not_replaced() -> None:
    async with Town() as town:
        name = town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        town.fails[f"mark {name}"] = [ServiceUnavailable("not now")] * 50
        await town.wait(200)
        assert town.nodes == [name] and unmarked(town, name) and not town.disruption.queue.busy


async def test_a_deletion_is_tried_until_it_is_done() -> None:
    async with Town() as town:
        name = town.add(SMALL)
        town.fails[f"delete {name}"] = [ServiceUnavailable("not now")] * 8
        await town.wait(200)
        assert town.nodes == []


async def test_a_deletion_that_never_works_leaves_the_node_as_it_was() -> None:
    async with Town() as town:
        name = town.add(SMALL)
        town.fails[f"delete {name}"] = [ServiceUnavailable("not now")] * 10_000
        town.fails[f"unmark {name}"] = [ServiceUnavailable("not now")] * 3
        await town.wait(640)
        tried = town.disruption.memory.tried[0].outcome
        assert tried.startswith("failed: command reached timeout")
        assert town.nodes == [name]


async def test_a_process_that_ends_leaves_no_task_behind() -> None:
    async with Town() as town:
        town.add(LARGE)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        town.boots = False
        await town.wait(60)
        assert town.disruption.queue.busy
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_pool_that_is_gone_disrupts_nothing() -> None:
    async with Town(pool(), pool("other")) as town:
        town.add(SMALL, "other")
        town.scene.pools = town.scene.pools[:1]
        await town.wait(100)
        assert len(town.nodes) == 1
        assert "NodePool not found (NodePool=other)" in town.reasons("DisruptionBlocked")


async def test_a_node_of_a_type_that_the_cloud_has_no_more_may_only_go() -> None:
    async with Town() as town:
        name = town.add(LARGE)
        town.states[name] = replace(town.states[name], offering=None)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        await town.wait(10)
        assert town.claim(name).conditions[names.DRIFTED].reason == "InstanceTypeNotFound"  # type: ignore[union-attr]
        await town.wait(200)
        assert town.types == ["m-2x4"] and {reason for _, _, reason in town.ended} == {"Drifted"}


async def test_what_has_no_price_is_not_consolidated() -> None:
    async with Town(pool(consolidation_policy="WhenEmptyOrUnderutilized"), offers=()) as town:
        name = town.add(LARGE)
        town.states[name] = replace(town.states[name], offering=None)
        town.work["web"] = Work(1)
        await town.wait(60)
        assert 'Instance Type "m-8x32" not found' in town.reasons("Unconsolidatable")
        assert names.DRIFTED not in town.claim(name).conditions  # type: ignore[union-attr]
        assert town.nodes == [name]


async def test_series_are_published_as_they_appear() -> None:
    found: dict[str, Callable[[], float]] = {}
    async with Town() as town:
        town.disruption.metrics.expose(lambda name, read: found.__setitem__(name, read))
        assert found['karpenter_voluntary_disruption_consolidation_timeouts_total{consolidation_type="multi"}']() == 0
        town.add(SMALL)
        await town.wait(60)
        lost = 'karpenter_nodeclaims_disrupted_total{reason="empty",nodepool="default",capacity_type="on-demand"}'
        assert found[lost]() == 1


async def test_a_node_that_is_protected_while_others_are_checked_is_left_alone() -> None:
    """The checking of an empty node takes a while: what comes after it must not act on what was before."""
    async with Town(pool(hash="1", consolidate_after=None), pool("other", weight=1)) as town:
        drifted = town.add(SMALL)
        town.work["web"] = Work(1, cpu="1500m", memory="3Gi")
        await town.wait(5)
        empty = town.add(offering(1, 2), "other")
        town.change_pool(hash="2")
        await town.wait(8)  # by now the empty node is being checked, and the drifted one is known
        (pod,) = town.running()
        assert pod.pod.metadata is not None
        pod.pod.metadata.annotations = {names.DO_NOT_DISRUPT: "true"}
        town.fails[f"mark {empty}"] = [ServiceUnavailable("not now")] * 2
        await town.wait(300)
        assert drifted in town.nodes


async def test_no_other_reason_gets_around_a_budget_for_empty_nodes() -> None:
    async with Town(pool(budgets=(Budget("0", reasons=("Empty",)), Budget("100%")))) as town:
        for _ in range(3):
            town.add(SMALL)
        await town.wait(300)
        assert len(town.nodes) == 3
