"""Objects and their dependents through kubectl: cascades, finalizers, namespaces, taints, rights."""

from __future__ import annotations

from tests.harness.nanokube import Cluster, eventually

LOOP = ("--image=busybox", "--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


def names(cluster: Cluster, kind: str, namespace: str) -> list[str]:
    return [item["metadata"]["name"] for item in cluster.items(kind, "-n", namespace)]


def test_cascades_orphan_or_take_along(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "kept", "-n", namespace, *LOOP)
    cluster.kubectl("rollout", "status", "deployment/kept", "-n", namespace, "--timeout=30s")
    cluster.kubectl("delete", "deployment", "kept", "-n", namespace, "--cascade=orphan")
    (left,) = cluster.items("replicasets", "-n", namespace)
    assert not left["metadata"].get("ownerReferences")
    cluster.kubectl("delete", "replicaset", left["metadata"]["name"], "-n", namespace, "--cascade=foreground")
    assert names(cluster, "pods", namespace) == []
    assert names(cluster, "replicasets", namespace) == []
    cluster.kubectl("create", "deployment", "gone", "-n", namespace, *LOOP)
    cluster.kubectl("rollout", "status", "deployment/gone", "-n", namespace, "--timeout=30s")
    cluster.kubectl("delete", "deployment", "gone", "-n", namespace)
    eventually(lambda: not cluster.items("pods,replicasets", "-n", namespace), "the collector")


def test_a_finalizer_holds_an_object_and_its_namespace(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "held")
    cluster.kubectl("create", "configmap", "c", "-n", "held")
    hold = '{"metadata":{"finalizers":["example.com/hold"]}}'
    cluster.kubectl("patch", "configmap", "c", "-n", "held", "--type=merge", "-p", hold)
    cluster.kubectl("create", "deployment", "web", "-n", "held", *LOOP)
    # A shell that has not come to its trap yet ignores SIGTERM, being process 1: its pod takes the whole grace period.
    eventually(lambda: cluster.running("app=web", "held"), "the pod to run")
    cluster.kubectl("delete", "namespace", "held", "--wait=false")
    eventually(lambda: not cluster.items("deployments,pods", "-n", "held"), "the namespace to empty")
    assert cluster.get("namespace", "held")["status"]["phase"] == "Terminating"
    told = cluster.kubectl("create", "configmap", "late", "-n", "held", check=False)
    assert "because it is being terminated" in told
    cluster.kubectl("patch", "configmap", "c", "-n", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    cluster.kubectl("wait", "--for=delete", "namespace/held", "--timeout=30s")


def test_a_taint_evicts_and_a_drain_empties_a_node(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "-n", namespace, "--replicas=3", *LOOP)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=30s")

    def on(node: str) -> list[str]:
        running = cluster.running("app=web", namespace)
        return [pod["metadata"]["name"] for pod in running if pod["spec"]["nodeName"] == node]

    node = cluster.running("app=web", namespace)[0]["spec"]["nodeName"]
    try:
        cluster.kubectl("taint", "node", node, "e2e=out:NoExecute")
        eventually(lambda: not on(node) and len(cluster.running("app=web", namespace)) == 3, "pods elsewhere")
    finally:
        cluster.kubectl("taint", "node", node, "e2e-")
    other = cluster.running("app=web", namespace)[0]["spec"]["nodeName"]
    try:
        told = cluster.kubectl("drain", other, "--ignore-daemonsets", "--force", "--timeout=60s")
        assert f"node/{other} drained" in told
        assert not on(other)
        eventually(lambda: len(cluster.running("app=web", namespace)) == 3, "pods elsewhere")
    finally:
        cluster.kubectl("uncordon", other)


def test_rights_are_what_roles_say(cluster: Cluster, namespace: str) -> None:
    def may(*arguments: str) -> bool:
        told = cluster.kubectl("auth", "can-i", *arguments, "-n", namespace, check=False)
        return told.splitlines()[0] == "yes"

    assert may("delete", "pods")
    assert not may("get", "pods", "--as=ann")
    cluster.kubectl("create", "role", "reader", "-n", namespace, "--verb=get,list", "--resource=pods,pods/log")
    cluster.kubectl("create", "rolebinding", "reader", "-n", namespace, "--role=reader", "--user=ann")
    eventually(lambda: may("get", "pods", "--as=ann"), "the role")
    assert may("get", "pods", "--subresource=log", "--as=ann")
    assert not may("delete", "pods", "--as=ann")
    refused = cluster.kubectl("get", "secrets", "-n", namespace, "--as=ann", check=False)
    assert f'User "ann" cannot list resource "secrets" in API group "" in the namespace "{namespace}"' in refused
