"""`kubectl apply`, from the server's side and in turn with the client's."""

from __future__ import annotations

import json
from typing import Any

from tests.harness.nanokube import Cluster


def manifest(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data}


def test_apply_by_client_and_server(cluster: Cluster, namespace: str) -> None:
    def apply(config: dict[str, Any], *options: str, check: bool = True) -> str:
        return cluster.kubectl("apply", "-n", namespace, "-f", "-", *options, stdin=json.dumps(config), check=check)

    def found() -> dict[str, Any]:
        obj: dict[str, Any] = cluster.get("configmap", "settings", "-n", namespace, "--show-managed-fields")
        return obj

    assert "created" in apply(manifest(a="1", b="2"))
    assert found()["metadata"]["managedFields"][0]["manager"] == "kubectl-client-side-apply"
    assert "serverside-applied" in apply(manifest(a="9"), "--server-side")
    assert found()["data"] == {"a": "9"}
    assert "configured" in apply(manifest(a="8"))
    other = ("--server-side", "--field-manager=other")
    refused = apply(manifest(a="7"), *other, check=False)
    assert 'conflict with "kubectl' in refused and ".data.a" in refused
    assert "serverside-applied" in apply(manifest(a="7"), *other, "--force-conflicts")
    assert found()["data"] == {"a": "7"}
    assert {entry["manager"]: entry["operation"] for entry in found()["metadata"]["managedFields"]}["other"] == "Apply"
