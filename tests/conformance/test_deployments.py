"""sig-apps: Deployments."""

from __future__ import annotations

import pytest

from tests.conformance.objects import (
    NO_IMAGE,
    changed,
    condition,
    env_of,
    rolled_out,
    selector,
    set_env,
    set_image,
    wait_ready,
    workload,
)
from tests.harness.api import Api, Obj, until
from tests.harness.nanokube import eventually

REVISION = "deployment.kubernetes.io/revision"


def sets_of(api: Api, namespace: str, owner: str) -> list[Obj]:
    """ReplicaSets a Deployment controls, by revision."""
    found = [
        each
        for each in api.of("apps/v1", "replicasets", namespace).list()
        if any(ref["name"] == owner and ref.get("controller") for ref in each["metadata"].get("ownerReferences", ()))
    ]
    return sorted(found, key=lambda each: int(each["metadata"].get("annotations", {}).get(REVISION, 0)))


@pytest.mark.conformance("[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]")
def test_scale_subresource(api: Api, namespace: str) -> None:
    deployments = api.of("apps/v1", "deployments", namespace)
    deployments.create(workload("Deployment", "scaled", replicas=1))
    rolled_out(deployments, "scaled")
    scale = deployments.get("scaled", "scale")
    assert (scale["apiVersion"], scale["kind"], scale["spec"]["replicas"]) == ("autoscaling/v1", "Scale", 1)
    assert scale["status"] == {"replicas": 1, "selector": "app=scaled"}
    updated = deployments.update(changed(scale, "spec", "replicas", to=2), "scale")
    assert updated["spec"]["replicas"] == 2
    assert deployments.get("scaled")["spec"]["replicas"] == 2
    patched = deployments.patch("scaled", {"spec": {"replicas": 4}}, subresource="scale")
    assert patched["spec"]["replicas"] == 4
    assert deployments.get("scaled")["spec"]["replicas"] == 4
    wait_ready(api, namespace, {"app": "scaled"}, 4)


@pytest.mark.conformance(
    "[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]"
)
def test_recreate(api: Api, namespace: str) -> None:
    deployments, pods = api.of("apps/v1", "deployments", namespace), api.of("v1", "pods", namespace)
    deployments.create(workload("Deployment", "again", replicas=2, strategy={"type": "Recreate"}))
    rolled_out(deployments, "again")
    old = {each["metadata"]["uid"] for each in pods.list()}
    version = pods.page()["metadata"]["resourceVersion"]
    deployments.patch("again", set_env(TURN="2"), "strategic")
    rolled_out(deployments, "again")
    left = set(old)
    with pods.watch(resourceVersion=version) as events:
        for event in events:
            uid = event["object"]["metadata"]["uid"]
            if uid in old:
                if event["type"] == "DELETED" or event["object"]["status"]["phase"] in ("Succeeded", "Failed"):
                    left.discard(uid)
            elif event["object"]["status"]["phase"] == "Running":
                assert not left, "a new pod runs while old ones do"
                break
    assert {env_of(each)["TURN"] for each in pods.list() if "deletionTimestamp" not in each["metadata"]} == {"2"}


@pytest.mark.conformance(
    "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]"
)
def test_rolling_update_adopts_a_set_and_counts_on_from_its_revision(api: Api, namespace: str) -> None:
    """Revisions are 64-bit numbers: one above 2^53 must not lose its last digits."""
    labels = {"name": "sample-pod"}
    sets, deployments = api.of("apps/v1", "replicasets", namespace), api.of("apps/v1", "deployments", namespace)
    first = workload("ReplicaSet", "controller", labels, replicas=1)
    first["metadata"]["annotations"] = {REVISION: "3546343826724305832"}
    sets.create(first)
    wait_ready(api, namespace, labels, 1)
    rolling = workload("Deployment", "rolling", labels, replicas=1)
    rolling["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "TURN", "value": "2"}]
    deployments.create(rolling)
    made = rolled_out(deployments, "rolling")
    assert made["metadata"]["annotations"][REVISION] == "3546343826724305833"
    old, new = sets_of(api, namespace, "rolling")
    assert old["metadata"]["name"] == "controller" and old["spec"]["replicas"] == 0
    assert new["metadata"]["annotations"][REVISION] == "3546343826724305833"
    (left,) = wait_ready(api, namespace, labels, 1)
    assert env_of(left) == {"TURN": "2"}


@pytest.mark.conformance("[sig-apps] Deployment deployment should delete old replica sets [Conformance]")
def test_history_limit_zero(api: Api, namespace: str) -> None:
    labels = {"name": "cleanup-pod"}
    sets, deployments = api.of("apps/v1", "replicasets", namespace), api.of("apps/v1", "deployments", namespace)
    sets.create(workload("ReplicaSet", "old", labels, replicas=1))
    wait_ready(api, namespace, labels, 1)
    made = workload("Deployment", "clean", labels, replicas=1, revisionHistoryLimit=0)
    made["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "TURN", "value": "2"}]
    deployments.create(made)
    rolled_out(deployments, "clean")
    eventually(lambda: not sets.exists("old"), "the old set to go")
    assert len(sets_of(api, namespace, "clean")) == 1


@pytest.mark.conformance("[sig-apps] Deployment deployment should support proportional scaling [Conformance]")
def test_proportional_scaling(api: Api, namespace: str) -> None:
    """A stuck rollout of 10 (+3, -2) is scaled to 30: what is added is shared by the sets' sizes."""
    deployments = api.of("apps/v1", "deployments", namespace)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    deployments.create(workload("Deployment", "shared", replicas=10, strategy=strategy))
    rolled_out(deployments, "shared")
    deployments.patch("shared", set_image(NO_IMAGE), "strategic")

    def sizes() -> list[int]:
        return [each["spec"]["replicas"] for each in sets_of(api, namespace, "shared")]

    eventually(lambda: sizes() == [8, 5], "the rollout to be stuck at 8 old and 5 new")
    old, _ = sets_of(api, namespace, "shared")
    eventually(lambda: sets_of(api, namespace, "shared")[0]["status"].get("availableReplicas", 0) >= 8, "8 available")
    assert old["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] == "10"
    assert old["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"] == "13"
    deployments.patch("shared", {"spec": {"replicas": 30}})
    eventually(lambda: sizes() == [20, 13], "20 old and 13 new")
    deployments.delete("shared", gracePeriodSeconds=0, propagationPolicy="Background")


@pytest.mark.conformance("[sig-apps] Deployment deployment should support rollover [Conformance]")
def test_rollover(api: Api, namespace: str) -> None:
    """A rollout that has begun is overtaken by the next; the set of a never finished one ends at zero, too."""
    labels = {"name": "rollover-pod"}
    sets, deployments = api.of("apps/v1", "replicasets", namespace), api.of("apps/v1", "deployments", namespace)
    sets.create(workload("ReplicaSet", "start", labels, replicas=1))
    wait_ready(api, namespace, labels, 1)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    made = workload("Deployment", "over", labels, replicas=1, strategy=strategy, minReadySeconds=2)
    made["spec"]["template"]["spec"]["containers"][0]["image"] = NO_IMAGE
    deployments.create(made)
    eventually(lambda: [each["spec"]["replicas"] for each in sets_of(api, namespace, "over")] == [1, 1], "a start")
    patch = set_image("busybox")
    patch["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "TURN", "value": "3"}]
    deployments.patch("over", patch, "strategic")
    rolled_out(deployments, "over")
    found = sets_of(api, namespace, "over")
    assert [each["spec"]["replicas"] for each in found] == [0, 0, 1]
    assert "start" in {each["metadata"]["name"] for each in found}
    wait_ready(api, namespace, labels, 1)


@pytest.mark.conformance("[sig-apps] Deployment should run the lifecycle of a Deployment [Conformance]")
def test_lifecycle(api: Api, namespace: str) -> None:
    deployments = api.of("apps/v1", "deployments", namespace)
    version = deployments.page()["metadata"]["resourceVersion"]
    labels = {"test-deployment-static": "true"}
    with deployments.watch(resourceVersion=version, labelSelector=selector(labels)) as events:
        deployments.create(workload("Deployment", "life", labels, replicas=1))
        assert until(events, "ADDED")["metadata"]["name"] == "life"
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 1)

        deployments.patch("life", {"metadata": {"labels": {"patched": "yes"}}, "spec": {"replicas": 2}}, "strategic")
        patched = until(events, "MODIFIED", lambda obj: obj["metadata"]["labels"].get("patched") == "yes")
        assert patched["spec"]["replicas"] == 2
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 2)
        everywhere = api.of("apps/v1", "deployments").list(labelSelector=selector(labels))
        assert [each["metadata"]["name"] for each in everywhere] == ["life"]

        deployments.patch("life", {"status": {"readyReplicas": 0, "availableReplicas": 0}}, "strategic", "status")
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas", 0) == 0)
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 2)

        deployments.modify("life", lambda obj: obj["spec"].update(replicas=1))
        until(events, "MODIFIED", lambda obj: obj["spec"]["replicas"] == 1)
        until(events, "MODIFIED", lambda obj: obj["status"].get("readyReplicas") == 1)
        assert deployments.get("life", "status")["status"]["availableReplicas"] == 1

        deployments.delete_all(labelSelector=selector(labels))
        until(events, "DELETED")
    assert deployments.names() == []


@pytest.mark.conformance("[sig-apps] Deployment should validate Deployment Status endpoints [Conformance]")
def test_status_endpoints(api: Api, namespace: str) -> None:
    deployments = api.of("apps/v1", "deployments", namespace)
    deployments.create(workload("Deployment", "told", replicas=1))
    live = rolled_out(deployments, "told")
    assert condition(deployments.get("told", "status"), "Available")["status"] == "True"
    version = live["metadata"]["resourceVersion"]
    said = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    with deployments.watch(resourceVersion=version) as events:
        deployments.modify("told", lambda obj: obj["status"]["conditions"].append(said), "status")
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusUpdate").get("reason") == "E2E")
        payload = {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
        patched = deployments.patch("told", payload, "merge", "status")
        assert condition(patched, "StatusPatched")["status"] == "True"
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusPatched").get("status") == "True")
