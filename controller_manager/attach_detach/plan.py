"""What is to be done about one volume on all nodes that have to do with it. Pure; called by `controller`.

The rules are upstream's (pkg/controller/volume/attachdetach/reconciler): a volume that nobody wants leaves a node when
the kubelet says that it is not mounted any more, at once when the node is marked out of service, and after six minutes
when the node does not answer; a volume for one node goes to the next only when it has left the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from api.models import core_v1

MAX_WAIT_FOR_UNMOUNT: Final = 360.0  # cluster seconds, upstream's maxWaitForUnmountDuration


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a VolumeAttachment says."""

    attached: bool = False
    leaving: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One node, as the volume sees it."""

    pods: Sequence[core_v1.Pod] = ()
    """Those that want the volume here."""
    attachment: Attachment | None = None
    reported: bool = False
    """The Node's status says attached."""
    mounted: bool = False
    """The kubelet says in use; of a node that does not exist nobody knows better."""
    healthy: bool = True
    out_of_service: bool = False
    unwanted_for: float = 0.0
    """Cluster seconds since the last pod stopped wanting it here."""


@dataclass(frozen=True, slots=True)
class MultiAttach:
    """A pod that has to wait, and what it is told."""

    node: str
    pod: core_v1.Pod
    message: str


@dataclass(slots=True)
class Plan:
    attach: list[str] = field(default_factory=list)
    detach: dict[str, bool] = field(default_factory=dict)
    """Node → whether it must be asked first if the volume is still mounted."""
    report: list[str] = field(default_factory=list)
    retract: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    """Nodes to which the volume is being attached."""
    refused: list[MultiAttach] = field(default_factory=list)
    look_again: float | None = None
    """Cluster seconds after which time alone changes the plan."""


def plan_volume(places: Mapping[str, Place], *, exclusive: bool) -> Plan:
    """`exclusive`: the volume may be attached to one node at a time."""
    plan = Plan()
    for node, place in places.items():
        if not place.pods:
            _plan_leaving(plan, node, place)
        elif place.attachment is None or place.attachment.leaving:
            if place.reported:
                plan.retract.append(node)
        elif not place.attachment.attached:
            plan.pending.append(node)
        elif not place.reported:
            plan.report.append(node)
    _plan_attach(plan, places, exclusive=exclusive)
    return plan


def _plan_leaving(plan: Plan, node: str, place: Place) -> None:
    if place.attachment is None or place.attachment.leaving:
        if place.reported:
            plan.retract.append(node)
        return
    left = MAX_WAIT_FOR_UNMOUNT - place.unwanted_for
    forced = place.out_of_service or (not place.healthy and left <= 0)
    if not place.mounted or forced:
        plan.detach[node] = not forced
    elif not place.healthy:
        plan.look_again = left if plan.look_again is None else min(plan.look_again, left)


def _plan_attach(plan: Plan, places: Mapping[str, Place], *, exclusive: bool) -> None:
    taken = [node for node, place in places.items() if place.attachment is not None]
    waiting = [node for node, place in places.items() if place.pods and place.attachment is None]
    waiting.sort(key=lambda node: min(_age(pod) for pod in places[node].pods))
    for node in waiting:
        others = [other for other in taken if other != node]
        if exclusive and others:
            message = [pod for other in others for pod in places[other].pods]
            plan.refused.extend(MultiAttach(node, pod, _already_used(pod, message)) for pod in places[node].pods)
            continue
        plan.attach.append(node)
        taken.append(node)


def _age(pod: core_v1.Pod) -> tuple[str, str]:
    meta = pod.metadata
    return (str(meta.creationTimestamp or ""), meta.name or "") if meta is not None else ("", "")


def _already_used(pod: core_v1.Pod, users: Sequence[core_v1.Pod]) -> str:
    """Upstream's words; pods of other namespaces are counted, not named."""
    if not users:
        return "Volume is already exclusively attached to one node and can't be attached to another"
    home = pod.metadata.namespace if pod.metadata is not None else None
    near = [each.metadata.name or "" for each in users if each.metadata is not None and each.metadata.namespace == home]
    far = len(users) - len(near)
    if not near:
        return f"Volume is already used by {far} pod(s) in different namespaces"
    text = f"Volume is already used by pod(s) {', '.join(sorted(near))}"
    return f"{text} and {far} pod(s) in different namespaces" if far else text
