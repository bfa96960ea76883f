"""The REST door on the memory store: verbs, bodies, errors, watches, over real TLS."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.harness.apiserver import RunningApiServer, eventually

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_an_object_lives_from_create_to_delete(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    made = await rest.post(CONFIG_MAPS, config_map("web", a="1"))
    assert made.status == 201
    assert made.header("content-type") == "application/json"
    assert made.header("cache-control") == "no-cache, private"
    assert len(made.header("audit-id")) == 36

    read = await rest.get(f"{CONFIG_MAPS}/web")
    assert (read.status, read.json) == (200, made.json)

    changed = {**made.json, "data": {"a": "2"}}
    updated = await rest.request("PUT", f"{CONFIG_MAPS}/web", changed)
    assert updated.status == 200
    stale = await rest.request("PUT", f"{CONFIG_MAPS}/web", changed)
    assert (stale.status, stale.json["reason"]) == (409, "Conflict")

    merge = {"content-type": "application/merge-patch+json"}
    patched = await rest.request("PATCH", f"{CONFIG_MAPS}/web", {"data": {"b": "3"}}, merge)
    assert patched.json["data"] == {"a": "2", "b": "3"}

    gone = await rest.request("DELETE", f"{CONFIG_MAPS}/web")
    assert gone.json["status"] == "Success"
    assert gone.json["details"] == {"name": "web", "kind": "configmaps", "uid": made.json["metadata"]["uid"]}
    missing = await rest.get(f"{CONFIG_MAPS}/web")
    assert missing.status == 404
    assert missing.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "web" not found',
        "reason": "NotFound",
        "details": {"name": "web", "kind": "configmaps"},
        "code": 404,
    }


async def test_a_list_pages_and_its_items_carry_no_kind(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for name in ("a", "b", "c"):
        await rest.post(CONFIG_MAPS, config_map(name))
    first = (await rest.get(f"{CONFIG_MAPS}?limit=2")).json
    assert first["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert "kind" not in first["items"][0]
    assert first["metadata"]["remainingItemCount"] == 1
    rest_of_it = (await rest.get(f"{CONFIG_MAPS}?limit=2&continue={first['metadata']['continue']}")).json
    assert [item["metadata"]["name"] for item in rest_of_it["items"]] == ["c"]
    assert "continue" not in rest_of_it["metadata"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        pytest.param("GET", "/api/v1/gizmos", b"", {}, 404, "NotFound", id="unknown-resource"),
        pytest.param("GET", "/api/v1/namespaces/x/nodes", b"", {}, 404, "NotFound", id="cluster-scoped-in-namespace"),
        pytest.param("GET", "/api/v1/pods/web", b"", {}, 404, "NotFound", id="named-across-namespaces"),
        pytest.param("GET", "/api/v1/namespaces/a/pods/b/c/d", b"", {}, 404, "NotFound", id="too-deep-path"),
        pytest.param("PUT", CONFIG_MAPS, b"{}", {}, 405, "MethodNotAllowed", id="put-on-collection"),
        pytest.param("POST", "/api/v1/pods", b"{}", {}, 405, "MethodNotAllowed", id="post-across-namespaces"),
        pytest.param("DELETE", "/api/v1/pods", b"", {}, 405, "MethodNotAllowed", id="delete-across-namespaces"),
        pytest.param("POST", CONFIG_MAPS, b"{", {}, 400, "BadRequest", id="broken-json"),
        pytest.param("POST", CONFIG_MAPS, b"", {}, 400, "BadRequest", id="no-body"),
        pytest.param("POST", CONFIG_MAPS, b"[]", {}, 400, "BadRequest", id="no-object"),
        pytest.param("POST", CONFIG_MAPS, b"[" * 100_000, {}, 400, "BadRequest", id="too-deep-json"),
        pytest.param("POST", CONFIG_MAPS, b'{"kind":"Pod","apiVersion":"v1"}', {}, 400, "BadRequest", id="wrong-kind"),
        pytest.param(
            "POST", CONFIG_MAPS, b"a: [", {"content-type": "application/yaml"}, 400, "BadRequest", id="broken-yaml"
        ),
        pytest.param(
            "POST", CONFIG_MAPS, b"x", {"content-type": "text/plain"}, 415, "UnsupportedMediaType", id="unknown-body"
        ),
        pytest.param("PATCH", f"{CONFIG_MAPS}/x", b"{}", {}, 415, "UnsupportedMediaType", id="unknown-patch"),
        pytest.param("POST", CONFIG_MAPS, b"x" * (3 << 20 | 1), {}, 413, "RequestEntityTooLarge", id="too-large"),
        pytest.param("GET", f"{CONFIG_MAPS}?limit=x", b"", {}, 400, "BadRequest", id="bad-limit"),
        pytest.param("GET", f"{CONFIG_MAPS}?labelSelector=%3Dx", b"", {}, 400, "BadRequest", id="bad-selector"),
        pytest.param("GET", CONFIG_MAPS, b"", {"accept": "text/plain"}, 406, "NotAcceptable", id="unacceptable"),
    ],
)
async def test_bad_requests_get_a_status(
    apiserver: RunningApiServer,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    reason: str,
) -> None:
    answer = await apiserver.rest().request(method, path, body, headers)
    assert (answer.status, answer.json["kind"], answer.json["reason"]) == (status, "Status", reason)
    assert answer.json["code"] == status


async def test_unknown_paths_get_the_plain_page(apiserver: RunningApiServer) -> None:
    answer = await apiserver.rest().get("/nothing")
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.header("content-type") == "text/plain; charset=utf-8"


async def test_yaml_goes_in_and_out(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    text = b"metadata: {name: yam}\ndata: {day: '2026-01-01', word: 'yes'}\n"
    made = await rest.request("POST", CONFIG_MAPS, text, {"content-type": "application/yaml"})
    assert made.json["data"] == {"day": "2026-01-01", "word": "yes"}
    read = await rest.get(f"{CONFIG_MAPS}/yam", accept="application/yaml")
    assert read.header("content-type") == "application/yaml"
    assert b'  day: "2026-01-01"\n' in read.body


@pytest.mark.parametrize("mode", ["Strict", "Warn"])
async def test_repeated_keys_are_found(apiserver: RunningApiServer, mode: str) -> None:
    body = b'{"metadata":{"name":"twice"},"data":{"a":"1","a":"2"}}'
    answer = await apiserver.rest().request("POST", f"{CONFIG_MAPS}?fieldValidation={mode}", body)
    if mode == "Strict":
        assert answer.status == 400
        assert answer.json["message"].endswith('strict decoding error: duplicate field "data.a"')
    else:
        assert answer.status == 201
        assert answer.headers["warning"] == ['299 - "duplicate field \\"data.a\\""']


async def test_metadata_only(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await rest.post(CONFIG_MAPS, config_map("web", a="1"))
    kind = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    one = (await rest.get(f"{CONFIG_MAPS}/web", accept=kind)).json
    assert set(one) == {"kind", "apiVersion", "metadata"}
    assert one["kind"] == "PartialObjectMetadata"
    many = (await rest.get(CONFIG_MAPS, accept=kind.replace("Metadata", "MetadataList", 1))).json
    assert many["kind"] == "PartialObjectMetadataList"
    assert "data" not in many["items"][0]


async def test_a_watch_tells_changes_and_resumes(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    start = (await rest.get(CONFIG_MAPS)).json["metadata"]["resourceVersion"]
    async with rest.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={start}") as events:
        await rest.post(CONFIG_MAPS, config_map("web"))
        async with asyncio.timeout(5):
            added = await anext(events)
        assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "web")
    await rest.request("DELETE", f"{CONFIG_MAPS}/web")
    version = added["object"]["metadata"]["resourceVersion"]
    async with rest.watch(f"{CONFIG_MAPS}?watch=true&resourceVersion={version}") as events, asyncio.timeout(5):
        assert (await anext(events))["type"] == "DELETED"


async def test_a_watch_ends_cleanly_at_its_timeout(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    async with rest.watch(f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1") as events, asyncio.timeout(5):
        assert [event async for event in events] == []


async def test_a_left_watch_is_forgotten(apiserver: RunningApiServer) -> None:
    streams = apiserver.server.streams
    async with apiserver.rest().watch(f"{CONFIG_MAPS}?watch=1"):
        assert len(streams) == 1
    await eventually(lambda: len(streams) == 0)


async def test_watch_initial_events_end_with_a_bookmark(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await rest.post(CONFIG_MAPS, config_map("web"))
    path = f"{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with rest.watch(path) as events, asyncio.timeout(5):
        assert (await anext(events))["type"] == "ADDED"
        mark = await anext(events)
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_discovery_both_ways(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    plain = (await rest.get("/apis")).json
    assert plain["groups"][1]["name"] == "apps"
    kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    whole = await rest.get("/apis", accept=f"{kind},application/json")
    assert whole.header("content-type") == kind
    again = await rest.get("/apis", accept=kind, if_none_match=whole.header("etag"))
    assert (again.status, again.body) == (304, b"")
    assert "content-type" not in again.headers


async def test_health_metrics_version(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    assert (await rest.get("/readyz")).body == b"ok"
    assert b"[+]etcd ok" in (await rest.get("/readyz?verbose")).body
    assert (await rest.get("/livez/ping")).body == b"ok"
    assert (await rest.get("/version")).json["minor"] == "36"
    await rest.get(CONFIG_MAPS)
    text = (await rest.get("/metrics")).body.decode()
    assert 'resource="configmaps"' in text
    assert "process_resident_memory_bytes" in text
