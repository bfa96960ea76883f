"""Custom resources with the stock kubectl: define, create, look, explain, scale, apply, refuse, delete."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.harness.nanokube import Cluster, eventually

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "crontabs.stable.example.com"},
    "spec": {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "what is wanted",
                                "properties": {
                                    "cronSpec": {"type": "string", "description": "when to run"},
                                    "replicas": {"type": "integer", "default": 1, "minimum": 0},
                                },
                                "x-kubernetes-validations": [{"rule": "self.replicas < 10", "message": "too many"}],
                            },
                            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                        },
                    }
                },
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                ],
            }
        ],
    },
}
OBJECT = {
    "apiVersion": "stable.example.com/v1",
    "kind": "CronTab",
    "metadata": {"name": "mine"},
    "spec": {"cronSpec": "* * * * *"},
}


@pytest.fixture
def defined(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
    cluster.kubectl("wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=10s")
    yield
    cluster.kubectl("delete", "crd", "crontabs.stable.example.com", "--ignore-not-found")


def test_a_kind_of_our_own(cluster: Cluster, namespace: str, defined: None) -> None:
    told = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(OBJECT))
    assert "crontab.stable.example.com/mine created" in told
    rows = cluster.kubectl("get", "ct", "-n", namespace).splitlines()
    assert rows[0].split() == ["NAME", "SPEC", "REPLICAS"]
    assert rows[1].split() == ["mine", "*", "*", "*", "*", "*", "1"]
    assert "crontab.stable.example.com/mine" in cluster.kubectl("get", "all", "-n", namespace)
    assert "crontabs" in cluster.kubectl("api-resources", "--api-group=stable.example.com")
    assert "when to run" in cluster.kubectl("explain", "crontab.spec.cronSpec")
    cluster.kubectl("scale", "ct/mine", "-n", namespace, "--replicas=3")
    assert cluster.get("ct", "mine", "-n", namespace)["spec"]["replicas"] == 3
    refused = cluster.kubectl("scale", "ct/mine", "-n", namespace, "--replicas=30", check=False)
    assert "too many" in refused
    changed = {**OBJECT, "spec": {"cronSpec": "0 * * * *", "bogus": 1}}
    refused = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(changed), check=False)
    assert 'unknown field "spec.bogus"' in refused
    applied = json.dumps({**OBJECT, "spec": {"cronSpec": "5 * * * *"}})
    cluster.kubectl(
        "apply", "-n", namespace, "--server-side", "--field-manager=e2e", "--force-conflicts", "-f", "-", stdin=applied
    )
    assert cluster.get("ct", "mine", "-n", namespace)["spec"]["cronSpec"] == "5 * * * *"


def test_deleting_the_definition_deletes_the_objects(cluster: Cluster, namespace: str, defined: None) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(OBJECT))
    cluster.kubectl("delete", "crd", "crontabs.stable.example.com", "--timeout=30s")
    eventually(
        # Which of the two it is depends on how old kubectl's own copy of discovery is.
        lambda: any(
            text in cluster.kubectl("get", "crontabs", check=False)
            for text in ("the server doesn't have a resource type", "could not find the requested resource")
        ),
        "the resource type to be gone",
    )
