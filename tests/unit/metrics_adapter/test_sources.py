"""What Prometheus and the API server say, and for how long it is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from machinery.clock import VirtualClock
from machinery.errors import InternalError, ServiceUnavailable, StatusError, Timeout
from metrics_adapter.config import read
from metrics_adapter.prometheus import MAX_SAMPLES, Prometheus, Series
from metrics_adapter.registry import Listed, Metric, Registry, Rules
from metrics_adapter.resources import PAGE, Resource, Resources, discover, names

Obj = dict[str, Any]
PODS = Resource("", "v1", "pods", "pod", "Pod", True)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "ingress", "Ingress", True)


@dataclass
class Scripted:
    """Answers by path, or fails; notes what it was asked."""

    answers: dict[str, Any]
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    async def get(self, path: str, params: Mapping[str, str] | None = None, accept: str = "") -> Obj:
        self.asked.append((path, dict(params or {})))
        found = self.answers[path]
        found = found.pop(0) if isinstance(found, list) else found
        if isinstance(found, Exception):
            raise found
        told: Obj = found
        return told


def vector(*values: str) -> Obj:
    result = [{"metric": {"pod": f"p{number}"}, "value": [5.5, value]} for number, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def prometheus(answer: Any, path: str = "/api/v1/query") -> tuple[Prometheus, Scripted]:
    scripted = Scripted({path: answer})
    return Prometheus(scripted, timeout=3, max_age=60), scripted


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        (vector("1", "2.5"), [1.0, 2.5]),
        (vector("NaN", "+Inf", "-Inf", "7"), [7.0]),
        (vector(), []),
        ({"status": "success", "data": {"resultType": "scalar", "result": [5.5, "4"]}}, [4.0]),
    ],
)
async def test_answers(answer: Obj, values: list[float]) -> None:
    made, scripted = prometheus(answer)
    assert [(each.at, each.value) for each in await made.query("q")] == [(5.5, value) for value in values]
    bounds = {"query": "q", "timeout": "3s", "lookback_delta": "60s", "limit": str(MAX_SAMPLES + 1)}
    assert scripted.asked == [("/api/v1/query", bounds)]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param({"status": "success", "data": {"resultType": "matrix", "result": []}}, 500, id="matrix"),
        pytest.param({"status": "success", "data": None}, 500, id="nothing"),
        pytest.param({"status": "error"}, 500, id="error"),
        pytest.param(vector("much"), 500, id="no-number"),
        pytest.param({"status": "success", "data": {"resultType": "vector", "result": [{}]}}, 500, id="no-sample"),
        pytest.param(vector(*["1"] * (MAX_SAMPLES + 1)), 500, id="too-much"),
        pytest.param(StatusError("bad_data", code=400), 500, id="refused"),
        pytest.param(StatusError("starting", code=503), 503, id="not-ready"),
        pytest.param(ServiceUnavailable("refused"), 503, id="away"),
        pytest.param(Timeout("slow"), 503, id="slow"),
    ],
)
async def test_failures(answer: Any, code: int) -> None:
    made, _ = prometheus(answer)
    with pytest.raises(StatusError, match="unable to fetch metrics") as caught:
        await made.query("q")
    assert caught.value.code == code


async def test_series_are_told_by_name_and_labels() -> None:
    told = [{"__name__": "a", "pod": "1"}, {"__name__": "a", "pod": "2"}, {"__name__": "b", "pod": "1", "node": "x"}]
    made, _ = prometheus({"status": "success", "data": told}, "/api/v1/series")
    found = await made.series("{}", 1, 2)
    assert found == {Series("a", frozenset({"pod"})), Series("b", frozenset({"pod", "node"}))}


def test_resources_by_every_name() -> None:
    events = [Resource(group, "v1", "events", "event", "Event", True) for group in ("", "events.k8s.io")]
    known = Resources([PODS, INGRESSES, *events])
    assert known.find("pod") == known.find("pods") == known.exactly("pods") == PODS
    assert known.exactly("ingresses.networking.k8s.io") == known.find("ingress", "networking_k8s_io") == INGRESSES
    assert known.find("event") == events[0]
    assert known.find("events", "events.k8s.io") == events[1]
    assert known.exactly("things") is None
    assert INGRESSES.path("n") == "/apis/networking.k8s.io/v1/namespaces/n/ingresses"
    assert PODS.path("") == "/api/v1/pods"


def discovery(group: str, *entries: tuple[str, str, str, str]) -> Obj:
    versions = [
        {
            "version": version,
            "resources": [{"resource": plural, "singularResource": "", "scope": scope, "responseKind": {"kind": kind}}],
        }
        for version, plural, kind, scope in entries
    ]
    return {"items": [{"metadata": {"name": group}, "versions": versions}]}


async def test_discovery_takes_the_preferred_version_and_leaves_metrics_out() -> None:
    both = discovery("apps", ("v2", "sets", "Set", "Namespaced"), ("v1", "sets", "Set", "Cluster"))
    both["items"] += discovery("custom.metrics.k8s.io", ("v1beta2", "pods", "MetricValueList", "Namespaced"))["items"]
    reader = Scripted({"/api": discovery("", ("v1", "pods", "Pod", "Namespaced")), "/apis": both})
    found = await discover(reader)
    assert found.known == (PODS, Resource("apps", "v2", "sets", "set", "Set", True))


async def test_names_come_in_pages() -> None:
    page = {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    last = {"metadata": {}, "items": [{"metadata": {"name": "b"}}]}
    reader = Scripted({"/api/v1/namespaces/n/pods": [page, last]})
    assert await names(reader, PODS, "n", "app=web") == ["a", "b"]
    assert [asked["limit"] for _, asked in reader.asked] == [str(PAGE)] * 2
    assert [asked.get("continue") for _, asked in reader.asked] == [None, "more"]
    failing = Scripted({"/api/v1/namespaces/n/pods": StatusError("forbidden", code=403)})
    with pytest.raises(InternalError, match="unable to list matching resources"):
        await names(failing, PODS, "n", "")


def registry(answers: Any, clock: VirtualClock) -> Registry:
    config = read("rules: [{seriesQuery: 'x{}', resources: {template: <<.Resource>>}}]")
    reader = Scripted({"/api": discovery("", ("v1", "pods", "Pod", "Namespaced")), "/apis": {"items": []}})
    made, _ = prometheus(answers, "/api/v1/series")
    return Registry(Rules(None, config), made, reader, clock, interval=30, max_age=120)


async def test_a_list_is_believed_for_a_while() -> None:
    clock = VirtualClock()
    told = {"status": "success", "data": [{"__name__": "depth", "pod": "p"}]}
    away = ServiceUnavailable("refused")
    made = registry([told, *[away] * 100], clock)
    metric = Metric(PODS, "depth", False)
    with pytest.raises(ServiceUnavailable):
        made.metric(metric)
    told_fresh: list[bool] = []
    running = asyncio.ensure_future(made.run(told_fresh.append))
    try:
        await clock.advance(0)
        assert made.metric(metric) is not None
        await clock.advance(120)
        assert made.metric(metric) is not None
        await clock.advance(1)
        assert made.listing() == Listed({}, {})
        with pytest.raises(ServiceUnavailable, match="Prometheus does not answer"):
            made.metric(metric)
        await clock.advance(100)
        assert (told_fresh[0], told_fresh[-1]) == (True, False)
        assert made.failures < 20  # it is asked less and less often
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
