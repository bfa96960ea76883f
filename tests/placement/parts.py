"""Short ways to write the objects of a cluster's shape, as plain Kubernetes objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Object = dict[str, Any]
ZONE: Final = "topology.kubernetes.io/zone"
HOSTNAME: Final = "kubernetes.io/hostname"
PULLED: Final = {
    "busybox": 4_000_000,
    "nginx:1.27": 190_000_000,
    "registry.k8s.io/e2e-test-images/agnhost:2.53": 140_000_000,
}


def node(
    name: str,
    cpu: str = "4",
    memory: str = "8Gi",
    *,
    pods: int = 110,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[str] = (),
    images: Mapping[str, int] | None = None,
    unschedulable: bool = False,
    offered: Mapping[str, str] | None = None,
) -> Object:
    """A node that is ready. `taints` are written key=value:effect; `offered` are extended resources."""
    capacity = {"cpu": cpu, "memory": memory, "pods": str(pods), "ephemeral-storage": "100Gi"}
    capacity |= offered or {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {HOSTNAME: name, "kubernetes.io/os": "linux", **(labels or {})}},
        "spec": {"taints": [_taint(each) for each in taints], "unschedulable": unschedulable},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "images": [
                {"names": [f"{name}{'' if ':' in name else ':latest'}"], "sizeBytes": size}
                for name, size in (images or {}).items()
            ],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def _taint(text: str) -> Object:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}


def zoned(count: int, zones: Sequence[str], prefix: str = "n", **rest: Any) -> list[Object]:
    """Nodes that lie in the zones in turn."""
    labels = rest.pop("labels", {})
    return [
        node(f"{prefix}{index}", labels={ZONE: zones[index % len(zones)], **labels}, **rest) for index in range(count)
    ]


def spec(
    cpu: str = "100m", memory: str = "128Mi", *, image: str = "busybox", ports: Sequence[int] = (), **rest: Any
) -> Object:
    """A pod's spec with one container. `more` are further requests."""
    more = rest.pop("more", {})
    container: Object = {
        "name": "app",
        "image": image,
        "resources": {"requests": {"cpu": cpu, "memory": memory, **more}},
    }
    if more:
        container["resources"]["limits"] = dict(more)
    if ports:
        container["ports"] = [{"containerPort": number, "hostPort": number} for number in ports]
    return {"containers": [container], "terminationGracePeriodSeconds": 600, **rest}


def pod(
    name: str, given: Object | None = None, *, labels: Mapping[str, str] | None = None, namespace: str = "default"
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": given if given is not None else spec(),
    }


def workload(
    kind: str,
    name: str,
    replicas: int,
    given: Object,
    *,
    labels: Mapping[str, str] | None = None,
    namespace: str = "default",
    **rest: Any,
) -> Object:
    """A Deployment, StatefulSet, ReplicaSet or (with 0 replicas) DaemonSet whose pods are labelled app: its name."""
    own = {"app": name, **(labels or {})}
    sized = {} if kind == "DaemonSet" else {"replicas": replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            **sized,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": own}, "spec": given},
            **rest,
        },
    }


def service(name: str, namespace: str = "default") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    }


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def priority(name: str, value: int, **rest: Any) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        **rest,
    }


def selecting(**labels: str) -> Object:
    return {"matchLabels": labels}


def expression(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def near(key: str, *, weight: int = 0, apart: bool = False, **labels: str) -> Object:
    """Affinity (or anti-affinity, `apart`) to pods with the labels; required without a weight."""
    term: Object = {"topologyKey": key, "labelSelector": selecting(**labels)}
    kind = "podAntiAffinity" if apart else "podAffinity"
    if weight:
        return {
            kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}
        }
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def on_nodes(required: Sequence[Object] = (), preferred: Sequence[tuple[int, Object]] = ()) -> Object:
    """Node affinity: one required term of these expressions, and weighted expressions."""
    found: Object = {}
    if required:
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": list(required)}]
        }
    if preferred:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": weight, "preference": {"matchExpressions": [each]}} for weight, each in preferred
        ]
    return {"nodeAffinity": found}


def spread(key: str, skew: int, app: str, *, hard: bool = True, **rest: Any) -> Object:
    when = "DoNotSchedule" if hard else "ScheduleAnyway"
    return {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selecting(app=app), **rest}


def tolerating(key: str, effect: str = "") -> Object:
    return {"key": key, "operator": "Exists", **({"effect": effect} if effect else {})}


def storage_class(name: str, provisioner: str, *, delayed: bool = True) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer" if delayed else "Immediate",
    }


def volume(
    name: str, size: str, class_: str, source: Object, *, where: Object | None = None, claim: str = "", **labels: str
) -> Object:
    """A PersistentVolume; `where` is a node selector expression, `claim` the claim it is set aside for."""
    made: Object = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_,
        "persistentVolumeReclaimPolicy": "Retain",
        **source,
    }
    if where is not None:
        made["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [where]}]}}
    if claim:
        made["claimRef"] = {"namespace": "default", "name": claim}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": labels}, "spec": made}


def claim(name: str, size: str, class_: str, *, volume: str = "", mode: str = "ReadWriteOnce") -> Object:
    made: Object = {"accessModes": [mode], "resources": {"requests": {"storage": size}}, "storageClassName": class_}
    if volume:
        made["volumeName"] = volume
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": made,
    }


def claiming(*names: str) -> list[Object]:
    return [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in names]
