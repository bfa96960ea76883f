"""A definition's webhook converts custom objects between versions: reads, lists, watches, writes, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.harness.apiserver import RestClient, RunningApiServer
from tests.harness.webhook import WebhookServer, running_webhook

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "machines.conv.example.com"
MERGE = {"content-type": "application/merge-patch+json"}
Obj = dict[str, Any]


def path(version: str, name: str = "") -> str:
    return f"/apis/conv.example.com/{version}/namespaces/default/machines{'/' + name if name else ''}"


def text(*fields: str) -> Obj:
    return {"type": "object", "properties": {field: {"type": "string"} for field in fields}}


def definition(hook: WebhookServer, storage: str = "v1", **webhook: Any) -> Obj:
    def version(name: str, *fields: str, **more: Any) -> Obj:
        spec = text(*fields)
        schema = {"type": "object", "properties": {"spec": spec, "status": text("phase")}}
        served = {"name": name, "served": True, "storage": name == storage, "subresources": {"status": {}}}
        return {**served, "schema": {"openAPIV3Schema": schema}, **more}

    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": "conv.example.com",
            "scope": "Namespaced",
            "names": {"plural": "machines", "kind": "Machine"},
            "versions": [
                version("v1", "hostPort"),
                version("v2", "host", "port", selectableFields=[{"jsonPath": ".spec.port"}]),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {
                    "clientConfig": hook.client("/crdconvert"),
                    "conversionReviewVersions": ["v1", "v1beta1"],
                    **webhook,
                },
            },
        },
    }


def converted(obj: Obj, wanted: str) -> Obj:
    """hostPort in v1, host and port in v2."""
    made = {**obj, "apiVersion": wanted}
    spec = obj.get("spec") or {}
    if wanted.endswith("/v2"):
        host, _, port = spec.get("hostPort", "").partition(":")
        made["spec"] = {"host": host, "port": port, "extra": "pruned"}
    else:
        made["spec"] = {"hostPort": f"{spec.get('host', '')}:{spec.get('port', '')}"}
    return made


def convert(request: Obj) -> Obj:
    objects = [converted(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
    return {"convertedObjects": objects, "result": {"status": "Success"}}


def machine(name: str, version: str = "v1", **spec: str) -> Obj:
    return {
        "apiVersion": f"conv.example.com/{version}",
        "kind": "Machine",
        "metadata": {"name": name, "labels": {"name": name}},
        "spec": spec or {"hostPort": "localhost:80"},
    }


async def established(rest: RestClient, wanted: Obj) -> None:
    answer = await rest.post(CRDS, wanted)
    assert answer.status == 201, answer.body
    async with asyncio.timeout(10):
        while (await rest.get(path("v1"))).status != 200:  # noqa: ASYNC110  the server tells of no event
            await asyncio.sleep(0.005)


@pytest.fixture
async def hook() -> AsyncIterator[WebhookServer]:
    async with running_webhook("conv.default.svc") as made:
        made.answer = convert
        yield made


@pytest.fixture
async def rest(apiserver: RunningApiServer, hook: WebhookServer) -> RestClient:
    client = apiserver.rest()
    await established(client, definition(hook))
    return client


async def restored(rest: RestClient, storage: str) -> None:
    """Make another version the storage version, and wait until that is how objects are written."""
    live = (await rest.get(f"{CRDS}/{NAME}")).json
    for each in live["spec"]["versions"]:
        each["storage"] = each["name"] == storage
    answer = await rest.request("PUT", f"{CRDS}/{NAME}", live)
    assert answer.status == 200, answer.body
    assert storage in answer.json["status"]["storedVersions"]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] "
    "should be able to convert from CR v1 to CR v2 [Conformance]"
)
async def test_objects_of_one_version_are_read_in_another(rest: RestClient, hook: WebhookServer) -> None:
    created = await rest.post(path("v1"), machine("a"))
    assert created.status == 201
    assert not hook.requests  # v1 is what is stored
    found = (await rest.get(path("v2", "a"))).json
    assert found["apiVersion"] == "conv.example.com/v2"
    assert found["spec"] == {"host": "localhost", "port": "80"}
    assert found["metadata"]["resourceVersion"] == created.json["metadata"]["resourceVersion"]
    assert hook.paths == ["/crdconvert?timeout=30s"]
    assert "resourceVersion" not in hook.requests[0]["objects"][0]["metadata"]


async def test_writes_in_another_version_are_stored_in_the_storage_version(
    rest: RestClient, hook: WebhookServer
) -> None:
    created = await rest.post(path("v2"), machine("b", "v2", host="far", port="1"))
    assert created.status == 201, created.body
    assert created.json["spec"] == {"host": "far", "port": "1"}
    assert (await rest.get(path("v1", "b"))).json["spec"] == {"hostPort": "far:1"}
    patched = await rest.request("PATCH", path("v2", "b"), {"spec": {"port": "2"}}, MERGE)
    assert patched.json["spec"] == {"host": "far", "port": "2"}
    assert (await rest.get(path("v1", "b"))).json["spec"] == {"hostPort": "far:2"}
    new = patched.json | {"spec": {"host": "near", "port": "3"}}
    assert (await rest.request("PUT", path("v2", "b"), new)).status == 200
    status = await rest.request("PATCH", path("v2", "b") + "/status", {"status": {"phase": "up"}}, MERGE)
    assert status.json["status"] == {"phase": "up"}
    assert status.json["spec"] == {"host": "near", "port": "3"}
    gone = await rest.request("DELETE", path("v2", "b"))
    assert gone.status == 200
    assert (await rest.get(path("v1", "b"))).status == 404


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non "
    "homogeneous list of CRs [Conformance]"
)
async def test_a_list_of_objects_stored_in_several_versions_is_converted_in_one_call(
    rest: RestClient, hook: WebhookServer
) -> None:
    for name in ("a", "b"):
        await rest.post(path("v1"), machine(name))
    await restored(rest, "v2")
    async with asyncio.timeout(10):  # objects written now are stored as v2, without asking
        while True:
            hook.requests.clear()
            made = await rest.post(path("v2"), machine("c", "v2", host="h", port="9"))
            if made.status == 201 and not hook.requests:
                break
            await rest.request("DELETE", path("v2", "c"))
            await asyncio.sleep(0.005)
    for version, asked in (("v1", 1), ("v2", 2)):
        hook.requests.clear()
        listed = (await rest.get(path(version))).json
        assert listed["apiVersion"] == f"conv.example.com/{version}"
        assert {item["apiVersion"] for item in listed["items"]} == {f"conv.example.com/{version}"}
        assert len(listed["items"]) == 3
        assert [len(request["objects"]) for request in hook.requests] == [asked]
    assert (await rest.get(path("v1"))).json["items"][2]["spec"] == {"hostPort": "h:9"}
    # An object moves to the storage version with the next write.
    hook.requests.clear()
    await rest.request("PATCH", path("v2", "a"), {"metadata": {"labels": {"moved": "yes"}}}, MERGE)
    hook.requests.clear()
    assert (await rest.get(path("v2", "a"))).json["spec"]["host"] == "localhost"
    assert not hook.requests


async def test_watches_see_their_own_version_and_its_fields(rest: RestClient, hook: WebhookServer) -> None:
    start = (await rest.get(path("v2"))).json["metadata"]["resourceVersion"]
    every = f"{path('v2')}?watch=1&resourceVersion={start}"
    async with rest.watch(every) as events, rest.watch(every + "&fieldSelector=spec.port%3D80") as chosen:
        await rest.post(path("v1"), machine("a"))
        await rest.post(path("v1"), machine("b", hostPort="h:81"))
        await rest.request("PATCH", path("v1", "a"), {"spec": {"hostPort": "h:82"}}, MERGE)
        await rest.request("PATCH", path("v1", "b"), {"spec": {"hostPort": "h:80"}}, MERGE)
        seen = [await anext(events) for _ in range(4)]
        assert [event["object"]["spec"]["port"] for event in seen] == ["80", "81", "82", "80"]
        told = [await anext(chosen) for _ in range(3)]
        shown = [(event["type"], event["object"]["metadata"]["name"]) for event in told]
        assert shown == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b")]
    listed = (await rest.get(path("v2") + "?fieldSelector=spec.port%3D80")).json["items"]
    assert [item["metadata"]["name"] for item in listed] == ["b"]


FAILURES = [
    pytest.param({"result": {"status": "Failed", "message": "I do not want to"}}, "failed: I do not want to", id="no"),
    pytest.param({"result": {"status": "Odd"}}, "failed: response.result.status was 'Odd', not 'Success'", id="odd"),
    pytest.param({"uid": "x"}, 'failed: expected response.uid="', id="uid"),
    pytest.param(
        {"result": {"status": "Success"}, "convertedObjects": []}, "returned 0 objects, expected 1", id="count"
    ),
]


@pytest.mark.parametrize(("answer", "message"), FAILURES)
async def test_a_failing_conversion_fails_the_request(
    rest: RestClient, hook: WebhookServer, answer: Obj, message: str
) -> None:
    await rest.post(path("v1"), machine("a"))
    hook.answer = lambda request: answer
    for found in (await rest.get(path("v2", "a")), await rest.get(path("v2"))):
        assert found.status == 500
        told = found.json["message"]
        assert told.startswith(f"conversion webhook for conv.example.com/v1, Kind=Machine {message}")
    created = await rest.post(path("v2"), machine("z", "v2", host="h", port="1"))
    assert created.status == 500
    assert (await rest.get(path("v1", "z"))).status == 404
    assert (await rest.get(path("v1", "a"))).status == 200


METADATA = [
    pytest.param({"name": "other"}, "returned invalid object: must have the same name: a != other", id="name"),
    pytest.param({"uid": "u"}, "returned invalid object: must have the same UID: ", id="uid"),
    pytest.param({"labels": {"a b": "c"}}, "returned invalid metadata: metadata.labels: Invalid value", id="label"),
    pytest.param({"labels": 3}, "returned invalid metadata: invalid metadata.labels", id="kind of labels"),
]


@pytest.mark.parametrize(("change", "message"), METADATA)
async def test_only_labels_and_annotations_of_metadata_may_change(
    rest: RestClient, hook: WebhookServer, change: Obj, message: str
) -> None:
    created = (await rest.post(path("v1"), machine("a"))).json

    def meddling(request: Obj) -> Obj:
        objects = [converted(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
        for obj in objects:
            obj["metadata"] = {**obj["metadata"], **change}
        return {"convertedObjects": objects, "result": {"status": "Success"}}

    hook.answer = meddling
    found = await rest.get(path("v2", "a"))
    assert found.status == 500
    assert message in found.json["message"]

    change.clear()
    change.update({"finalizers": ["example.com/mine"], "generation": 99, "labels": {"new": "label"}})
    found = await rest.get(path("v2", "a"))
    meta = found.json["metadata"]
    assert meta["labels"] == {"new": "label"}
    assert meta["generation"] == created["metadata"]["generation"]
    assert "finalizers" not in meta


async def test_a_webhook_behind_a_service_is_verified_by_the_services_name(
    apiserver: RunningApiServer, hook: WebhookServer
) -> None:
    rest = apiserver.rest()
    client = {
        "service": {"namespace": "default", "name": "conv", "path": "/crdconvert", "port": hook.port},
        "caBundle": hook.bundle,
    }
    await established(rest, definition(hook, clientConfig=client))
    await rest.post(path("v1"), machine("a"))
    missing = await rest.get(path("v2", "a"))
    assert missing.status == 500
    where = f'Post "https://conv.default.svc:{hook.port}/crdconvert?timeout=30s": service "conv" not found'
    assert where in missing.json["message"]
    spec = {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": hook.port}]}
    service = {"metadata": {"name": "conv"}, "spec": spec}
    assert (await rest.post("/api/v1/namespaces/default/services", service)).status == 201
    async with asyncio.timeout(10):
        while (found := await rest.get(path("v2", "a"))).status != 200:  # noqa: ASYNC110  reaches a cache
            await asyncio.sleep(0.005)
    assert found.json["spec"]["host"] == "localhost"


async def test_deleting_the_definition_removes_objects_of_all_versions(rest: RestClient) -> None:
    await rest.post(path("v1"), machine("a"))
    await restored(rest, "v2")
    assert (await rest.request("DELETE", f"{CRDS}/{NAME}")).status == 200
    async with asyncio.timeout(10):
        while (await rest.get(f"{CRDS}/{NAME}")).status != 404:  # noqa: ASYNC110  the server tells of no event
            await asyncio.sleep(0.005)
