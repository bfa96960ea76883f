"""The words of a failed attempt, to the letter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from api.models import core_v1
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler.objects import affinity, container, expression, node, pod, term


def failure(nodes: Sequence[core_v1.Node], made: core_v1.Pod, placed: Sequence[tuple[core_v1.Pod, str]] = ()) -> str:
    snapshot = ClusterSnapshot()
    for each in nodes:
        snapshot.set_node(each)
    for other, home in placed:
        snapshot.add_pod(PodInfo(other), home)
    error = default_framework().schedule(PodInfo(made), snapshot).error
    assert error is not None
    return error.message


WORKERS = [node("worker-1"), node("worker-2"), node("worker-3")]
FULL = [(pod(f"full-{name}", {"cpu": "4"}), name) for name in ("worker-1", "worker-2", "worker-3")]
PINNED = affinity(required=[term(fields=[expression("metadata.name", "In", "worker-2")])])


@pytest.mark.parametrize(
    ("nodes", "made", "placed", "message"),
    [
        pytest.param([], pod(), [], "no nodes available to schedule pods", id="no nodes"),
        pytest.param(
            WORKERS,
            pod(requests={"cpu": "1"}),
            FULL,
            "0/3 nodes are available: 3 Insufficient cpu. "
            "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.",
            id="full",
        ),
        pytest.param(
            WORKERS,
            pod(requests={"cpu": "64", "memory": "1Ti"}),
            [],
            "0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            id="larger than any node",
        ),
        pytest.param(
            [WORKERS[0], node("cp", taints=[("node-role.kubernetes.io/control-plane", "", "NoSchedule")]), WORKERS[1]],
            pod(requests={"cpu": "1"}),
            FULL[:2],
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. "
            "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, "
            "2 No preemption victims found for incoming pod.",
            id="mixed",
        ),
        pytest.param(
            [node(f"w{index}", unschedulable=index < 2) for index in range(12)],
            pod(nodeSelector={"disk": "ssd"}),
            [],
            "0/12 nodes are available: 10 node(s) didn't match Pod's node affinity/selector, "
            "2 node(s) were unschedulable. "
            "preemption: 0/12 nodes are available: 12 Preemption is not helpful for scheduling.",
            id="sorted as texts",
        ),
        pytest.param(
            WORKERS,
            pod(requests={"cpu": "1"}, affinity=PINNED),
            FULL,
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. "
            "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
            "2 Preemption is not helpful for scheduling.",
            id="pinned by name, as a DaemonSet's pod",
        ),
        pytest.param(
            WORKERS,
            pod(affinity=affinity(required=[term(fields=[expression("metadata.name", "In", "gone")])])),
            [],
            "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            id="pinned to a node that is gone",
        ),
        pytest.param(
            WORKERS,
            pod(
                affinity=affinity(
                    required=[
                        term(
                            fields=[
                                expression("metadata.name", "In", "worker-1"),
                                expression("metadata.name", "In", "worker-2"),
                            ]
                        )
                    ]
                )
            ),
            [],
            "0/3 nodes are available: pod affinity terms conflict. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            id="conflicting names",
        ),
        pytest.param(
            WORKERS[:1],
            pod(containers=[container(ports=[("TCP", "", 80)])]),
            [(pod("other", containers=[container(ports=[("TCP", "", 80)])]), "worker-1")],
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. "
            "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
            id="host port",
        ),
        pytest.param(
            [node("w", pods="1")],
            pod(requests={"example.com/gpu": "1"}),
            [(pod("other"), "w")],
            "0/1 nodes are available: 1 Insufficient example.com/gpu, 1 Too many pods. "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
            id="unknown extended resource and too many pods",
        ),
        pytest.param(
            WORKERS,
            pod(requests={"cpu": "1"}, preemptionPolicy="Never"),
            FULL,
            "0/3 nodes are available: 3 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
            id="never preempts",
        ),
    ],
)
def test_messages(
    nodes: Sequence[core_v1.Node], made: core_v1.Pod, placed: Sequence[tuple[core_v1.Pod, str]], message: str
) -> None:
    assert failure(nodes, made, placed) == message


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(expression("zone", "In"), id="In without values"),
        pytest.param(expression("zone", "Exists", "x"), id="Exists with values"),
        pytest.param(expression("zone", "Gt", "five"), id="Gt of no number"),
        pytest.param(expression("zone", "Gt", "9" * 30), id="Gt of a number beyond 64 bits"),
        pytest.param(expression("zone", "Resembles", "x"), id="unknown operator"),
    ],
)
def test_invalid_expressions_match_nothing(bad: core_v1.NodeSelectorRequirement) -> None:
    nodes = [node("w", labels={"zone": "a"})]
    message = failure(nodes, pod(affinity=affinity(required=[term(bad)])))
    assert message.startswith("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    good = term(expression("zone", "In", "a"))
    snapshot = ClusterSnapshot()
    snapshot.set_node(nodes[0])
    either = PodInfo(pod(affinity=affinity(required=[term(bad), good], preferred=[(5, term(bad))])))
    assert default_framework().schedule(either, snapshot).node == "w"


def test_statuses_name_every_node() -> None:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("a", unschedulable=True))
    snapshot.set_node(node("b", cpu="1"))
    error = default_framework().schedule(PodInfo(pod(requests={"cpu": "2"})), snapshot).error
    assert error is not None
    names = [snapshot.name_at(column) for column in range(snapshot.width)]
    assert error.statuses(names) == {"a": ("node(s) were unschedulable",), "b": ("Insufficient cpu",)}
    assert error.plugins == {"NodeUnschedulable", "NodeResourcesFit"}
