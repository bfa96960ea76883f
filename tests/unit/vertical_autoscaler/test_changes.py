"""What recommendations make of pods, and which pods are changed when: tables, and what must always hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import autoscaling_v2, meta_v1
from vertical_autoscaler import conflicts
from vertical_autoscaler.admission import pod_patch
from vertical_autoscaler.objects import (
    ContainerPolicy,
    ContainerRecommendation,
    EvictionRequirement,
    ResourcePolicy,
    Spec,
    TargetRef,
    UpdatePolicy,
    Vpa,
)
from vertical_autoscaler.priority import Group, PodFacts, Priority, Resize, admitted, judge, priority
from vertical_autoscaler.resources import ContainerSpec, Range, plan, proportional, qos
from vertical_autoscaler.updater import Limiter
from vertical_autoscaler.validation import validate

Amounts = dict[str, int]
GI = 2**30


def autoscaler(*policies: ContainerPolicy, mode: str | None = None) -> Vpa:
    return Vpa(
        meta_v1.ObjectMeta(name="web", namespace="default"),
        Spec(
            targetRef=TargetRef("Deployment", "web", "apps/v1"),
            updatePolicy=UpdatePolicy(mode),
            resourcePolicy=ResourcePolicy(list(policies)),
        ),
    )


def spec(requests: Amounts, limits: Amounts | None = None, name: str = "main", place: int = 0) -> ContainerSpec:
    return ContainerSpec(place, name, requests, limits or {})


def advice(target: Amounts, lower: Amounts | None = None, upper: Amounts | None = None) -> ContainerRecommendation:
    return ContainerRecommendation("main", target, lower or target, upper or target, target)


@pytest.mark.parametrize(
    ("requests", "limits", "limit"),
    [
        pytest.param({"cpu": 100}, {"cpu": 200}, {"cpu": 1000}, id="in proportion"),
        pytest.param({"cpu": 200}, {"cpu": 200}, {"cpu": 500}, id="equal"),
        pytest.param({}, {"cpu": 200}, {"cpu": 500}, id="a limit alone is a request too"),
        pytest.param({"cpu": 100}, {}, {}, id="none"),
    ],
)
def test_limits_follow(requests: Amounts, limits: Amounts, limit: Amounts) -> None:
    (change,) = plan(autoscaler(), [spec(requests, limits)], {"main": advice({"cpu": 500})})
    assert (change.requests, change.limits) == ({"cpu": 500}, limit)
    (change,) = plan(
        autoscaler(ContainerPolicy("*", controlledValues="RequestsOnly")),
        [spec(requests, limits)],
        {"main": advice({"cpu": 150})},
    )
    assert (change.requests, change.limits) == ({"cpu": 150}, {})


@pytest.mark.parametrize(
    ("policy", "ranges", "expected", "note"),
    [
        (ContainerPolicy("main", maxAllowed={"cpu": "300m"}), [], 300, "cpu capped to maxAllowed"),
        (ContainerPolicy("main", minAllowed={"cpu": "2"}), [], 2000, "cpu capped to minAllowed"),
        (ContainerPolicy("main", controlledValues="RequestsOnly"), [], 200, "cpu capped to container limit"),
        (ContainerPolicy(), [Range("Container", {}, {"cpu": 600}, {})], 300, "cpu capped to fit Max in container LimitRange"),
        (ContainerPolicy(), [Range("Container", {"cpu": 800}, {}, {})], 800, "cpu capped to fit Min in container LimitRange"),
    ],
)  # fmt: skip
def test_caps(policy: ContainerPolicy, ranges: list[Range], expected: int, note: str) -> None:
    containers = [spec({"cpu": 100}, {"cpu": 200})]
    (change,) = plan(autoscaler(policy), containers, {"main": advice({"cpu": 500})}, ranges)
    assert change.requests == {"cpu": expected}
    assert change.described().startswith(f"container 0: {note}, cpu request")


def test_a_pods_range_shares_what_there_is() -> None:
    containers = [spec({"cpu": 100}), spec({"cpu": 100}, name="other", place=1)]
    advised = {"main": advice({"cpu": 600}), "other": advice({"cpu": 200})}
    changes = plan(autoscaler(), containers, advised, [Range("Pod", {}, {"cpu": 400}, {})])
    assert [change.requests["cpu"] for change in changes] == [300, 100]
    changes = plan(autoscaler(), containers, advised, [Range("Pod", {"cpu": 1600}, {}, {})])
    assert [change.requests["cpu"] for change in changes] == [1200, 400]


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_limit_never_falls_below_its_request(request: int, more: int, target: int) -> None:
    limit = proportional(spec({"cpu": request}, {"cpu": request + more}), {"cpu": target}, {})["cpu"]
    assert limit >= target


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ({}, {}, "BestEffort"),
        ({"cpu": 1}, {}, "Burstable"),
        ({"cpu": 1, "memory": 1}, {"cpu": 1, "memory": 1}, "Guaranteed"),
        ({}, {"cpu": 1, "memory": 1}, "Guaranteed"),
        ({"cpu": 1}, {"cpu": 2, "memory": 1}, "Burstable"),
    ],
)
def test_classes(requests: Amounts, limits: Amounts, expected: str) -> None:
    assert qos([spec(requests, limits)]) == expected


def judged(request: Amounts, found: ContainerRecommendation, age: float | None, quick: bool = False) -> bool:
    changes = plan(autoscaler(), [spec(request)], {"main": found})
    return judge(priority(changes, {"main": found}), PodFacts(age, quick)).update


@pytest.mark.parametrize(
    ("request_", "age", "quick", "expected"),
    [
        pytest.param({"cpu": 100}, 60.0, False, True, id="below the lower bound"),
        pytest.param({"cpu": 5000}, 60.0, False, True, id="above the upper bound"),
        pytest.param({}, 60.0, False, True, id="no request"),
        pytest.param({"cpu": 800}, 60.0, False, False, id="within bounds and young"),
        pytest.param({"cpu": 800}, 12 * 3600.0, False, True, id="within bounds after 12 h"),
        pytest.param({"cpu": 950}, 12 * 3600.0, False, False, id="less than a tenth"),
        pytest.param({"cpu": 800}, None, False, False, id="not started"),
        pytest.param({"cpu": 950}, 60.0, True, True, id="killed soon"),
        pytest.param({"cpu": 1000}, 60.0, True, False, id="killed soon, nothing to change"),
    ],
)
def test_who_is_changed(request_: Amounts, age: float | None, quick: bool, expected: bool) -> None:
    assert judged(request_, advice({"cpu": 1000}, {"cpu": 500}, {"cpu": 2000}), age, quick) is expected


def test_who_must_grow_comes_first() -> None:
    found = [Priority(False, 9.0, True), Priority(True, 0.2, True), Priority(True, 0.5, False)]
    assert sorted(found, key=lambda each: each[:2], reverse=True) == [found[2], found[1], found[0]]


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ([], True),
        ([EvictionRequirement(["cpu"], "TargetHigherThanRequests")], True),
        ([EvictionRequirement(["cpu"], "TargetLowerThanRequests")], False),
        ([EvictionRequirement(["cpu", "memory"], "TargetLowerThanRequests")], True),
        ([EvictionRequirement(["cpu"], "TargetHigherThanRequests"), EvictionRequirement(["memory"], "TargetHigherThanRequests")], False),
    ],
)  # fmt: skip
def test_eviction_requirements(requirements: list[EvictionRequirement], expected: bool) -> None:
    changes = plan(autoscaler(), [spec({"cpu": 100, "memory": 2 * GI})], {"main": advice({"cpu": 500, "memory": GI})})
    assert admitted(changes, requirements) is expected


@given(st.integers(1, 50), st.integers(0, 50))
def test_half_of_a_group_stays(configured: int, pending: int) -> None:
    group = Group(configured, min(pending, configured), max(configured - pending, 0))
    while group.disruptable():
        group.evicted += 1
    assert group.evicted <= max(configured // 2, 1)
    assert group.running - group.evicted >= min(group.running, configured - max(configured // 2, 1))


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        (Resize("", False, False, 0.0), False),
        (Resize("Infeasible", False, False, 0.0), True),
        (Resize("Deferred", False, False, 299.0), False),
        (Resize("Deferred", False, False, 301.0), True),
        (Resize("", True, False, 3599.0), False),
        (Resize("", True, True, 0.0), True),
        (Resize("", True, False, 3601.0), True),
    ],
)
def test_hopeless_resizes(resize: Resize, expected: bool) -> None:
    assert resize.hopeless() is expected


def test_evictions_have_a_rate() -> None:
    limiter = Limiter(0.5, 2)
    assert [limiter.take(at) for at in (0.0, 0.0, 0.0, 1.0, 2.0)] == [True, True, False, False, True]
    assert all(Limiter().take(0.0) for _ in range(100))


def test_a_new_pod_is_patched() -> None:
    pod: dict[str, Any] = {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {
            "containers": [{"name": "main", "resources": {"limits": {"cpu": "200m"}, "claims": []}}, {"name": "x"}]
        },
    }
    changes = plan(autoscaler(), [spec({}, {"cpu": 200})], {"main": advice({"cpu": 500, "memory": 250 * 2**20})})
    assert pod_patch(autoscaler(), pod, changes) == [
        {
            "op": "add",
            "path": "/spec/containers/0/resources",
            "value": {"claims": [], "limits": {"cpu": "500m"}, "requests": {"cpu": "500m", "memory": "262144k"}},
        },
        {"op": "add", "path": "/metadata/annotations/vpaObservedContainers", "value": "main, x"},
        {
            "op": "add",
            "path": "/metadata/annotations/vpaUpdates",
            "value": "Pod resources updated by web: container 0: cpu request, memory request, cpu limit",
        },
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "spec.targetRef: Required value: If you're using v1beta1 version of the API, please migrate to v1"),
        ({"updatePolicy": {}}, "spec.updatePolicy.updateMode: Required value: updateMode is required if UpdatePolicy is used"),
        ({"updatePolicy": {"updateMode": "Auto", "minReplicas": 0}}, "spec.updatePolicy.minReplicas: Invalid value: 0: minReplicas has to be positive"),
        ({"resourcePolicy": {"containerPolicies": [{"containerName": "a", "minAllowed": {"cpu": "2"}, "maxAllowed": {"cpu": "1"}}]}}, 'spec.resourcePolicy.containerPolicies[0].maxAllowed[cpu]: Invalid value: "1": max resource for cpu is lower than min of "2"'),
        ({"resourcePolicy": {"containerPolicies": [{"containerName": "a", "minAllowed": {"cpu": "1500u"}}]}}, 'spec.resourcePolicy.containerPolicies[0].minAllowed[cpu]: Invalid value: "1500u": must be a whole number of milli CPUs'),
        ({"resourcePolicy": {"containerPolicies": [{}]}}, "spec.resourcePolicy.containerPolicies[0].containerName: Required value"),
        ({"recommenders": [{"name": "a"}, {"name": "b"}]}, "spec.recommenders: Too many: 2: must have at most 1 item"),
        ({"startupBoost": {"cpu": {}}}, "spec.startupBoost: Forbidden: in order to use startupBoost, you must enable feature gate CPUStartupBoost in the admission-controller args"),
    ],
)  # fmt: skip
def test_validation(body: dict[str, Any], message: str) -> None:
    target = {} if "targetRef" in message else {"targetRef": {"kind": "Deployment", "name": "web"}}
    assert [str(each) for each in validate({**target, **body}, create=True)] == [message]
    assert validate({"targetRef": {"kind": "Deployment", "name": "web"}}, create=True) == []


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["targetRef", "updatePolicy", "resourcePolicy", "containerPolicies", "minAllowed", "cpu", "updateMode"]), inner)))  # fmt: skip
def test_validation_takes_anything(body: Any) -> None:
    validate(body, create=True)


@pytest.mark.parametrize(
    ("names", "mode", "policies", "shared"),
    [
        (["cpu"], None, (), {"cpu"}),
        (["cpu", "memory"], "Initial", (), {"cpu", "memory"}),
        (["cpu"], "Off", (), set()),
        (["cpu"], None, (ContainerPolicy("*", controlledResources=["memory"]),), set()),
        (["cpu"], None, (ContainerPolicy("*", mode="Off"),), set()),
        ([], None, (), {"cpu"}),
    ],
)
def test_conflicts(names: list[str], mode: str | None, policies: tuple[ContainerPolicy, ...], shared: set[str]) -> None:
    metrics = [{"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization"}}} for name in names]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    body: dict[str, Any] = {
        "metadata": {"name": "h", "namespace": "default"},
        "spec": {"scaleTargetRef": reference, "maxReplicas": 3},
    }
    hpa = msgspec.convert(
        {**body, "spec": {**body["spec"], "metrics": metrics}}, autoscaling_v2.HorizontalPodAutoscaler
    )
    found = conflicts.find([autoscaler(*policies, mode=mode)], [hpa])
    assert {name for each in found.values() for name in each} == shared
