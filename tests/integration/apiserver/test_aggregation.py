"""API aggregation, with an extension API server in the test's process on an address of this machine's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.harness import extension
from tests.harness.apiserver import (
    DEADLINE,
    USER_TOKEN,
    RestClient,
    RunningApiServer,
    _read_head,
    eventually,
    running_apiserver,
    shared_pki,
    until_status,
)
from tests.harness.extension import API_SERVICES, BASE, GROUP, NAME, VERSION, Extension, until_condition
from tests.integration.apiserver.test_proxy import own_address

FLUNDERS = f"{BASE}/namespaces/default/flunders"
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
FLUNDER = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": {"name": "one"}}
AGGREGATOR = "[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]"  # noqa: E501
MERGE = {"content-type": "application/merge-patch+json"}


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[RunningApiServer, Extension]]:
    host = own_address()
    pki = shared_pki()
    async with (
        running_apiserver() as server,
        extension.extension(pki.authority, pki.front_proxy, host) as wardle,
    ):
        yield server, wardle


@pytest.fixture
async def site() -> AsyncIterator[tuple[RunningApiServer, Extension]]:
    """A server and its extension, registered and available."""
    async with serving() as (server, wardle):
        await extension.register(server.rest(), wardle)
        await until_condition(server.rest(), "Passed")
        yield server, wardle


async def aggregated(rest: RestClient, *, fresh: bool) -> dict[str, Any]:
    """The group's entry in aggregated discovery, once it is as fresh as that."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = (await rest.get("/apis", accept=V2)).json
            for item in found["items"]:
                if item["metadata"]["name"] == GROUP:
                    entry: dict[str, Any] = item
                    if (entry["versions"][0]["freshness"] == "Current") == fresh:
                        return entry
            await asyncio.sleep(0.01)


@pytest.mark.conformance(AGGREGATOR)
async def test_requests_go_to_the_extension(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    rest = server.rest()
    made = await rest.post(FLUNDERS, FLUNDER)
    assert made.status == 201
    assert made.header("x-flunder") == "yes"
    listed = await rest.get(FLUNDERS + "?labelSelector=a%3Db")
    assert [item["metadata"]["name"] for item in listed.json["items"]] == ["one"]
    assert wardle.told(FLUNDERS).path.endswith("?labelSelector=a%3Db")
    assert (await rest.get(f"{FLUNDERS}/one")).json == FLUNDER
    assert (await rest.request("DELETE", f"{FLUNDERS}/one")).status == 200
    missing = await rest.get(f"{FLUNDERS}/one")
    assert (missing.status, missing.json["reason"]) == (404, "NotFound")
    # What the server does not know is the extension's to answer, however deep.
    assert (await rest.get(f"{BASE}/namespaces/default/widgets/a/b/c/d")).json["message"].endswith("/a/b/c/d")


@pytest.mark.conformance(AGGREGATOR)
async def test_the_apiservice_itself(site: tuple[RunningApiServer, Extension]) -> None:
    """Status by patch and by update, labels, lists and collections, as upstream's test does it."""
    rest = site[0].rest()
    path = f"{API_SERVICES}/{NAME}"
    found = (await rest.get(f"{path}/status")).json
    assert found["status"]["conditions"][0]["type"] == "Available"
    listed = (await rest.get(API_SERVICES)).json["items"]
    assert NAME in [item["metadata"]["name"] for item in listed]
    condition = {"type": "StatusPatched", "status": "True", "lastTransitionTime": None}
    patched = await rest.request(
        "PATCH", f"{path}/status", {"status": {"conditions": [*found["status"]["conditions"], condition]}}, MERGE
    )
    assert patched.status == 200
    assert [each["type"] for each in patched.json["status"]["conditions"]] == ["Available", "StatusPatched"]
    updated = patched.json
    updated["status"]["conditions"][1].update({"type": "StatusUpdated", "reason": "E2E", "message": "Set by a test"})
    assert (await rest.request("PUT", f"{path}/status", updated)).status == 200
    labels = {"metadata": {"labels": {"e2e": "yes"}}}
    assert (await rest.request("PATCH", path, labels, MERGE)).json["metadata"]["labels"] == {"e2e": "yes"}
    assert (await rest.get(FLUNDERS)).status == 200
    assert (await rest.request("DELETE", f"{API_SERVICES}?labelSelector=e2e%3Dyes")).status == 200
    await until_status(rest, FLUNDERS, lambda status: status == 404)


async def test_the_extension_learns_who_asks(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    rest = server.rest()
    rest.headers = {
        "impersonate-user": "jane",
        "impersonate-group": "system:masters",
        "impersonate-extra-some%2fkey": "a value",
        "x-remote-user": "mallory",
        "x-remote-extra-foo": "bar",
    }
    assert (await rest.get(FLUNDERS)).status == 200
    asked = wardle.told(FLUNDERS)
    assert asked.header("x-remote-user") == ["jane"]
    assert asked.header("x-remote-group") == ["system:masters", "system:authenticated"]
    assert asked.header("x-remote-extra-some%2fkey") == ["a value"]
    assert not asked.header("x-remote-extra-foo")
    assert not asked.header("authorization")
    assert not any(name.startswith("impersonate-") for name in asked.headers)


async def test_a_backend_that_hangs(site: tuple[RunningApiServer, Extension], monkeypatch: pytest.MonkeyPatch) -> None:
    server, wardle = site
    wardle.hangs = {BASE}
    monkeypatch.setattr("apiserver.aggregation.proxy.DOCUMENT_SECONDS", 0.1)
    answer = await server.rest().get(BASE)
    assert (answer.status, answer.json["reason"]) == (504, "Timeout")


async def test_a_backend_that_goes_away_midway(site: tuple[RunningApiServer, Extension]) -> None:
    """Clients see the end of a watch, and the server goes on."""
    server, wardle = site
    rest = server.rest()
    async with rest.watch(f"{FLUNDERS}?watch=true") as events:
        await eventually(lambda: bool(wardle.watchers))
        wardle.watchers[0].put_nowait({"type": "ADDED", "object": FLUNDER})
        assert (await asyncio.wait_for(anext(events), DEADLINE))["type"] == "ADDED"
        wardle.cut()
        with pytest.raises((StopAsyncIteration, asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await asyncio.wait_for(anext(events), DEADLINE)
    assert (await rest.get(FLUNDERS)).status == 200


async def test_redirects_are_refused(site: tuple[RunningApiServer, Extension]) -> None:
    answer = await site[0].rest().get(f"{FLUNDERS}/moved")
    assert answer.status == 502
    assert answer.body == b"the backend attempted to redirect this request, which is not permitted\n"


async def test_authorization_comes_before(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    before = len(wardle.asked)
    refused = await server.rest(USER_TOKEN).get(FLUNDERS)
    assert refused.status == 403
    assert "flunders.wardle.example.com is forbidden" in refused.json["message"]
    assert all(each.path != FLUNDERS for each in wardle.asked[before:])


async def test_watches_stream(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    rest = server.rest()
    async with rest.watch(f"{FLUNDERS}?watch=true") as events:
        assert (await rest.post(FLUNDERS, FLUNDER)).status == 201
        event = await asyncio.wait_for(anext(events), DEADLINE)
        assert event == {"type": "ADDED", "object": FLUNDER}
    async with asyncio.timeout(DEADLINE):
        while wardle.watchers:
            await wardle.watchers[0].put({"type": "BOOKMARK"})
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("upgrade", ["SPDY/3.1", "websocket", "something-else"])
async def test_upgrades_cross(site: tuple[RunningApiServer, Extension], upgrade: str) -> None:
    rest = site[0].rest()
    reader, writer = await rest.connect()
    told = {"connection": "Upgrade", "upgrade": upgrade}
    writer.write(rest.head("GET", f"{FLUNDERS}/one/echo", b"", told))
    try:
        async with asyncio.timeout(DEADLINE):
            status, headers = await _read_head(reader)
            assert (status, headers["x-echo"]) == (101, ["yes"])
            assert [each.lower() for each in headers["upgrade"]] == [upgrade.lower()]
            assert await reader.readexactly(6) == b"hello "
            writer.write(b"shout")
            assert await reader.readexactly(5) == b"SHOUT"
            writer.write(b"x" * 300_000)
            assert await reader.readexactly(300_000) == b"X" * 300_000
    finally:
        writer.close()


async def test_a_refused_upgrade_is_an_answer(site: tuple[RunningApiServer, Extension]) -> None:
    rest = site[0].rest()
    told = {"connection": "Upgrade", "upgrade": "refused"}
    answer = await rest.request("GET", f"{FLUNDERS}/one/echo", headers=told)
    assert (answer.status, answer.json["message"]) == (400, "no such protocol")


@pytest.mark.conformance(AGGREGATOR)
async def test_discovery_is_merged(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    rest = server.rest()
    entry = await aggregated(rest, fresh=True)
    assert entry["versions"][0]["resources"][0]["resource"] == "flunders"
    groups = (await rest.get("/apis")).json["groups"]
    names = [group["name"] for group in groups]
    assert names.index(GROUP) == len(names) - 1  # its priority is lower than that of every built-in group
    group = (await rest.get(f"/apis/{GROUP}")).json
    assert group["preferredVersion"] == {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    listed = await rest.get(BASE)
    assert listed.json["resources"][0]["name"] == "flunders"
    assert wardle.told(BASE).header("x-remote-user") == ["admin"]


async def test_legacy_discovery_is_translated() -> None:
    async with serving() as (server, wardle):
        wardle.aggregated = False
        await extension.register(server.rest(), wardle)
        entry = await aggregated(server.rest(), fresh=True)
        flunders = entry["versions"][0]["resources"][0]
        kind = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
        assert (flunders["responseKind"], flunders["scope"]) == (kind, "Namespaced")
        assert flunders["subresources"] == [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}]


async def test_an_extension_that_is_away_is_stale(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    rest = server.rest()
    await aggregated(rest, fresh=True)
    wardle.healthy = False
    # Any change of the endpoints makes the server look again at once.
    annotation = {"metadata": {"annotations": {"look": "again"}}}
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/sample-api-1"
    assert (await rest.request("PATCH", slices, annotation, MERGE)).status == 200
    condition = await until_condition(rest, "FailedDiscoveryCheck")
    url = f"https://{wardle.host}:{wardle.port}{BASE}"
    assert condition["message"] == f"failing or missing response from {url}: bad status from {url}: 500"
    stale = await aggregated(rest, fresh=False)
    assert stale["versions"][0]["resources"][0]["resource"] == "flunders"
    assert GROUP not in [group["name"] for group in (await rest.get("/apis")).json["groups"]]
    assert (await rest.get(f"/apis/{GROUP}")).status == 404
    refused = await rest.get(FLUNDERS)
    assert (refused.status, refused.body) == (503, b"service unavailable\n")
    figures = (await rest.get("/metrics")).body.decode()
    assert f'aggregator_unavailable_apiservice{{name="{NAME}"}} 1' in figures
    assert refused.header("content-type").startswith("text/plain")
    wardle.healthy = True
    await until_condition(rest, "Passed")
    await aggregated(rest, fresh=True)


async def test_conditions_follow_the_service() -> None:
    async with serving() as (server, wardle):
        rest = server.rest()
        await extension.create_api_service(rest, wardle)
        condition = await until_condition(rest, "ServiceNotFound")
        assert condition["message"] == 'service/sample-api in "default" is not present'
        assert condition["status"] == "False"
        await extension.create_service(rest)
        await until_condition(rest, "EndpointsNotFound")
        service = "/api/v1/namespaces/default/services/sample-api"
        ports: dict[str, Any] = {"spec": {"ports": [{"port": 8443, "protocol": "TCP"}]}}
        assert (await rest.request("PATCH", service, ports, MERGE)).status == 200
        condition = await until_condition(rest, "ServicePortError")
        assert condition["message"] == 'service/sample-api in "default" is not listening on port 7443'
        ports["spec"]["ports"][0]["port"] = 7443
        assert (await rest.request("PATCH", service, ports, MERGE)).status == 200
        await extension.create_slice(rest, wardle)
        condition = await until_condition(rest, "Passed")
        assert (condition["status"], condition["message"]) == ("True", "all checks passed")
        slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/sample-api-1"
        unready = {"endpoints": [{"addresses": [wardle.host], "conditions": {"ready": False}}]}
        assert (await rest.request("PATCH", slices, unready, MERGE)).status == 200
        condition = await until_condition(rest, "MissingEndpoints")
        assert 'have no addresses with port name ""' in condition["message"]


@pytest.mark.parametrize(
    ("spec", "status", "text"),
    [
        pytest.param({"caBundle": ""}, 503, "failed to verify certificate", id="unknown-authority"),
        pytest.param({"caBundle": "bm8gcGVt"}, 500, "unable to load root certificates", id="no-certificate"),
    ],
)
async def test_certificates_are_checked(spec: dict[str, Any], status: int, text: str) -> None:
    async with serving() as (server, wardle):
        rest = server.rest()
        await extension.register(rest, wardle, **spec)
        await until_condition(rest, "Passed")  # whether anybody answers is asked without looking at certificates
        answer = await rest.get(FLUNDERS)
        assert (answer.status, text in answer.body.decode()) == (status, True), answer.body


async def test_verification_may_be_skipped() -> None:
    async with serving() as (server, wardle):
        rest = server.rest()
        await extension.register(rest, wardle, caBundle=None, insecureSkipTLSVerify=True)
        await until_condition(rest, "Passed")
        assert (await rest.get(FLUNDERS)).status == 200


async def test_openapi_v3_is_merged(site: tuple[RunningApiServer, Extension]) -> None:
    rest = site[0].rest()
    await aggregated(rest, fresh=True)
    paths = (await rest.get("/openapi/v3")).json["paths"]
    assert paths[BASE[1:]] == {"serverRelativeURL": f"/openapi/v3{BASE}?hash=ABC"}
    assert "api/v1" in paths
    assert extension.SCHEMA in (await rest.get(paths[BASE[1:]]["serverRelativeURL"])).json["components"]["schemas"]


async def test_a_backend_with_openapi_v2_only() -> None:
    """As upstream's sample server: its document is translated."""
    async with serving() as (server, wardle):
        wardle.openapi_v3, rest = False, server.rest()
        await extension.register(rest, wardle)
        await aggregated(rest, fresh=True)
        url = (await rest.get("/openapi/v3")).json["paths"][BASE[1:]]["serverRelativeURL"]
        document = (await rest.get(url)).json
        operation = document["paths"][f"{BASE}/namespaces/{{namespace}}/flunders"]["get"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{extension.SCHEMA}"}
        assert list(document["components"]["schemas"]) == [extension.SCHEMA]


async def test_openapi_v2_is_merged(site: tuple[RunningApiServer, Extension]) -> None:
    server, wardle = site
    rest = server.rest()
    await aggregated(rest, fresh=True)
    first = await rest.get("/openapi/v2")
    path = f"{BASE}/namespaces/{{namespace}}/flunders"
    assert path in first.json["paths"]
    assert first.json["definitions"][extension.SCHEMA]["properties"] == {"spec": {"type": "object"}}
    # Only what the group version's own paths lead to is taken over.
    assert not {"/healthz"} & first.json["paths"].keys()
    assert "unused" not in first.json["definitions"]
    assert (await rest.get("/openapi/v2")).header("etag") == first.header("etag")
    assert wardle.openapi_v2_asked == 1
    assert (await rest.request("DELETE", f"{API_SERVICES}/{NAME}")).status == 200
    await until_status(rest, FLUNDERS, lambda status: status == 404)
    assert path not in (await rest.get("/openapi/v2")).json["paths"]


async def test_what_extensions_are_told() -> None:
    async with running_apiserver() as server:
        found = await server.rest().get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
        data = found.json["data"]
        assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
        assert json.loads(data["requestheader-username-headers"]) == ["X-Remote-User"]
        assert json.loads(data["requestheader-group-headers"]) == ["X-Remote-Group"]
        assert json.loads(data["requestheader-extra-headers-prefix"]) == ["X-Remote-Extra-"]
        assert data["client-ca-file"] == server.ca.read_text()
        assert data["requestheader-client-ca-file"] == server.pki.front_proxy.ca.read_text() != data["client-ca-file"]
        # What is changed or deleted comes back; what others add stays.
        path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
        change = {"data": {"client-ca-file": "none", "other": "mine"}}
        assert (await server.rest().request("PATCH", path, change, MERGE)).status == 200
        assert await _data_until(server.rest(), path, data["client-ca-file"]) == {**data, "other": "mine"}
        assert (await server.rest().request("DELETE", path)).status == 200
        assert await _data_until(server.rest(), path, data["client-ca-file"]) == data


async def _data_until(rest: RestClient, path: str, ca: str) -> dict[str, str]:
    """The ConfigMap's data once it has the authority again."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found: dict[str, str] = (await rest.get(path)).json.get("data") or {}
            if found.get("client-ca-file") == ca:
                return found
            await asyncio.sleep(0.01)


async def test_local_group_versions_are_registered() -> None:
    async with running_apiserver() as server:
        rest = server.rest()
        items = {item["metadata"]["name"]: item for item in (await rest.get(API_SERVICES)).json["items"]}
        assert items["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
        assert items["v1.apps"]["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
        assert items["v1.apps"]["status"]["conditions"][0]["reason"] == "Local"
        names = {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"}
        schema = {"openAPIV3Schema": {"type": "object"}}
        version = {"name": "v1beta1", "served": True, "storage": True, "schema": schema}
        spec = {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]}
        crd = {"metadata": {"name": "widgets.example.com"}, "spec": spec}
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        assert (await rest.post(definitions, crd)).status == 201
        condition = await until_condition(rest, "Local", "v1beta1.example.com")
        assert condition["message"] == "Local APIServices are always available"
        found = (await rest.get(f"{API_SERVICES}/v1beta1.example.com")).json
        assert found["spec"]["groupPriorityMinimum"] == 1000
        # It is the server's: what a user deletes or changes comes back.
        assert (await rest.request("DELETE", f"{API_SERVICES}/v1beta1.example.com")).status == 200
        await until_condition(rest, "Local", "v1beta1.example.com")
        assert (await rest.request("DELETE", f"{definitions}/widgets.example.com")).status == 200
        await until_status(rest, f"{API_SERVICES}/v1beta1.example.com", lambda status: status == 404)


async def test_a_users_local_apiservice_is_available() -> None:
    async with running_apiserver() as server:
        rest = server.rest()
        spec = {"group": "local.example.com", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10}
        body = {"metadata": {"name": "v1.local.example.com"}, "spec": spec}
        assert (await rest.post(API_SERVICES, body)).status == 201
        assert (await until_condition(rest, "Local", "v1.local.example.com"))["status"] == "True"
