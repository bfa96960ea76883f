"""LimitRanger: defaults, bounds and ratios, in upstream's words."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.pod_resources import pod_amounts, quantity_text
from apiserver.admission.limits import apply_defaults, claim_findings, pod_findings
from machinery import quantity
from machinery.errors import Forbidden
from tests.unit.apiserver.admission.conftest import Cluster, a_pod

Obj = dict[str, Any]

LIMITS = {
    "spec": {
        "limits": [
            {
                "type": "Container",
                "default": {"cpu": "300m"},
                "defaultRequest": {"cpu": "100m"},
                "max": {"cpu": "1"},
                "min": {"cpu": "50m"},
                "maxLimitRequestRatio": {"cpu": "5"},
            },
            {"type": "Pod", "max": {"cpu": "1500m"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}, "min": {"storage": "1Gi"}},
        ]
    }
}


def asks(requests: str = "", limits: str = "") -> Obj:
    pairs = (("requests", requests), ("limits", limits))
    return {"resources": {field: {"cpu": value} for field, value in pairs if value}}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        pytest.param([asks("100m", "300m")], [], id="fits"),
        pytest.param(
            [asks("2", "2")],
            [
                "maximum cpu usage per Container is 1, but limit is 2",
                "maximum cpu usage per Pod is 1500m, but limit is 2",
            ],
            id="over-max",
        ),
        pytest.param(
            [asks("10m", "300m")],
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "cpu max limit to request ratio per Container is 5, but provided ratio is 30.000000",
            ],
            id="under-min",
        ),
        pytest.param(
            [asks("600m", "600m"), asks("1", "1")],
            ["maximum cpu usage per Pod is 1500m, but limit is 1600m"],
            id="sum-over-pod-max",
        ),
        pytest.param(
            [{}],
            [
                "minimum cpu usage per Container is 50m.  No request is specified",
                "maximum cpu usage per Container is 1.  No limit is specified",
                "cpu max limit to request ratio per Container is 5, but no request is specified or request is 0",
                "maximum cpu usage per Pod is 1500m.  No limit is specified",
            ],
            id="says-nothing",
        ),
    ],
)
def test_pod_findings(containers: list[Obj], expected: list[str]) -> None:
    assert pod_findings({"containers": containers}, LIMITS) == expected


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        pytest.param("2Gi", [], id="fits"),
        pytest.param(
            "10Gi", ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi"], id="too-large"
        ),
        pytest.param(
            "10Mi", ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 10Mi"], id="too-small"
        ),
    ],
)
def test_claim_findings(storage: str, expected: list[str]) -> None:
    assert claim_findings({"spec": {"resources": {"requests": {"storage": storage}}}}, LIMITS) == expected


def test_defaults_fill_only_what_is_missing_and_are_told() -> None:
    pod = a_pod("web", asks("200m"), {}, initContainers=[{"name": "i"}])
    apply_defaults(pod, LIMITS)
    assert [each["resources"] for each in pod["spec"]["containers"]] == [
        {"requests": {"cpu": "200m"}, "limits": {"cpu": "300m"}},
        {"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}},
    ]
    assert pod["metadata"]["annotations"] == {
        "kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu limit for container c0; cpu request for container "
        "c1; cpu limit for container c1; cpu request for init container i; cpu limit for init container i"
    }


async def test_limits_hold_in_their_namespace_only(cluster: Cluster) -> None:
    await cluster.create("limitranges", {"metadata": {"name": "lim"}, **LIMITS})
    made = await cluster.create("pods", a_pod("web"))
    assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}
    with pytest.raises(Forbidden) as caught:
        await cluster.create("pods", a_pod("big", asks("", "2")))
    assert caught.value.message == (
        'pods "big" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is '
        "1500m, but limit is 2]"
    )
    elsewhere = await cluster.create("pods", a_pod("big", asks("", "2")), "default")
    assert "annotations" not in elsewhere["metadata"]


def test_sidecars_run_beside_init_containers() -> None:
    spec = {
        "containers": [asks("100m")],
        "initContainers": [{**asks("50m"), "restartPolicy": "Always"}, asks("300m")],
        "overhead": {"cpu": "10m"},
    }
    assert pod_amounts(spec, "requests") == {"cpu": Fraction(360, 1000)}


CPU = st.integers(0, 5000)


@given(st.lists(CPU, min_size=1, max_size=4), st.lists(st.tuples(CPU, st.booleans()), max_size=4))
def test_a_pod_needs_at_least_each_of_its_parts(running: list[int], init: list[tuple[int, bool]]) -> None:
    spec = {
        "containers": [asks(f"{each}m") for each in running],
        "initContainers": [{**asks(f"{each}m"), **({"restartPolicy": "Always"} if s else {})} for each, s in init],
    }
    total = pod_amounts(spec, "requests")["cpu"] * 1000
    sidecars = sum(each for each, s in init if s)
    assert total >= sum(running) + sidecars
    assert all(total >= each for each, _ in init)
    assert total <= sum(running) + sum(each for each, _ in init)


@given(st.integers(0, 10**12), st.sampled_from(["1Gi", "1", "500m", "0"]))
def test_texts_of_sums_keep_their_value(number: int, like: str) -> None:
    assert quantity.parse(quantity_text(Fraction(number), like)) == number
