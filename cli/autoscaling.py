"""The objects that let the cluster autoscaler work: its account, what it may do, and in whose name.

Owns these objects, as upstream's manifests have them (plus what the scheduler's filters read). Applied at every `up`
by `cli.addons`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Obj = dict[str, Any]
NAME: Final = "cluster-autoscaler"
NAMESPACE: Final = "kube-system"
STATUS: Final = "cluster-autoscaler-status"
PRIORITIES: Final = "cluster-autoscaler-priority-expander"
_RBAC: Final = "rbac.authorization.k8s.io"
_LOOK: Final = ["get", "list", "watch"]


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> Obj:
    rule: Obj = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return {**rule, "resourceNames": names} if names else rule


_CLUSTER_RULES: Final = [
    _rule("", ["events"], ["create", "patch", "update"]),
    _rule("events.k8s.io", ["events"], ["create", "patch", "update"]),
    _rule("", ["pods/eviction"], ["create"]),
    _rule("", ["nodes"], [*_LOOK, "update", "patch"]),
    _rule(
        "",
        ["namespaces", "pods", "services", "replicationcontrollers", "persistentvolumeclaims", "persistentvolumes"],
        _LOOK,
    ),
    _rule("apps", ["statefulsets", "replicasets", "daemonsets"], _LOOK),
    _rule("batch", ["jobs"], _LOOK),
    _rule("policy", ["poddisruptionbudgets"], _LOOK),
    _rule(
        "storage.k8s.io",
        ["storageclasses", "csinodes", "csidrivers", "csistoragecapacities", "volumeattachments"],
        _LOOK,
    ),
]
_RULES: Final = [
    _rule("", ["configmaps"], ["create", "list", "watch"]),
    _rule("", ["configmaps"], ["get", "update", "patch", "delete", "watch"], [STATUS, PRIORITIES]),
    _rule("coordination.k8s.io", ["leases"], ["create"]),
    _rule("coordination.k8s.io", ["leases"], ["get", "update", "patch"], [NAME]),
]


def objects() -> Iterator[tuple[str, Obj]]:
    """(path of the collection, object)."""
    labels = {"k8s-app": NAME}
    here: Obj = {"name": NAME, "namespace": NAMESPACE, "labels": labels}
    everywhere: Obj = {"name": f"system:{NAME}", "labels": labels}
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]
    version = f"{_RBAC}/v1"
    yield (
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
    )
    yield (
        f"/apis/{version}/clusterroles",
        {"apiVersion": version, "kind": "ClusterRole", "metadata": everywhere, "rules": _CLUSTER_RULES},
    )
    yield (
        f"/apis/{version}/namespaces/{NAMESPACE}/roles",
        {"apiVersion": version, "kind": "Role", "metadata": here, "rules": _RULES},
    )
    yield (
        f"/apis/{version}/clusterrolebindings",
        {
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": everywhere,
            "subjects": subjects,
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": f"system:{NAME}"},
        },
    )
    yield (
        f"/apis/{version}/namespaces/{NAMESPACE}/rolebindings",
        {
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": here,
            "subjects": subjects,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": NAME},
        },
    )
