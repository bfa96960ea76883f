"""sig-apps: StatefulSets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.conformance.objects import (
    SERVE,
    changed,
    condition,
    container,
    env_of,
    headless,
    pod,
    selector,
    set_env,
    wait_ready,
    workload,
)
from tests.harness.api import Api, Obj, until
from tests.harness.nanokube import Cluster, eventually, is_ready

BASIC = "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] "
LABELS = {"foo": "bar", "baz": "blah"}
PROBE = {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}


def stateful(replicas: int = 3, **spec: Any) -> Obj:
    return workload(
        "StatefulSet",
        "ss",
        LABELS,
        container(SERVE, readinessProbe=PROBE),
        serviceName="test",
        replicas=replicas,
        **spec,
    )


@pytest.fixture
def service(api: Api, namespace: str) -> Iterator[None]:
    api.of("v1", "services", namespace).create(headless("test", LABELS))
    yield
    api.of("apps/v1", "statefulsets", namespace).delete_all()


def names(pods: list[Obj]) -> list[str]:
    return [each["metadata"]["name"] for each in pods]


def make_ready(cluster: Cluster, namespace: str, name: str, yes: bool) -> None:
    """Let the readiness probe of a pod succeed or fail."""
    places = ("/tmp/away.html", "/tmp/www/index.html") if yes else ("/tmp/www/index.html", "/tmp/away.html")
    cluster.kubectl("exec", "-n", namespace, name, "--", "mv", *places)


def wait_unready(api: Api, namespace: str, name: str) -> None:
    eventually(lambda: not is_ready(api.of("v1", "pods", namespace).get(name)), f"{name} to be unready")


@pytest.mark.conformance(
    BASIC + "Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow] [Conformance]"
)
def test_scaling_in_order_halts_at_an_unhealthy_pod(api: Api, cluster: Cluster, namespace: str, service: None) -> None:
    sets, pods = api.of("apps/v1", "statefulsets", namespace), api.of("v1", "pods", namespace)
    version = pods.page()["metadata"]["resourceVersion"]
    sets.create(stateful(1))
    wait_ready(api, namespace, LABELS, 1)
    make_ready(cluster, namespace, "ss-0", False)
    wait_unready(api, namespace, "ss-0")
    sets.patch("ss", {"spec": {"replicas": 3}}, subresource="scale")
    eventually(lambda: sets.get("ss")["status"].get("observedGeneration") == 2, "the controller to see 3")
    assert pods.names(labelSelector=selector(LABELS)) == ["ss-0"]
    make_ready(cluster, namespace, "ss-0", True)
    wait_ready(api, namespace, LABELS, 3)

    for name in ("ss-0", "ss-1", "ss-2"):
        make_ready(cluster, namespace, name, False)
        wait_unready(api, namespace, name)
    sets.patch("ss", {"spec": {"replicas": 0}}, subresource="scale")
    eventually(lambda: sets.get("ss")["status"].get("observedGeneration") == 3, "the controller to see 0")
    assert sorted(pods.names(labelSelector=selector(LABELS))) == ["ss-0", "ss-1", "ss-2"]
    for name in ("ss-0", "ss-1", "ss-2"):
        make_ready(cluster, namespace, name, True)
    wait_ready(api, namespace, LABELS, 0)

    order = {"ADDED": list[str](), "DELETED": list[str]()}
    with pods.watch(resourceVersion=version, labelSelector=selector(LABELS)) as events:
        while len(order["DELETED"]) < 3:
            event = next(events)
            order.get(event["type"], []).append(event["object"]["metadata"]["name"])
    assert order == {"ADDED": ["ss-0", "ss-1", "ss-2"], "DELETED": ["ss-2", "ss-1", "ss-0"]}


@pytest.mark.conformance(BASIC + "Burst scaling should run to completion even with unhealthy pods [Slow] [Conformance]")
def test_burst_scaling_does_not_wait_for_health(api: Api, cluster: Cluster, namespace: str, service: None) -> None:
    sets, pods = api.of("apps/v1", "statefulsets", namespace), api.of("v1", "pods", namespace)
    sets.create(stateful(1, podManagementPolicy="Parallel"))
    wait_ready(api, namespace, LABELS, 1)
    make_ready(cluster, namespace, "ss-0", False)
    wait_unready(api, namespace, "ss-0")
    sets.patch("ss", {"spec": {"replicas": 3}}, subresource="scale")
    eventually(lambda: len(pods.list(labelSelector=selector(LABELS))) == 3, "three pods, one of them unhealthy")
    make_ready(cluster, namespace, "ss-0", True)
    wait_ready(api, namespace, LABELS, 3)
    for name in ("ss-0", "ss-1"):
        make_ready(cluster, namespace, name, False)
    wait_unready(api, namespace, "ss-1")
    sets.patch("ss", {"spec": {"replicas": 0}}, subresource="scale")
    wait_ready(api, namespace, LABELS, 0)
    eventually(lambda: sets.get("ss")["status"].get("replicas", 0) == 0, "the status to say so")


@pytest.mark.conformance(BASIC + "Should recreate evicted statefulset [Conformance]")
def test_a_pod_its_node_refuses_is_made_again(api: Api, namespace: str, service: None) -> None:
    """Bound past the scheduler to a node whose port is taken, it fails there; it runs when the port is free."""
    pods = api.of("v1", "pods", namespace)
    port = [{"containerPort": 21017, "hostPort": 21017}]
    pods.create(pod("test-pod", main=container(ports=port), nodeName="worker-1"))
    eventually(lambda: pods.get("test-pod")["status"]["phase"] == "Running", "the port's first owner")
    conflicting = workload("StatefulSet", "ss", LABELS, container(ports=port), serviceName="test", replicas=1)
    conflicting["spec"]["template"]["spec"]["nodeName"] = "worker-1"
    version = pods.page()["metadata"]["resourceVersion"]
    with pods.watch(resourceVersion=version, labelSelector=selector(LABELS)) as events:
        api.of("apps/v1", "statefulsets", namespace).create(conflicting)
        failed = until(events, "MODIFIED", lambda obj: obj["status"]["phase"] == "Failed")
        assert (failed["status"]["reason"], failed["metadata"]["name"]) == ("NodePorts", "ss-0")
        gone = until(events, "DELETED")
        assert gone["metadata"]["uid"] == failed["metadata"]["uid"]
    pods.delete("test-pod", gracePeriodSeconds=1)
    (again,) = wait_ready(api, namespace, LABELS, 1)
    assert again["metadata"]["name"] == "ss-0" and again["metadata"]["uid"] != failed["metadata"]["uid"]


@pytest.mark.conformance(BASIC + "should have a working scale subresource [Conformance]")
def test_scale_subresource(api: Api, namespace: str, service: None) -> None:
    sets = api.of("apps/v1", "statefulsets", namespace)
    sets.create(stateful(1))
    wait_ready(api, namespace, LABELS, 1)
    scale = sets.get("ss", "scale")
    assert scale["spec"]["replicas"] == 1 and scale["status"]["selector"] == "baz=blah,foo=bar"
    assert sets.update(changed(scale, "spec", "replicas", to=2), "scale")["spec"]["replicas"] == 2
    assert sets.get("ss")["spec"]["replicas"] == 2
    assert sets.patch("ss", {"spec": {"replicas": 4}}, subresource="scale")["spec"]["replicas"] == 4
    wait_ready(api, namespace, LABELS, 4)


@pytest.mark.conformance(BASIC + "should list, patch and delete a collection of StatefulSets [Conformance]")
def test_list_patch_delete_collection(api: Api, namespace: str, service: None) -> None:
    sets = api.of("apps/v1", "statefulsets", namespace)
    sets.create(stateful(1))
    wait_ready(api, namespace, LABELS, 1)
    sets.patch("ss", {"metadata": {"labels": {"test-ss": namespace}}}, "strategic")
    everywhere = api.of("apps/v1", "statefulsets")
    assert everywhere.names(labelSelector=f"test-ss={namespace}") == ["ss"]
    change = {"spec": {"replicas": 2, "template": {"spec": {"terminationGracePeriodSeconds": 0}}}}
    assert sets.patch("ss", change, "strategic")["spec"]["replicas"] == 2
    eventually(lambda: sets.get("ss")["status"].get("readyReplicas") == 2, "two ready pods")
    sets.delete_all(
        {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}, labelSelector=f"test-ss={namespace}"
    )
    assert everywhere.names(labelSelector=f"test-ss={namespace}") == []


@pytest.mark.conformance(BASIC + "should validate Statefulset Status endpoints [Conformance]")
def test_status_endpoints(api: Api, namespace: str, service: None) -> None:
    sets = api.of("apps/v1", "statefulsets", namespace)
    live = sets.create(stateful(1))
    wait_ready(api, namespace, LABELS, 1)
    assert sets.get("ss", "status")["status"]["replicas"] == 1
    said = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    with sets.watch(resourceVersion=live["metadata"]["resourceVersion"]) as events:
        sets.modify("ss", lambda obj: obj["status"].setdefault("conditions", []).append(said), "status")
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusUpdate").get("reason") == "E2E")
        payload = {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
        sets.patch("ss", payload, subresource="status")
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusPatched").get("status") == "True")


def revisions_of(api: Api, namespace: str) -> list[str]:
    """Revision label of every pod, by ordinal."""
    pods = wait_ready(api, namespace, LABELS, 3)
    return [each["metadata"]["labels"]["controller-revision-hash"] for each in pods]


def updated(api: Api, namespace: str, current: str = "", update: str = "") -> None:
    """Until the status tells a revision as current and one as update."""
    sets = api.of("apps/v1", "statefulsets", namespace)

    def told() -> bool:
        obj = sets.get("ss")
        status = obj["status"]
        return status.get("observedGeneration") == obj["metadata"]["generation"] and (
            current in ("", status.get("currentRevision")) and update in ("", status.get("updateRevision"))
        )

    eventually(told, f"current {current}, update {update}", 60)


@pytest.mark.conformance(
    BASIC + "should perform rolling updates and roll backs of template modifications [Conformance]"
)
def test_rolling_update_and_roll_back(api: Api, cluster: Cluster, namespace: str, service: None) -> None:
    sets, pods = api.of("apps/v1", "statefulsets", namespace), api.of("v1", "pods", namespace)
    sets.create(stateful())
    wait_ready(api, namespace, LABELS, 3)
    updated(api, namespace)
    first = sets.get("ss")["status"]["currentRevision"]
    assert sets.get("ss")["status"]["updateRevision"] == first
    assert revisions_of(api, namespace) == [first] * 3

    make_ready(cluster, namespace, "ss-1", False)
    wait_unready(api, namespace, "ss-1")
    version = pods.page()["metadata"]["resourceVersion"]
    sets.patch("ss", set_env(TURN="2"), "strategic")
    eventually(lambda: sets.get("ss")["status"]["updateRevision"] != first, "a new revision")
    second = sets.get("ss")["status"]["updateRevision"]
    make_ready(cluster, namespace, "ss-1", True)  # an unhealthy pod holds the update
    with pods.watch(resourceVersion=version, labelSelector=selector(LABELS)) as events:
        order = [until(events, "ADDED")["metadata"]["name"] for _ in range(3)]
    assert order == ["ss-2", "ss-1", "ss-0"]
    assert revisions_of(api, namespace) == [second] * 3
    updated(api, namespace, second, second)

    sets.patch("ss", set_env(TURN="2"), "strategic")  # changes nothing
    old = sets.get("ss")["spec"]["template"]
    old["spec"]["containers"][0].pop("env")
    sets.modify("ss", lambda obj: obj["spec"].update(template=old))
    updated(api, namespace, first, first)
    assert revisions_of(api, namespace) == [first] * 3
    revisions = api.of("apps/v1", "controllerrevisions", namespace).list(labelSelector=selector(LABELS))
    assert {each["metadata"]["name"]: each["revision"] for each in revisions} == {first: 3, second: 2}


@pytest.mark.conformance(
    BASIC + "should perform canary updates and phased rolling updates of template modifications [Conformance]"
)
def test_canary_and_phased_updates(api: Api, namespace: str, service: None) -> None:
    sets, pods = api.of("apps/v1", "statefulsets", namespace), api.of("v1", "pods", namespace)

    def partition(number: int) -> Obj:
        return {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}}}

    sets.create(stateful(updateStrategy=partition(3)["spec"]["updateStrategy"]))
    wait_ready(api, namespace, LABELS, 3)
    updated(api, namespace)
    first = sets.get("ss")["status"]["currentRevision"]
    sets.patch("ss", set_env(TURN="2"), "strategic")
    eventually(lambda: sets.get("ss")["status"]["updateRevision"] != first, "a new revision")
    second = sets.get("ss")["status"]["updateRevision"]
    assert revisions_of(api, namespace) == [first] * 3, "no ordinal is at or above the partition"

    sets.patch("ss", partition(2))
    eventually(lambda: revisions_of(api, namespace) == [first, first, second], "the canary")
    for name in ("ss-0", "ss-2"):  # a deleted pod comes back with its own side's revision
        version = pods.page()["metadata"]["resourceVersion"]
        pods.delete(name, gracePeriodSeconds=1)
        with pods.watch(resourceVersion=version) as events:
            assert until(events, "ADDED")["metadata"]["name"] == name
    assert revisions_of(api, namespace) == [first, first, second]
    assert [env_of(each) for each in wait_ready(api, namespace, LABELS, 3)] == [{}, {}, {"TURN": "2"}]

    def is_at(wanted: list[str]) -> bool:
        return revisions_of(api, namespace) == wanted

    for number in (1, 0):
        sets.patch("ss", partition(number))
        wanted = [first] * number + [second] * (3 - number)
        eventually(partial(is_at, wanted), f"partition {number}")
    updated(api, namespace, second, second)
