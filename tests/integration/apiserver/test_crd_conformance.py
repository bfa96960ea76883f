"""Definitions and their objects over REST, by the behaviours that upstream's conformance tests name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.harness.apiserver import Answer, RestClient, RunningApiServer

Obj = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = {"content-type": "application/merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
SIG = "[sig-api-machinery] "


def conformance(start: str, *texts: str) -> pytest.MarkDecorator:
    return pytest.mark.conformance(*(f"{SIG}{start} {text} [Conformance]" for text in texts))


DEFINITIONS = "CustomResourceDefinition resources [Privileged:ClusterAdmin]"
FIELDS = "FieldValidation"


@pytest.fixture
def rest(apiserver: RunningApiServer) -> RestClient:
    return apiserver.rest()


def definition(plural: str = "noxus", schema: Obj | None = None, *versions: Obj, **names: Any) -> Obj:
    """A cluster-scoped kind without rules, unless told otherwise."""
    kind = plural[:-1].capitalize()
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    first = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or free}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.mygroup.example.com", "labels": {"suite": "crd"}},
        "spec": {
            "group": "mygroup.example.com",
            "scope": "Cluster",
            "names": {"plural": plural, "kind": kind, **names},
            "versions": [first, *versions],
        },
    }


def path(plural: str = "noxus", name: str = "", version: str = "v1") -> str:
    return f"/apis/mygroup.example.com/{version}/{plural}{'/' + name if name else ''}"


def an_object(name: str, kind: str = "Noxu", version: str = "v1", **rest: Any) -> Obj:
    return {"apiVersion": f"mygroup.example.com/{version}", "kind": kind, "metadata": {"name": name}, **rest}


async def until(ask: Callable[[], Awaitable[Answer]], wanted: Callable[[Answer], bool]) -> Answer:
    async with asyncio.timeout(10):
        while not wanted(answer := await ask()):  # noqa: ASYNC110  the server tells of no event
            await asyncio.sleep(0.005)
    return answer


async def defined(rest: RestClient, wanted: Obj) -> Obj:
    answer = await rest.post(CRDS, wanted)
    assert answer.status == 201, answer.body
    plural = wanted["spec"]["names"]["plural"]
    await until(lambda: rest.get(path(plural)), lambda found: found.status == 200)
    made: Obj = (await rest.get(f"{CRDS}/{wanted['metadata']['name']}")).json
    return made


@conformance(
    DEFINITIONS,
    "Simple CustomResourceDefinition creating/deleting custom resource definition objects works",
    "Simple CustomResourceDefinition listing custom resource definition objects works",
)
async def test_life_of_definitions(rest: RestClient) -> None:
    for plural in ("noxus", "moxus", "roxus"):
        made = await defined(rest, definition(plural))
        conditions = {each["type"]: (each["status"], each["reason"]) for each in made["status"]["conditions"]}
        assert conditions == {"NamesAccepted": ("True", "NoConflicts"), "Established": ("True", "InitialNamesAccepted")}
        assert made["status"]["storedVersions"] == ["v1"]
    listed = (await rest.get(f"{CRDS}?labelSelector=suite%3Dcrd")).json["items"]
    assert len(listed) == 3
    assert (await rest.request("DELETE", f"{CRDS}/noxus.mygroup.example.com")).status == 200
    await until(lambda: rest.get(path()), lambda answer: answer.status == 404)
    assert (await rest.request("DELETE", f"{CRDS}?labelSelector=suite%3Dcrd")).status == 200
    await until(lambda: rest.get(f"{CRDS}?labelSelector=suite%3Dcrd"), lambda answer: answer.json["items"] == [])


@conformance(
    DEFINITIONS,
    "Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works",
)
async def test_status_of_definitions(rest: RestClient) -> None:
    made = await defined(rest, definition())
    status = f"{CRDS}/noxus.mygroup.example.com/status"
    assert (await rest.get(status)).json["status"] == made["status"]
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    made["status"]["conditions"].append({**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    updated = await rest.request("PUT", status, made)
    assert updated.status == 200, updated.body
    assert "StatusUpdate" in {each["type"] for each in updated.json["status"]["conditions"]}
    wanted = {"status": {"conditions": [*updated.json["status"]["conditions"]]}}
    wanted["status"]["conditions"][-1]["type"] = "StatusPatched"
    patched = await rest.request("PATCH", status, wanted, MERGE)
    assert "StatusPatched" in {each["type"] for each in patched.json["status"]["conditions"]}
    assert patched.json["spec"] == made["spec"]


@conformance(DEFINITIONS, "should include custom resource definition resources in discovery documents")
async def test_discovery_of_definitions(rest: RestClient) -> None:
    groups = {each["name"]: each for each in (await rest.get("/apis")).json["groups"]}
    assert {"groupVersion": "apiextensions.k8s.io/v1", "version": "v1"} in groups["apiextensions.k8s.io"]["versions"]
    assert (await rest.get("/apis/apiextensions.k8s.io")).json["preferredVersion"]["version"] == "v1"
    resources = (await rest.get("/apis/apiextensions.k8s.io/v1")).json["resources"]
    assert "customresourcedefinitions" in {each["name"] for each in resources}


@conformance(DEFINITIONS, "custom resource defaulting for requests and from storage works")
async def test_defaults(rest: RestClient) -> None:
    texts = {name: {"type": "string"} for name in ("a", "b", "c")}
    live = await defined(rest, definition(schema={"type": "object", "properties": texts}))
    await rest.post(path(), an_object("first", a="A"))
    for name in ("a", "b"):
        live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][name]["default"] = name.upper()
    assert (await rest.request("PUT", f"{CRDS}/noxus.mygroup.example.com", live)).status == 200
    numbers = iter(range(1000))
    made = await until(
        lambda: rest.post(path(), an_object(f"n{next(numbers)}")), lambda answer: answer.json.get("b") == "B"
    )
    assert (made.json["a"], "c" in made.json) == ("A", False)
    found = (await rest.get(path(name="first"))).json
    assert (found["a"], found["b"]) == ("A", "B")
    # A null where the schema allows none is no value, unless there is a default to put there.
    nulled = await rest.post(path(), an_object("nulls", a=None, c=None))
    assert (nulled.json["a"], "c" in nulled.json) == ("A", False)


@conformance(
    "CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch",
    "watch on custom resource definition objects",
)
async def test_watches(rest: RestClient) -> None:
    await defined(rest, definition())
    start = (await rest.get(path())).json["metadata"]["resourceVersion"]
    one, two = (f"{path()}?watch=1&resourceVersion={start}&fieldSelector=metadata.name%3D{name}" for name in ("a", "b"))
    async with rest.watch(one) as of_a, rest.watch(two) as of_b:
        for name in ("a", "b"):
            await rest.post(path(), an_object(name))
        for name in ("a", "b"):
            await rest.request("PATCH", path(name=name), {"spec": {"x": name}}, MERGE)
            await rest.request("DELETE", path(name=name))
        for events, name in ((of_a, "a"), (of_b, "b")):
            seen = [await anext(events) for _ in range(3)]
            assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
            assert {event["object"]["metadata"]["name"] for event in seen} == {name}


@conformance(
    "CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors",
    "MUST list and watch custom resources matching the field selector",
)
async def test_field_selectors(rest: RestClient) -> None:
    schema = {"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "integer"}}}
    first = definition(schema=schema)
    fields = [{"jsonPath": ".host"}, {"jsonPath": ".port"}]
    first["spec"]["versions"][0]["selectableFields"] = fields
    second = {"name": "v2", "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}}
    first["spec"]["versions"].append({**second, "selectableFields": fields[:1]})
    await defined(rest, first)
    start = (await rest.get(path())).json["metadata"]["resourceVersion"]
    watch = f"{path()}?watch=1&resourceVersion={start}&fieldSelector=host%3Dhost1,port%3D80"
    async with rest.watch(watch) as events:
        for name, host, port in (("a", "host1", 80), ("b", "host1", 8080), ("c", "host2", 80)):
            assert (await rest.post(path(), an_object(name, host=host, port=port))).status == 201
        await rest.request("PATCH", path(name="b"), {"port": 80}, MERGE)
        await rest.request("PATCH", path(name="a"), {"host": "host2"}, MERGE)
        seen = [await anext(events) for _ in range(3)]
        told = [(event["type"], event["object"]["metadata"]["name"]) for event in seen]
        assert told == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    for version, selector, names in (
        ("v1", "host%3Dhost1", ["b"]),
        ("v1", "host!%3Dhost1,port%3D80", ["a", "c"]),
        ("v2", "host%3Dhost2", ["a", "c"]),
    ):
        listed = await rest.get(f"{path(version=version)}?fieldSelector={selector}")
        assert [item["metadata"]["name"] for item in listed.json["items"]] == names
    refused = await rest.get(f"{path(version='v2')}?fieldSelector=port%3D80")
    assert (refused.status, refused.json["message"]) == (400, "field label not supported: port")


# -- field validation ---------------------------------------------------------------------------------------------

CRON: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "cronSpec": {"type": "string"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["containerPort"],
                    "items": {
                        "type": "object",
                        "required": ["containerPort"],
                        "properties": {
                            "containerPort": {"type": "integer", "format": "int32"},
                            "name": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}


async def sent(rest: RestClient, verb: str, target: str, body: str, directive: str) -> Answer:
    query = f"?fieldValidation={directive}"
    if verb == "POST":
        return await rest.request("POST", target + query, body.encode())
    return await rest.request("PATCH", f"{target}/one{query}&fieldManager=me", body.encode(), APPLY)


def cron(extra: str = "", *, spec: str = '"cronSpec":"* *"', meta: str = "") -> str:
    front = '"apiVersion":"mygroup.example.com/v1","kind":"Noxu"'
    return f'{{{front},"metadata":{{"name":"one"{meta}}},"spec":{{{spec}}}{extra}}}'


@conformance(
    FIELDS,
    "should create/apply a CR with unknown fields for CRD with no validation schema",
    "should create/apply a valid CR for CRD with validation schema",
    "should create/apply an invalid CR with extra properties for CRD with validation schema",
)
@pytest.mark.parametrize("verb", ["POST", "APPLY"])
async def test_unknown_fields(rest: RestClient, verb: str) -> None:
    await defined(rest, definition(schema=CRON))
    await defined(rest, definition("moxus"))
    free = cron(spec='"foo":"a","bar":1').replace("Noxu", "Moxu")
    assert (await sent(rest, verb, path("moxus"), free, "Strict")).status in (200, 201)
    unknown = cron(',"extra":1', spec='"cronSpec":"* *","foo":"x","ports":[{"containerPort":80,"bad":1}]')
    refused = await sent(rest, verb, path(), unknown, "Strict")
    if verb == "APPLY":  # the configuration cannot even be read by the schema
        assert refused.status == 500
        assert ".extra: field not declared in schema" in refused.json["message"]
    else:
        assert refused.status == 400
        for name in ("extra", "spec.foo", "spec.ports[0].bad"):
            assert f'unknown field "{name}"' in refused.json["message"]
        warned = await sent(rest, verb, path(), unknown, "Warn")
        assert warned.status == 201
        assert '299 - "unknown field \\"spec.foo\\""' in warned.headers["warning"]
        assert warned.json["spec"] == {"cronSpec": "* *", "ports": [{"containerPort": 80}]}
        await rest.request("DELETE", path(name="one"))
    valid = cron(spec='"cronSpec":"* *","ports":[{"containerPort":80,"name":"x"}]')
    assert (await sent(rest, verb, path(), valid, "Strict")).status in (200, 201)


@conformance(
    FIELDS,
    "should detect duplicates in a CR when preserving unknown fields",
    "should detect unknown and duplicate fields of a typed object",
    "should detect unknown metadata fields of a typed object",
)
async def test_duplicates(rest: RestClient) -> None:
    await defined(rest, definition())
    twice = cron(spec='"a":1,"a":2,"deep":{"b":1,"b":2}')
    refused = await sent(rest, "POST", path(), twice, "Strict")
    assert refused.status == 400
    for name in ("spec.a", "spec.deep.b"):
        assert f'duplicate field "{name}"' in refused.json["message"]
    warned = await sent(rest, "POST", path(), twice, "Warn")
    assert '299 - "duplicate field \\"spec.a\\""' in warned.headers["warning"]

    deployments = "/apis/apps/v1/namespaces/default/deployments"
    template = '{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}'
    spec = f'"replicas":1,"replicas":2,"unknown":1,"selector":{{"matchLabels":{{"a":"b"}}}},"template":{template}'
    body = f'{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d","odd":1}},"spec":{{{spec}}}}}'
    refused = await rest.request("POST", f"{deployments}?fieldValidation=Strict", body.encode())
    assert refused.status == 400
    for text in ('duplicate field "spec.replicas"', 'unknown field "spec.unknown"', 'unknown field "metadata.odd"'):
        assert text in refused.json["message"]


@conformance(FIELDS, "should detect unknown metadata fields in both the root and embedded object of a CR")
async def test_unknown_metadata(rest: RestClient) -> None:
    embedded = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "x-kubernetes-preserve-unknown-fields": True,
    }
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"template": embedded}}}}
    await defined(rest, definition(schema=schema))
    inner = '"template":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","inside":1}}'
    body = cron(spec=inner, meta=',"outside":1')
    refused = await sent(rest, "POST", path(), body, "Strict")
    assert refused.status == 400
    for name in ("metadata.outside", "spec.template.metadata.inside"):
        assert f'unknown field "{name}"' in refused.json["message"]
    warned = await sent(rest, "POST", path(), body, "Warn")
    assert warned.status == 201
    assert len(warned.headers["warning"]) == 2
    assert warned.json["spec"]["template"]["metadata"] == {"name": "p"}
    ignored = json.loads(body) | {"metadata": {"name": "two", "outside": 1}}
    assert "warning" not in (await rest.post(f"{path()}?fieldValidation=Ignore", ignored)).headers
