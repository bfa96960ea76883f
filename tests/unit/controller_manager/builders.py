"""Objects as the server would send them, with only what a test cares about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from api.models import apps_v1, core_v1, meta_v1

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def pod(
    name: str,
    *,
    ready: bool = False,
    phase: str = "Running",
    node: str | None = "n1",
    created: float = 0,
    ready_since: float = 0,
    deleted: bool = False,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    ip: str | None = None,
    owner: str | None = None,
    restarts: int = 0,
    tolerations: list[core_v1.Toleration] | None = None,
    ports: dict[str, int] | None = None,
) -> core_v1.Pod:
    conditions = [
        core_v1.PodCondition(type="Ready", status="True" if ready else "False", lastTransitionTime=at(ready_since))
    ]
    references = [
        meta_v1.OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="rs", uid=owner or "", controller=True)
    ]
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            creationTimestamp=at(created),
            deletionTimestamp=at(0) if deleted else None,
            labels=labels or {"app": "web"},
            annotations=annotations,
            ownerReferences=references if owner else None,
        ),
        spec=core_v1.PodSpec(
            containers=[
                core_v1.Container(
                    name="main",
                    ports=[core_v1.ContainerPort(name=n, containerPort=p) for n, p in (ports or {}).items()],
                )
            ],
            nodeName=node,
            tolerations=tolerations,
        ),
        status=core_v1.PodStatus(
            phase=phase,
            conditions=conditions,
            podIP=ip,
            podIPs=[core_v1.PodIP(ip=ip)] if ip else None,
            containerStatuses=[
                core_v1.ContainerStatus(name="main", image="i", imageID="", ready=ready, restartCount=restarts)
            ],
        ),
    )


def node(
    name: str,
    ready: str | None = "True",
    *,
    taints: list[core_v1.Taint] | None = None,
    labels: dict[str, str] | None = None,
    heartbeat: float = 0,
    conditions: dict[str, str] | None = None,
    unschedulable: bool | None = None,
) -> core_v1.Node:
    statuses = {**({"Ready": ready} if ready is not None else {}), **(conditions or {})}
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, uid=f"uid-{name}", labels=labels, creationTimestamp=START),
        spec=core_v1.NodeSpec(taints=taints, unschedulable=unschedulable),
        status=core_v1.NodeStatus(
            conditions=[
                core_v1.NodeCondition(type=type_, status=status, lastHeartbeatTime=at(heartbeat))
                for type_, status in statuses.items()
            ]
        ),
    )


def template(image: str = "nginx:1", **labels: str) -> core_v1.PodTemplateSpec:
    return core_v1.PodTemplateSpec(
        metadata=meta_v1.ObjectMeta(labels={"app": "web", **labels}),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name="main", image=image)]),
    )


def deployment(replicas: int = 3, *, image: str = "nginx:1", **fields: Any) -> apps_v1.Deployment:
    spec = {
        "replicas": replicas,
        "selector": meta_v1.LabelSelector(matchLabels={"app": "web"}),
        "template": template(image),
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
    }
    return apps_v1.Deployment(
        metadata=meta_v1.ObjectMeta(name="web", namespace="default", uid="uid-web", generation=1),
        spec=apps_v1.DeploymentSpec(**{**spec, **fields}),
        status=apps_v1.DeploymentStatus(),
    )


def replica_set(
    name: str,
    replicas: int = 0,
    *,
    image: str = "nginx:1",
    available: int = 0,
    created: float = 0,
    revision: int | None = None,
    annotations: dict[str, str] | None = None,
    observed: bool = True,
) -> apps_v1.ReplicaSet:
    notes = dict(annotations or {})
    if revision is not None:
        notes["deployment.kubernetes.io/revision"] = str(revision)
    return apps_v1.ReplicaSet(
        metadata=meta_v1.ObjectMeta(
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            creationTimestamp=at(created),
            annotations=notes or None,
            generation=1,
        ),
        spec=apps_v1.ReplicaSetSpec(
            replicas=replicas,
            selector=meta_v1.LabelSelector(matchLabels={"app": "web"}),
            template=template(image, **{"pod-template-hash": name}),
        ),
        status=apps_v1.ReplicaSetStatus(
            replicas=replicas,
            availableReplicas=available,
            readyReplicas=available,
            terminatingReplicas=0,
            observedGeneration=1 if observed else 0,
        ),
    )


def service(
    *, ports: list[core_v1.ServicePort] | None = None, headless: bool = False, **fields: Any
) -> core_v1.Service:
    return core_v1.Service(
        metadata=meta_v1.ObjectMeta(name="web", namespace="default", uid="uid-svc"),
        spec=core_v1.ServiceSpec(
            selector={"app": "web"},
            ports=ports if ports is not None else [core_v1.ServicePort(port=80, targetPort=8080, name="http")],
            clusterIP="None" if headless else "10.96.0.10",
            **fields,
        ),
    )
