"""sig-apps: DaemonSets and the ControllerRevisions they leave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.objects import NO_IMAGE, condition, selector, set_env, set_image, wait_ready, workload
from tests.harness.api import Api, Obj, until
from tests.harness.nanokube import eventually

DAEMON = "[sig-apps] Daemon set [Serial] "
LABELS = {"daemonset-name": "ds"}
COLOR = "daemonset-color"


def daemon(**spec: Any) -> Obj:
    return workload("DaemonSet", "ds", LABELS, **spec)


def nodes_of(pods: list[Obj]) -> list[str]:
    return sorted(each["spec"]["nodeName"] for each in pods)


@pytest.fixture
def nodes(api: Api, namespace: str) -> Iterator[list[str]]:
    """Names of all nodes; the test's DaemonSets and labels are removed afterwards."""
    kind = api.of("v1", "nodes")
    yield sorted(kind.names())
    api.of("apps/v1", "daemonsets", namespace).delete_all()
    for name in kind.names(labelSelector=COLOR):
        kind.patch(name, {"metadata": {"labels": {COLOR: None}}})


def rolled_out(api: Api, namespace: str, count: int) -> None:
    """Until the controller has seen the newest template and every node has it."""

    def done() -> bool:
        obj = api.of("apps/v1", "daemonsets", namespace).get("ds")
        status = obj["status"]
        seen = status.get("observedGeneration") == obj["metadata"]["generation"]
        return bool(seen and status.get("updatedNumberScheduled") == status.get("numberAvailable") == count)

    eventually(done, "the roll-out", 60)


@pytest.mark.conformance(DAEMON + "should run and stop simple daemon [Conformance]")
def test_simple(api: Api, namespace: str, nodes: list[str]) -> None:
    pods = api.of("v1", "pods", namespace)
    api.of("apps/v1", "daemonsets", namespace).create(daemon())
    running = wait_ready(api, namespace, LABELS, len(nodes))
    assert nodes_of(running) == nodes
    victim = running[0]["metadata"]
    pods.delete(victim["name"], gracePeriodSeconds=0)
    eventually(lambda: victim["name"] not in pods.names(labelSelector=selector(LABELS)), "the victim to go")
    assert nodes_of(wait_ready(api, namespace, LABELS, len(nodes))) == nodes


@pytest.mark.conformance(DAEMON + "should run and stop complex daemon [Conformance]")
def test_follows_its_node_selector(api: Api, namespace: str, nodes: list[str]) -> None:
    sets, kind = api.of("apps/v1", "daemonsets", namespace), api.of("v1", "nodes")
    made = daemon()
    made["spec"]["template"]["spec"]["nodeSelector"] = {COLOR: "blue"}
    sets.create(made)
    eventually(lambda: sets.get("ds")["status"].get("observedGeneration") == 1, "the controller to look")
    wait_ready(api, namespace, LABELS, 0)
    kind.patch(nodes[0], {"metadata": {"labels": {COLOR: "blue"}}})
    assert nodes_of(wait_ready(api, namespace, LABELS, 1)) == [nodes[0]]
    eventually(lambda: sets.get("ds")["status"].get("numberAvailable") == 1, "one available")
    kind.patch(nodes[0], {"metadata": {"labels": {COLOR: "green"}}})
    wait_ready(api, namespace, LABELS, 0)
    change = {
        "spec": {
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {"spec": {"nodeSelector": {COLOR: "green"}}},
        }
    }
    sets.patch("ds", change)
    assert nodes_of(wait_ready(api, namespace, LABELS, 1)) == [nodes[0]]


@pytest.mark.conformance(DAEMON + "should retry creating failed daemon pods [Conformance]")
def test_a_failed_pod_is_replaced(api: Api, namespace: str, nodes: list[str]) -> None:
    pods = api.of("v1", "pods", namespace)
    api.of("apps/v1", "daemonsets", namespace).create(daemon())
    victim = wait_ready(api, namespace, LABELS, len(nodes))[0]["metadata"]
    pods.patch(victim["name"], {"status": {"phase": "Failed"}}, subresource="status")
    eventually(lambda: not pods.exists(victim["name"]), "the failed pod to be deleted")
    assert nodes_of(wait_ready(api, namespace, LABELS, len(nodes))) == nodes


@pytest.mark.conformance(
    DAEMON + "should update pod when spec was updated and update strategy is RollingUpdate [Conformance]"
)
def test_rolling_update(api: Api, namespace: str, nodes: list[str]) -> None:
    sets = api.of("apps/v1", "daemonsets", namespace)
    revisions = api.of("apps/v1", "controllerrevisions", namespace)
    sets.create(daemon(updateStrategy={"type": "RollingUpdate"}))
    wait_ready(api, namespace, LABELS, len(nodes))
    (first,) = revisions.list(labelSelector=selector(LABELS))
    assert first["revision"] == 1
    sets.patch("ds", set_env(TURN="2"), "strategic")
    rolled_out(api, namespace, len(nodes))
    pods = wait_ready(api, namespace, LABELS, len(nodes))
    newest = max(revisions.list(labelSelector=selector(LABELS)), key=lambda each: int(each["revision"]))
    assert newest["revision"] == 2
    hashes = {each["metadata"]["labels"]["controller-revision-hash"] for each in pods}
    assert hashes == {newest["metadata"]["labels"]["controller-revision-hash"]}


@pytest.mark.conformance(DAEMON + "should rollback without unnecessary restarts [Conformance]")
def test_roll_back_leaves_pods_alone_that_were_never_updated(api: Api, namespace: str, nodes: list[str]) -> None:
    sets, pods = api.of("apps/v1", "daemonsets", namespace), api.of("v1", "pods", namespace)
    sets.create(daemon(updateStrategy={"type": "RollingUpdate"}))
    old = {each["metadata"]["name"] for each in wait_ready(api, namespace, LABELS, len(nodes))}
    sets.patch("ds", set_image(NO_IMAGE), "strategic")

    def stuck() -> list[str]:
        found = pods.list(labelSelector=selector(LABELS))
        return [each["metadata"]["name"] for each in found if each["spec"]["containers"][0]["image"] == NO_IMAGE]

    (new,) = eventually(stuck, "one pod of the new template")
    there = pods.list(labelSelector=selector(LABELS))  # one that has ended is replaced before its object is gone
    kept = old & {each["metadata"]["name"] for each in there if not each["metadata"].get("deletionTimestamp")}
    assert len(kept) == len(nodes) - 1, "one pod may be unavailable"
    sets.patch("ds", set_image("busybox"), "strategic")
    eventually(lambda: not pods.exists(new), "the new pod to go")
    assert kept < {each["metadata"]["name"] for each in wait_ready(api, namespace, LABELS, len(nodes))}


@pytest.mark.conformance(DAEMON + "should list and delete a collection of DaemonSets [Conformance]")
def test_list_and_delete_collection(api: Api, namespace: str, nodes: list[str]) -> None:
    sets, everywhere = api.of("apps/v1", "daemonsets", namespace), api.of("apps/v1", "daemonsets")
    made = daemon()
    made["metadata"]["labels"] = {"e2e": namespace}
    sets.create(made)
    wait_ready(api, namespace, LABELS, len(nodes))
    assert everywhere.names(labelSelector=f"e2e={namespace}") == ["ds"]
    sets.delete_all(labelSelector=f"e2e={namespace}")
    assert everywhere.names(labelSelector=f"e2e={namespace}") == []


@pytest.mark.conformance(DAEMON + "should verify changes to a daemon set status [Conformance]")
def test_status_endpoints(api: Api, namespace: str, nodes: list[str]) -> None:
    sets = api.of("apps/v1", "daemonsets", namespace)
    live = sets.create(daemon())
    wait_ready(api, namespace, LABELS, len(nodes))
    eventually(lambda: sets.get("ds", "status")["status"].get("numberReady") == len(nodes), "the status")
    said = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    with sets.watch(resourceVersion=live["metadata"]["resourceVersion"]) as events:
        sets.modify("ds", lambda obj: obj["status"].setdefault("conditions", []).append(said), "status")
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusUpdate").get("reason") == "E2E")
        sets.patch(
            "ds", {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}, subresource="status"
        )
        until(events, "MODIFIED", lambda obj: condition(obj, "StatusPatched").get("status") == "True")


@pytest.mark.conformance(
    "[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]"
)
def test_controller_revisions(api: Api, namespace: str, nodes: list[str]) -> None:
    sets = api.of("apps/v1", "daemonsets", namespace)
    revisions, everywhere = (
        api.of("apps/v1", "controllerrevisions", namespace),
        api.of("apps/v1", "controllerrevisions"),
    )
    sets.create(daemon())
    wait_ready(api, namespace, LABELS, len(nodes))
    (first,) = everywhere.list(
        labelSelector=selector(LABELS) + ",controller-revision-hash", fieldSelector=f"metadata.namespace={namespace}"
    )
    name = first["metadata"]["name"]
    assert first["metadata"]["ownerReferences"][0]["name"] == "ds"
    patched = revisions.patch(name, {"metadata": {"labels": {name: "patched"}}}, "strategic")
    assert patched["metadata"]["labels"][name] == "patched"

    own = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": "own",
            "labels": {**LABELS, "own": "yes"},
            "ownerReferences": first["metadata"]["ownerReferences"],
        },
        "data": first["data"],
        "revision": first["revision"] + 1,
    }
    revisions.create(own)
    assert sorted(revisions.names(labelSelector=selector(LABELS))) == sorted([name, "own"])
    revisions.delete("own")
    eventually(lambda: not revisions.exists("own"), "the deletion")

    def relabel(obj: Obj) -> None:
        obj["metadata"]["labels"][name] = "updated"

    assert revisions.modify(name, relabel)["metadata"]["labels"][name] == "updated"
    sets.patch("ds", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 2}}}}, "strategic")
    eventually(lambda: len(revisions.list(labelSelector=selector(LABELS))) == 2, "the revision of the change")
    rolled_out(api, namespace, len(nodes))
    revisions.delete_all(labelSelector=f"{name}=updated")
    eventually(lambda: name not in revisions.names(), "the old revision to go")
