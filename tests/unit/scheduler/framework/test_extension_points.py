"""A framework with plugins of its own: what later plugins (pod affinity, spreading, volumes) rely on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from scheduler.framework.columns import BoolArray, FloatArray, IntArray
from scheduler.framework.events import Registration
from scheduler.framework.framework import Framework, PluginEntry
from scheduler.framework.interface import Normalization, PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.scoring import Strategy
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.node_resources_fit import NodeResourcesFit
from scheduler.plugins.priority_sort import PrioritySort
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler.objects import info, node


class OnePerZone:
    """A filter whose answer for a node depends on pods of other nodes."""

    name = "OnePerZone"
    reads = Reads.CLUSTER

    def registrations(self) -> Sequence[Registration]:
        return ()

    def sign(self, pod: PodInfo) -> Any:
        return None

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        return PreFilterResult()

    def filter(self, state: None, snapshot: ClusterSnapshot) -> BoolArray:
        zones = snapshot.labels["zone"]
        taken = [zones.ids[record.column] for record in snapshot.records if record is not None and record.pods]
        return ~np.isin(zones.ids[: snapshot.width], taken)

    def filter_at(self, state: None, snapshot: ClusterSnapshot, column: int) -> bool:
        return bool(self.filter(state, snapshot)[column])

    def refusals(self, state: None, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        yield Refusal(columns, ("zone is taken",))


class Named:
    """A score by name, to see normalization and weights."""

    reads = Reads.NODE

    def __init__(self, name: str, scores: dict[str, float], normalization: Normalization) -> None:
        self.name = name
        self.normalization = normalization
        self._scores = scores

    def registrations(self) -> Sequence[Registration]:
        return ()

    def sign(self, pod: PodInfo) -> Any:
        return None

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> bool:
        return True

    def score(self, state: bool, snapshot: ClusterSnapshot) -> FloatArray:
        return np.array([self._scores[snapshot.name_at(column)] for column in range(snapshot.width)])

    def score_at(self, state: bool, snapshot: ClusterSnapshot, column: int) -> float:
        return self._scores[snapshot.name_at(column)]


def zoned(*zones: str) -> ClusterSnapshot:
    snapshot = ClusterSnapshot()
    for index, zone in enumerate(zones):
        snapshot.set_node(node(f"n{index}", labels={"zone": zone}))
    return snapshot


def test_a_cluster_wide_filter_is_asked_again_after_every_binding() -> None:
    snapshot = zoned("a", "a", "b", "b", "c")
    framework = Framework([PluginEntry(PrioritySort()), PluginEntry(OnePerZone()), PluginEntry(NodeResourcesFit())])
    homes = []
    for index in range(3):
        pod = info(f"p{index}", {"cpu": "1"})
        decision = framework.schedule(pod, snapshot)
        homes.append(decision.node)
        snapshot.add_pod(pod, decision.node)
    zone_of = {"n0": "a", "n1": "a", "n2": "b", "n3": "b", "n4": "c"}
    assert {zone_of[home] for home in homes} == {"a", "b", "c"}
    error = framework.schedule(info("late", {"cpu": "1"}), snapshot).error
    assert error is not None and error.reasons == {"zone is taken": 5}
    snapshot.remove_pod("uid-p1")
    assert framework.schedule(info("late", {"cpu": "1"}), snapshot).error is None


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        pytest.param(Normalization.NONE, {"n0": 10, "n1": 4, "n2": 0}, id="as it is"),
        pytest.param(Normalization.LINEAR, {"n0": 100, "n1": 40, "n2": 0}, id="largest becomes 100"),
        pytest.param(Normalization.REVERSED, {"n0": 0, "n1": 60, "n2": 100}, id="largest becomes 0"),
    ],
)
def test_normalization_and_weights(how: Normalization, expected: dict[str, float]) -> None:
    snapshot = zoned("a", "b", "c")
    scores = {"n0": 10.0, "n1": 4.0, "n2": 0.0}
    framework = Framework([PluginEntry(PrioritySort()), PluginEntry(Named("S", scores, how), weight=3)])
    totals = {verdict.node: verdict.total for verdict in framework.explain(info(), snapshot)}
    assert totals == {name: 3 * score for name, score in expected.items()}
    decision = framework.schedule(info(), snapshot)
    assert decision.score == 3 * max(expected.values())


def test_a_profile_needs_one_queue_sort() -> None:
    with pytest.raises(ValueError, match="exactly one QueueSort"):
        Framework([])


def test_most_allocated_packs() -> None:
    snapshot = zoned("a", "b")
    framework = default_framework(strategy=Strategy.MOST_ALLOCATED)
    first = info("first", {"cpu": "1", "memory": "2Gi"})
    home = framework.schedule(first, snapshot).node
    snapshot.add_pod(first, home)
    for index in range(2):
        pod = info(f"next{index}", {"cpu": "1", "memory": "2Gi"})
        assert framework.schedule(pod, snapshot).node == home
        snapshot.add_pod(pod, home)


def test_kept_results_are_bounded() -> None:
    snapshot = zoned("a")
    framework = default_framework()
    for index in range(1000):
        framework.schedule(info("p", {"cpu": f"{index + 1}m"}), snapshot)
    assert len(framework._kept) <= 256


def test_a_framework_serves_several_snapshots() -> None:
    framework = default_framework()
    small, large = zoned("a"), zoned("a", "b", "c")
    for snapshot in (small, large, small):
        assert framework.schedule(info(), snapshot).feasible == snapshot.node_count
