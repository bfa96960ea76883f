"""The metrics-adapter as a whole: a scripted Prometheus, the real API server, aggregation in between."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aggregated.access import Access, ApiReviews, Authorities
from aggregated.door import Door, tls_context
from client.client import Client
from client.rest import RestClient as Reader
from controller_manager.horizontal.errors import MetricError
from controller_manager.horizontal.metrics import MetricsSource
from machinery.clock import RealClock
from machinery.errors import ServiceUnavailable, StatusError
from machinery.tls import KeyPair
from metrics_adapter.config import defaults, read
from metrics_adapter.handlers import Handlers
from metrics_adapter.prometheus import Prometheus
from metrics_adapter.registry import Registry, Rules
from tests.harness.aggregated import allow, register
from tests.harness.apiserver import USER_TOKEN, RestClient, RunningApiServer, running_apiserver, shared_pki
from tests.harness.extension import until_condition
from tests.integration.apiserver.test_proxy import own_address

NAME = "metrics-adapter"
USER = f"system:serviceaccount:kube-system:{NAME}"
CUSTOM, OLD = "/apis/custom.metrics.k8s.io/v1beta2", "/apis/custom.metrics.k8s.io/v1beta1"
EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1"
API_VERSIONS = tuple(path.removeprefix("/apis/") for path in (CUSTOM, OLD, EXTERNAL))
NS = "default"
AT = 1_700_000_000
_TERM = re.compile(r'(\w+)(=~|=|!=)"([^"]*)"')
Labels = dict[str, str]


@dataclass
class ScriptedPrometheus:
    """Series and their values; a query is a name, matchers and perhaps a grouping, as the default rules make them."""

    samples: list[tuple[Labels, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    refuses: bool = False

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        params = params or {}
        if self.away:
            raise ServiceUnavailable("connection refused")
        if self.refuses:
            raise StatusError('{"status":"error","errorType":"bad_data"}', code=400)
        if path == "/api/v1/series":
            matching = [labels for labels, _ in self.samples if _matches(params["match[]"], labels)]
            return {"status": "success", "data": matching}
        self.asked.append(params["query"])
        return {"status": "success", "data": {"resultType": "vector", "result": self._result(params["query"])}}

    def _result(self, query: str) -> list[dict[str, Any]]:
        grouped = re.search(r"by \((\w+)\)", query)
        told: dict[str, dict[str, Any]] = {}
        for number, (labels, value) in enumerate(self.samples):
            if not _matches(query, labels):
                continue
            kept = {grouped.group(1): labels[grouped.group(1)]} if grouped else labels
            key = str(sorted(kept.items())) if grouped else str(number)
            before = float(told[key]["value"][1]) if key in told else 0.0
            told[key] = {"metric": kept, "value": [AT, str(before + float(value))]}
        return list(told.values())


def _matches(query: str, labels: Labels) -> bool:
    name = re.search(r"(\w+)\{", query)
    if name and labels["__name__"] != name.group(1):
        return False
    for label, operator, value in _TERM.findall(query):
        has = labels.get(label, "")
        matched = re.fullmatch(value.replace("\\\\", "\\"), has) if operator == "=~" else has == value
        if bool(matched) == (operator == "!="):
            return False
    return True


def series(name: str, value: str, **labels: str) -> tuple[Labels, str]:
    return {"__name__": name, **labels}, value


@dataclass
class Site:
    server: RunningApiServer
    rest: RestClient
    prometheus: ScriptedPrometheus
    registry: Registry
    reader: Reader

    async def items(self, path: str) -> list[dict[str, Any]]:
        answer = await self.rest.get(path)
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json["items"]
        return found


async def pod(rest: RestClient, name: str, **labels: str) -> None:
    spec = {"containers": [{"name": "main", "image": "i"}]}
    body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    assert (await rest.post(f"/api/v1/namespaces/{NS}/pods", body)).status == 201


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    host, pki, clock = own_address(), shared_pki(), RealClock()
    hosts = f"{NAME}.kube-system.svc"
    serving = pki.authority.issue_to(NAME, hosts, (), [hosts], client=False, server=True)
    async with running_apiserver() as server, contextlib.AsyncExitStack() as ends:
        rest = server.rest()
        await rest.post(f"/api/v1/namespaces/{NS}/serviceaccounts", {"metadata": {"name": "default"}})
        look = {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list"]}
        await allow(rest, NAME, [look])
        pair = pki.client(USER, "system:serviceaccounts")
        client = Client.connect(server.grpc_target, pair)
        ends.push_async_callback(client.close)
        reader = Reader(server.url, pair, user_agent=NAME)
        ends.push_async_callback(reader.close)
        scripted = ScriptedPrometheus(
            [
                series("http_requests_total", "1.5", namespace=NS, pod="web-1", verb="GET"),
                series("http_requests_total", "1", namespace=NS, pod="web-1", verb="PUT"),
                series("http_requests_total", "4", namespace=NS, pod="web-2", verb="GET"),
                series("http_requests_total", "9", namespace="other", pod="web-1", verb="GET"),
                series("queue_depth", "7", namespace=NS, pod="db-1", queue="orders"),
                series("queue_depth", "NaN", namespace=NS, pod="web-1", queue="mails"),
                series("nginx_ingress_controller_requests", "20", exported_namespace=NS, ingress="main-route"),
            ]
        )
        prometheus = Prometheus(scripted, timeout=5, max_age=60)
        registry = Registry(Rules(None, read(defaults(60))), prometheus, reader, clock, interval=30, max_age=120)
        authorities = Authorities(pki.ca.read_text(), pki.front_proxy.ca.read_text())
        handlers = Handlers(registry, prometheus, reader, Access(authorities, ApiReviews(client), clock))
        tls = tls_context(KeyPair(pki.ca, serving.cert, serving.key), [authorities.client, authorities.front_proxy])
        door = Door(handlers, tls)
        await door.start("0.0.0.0", 0)
        ends.push_async_callback(door.close)
        for name, app in (("web-1", "web"), ("web-2", "web"), ("db-1", "db")):
            await pod(rest, name, app=app)
        await registry.relist()
        await register(rest, NAME, host, door.port, pki.ca.read_bytes(), *API_VERSIONS)
        yield Site(server, rest, scripted, registry, reader)


async def test_what_there_is(site: Site) -> None:
    told = (await site.rest.get(CUSTOM)).json
    assert (told["kind"], told["groupVersion"]) == ("APIResourceList", "custom.metrics.k8s.io/v1beta2")
    assert {each["name"] for each in told["resources"]} >= {
        "pods/http_requests_per_second",
        "namespaces/http_requests_per_second",
        "pods/queue_depth",
        "ingresses.networking.k8s.io/requests-per-second",
    }
    external = {each["name"] for each in (await site.rest.get(EXTERNAL)).json["resources"]}
    assert external == {"http_requests_per_second", "queue_depth"}
    groups = {each["name"] for each in (await site.rest.get("/apis")).json["groups"]}
    assert {"custom.metrics.k8s.io", "external.metrics.k8s.io"} <= groups


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("pods/*/http_requests_per_second", {"web-1": "2500m", "web-2": "4"}, id="all"),
        pytest.param("pods/*/queue_depth", {"db-1": "7"}, id="not-a-number-is-no-value"),
        pytest.param("pods/*/http_requests_per_second?labelSelector=app%3Ddb", {}, id="selected-without-series"),
        pytest.param(
            "pods/*/http_requests_per_second?labelSelector=app%3Dweb&metricLabelSelector=verb%3DPUT",
            {"web-1": "1"},
            id="by-the-metric's-labels",
        ),
        pytest.param("pods/web-2/http_requests_per_second", {"web-2": "4"}, id="by-name"),
        pytest.param("metrics/http_requests_per_second", {NS: "6500m"}, id="of-the-namespace"),
        pytest.param("ingresses.networking.k8s.io/main-route/requests-per-second", {"main-route": "20"}, id="ingress"),
    ],
)
async def test_values(site: Site, path: str, expected: dict[str, str]) -> None:
    items = await site.items(f"{CUSTOM}/namespaces/{NS}/{path}")
    assert {item["describedObject"]["name"]: item["value"] for item in items} == expected
    assert await site.items(f"{OLD}/namespaces/{NS}/{path}") or not expected


async def test_the_form_of_values(site: Site) -> None:
    item = (await site.items(f"{CUSTOM}/namespaces/{NS}/pods/web-2/http_requests_per_second"))[0]
    assert item == {
        "describedObject": {"kind": "Pod", "namespace": NS, "name": "web-2", "apiVersion": "/v1"},
        "metric": {"name": "http_requests_per_second", "selector": None},
        "timestamp": "2023-11-14T22:13:20Z",
        "windowSeconds": 60,
        "value": "4",
    }
    assert site.prometheus.asked[-1] == (
        f'sum(rate(http_requests_total{{namespace="{NS}",pod="web-2"}}[60s])) by (pod)'
    )
    external = (await site.items(f"{EXTERNAL}/namespaces/{NS}/queue_depth?labelSelector=queue%3Dorders"))[0]
    assert (external["metricName"], external["value"], external["metricLabels"]["pod"]) == ("queue_depth", "7", "db-1")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", f"{CUSTOM}/namespaces/{NS}/pods/*/none", 404, "the server could not find the metric none for pods"),
        ("GET", f"{CUSTOM}/namespaces/{NS}/things/*/m", 404, "the server could not find the metric m for things"),
        (
            "GET",
            f"{CUSTOM}/namespaces/{NS}/pods/db-1/http_requests_per_second",
            404,
            "the server could not find the metric http_requests_per_second for pods db-1",
        ),
        ("GET", f"{CUSTOM}/namespaces/{NS}/pods/*/queue_depth?labelSelector=%21%21", 400, ""),
        ("GET", f"{CUSTOM}/namespaces/{NS}/pods/*/queue_depth?metricLabelSelector=a%3E1", 400, ""),
        ("GET", f"{CUSTOM}/pods/*/queue_depth", 404, "the server could not find the metric queue_depth for pods"),
        ("GET", f"{EXTERNAL}/namespaces/{NS}/none", 404, "the server could not find the metric none for namespaces"),
        ("GET", f"{CUSTOM}/namespaces/{NS}/pods", 404, ""),
        ("DELETE", f"{CUSTOM}/namespaces/{NS}/pods/web-1/queue_depth", 405, ""),
    ],
)
async def test_refusals(site: Site, method: str, path: str, status: int, message: str) -> None:
    answer = await site.rest.request(method, path)
    assert (answer.status, answer.json["kind"]) == (status, "Status"), answer.body
    assert not message or answer.json["message"] == message


async def test_only_who_may(site: Site) -> None:
    answer = await site.server.rest(token=USER_TOKEN).get(f"{CUSTOM}/namespaces/{NS}/pods/*/queue_depth")
    assert answer.status == 403


async def test_what_the_autoscaler_reads(site: Site) -> None:
    pki = shared_pki()
    reader = Reader(site.server.url, pki.client("admin", "system:masters"), user_agent="test")
    source = MetricsSource(reader, lambda: 0.0)
    try:
        found = await source.pods("http_requests_per_second", NS, "app=web", "")
        assert {name: sample.value for name, sample in found.items()} == {"web-1": 2500, "web-2": 4000}
        plural = "ingresses.networking.k8s.io"
        assert await source.of_object("requests-per-second", NS, plural, "main-route", "") == 20_000
        assert await source.of_object("http_requests_per_second", "", "namespaces", NS, "") == 6500
        assert await source.external("queue_depth", NS, "queue=orders") == 7000
        site.prometheus.away = True
        with pytest.raises(MetricError, match="unable to fetch metrics from custom metrics API: unable to fetch metr"):
            await source.pods("http_requests_per_second", NS, "app=web", "")
    finally:
        await reader.close()


async def test_without_prometheus(site: Site) -> None:
    path = f"{CUSTOM}/namespaces/{NS}/pods/*/queue_depth"
    site.prometheus.refuses = True
    answer = await site.rest.get(path)
    assert (answer.status, answer.json["message"]) == (500, "Internal error occurred: unable to fetch metrics")
    site.prometheus.away = True
    answer = await site.rest.get(path)
    assert (answer.status, answer.json["reason"]) == (503, "ServiceUnavailable")
    with pytest.raises(StatusError):
        await site.registry.relist()
    assert (await site.rest.get(CUSTOM)).json["resources"]  # the last list, while it is young
    await until_condition(site.rest, "Passed", "v1beta2.custom.metrics.k8s.io")


def test_a_file_that_is_wrong_leaves_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{seriesQuery: 'a{}', resources: {template: <<.Resource>>}}]")
    rules = Rules(file, read(file.read_bytes()))
    file.write_text("rules: [{seriesQuery: ''}]")
    rules.refresh()
    assert (len(rules.config.rules), rules.failures) == (1, 1)
    file.write_text("rules: []")
    rules.refresh()
    assert rules.config.rules == ()
    file.unlink()
    rules.refresh()
    assert (rules.config.rules, rules.failures) == ((), 2)
