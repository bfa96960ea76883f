"""Fields that upstream writes as null when nothing is set.

Owns the table: Go's plain times (not pointers to times) and lists without `omitempty`. The API server fills them in
(`registry.defaults.canonical`) and whoever sets the object owns them (`apply.shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping

_TRANSITION = ("lastTransitionTime",)
_PROBE = ("lastProbeTime", "lastTransitionTime")
_UPDATE = ("lastTransitionTime", "lastUpdateTime")

NULLS: Mapping[str, tuple[str, ...]] = {
    "io.k8s.api.apps.v1.DaemonSetCondition": _TRANSITION,
    "io.k8s.api.apps.v1.DeploymentCondition": _UPDATE,
    "io.k8s.api.apps.v1.ReplicaSetCondition": _TRANSITION,
    "io.k8s.api.apps.v1.StatefulSetCondition": _TRANSITION,
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerCondition": _TRANSITION,
    "io.k8s.api.batch.v1.JobCondition": _PROBE,
    "io.k8s.api.core.v1.ContainerStateRunning": ("startedAt",),
    "io.k8s.api.core.v1.ContainerStateTerminated": ("startedAt", "finishedAt"),
    "io.k8s.api.core.v1.NamespaceCondition": _TRANSITION,
    "io.k8s.api.core.v1.NodeCondition": ("lastHeartbeatTime", "lastTransitionTime"),
    "io.k8s.api.core.v1.PersistentVolumeClaimCondition": _PROBE,
    "io.k8s.api.core.v1.PodCondition": _PROBE,
    "io.k8s.api.core.v1.ReplicationControllerCondition": _TRANSITION,
    "io.k8s.api.core.v1.ContainerImage": ("names",),
    "io.k8s.api.core.v1.ProjectedVolumeSource": ("sources",),
    "io.k8s.api.flowcontrol.v1.FlowSchemaCondition": _TRANSITION,
    "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationCondition": _TRANSITION,
    "io.k8s.api.storage.v1.CSINodeDriver": ("topologyKeys",),
    "io.k8s.api.storage.v1.VolumeError": ("time",),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionCondition": _TRANSITION,
    "io.k8s.apimachinery.pkg.apis.meta.v1.Condition": _TRANSITION,
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceCondition": _TRANSITION,
}
"""Fields by definition."""
