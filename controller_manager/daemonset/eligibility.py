"""Which nodes a DaemonSet's pods belong on, and the pod made for a node.

The scheduler places the pods: each is made for one node by an affinity to its name, so that resources, ports and
preemption are the scheduler's matter. Pure. Called by plan.py and controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from api.daemons import daemon_tolerations
from api.models import apps_v1, core_v1, meta_v1
from api.node_selectors import NAME_FIELD, admits
from client.listers import copied
from controller_manager.node_lifecycle.taints import NO_EXECUTE, NO_SCHEDULE
from controller_manager.objects import controller_reference
from controller_manager.taint_eviction import tolerates

HASH: Final = "controller-revision-hash"
GENERATION_LABEL: Final = "pod-template-generation"
GENERATION_ANNOTATION: Final = "deprecated.daemonset.template.generation"

Toleration = core_v1.Toleration


class Eligibility(NamedTuple):
    """Whether a pod should be started on the node, and whether one that is there may stay."""

    run: bool
    stay: bool


def judge(template: core_v1.PodTemplateSpec, node: core_v1.Node) -> Eligibility:
    """Whether a DaemonSet with this template belongs on the node."""
    spec = template.spec or core_v1.PodSpec(containers=[])
    if spec.nodeName and spec.nodeName != node.metadata.name:
        return Eligibility(False, False)
    if not matches_node(spec, node):
        return Eligibility(False, False)
    tolerated = daemon_tolerations(spec)
    hostile = [
        taint.effect
        for taint in (node.spec.taints if node.spec is not None else None) or ()
        if taint.effect in (NO_SCHEDULE, NO_EXECUTE) and not any(tolerates(each, taint) for each in tolerated)
    ]
    return Eligibility(not hostile, NO_EXECUTE not in hostile)


def matches_node(spec: core_v1.PodSpec, node: core_v1.Node) -> bool:
    """nodeSelector and required node affinity."""
    return admits(spec, node.metadata.labels or {}, node.metadata.name or "")


def node_of(pod: core_v1.Pod) -> str:
    """The node a daemon pod is on, or was made for."""
    if pod.spec.nodeName:
        return str(pod.spec.nodeName)
    affinity = pod.spec.affinity.nodeAffinity if pod.spec.affinity is not None else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity is not None else None
    for term in (required.nodeSelectorTerms if required is not None else None) or ():
        for field in term.matchFields or ():
            if field.key == NAME_FIELD and field.operator == "In" and len(field.values or ()) == 1:
                return str(field.values[0])  # type: ignore[index]  # counted above
    return ""


def pod_for(ds: apps_v1.DaemonSet, node: str, revision_hash: str) -> core_v1.Pod:
    """The pod to create for a node."""
    template = ds.spec.template
    given = template.metadata or meta_v1.ObjectMeta()
    spec = copied(template.spec or core_v1.PodSpec(containers=[]))
    spec.tolerations = daemon_tolerations(spec)
    spec.affinity = spec.affinity or core_v1.Affinity()
    spec.affinity.nodeAffinity = spec.affinity.nodeAffinity or core_v1.NodeAffinity()
    # What the template requires was checked against the node already: its name is all that is left to require.
    field = core_v1.NodeSelectorRequirement(key=NAME_FIELD, operator="In", values=[node])
    spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution = core_v1.NodeSelector(
        nodeSelectorTerms=[core_v1.NodeSelectorTerm(matchFields=[field])]
    )
    labels = {**(given.labels or {}), HASH: revision_hash}
    generation = (ds.metadata.annotations or {}).get(GENERATION_ANNOTATION)
    if generation:
        labels[GENERATION_LABEL] = generation
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            generateName=f"{ds.metadata.name}-",
            namespace=ds.metadata.namespace,
            labels=labels,
            annotations=dict(given.annotations or {}) or None,
            finalizers=list(given.finalizers or ()) or None,
            ownerReferences=[controller_reference(ds)],
        ),
        spec=spec,
    )


def is_updated(pod: core_v1.Pod, revision_hash: str) -> bool:
    return bool((pod.metadata.labels or {}).get(HASH) == revision_hash)


def by_age(pods: Iterable[core_v1.Pod]) -> list[core_v1.Pod]:
    """Oldest first; pods that have a node before others."""
    return sorted(
        pods, key=lambda pod: (not pod.spec.nodeName, pod.metadata.creationTimestamp, pod.metadata.name or "")
    )
