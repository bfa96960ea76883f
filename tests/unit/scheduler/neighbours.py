"""Hypothesis strategies for what pods want of one another: labels, affinity terms, spreading constraints."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from api.models import core_v1, meta_v1
from tests.unit.scheduler.objects import node, pod

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
TOPOLOGIES = (HOSTNAME, ZONE, "rack")
NAMESPACES = ("default", "other", "third")

pod_labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("a", "b", "")), max_size=2)
namespace_labels = st.dictionaries(st.sampled_from(("team",)), st.sampled_from(("x", "y")), max_size=1)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> core_v1.Node:
    labels = draw(st.dictionaries(st.sampled_from((ZONE, "rack", "disk")), st.sampled_from(("1", "2", "")), max_size=3))
    made = node(
        name,
        labels=labels,
        taints=draw(st.lists(st.tuples(st.just("spot"), st.just(""), st.sampled_from(["NoSchedule"])), max_size=1)),
        pods=draw(st.sampled_from(["1", "3", "110"])),
    )
    if draw(st.integers(0, 5)) == 0 and made.metadata is not None and made.metadata.labels is not None:
        del made.metadata.labels[HOSTNAME]
    return made


@st.composite
def selectors(draw: st.DrawFn) -> meta_v1.LabelSelector | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    expressions = []
    if draw(st.booleans()):
        operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
        values = draw(st.lists(st.sampled_from(("a", "b", "")), min_size=1, max_size=2)) if "In" in operator else None
        expressions.append(
            meta_v1.LabelSelectorRequirement(
                key=draw(st.sampled_from(("app", "tier"))), operator=operator, values=values
            )
        )
    return meta_v1.LabelSelector(matchLabels=draw(pod_labels) or None, matchExpressions=expressions or None)


@st.composite
def terms(draw: st.DrawFn) -> core_v1.PodAffinityTerm:
    labels = draw(selectors())
    return core_v1.PodAffinityTerm(
        topologyKey=draw(st.sampled_from(TOPOLOGIES)),
        labelSelector=labels,
        namespaces=draw(st.one_of(st.none(), st.lists(st.sampled_from(NAMESPACES), max_size=2))),
        namespaceSelector=draw(
            st.one_of(
                st.none(),
                st.just(meta_v1.LabelSelector()),
                st.just(meta_v1.LabelSelector(matchLabels={"team": "x"})),
            )
        ),
        matchLabelKeys=draw(st.sampled_from([None, None, ["tier"]])) if labels is not None else None,
        mismatchLabelKeys=draw(st.sampled_from([None, None, ["app"]])) if labels is not None else None,
    )


@st.composite
def affinities(draw: st.DrawFn) -> core_v1.Affinity:
    weighted = st.builds(core_v1.WeightedPodAffinityTerm, podAffinityTerm=terms(), weight=st.integers(1, 100))
    some = st.lists(terms(), max_size=2)
    soft = st.lists(weighted, max_size=2)
    return core_v1.Affinity(
        podAffinity=core_v1.PodAffinity(
            requiredDuringSchedulingIgnoredDuringExecution=draw(st.one_of(st.just([]), some)) or None,
            preferredDuringSchedulingIgnoredDuringExecution=draw(soft) or None,
        ),
        podAntiAffinity=core_v1.PodAntiAffinity(
            requiredDuringSchedulingIgnoredDuringExecution=draw(st.one_of(st.just([]), some)) or None,
            preferredDuringSchedulingIgnoredDuringExecution=draw(soft) or None,
        ),
    )


@st.composite
def constraints(draw: st.DrawFn) -> core_v1.TopologySpreadConstraint:
    hard = draw(st.booleans())
    return core_v1.TopologySpreadConstraint(
        maxSkew=draw(st.integers(1, 3)),
        topologyKey=draw(st.sampled_from(TOPOLOGIES)),
        whenUnsatisfiable="DoNotSchedule" if hard else "ScheduleAnyway",
        labelSelector=draw(selectors()),
        minDomains=draw(st.one_of(st.none(), st.integers(1, 3))) if hard else None,
        nodeAffinityPolicy=draw(st.sampled_from([None, "Honor", "Ignore"])),
        nodeTaintsPolicy=draw(st.sampled_from([None, "Honor", "Ignore"])),
        matchLabelKeys=draw(st.sampled_from([None, None, ["tier"]])),
    )


@st.composite
def pods(draw: st.DrawFn, name: str) -> core_v1.Pod:
    made = pod(
        name,
        {"cpu": "100m"},
        namespace=draw(st.sampled_from(NAMESPACES)),
        labels=draw(pod_labels),
        affinity=draw(st.one_of(st.none(), affinities())),
        topologySpreadConstraints=draw(st.lists(constraints(), max_size=2)) or None,
        nodeSelector=draw(st.sampled_from([None, None, {"disk": "1"}])),
        tolerations=draw(st.sampled_from([None, [core_v1.Toleration(operator="Exists")]])),
    )
    assert made.metadata is not None
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["ReplicaSet", "StatefulSet", "Job"]))
        made.metadata.ownerReferences = [
            meta_v1.OwnerReference(apiVersion="apps/v1", kind=kind, name="owner", uid="u", controller=True)
        ]
    return made


def terminating(made: core_v1.Pod) -> core_v1.Pod:
    assert made.metadata is not None
    made.metadata.deletionTimestamp = datetime(2026, 1, 1, tzinfo=UTC)
    return made
