"""What people read about a decision."""

import pytest

from api.models import autoscaling_v2
from controller_manager.horizontal.behavior import STEADY, UP_LIMIT, Verdict
from controller_manager.horizontal.controller import Decision
from controller_manager.horizontal.evaluation import Evaluation, Failure, Outcome
from controller_manager.horizontal.explain import explained
from controller_manager.horizontal.memory import Memory
from controller_manager.horizontal.replicas import Proposal, Tolerance


def test_a_limited_rise_with_a_broken_metric() -> None:
    good = Outcome(
        "cpu resource utilization (percentage of request)",
        proposal=Proposal(6, 150, 300, 3.0, 2, ("a",), ("b", "c"), ()),
        target="50%",
    )
    bad = Outcome("pods metric packets", failure=Failure("FailedGetPodsMetric", "no such metric", "failed to get it"))
    evaluation = Evaluation([good, bad], 6, good.name)
    decision = Decision(
        2, 6, Verdict(4, 6, STEADY, UP_LIMIT), 4, "cpu above target", evaluation, "2026-01-01T00:00:00Z"
    )
    found = explained("default/web", decision)
    assert found.headline == "HPA default/web changed its target from 2 to 4: cpu above target."
    facts = {fact.what: fact.value for fact in found.facts}
    assert facts["metrics want"] == "6"
    assert facts["limited to"].startswith("4 (ScaleUpLimit: the desired replica count is increasing faster")
    assert facts["trouble"] == "invalid metrics (1 invalid out of 2), first error is: failed to get it: no such metric"
    rows = [list(row.cells) for row in found.tables[0].rows]
    assert rows[0] == [good.name, "150% (300m)", "50%", "3", "2", "1", "2", "-", "6"]
    assert rows[1][-1] == "no such metric"


def test_nothing_changed_and_nothing_measured() -> None:
    found = explained("default/web", Decision(3, final=3, at="2026-01-01T00:00:00Z"))
    assert found.headline == "HPA default/web left its target at 3."
    assert not found.tables


BEHAVIOR = autoscaling_v2.HorizontalPodAutoscalerBehavior(
    scaleUp=autoscaling_v2.HPAScalingRules(
        stabilizationWindowSeconds=60,
        selectPolicy="Min",
        policies=[autoscaling_v2.HPAScalingPolicy(type="Pods", value=2, periodSeconds=30)],
    )
)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        pytest.param(
            None,
            {
                "downscale window": "300 s: 8 is the highest of 2 recommendations",
                "upscale policy": "at most the double, or 4",
                "stabilized to": "8 (recent recommendations were higher than current one, applying the highest recent "
                "recommendation)",
            },
            id="without a behavior",
        ),
        pytest.param(
            BEHAVIOR,
            {
                "upscale window": "60 s: 6 is the lowest of 1 recommendations",
                "downscale window": "300 s: 8 is the highest of 2 recommendations",
                "upscale policies": "Min of 2 Pods in 30 s",
                "downscale policies": "Max of 100 Percent in 15 s",
            },
            id="with one",
        ),
    ],
)
def test_windows_policies_tolerance_and_bounds_are_told(
    spec: autoscaling_v2.HorizontalPodAutoscalerBehavior | None, told: dict[str, str]
) -> None:
    memory = Memory()
    memory.begin(5, 0.0)
    for now, wanted in ((200.0, 8), (400.0, 6)):
        memory.limit(spec, 300.0, 8, wanted, 1, 9, now)
    limits = memory.limit(spec, 300.0, 8, 3, 1, 9, 410.0)
    assert limits.verdict.replicas == 8
    decision = Decision(8, 3, limits.verdict, 8, tolerance=Tolerance(0.1, 0.2), limits=limits, bounds=(1, 9))
    facts = {fact.what: fact.value for fact in explained("default/web", decision).facts}
    assert told.items() <= facts.items()
    assert facts["tolerance"] == "ratios from 0.8 to 1.1 change nothing"
    assert facts["replicas between"] == "1 and 9"
