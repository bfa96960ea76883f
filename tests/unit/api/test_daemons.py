"""What DaemonSets' pods are given: the controller and both autoscalers must agree on it."""

from __future__ import annotations

import pytest

from api.daemons import daemon_pod, daemon_tolerations
from api.models import apps_v1, core_v1, meta_v1
from controller_manager.daemonset.eligibility import pod_for

ALWAYS = {
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
}
OWN = core_v1.Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute")


def told(tolerations: list[core_v1.Toleration] | None) -> list[tuple[str | None, str | None]]:
    return [(each.key, each.effect) for each in tolerations or ()]


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        pytest.param(core_v1.PodSpec(containers=[]), set(), id="plain"),
        pytest.param(
            core_v1.PodSpec(containers=[], hostNetwork=True),
            {("node.kubernetes.io/network-unavailable", "NoSchedule")},
            id="on the host's network",
        ),
        pytest.param(core_v1.PodSpec(containers=[], tolerations=[OWN]), set(), id="what is there is not said twice"),
    ],
)
def test_a_planned_pod_tolerates_what_the_controllers_does(spec: core_v1.PodSpec, more: set[tuple[str, str]]) -> None:
    found = told(daemon_tolerations(spec))
    assert set(found) == ALWAYS | more
    assert len(found) == len(set(found))
    template = core_v1.PodTemplateSpec(metadata=meta_v1.ObjectMeta(labels={"app": "log"}), spec=spec)
    daemon = apps_v1.DaemonSet(
        metadata=meta_v1.ObjectMeta(name="log", namespace="default", uid="u1"),
        spec=apps_v1.DaemonSetSpec(selector=meta_v1.LabelSelector(), template=template),
    )
    planned, made = daemon_pod(daemon), pod_for(daemon, "n1", "hash")
    assert planned is not None
    assert planned.spec is not None
    assert made.spec is not None
    assert told(planned.spec.tolerations) == told(made.spec.tolerations)
    assert planned.metadata is not None
    assert [(each.kind, each.uid) for each in planned.metadata.ownerReferences or ()] == [("DaemonSet", "u1")]


def test_one_without_a_spec_has_no_pod() -> None:
    assert daemon_pod(apps_v1.DaemonSet(metadata=meta_v1.ObjectMeta(name="log"))) is None
