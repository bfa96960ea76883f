"""Kubernetes objects that make a process of the host known to its cluster: account, roles, Service, APIService.

Owns: their forms, as upstream's manifests have them. Called by `cli.addons` and `cli.monitoring`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from cli.layout import ClusterConfig

Obj = dict[str, Any]
Placed = tuple[str, Obj]
"""The path of the collection, and the object."""
MANAGER = "nanokube"
NAMESPACE = "kube-system"
RBAC = "rbac.authorization.k8s.io"
READ = ("get", "list", "watch")


def rule(groups: list[str], resources: list[str], verbs: tuple[str, ...] = READ, name: str = "") -> Obj:
    """`name`: of the one object that it is about."""
    made: Obj = {"apiGroups": groups, "resources": resources, "verbs": list(verbs)}
    return {**made, "resourceNames": [name]} if name else made


def election(lease: str) -> list[Obj]:
    """What a candidate may do: nothing to the Leases of others, by which nodes live and leaders lead."""
    leases = ["coordination.k8s.io"], ["leases"]
    return [rule(*leases, ("create",)), rule(*leases, ("get", "update", "patch"), lease)]


class Addon:
    """The objects of one process: all bear its name and label, and lie in kube-system."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._labels = {"k8s-app": name}

    def _object(self, api_version: str, kind: str, name: str = "", *, namespaced: bool = False) -> Obj:
        meta: Obj = {"name": name or self.name, "labels": dict(self._labels)}
        if namespaced:
            meta["namespace"] = NAMESPACE
        return {"apiVersion": api_version, "kind": kind, "metadata": meta}

    def account(self) -> Placed:
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        return path, self._object("v1", "ServiceAccount", namespaced=True)

    def cluster_role(self, name: str, rules: list[Obj], *, aggregated: bool = False) -> Placed:
        """`aggregated`: the roles admin, edit and view have it too."""
        role = self._object(f"{RBAC}/v1", "ClusterRole", name)
        if aggregated:
            role["metadata"]["labels"] |= {f"{RBAC}/aggregate-to-{each}": "true" for each in ("admin", "edit", "view")}
        return f"/apis/{RBAC}/v1/clusterroles", {**role, "rules": rules}

    def cluster_binding(self, name: str, role: str) -> Placed:
        """The role for the account."""
        return f"/apis/{RBAC}/v1/clusterrolebindings", self._binding("ClusterRoleBinding", name, "ClusterRole", role)

    def auth_reader(self, name: str) -> Placed:
        """May read what the API server tells aggregated servers about authentication."""
        bound = self._binding("RoleBinding", name, "Role", "extension-apiserver-authentication-reader")
        bound["metadata"]["namespace"] = NAMESPACE
        return f"/apis/{RBAC}/v1/namespaces/{NAMESPACE}/rolebindings", bound

    def _binding(self, kind: str, name: str, role_kind: str, role: str) -> Obj:
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": NAMESPACE}
        reference = {"apiGroup": RBAC, "kind": role_kind, "name": role}
        return {**self._object(f"{RBAC}/v1", kind, name), "roleRef": reference, "subjects": [subject]}

    def service(self, config: ClusterConfig, port: int) -> Iterator[Placed]:
        """Without machines there is no address that pods could reach, and nobody but the API server to reach it."""
        services = f"/api/v1/namespaces/{NAMESPACE}/services"
        made = self._object("v1", "Service", namespaced=True)
        if not config.has_machines:
            yield services, {**made, "spec": {"type": "ExternalName", "externalName": "localhost"}}
            return
        ports = [{"name": "https", "port": 443, "protocol": "TCP", "appProtocol": "https", "targetPort": "https"}]
        yield services, {**made, "spec": {"ports": ports}}
        slices = self._object("discovery.k8s.io/v1", "EndpointSlice", namespaced=True)
        slices["metadata"]["labels"] |= {
            "kubernetes.io/service-name": self.name,
            "endpointslice.kubernetes.io/managed-by": MANAGER,
        }
        slices["addressType"] = "IPv4"
        slices["endpoints"] = [{"addresses": [config.host_ip], "conditions": {"ready": True}}]
        slices["ports"] = [{"name": "https", "port": port, "protocol": "TCP", "appProtocol": "https"}]
        yield f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices", slices

    def api_service(self, config: ClusterConfig, port: int, api_version: str, priority: int, ca: bytes) -> Placed:
        """A group version that the process serves. `ca`: PEM of who signed its certificate."""
        group, _, version = api_version.rpartition("/")
        made = self._object("apiregistration.k8s.io/v1", "APIService", f"{version}.{group}")
        made["spec"] = {
            "group": group,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": priority,
            "caBundle": base64.b64encode(ca).decode(),
            "service": {
                "name": self.name,
                "namespace": NAMESPACE,
                "port": 443 if config.has_machines else port,
            },
        }
        return "/apis/apiregistration.k8s.io/v1/apiservices", made
