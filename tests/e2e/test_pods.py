"""What a pod sees and what its watcher sees: identity, volumes, its API token, probes, restarts, refused commands."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.harness.nanokube import Cluster, eventually, kubectl

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def pod(name: str, script: str, **spec: Any) -> str:
    """A manifest of one container; `container` adds to it, everything else to the pod's spec."""
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", script], **spec.pop("container", {})}
    metadata = {"name": name, "labels": {"app": name}}
    body = {"containers": [container], "terminationGracePeriodSeconds": 2, **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})


def start(cluster: Cluster, namespace: str, name: str, script: str, **spec: Any) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=pod(name, script, **spec))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=30s")


def shell(cluster: Cluster, namespace: str, name: str, script: str) -> str:
    return cluster.kubectl("exec", "-n", namespace, name, "--", "sh", "-c", script)


def test_commands_run_as_the_containers_user(cluster: Cluster, namespace: str) -> None:
    security = {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000}
    own = {
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volumes = [{"name": "data", "emptyDir": {}}]
    start(cluster, namespace, "p", FOREVER, securityContext=security, container=own, volumes=volumes)
    told = shell(
        cluster, namespace, "p", "id -u; id -G; grep NoNewPrivs /proc/self/status; touch /data/x; stat -c %u:%g /data/x"
    )
    assert told.split() == ["1000", "3000", "2000", "NoNewPrivs:", "1", "1000:2000"]
    assert "Read-only file system" in cluster.kubectl("exec", "-n", namespace, "p", "--", "touch", "/x", check=False)


def test_a_pod_asks_the_api_server_with_its_token(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, "p", FOREVER)
    ask = (
        "cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; echo; "
        'wget -q -O - --no-check-certificate --header "Authorization: Bearer $(cat token)" '
        "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT{} 2>&1 || true"
    )
    told = shell(cluster, namespace, "p", ask.format("/version"))
    assert told.splitlines()[0] == namespace
    assert '"major"' in told
    assert "403" in shell(cluster, namespace, "p", ask.format(f"/api/v1/namespaces/{namespace}/pods"))


def test_environment_and_volumes_follow_their_sources(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "settings", "-n", namespace, "--from-literal=a=1")
    cluster.kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=k=hidden")
    own = {
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "BOTH", "value": "$(POD)-$(NOPE)"},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "S_"}],
        "resources": {"limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": "all", "mountPath": "/all"}],
    }
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "keys", "items": [{"key": "k", "path": "deep/k"}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    start(cluster, namespace, "p", FOREVER, container=own, volumes=[{"name": "all", "projected": {"sources": sources}}])
    told = shell(cluster, namespace, "p", "echo $POD $BOTH $MEMORY $S_a; cat /all/a /all/deep/k /all/labels")
    first, second, *zone = told.split("\n")  # pods are told where they are by labels of their node
    assert (first, second) == ("p p-$(NOPE) 64 1", '1hiddenapp="p"')
    assert all(line.startswith("topology.kubernetes.io/") for line in zone)
    cluster.kubectl("patch", "configmap", "settings", "-n", namespace, "-p", '{"data":{"a":"2"}}')
    cluster.kubectl(
        "label", "pod", "p", "-n", namespace, "tier=front"
    )  # a change of the pod makes the kubelet look now
    eventually(lambda: shell(cluster, namespace, "p", "cat /all/a") == "2", "the new value")
    eventually(lambda: 'tier="front"' in shell(cluster, namespace, "p", "cat /all/labels"), "the label")


def test_readiness_moves_a_pod_out_of_its_service_and_back(cluster: Cluster, namespace: str) -> None:
    probe = {"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    start(cluster, namespace, "p", f"touch /tmp/ok; {FOREVER}", container={"readinessProbe": probe})
    cluster.kubectl("expose", "pod", "p", "-n", namespace, "--port=80")

    def ready() -> list[bool]:
        slices = cluster.items("endpointslices", "-n", namespace, "-l", "kubernetes.io/service-name=p")
        return [each["conditions"]["ready"] for one in slices for each in one.get("endpoints") or ()]

    eventually(lambda: ready() == [True], "the endpoint")
    shell(cluster, namespace, "p", "rm /tmp/ok")
    eventually(lambda: ready() == [False], "the endpoint to leave")
    shell(cluster, namespace, "p", "touch /tmp/ok")
    eventually(lambda: ready() == [True], "the endpoint to return")
    restarts = cluster.get("pod", "p", "-n", namespace)["status"]["containerStatuses"][0]["restartCount"]
    assert restarts == 0


def test_a_watcher_sees_a_crash_as_upstream_tells_it(cluster: Cluster, namespace: str) -> None:
    watch = subprocess.Popen(
        [kubectl(), "get", "pods", "-n", namespace, "--watch", "--no-headers"],
        env=cluster.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=pod("p", "sleep 0.5; exit 1"))

        def restarts() -> int:
            statuses = cluster.get("pod", "p", "-n", namespace)["status"].get("containerStatuses") or [{}]
            return int(statuses[0].get("restartCount", 0))

        eventually(lambda: restarts() >= 2, "the second restart")
    finally:
        watch.terminate()
        printed, _ = watch.communicate(timeout=10)
    lines = [(parts[2], parts[3]) for line in printed.splitlines() if (parts := line.split())]
    seen = [each for index, each in enumerate(lines) if index == 0 or lines[index - 1] != each]
    while seen and seen[0][0] in ("Pending", "ContainerCreating"):
        seen.pop(0)
    seen = [each for each in seen if each != ("Error", "1")]  # shown or not, by the moment of the kubelet's look
    assert seen[:5] == [
        ("Running", "0"), ("Error", "0"), ("Running", "1"), ("CrashLoopBackOff", "1"), ("Running", "2"),
    ]  # fmt: skip


def test_streams_that_cannot_be_are_refused_plainly(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, "p", FOREVER)
    cluster.kubectl("run", "done", "-n", namespace, "--image=busybox", "--restart=Never", "--", "true")
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", "-n", namespace, phase, "pod/done", "--timeout=30s")

    def refused(*arguments: str) -> str:
        return cluster.kubectl("-n", namespace, *arguments, check=False)

    assert "container zz is not valid for pod p" in refused("exec", "p", "-c", "zz", "--", "ls")
    assert 'pods "none" not found' in refused("exec", "none", "--", "ls")
    assert "current phase is Succeeded" in refused("attach", "done")
    assert "executable file not found in $PATH" in refused("exec", "p", "--", "nosuch")
    assert "exit code 42" in refused("exec", "p", "--", "sh", "-c", "exit 42")
    assert 'previous terminated container "c" in pod "p" not found' in refused("logs", "p", "--previous")
