"""/metrics, /version and the health endpoints, as dashboards and probes read them."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.harness.apiserver import USER_TOKEN, RestClient, RunningApiServer

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
LINE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+-]+|NaN)$')


async def scrape(rest: RestClient) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Samples by name and labels. Every line must be one that Prometheus reads, after its TYPE."""
    answer = await rest.get("/metrics")
    assert answer.status == 200
    assert answer.header("content-type").startswith("text/plain; version=0.0.4")
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    typed: set[str] = set()
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed, f"{name} twice"
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = LINE.match(line)
            assert match, line
            name = match[1]
            assert name in typed or re.sub(r"_(bucket|sum|count)$", "", name) in typed, line
            labels = frozenset(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            assert labels not in found.setdefault(name, {}), line
            found[name][labels] = float(match[3])
    return found


def total(samples: dict[frozenset[tuple[str, str]], float], **labels: str) -> float:
    return sum(value for key, value in samples.items() if labels.items() <= dict(key).items())


async def test_metrics_count_what_happens(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    before = await scrape(rest)
    for name in ("a", "b"):
        assert (await rest.post(CONFIG_MAPS, {"metadata": {"name": name}})).status == 201
    assert (await rest.get(f"{CONFIG_MAPS}/none")).status == 404
    async with rest.watch(f"{CONFIG_MAPS}?watch=1"):
        after = await scrape(rest)

    def grown(name: str, **labels: str) -> float:
        return total(after[name], **labels) - total(before.get(name, {}), **labels)

    created = {"verb": "POST", "resource": "configmaps", "code": "201", "scope": "resource"}
    assert (
        grown("apiserver_request_total", **{**created, "scope": "namespace"})
        + grown("apiserver_request_total", **created)
        == 2
    )
    assert grown("apiserver_request_total", verb="GET", resource="configmaps", code="404") == 1
    assert grown("apiserver_request_duration_seconds_count", verb="POST", resource="configmaps") == 2
    assert total(after["apiserver_longrunning_requests"], verb="WATCH", resource="configmaps") == 1
    assert grown("apiserver_registered_watchers", kind="ConfigMap") == 1
    assert grown("apiserver_storage_objects", resource="configmaps") == 2
    assert grown("etcd_request_duration_seconds_count", operation="create", type="configmaps") == 2
    assert grown("apiserver_flowcontrol_dispatched_requests_total", flow_schema="exempt") >= 3
    assert total(after["apiserver_flowcontrol_nominal_limit_seats"], priority_level="workload-low") > 100
    assert set(after["apiserver_current_inflight_requests"]) == {
        frozenset({("request_kind", "readOnly")}),
        frozenset({("request_kind", "mutating")}),
    }
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert total(after[name]) > 0
    assert total(after["apiserver_storage_size_bytes"], storage_cluster_id="etcd-0") > 1000
    assert total(after["kubernetes_build_info"], major="1", minor="36") == 1


async def test_reads_and_watches_tell_their_sizes(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    assert (await rest.post(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"a": "x" * 5000}})).status == 201
    where = {"group": "", "version": "v1", "resource": "configmaps"}
    before = await scrape(rest)
    assert len((await rest.get(f"{CONFIG_MAPS}/a")).body) > 5000
    found = (await rest.get(CONFIG_MAPS)).json["metadata"]["resourceVersion"]
    path = f"{CONFIG_MAPS}?watch=1&resourceVersion={found}"
    async with rest.watch(path) as one, rest.watch(path) as two:
        for name, size in (("b", 10), ("c", 3000)):
            body = {"metadata": {"name": name}, "data": {"a": "x" * size}}
            assert (await rest.post(CONFIG_MAPS, body)).status == 201
            for watch in (one, two):
                assert (await anext(watch))["object"]["metadata"]["name"] == name
        after = await scrape(rest)

    def grown(name: str, **labels: str) -> float:
        return total(after[name], **labels) - total(before.get(name, {}), **labels)

    for verb in ("GET", "LIST"):
        assert grown("apiserver_response_sizes_count", verb=verb, resource="configmaps") == 1
        assert grown("apiserver_response_sizes_bucket", verb=verb, resource="configmaps", le="1000") == 0
        assert grown("apiserver_response_sizes_bucket", verb=verb, resource="configmaps", le="10000") == 1
    assert grown("apiserver_watch_events_total", **where) == 4
    assert grown("apiserver_watch_events_sizes_count", **where) == 4
    assert grown("apiserver_watch_events_sizes_bucket", **where, le="1024") == 2
    assert grown("apiserver_watch_events_sizes_bucket", **where, le="4096") == 4
    assert grown("apiserver_watch_events_sizes_sum", **where) > 6000
    assert grown("apiserver_resource_objects", group="", resource="configmaps") == 2


async def test_admission_tells_how_long_it_took(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    before = await scrape(rest)
    assert (await rest.post(CONFIG_MAPS, {"metadata": {"name": "a"}})).status == 201
    assert (await rest.post("/api/v1/namespaces/none/configmaps", {"metadata": {"name": "a"}})).status == 404
    assert (await rest.get("/api/v1/componentstatuses")).status == 200
    after = await scrape(rest)

    def grown(metric: str, **labels: str) -> float:
        return total(after[metric], **labels) - total(before.get(metric, {}), **labels)

    metric = "apiserver_admission_controller_admission_duration_seconds_count"
    lifecycle = {"name": "NamespaceLifecycle", "operation": "CREATE", "type": "admit"}
    assert grown(metric, **lifecycle, rejected="false") == grown(metric, **lifecycle, rejected="true") == 1
    assert grown(metric, name="ResourceQuota", operation="CREATE", rejected="false", type="validate") == 1
    metric = "apiserver_admission_step_admission_duration_seconds_count"
    assert grown(metric, operation="CREATE", rejected="false", type="admit") == 1
    assert grown(metric, operation="CREATE", rejected="true", type="admit") == 1
    assert grown(metric, operation="CREATE", rejected="false", type="validate") == 1
    assert total(after["apiserver_requested_deprecated_apis"], resource="componentstatuses", version="v1") == 1


async def test_health_checks_are_counted(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for path in ("/readyz", "/livez/etcd", "/livez/etcd"):
        assert (await rest.get(path)).status == 200
    told = await scrape(rest)
    assert total(told["kubernetes_healthcheck"], name="etcd", type="livez") == 1
    assert total(told["kubernetes_healthchecks_total"], name="etcd", type="livez", status="success") == 2
    assert total(told["kubernetes_healthchecks_total"], name="ping", type="readyz", status="success") >= 1


async def test_expressions_are_timed(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    before = await scrape(rest)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "object.data.timed == '1'"}]}
    hooks = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    assert (await rest.post(f"{hooks}ies", {"metadata": {"name": "timed"}, "spec": spec})).status == 201
    binding = {"policyName": "timed", "validationActions": ["Deny"]}
    assert (await rest.post(f"{hooks}ybindings", {"metadata": {"name": "timed"}, "spec": binding})).status == 201

    async def refused() -> bool:
        return (await rest.post(CONFIG_MAPS, {"metadata": {"generateName": "m"}, "data": {"timed": "2"}})).status == 422

    async with asyncio.timeout(10):
        while not await refused():
            pass
    after = await scrape(rest)

    def grown(metric: str, **labels: str) -> float:
        return total(after[metric], **labels) - total(before.get(metric, {}), **labels)

    assert grown("apiserver_cel_compilation_duration_seconds_count") >= 1
    assert grown("apiserver_cel_evaluation_duration_seconds_count") >= 1
    checks = {"policy": "timed", "policy_binding": "timed", "enforcement_action": "deny"}
    assert grown("apiserver_validating_admission_policy_check_total", **checks) == 1


async def test_requests_given_up_are_terminations(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    assert (await rest.get(f"{CONFIG_MAPS}?timeout=1ns")).status == 504
    told = await scrape(rest)
    assert total(told["apiserver_request_terminations_total"], resource="configmaps", verb="LIST", code="504") == 1


async def test_made_up_names_do_not_become_labels(apiserver: RunningApiServer) -> None:
    rest, anybody = apiserver.rest(), apiserver.rest(USER_TOKEN)

    async def ask(number: int) -> None:
        for client in (rest, anybody):
            for path in (
                f"/api/v1/r{number}",
                f"/apis/g{number}/v1/things",
                f"/api/v{number + 50}/pods",
                f"/api/v1/namespaces/default/pods/p/s{number}",
                f"/api/v1/watch/w{number}",
                f"/api/v1/w{number}?watch=1",
            ):
                assert (await client.get(path)).status in (403, 404)

    await ask(0)
    before = {name: len(samples) for name, samples in (await scrape(rest)).items()}
    for number in range(1, 6):
        await ask(number)
    after = {name: len(samples) for name, samples in (await scrape(rest)).items()}
    for name in ("apiserver_request_total", "apiserver_request_duration_seconds_count"):
        assert after[name] <= before[name] + 1, name  # the first scrape itself
    assert after.get("apiserver_longrunning_requests", 0) == 0


async def test_metrics_are_not_for_everybody(apiserver: RunningApiServer) -> None:
    assert (await apiserver.rest(USER_TOKEN).get("/metrics")).status == 403
    for path in ("/livez", "/readyz", "/healthz"):
        assert (await apiserver.rest("").get(path)).body == b"ok"


@pytest.mark.parametrize("root", ["livez", "readyz", "healthz"])
async def test_checks_one_by_one(apiserver: RunningApiServer, root: str) -> None:
    rest = apiserver.rest()
    told = (await rest.get(f"/{root}?verbose")).body.decode()
    assert told.endswith(f"{root} check passed\n")
    names = re.findall(r"^\[\+\](\S+) ok$", told, re.M)
    assert {"ping", "log", "etcd"} <= set(names)
    for name in names:
        answer = await rest.get(f"/{root}/{name}")
        assert (answer.status, answer.body) == (200, b"ok"), name
    assert (await rest.get(f"/{root}/nosuch")).status == 404
    excluded = (await rest.get(f"/{root}?verbose&exclude=etcd")).body.decode()
    assert "[+]etcd excluded: ok" in excluded


async def test_start_hooks_are_named(apiserver: RunningApiServer) -> None:
    told = (await apiserver.rest().get("/readyz?verbose")).body.decode()
    for hook in (
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/priority-and-fairness-config-producer",
        "poststarthook/priority-and-fairness-config-consumer",
        "poststarthook/start-apiextensions-informers",
        "poststarthook/crd-informer-synced",
        "poststarthook/bootstrap-controller",
        "poststarthook/scheduling/bootstrap-system-priority-classes",
    ):
        assert f"[+]{hook} ok" in told, hook
