"""The objects that let the node pool autoscaler work: its kinds, its account and what that may do, two node classes.

Owns these objects, as upstream's manifests have them. Applied by `cli.addons` where the feature is on. NodePools are
the user's: without one nothing is launched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.addon_objects import Addon, Placed, election, rule

NAME = "nodepool-autoscaler"


def objects() -> Iterator[Placed]:
    """Kinds first."""
    from nodepool_autoscaler.definitions import definitions

    for definition in definitions():
        yield "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition
    addon = Addon(NAME)
    yield addon.account()
    kinds, classes = ["karpenter.sh"], ["cloud.nanokube.io"]
    rules = [
        rule(kinds, ["nodepools"], ("get", "list", "watch", "update", "patch")),
        rule(kinds, ["nodeclaims"], ("get", "list", "watch", "create", "update", "patch", "delete")),
        rule(kinds, ["nodepools/status", "nodeclaims/status"], ("get", "update", "patch")),
        rule(kinds, ["nodepools/finalizers", "nodeclaims/finalizers"], ("update",)),
        rule(classes, ["nanokubenodeclasses"], ("get", "list", "watch", "patch")),
        rule(classes, ["nanokubenodeclasses/status"], ("get", "update", "patch")),
        rule([""], ["namespaces", "services", "replicationcontrollers", "persistentvolumeclaims", "persistentvolumes"]),
        rule([""], ["nodes"], ("get", "list", "watch", "update", "patch", "delete")),
        rule([""], ["pods"], ("get", "list", "watch", "delete")),
        rule([""], ["pods/eviction"], ("create",)),
        rule(["", "events.k8s.io"], ["events"], ("create", "patch", "update")),
        rule(["apps"], ["daemonsets", "replicasets", "statefulsets"]),
        rule(["policy"], ["poddisruptionbudgets"]),
        rule(
            ["storage.k8s.io"],
            ["storageclasses", "csinodes", "csidrivers", "csistoragecapacities", "volumeattachments"],
        ),
        *election(NAME),
    ]
    yield addon.cluster_role("system:nodepool-autoscaler", rules)
    yield addon.cluster_binding("system:nodepool-autoscaler", "system:nodepool-autoscaler")
    read = rule([*kinds, *classes], ["nodepools", "nodeclaims", "nanokubenodeclasses"])
    yield addon.cluster_role("karpenter-viewer", [read], aggregated=True)


def node_classes() -> Iterator[Placed]:
    """`default` for machines that run containers, `hollow` for ones that only play it. Their kind must be served."""
    for name, machines in (("default", "Real"), ("hollow", "Hollow")):
        made: dict[str, Any] = {
            "apiVersion": "cloud.nanokube.io/v1",
            "kind": "NanokubeNodeClass",
            "metadata": {"name": name},
            "spec": {"machines": machines},
        }
        yield "/apis/cloud.nanokube.io/v1/nanokubenodeclasses", made
