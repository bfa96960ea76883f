"""Groups whose nodes are alike but for their place share a raise, so that zones stay balanced. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.templates import Template
from scheduler.framework import resources

# Labels by which groups may differ and still be alike.
IGNORED: Final = frozenset(
    {
        "kubernetes.io/hostname",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/fluentd-ds-ready",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "nanokube.io/node-group",
    }
)
MEMORY_TOLERANCE: Final = 0.015
OTHER_TOLERANCE: Final = 0.05


def alike(one: Template, other: Template) -> bool:
    """The same resources, nearly the same amounts, the same labels where they matter."""
    mine, theirs = facts.allocatable(one.node), facts.allocatable(other.node)
    if mine.keys() != theirs.keys():
        return False
    for name, amount in mine.items():
        tolerance = MEMORY_TOLERANCE if name == resources.MEMORY else OTHER_TOLERANCE
        if name == resources.CPU and amount != theirs[name]:
            return False
        if abs(amount - theirs[name]) > max(amount, theirs[name]) * tolerance:
            return False
    left, right = (
        {key: value for key, value in facts.labels(each.node).items() if key not in IGNORED} for each in (one, other)
    )
    return left == right


def balanced(count: int, sizes: Mapping[str, tuple[int, int]], order: Sequence[str]) -> dict[str, int]:
    """How many of `count` new nodes each group gets, the smallest first. `sizes`: (target, maximum) by group; in
    `order` among equals. What fits under no maximum is left out."""
    now = {name: sizes[name][0] for name in order}
    for _ in range(count):
        open_ = [name for name in order if now[name] < sizes[name][1]]
        if not open_:
            break
        now[min(open_, key=lambda name: now[name])] += 1
    return {name: now[name] - sizes[name][0] for name in order if now[name] > sizes[name][0]}
