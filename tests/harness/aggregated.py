"""Making an aggregated API server of ours known to the API server of a test: rights, Service, endpoint, APIServices."""

from __future__ import annotations

import base64
from typing import Any

from tests.harness.apiserver import RestClient
from tests.harness.extension import API_SERVICES, until_condition


async def allow(rest: RestClient, name: str, rules: list[dict[str, Any]]) -> None:
    """The account `name` of kube-system may ask who may, and what the rules say."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = f"system:{name}"
    assert (await rest.post(f"{rbac}/clusterroles", {"metadata": {"name": role}, "rules": rules})).status == 201
    account = {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}
    for each in (role, "system:auth-delegator"):
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": each}
        binding = {"metadata": {"name": f"{name}:{each}"}, "subjects": [account], "roleRef": reference}
        assert (await rest.post(f"{rbac}/clusterrolebindings", binding)).status == 201


async def register(rest: RestClient, name: str, host: str, port: int, ca: bytes, *api_versions: str) -> None:
    """A Service with one endpoint, and the group versions it serves; returns when all are available."""
    meta = {"name": name, "namespace": "kube-system"}
    service = {"metadata": meta, "spec": {"ports": [{"name": "https", "port": 443}]}}
    assert (await rest.post("/api/v1/namespaces/kube-system/services", service)).status == 201
    slices = {
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host]}],
        "ports": [{"name": "https", "port": port}],
    }
    assert (await rest.post("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", slices)).status == 201
    for each in api_versions:
        group, _, version = each.rpartition("/")
        spec = {
            "group": group,
            "version": version,
            "service": {"namespace": "kube-system", "name": name},
            "caBundle": base64.b64encode(ca).decode(),
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        answer = await rest.post(API_SERVICES, {"metadata": {"name": f"{version}.{group}"}, "spec": spec})
        assert answer.status == 201
    for each in api_versions:
        group, _, version = each.rpartition("/")
        await until_condition(rest, "Passed", f"{version}.{group}")
