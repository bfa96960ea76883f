"""Several objects in one `kind: List`, which kubectl validates with OpenAPI v2."""

from __future__ import annotations

import json

from tests.harness.nanokube import Cluster


def test_what_get_prints_can_be_applied(cluster: Cluster, namespace: str) -> None:
    for name in ("one", "two"):
        cluster.kubectl("create", "configmap", name, "-n", namespace, f"--from-literal=name={name}")
    printed = cluster.get("configmaps", "-n", namespace)
    assert printed["kind"] == "List"
    for item in printed["items"]:
        item["metadata"] = {"name": f"{item['metadata']['name']}-again"}
    told = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(printed))
    assert told.count("created") == len(printed["items"])


def test_a_wrong_field_in_a_list_is_refused(cluster: Cluster, namespace: str) -> None:
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "wrong"}, "dota": {"a": "b"}}
    body = {"apiVersion": "v1", "kind": "List", "items": [wrong]}
    told = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body), check=False)
    assert 'unknown field "dota"' in told
