"""Who gets which names, and what conditions say about it."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.crd.naming import (
    CLEANUP,
    condition,
    plan_deletion,
    plan_finished,
    plan_progress,
    plan_status,
    with_condition,
)
from apiserver.registry.context import DeleteOptions

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def crd(plural: str, **names: Any) -> dict[str, Any]:
    kind = plural.title()
    spec = {"group": "e.io", "names": {"plural": plural, "singular": plural[:-1], "kind": kind, **names}}
    return {"metadata": {"name": f"{plural}.e.io", "uid": "u"}, "spec": spec}


def accepted(made: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    return {**made, "status": plan_status(made, others, NOW)}


def test_a_definition_alone_gets_its_names() -> None:
    made = accepted(crd("cats", shortNames=["ct"], listKind="CatsList"))
    assert made["status"]["acceptedNames"] == made["spec"]["names"]
    assert condition(made, "NamesAccepted")["reason"] == "NoConflicts"
    assert condition(made, "Established")["status"] == "True"
    assert plan_status(made, (), LATER) == made["status"]


def test_a_taken_short_name_is_refused_and_the_rest_is_granted() -> None:
    first = accepted(crd("cats", shortNames=["ct"]))
    second = accepted(crd("carts", shortNames=["ct"]), first)
    assert condition(second, "NamesAccepted")["message"] == '"ct" is already in use'
    assert condition(second, "NamesAccepted")["reason"] == "ShortNamesConflict"
    assert condition(second, "Established")["status"] == "False"
    assert second["status"]["acceptedNames"] == {"plural": "carts", "singular": "cart", "kind": "Carts"}


def test_an_established_definition_stays_established() -> None:
    first, second = accepted(crd("cats")), accepted(crd("dogs"))
    greedy = {**second, "spec": {**second["spec"], "names": {**second["spec"]["names"], "singular": "cat"}}}
    again = accepted(greedy, first)
    assert condition(again, "NamesAccepted")["reason"] == "SingularConflict"
    assert condition(again, "Established")["status"] == "True"
    assert again["status"]["acceptedNames"]["singular"] == "dog"


def test_deletion_marks_then_waits_then_ends() -> None:
    made = accepted(crd("cats"))
    marked = plan_deletion(made, DeleteOptions(), NOW)
    assert marked.update is not None
    assert not marked.remove
    assert marked.update["metadata"]["finalizers"] == [CLEANUP]
    assert condition(marked.update, "Terminating")["reason"] == "InstanceDeletionPending"
    assert plan_deletion(marked.update, DeleteOptions(), LATER) == (None, False)
    under_way = plan_progress(marked.update, LATER, done=False)
    assert condition(under_way, "Terminating")["lastTransitionTime"] == NOW
    assert "finalizers" not in plan_finished(under_way)["metadata"]


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = with_condition(None, "A", "True", "R", "m", NOW)
    same = with_condition(first, "A", "True", "S", "m", LATER)
    assert (same[0]["reason"], same[0]["lastTransitionTime"]) == ("S", NOW)
    assert with_condition(same, "A", "False", "S", "m", LATER)[0]["lastTransitionTime"] == LATER


@pytest.mark.parametrize(
    ("annotation", "status", "reason", "text"),
    [
        pytest.param(
            "https://github.com/kubernetes/kubernetes/pull/1", "True", "ApprovedAnnotation", "approved in", id="a"
        ),
        pytest.param("unapproved, an experiment", "False", "UnapprovedAnnotation", "not approved: ", id="unapproved"),
        pytest.param("", "False", "MissingAnnotation", "protected groups must have approval", id="missing"),
        pytest.param("whatever", "False", "InvalidAnnotation", "with either a URL or a reason", id="invalid"),
    ],
)
def test_protected_groups_tell_whether_they_are_approved(annotation: str, status: str, reason: str, text: str) -> None:
    made = crd("cats")
    made["spec"]["group"] = "cats.k8s.io"
    made["metadata"]["annotations"] = {"api-approved.kubernetes.io": annotation}
    found = condition(accepted(made), "KubernetesAPIApprovalPolicyConformant")
    assert (found["status"], found["reason"]) == (status, reason)
    assert text in found["message"]
    assert not condition(accepted(crd("dogs")), "KubernetesAPIApprovalPolicyConformant")
