"""Disks of the cloud under a StatefulSet: data follows the pod, one node at a time, growth, and a node that dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linux import loop
from tests.harness.nanokube import STATE, Cluster, brought_up, eventually, traces

ATTACHMENTS = "volumeattachments.storage.k8s.io"
GIB = 1 << 30


@pytest.fixture(scope="module")
def disks(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers with a block driver; a dead one is given up within seconds."""
    made = Cluster("e2e-disks", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "3", "--time-scale", "20", "--block-volumes")
    assert traces(made) == []


def container(command: str) -> dict[str, Any]:
    mounts = [{"name": "data", "mountPath": "/data"}]
    return {"name": "main", "image": "busybox", "command": ["sh", "-c", command], "volumeMounts": mounts}


def stateful_set(command: str) -> str:
    spec = {"containers": [container(command)], "terminationGracePeriodSeconds": 0}
    wanted = {"storageClassName": "block", "accessModes": ["ReadWriteOnce"]}
    claim = {
        "metadata": {"name": "data"},
        "spec": {**wanted, "resources": {"requests": {"storage": "1Gi"}}},
    }
    labels = {"app": "db"}
    body = {
        "serviceName": "db",
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": spec},
        "volumeClaimTemplates": [claim],
    }
    return json.dumps({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": body})


def second_pod(node: str) -> str:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}
    spec = {
        "nodeName": node,
        "containers": [container("sleep 1000000")],
        "volumes": [volume],
        "terminationGracePeriodSeconds": 0,
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "second"}, "spec": spec})


def ready(cluster: Cluster) -> dict[str, Any]:
    """The one pod, when it is ready."""
    return eventually(lambda: cluster.running("app=db"), "db-0 to be ready")[0]


def read(cluster: Cluster, what: str) -> str:
    return cluster.kubectl("exec", "db-0", "--", "sh", "-c", what).strip()


def events(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    found = cluster.items("events", "--field-selector", f"involvedObject.name={name}")
    return [(each["reason"], each["message"].strip()) for each in found]


def attached(cluster: Cluster) -> dict[str, bool]:
    """Node -> whether it is attached there."""
    return {
        each["spec"]["nodeName"]: bool((each.get("status") or {}).get("attached"))
        for each in cluster.items(ATTACHMENTS)
    }


def volumes(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.nanokube("cloud", "volumes", "-o", "json")).get("volumes", [])
    return found


def test_a_disk_and_its_pod(disks: Cluster) -> None:
    disks.kubectl("create", "-f", "-", stdin=stateful_set("echo $(hostname) >> /data/log; exec sleep 1000000"))
    first = ready(disks)
    node = first["spec"]["nodeName"]
    assert read(disks, "cat /data/log") == "db-0"
    claim = disks.get("pvc", "data-db-0")
    volume = disks.get("pv", claim["spec"]["volumeName"])
    term = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["local-a"]}
    assert volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] == [{"matchExpressions": [term]}]
    name = volume["metadata"]["name"]
    assert ("SuccessfulAttachVolume", f'AttachVolume.Attach succeeded for volume "{name}"') in events(disks, "db-0")
    disk = volumes(disks)[0]
    assert (disk["name"], disk["state"], disk["instance"]) == (name, "in-use", node)
    assert attached(disks) == {node: True}

    # A pod elsewhere has to wait for it, and is told why.
    other = min(disks.ready_nodes() - {node})
    disks.kubectl("create", "-f", "-", stdin=second_pod(other))

    def refused() -> str:
        return next((text for reason, text in events(disks, "second") if reason == "FailedAttachVolume"), "")

    told = eventually(refused, "the second pod to be refused the disk")
    assert told.startswith(f'Multi-Attach error for volume "{name}"')
    assert told.endswith("Volume is already used by pod(s) db-0")
    disks.kubectl("delete", "pod", "second")

    # The pod goes to another node, its disk goes with it, whoever dies meanwhile.
    disks.kubectl("cordon", node)
    for component, where in (("cloud", ""), ("csi-controllers", ""), ("block-driver", ""), ("block-driver", node)):
        os.kill(disks.pid(component, where), signal.SIGKILL)
    disks.kubectl("delete", "pod", "db-0")
    moved = eventually(lambda: [each for each in disks.running("app=db") if each["spec"]["nodeName"] != node], "a move")
    assert read(disks, "cat /data/log") == "db-0\ndb-0"
    assert attached(disks) == {moved[0]["spec"]["nodeName"]: True}
    disks.kubectl("uncordon", node)

    # It grows while it is used, as far as the machine allows that.
    patch = json.dumps({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    disks.kubectl("patch", "pvc", "data-db-0", "-p", patch)
    eventually(lambda: disks.get("pv", name)["spec"]["capacity"]["storage"] == "2Gi", "the volume to grow")
    eventually(lambda: disks.get("pvc", "data-db-0")["status"]["capacity"]["storage"] == "2Gi", "the claim to grow")
    if loop.available():
        blocks = int(read(disks, "df -k /data | tail -n 1 | awk '{print $2}'"))
        assert blocks * 1024 > 1.5 * GIB

    # Its node dies; when somebody has said so, the disk is taken from it and the pod starts elsewhere.
    dead = ready(disks)["spec"]["nodeName"]
    read(disks, "echo saved >> /data/log; sync")
    disks.nanokube("node", "kill", dead)
    eventually(lambda: dead not in disks.ready_nodes(), "the node to turn NotReady")
    disks.kubectl("taint", "node", dead, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
    survivor = eventually(
        lambda: [each for each in disks.running("app=db") if each["spec"]["nodeName"] != dead], "the pod elsewhere"
    )
    assert read(disks, "cat /data/log") == "db-0\ndb-0\nsaved\ndb-0"
    assert attached(disks) == {survivor[0]["spec"]["nodeName"]: True}
    disks.nanokube("node", "start", dead)
    disks.kubectl("taint", "node", dead, "node.kubernetes.io/out-of-service-")
    eventually(lambda: dead in disks.ready_nodes(), "the node to come back")

    # With the claim goes the disk.
    disks.kubectl("delete", "statefulset/db", "pvc/data-db-0")
    eventually(lambda: not disks.items("pv"), "the volume to go", timeout=90)
    assert not volumes(disks)
    assert not list(Path(STATE, disks.name, "volumes").glob("*"))
    assert "(volumes)" in disks.nanokube("cloud", "cost"), "what it has cost is not forgotten"
