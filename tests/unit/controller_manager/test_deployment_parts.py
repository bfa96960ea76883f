from __future__ import annotations

import re

import pytest

from api.models import apps_v1, core_v1
from controller_manager.deployment import revisions, status
from controller_manager.deployment.rolling import Limits
from controller_manager.deployment.template import find_new, new_replica_set, same_template, template_hash
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at, deployment, replica_set, template

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"


def test_the_hash_is_stable_and_in_the_alphabet_of_names() -> None:
    assert template_hash(template(), None) == template_hash(template(), None)
    assert template_hash(template(), None) != template_hash(template("nginx:2"), None)
    assert template_hash(template(), None) != template_hash(template(), 0) != template_hash(template(), 1)
    assert re.fullmatch("[bcdfghjklmnpqrstvwxz2456789]{1,10}", template_hash(template(), None))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(template(), template(**{"pod-template-hash": "x"}), True, id="but for the hash"),
        pytest.param(template(), template(tier="x"), False, id="labels"),
        pytest.param(template(), template("nginx:2"), False, id="spec"),
        pytest.param(template(), None, False, id="missing"),
    ],
)
def test_same_template(one: core_v1.PodTemplateSpec, other: core_v1.PodTemplateSpec | None, same: bool) -> None:
    assert same_template(one, other) is same


def test_the_oldest_set_with_the_template_is_the_new_one() -> None:
    sets = [
        replica_set("c", created=3),
        replica_set("b", created=2, image="nginx:0"),
        replica_set("a", created=1),
    ]
    new, old = find_new(deployment(), sets)
    assert new is sets[2]
    assert [rs.metadata.name for rs in old if rs.metadata] == ["b", "c"]


def test_a_new_set_carries_the_hash_everywhere() -> None:
    made = new_replica_set(deployment(), {"a": "b"}, 2)
    assert made.metadata is not None
    assert made.spec is not None
    assert made.spec.template is not None
    assert made.spec.template.metadata is not None
    digest = (made.metadata.labels or {})["pod-template-hash"]
    assert made.metadata.name == f"web-{digest}"
    assert (made.spec.selector.matchLabels or {})["pod-template-hash"] == digest
    assert (made.spec.template.metadata.labels or {})["pod-template-hash"] == digest
    assert made.metadata.ownerReferences
    assert made.metadata.ownerReferences[0].controller is True
    original = deployment().spec
    assert original is not None
    assert original.selector.matchLabels == {"app": "web"}, "the Deployment itself is not touched"


@pytest.mark.parametrize(
    ("existing", "revision", "expected"),
    [
        pytest.param({}, 1, {REVISION: "1"}, id="first"),
        pytest.param({REVISION: "3"}, 3, {REVISION: "3"}, id="unchanged"),
        pytest.param(
            {REVISION: "1"},
            4,
            {REVISION: "4", HISTORY: "1"},
            id="rolled back to",
        ),
        pytest.param(
            {REVISION: "4", HISTORY: "1"},
            6,
            {REVISION: "6", HISTORY: "1,4"},
            id="again",
        ),
        pytest.param(
            {REVISION: "9"},
            10,
            {REVISION: "10", HISTORY: "9"},
            id="numbers, not texts",
        ),
        pytest.param({REVISION: "x"}, 2, {REVISION: "x"}, id="odd"),
    ],
)
def test_plan_annotations(existing: dict[str, str], revision: int, expected: dict[str, str]) -> None:
    assert revisions.plan_annotations(deployment(), existing, revision) == expected


def test_the_deployments_annotations_are_copied_but_for_its_own_business() -> None:
    owner = deployment()
    assert owner.metadata is not None
    owner.metadata.annotations = {
        "kubernetes.io/change-cause": "why",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        REVISION: "7",
    }
    planned = revisions.plan_annotations(owner, {}, 1)
    assert planned == {"kubernetes.io/change-cause": "why", REVISION: "1"}


@pytest.mark.parametrize(
    ("limit", "sets", "expected"),
    [
        pytest.param(None, [replica_set("a", revision=1)], [], id="no limit"),
        pytest.param(1, [replica_set("b", revision=10), replica_set("a", revision=9)], ["a"], id="oldest revision"),
        pytest.param(0, [replica_set("a", 1, revision=1)], [], id="not empty"),
        pytest.param(0, [replica_set("a", revision=1, observed=False)], [], id="not observed"),
        pytest.param(2, [replica_set("a", revision=1)], [], id="within"),
    ],
)
def test_plan_cleanup(limit: int | None, sets: list[apps_v1.ReplicaSet], expected: list[str]) -> None:
    assert [rs.metadata.name for rs in revisions.plan_cleanup(limit, sets) if rs.metadata] == expected


class Rollout:
    """A Deployment whose status is computed pass by pass."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.deployment = deployment(3)

    def observe(self, *sets: apps_v1.ReplicaSet) -> apps_v1.DeploymentStatus:
        new, _ = find_new(self.deployment, sets)
        counted = status.count(self.deployment, sets, new, Limits(3, 1, 0), self.clock)
        self.deployment.status = status.with_progress(self.deployment, counted, sets, new, self.clock)
        return self.deployment.status

    def reasons(self) -> dict[str, tuple[str, str | None]]:
        return {each.type: (each.status, each.reason) for each in status.conditions_of(self.deployment)}


async def test_conditions_of_a_rollout_that_succeeds() -> None:
    rollout = Rollout()
    found = rollout.observe(replica_set("n", 3))
    assert (found.replicas, found.updatedReplicas, found.unavailableReplicas) == (3, 3, 3)
    assert found.availableReplicas is None
    assert rollout.reasons() == {
        "Available": ("False", "MinimumReplicasUnavailable"),
        "Progressing": ("True", "ReplicaSetUpdated"),
    }
    await rollout.clock.advance(5)
    found = rollout.observe(replica_set("n", 3, available=3))
    assert rollout.reasons() == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert found.unavailableReplicas is None
    progressing = status.find(status.conditions_of(rollout.deployment), "Progressing")
    assert progressing is not None
    assert progressing.message == 'ReplicaSet "n" has successfully progressed.'
    assert progressing.lastTransitionTime == at(0), "it was True all the time"
    assert progressing.lastUpdateTime == at(5)


async def test_the_deadline_counts_from_the_last_progress() -> None:
    rollout = Rollout()
    rollout.observe(replica_set("n", 3))
    await rollout.clock.advance(500)
    rollout.observe(replica_set("n", 3, available=1))
    await rollout.clock.advance(500)
    rollout.observe(replica_set("n", 3, available=1))
    assert rollout.reasons()["Progressing"] == ("True", "ReplicaSetUpdated")
    await rollout.clock.advance(101)
    rollout.observe(replica_set("n", 3, available=1))
    assert rollout.reasons()["Progressing"] == ("False", "ProgressDeadlineExceeded")
    rollout.observe(replica_set("n", 3, available=3))
    assert rollout.reasons()["Progressing"] == ("True", "NewReplicaSetAvailable")


async def test_a_finished_rollout_does_not_time_out_when_a_pod_fails_later() -> None:
    rollout = Rollout()
    rollout.observe(replica_set("n", 3, available=3))
    await rollout.clock.advance(5000)
    rollout.observe(replica_set("n", 3, available=2))
    assert rollout.reasons() == {
        "Available": ("False", "MinimumReplicasUnavailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }


def test_a_sets_failure_shows_on_the_deployment() -> None:
    rollout = Rollout()
    failing = replica_set("n", 3)
    assert failing.status is not None
    failing.status.conditions = [
        apps_v1.ReplicaSetCondition(type="ReplicaFailure", status="True", reason="FailedCreate", message="quota")
    ]
    rollout.observe(failing)
    assert rollout.reasons()["ReplicaFailure"] == ("True", "FailedCreate")
    rollout.observe(replica_set("n", 3))
    assert "ReplicaFailure" not in rollout.reasons()
