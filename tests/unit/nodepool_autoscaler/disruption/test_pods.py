import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import core_v1, meta_v1, policy_v1
from nodepool_autoscaler.disruption.blocking import PodBudget, blocking, held_by
from nodepool_autoscaler.disruption.cost import DELETION_COST, disruption_cost, eviction_cost, lifetime_remaining
from nodepool_autoscaler.disruption.pods import duration, reschedulable
from nodepool_autoscaler.names import DO_NOT_DISRUPT
from scheduler.framework.pod_info import PodInfo
from tests.unit.scheduler.objects import pod, tolerate

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def elapsed(since: datetime) -> float:
    return (NOW - since).total_seconds()


def made(
    name: str = "web",
    *,
    owner: str = "ReplicaSet",
    notes: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    phase: str = "Running",
    terminating: bool = False,
    ready: bool = True,
    age: float | None = 60.0,
    **spec: Any,
) -> PodInfo:
    condition = core_v1.PodCondition(type="Ready", status="True" if ready else "False")
    started = None if age is None else NOW - timedelta(seconds=age)
    status = core_v1.PodStatus(phase=phase, conditions=[condition], startTime=started)
    found = pod(name, {"cpu": "1"}, labels=labels or {"app": "web"}, status=status, **spec)
    assert found.metadata is not None
    found.metadata.annotations = notes
    found.metadata.deletionTimestamp = NOW if terminating else None
    if owner:
        found.metadata.ownerReferences = [
            meta_v1.OwnerReference(apiVersion="v1", kind=owner, name="o", uid="u", controller=True)
        ]
    return PodInfo(found)


def pdb(name: str = "web", allowed: int = 0, **spec: Any) -> PodBudget:
    return PodBudget.of(
        policy_v1.PodDisruptionBudget(
            metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
            spec=policy_v1.PodDisruptionBudgetSpec(selector=meta_v1.LabelSelector(matchLabels={"app": "web"}), **spec),
            status=policy_v1.PodDisruptionBudgetStatus(
                currentHealthy=1, desiredHealthy=1, disruptionsAllowed=allowed, expectedPods=1
            ),
        )
    )


PROTECTED = f'pod has "{DO_NOT_DISRUPT}" annotation (Pod=default/web)'
HELD = "pdb prevents pod evictions (PodDisruptionBudget=[default/web])"


@pytest.mark.parametrize(
    ("found", "budgets", "expected"),
    [
        pytest.param(made(), [], "", id="ordinary"),
        pytest.param(made(owner=""), [], "", id="no-controller-is-no-hindrance"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "true"}), [], PROTECTED, id="do-not-disrupt"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "false"}), [], "", id="not-protected"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "5m"}, age=299), [], PROTECTED, id="protected-for-a-while"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "5m"}, age=301), [], "", id="protection-is-over"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "5m"}, age=None), [], PROTECTED, id="start-unknown"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "-5m"}), [], "", id="unreadable-is-as-none"),
        pytest.param(made(owner="DaemonSet", notes={DO_NOT_DISRUPT: "true"}), [], PROTECTED, id="daemons-protect-too"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "true"}, terminating=True), [], "", id="terminating-is-not-protected"),
        pytest.param(made(notes={DO_NOT_DISRUPT: "true"}, phase="Succeeded"), [], "", id="ended-is-not-protected"),
        pytest.param(made(), [pdb()], HELD, id="budget"),
        pytest.param(made(), [pdb(allowed=1)], "", id="budget-with-room"),
        pytest.param(made(labels={"app": "db"}), [pdb()], "", id="budget-of-others"),
        pytest.param(made(ready=False), [pdb()], HELD, id="unready-is-held"),
        pytest.param(
            made(ready=False), [pdb(unhealthyPodEvictionPolicy="AlwaysAllow")], "", id="unready-may-always-go"
        ),
        pytest.param(made(terminating=True), [pdb()], "", id="terminating-is-not-held"),
        pytest.param(
            made(tolerations=[tolerate("karpenter.sh/disrupted", "Exists")]), [pdb()], "", id="is-not-evicted-at-all"
        ),
        pytest.param(made(owner="Node"), [pdb()], "", id="static"),
        pytest.param(
            made(),
            [pdb(allowed=1), pdb("other", 1)],
            "eviction does not support multiple PDBs (PodDisruptionBudget(s)=[default/web default/other])",
            id="two-budgets",
        ),
    ],
)
def test_what_holds_a_node(found: PodInfo, budgets: list[PodBudget], expected: str) -> None:
    assert blocking([found], budgets, elapsed) == expected


@pytest.mark.parametrize(
    ("spec", "forever"),
    [
        pytest.param({"maxUnavailable": 0}, True, id="max-0"),
        pytest.param({"maxUnavailable": "0%"}, True, id="max-0-percent"),
        pytest.param({"minAvailable": "100%"}, True, id="min-100-percent"),
        pytest.param({"minAvailable": 1}, False, id="min-1"),
        pytest.param({"maxUnavailable": 1}, False, id="max-1"),
    ],
)
def test_budgets_that_will_never_allow_anything(spec: dict[str, Any], forever: bool) -> None:
    assert held_by(made(), [pdb(**spec)], elapsed, forever=True) == (["default/web"] if forever else [])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(made(), True, id="ordinary"),
        pytest.param(made(owner=""), True, id="bare"),
        pytest.param(made(owner="DaemonSet"), False, id="daemon"),
        pytest.param(made(owner="Node"), False, id="static"),
        pytest.param(made(phase="Failed"), False, id="ended"),
        pytest.param(made(terminating=True), False, id="terminating"),
        pytest.param(made(owner="StatefulSet", terminating=True), True, id="stateful-successor"),
    ],
)
def test_who_needs_room_elsewhere(found: PodInfo, expected: bool) -> None:
    assert reschedulable(found) is expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("0s", None),
        ("", None),
        ("5", None),
        ("m", None),
        ("true", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == seconds


@given(st.text(max_size=8))
def test_any_text_is_a_duration_or_not(text: str) -> None:
    found = duration(text)
    assert found is None or (found > 0 and math.isfinite(found))


@pytest.mark.parametrize(
    ("notes", "priority", "expected"),
    [
        pytest.param(None, 0, 1.0, id="ordinary"),
        pytest.param({DELETION_COST: str(2**31 - 1)}, 0, pytest.approx(10.0), id="clamped-above"),
        pytest.param({DELETION_COST: str(2**27)}, 0, 2.0, id="weighs-one-pod"),
        pytest.param({DELETION_COST: str(-(2**31) + 1)}, 0, -10.0, id="clamped-below"),
        pytest.param({DELETION_COST: "dear"}, 0, 1.0, id="unreadable"),
        pytest.param({DELETION_COST: "nan"}, 0, 1.0, id="no-number"),
        pytest.param(None, 2**25, 2.0, id="priority"),
        pytest.param(None, 10**9, 10.0, id="critical"),
    ],
)
def test_cost_of_an_eviction(notes: dict[str, str] | None, priority: int, expected: float) -> None:
    assert eviction_cost(made(notes=notes, priority=priority)) == expected


def test_fewer_pods_and_nodes_about_to_expire_go_first() -> None:
    costs: Callable[..., float] = disruption_cost
    assert costs([made()], 0.0, None) < costs([made("a"), made("b")], 0.0, None)
    assert costs([made()], 90.0, 100.0) < costs([made()], 10.0, 100.0)
    assert lifetime_remaining(200.0, 100.0) == 0.0 and lifetime_remaining(5.0, 0.0) == 0.0
