"""From a configuration to metrics and queries: everything that needs no connection."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery import quantity
from machinery.errors import BadRequest
from machinery.selectors import LabelSelector
from metrics_adapter import documents, objects, queries
from metrics_adapter.config import Config, ConfigError, Rule, defaults, expand, read
from metrics_adapter.handlers import Wanted, read_path
from metrics_adapter.prometheus import Sample, Series
from metrics_adapter.registry import Listed, Metric, label_of, listed
from metrics_adapter.resources import Resource, Resources
from metrics_adapter.templates import Template

PODS = Resource("", "v1", "pods", "pod", "Pod", True)
NODES = Resource("", "v1", "nodes", "node", "Node", False)
NAMESPACES = Resource("", "v1", "namespaces", "namespace", "Namespace", False)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "ingress", "Ingress", True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "deployment", "Deployment", True)
KNOWN = Resources([PODS, NODES, NAMESPACES, INGRESSES, DEPLOYMENTS])
EVERYTHING = LabelSelector()


def rule(**fields: Any) -> Rule:
    raw = {"seriesQuery": "{x!=''}", "resources": {"template": "<<.Resource>>"}, **fields}
    return read(msgspec.yaml.encode({"rules": [raw]})).rules[0]


def external_rule(**fields: Any) -> Rule:
    return read(msgspec.yaml.encode({"externalRules": [{"seriesQuery": "{x!=''}", **fields}]})).external[0]


def by_hand(found: Listed) -> set[tuple[str, bool]]:
    return {(f"{each.resource}/{each.name}", each.namespaced) for each in found.custom}


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("rules: 3", "Expected `array`", id="not-a-list"),
        pytest.param("rules: [{seriesQuery: x, queries: y}]", "unknown field `queries`", id="unknown-field"),
        pytest.param("rules: [{seriesQuery: ' ', resources: {template: <<.Resource>>}}]", "must be spec", id="empty"),
        pytest.param("rules: [{seriesQuery: x}]", "rules[0] (seriesQuery 'x'): resources: must have", id="no-mapping"),
        pytest.param(
            "rules: [{seriesQuery: x, resources: {template: pod}}]", "at least <<.Resource>>", id="template-of-nothing"
        ),
        pytest.param(
            "rules: [{seriesQuery: x, resources: {overrides: {a-b: {resource: pod}}}}]", "'a-b' is no name", id="label"
        ),
        pytest.param(
            "rules: [{seriesQuery: x, resources: {template: <<.Resource>>}, name: {matches: '(a)(b)'}}]",
            "name.as: must be specified",
            id="two-groups-need-a-name",
        ),
        pytest.param(
            "rules: [{seriesQuery: x, resources: {template: <<.Resource>>}, name: {matches: '(a'}}]",
            "name.matches: unable to compile",
            id="expression",
        ),
        pytest.param(
            "rules: [{seriesQuery: x, resources: {template: <<.Resource>>}, seriesFilters: [{is: a, isNot: b}]}]",
            "cannot have both is",
            id="filter-both",
        ),
        pytest.param(
            "rules: [{seriesQuery: x, resources: {template: <<.Resource>>}, seriesFilters: [{}]}]",
            "must have either is or isNot",
            id="filter-neither",
        ),
        pytest.param("externalRules: [{seriesQuery: x, metricsQuery: '<<.Serie>>'}]", "field Serie", id="field"),
        pytest.param("externalRules: [{seriesQuery: x, metricsQuery: '<<if .Series>>'}]", "supported", id="logic"),
        pytest.param("externalRules: [{seriesQuery: x, metricsQuery: '<<.Series'}]", "unclosed", id="unclosed"),
        pytest.param("externalRules: [{seriesQuery: x, metricsQuery: '<<.Series.a>>'}]", "is no map", id="no-map"),
        pytest.param("rules: [", "line 2, column 1", id="no-yaml"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        read(text)


def test_resource_rules_are_left_to_the_metrics_server() -> None:
    assert read("resourceRules: {cpu: {containerQuery: x}, window: 3m}\nrules: []").rules == ()


@pytest.mark.parametrize(
    ("name", "series", "expected"),
    [
        ({}, "a_total", "a_total"),
        ({"matches": "^(.*)_total$"}, "a_total", "a"),
        ({"matches": "^(.*)_total$", "as": "${1}_per_second"}, "a_total", "a_per_second"),
        ({"matches": "^(.*)_total$", "as": "$1_per_second"}, "a_total", ""),  # Go reads a group called 1_per_second
        ({"matches": "^(?P<base>.*)_total$", "as": "$base"}, "a_total", "a"),
        ({"as": "fixed$$"}, "anything", "fixed$"),
        ({"matches": "^b"}, "a", ""),
    ],
)
def test_names(name: dict[str, str], series: str, expected: str) -> None:
    assert rule(name=name).name_of(series) == expected


@given(st.text(alphabet="ab$"), st.text(alphabet="$1{}ab_", max_size=8))
def test_expansion_never_fails(series: str, alias: str) -> None:
    match = re.match("(.*)", series)
    assert match is not None
    assert isinstance(expand(alias, match), str)


@pytest.mark.parametrize(
    ("query", "window"),
    [("<<.Series>>", None), ("rate(<<.Series>>[2m])", 120), ("max_over_time(rate(x[1m30s])[1h:30s])", 3600)],
)
def test_the_window_is_the_longest_range(query: str, window: int | None) -> None:
    assert rule(metricsQuery=query).window == window


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<<.Series>>b", "asb"),
        ("a <<- .Series ->> b", "asb"),
        ("a <<-3>> b", None),
        ("a <<- .Series >>b", "asb"),
        ('<<index .LabelValuesByName "namespace">>', "ns"),
        ("<<.LabelValuesByName.none>>|<</* why */>>", "|"),
        ("<<.LabelValuesByName>>", "map[namespace:ns]"),
    ],
)
def test_templates(text: str, expected: str | None) -> None:
    fields = {"Series": False, "LabelValuesByName": True}
    if expected is None:
        with pytest.raises(ValueError, match="supported"):
            Template(text, fields)
        return
    assert Template(text, fields).fill({"Series": "s", "LabelValuesByName": {"namespace": "ns"}}) == expected


# -- series become metrics --------------------------------------------------------------------------------------------


def test_the_defaults() -> None:
    config = read(defaults(60))
    counters, gauges, ingress = (each.series_query for each in config.rules)
    labels = frozenset({"namespace", "pod", "node", "instance", "job", "code"})
    requests, depth = Series("http_requests_total", labels), Series("queue_depth", labels)
    bucket = Series("latency_bucket", labels)
    nginx = Series("nginx_ingress_controller_requests", frozenset({"exported_namespace", "namespace", "ingress"}))
    up = Series("up", labels)
    found = {counters: [requests], gauges: [requests, depth, bucket, nginx, up], ingress: [nginx]}
    made = listed(config, found, KNOWN)
    assert by_hand(made) == {
        ("pods/http_requests_per_second", True),
        ("namespaces/http_requests_per_second", False),
        ("nodes/http_requests_per_second", False),
        ("pods/queue_depth", True),
        ("namespaces/queue_depth", False),
        ("nodes/queue_depth", False),
        ("ingresses.networking.k8s.io/requests-per-second", True),
        ("namespaces/requests-per-second", False),
    }
    assert made.external.keys() == {"http_requests_per_second", "queue_depth", "nginx_ingress_controller_requests"}


@pytest.mark.parametrize(
    ("resources", "label", "resource"),
    [
        pytest.param({"template": "<<.Resource>>"}, "pod", PODS, id="singular"),
        pytest.param({"template": "kube_<<.Group>>_<<.Resource>>"}, "kube_apps_deployment", DEPLOYMENTS, id="group"),
        pytest.param(
            {"template": "k_<<.Group>>_<<.Resource>>"}, "k_networking_k8s_io_ingress", INGRESSES, id="dotted-group"
        ),
        pytest.param({"overrides": {"target": {"resource": "ingress"}}}, "target", INGRESSES, id="override"),
        pytest.param(
            {"overrides": {"kubernetes_pod": {"resource": "pods"}}, "template": "<<.Resource>>"},
            "kubernetes_pod",
            PODS,
            id="override-before-template",
        ),
    ],
)
def test_labels_name_resources_and_back(resources: dict[str, Any], label: str, resource: Resource) -> None:
    made = rule(resources=resources)
    found = listed(Config((made,), ()), {made.series_query: [Series("s", frozenset({label, "zone"}))]}, KNOWN)
    assert {each.resource for each in found.custom} == {resource}
    assert label_of(made, resource, KNOWN) == label


def test_filters_and_later_rules() -> None:
    first = rule(seriesFilters=[{"is": "^a"}, {"isNot": "z$"}], name={"as": "m"})
    second = rule(name={"matches": "^b", "as": "m"})
    series = [Series(name, frozenset({"pod"})) for name in ("a", "az", "b", "c")]
    config = Config((first, second), ())
    made = listed(config, {first.series_query: series}, KNOWN)
    assert {metric: source.series for metric, source in made.custom.items()} == {Metric(PODS, "m", False): "b"}


# -- queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "selector", "expected"),
    [
        (["web-1"], "", 'sum(s{namespace="ns",pod="web-1"}) by (pod)'),
        (["web.1", "web-2"], "", r'sum(s{namespace="ns",pod=~"web\\.1|web-2"}) by (pod)'),
        (["p"], "verb=GET", 'sum(s{verb="GET",namespace="ns",pod="p"}) by (pod)'),
        (["p"], "verb in (GET,PUT)", 'sum(s{verb=~"GET|PUT",namespace="ns",pod="p"}) by (pod)'),
        (["p"], "verb!=GET", 'sum(s{verb!="GET",namespace="ns",pod="p"}) by (pod)'),
        (["p"], "verb notin (GET,P.T)", r'sum(s{verb!~"GET|P\\.T",namespace="ns",pod="p"}) by (pod)'),
        (["p"], "verb,!code", 'sum(s{code="",verb!="",namespace="ns",pod="p"}) by (pod)'),
    ],
)
def test_queries_of_objects(names: list[str], selector: str, expected: str) -> None:
    made = list(queries.of_objects(rule(), "s", "pod", names, ("namespace", "ns"), LabelSelector.parse(selector)))
    assert made == [expected]


@pytest.mark.parametrize("selector", ["a/b=c", "n>3", "a.b"])
def test_selectors_that_promql_cannot_say(selector: str) -> None:
    with pytest.raises(BadRequest, match="metric selector"):
        queries.external(external_rule(), "s", None, LabelSelector.parse(selector))


def test_many_names_are_asked_for_in_parts() -> None:
    names = [f"p{number}" for number in range(1100)]
    made = list(queries.of_objects(rule(), "s", "pod", names, None, EVERYTHING))
    assert len(made) == 3
    asked = [name for query in made for name in re.findall(r"p\d+", query)]
    assert asked == names


def test_external_queries() -> None:
    made = external_rule(
        metricsQuery='<<.Series>>{<<.LabelMatchers>>,queue="<<.LabelValuesByName.queue>>"}[<<.GroupBy>>]',
        labelValueReplacements=[{"find": "-", "replace": "#"}],
    )
    query = queries.external(made, "s", ("namespace", "ns"), LabelSelector.parse("queue=a-b"))
    assert query == 's{queue="a#b",namespace="ns",queue="a#b"}[]'


@given(st.text())
def test_quoting_keeps_a_string_one(text: str) -> None:
    made = queries.quoted(text)
    assert made[0] == made[-1] == '"'
    assert not re.search(r'(?<!\\)(\\\\)*"', made[1:-1])
    assert "\n" not in made


# -- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("namespaces/n/pods/*/m", ("n", "pods", "*", "m")),
        ("namespaces/n/pods/%2A/m", ("n", "pods", "*", "m")),
        ("namespaces/n/ingresses.networking.k8s.io/main/m", ("n", "ingresses.networking.k8s.io", "main", "m")),
        ("namespaces/n/metrics/m", ("n", "metrics", "m", "")),
        ("nodes/worker/m", ("", "nodes", "worker", "m")),
        ("namespaces/n/pods/m", None),
        ("namespaces/n/pods//m", None),
        ("pods", None),
    ],
)
def test_paths(path: str, expected: tuple[str, ...] | None) -> None:
    group = "custom.metrics.k8s.io"
    wanted = Wanted(group, "v1beta1", *expected) if expected else None
    assert read_path(f"/apis/{group}/v1beta1/{path}") == wanted
    assert read_path(f"/apis/{group}/v9/{path}") is None


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, "0"), (5.0, "5"), (0.5, "500m"), (0.0009, "0"), (-1.5, "-1500m"), (1e300, None)]
)
def test_quantities(value: float, expected: str | None) -> None:
    made = objects.milli(value)
    assert made == expected or (expected is None and quantity.parse(made) > 0)


def test_values_of_both_versions() -> None:
    sample = Sample({"pod": "web"}, 1_700_000_000.9, 2.5)
    selector = LabelSelector.parse("verb=GET,code in (1,2)")
    old = objects.metric_value("v1beta1", PODS, "ns", "web", "m", selector, sample, 60)
    told = {
        "matchLabels": {"verb": "GET"},
        "matchExpressions": [{"key": "code", "operator": "In", "values": ["1", "2"]}],
    }
    described = {"kind": "Pod", "namespace": "ns", "name": "web", "apiVersion": "/v1"}
    common = {"describedObject": described, "timestamp": "2023-11-14T22:13:20Z", "value": "2500m"}
    assert old == {**common, "metricName": "m", "selector": told, "window": 60}
    new = objects.metric_value("v1beta2", PODS, "ns", "web", "m", EVERYTHING, sample, None)
    assert new == {**common, "metric": {"name": "m", "selector": None}}


def test_documents_agree() -> None:
    source = listed(read(defaults(60)), {}, KNOWN)
    metric, what = Metric(INGRESSES, "m", True), object()
    made = Listed({metric: what, Metric(NODES, "m", False): what}, {"queue": what})  # type: ignore[dict-item]
    resources = documents.resource_list("custom.metrics.k8s.io/v1beta2", made)["resources"]
    assert [(each["name"], each["namespaced"], each["kind"], each["verbs"]) for each in resources] == [
        ("ingresses.networking.k8s.io/m", True, "MetricValueList", ["get"]),
        ("nodes/m", False, "MetricValueList", ["get"]),
    ]
    items = documents.aggregated_discovery(made)["items"]
    assert [(item["metadata"]["name"], [v["version"] for v in item["versions"]]) for item in items] == [
        ("custom.metrics.k8s.io", ["v1beta2", "v1beta1"]),
        ("external.metrics.k8s.io", ["v1beta1"]),
    ]
    assert documents.resource_list("external.metrics.k8s.io/v1beta1", source)["resources"] == []
    for each in documents.API_VERSIONS:
        told = msgspec.json.decode(documents.openapi_v3(each))
        used = set(re.findall(r'"#/components/schemas/([^"]+)"', documents.openapi_v3(each).decode()))
        assert used <= told["components"]["schemas"].keys()
    assert msgspec.json.decode(documents.openapi_v2())["swagger"] == "2.0"
