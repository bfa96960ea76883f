"""What people read about a decision."""

from controller_manager.horizontal.behavior import STEADY, UP_LIMIT, Verdict
from controller_manager.horizontal.controller import Decision
from controller_manager.horizontal.evaluation import Evaluation, Failure, Outcome
from controller_manager.horizontal.explain import explained
from controller_manager.horizontal.replicas import Proposal


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
    assert facts["limited to"].startswith("4 (the desired replica count is increasing faster")
    assert facts["trouble"] == "invalid metrics (1 invalid out of 2), first error is: failed to get it: no such metric"
    rows = [list(row.cells) for row in found.tables[0].rows]
    assert rows[0] == [good.name, "150% (300m)", "50%", "3", "2", "1", "2", "-", "6"]
    assert rows[1][-1] == "no such metric"


def test_nothing_changed_and_nothing_measured() -> None:
    found = explained("default/web", Decision(3, final=3, at="2026-01-01T00:00:00Z"))
    assert found.headline == "HPA default/web left its target at 3."
    assert not found.tables
