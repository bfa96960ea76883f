"""sig-scheduling: limits, predicates, priorities and preemption."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.objects import condition, container, pod, selector, wait_ready, workload
from tests.harness.api import Api, ApiError, Obj, until
from tests.harness.nanokube import eventually

PREDICATES = "[sig-scheduling] SchedulerPredicates [Serial] "
PREEMPTION = "[sig-scheduling] SchedulerPreemption [Serial] "
LIMITS = "[sig-scheduling] LimitRange "
NODE = "worker-1"
RESOURCE = "example.com/fakecpu"


def wants(amount: str, resource: str = RESOURCE) -> Obj:
    return container(resources={"requests": {resource: amount}, "limits": {resource: amount}})


@pytest.fixture
def fakecpu(api: Api, namespace: str) -> Iterator[str]:
    """A node that has 1000 of an extended resource; yields its name."""
    nodes = api.of("v1", "nodes")
    status = {"status": {"capacity": {RESOURCE: "1000"}, "allocatable": {RESOURCE: "1000"}}}
    nodes.patch(NODE, status, "strategic", "status")
    yield NODE
    api.of("v1", "pods", namespace).delete_all({"gracePeriodSeconds": 0})
    nothing = {"status": {"capacity": {RESOURCE: None}, "allocatable": {RESOURCE: None}}}
    nodes.patch(NODE, nothing, "merge", "status")


@pytest.fixture
def classes(api: Api) -> Iterator[dict[str, int]]:
    """Priority classes by value, removed afterwards."""
    kind = api.of("scheduling.k8s.io/v1", "priorityclasses")
    made = {f"conformance-p{number}": number * 100 for number in (1, 2, 3, 4)}
    for name, value in made.items():
        kind.create({"metadata": {"name": name}, "value": value})
    yield made
    for name in made:
        kind.delete(name)


def unschedulable(api: Api, namespace: str, name: str) -> str:
    """The scheduler's verdict on a pod that waits."""

    def verdict() -> str:
        said = condition(api.of("v1", "pods", namespace).get(name), "PodScheduled")
        return str(said["message"]) if said.get("reason") == "Unschedulable" else ""

    return eventually(verdict, f"a verdict on {name}")


def runs_on(api: Api, namespace: str, name: str) -> str:
    pods = api.of("v1", "pods", namespace)
    eventually(lambda: pods.get(name)["status"]["phase"] == "Running", f"{name} to run")
    return str(pods.get(name)["spec"]["nodeName"])


@pytest.mark.conformance(PREDICATES + "validates resource limits of pods that are allowed to run [Conformance]")
def test_resource_limits(api: Api, namespace: str, fakecpu: str) -> None:
    pods = api.of("v1", "pods", namespace)
    pods.create(pod("filler", main=wants("700")))
    assert runs_on(api, namespace, "filler") == fakecpu
    pods.create(pod("additional", main=wants("500")))
    verdict = unschedulable(api, namespace, "additional")
    assert verdict.startswith(f"0/3 nodes are available: 3 Insufficient {RESOURCE}.")
    events = api.of("v1", "events", namespace)
    selected = "involvedObject.name=additional,reason=FailedScheduling"
    eventually(lambda: events.list(fieldSelector=selected), "a FailedScheduling event")
    pods.delete("filler", gracePeriodSeconds=0)
    assert runs_on(api, namespace, "additional") == fakecpu


@pytest.mark.conformance(
    PREDICATES + "validates that NodeSelector is respected if matching [Conformance]",
    PREDICATES + "validates that NodeSelector is respected if not matching [Conformance]",
)
def test_node_selector(api: Api, namespace: str) -> None:
    pods, nodes = api.of("v1", "pods", namespace), api.of("v1", "nodes")
    key = f"kubernetes.io/e2e-{namespace}"
    pods.create(pod("with-labels", nodeSelector={key: "42"}))
    assert "3 node(s) didn't match Pod's node affinity/selector" in unschedulable(api, namespace, "with-labels")
    nodes.patch(NODE, {"metadata": {"labels": {key: "42"}}})
    try:
        assert runs_on(api, namespace, "with-labels") == NODE
    finally:
        nodes.patch(NODE, {"metadata": {"labels": {key: None}}})


@pytest.mark.conformance(
    PREDICATES
    + "validates that there exists conflict between pods with same hostPort and protocol "
    + "but one using 0.0.0.0 hostIP [Conformance]"
)
def test_host_ports_conflict_over_all_addresses(api: Api, namespace: str) -> None:
    pods = api.of("v1", "pods", namespace)
    selected = {"kubernetes.io/hostname": NODE}

    def listening(address: str) -> Obj:
        port = {"containerPort": 8080, "hostPort": 54322, "protocol": "TCP"}
        return container(ports=[{**port, "hostIP": address} if address else port])

    pods.create(pod("pod4", main=listening(""), nodeSelector=selected))
    assert runs_on(api, namespace, "pod4") == NODE
    pods.create(pod("pod5", main=listening("127.0.0.1"), nodeSelector=selected))
    verdict = unschedulable(api, namespace, "pod5")
    assert "1 node(s) didn't have free ports for the requested pod ports" in verdict
    pods.delete_all({"gracePeriodSeconds": 0})


@pytest.mark.conformance(PREEMPTION + "validates basic preemption works [Conformance]")
def test_basic_preemption(api: Api, namespace: str, fakecpu: str, classes: dict[str, int]) -> None:
    pods = api.of("v1", "pods", namespace)
    pods.create(pod("low", main=wants("600"), priorityClassName="conformance-p1"))
    pods.create(pod("medium", main=wants("400"), priorityClassName="conformance-p3"))
    for name in ("low", "medium"):
        runs_on(api, namespace, name)
    pods.create(pod("preemptor", main=wants("600"), priorityClassName="conformance-p4"))
    assert runs_on(api, namespace, "preemptor") == fakecpu
    assert not pods.exists("low")
    assert "deletionTimestamp" not in pods.get("medium")["metadata"]


@pytest.mark.conformance(PREEMPTION + "validates lower priority pod preemption by critical pod [Conformance]")
def test_preemption_by_a_critical_pod(api: Api, namespace: str, fakecpu: str, classes: dict[str, int]) -> None:
    pods, system = api.of("v1", "pods", namespace), api.of("v1", "pods", "kube-system")
    pods.create(pod("low", main=wants("1000"), priorityClassName="conformance-p1"))
    runs_on(api, namespace, "low")
    name = f"critical-{namespace}"
    system.create(pod(name, main=wants("1000"), priorityClassName="system-cluster-critical"))
    try:
        assert runs_on(api, "kube-system", name) == fakecpu
        assert not pods.exists("low")
        assert system.get(name)["spec"]["priority"] == 2_000_000_000
    finally:
        system.delete(name, gracePeriodSeconds=0)


@pytest.mark.conformance(PREEMPTION + "validates pod disruption condition is added to the preempted pod [Conformance]")
def test_a_preempted_pod_says_so(api: Api, namespace: str, fakecpu: str, classes: dict[str, int]) -> None:
    pods = api.of("v1", "pods", namespace)
    victim = pod("victim", main=wants("1000"), priorityClassName="conformance-p1")
    victim["metadata"]["finalizers"] = ["example.com/test-finalizer"]
    pods.create(victim)
    runs_on(api, namespace, "victim")
    try:
        pods.create(pod("preemptor", main=wants("1000"), priorityClassName="conformance-p4"))
        eventually(lambda: "deletionTimestamp" in pods.get("victim")["metadata"], "the victim's deletion")
        told = condition(pods.get("victim"), "DisruptionTarget")
        assert (told["status"], told["reason"]) == ("True", "PreemptionByScheduler")
        assert told["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
    finally:
        pods.patch("victim", {"metadata": {"finalizers": None}})
    assert runs_on(api, namespace, "preemptor") == fakecpu


@pytest.mark.conformance(
    PREEMPTION + "PreemptionExecutionPath runs ReplicaSets to verify preemption running path [Conformance]"
)
def test_replica_sets_push_each_other_aside(api: Api, namespace: str, fakecpu: str, classes: dict[str, int]) -> None:
    """Three sets fill the node; a fourth, more important one takes exactly as much as it needs, from the lowest."""
    sets, pods = api.of("apps/v1", "replicasets", namespace), api.of("v1", "pods", namespace)
    plan = {"rs1": (1, 5, "40"), "rs2": (2, 4, "50"), "rs3": (3, 4, "95")}
    version = pods.page()["metadata"]["resourceVersion"]
    for name, (priority, replicas, amount) in plan.items():
        made = workload("ReplicaSet", name, main=wants(amount), replicas=replicas)
        made["spec"]["template"]["spec"]["priorityClassName"] = f"conformance-p{priority}"
        sets.create(made)
        wait_ready(api, namespace, {"app": name}, replicas)
    last = workload("ReplicaSet", "rs4", main=wants("380"), replicas=1)
    last["spec"]["template"]["spec"]["priorityClassName"] = "conformance-p4"
    sets.create(last)
    wait_ready(api, namespace, {"app": "rs4"}, 1)
    gone = {"rs1": 0, "rs2": 0, "rs3": 0}
    pods.create(pod("end"))
    with pods.watch(resourceVersion=version) as events:
        for event in events:
            if event["object"]["metadata"]["name"] == "end":
                break
            if event["type"] == "DELETED":
                gone[event["object"]["metadata"]["labels"]["app"]] += 1
    assert gone == {"rs1": 4, "rs2": 0, "rs3": 0}, "160 are missing"


@pytest.mark.conformance(
    PREEMPTION
    + "PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods [Conformance]"
)
def test_priority_class_endpoints(api: Api, classes: dict[str, int]) -> None:
    kind = api.of("scheduling.k8s.io/v1", "priorityclasses")
    one = kind.get("conformance-p1")
    refusals = {
        "value": {**one, "value": 7},
        "preemptionPolicy": {**one, "preemptionPolicy": "Never"},
    }
    for field, obj in refusals.items():
        with pytest.raises(ApiError) as refused:
            kind.update(obj)
        assert refused.value.code == 422 and refused.value.status["details"]["causes"][0]["field"] == field
    assert kind.update({**one, "description": "updated"})["description"] == "updated"
    with pytest.raises(ApiError) as refused:
        kind.patch("conformance-p1", [{"op": "replace", "path": "/value", "value": 8}], "json")
    assert refused.value.code == 422
    patch = [{"op": "replace", "path": "/description", "value": "patched"}]
    assert kind.patch("conformance-p1", patch, "json")["description"] == "patched"
    assert kind.get("conformance-p1")["value"] == classes["conformance-p1"]
    assert set(classes) <= set(kind.names())
    with pytest.raises(ApiError) as refused:
        kind.create({"metadata": {"name": "too-much"}, "value": 1_000_000_001})
    assert refused.value.code == 422 or refused.value.code == 403


def limit_range(name: str, **fields: dict[str, str]) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": name},
        "spec": {"limits": [{"type": "Container", **fields}]},
    }


@pytest.mark.conformance(
    LIMITS + "should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]"
)
def test_limit_range(api: Api, namespace: str) -> None:
    ranges, pods = api.of("v1", "limitranges", namespace), api.of("v1", "pods", namespace)
    made = limit_range(
        "limits",
        min={"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"},
        max={"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        default={"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        defaultRequest={"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"},
    )
    version = ranges.page()["metadata"]["resourceVersion"]
    with ranges.watch(resourceVersion=version) as events:
        ranges.create(made)
        assert until(events, "ADDED")["spec"] == made["spec"]
    bare = pods.create(pod("no-resources"), dryRun="All")
    (limits,) = made["spec"]["limits"]
    assert bare["spec"]["containers"][0]["resources"] == {
        "requests": limits["defaultRequest"],
        "limits": limits["default"],
    }
    partly = {"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}}
    found = pods.create(pod("partial", main=container(resources=partly)), dryRun="All")["spec"]["containers"][0]
    assert found["resources"]["requests"] == {"cpu": "300m", "memory": "150Mi", "ephemeral-storage": "200Gi"}
    assert found["resources"]["limits"] == {"cpu": "300m", "memory": "500Mi", "ephemeral-storage": "500Gi"}
    for amount, words in (
        ("10m", "minimum cpu usage per Container is 50m"),
        ("600m", "maximum cpu usage per Container is 500m"),
    ):
        with pytest.raises(ApiError) as refused:
            pods.create(
                pod("refused", main=container(resources={"requests": {"cpu": amount}, "limits": {"cpu": amount}}))
            )
        assert refused.value.code == 403 and words in refused.value.message
    ranges.modify("limits", lambda obj: obj["spec"]["limits"][0]["min"].update(cpu="9m"))
    small = container(resources={"requests": {"cpu": "10m"}, "limits": {"cpu": "10m"}})
    pods.create(pod("small", main=small), dryRun="All")
    ranges.delete("limits")
    assert pods.create(pod("free"), dryRun="All")["spec"]["containers"][0]["resources"] == {}


@pytest.mark.conformance(LIMITS + "should list, patch and delete a LimitRange by collection [Conformance]")
def test_limit_range_collection(api: Api, namespace: str) -> None:
    ranges, everywhere = api.of("v1", "limitranges", namespace), api.of("v1", "limitranges")
    made = limit_range("limits", max={"cpu": "500m"}, min={"cpu": "50m"})
    made["metadata"]["labels"] = {"e2e": namespace}
    ranges.create(made)
    assert everywhere.names(labelSelector=f"e2e={namespace}") == ["limits"]
    patch = {
        "metadata": {"labels": {"limits": "patched"}},
        "spec": {"limits": [{"type": "Container", "min": {"cpu": "60m"}}]},
    }
    patched = ranges.patch("limits", patch, "strategic")
    assert patched["metadata"]["labels"]["limits"] == "patched"
    assert [each.get("min") for each in patched["spec"]["limits"]] == [{"cpu": "60m"}]
    ranges.delete_all(labelSelector="limits=patched")
    eventually(lambda: everywhere.names(labelSelector=selector({"e2e": namespace})) == [], "the deletion")
