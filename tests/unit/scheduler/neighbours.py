"""Random pods and nodes that mean something to one another: labels, affinity terms, spreading constraints.

Drawn evenly from a seeded generator: Hypothesis' own draws lean to the simplest values, with which pods hardly ever
meet. Hypothesis chooses the seed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from api.models import core_v1, meta_v1
from tests.unit.scheduler.objects import node, pod

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
TOPOLOGIES = (HOSTNAME, ZONE, "rack")
NAMESPACES = ("default", "other")
APPS = ("a", "a", "b", "")


def pod_labels(rng: Random) -> dict[str, str]:
    labels = {"app": rng.choice(APPS)} if rng.random() < 0.9 else {}
    return {**labels, "tier": rng.choice("xy")} if rng.random() < 0.3 else labels


def namespace_labels(rng: Random) -> dict[str, str]:
    return rng.choice([{}, {"team": "x"}, {"team": "y"}])


def make_node(rng: Random, name: str) -> core_v1.Node:
    made = node(
        name,
        labels={key: rng.choice(["1", "2", "3", ""]) for key in (ZONE, "rack", "disk") if rng.random() < 0.9},
        taints=[("spot", "", "NoSchedule")] if rng.random() < 0.1 else [],
        pods="3" if rng.random() < 0.1 else "110",
    )
    if rng.random() < 0.1 and made.metadata is not None and made.metadata.labels is not None:
        del made.metadata.labels[HOSTNAME]
    return made


def selector(rng: Random) -> meta_v1.LabelSelector | None:
    if rng.random() < 0.1:
        return rng.choice([None, meta_v1.LabelSelector()])
    if rng.random() < 0.7:
        return meta_v1.LabelSelector(matchLabels={"app": rng.choice(APPS)})
    operator = rng.choice(["In", "NotIn", "Exists", "DoesNotExist"])
    values = rng.sample(["a", "b", "x"], 2) if "In" in operator else None
    wanted = meta_v1.LabelSelectorRequirement(key=rng.choice(["app", "tier"]), operator=operator, values=values)
    return meta_v1.LabelSelector(matchExpressions=[wanted])


def term(rng: Random) -> core_v1.PodAffinityTerm:
    wanted = selector(rng)
    keyed = rng.random() if wanted is not None else 1.0
    return core_v1.PodAffinityTerm(
        topologyKey=rng.choice(TOPOLOGIES),
        labelSelector=wanted,
        namespaces=rng.choice([["other"], ["default", "other"]]) if rng.random() < 0.2 else None,
        namespaceSelector=(
            rng.choice([meta_v1.LabelSelector(), meta_v1.LabelSelector(matchLabels={"team": "x"})])
            if rng.random() < 0.2
            else None
        ),
        matchLabelKeys=["tier"] if keyed < 0.15 else None,
        mismatchLabelKeys=["tier"] if 0.15 < keyed < 0.3 else None,
    )


def _some(rng: Random, chance: float) -> list[core_v1.PodAffinityTerm] | None:
    return [term(rng) for _ in range(rng.choice([1, 1, 2]))] if rng.random() < chance else None


def _soft(rng: Random) -> list[core_v1.WeightedPodAffinityTerm] | None:
    return [
        core_v1.WeightedPodAffinityTerm(podAffinityTerm=each, weight=rng.randint(1, 100))
        for each in _some(rng, 0.5) or ()
    ] or None


def affinity(rng: Random) -> core_v1.Affinity:
    return core_v1.Affinity(
        podAffinity=core_v1.PodAffinity(
            requiredDuringSchedulingIgnoredDuringExecution=_some(rng, 0.2),
            preferredDuringSchedulingIgnoredDuringExecution=_soft(rng),
        ),
        podAntiAffinity=core_v1.PodAntiAffinity(
            requiredDuringSchedulingIgnoredDuringExecution=_some(rng, 0.2),
            preferredDuringSchedulingIgnoredDuringExecution=_soft(rng),
        ),
    )


def constraint(rng: Random) -> core_v1.TopologySpreadConstraint:
    hard = rng.random() < 0.5
    return core_v1.TopologySpreadConstraint(
        maxSkew=rng.randint(1, 3),
        topologyKey=rng.choice(TOPOLOGIES),
        whenUnsatisfiable="DoNotSchedule" if hard else "ScheduleAnyway",
        labelSelector=selector(rng),
        minDomains=rng.randint(1, 4) if hard and rng.random() < 0.3 else None,
        nodeAffinityPolicy=rng.choice([None, None, "Honor", "Ignore"]),
        nodeTaintsPolicy=rng.choice([None, None, "Honor", "Ignore"]),
        matchLabelKeys=["tier"] if rng.random() < 0.2 else None,
    )


def make_pod(rng: Random, name: str) -> core_v1.Pod:
    made = pod(
        name,
        {"cpu": "10m"},
        namespace="default" if rng.random() < 0.8 else "other",
        labels=pod_labels(rng),
        affinity=affinity(rng) if rng.random() < 0.6 else None,
        topologySpreadConstraints=[constraint(rng) for _ in range(rng.randint(1, 2))] if rng.random() < 0.5 else None,
        nodeSelector={"disk": rng.choice("12")} if rng.random() < 0.1 else None,
        tolerations=[core_v1.Toleration(operator="Exists")] if rng.random() < 0.3 else None,
    )
    assert made.metadata is not None
    if rng.random() < 0.5:
        kind = rng.choice(["ReplicaSet", "ReplicaSet", "StatefulSet", "Job"])
        made.metadata.ownerReferences = [
            meta_v1.OwnerReference(apiVersion="apps/v1", kind=kind, name="owner", uid="u", controller=True)
        ]
    return made


def terminating(made: core_v1.Pod) -> core_v1.Pod:
    assert made.metadata is not None
    made.metadata.deletionTimestamp = datetime(2026, 1, 1, tzinfo=UTC)
    return made
