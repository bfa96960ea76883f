"""What the metrics APIs answer, read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from controller_manager.horizontal.errors import MetricError
from controller_manager.horizontal.metrics import MetricsSource
from machinery.errors import NotFound, StatusError

Obj = dict[str, Any]


class Api:
    def __init__(self, *answers: Obj | StatusError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Obj:
        self.asked.append(path)
        answer = self.answers.pop(0)
        if isinstance(answer, StatusError):
            raise answer
        return answer


def usage(name: str, window: str = "15s", **containers: str) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "n"},
        "timestamp": "2026-01-01T00:00:00Z",
        "window": window,
        "containers": [{"name": each, "usage": {"cpu": cpu} if cpu else {}} for each, cpu in containers.items()],
    }


def source(*answers: Obj | StatusError) -> MetricsSource:
    return MetricsSource(Api(*answers), lambda: 0.0)


async def test_usage_of_pods_and_of_containers() -> None:
    answer = {"items": [usage("a", main="100m", side="50m"), usage("b", main="1"), usage("c", main="1")]}
    made = source(answer)
    found = await made.resource("cpu", "n", {"a", "b"})
    assert {name: sample.value for name, sample in found.items()} == {"a": 150, "b": 1000}
    one = await made.resource("cpu", "n", {"a", "b"}, "side")  # of the same answer
    assert {name: sample.value for name, sample in one.items()} == {"a": 50}


async def test_a_pod_with_a_container_unmeasured_is_left_out() -> None:
    found = await source({"items": [usage("a", main="100m", side=""), usage("b", main="1")]}).resource(
        "cpu", "n", {"a", "b"}
    )
    assert list(found) == ["b"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("1m0s", 60), ("15.25s", 15.25), ("750.5ms", 0.7505), ("1h2m3s", 3723), ("", 0)]
)
async def test_windows(text: str, seconds: float) -> None:
    found = await source({"items": [usage("a", text, main="1")]}).resource("cpu", "n", {"a"})
    assert found["a"].window == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"items": []}, "no metrics returned from resource metrics API"),
        ({"items": [usage("other", main="1")]}, "no metrics returned from resource metrics API"),
        (
            StatusError("404 page not found", code=404),
            "unable to fetch metrics from resource metrics API: the server could not find the requested resource "
            "(get pods.metrics.k8s.io)",
        ),
        (
            StatusError("service unavailable", code=503),
            "unable to fetch metrics from resource metrics API: the server is currently unable to handle the request "
            "(get pods.metrics.k8s.io)",
        ),
        (
            NotFound("the server could not find the requested resource", details={}),
            "unable to fetch metrics from resource metrics API: the server could not find the requested resource "
            "(get pods.metrics.k8s.io)",
        ),
        (
            NotFound("the server could not find the metric m for pods"),
            "unable to fetch metrics from resource metrics API: the server could not find the metric m for pods",
        ),
        (StatusError("no", code=403), "unable to fetch metrics from resource metrics API: no"),
        ({"items": [usage("a", main="much")]}, "unreadable value 'much'"),
    ],
)
async def test_what_cannot_be_had(answer: Obj | StatusError, text: str) -> None:
    with pytest.raises(MetricError) as caught:
        await source(answer).resource("cpu", "n", {"a"})
    assert str(caught.value) == text


async def test_after_a_failure_it_asks_again() -> None:
    made = source(StatusError("no", code=500), {"items": [usage("a", main="1")]})
    with pytest.raises(MetricError):
        await made.resource("cpu", "n", {"a"})
    assert (await made.resource("cpu", "n", {"a"}))["a"].value == 1000
