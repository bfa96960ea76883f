"""What every pod of a DaemonSet is given, for its controller and for whoever plans nodes that do not exist yet.

Owns the tolerations that the DaemonSet controller adds to its template, and the pod that it would make for a new node,
as far as room and placement go.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from typing import Final

import msgspec

from api.models import apps_v1, core_v1, meta_v1

_ALWAYS: Final = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK: Final = ("node.kubernetes.io/network-unavailable", "NoSchedule")


def daemon_tolerations(spec: core_v1.PodSpec) -> list[core_v1.Toleration]:
    """The template's tolerations and those of every daemon pod: it outlives a node's troubles."""
    wanted = [*_ALWAYS, *([_HOST_NETWORK] if spec.hostNetwork else [])]
    given = list(spec.tolerations or ())
    known = {(each.key, each.effect) for each in given if each.operator == "Exists"}
    return given + [
        core_v1.Toleration(key=key, operator="Exists", effect=effect)
        for key, effect in wanted
        if (key, effect) not in known
    ]


def daemon_pod(daemon: apps_v1.DaemonSet) -> core_v1.Pod | None:
    """A pod as the controller would make it for any node; None when the DaemonSet has no spec."""
    spec = daemon.spec.template.spec if daemon.spec is not None else None
    if spec is None:
        return None
    own = daemon.spec.template.metadata
    owner = meta_v1.OwnerReference(
        apiVersion="apps/v1",
        kind="DaemonSet",
        name=daemon.metadata.name or "",
        uid=daemon.metadata.uid or "",
        controller=True,
    )
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=daemon.metadata.name,
            namespace=daemon.metadata.namespace,
            labels=own.labels if own is not None else None,
            ownerReferences=[owner],
        ),
        spec=msgspec.structs.replace(spec, tolerations=daemon_tolerations(spec)),
    )
