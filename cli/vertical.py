"""The objects that let the vertical pod autoscaler work: its kinds, its account and what that may do.

Owns these objects, as upstream's manifests have them. Applied by `cli.addons` where the feature is on.
"""

from __future__ import annotations

from collections.abc import Iterator

from cli.addon_objects import Addon, Placed, rule

NAME = "vertical-pod-autoscaler"
_CHANGE = ("get", "list", "watch", "create", "update", "patch", "delete")


def objects() -> Iterator[Placed]:
    """Kinds first."""
    from vertical_autoscaler.definitions import definitions
    from vertical_autoscaler.registration import NAME as CONFIGURATION

    for definition in definitions():
        yield "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition
    addon = Addon(NAME)
    yield addon.account()
    group = ["autoscaling.k8s.io"]
    configurations = rule(["admissionregistration.k8s.io"], ["mutatingwebhookconfigurations"], ("get", "patch"))
    rules = [
        rule([""], ["events", "pods", "limitranges", "replicationcontrollers"]),
        rule(["apps"], ["daemonsets", "deployments", "replicasets", "statefulsets"]),
        rule(["batch"], ["cronjobs", "jobs"]),
        rule(["autoscaling"], ["horizontalpodautoscalers"]),
        rule(["apiextensions.k8s.io"], ["customresourcedefinitions"]),
        rule(["metrics.k8s.io"], ["pods"], ("get", "list")),
        rule(["*"], ["*/scale"], ("get",)),
        rule(group, ["verticalpodautoscalers"]),
        rule(group, ["verticalpodautoscalers/status"], ("get", "patch")),
        rule(group, ["verticalpodautoscalercheckpoints"], _CHANGE),
        rule([""], ["pods", "pods/resize"], ("patch",)),
        rule([""], ["pods/eviction"], ("create",)),
        rule([""], ["events"], ("create", "patch", "update")),
        rule(["admissionregistration.k8s.io"], ["mutatingwebhookconfigurations"], ("create",)),
        {**configurations, "resourceNames": [CONFIGURATION]},
    ]
    yield addon.cluster_role("system:vertical-pod-autoscaler", rules)
    yield addon.cluster_binding("system:vertical-pod-autoscaler", "system:vertical-pod-autoscaler")
    read = rule(group, ["verticalpodautoscalers", "verticalpodautoscalers/status"])
    yield addon.cluster_role("vpa-viewer", [read], aggregated=True)
