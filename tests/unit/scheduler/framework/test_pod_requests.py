"""Request arithmetic (KEP-753 sidecars, KEP-2837 pod-level resources, KEP-1287 resize) in tables."""

from __future__ import annotations

import pytest

from api.models import core_v1
from scheduler.framework.resources import CEILING, amounts, pod_requests, scoring_requests
from tests.unit.scheduler.objects import container, pod

MIB = 1024 * 1024


def cpu(name: str, amount: str, restart: str | None = None) -> core_v1.Container:
    return container(name, {"cpu": amount}, restart=restart)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(pod(requests=None), {}, id="no requests"),
        pytest.param(pod(containers=[cpu("a", "1"), cpu("b", "250m")]), {"cpu": 1250}, id="containers add up"),
        pytest.param(
            pod(containers=[cpu("a", "1")], initContainers=[cpu("i", "2"), cpu("j", "1500m")]),
            {"cpu": 2000},
            id="largest init container when larger than the sum",
        ),
        pytest.param(
            pod(containers=[cpu("a", "1")], initContainers=[cpu("s", "200m", "Always"), cpu("i", "1")]),
            {"cpu": 1200},
            id="a sidecar runs beside the containers and beside later init containers",
        ),
        pytest.param(
            pod(containers=[cpu("a", "100m")], initContainers=[cpu("i", "1"), cpu("s", "500m", "Always")]),
            {"cpu": 1000},
            id="an init container before the sidecar runs without it",
        ),
        pytest.param(
            pod(containers=[cpu("a", "100m")], initContainers=[cpu("s", "1", "Always"), cpu("t", "2", "Always")]),
            {"cpu": 3100},
            id="sidecars add up",
        ),
        pytest.param(
            pod(requests={"cpu": "1"}, overhead={"cpu": "100m", "memory": "10Mi"}),
            {"cpu": 1100, "memory": 10 * MIB},
            id="overhead is added",
        ),
        pytest.param(
            pod(requests={"cpu": "1"}, resources=core_v1.ResourceRequirements(requests={"cpu": "3"})),
            {"cpu": 3000},
            id="pod-level requests replace the sum",
        ),
        pytest.param(
            pod(containers=[cpu(str(index), "100u") for index in range(15)]),
            {"cpu": 2},
            id="rounded up once, after adding",
        ),
        pytest.param(pod(requests={"memory": "1e3"}), {"memory": 1000}, id="exponent"),
        pytest.param(pod(requests={"memory": "9E"}), {"memory": CEILING}, id="huge is capped"),
        pytest.param(pod(requests={"cpu": "nonsense", "memory": "1"}), {"cpu": 0, "memory": 1}, id="unreadable is 0"),
        pytest.param(
            pod(requests={"example.com/gpu": "2", "hugepages-2Mi": "4Mi", "storage": "1Gi"}),
            {"example.com/gpu": 2, "hugepages-2Mi": 4 * MIB},
            id="extended and prefixed resources are counted, others are not",
        ),
    ],
)
def test_pod_requests(made: core_v1.Pod, expected: dict[str, int]) -> None:
    assert pod_requests(made) == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(pod(requests=None), (100, 200 * MIB), id="defaults"),
        pytest.param(pod(requests={"cpu": "0"}), (0, 200 * MIB), id="a stated zero stays zero"),
        pytest.param(
            pod(containers=[container("a"), container("b", {"cpu": "1", "memory": "1Mi"})]),
            (1100, 201 * MIB),
            id="per container",
        ),
        pytest.param(
            pod(requests=None, resources=core_v1.ResourceRequirements(requests={"cpu": "50m"})),
            (50, 200 * MIB),
            id="no default beside a pod-level request",
        ),
    ],
)
def test_scoring_requests(made: core_v1.Pod, expected: tuple[int, int]) -> None:
    assert scoring_requests(made) == expected


def test_resize_in_place_counts_the_largest_of_spec_allocated_and_actual() -> None:
    def resized(allocated: str, actual: str) -> int:
        state = core_v1.ContainerStatus(
            name="app",
            image="",
            imageID="",
            ready=True,
            restartCount=0,
            allocatedResources={"cpu": allocated},
            resources=core_v1.ResourceRequirements(requests={"cpu": actual}),
        )
        return pod_requests(pod(requests={"cpu": "500m"}, status=core_v1.PodStatus(containerStatuses=[state])))["cpu"]

    assert resized("1", "1") == 1000  # shrinking, not yet done
    assert resized("500m", "2") == 2000
    assert resized("100m", "100m") == 500  # growing, not yet granted


def test_allocatable_of_unknown_resources_is_left_out() -> None:
    assert amounts({"cpu": "1900m", "pods": "110", "weird": "3"}) == {"cpu": 1900, "pods": 110}
    assert amounts(None) == {}
