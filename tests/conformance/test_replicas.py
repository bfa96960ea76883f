"""sig-apps: ReplicaSets and ReplicationControllers, which keep a number of pods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.conformance.objects import (
    SERVE,
    changed,
    condition,
    container,
    controller,
    pod,
    selector,
    wait_ready,
    workload,
)
from tests.harness.api import Api, Obj, until
from tests.harness.nanokube import eventually

SET = "[sig-apps] ReplicaSet "
RC = "[sig-apps] ReplicationController "


def made_set(name: str, labels: dict[str, str] | None = None, main: Obj | None = None, **spec: object) -> Obj:
    return workload("ReplicaSet", name, labels, main, **spec)


KINDS = [
    pytest.param(
        "apps/v1", "replicasets", made_set, "ReplicaSet",
        marks=pytest.mark.conformance(
            SET + "should serve a basic image on each replica with a public image [Conformance]"
        ),
        id="ReplicaSet",
    ),
    pytest.param(
        "v1", "replicationcontrollers", controller, "ReplicationController",
        marks=pytest.mark.conformance(
            RC + "should serve a basic image on each replica with a public image [Conformance]"
        ),
        id="ReplicationController",
    ),
]  # fmt: skip
SCALES = [
    pytest.param(
        "apps/v1", "replicasets", made_set,
        marks=pytest.mark.conformance(SET + "Replicaset should have a working scale subresource [Conformance]"),
        id="ReplicaSet",
    ),
    pytest.param(
        "v1", "replicationcontrollers", controller,
        marks=pytest.mark.conformance(RC + "should get and update a ReplicationController scale [Conformance]"),
        id="ReplicationController",
    ),
]  # fmt: skip
ADOPTIONS = [
    pytest.param(
        "apps/v1", "replicasets", made_set, "ReplicaSet",
        marks=pytest.mark.conformance(
            SET + "should adopt matching pods on creation and release no longer matching pods [Conformance]"
        ),
        id="ReplicaSet",
    ),
    pytest.param(
        "v1", "replicationcontrollers", controller, "ReplicationController",
        marks=pytest.mark.conformance(
            RC + "should adopt matching pods on creation [Conformance]",
            RC + "should release no longer matching pods [Conformance]",
        ),
        id="ReplicationController",
    ),
]  # fmt: skip
Maker = Callable[..., Obj]


@pytest.mark.parametrize(("version", "plural", "make", "kind"), KINDS)
def test_every_replica_serves(api: Api, namespace: str, version: str, plural: str, make: Maker, kind: str) -> None:
    def says(path: str, name: str) -> bool:
        return api.raw("GET", path).body.decode().strip() == name

    api.of(version, plural, namespace).create(make("serve", main=container(SERVE), replicas=2))
    for each in wait_ready(api, namespace, {"app": "serve"}, 2):
        name = each["metadata"]["name"]
        (owner,) = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == (kind, "serve", True)
        path = f"/api/v1/namespaces/{namespace}/pods/http:{name}:8080/proxy/"
        eventually(partial(says, path, name), f"{name} to say its name")


@pytest.mark.parametrize(("version", "plural", "make"), SCALES)
def test_scale_subresource(api: Api, namespace: str, version: str, plural: str, make: Maker) -> None:
    kind = api.of(version, plural, namespace)
    kind.create(make("scaled", replicas=1))
    wait_ready(api, namespace, {"app": "scaled"}, 1)
    scale = kind.get("scaled", "scale")
    assert scale["spec"]["replicas"] == 1 and scale["status"]["selector"] == "app=scaled"
    assert kind.update(changed(scale, "spec", "replicas", to=2), "scale")["spec"]["replicas"] == 2
    assert kind.get("scaled")["spec"]["replicas"] == 2
    assert kind.patch("scaled", {"spec": {"replicas": 4}}, subresource="scale")["spec"]["replicas"] == 4
    wait_ready(api, namespace, {"app": "scaled"}, 4)
    eventually(lambda: kind.get("scaled", "scale")["status"]["replicas"] == 4, "the scale's status")


@pytest.mark.parametrize(("version", "plural", "make", "kind"), ADOPTIONS)
def test_adopts_and_releases(api: Api, namespace: str, version: str, plural: str, make: Maker, kind: str) -> None:
    pods = api.of("v1", "pods", namespace)
    labels = {"name": "pod-adoption"}
    pods.create(pod("stray", labels))
    owner = api.of(version, plural, namespace).create(make("keeper", labels, replicas=1))

    def owners() -> list[tuple[str, str]]:
        return [(ref["kind"], ref["uid"]) for ref in pods.get("stray")["metadata"].get("ownerReferences", ())]

    eventually(lambda: owners() == [(kind, owner["metadata"]["uid"])], "adoption")
    assert pods.names(labelSelector=selector(labels)) == ["stray"]
    pods.patch("stray", {"metadata": {"labels": {"name": "not-matching"}}})
    eventually(lambda: owners() == [], "release")
    wait_ready(api, namespace, labels, 1)


@pytest.mark.conformance(SET + "Replace and Patch tests [Conformance]")
def test_replace_and_patch(api: Api, namespace: str) -> None:
    sets = api.of("apps/v1", "replicasets", namespace)
    sets.create(made_set("changing", replicas=1))
    wait_ready(api, namespace, {"app": "changing"}, 1)
    sets.modify("changing", lambda obj: obj["spec"].update(replicas=2))
    wait_ready(api, namespace, {"app": "changing"}, 2)
    change = {
        "metadata": {"labels": {"test-rs": "patched"}},
        "spec": {"replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 0}}},
    }
    version = sets.page()["metadata"]["resourceVersion"]
    with sets.watch(resourceVersion=version) as events:
        patched = sets.patch("changing", change, "strategic")
        assert (patched["metadata"]["labels"]["test-rs"], patched["spec"]["replicas"]) == ("patched", 3)
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 3)
    graces = [
        each["spec"]["terminationGracePeriodSeconds"] for each in wait_ready(api, namespace, {"app": "changing"}, 3)
    ]
    assert sorted(graces) == [0, 1, 1], "a changed template is for new pods only"


@pytest.mark.conformance(SET + "should list and delete a collection of ReplicaSets [Conformance]")
def test_list_and_delete_collection(api: Api, namespace: str) -> None:
    sets = api.of("apps/v1", "replicasets", namespace)
    labels = {"e2e": namespace}
    sets.create(made_set("many", labels, replicas=2))
    wait_ready(api, namespace, labels, 2)
    found = api.of("apps/v1", "replicasets").list(labelSelector=selector(labels))
    assert [each["metadata"]["name"] for each in found] == ["many"]
    sets.delete_all(labelSelector=selector(labels))
    assert api.of("apps/v1", "replicasets").list(labelSelector=selector(labels)) == []


@pytest.mark.conformance(SET + "should validate Replicaset Status endpoints [Conformance]")
def test_status_endpoints(api: Api, namespace: str) -> None:
    sets = api.of("apps/v1", "replicasets", namespace)
    live = sets.create(made_set("told", replicas=1))
    wait_ready(api, namespace, {"app": "told"}, 1)
    assert sets.get("told", "status")["status"]["replicas"] == 1
    said = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    with sets.watch(resourceVersion=live["metadata"]["resourceVersion"]) as events:
        sets.modify("told", lambda obj: obj["status"].setdefault("conditions", []).append(said), "status")
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusUpdate").get("message") == "Set from e2e test")
        payload = {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
        assert condition(sets.patch("told", payload, subresource="status"), "StatusPatched")["status"] == "True"
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusPatched").get("status") == "True")


@pytest.mark.conformance(RC + "should surface a failure condition on a common issue like exceeded quota [Conformance]")
def test_exceeded_quota_is_a_condition(api: Api, namespace: str) -> None:
    quotas, controllers = (
        api.of("v1", "resourcequotas", namespace),
        api.of("v1", "replicationcontrollers", namespace),
    )
    quota = {"metadata": {"name": "condition-test"}, "spec": {"hard": {"pods": "2"}}}
    quotas.create({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    eventually(
        lambda: quotas.get("condition-test").get("status", {}).get("hard") == {"pods": "2"}, "the quota's status"
    )
    controllers.create(controller("condition-test", replicas=3))

    def failure() -> Obj:
        return condition(controllers.get("condition-test"), "ReplicaFailure")

    eventually(lambda: failure().get("status") == "True", "a failure condition")
    assert failure()["reason"] == "FailedCreate"
    assert "exceeded quota: condition-test, requested: pods=1, used: pods=2, limited: pods=2" in failure()["message"]
    controllers.patch("condition-test", {"spec": {"replicas": 2}})
    eventually(lambda: failure() == {}, "the condition to go")


@pytest.mark.conformance(RC + "should test the lifecycle of a ReplicationController [Conformance]")
def test_lifecycle(api: Api, namespace: str) -> None:
    kind = api.of("v1", "replicationcontrollers", namespace)
    labels = {"test-rc-static": "true"}
    version = kind.page()["metadata"]["resourceVersion"]
    with kind.watch(resourceVersion=version, labelSelector=selector(labels)) as events:
        kind.create(controller("life", labels, replicas=1))
        until(events, "ADDED")
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 1)

        kind.patch("life", {"metadata": {"labels": {"test-rc": "patched"}}}, "strategic")
        until(events, "MODIFIED", lambda obj: obj["metadata"]["labels"].get("test-rc") == "patched")

        kind.patch("life", {"status": {"readyReplicas": 0, "availableReplicas": 0}}, "strategic", "status")
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas", 0) == 0)
        assert kind.get("life", "status")["spec"]["replicas"] == 1

        kind.patch("life", {"spec": {"replicas": 2}}, subresource="scale")
        until(events, "MODIFIED", lambda obj: obj["spec"]["replicas"] == 2)
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 2)

        kind.modify("life", lambda obj: obj["metadata"]["labels"].update({"test-rc": "updated"}))
        until(events, "MODIFIED", lambda obj: obj["metadata"]["labels"]["test-rc"] == "updated")
        everywhere = api.of("v1", "replicationcontrollers").list(labelSelector="test-rc-static=true")
        assert [each["metadata"]["name"] for each in everywhere] == ["life"]

        kind.delete_all({"propagationPolicy": "Background"}, labelSelector=selector(labels))
        until(events, "DELETED")
    wait_ready(api, namespace, labels, 0)
