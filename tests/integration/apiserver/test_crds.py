"""Definitions come, change and go while the server runs; their objects behave by schema, over REST and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from api.resources import Resource
from client.client import Client, PatchType
from machinery.errors import Invalid, NotFound
from tests.harness.apiserver import Answer, RestClient, RunningApiServer

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = {"content-type": "application/merge-patch+json"}
NAMESPACED = "/apis/toys.example.com/v1/namespaces/default/widgets"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                    },
                },
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}}},
    },
}
SCALE = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}


def version(
    name: str = "v1", *, storage: bool = True, schema: Mapping[str, Any] = SCHEMA, **more: Any
) -> dict[str, Any]:
    offered = {"status": {}, "scale": SCALE}
    made = {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}
    return {**made, "subresources": offered, **more}


def definition(
    *versions: dict[str, Any], plural: str = "widgets", kind: str = "Widget", scope: str = "Namespaced", **names: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.toys.example.com"},
        "spec": {
            "group": "toys.example.com",
            "scope": scope,
            "names": {"plural": plural, "kind": kind, **names},
            "versions": list(versions) or [version()],
        },
    }


def widget(name: str, size: Any = 3, api_version: str = "toys.example.com/v1", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size, **spec}}


async def until(rest: RestClient, path: str, wanted: Any) -> Answer:
    """GET until the answer is as wanted."""
    async with asyncio.timeout(10):
        while not wanted(answer := await rest.get(path)):  # noqa: ASYNC110  the server tells of no event
            await asyncio.sleep(0.005)
    return answer


async def establish(rest: RestClient, body: dict[str, Any]) -> None:
    made = await rest.post(CRDS, body)
    assert made.status == 201, made.json
    spec = body["spec"]
    served = next(item["name"] for item in spec["versions"] if item["served"])
    await until(rest, f"/apis/{spec['group']}/{served}/{spec['names']['plural']}", lambda answer: answer.status == 200)


def conditions(answer: Answer) -> dict[str, tuple[str, str]]:
    found = (answer.json.get("status") or {}).get("conditions") or ()
    return {item["type"]: (item["status"], item["reason"]) for item in found}


async def test_a_definition_is_served_until_it_is_deleted(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    before = await rest.get(NAMESPACED)
    assert (before.status, before.body) == (404, b"404 page not found\n")
    await establish(rest, definition(shortNames=["wd"]))
    read = await rest.get(f"{CRDS}/widgets.toys.example.com")
    assert conditions(read) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    assert read.json["status"]["acceptedNames"]["shortNames"] == ["wd"]
    assert read.json["status"]["storedVersions"] == ["v1"]

    made = await rest.post(NAMESPACED, widget("one", parts=[{"name": "p"}], extra=1))
    assert made.status == 201
    assert made.header("warning") == '299 - "unknown field \\"spec.extra\\""'
    assert made.json["spec"] == {"size": 3, "mode": "a", "parts": [{"name": "p", "count": 1}]}
    assert made.json["metadata"]["generation"] == 1
    listed = await rest.get(NAMESPACED)
    assert listed.json["kind"] == "WidgetList"
    assert listed.json["metadata"]["continue"] == ""
    assert listed.json["items"] == [made.json]

    gone = await rest.request("DELETE", f"{CRDS}/widgets.toys.example.com")
    assert gone.json["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    assert conditions(gone)["Terminating"] == ("True", "InstanceDeletionPending")
    await until(rest, f"{CRDS}/widgets.toys.example.com", lambda answer: answer.status == 404)
    after = await until(rest, NAMESPACED, lambda answer: answer.status == 404)
    assert after.body == b"404 page not found\n"
    # Nothing of the old objects comes back with the name.
    await establish(rest, definition())
    assert (await rest.get(NAMESPACED)).json["items"] == []


async def test_a_finalizer_of_an_object_holds_its_definition(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await establish(rest, definition())
    held = widget("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    assert (await rest.post(NAMESPACED, held)).status == 201
    await rest.request("DELETE", f"{CRDS}/widgets.toys.example.com")
    await until(rest, f"{NAMESPACED}/held", lambda answer: "deletionTimestamp" in answer.json["metadata"])
    refused = await rest.post(NAMESPACED, widget("late"))
    assert refused.status == 405
    assert "terminating" in refused.json["message"]
    assert (await rest.get(f"{CRDS}/widgets.toys.example.com")).status == 200
    await rest.request("PATCH", f"{NAMESPACED}/held", {"metadata": {"finalizers": None}}, MERGE)
    await until(rest, f"{CRDS}/widgets.toys.example.com", lambda answer: answer.status == 404)


async def test_status_and_scale_are_apart(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await establish(rest, definition())
    await rest.post(NAMESPACED, widget("one"))
    spec = await rest.request("PATCH", f"{NAMESPACED}/one", {"spec": {"size": 4}, "status": {"phase": "x"}}, MERGE)
    assert "status" not in spec.json
    assert spec.json["metadata"]["generation"] == 2
    status = {"spec": {"size": 9}, "status": {"phase": "Ready", "replicas": 2}}
    told = await rest.request("PATCH", f"{NAMESPACED}/one/status", status, MERGE)
    assert (told.json["spec"]["size"], told.json["status"]["phase"]) == (4, "Ready")
    assert told.json["metadata"]["generation"] == 2
    scaled = await rest.request("PATCH", f"{NAMESPACED}/one/scale", {"spec": {"replicas": 7}}, MERGE)
    assert scaled.json["spec"] == {"replicas": 7}
    assert scaled.json["status"] == {"replicas": 2}
    read = await rest.get(f"{NAMESPACED}/one")
    assert (read.json["spec"]["size"], read.json["metadata"]["generation"]) == (7, 3)
    unknown = await rest.get(f"{NAMESPACED}/one/nope")
    assert unknown.json["message"] == 'widgets.toys.example.com "one" not found'


async def test_a_scale_without_replicas_is_no_answer_but_can_be_set(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    properties = {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}
    await establish(rest, definition(version(schema={"type": "object", "properties": properties})))
    assert (await rest.post(NAMESPACED, {**widget("one"), "spec": {}})).status == 201
    path = f"{NAMESPACED}/one/scale"
    told = 'the spec replicas field ".spec.size"'
    read = await rest.get(path)
    assert (read.status, read.json["message"]) == (500, f"Internal error occurred: {told} does not exist")
    empty = await rest.request("PATCH", path, {"metadata": {}}, MERGE)
    assert (empty.status, empty.json["message"]) == (400, f"{told} cannot be empty")
    scaled = await rest.request("PATCH", path, {"spec": {"replicas": 4}}, MERGE)
    assert (scaled.status, scaled.json["spec"]) == (200, {"replicas": 4})
    assert (await rest.get(f"{NAMESPACED}/one")).json["spec"] == {"size": 4}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param(
            widget("x", 0), 422, "spec.size in body should be greater than or equal to 1", id="below the minimum"
        ),
        pytest.param(widget("x", "a"), 422, 'spec.size in body must be of type integer: "string"', id="type"),
        pytest.param({**widget("x"), "spec": {}}, 422, "spec.size: Required value", id="required"),
        pytest.param(widget("x", mode="z"), 422, 'Unsupported value: "z": supported values: "a", "b"', id="enum"),
        pytest.param(
            widget("x", parts=[{"name": "p"}, {"name": "p"}]),
            422,
            'spec.parts[1]: Duplicate value: {"name":"p"}',
            id="duplicate key",
        ),
        pytest.param({**widget("x"), "kind": "Gizmo"}, 422, 'kind: Invalid value: "Gizmo": must be Widget', id="kind"),
        pytest.param(
            widget("x", api_version="toys.example.com/v9"),
            400,
            "the API version in the data (toys.example.com/v9) does not match the expected API version "
            "(toys.example.com/v1)",
            id="version",
        ),
        pytest.param({"metadata": {"name": "x"}}, 400, "Object 'Kind' is missing", id="no kind"),
        pytest.param(
            {**widget("x"), "metadata": {"name": "x", "labels": {"a": 1}}}, 400, "cannot unmarshal", id="metadata"
        ),
    ],
)
async def test_bad_objects_are_refused(
    apiserver: RunningApiServer, body: dict[str, Any], code: int, message: str
) -> None:
    rest = apiserver.rest()
    await establish(rest, definition())
    refused = await rest.post(NAMESPACED, body)
    assert refused.status == code, refused.json
    assert message in refused.json["message"]


async def test_an_update_needs_a_resource_version(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await establish(rest, definition())
    made = await rest.post(NAMESPACED, widget("one"))
    blind = await rest.request("PUT", f"{NAMESPACED}/one", widget("one", 5))
    assert blind.status == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in blind.json["message"]
    changed = {**made.json, "spec": {"size": 5}}
    assert (await rest.request("PUT", f"{NAMESPACED}/one", changed)).status == 200
    assert (await rest.request("PUT", f"{NAMESPACED}/one", changed)).status == 409


async def test_versions_show_the_same_objects(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    old = version("v1beta1", storage=False, deprecated=True, selectableFields=[{"jsonPath": ".spec.mode"}])
    await establish(rest, definition(version(), old, version("v1alpha1", storage=False, served=False)))
    beta = NAMESPACED.replace("/v1/", "/v1beta1/")
    await rest.post(NAMESPACED, widget("one"))
    made = await rest.post(beta, widget("two", mode="b", api_version="toys.example.com/v1beta1"))
    assert made.json["apiVersion"] == "toys.example.com/v1beta1"
    warned = '299 - "toys.example.com/v1beta1 Widget is deprecated; use toys.example.com/v1 Widget"'
    assert made.header("warning") == warned
    for path, shown in ((NAMESPACED, "toys.example.com/v1"), (beta, "toys.example.com/v1beta1")):
        listed = await rest.get(path)
        assert {item["apiVersion"] for item in listed.json["items"]} == {shown}
        assert [item["metadata"]["name"] for item in listed.json["items"]] == ["one", "two"]
        async with rest.watch(f"{path}?watch=true&resourceVersion=0") as events:
            assert (await anext(events))["object"]["apiVersion"] == shown
    patched = await rest.request("PATCH", f"{beta}/one", {"spec": {"size": 8}}, MERGE)
    assert (patched.json["apiVersion"], patched.json["spec"]["size"]) == ("toys.example.com/v1beta1", 8)
    replaced = await rest.request("PUT", f"{beta}/one", {**patched.json, "spec": {"size": 9}})
    assert replaced.json["apiVersion"] == "toys.example.com/v1beta1"
    chosen = await rest.get(f"{beta}?fieldSelector=spec.mode%3Db")
    assert [item["metadata"]["name"] for item in chosen.json["items"]] == ["two"]
    assert (await rest.get(f"{NAMESPACED}?fieldSelector=spec.mode%3Db")).status == 400
    assert (await rest.get(NAMESPACED.replace("/v1/", "/v1alpha1/"))).status == 404
    assert (await rest.request("DELETE", f"{beta}/two")).status == 200
    assert (await rest.get(f"{NAMESPACED}/two")).status == 404


async def test_a_changed_schema_holds_for_objects_that_are_there(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await establish(rest, definition())
    await rest.post(NAMESPACED, widget("one"))
    grown = {**SCHEMA["properties"], "extra": {"type": "string", "default": "new"}}
    change = {"spec": {"versions": [version(schema={"type": "object", "properties": grown})]}}
    assert (await rest.request("PATCH", f"{CRDS}/widgets.toys.example.com", change, MERGE)).status == 200
    shown = await until(rest, f"{NAMESPACED}/one", lambda answer: "extra" in answer.json)
    assert shown.json["extra"] == "new"
    assert shown.json["spec"]["size"] == 3


async def test_names_belong_to_who_came_first(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await establish(rest, definition(shortNames=["wd"]))
    second = definition(plural="gadgets", kind="Widget")
    await rest.post(CRDS, second)
    path = f"{CRDS}/gadgets.toys.example.com"
    refused = await until(rest, path, lambda answer: "NamesAccepted" in conditions(answer))
    assert conditions(refused) == {
        "NamesAccepted": ("False", "ListKindConflict"),
        "Established": ("False", "NotAccepted"),
    }
    assert (await rest.get("/apis/toys.example.com/v1/gadgets")).status == 404
    await rest.request("DELETE", f"{CRDS}/widgets.toys.example.com")
    await until(rest, path, lambda answer: conditions(answer)["Established"][0] == "True")
    await until(rest, "/apis/toys.example.com/v1/gadgets", lambda answer: answer.status == 200)


async def test_discovery_openapi_and_tables_know_the_kind(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    await establish(rest, definition(version(additionalPrinterColumns=columns), categories=["toys"]))
    group = await rest.get("/apis/toys.example.com")
    assert group.json["preferredVersion"] == {"groupVersion": "toys.example.com/v1", "version": "v1"}
    assert "toys.example.com" in [item["name"] for item in (await rest.get("/apis")).json["groups"]]
    resources = (await rest.get("/apis/toys.example.com/v1")).json["resources"]
    assert [item["name"] for item in resources] == ["widgets", "widgets/status", "widgets/scale"]
    assert resources[0]["categories"] == ["toys"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    aggregated = await rest.get("/apis", accept=accept)
    assert "toys.example.com" in [item["metadata"]["name"] for item in aggregated.json["items"]]
    index = (await rest.get("/openapi/v3")).json["paths"]
    document = (await rest.get(index["apis/toys.example.com/v1"]["serverRelativeURL"])).json
    schema = document["components"]["schemas"]["com.example.toys.v1.Widget"]
    kind = {"group": "toys.example.com", "version": "v1", "kind": "Widget"}
    assert schema["x-kubernetes-group-version-kind"] == [kind]
    assert schema["properties"]["spec"]["properties"]["size"] == {"type": "integer", "minimum": 1}
    assert f"{NAMESPACED.replace('default', '{namespace}')}/{{name}}" in document["paths"]
    patch = document["paths"][f"{NAMESPACED.replace('default', '{namespace}')}/{{name}}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    await rest.post(NAMESPACED, widget("one", 5))
    table = (await rest.request("GET", NAMESPACED, headers=TABLE)).json
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size"]
    assert table["rows"][0]["cells"] == ["one", 5]


async def test_rules_are_evaluated(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    spec = {
        **SCHEMA["properties"]["spec"],
        "x-kubernetes-validations": [
            {"rule": "self.size < 10", "message": "too large"},
            {"rule": "self.mode == oldSelf.mode", "message": "mode is fixed"},
        ],
    }
    await establish(rest, definition(version(schema={"type": "object", "properties": {"spec": spec}})))
    assert (await rest.post(NAMESPACED, widget("one"))).status == 201
    large = await rest.post(NAMESPACED, widget("two", 11))
    assert large.json["details"]["causes"] == [
        {"reason": "FieldValueInvalid", "message": 'Invalid value: "object": too large', "field": "spec"}
    ]
    moved = await rest.request("PATCH", f"{NAMESPACED}/one", {"spec": {"mode": "b"}}, MERGE)
    assert "mode is fixed" in moved.json["message"]
    unsound = await rest.post(NAMESPACED, widget("two", "x"))
    assert "some validation rules were not checked" in unsound.json["message"]


@pytest.fixture
async def client(apiserver: RunningApiServer) -> AsyncIterator[Client]:
    made = Client.connect(apiserver.grpc_target, apiserver.admin_tls)
    yield made
    await made.close()


async def _first(batches: Any) -> Any:
    async for batch in batches:
        if batch:
            yield batch[0]
            return


async def test_components_reach_custom_objects(apiserver: RunningApiServer, client: Client) -> None:
    await establish(apiserver.rest(), definition())
    resource = Resource("toys.example.com", "v1", "widgets", "Widget")
    async with asyncio.timeout(10):
        events = client.watch(resource, "default", resource_version="0")
        await apiserver.rest().post(NAMESPACED, widget("one"))
        seen = [event async for event in _first(events)]
    assert seen[0].object["spec"]["mode"] == "a"
    with pytest.raises(Invalid, match=r"spec\.size in body must be of type integer"):
        await client.patch(resource, "one", {"spec": {"size": "x"}}, "default", type=PatchType.MERGE)
    listed = await client.list(resource, "default")
    assert [item["metadata"]["name"] for item in listed.items] == ["one"]
    await client.delete(resource, "one", "default")
    with pytest.raises(NotFound):
        await client.get(resource, "one", "default")


async def test_objects_lie_under_their_group(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await establish(rest, definition())
    await rest.post(NAMESPACED, widget("one"))
    page = await apiserver.server.store.range(b"/registry/toys.example.com/", b"/registry/toys.example.com0")
    assert [item.key for item in page.items] == [b"/registry/toys.example.com/widgets/default/one"]
