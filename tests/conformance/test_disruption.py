"""sig-apps: PodDisruptionBudgets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.objects import condition, pod, wait_ready
from tests.harness.api import Api, ApiError, Collection, Obj
from tests.harness.nanokube import eventually

DISRUPTION = "[sig-apps] DisruptionController "
LABELS = {"foo": "bar"}


def budget(name: str = "foo", labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"selector": {"matchLabels": LABELS}, **spec},
    }


def processed(budgets: Collection, name: str = "foo") -> Obj:
    """The budget once its controller has seen it."""

    def seen() -> Obj:
        obj = budgets.get(name)
        return obj if obj.get("status", {}).get("observedGeneration", 0) >= obj["metadata"]["generation"] else {}

    return eventually(seen, f"the status of {name}")


def evict(api: Api, namespace: str, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    api.of("v1", "pods", namespace).create(body, name, "eviction")


@pytest.mark.conformance(DISRUPTION + "should create a PodDisruptionBudget [Conformance]")
def test_create_update_patch_delete(api: Api, namespace: str) -> None:
    budgets = api.of("policy/v1", "poddisruptionbudgets", namespace)
    made = budgets.create(budget(minAvailable=1))
    assert made["spec"]["minAvailable"] == 1
    processed(budgets)
    assert budgets.modify("foo", lambda obj: obj["spec"].update(minAvailable=2))["spec"]["minAvailable"] == 2
    processed(budgets)
    assert budgets.patch("foo", {"spec": {"minAvailable": "3%"}}, "strategic")["spec"]["minAvailable"] == "3%"
    processed(budgets)
    budgets.delete("foo")
    eventually(lambda: not budgets.exists("foo"), "the deletion")


@pytest.mark.conformance(
    DISRUPTION
    + "Listing PodDisruptionBudgets for all namespaces "
    + "should list and delete a collection of PodDisruptionBudgets [Conformance]"
)
def test_list_and_delete_collection(api: Api, namespace: str) -> None:
    budgets, everywhere = (
        api.of("policy/v1", "poddisruptionbudgets", namespace),
        api.of("policy/v1", "poddisruptionbudgets"),
    )
    mark = {"special-label": namespace}
    for name in ("foo", "foo2"):
        budgets.create(budget(name, mark, minAvailable=2))
    assert sorted(everywhere.names(labelSelector=f"special-label={namespace}")) == ["foo", "foo2"]
    assert sorted(budgets.names()) == ["foo", "foo2"]
    budgets.delete_all(labelSelector=f"special-label={namespace}")
    eventually(lambda: budgets.names() == [], "both deletions")


@pytest.mark.conformance(DISRUPTION + "should observe PodDisruptionBudget status updated [Conformance]")
def test_status_follows_the_pods(api: Api, namespace: str) -> None:
    budgets, pods = api.of("policy/v1", "poddisruptionbudgets", namespace), api.of("v1", "pods", namespace)
    budgets.create(budget(minAvailable=1))
    assert processed(budgets)["status"]["disruptionsAllowed"] == 0
    for number in range(3):
        pods.create(pod(f"pod-{number}", LABELS))
    wait_ready(api, namespace, LABELS, 3)
    eventually(lambda: budgets.get("foo")["status"]["disruptionsAllowed"] == 2, "two disruptions allowed")
    status = budgets.get("foo")["status"]
    assert (status["currentHealthy"], status["desiredHealthy"], status["expectedPods"]) == (3, 1, 3)
    allowed = condition(budgets.get("foo"), "DisruptionAllowed")
    assert (allowed["status"], allowed["reason"]) == ("True", "SufficientPods")


@pytest.mark.conformance(DISRUPTION + "should update/patch PodDisruptionBudget status [Conformance]")
def test_status_endpoint(api: Api, namespace: str) -> None:
    budgets, pods = api.of("policy/v1", "poddisruptionbudgets", namespace), api.of("v1", "pods", namespace)
    budgets.create(budget(minAvailable=1))
    pods.create(pod("pod-0", LABELS))
    wait_ready(api, namespace, LABELS, 1)
    eventually(lambda: processed(budgets)["status"].get("currentHealthy") == 1, "one healthy pod")
    when = budgets.get("foo")["metadata"]["creationTimestamp"]
    told = budgets.modify("foo", lambda obj: obj["status"].update(disruptedPods={"pod-0": when}), "status")
    assert told["status"]["disruptedPods"] == {"pod-0": when}
    patched = budgets.patch("foo", {"status": {"disruptedPods": {"pod-0": None}}}, "merge", "status")
    assert "pod-0" not in patched["status"].get("disruptedPods", {})


@pytest.mark.conformance(DISRUPTION + "should block an eviction until the PDB is updated to allow it [Conformance]")
def test_blocks_an_eviction_until_it_allows_it(api: Api, namespace: str) -> None:
    budgets, pods = api.of("policy/v1", "poddisruptionbudgets", namespace), api.of("v1", "pods", namespace)
    for number in range(3):
        pods.create(pod(f"pod-{number}", LABELS))
    wait_ready(api, namespace, LABELS, 3)
    budgets.create(budget(minAvailable=3))
    eventually(lambda: processed(budgets)["status"].get("currentHealthy") == 3, "three healthy pods")
    with pytest.raises(ApiError) as refused:
        evict(api, namespace, "pod-0")
    assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    (cause,) = refused.value.status["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] == "The disruption budget foo needs 3 healthy pods and has 3 currently"

    budgets.patch("foo", {"spec": {"minAvailable": 2}})
    eventually(lambda: processed(budgets)["status"]["disruptionsAllowed"] == 1, "one disruption allowed")
    evict(api, namespace, "pod-0")
    eventually(lambda: not pods.exists("pod-0"), "the eviction")
    with pytest.raises(ApiError):
        evict(api, namespace, "pod-1")
    budgets.delete("foo")
    evict(api, namespace, "pod-1")
