"""Node health, taints, zones, taint eviction, pod garbage, address ranges: the plans around nodes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import coordination_v1, core_v1
from controller_manager.environment import Options
from controller_manager.node_ipam import plan_range
from controller_manager.node_lifecycle import taints
from controller_manager.node_lifecycle.health import HealthRecords
from controller_manager.node_lifecycle.zones import EvictionLimiter, ZoneState, plan_rates, zone_of, zone_state
from controller_manager.node_ttl import STEPS, plan_step
from controller_manager.pod_gc import plan_garbage
from controller_manager.taint_eviction import plan_eviction, taint_age, tolerates
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import START, at, node, pod


def lease(renewed: float) -> coordination_v1.Lease:
    return coordination_v1.Lease(spec=coordination_v1.LeaseSpec(renewTime=at(renewed)))


class Records:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.records = HealthRecords(self.clock, grace=50, startup_grace=60)


async def test_a_silent_node_becomes_unknown_after_the_grace_period() -> None:
    rig = Records()
    assert rig.records.judge(node("a"), None) == ("True", "True", [])
    await rig.clock.advance(50)
    assert rig.records.judge(node("a"), None).after == "True"
    await rig.clock.advance(1)
    verdict = rig.records.judge(node("a", conditions={"MemoryPressure": "False"}), None)
    assert (verdict.before, verdict.after) == ("True", "Unknown")
    changes = {each["type"]: (each["status"], each["reason"]) for each in verdict.changes}
    assert changes == {
        "Ready": ("Unknown", "NodeStatusUnknown"),
        "MemoryPressure": ("Unknown", "NodeStatusUnknown"),
        "DiskPressure": ("Unknown", "NodeStatusNeverUpdated"),
        "PIDPressure": ("Unknown", "NodeStatusNeverUpdated"),
    }
    messages = {each["message"] for each in verdict.changes}
    assert messages == {"Kubelet stopped posting node status.", "Kubelet never posted node status."}


@pytest.mark.parametrize(
    ("later", "renewal"),
    [
        pytest.param(node("a", heartbeat=40), None, id="a new heartbeat"),
        pytest.param(node("a"), lease(40), id="a renewed lease"),
    ],
)
async def test_any_sign_of_life_restarts_the_grace_period(
    later: core_v1.Node, renewal: coordination_v1.Lease | None
) -> None:
    rig = Records()
    rig.records.judge(node("a"), None)
    await rig.clock.advance(40)
    rig.records.judge(later, renewal)
    await rig.clock.advance(40)
    assert rig.records.judge(later, renewal).after == "True"
    await rig.clock.advance(11)
    assert rig.records.judge(later, renewal).after == "Unknown"


async def test_a_node_that_never_posted_has_the_startup_grace() -> None:
    rig = Records()
    fresh = node("a", ready=None)
    assert rig.records.judge(fresh, None) == ("Unknown", "Unknown", [])
    await rig.clock.advance(60)
    assert rig.records.judge(fresh, None).changes == []
    await rig.clock.advance(1)
    assert {each["reason"] for each in rig.records.judge(fresh, None).changes} == {"NodeStatusNeverUpdated"}


async def test_a_node_clock_in_the_past_does_no_harm() -> None:
    rig = Records()
    rig.records.judge(node("a", heartbeat=-(10**6)), lease(-(10**6)))
    await rig.clock.advance(49)
    assert rig.records.judge(node("a", heartbeat=-(10**6)), lease(-(10**6))).after == "True"


async def test_restart_grace_and_keep_only() -> None:
    rig = Records()
    rig.records.judge(node("a"), None)
    await rig.clock.advance(60)
    rig.records.restart_grace()
    assert rig.records.judge(node("a"), None).after == "True"
    await rig.clock.advance(60)
    rig.records.keep_only(set())
    assert rig.records.judge(node("a"), None).after == "True", "forgotten, so seen for the first time"


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param(node("a"), set(), id="fine"),
        pytest.param(node("a", "False"), {taints.NOT_READY}, id="not ready"),
        pytest.param(node("a", "Unknown"), {taints.UNREACHABLE}, id="unreachable"),
        pytest.param(
            node("a", conditions={"MemoryPressure": "True", "DiskPressure": "True", "PIDPressure": "True"}),
            {
                "node.kubernetes.io/memory-pressure",
                "node.kubernetes.io/disk-pressure",
                "node.kubernetes.io/pid-pressure",
            },
            id="pressures",
        ),
        pytest.param(
            node("a", conditions={"NetworkUnavailable": "True"}), {"node.kubernetes.io/network-unavailable"}, id="net"
        ),
        pytest.param(node("a", unschedulable=True), {taints.UNSCHEDULABLE}, id="cordoned"),
        pytest.param(node("a", ready=None), set(), id="says nothing yet"),
    ],
)
def test_no_schedule_keys(subject: core_v1.Node, expected: set[str]) -> None:
    assert taints.no_schedule_keys(subject) == expected


@pytest.mark.parametrize(
    ("present", "no_schedule", "no_execute", "expected"),
    [
        pytest.param([], set(), set(), None, id="nothing"),
        pytest.param([("x", "NoExecute")], set(), set(), None, id="others' taints are left"),
        pytest.param(
            [("x", "NoSchedule")],
            {taints.NOT_READY},
            set(),
            [("x", "NoSchedule"), (taints.NOT_READY, "NoSchedule")],
            id="added beside others'",
        ),
        pytest.param(
            [(taints.UNREACHABLE, "NoSchedule"), (taints.UNREACHABLE, "NoExecute")],
            {taints.NOT_READY},
            {taints.NOT_READY},
            [(taints.NOT_READY, "NoExecute"), (taints.NOT_READY, "NoSchedule")],
            id="swapped",
        ),
        pytest.param([(taints.UNREACHABLE, "NoExecute")], set(), set(), [], id="removed"),
        pytest.param([(taints.UNREACHABLE, "NoSchedule")], {taints.UNREACHABLE}, set(), None, id="already there"),
    ],
)
def test_plan_taints(
    present: list[tuple[str, str]],
    no_schedule: set[str],
    no_execute: set[str],
    expected: list[tuple[str, str]] | None,
) -> None:
    subject = node("a", taints=[core_v1.Taint(key=key, effect=effect) for key, effect in present])
    planned = taints.plan_taints(subject, START, no_schedule=no_schedule, no_execute=no_execute)
    assert (None if planned is None else [(each["key"], each["effect"]) for each in planned]) == expected


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        pytest.param([], ZoneState.NORMAL, id="empty"),
        pytest.param([True] * 5, ZoneState.NORMAL, id="all ready"),
        pytest.param([False], ZoneState.FULL, id="the only one"),
        pytest.param([False, False, True], ZoneState.NORMAL, id="two of three: too few to call it a disruption"),
        pytest.param([False] * 3 + [True] * 2, ZoneState.PARTIAL, id="three of five"),
        pytest.param([False] * 5 + [True] * 5, ZoneState.NORMAL, id="half is below 0.55"),
        pytest.param([False] * 4, ZoneState.FULL, id="all"),
    ],
)
def test_zone_state(ready: list[bool], expected: ZoneState) -> None:
    assert zone_state(ready, 0.55) is expected


@pytest.mark.parametrize(
    ("states", "sizes", "expected"),
    [
        pytest.param({"a": ZoneState.NORMAL}, {"a": 3}, {"a": 0.1}, id="normal"),
        pytest.param({"a": ZoneState.FULL}, {"a": 3}, {"a": 0.0}, id="the whole cluster"),
        pytest.param(
            {"a": ZoneState.FULL, "b": ZoneState.NORMAL}, {"a": 3, "b": 3}, {"a": 0.1, "b": 0.1}, id="one of two zones"
        ),
        pytest.param(
            {"a": ZoneState.PARTIAL, "b": ZoneState.PARTIAL},
            {"a": 50, "b": 51},
            {"a": 0.0, "b": 0.01},
            id="partial: small stops, large slows",
        ),
    ],
)
def test_plan_rates(states: dict[str, ZoneState], sizes: dict[str, int], expected: dict[str, float]) -> None:
    assert plan_rates(states, sizes, Options()) == expected


async def test_the_limiter_lets_one_go_at_once_and_then_one_in_ten_seconds() -> None:
    clock = VirtualClock()
    limiter = EvictionLimiter(clock)
    limiter.set_rates({"a": 0.1})
    assert limiter.try_take("a")
    assert not limiter.try_take("a")
    await clock.advance(9.9)
    assert not limiter.try_take("a")
    await clock.advance(0.2)
    assert limiter.try_take("a")
    limiter.set_rates({"a": 0.0})
    await clock.advance(1000)
    assert not limiter.try_take("a")
    assert not limiter.try_take("unknown")


def test_zone_of() -> None:
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
    assert zone_of(node("a", labels=labels)) == "r/z"
    assert zone_of(node("a")) == ""


def taint(key: str = "k", value: str | None = None, effect: str = "NoExecute") -> core_v1.Taint:
    return core_v1.Taint(key=key, value=value, effect=effect)


def toleration(**fields: str | int) -> core_v1.Toleration:
    return core_v1.Toleration(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tolerated", "by", "expected"),
    [
        pytest.param(taint(), toleration(operator="Exists"), True, id="everything"),
        pytest.param(taint(), toleration(key="k", operator="Exists"), True, id="key exists"),
        pytest.param(taint(), toleration(key="other", operator="Exists"), False, id="other key"),
        pytest.param(taint(value="v"), toleration(key="k", value="v"), True, id="equal by default"),
        pytest.param(taint(value="v"), toleration(key="k", value="w"), False, id="other value"),
        pytest.param(taint(), toleration(key="k", operator="Exists", effect="NoSchedule"), False, id="other effect"),
        pytest.param(taint(), toleration(key="k", operator="Exists", effect="NoExecute"), True, id="same effect"),
    ],
)
def test_tolerates(tolerated: core_v1.Taint, by: core_v1.Toleration, expected: bool) -> None:
    assert tolerates(by, tolerated) is expected


@pytest.mark.parametrize(
    ("taints_", "tolerations", "expected"),
    [
        pytest.param([], [], None, id="no taint"),
        pytest.param([taint()], [], 0.0, id="not tolerated"),
        pytest.param([taint()], [toleration(key="k", operator="Exists")], None, id="for ever"),
        pytest.param([taint()], [toleration(key="k", operator="Exists", tolerationSeconds=300)], 300.0, id="a while"),
        pytest.param(
            [taint()],
            [
                toleration(key="k", operator="Exists", tolerationSeconds=300),
                toleration(operator="Exists", tolerationSeconds=20),
            ],
            20.0,
            id="the shortest",
        ),
        pytest.param(
            [taint(), taint("l")], [toleration(key="k", operator="Exists", tolerationSeconds=300)], 0.0, id="one is not"
        ),
        pytest.param([taint()], [toleration(operator="Exists", tolerationSeconds=-5)], 0.0, id="negative is zero"),
    ],
)
def test_plan_eviction(
    taints_: list[core_v1.Taint], tolerations: list[core_v1.Toleration], expected: float | None
) -> None:
    assert plan_eviction(taints_, tolerations) == expected


async def test_a_taints_age_counts_only_when_it_is_old() -> None:
    clock = VirtualClock()
    added = core_v1.Taint(key="k", effect="NoExecute", timeAdded=at(0))
    await clock.advance(1)
    assert taint_age(added, clock) == 0.0, "whole seconds are too coarse to tell"
    await clock.advance(100)
    assert taint_age(added, clock) == 101.0
    assert taint_age(taint(), clock) == 0.0


def test_pods_that_the_kubelet_evicted_are_collected_first() -> None:
    evicted, failed = pod("evicted", phase="Failed", created=9), pod("failed", phase="Failed", created=1)
    assert evicted.status
    evicted.status.reason = "Evicted"
    pods = [pod("done", phase="Succeeded", created=0), failed, evicted]
    assert plan_garbage(pods, {}, [], threshold=2).finished == [evicted]
    assert plan_garbage(pods, {}, [], threshold=1).finished == [evicted, pods[0]]


def test_plan_garbage() -> None:
    out = core_v1.Taint(key=taints.OUT_OF_SERVICE, effect="NoExecute")
    nodes = {
        "n1": node("n1"),
        "dead": node("dead", "Unknown", taints=[out]),
        "sick": node("sick", "Unknown"),
    }
    pods = [
        pod("old", phase="Succeeded", created=1),
        pod("older", phase="Failed", created=0),
        pod("lost", node="gone"),
        pod("unsure", node="missing-lately"),
        pod("never-bound", node=None, deleted=True),
        pod("pending", node=None),
        pod("stuck", node="dead", deleted=True),
        pod("waiting", node="sick", deleted=True),
        pod("kept", node="dead"),
    ]
    garbage = plan_garbage(pods, nodes, ["gone"], threshold=1)
    names = [[each.metadata.name for each in group if each.metadata] for group in garbage]
    assert names == [["older"], ["lost"], ["never-bound"], ["stuck"]]
    assert plan_garbage(pods, nodes, [], threshold=0).finished == [], "0 switches the threshold off"


@given(st.lists(st.integers(0, 255), unique=True, max_size=256))
def test_ranges_never_overlap(taken: list[int]) -> None:
    cluster = ipaddress.ip_network("10.244.0.0/16")
    found = plan_range(cluster, 24, [f"10.244.{each}.0/24" for each in taken])
    free = sorted(set(range(256)) - set(taken))
    assert found == (f"10.244.{free[0]}.0/24" if free else None)


@pytest.mark.parametrize(
    ("before", "nodes", "after"),
    [
        pytest.param(0, 100, 0, id="a small cluster"),
        pytest.param(0, 101, 15, id="one node too many"),
        pytest.param(1, 90, 15, id="at the edge it stays as it is"),
        pytest.param(1, 89, 0, id="clearly small again"),
        pytest.param(0, 5000, 300, id="many nodes at once"),
        pytest.param(5, 3, 0, id="and all of them gone"),
        pytest.param(4, 10_001, 600, id="the largest"),
    ],
)
def test_how_long_secrets_may_be_kept(before: int, nodes: int, after: int) -> None:
    assert STEPS[plan_step(before, nodes)].seconds == after


def test_ranges_of_other_sizes_and_nonsense_are_respected() -> None:
    cluster = ipaddress.ip_network("10.244.0.0/16")
    assert plan_range(cluster, 24, ["10.244.0.0/23", "nonsense", "fd00::/64"]) == "10.244.2.0/24"
