"""What `up` installs into a cluster besides its processes: the metrics-server's objects, the cloud's rights.

Owns: these objects, as upstream's manifests have them, and their application at every `up`. Starts no process; that
the endpoint is a process of the host, not a pod, is the one difference. Called by `cli.cluster`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from cli.processes import has_cloud, serves_metrics
from cli.rest import AdminClient

Obj = dict[str, Any]
MANAGER = "nanokube"
_RBAC = "rbac.authorization.k8s.io"
_NAME, _NAMESPACE = "metrics-server", "kube-system"
_LABELS = {"k8s-app": _NAME}


def metrics_server(config: ClusterConfig, ca: bytes) -> Iterator[tuple[str, Obj]]:
    """(path of the collection, object). `ca`: PEM of who signed the serving certificate."""
    account = {"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}
    yield f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts", _object("v1", "ServiceAccount", _NAME, _NAMESPACE)
    aggregate = {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("admin", "edit", "view")}
    read = _rule(["metrics.k8s.io"], ["pods", "nodes"], ["get", "list", "watch"])
    yield _cluster_role("system:aggregated-metrics-reader", [read], aggregate)
    scrape = _rule([""], ["nodes/metrics"], ["get"])
    look = _rule([""], ["pods", "nodes"], ["get", "list", "watch"])
    yield _cluster_role("system:metrics-server", [scrape, look])
    reader = _binding("RoleBinding", "metrics-server-auth-reader", "Role", "extension-apiserver-authentication-reader")
    reader["metadata"]["namespace"] = _NAMESPACE
    yield f"/apis/{_RBAC}/v1/namespaces/{_NAMESPACE}/rolebindings", {**reader, "subjects": [account]}
    for name, role in (
        ("metrics-server:system:auth-delegator", "system:auth-delegator"),
        ("system:metrics-server", "system:metrics-server"),
    ):
        binding = _binding("ClusterRoleBinding", name, "ClusterRole", role)
        yield f"/apis/{_RBAC}/v1/clusterrolebindings", {**binding, "subjects": [account]}
    yield from _service(config)
    spec = {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": base64.b64encode(ca).decode(),
        "service": {"name": _NAME, "namespace": _NAMESPACE, "port": _port(config)},
    }
    service = _object("apiregistration.k8s.io/v1", "APIService", "v1beta1.metrics.k8s.io")
    yield "/apis/apiregistration.k8s.io/v1/apiservices", {**service, "spec": spec}


def cloud() -> Iterator[tuple[str, Obj]]:
    """What the cloud may do: look after Nodes, drain them, give Services their addresses."""
    name = "system:cloud-controller-manager"
    rules = [
        _rule([""], ["nodes"], ["get", "list", "watch", "update", "patch", "delete"]),
        _rule([""], ["nodes/status"], ["patch"]),
        _rule([""], ["pods"], ["get", "list", "watch"]),
        _rule([""], ["pods/eviction"], ["create"]),
        _rule([""], ["services"], ["get", "list", "watch", "update", "patch"]),
        _rule([""], ["services/status"], ["update", "patch"]),
        _rule([""], ["events"], ["create", "patch", "update"]),
    ]
    path, role = _cluster_role(name, rules)
    role["metadata"].pop("labels")
    yield path, role
    binding = _binding("ClusterRoleBinding", name, "ClusterRole", name)
    binding["metadata"].pop("labels")
    user = {"apiGroup": _RBAC, "kind": "User", "name": name}
    yield f"/apis/{_RBAC}/v1/clusterrolebindings", {**binding, "subjects": [user]}


def _port(config: ClusterConfig) -> int:
    return 443 if config.has_machines else config.metrics_port


def _service(config: ClusterConfig) -> Iterator[tuple[str, Obj]]:
    """Without machines there is no address that pods could reach, and nobody but the API server to reach it."""
    services = f"/api/v1/namespaces/{_NAMESPACE}/services"
    service = _object("v1", "Service", _NAME, _NAMESPACE)
    if not config.has_machines:
        yield services, {**service, "spec": {"type": "ExternalName", "externalName": "localhost"}}
        return
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "appProtocol": "https", "targetPort": "https"}]
    yield services, {**service, "spec": {"ports": ports}}
    slices = _object("discovery.k8s.io/v1", "EndpointSlice", _NAME, _NAMESPACE)
    slices["metadata"]["labels"] = {
        **_LABELS,
        "kubernetes.io/service-name": _NAME,
        "endpointslice.kubernetes.io/managed-by": MANAGER,
    }
    slices["addressType"] = "IPv4"
    slices["endpoints"] = [{"addresses": [config.host_ip], "conditions": {"ready": True}}]
    slices["ports"] = [{"name": "https", "port": config.metrics_port, "protocol": "TCP", "appProtocol": "https"}]
    yield f"/apis/discovery.k8s.io/v1/namespaces/{_NAMESPACE}/endpointslices", slices


def _object(api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
    meta: Obj = {"name": name, "labels": dict(_LABELS), **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _cluster_role(name: str, rules: list[Obj], labels: dict[str, str] | None = None) -> tuple[str, Obj]:
    role = _object(f"{_RBAC}/v1", "ClusterRole", name)
    role["metadata"]["labels"].update(labels or {})
    return f"/apis/{_RBAC}/v1/clusterroles", {**role, "rules": rules}


def _binding(kind: str, name: str, role_kind: str, role: str) -> Obj:
    reference = {"apiGroup": _RBAC, "kind": role_kind, "name": role}
    return {**_object(f"{_RBAC}/v1", kind, name), "roleRef": reference}


def install(config: ClusterConfig, paths: ClusterPaths, client: AdminClient) -> None:
    """Apply everything. Raises CommandError with the API server's words, or OSError when it does not answer."""
    objects: list[tuple[str, Obj]] = []
    if serves_metrics(config):
        objects += metrics_server(config, (paths.pki / "ca.crt").read_bytes())
    if has_cloud(config):
        objects += cloud()
    for collection, obj in objects:
        path = f"{collection}/{obj['metadata']['name']}?fieldManager={MANAGER}&force=true"
        code, body = client.request("PATCH", path, msgspec.json.encode(obj), "application/apply-patch+yaml")
        if code not in (200, 201):
            raise CommandError(f"{obj['kind']} {obj['metadata']['name']}: {body.decode(errors='replace')}")
