"""The example manifests of the field, applied unchanged but for image names (and storage made by hand)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.objects import wait_ready
from tests.harness.api import Api
from tests.harness.nanokube import Cluster, eventually

HERE = Path(__file__).parent


def test_replicaset(cluster: Cluster, api: Api, namespace: str) -> None:
    labels = {"tier": "frontend"}
    assert "created" in cluster.kubectl("apply", "-n", namespace, "-f", str(HERE / "replicaset.yaml"))
    first, *_ = wait_ready(api, namespace, labels, 3)
    assert re.match(r"frontend +3 +3 +3 ", cluster.kubectl("get", "rs", "-n", namespace, "--no-headers"))
    pods = api.of("v1", "pods", namespace)
    pods.delete(first["metadata"]["name"])
    eventually(lambda: not pods.exists(first["metadata"]["name"]), "the end within the grace period")
    assert first["metadata"]["name"] not in {each["metadata"]["name"] for each in wait_ready(api, namespace, labels, 3)}
    cluster.kubectl("scale", "rs/frontend", "-n", namespace, "--replicas=1")
    wait_ready(api, namespace, labels, 1)


@pytest.fixture
def volumes(api: Api, namespace: str, tmp_path: Path) -> Iterator[None]:
    """Two volumes of one node's disk, for claims of the class `by-hand`."""
    kind = api.of("v1", "persistentvolumes")
    names = [f"{namespace}-{number}" for number in range(2)]
    for name in names:
        kind.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "16Mi"},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "by-hand",
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": f"/var/tmp/{name}", "type": "DirectoryOrCreate"},
                    "nodeAffinity": {
                        "required": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["worker-2"]}
                                    ]
                                }
                            ]
                        }
                    },
                },
            }
        )
    yield
    for name in names:
        kind.delete(name)


def test_statefulset_keeps_names_and_data(cluster: Cluster, api: Api, namespace: str, volumes: None) -> None:
    labels = {"app": "nginx"}
    cluster.kubectl("apply", "-n", namespace, "-f", str(HERE / "statefulset.yaml"))
    pods, claims = api.of("v1", "pods", namespace), api.of("v1", "persistentvolumeclaims", namespace)
    names = [each["metadata"]["name"] for each in wait_ready(api, namespace, labels, 2)]
    assert names == ["web-0", "web-1"]
    assert sorted(claims.names()) == ["www-web-0", "www-web-1"]
    assert all(claims.get(name)["status"]["phase"] == "Bound" for name in claims.names())
    page = ("exec", "-n", namespace, "web-1", "--", "cat", "/www/index.html")
    assert cluster.kubectl(*page) == "web-1\n"
    cluster.kubectl("exec", "-n", namespace, "web-1", "--", "sh", "-c", "echo kept > /www/index.html")
    uid = pods.get("web-1")["metadata"]["uid"]
    pods.delete("web-1")
    eventually(
        lambda: [each["metadata"]["uid"] for each in wait_ready(api, namespace, labels, 2)][1] != uid,
        "web-1 by the same name",
    )
    assert cluster.kubectl(*page) == "kept\n"
    cluster.kubectl("delete", "statefulset", "web", "-n", namespace)
    wait_ready(api, namespace, labels, 0)
    assert sorted(claims.names()) == ["www-web-0", "www-web-1"], "claims outlive their StatefulSet"


def test_autoscaled_deployment(cluster: Cluster, api: Api, namespace: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", str(HERE / "autoscaled.yaml"))
    (pod,) = wait_ready(api, namespace, {"run": "php-apache"}, 1)
    assert pod["status"]["qosClass"] == "Burstable"
    shown = cluster.kubectl("get", "hpa", "-n", namespace, "--no-headers")
    assert re.match(r"php-apache +Deployment/php-apache +cpu: \S+/50% +1 +10 +\d+ ", shown)
    described = cluster.kubectl("describe", "hpa", "php-apache", "-n", namespace)
    assert re.search(r"resource cpu on pods +\(as a percentage of request\): +.* / 50%", described), described
