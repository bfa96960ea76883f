"""The snapshot as a state machine: any order of events gives what building from scratch gives; forks leave no trace."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler import clusters
from tests.unit.scheduler.objects import affinity, container, expression, info, node, pod, term


def image(snapshot: ClusterSnapshot) -> dict[str, Any]:
    """Everything about the cluster, without regard to which column a node has."""
    names = {snapshot.name_at(column): column for column in range(snapshot.width) if snapshot.exists[column]}
    return {
        name: {
            "amounts": {
                resource: (int(snapshot.allocatable[row, at]), int(snapshot.requested[row, at]))
                for resource, row in snapshot.rows.items()
                if snapshot.allocatable[row, at] or snapshot.requested[row, at]
            },
            "free": {
                resource: int(snapshot.free[row, at])
                for resource, row in snapshot.rows.items()
                if snapshot.free[row, at]
            },
            "scores": [
                *snapshot.spare100[:, at].tolist(),
                *snapshot.used[:, at].tolist(),
                float(snapshot.balance_gap[at]),
                float(snapshot.kinds[at]),
                float(snapshot.evenness[at]),
            ],
            "labels": {key: column.values[column.ids[at]] for key, column in snapshot.labels.items() if column.ids[at]},
            "taints": snapshot.taint_sets.values[snapshot.taint_sets.ids[at]],
            "unschedulable": bool(snapshot.unschedulable[at]),
            "images": sorted(image for image, state in snapshot.images.items() if at in state.columns),
            "pods": sorted(record.pods) if (record := snapshot.record(name)) is not None else None,
            "ports": [
                at in snapshot.columns_using((protocol, ip, number))
                for protocol in ("TCP", "UDP")
                for ip in ("0.0.0.0", "10.0.0.1")
                for number in (80, 81)
            ],
        }
        for name, at in names.items()
    }


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_order_of_events_equals_building_anew(data: st.DataObject) -> None:
    snapshot = ClusterSnapshot(capacity=1)
    nodes: dict[str, core_v1.Node] = {}
    placed: dict[str, tuple[PodInfo, str]] = {}
    saved: list[tuple[dict[str, core_v1.Node], dict[str, tuple[PodInfo, str]], dict[str, Any]]] = []
    for step in range(data.draw(st.integers(1, 14))):
        name = data.draw(st.sampled_from(["n0", "n1", "n2", "n3"]))
        match data.draw(st.integers(0, 7)):
            case 0 | 1:
                nodes[name] = data.draw(clusters.nodes(name))
                snapshot.set_node(nodes[name])
            case 2:
                nodes.pop(name, None)
                snapshot.remove_node(name)
            case 3 | 4:
                made = PodInfo(data.draw(clusters.pods(data.draw(st.sampled_from([f"p{step}", "p"])))))
                placed[made.uid] = (made, name)
                snapshot.add_pod(made, name)
            case 5 if placed:
                uid = data.draw(st.sampled_from(sorted(placed)))
                del placed[uid]
                snapshot.remove_pod(uid)
            case 6:
                saved.append((dict(nodes), dict(placed), image(snapshot)))
                snapshot.fork()
            case 7 if saved:
                before, pods_before, expected = saved.pop()
                if data.draw(st.booleans()):
                    snapshot.commit()
                else:
                    snapshot.revert()
                    nodes, placed = before, pods_before
                    assert image(snapshot) == expected
    fresh = ClusterSnapshot()
    for each in nodes.values():
        fresh.set_node(each)
    for made, home in placed.values():
        fresh.add_pod(made, home)
    assert image(snapshot) == image(fresh)
    assert snapshot.pod_count == len(placed)
    assert all(snapshot.home_of(uid) == home and snapshot.pod(uid) is made for uid, (made, home) in placed.items())


def test_columns_are_reused_and_interned_values_forgotten() -> None:
    snapshot = ClusterSnapshot(capacity=1)
    for round_ in range(50):
        for index in range(4):
            snapshot.set_node(
                node(f"n{round_}-{index}", labels={f"key{round_}": "x"}, taints=[("t", str(round_), "NoSchedule")])
            )
        for index in range(4):
            snapshot.remove_node(f"n{round_}-{index}")
    assert snapshot.width == 4
    assert not snapshot.labels
    assert snapshot.taint_sets.is_empty
    assert len(snapshot.taint_sets.values) <= 5


def test_a_node_that_returns_finds_its_pods() -> None:
    snapshot = ClusterSnapshot()
    snapshot.add_pod(info("early", {"cpu": "1"}), "n0")
    snapshot.set_node(node("n0"))
    snapshot.remove_node("n0")
    snapshot.set_node(node("n0"))
    assert int(snapshot.requested[0, 0]) == 1000
    snapshot.remove_pod("uid-early")
    assert int(snapshot.requested[0, 0]) == 0


def test_a_full_change_log_makes_evaluations_start_anew() -> None:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n0", cpu="1"))
    snapshot.set_node(node("n1", cpu="1"))
    framework = default_framework()
    assert framework.schedule(info("a", {"cpu": "1"}), snapshot).feasible == 2
    for _ in range(40_000):
        snapshot.add_pod(info("x", {"cpu": "100m"}), "n0")
        snapshot.remove_pod("uid-x")
    snapshot.add_pod(info("y", {"cpu": "1"}), "n0")
    assert framework.schedule(info("b", {"cpu": "1"}), snapshot).node == "n1"


def test_filling_a_preferred_node_renormalizes_the_others() -> None:
    """Normalized scores depend on which nodes are feasible: the kept totals must follow."""
    snapshot = ClusterSnapshot()
    for name, zone in (("n0", "a"), ("n1", "b"), ("n2", "c")):
        snapshot.set_node(node(name, labels={"zone": zone}, cpu="2"))
    wish = affinity(
        preferred=[(90, term(expression("zone", "In", "a"))), (30, term(expression("zone", "In", "b")))],
    )
    framework = default_framework(rng=random.Random(1))

    def totals(pod_info: PodInfo) -> dict[str, float]:
        return {
            verdict.node: verdict.scores.get("NodeAffinity", -1.0) for verdict in framework.explain(pod_info, snapshot)
        }

    first = info("first", {"cpu": "2"}, affinity=wish)
    assert framework.schedule(first, snapshot).node == "n0"
    assert totals(first) == {"n0": 200, "n1": 66, "n2": 0}
    snapshot.add_pod(first, "n0")
    second = info("second", {"cpu": "2"}, affinity=wish)
    decision = framework.schedule(second, snapshot)
    assert (decision.node, totals(second)["n1"]) == ("n1", 200)
    assert decision.score == sum(
        next(verdict for verdict in framework.explain(second, snapshot) if verdict.node == "n1").scores.values()
    )


def test_ties_are_broken_by_the_seed() -> None:
    snapshot = ClusterSnapshot()
    for index in range(8):
        snapshot.set_node(node(f"n{index}"))

    def choices(seed: int) -> list[str]:
        framework = default_framework(rng=random.Random(seed))
        return [framework.schedule(info("a", {"cpu": "1"}), snapshot).node for _ in range(20)]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
    assert len(set(choices(3))) > 3


def test_host_ports_clash_by_ip() -> None:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n0"))
    snapshot.add_pod(PodInfo(pod("a", containers=[container(ports=[("TCP", "10.0.0.1", 80)])])), "n0")
    taken = {
        port: bool(snapshot.columns_using(port))
        for port in [("TCP", "10.0.0.1", 80), ("TCP", "0.0.0.0", 80), ("TCP", "10.0.0.2", 80), ("UDP", "10.0.0.1", 80)]
    }
    assert list(taken.values()) == [True, True, False, False]


def test_huge_amounts_stay_exact() -> None:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n0", memory="1Pi"))
    before = image(snapshot)
    for index in range(100):
        snapshot.add_pod(info(f"p{index}", {"memory": "99Ei", "cpu": "1"}), "n0")
    snapshot.add_pod(info("small", {"memory": "1"}), "n0")
    for index in range(100):
        snapshot.remove_pod(f"uid-p{index}")
    snapshot.remove_pod("uid-small")
    assert image(snapshot) == before
    assert np.isfinite(snapshot.spare100).all()
