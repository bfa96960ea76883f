"""Volumes on a real cluster: a StatefulSet's data outlives its pods, stays on its node, and goes with its claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.objects import headless, pod, wait_ready, workload
from tests.harness.api import Api, Obj
from tests.harness.nanokube import STATE, Cluster, eventually

LABELS = {"app": "db"}
MAIN = {
    "name": "main",
    "image": "busybox",
    "command": ["sh", "-c", "trap 'exit 0' TERM; hostname >> /data/log; while :; do sleep 3600 & wait $!; done"],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
}


def claim_spec(size: str = "16Mi") -> Obj:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


def database(replicas: int = 2, **spec: object) -> Obj:
    made = workload(
        "StatefulSet",
        "db",
        LABELS,
        MAIN,
        serviceName="db",
        replicas=replicas,
        volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": claim_spec()}],
        **spec,
    )
    return made


def log_of(cluster: Cluster, namespace: str, name: str) -> list[str]:
    return cluster.kubectl("exec", "-n", namespace, name, "--", "cat", "/data/log").split()


def folder_of(api: Api, namespace: str, claim: str) -> Path:
    name = api.of("v1", "persistentvolumeclaims", namespace).get(claim)["spec"]["volumeName"]
    return Path(api.of("v1", "persistentvolumes").get(name)["spec"]["local"]["path"])


def the_pod(api: Api, namespace: str, name: str) -> Obj:
    """{} while there is none."""
    return next((each for each in api.of("v1", "pods", namespace).list() if each["metadata"]["name"] == name), {})


def refusal(api: Api, namespace: str, name: str) -> str:
    """The message of a pod that is not scheduled, "" while there is none."""
    conditions = the_pod(api, namespace, name).get("status", {}).get("conditions", ())
    return next((each.get("message", "") for each in conditions if each["type"] == "PodScheduled"), "")


@pytest.fixture
def sets(api: Api, namespace: str) -> Obj:
    return api.of("v1", "services", namespace).create(headless("db", LABELS))


class TestStatefulSet:
    def test_data_outlives_pods_and_goes_with_its_claims(
        self, api: Api, cluster: Cluster, namespace: str, sets: Obj
    ) -> None:
        policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
        objects, pods = api.of("apps/v1", "statefulsets", namespace), api.of("v1", "pods", namespace)
        claims = api.of("v1", "persistentvolumeclaims", namespace)
        objects.create(database(persistentVolumeClaimRetentionPolicy=policy))
        wait_ready(api, namespace, LABELS, 2)
        first = pods.get("db-1")
        home, uid = first["spec"]["nodeName"], first["metadata"]["uid"]
        folder = folder_of(api, namespace, "data-db-1")
        assert folder.is_relative_to(STATE) and home in folder.parts
        pods.delete("db-1")
        eventually(lambda: the_pod(api, namespace, "db-1").get("metadata", {"uid": uid})["uid"] != uid, "another db-1")
        wait_ready(api, namespace, LABELS, 2)
        assert pods.get("db-1")["spec"]["nodeName"] == home
        assert log_of(cluster, namespace, "db-1") == ["db-1", "db-1"]

        objects.patch("db", {"spec": {"replicas": 1}})
        eventually(lambda: claims.names() == ["data-db-0"], "the claim of the pod that went", 60)
        eventually(lambda: not folder.exists(), "its folder gone", 60)
        objects.delete("db")
        eventually(lambda: not claims.names(), "no claims", 60)

    def test_a_pod_waits_for_the_node_that_has_its_volume(
        self, api: Api, cluster: Cluster, namespace: str, sets: Obj
    ) -> None:
        api.of("apps/v1", "statefulsets", namespace).create(database(1))
        wait_ready(api, namespace, LABELS, 1)
        pods = api.of("v1", "pods", namespace)
        home = pods.get("db-0")["spec"]["nodeName"]
        cluster.kubectl("cordon", home)
        try:
            pods.delete("db-0")
            wanted = "2 node(s) didn't match PersistentVolume's node affinity"
            eventually(lambda: wanted in refusal(api, namespace, "db-0"), wanted)
            assert "VolumeBinding" in cluster.nanokube("explain", "pod", "db-0", "-n", namespace)
        finally:
            cluster.kubectl("uncordon", home)
        wait_ready(api, namespace, LABELS, 1)
        assert pods.get("db-0")["spec"]["nodeName"] == home
        assert log_of(cluster, namespace, "db-0") == ["db-0", "db-0"]
        api.of("apps/v1", "statefulsets", namespace).delete("db")
        api.of("v1", "persistentvolumeclaims", namespace).delete_all()


def test_pods_wait_for_claims_and_read_only_means_it(api: Api, cluster: Cluster, namespace: str) -> None:
    """An Immediate claim that nobody binds holds the pod; a volume comes, and the pod writes as its fsGroup."""
    claims, volumes = api.of("v1", "persistentvolumeclaims", namespace), api.of("v1", "persistentvolumes")
    pods = api.of("v1", "pods", namespace)
    claims.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "late"},
            "spec": {**claim_spec(), "storageClassName": namespace},
        }
    )
    main = {**MAIN, "command": ["sh", "-c", "id -u > /data/who; sleep 3600"]}
    context = {"runAsUser": 1000, "fsGroup": 2000}
    source = {"name": "data", "persistentVolumeClaim": {"claimName": "late"}}
    pods.create(pod("late", main=main, volumes=[source], securityContext=context))
    unbound = "pod has unbound immediate PersistentVolumeClaims"
    eventually(lambda: unbound in refusal(api, namespace, "late"), unbound)
    volumes.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"},
                "storageClassName": namespace,
                "hostPath": {"path": f"/tmp/{namespace}", "type": "DirectoryOrCreate"},
            },
        }
    )
    try:
        eventually(lambda: pods.get("late")["status"].get("phase") == "Running", "the pod running")
        reader = {**MAIN, "command": ["sh", "-c", "touch /data/x 2>&1; echo $?; sleep 3600"]}
        source["persistentVolumeClaim"]["readOnly"] = True  # type: ignore[index]
        pods.create(pod("reader", main=reader, volumes=[source]))
        refused = "touch: /data/x: Read-only file system\n1"
        eventually(lambda: cluster.kubectl("logs", "-n", namespace, "reader", check=False).strip() == refused, refused)
    finally:
        pods.delete_all()
        claims.delete("late")
        eventually(lambda: not pods.names(), "no pods")
        volumes.delete(namespace)
        folder = Path(f"/tmp/{namespace}")
        for each in folder.glob("*") if folder.is_dir() else ():
            each.unlink()
        folder.rmdir()
