"""Custom resources in OpenAPI v2 and v3, as upstream's conformance asks for, judged with the stock kubectl as well."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.apiserver import ADMIN_TOKEN, DEADLINE, RunningApiServer, running_apiserver
from tests.harness.nanokube import kubectl as kubectl_binary

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] {} [Conformance]"
MERGE = {"content-type": "application/merge-patch+json"}
FOO: dict[str, Any] = {
    "description": "Foo CRD for Testing",
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "description": "Specification of Foo",
            "properties": {
                "bars": {
                    "description": "List of Bars and their specs.",
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string", "description": "Name of Bar."},
                            "age": {"type": "string", "description": "Age of Bar."},
                            "feeling": {"type": "string", "enum": ["Great", "Down"]},
                            "bazs": {"type": "array", "items": {"type": "string"}, "description": "List of Bazs."},
                        },
                    },
                }
            },
        },
        "status": {"type": "object", "description": "Status of Foo"},
    },
}
PRESERVING_ROOT: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
PRESERVING_INSIDE: dict[str, Any] = {
    "description": "preserve-unknown-properties in nested field for Testing",
    "type": "object",
    "properties": {
        "spec": {
            "description": "Specification of Waldo",
            "type": "object",
            "properties": {
                "dummy": {"description": "Dummy property.", "type": "object"},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "status": {"description": "Status of Waldo", "type": "object", "properties": {"x": {"type": "string"}}},
    },
}


def crd(
    kind: str, schema: dict[str, Any], group: str = "publish.example.com", versions: tuple[str, ...] = ("v1",)
) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    served = [
        {"name": each, "served": True, "storage": each == versions[0], "schema": {"openAPIV3Schema": schema}}
        for each in versions
    ]
    names = {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": served}
    return {"metadata": {"name": f"{plural}.{group}"}, "spec": spec}


class Site:
    """A server, and kubectl towards it."""

    def __init__(self, server: RunningApiServer, home: Path) -> None:
        self.rest = server.rest()
        self._server = server
        self._home = home

    async def kubectl(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Exit code and what was printed on both outputs."""
        server = self._server
        told = ["--server", f"https://127.0.0.1:{server.port}", "--certificate-authority", str(server.ca)]
        process = await asyncio.create_subprocess_exec(
            kubectl_binary(),
            *told,
            "--token",
            ADMIN_TOKEN,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(self._home), "KUBECONFIG": str(self._home / "none")},
        )
        out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), DEADLINE)
        return process.returncode or 0, out.decode()

    async def publish(self, definition: dict[str, Any]) -> str:
        answer = await self.rest.post(DEFINITIONS, definition)
        assert answer.status == 201, answer.body
        return f"{DEFINITIONS}/{definition['metadata']['name']}"

    async def swagger(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.rest.get("/openapi/v2")).json
        return found

    async def published(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """OpenAPI v2, once its definitions are as wanted."""
        async with asyncio.timeout(DEADLINE):
            while True:
                found = await self.swagger()
                if wanted(found["definitions"]):
                    return found
                await asyncio.sleep(0.01)

    async def definition(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.published(lambda known: name in known))["definitions"][name]
        return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_apiserver() as server:
        yield Site(server, tmp_path)


def bare(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition without what every kind has."""
    properties = {
        name: each
        for name, each in (definition.get("properties") or {}).items()
        if name not in ("apiVersion", "kind", "metadata")
    }
    made = {key: value for key, value in definition.items() if key != "x-kubernetes-group-version-kind"}
    if "properties" in made:
        made["properties"] = properties
    return made


def foo(spec: str, kind: str = "Foo") -> str:
    return f"apiVersion: publish.example.com/v1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {spec}\n"


@pytest.mark.conformance(NAME.format("works for CRD with validation schema"))
async def test_with_a_schema(site: Site) -> None:
    await site.publish(crd("Foo", FOO))
    found = await site.definition("com.example.publish.v1.Foo")
    assert bare(found) == FOO
    kind = {"group": "publish.example.com", "version": "v1", "kind": "Foo"}
    assert found["x-kubernetes-group-version-kind"] == [kind]
    swagger = await site.swagger()
    item = swagger["paths"]["/apis/publish.example.com/v1/namespaces/{namespace}/foos/{name}"]
    assert item["patch"]["x-kubernetes-group-version-kind"] == kind
    # kubectl: known fields pass, others are refused, required ones are demanded.
    code, out = await site.kubectl("create", "-f", "-", stdin=foo("{bars: [{name: test-bar}]}"))
    assert (code, out) == (0, "foo.publish.example.com/one created\n")
    assert await site.kubectl("delete", "foo", "one") == (0, 'foo.publish.example.com "one" deleted\n')
    for verb in ("create", "apply"):
        code, out = await site.kubectl(verb, "-f", "-", stdin=foo("{bars: [{name: b, unknown: bar}]}"))
        assert code == 1
        assert 'unknown field "spec.bars[0].unknown"' in out
        code, out = await site.kubectl(verb, "-f", "-", stdin=foo("{bars: [{age: '10'}]}"))
        assert code == 1
        assert "spec.bars[0].name: Required value" in out
        code, out = await site.kubectl(verb, "-f", "-", stdin=foo("{bars: [{name: b, feeling: NonExistent}]}"))
        assert code == 1
        assert 'Unsupported value: "NonExistent": supported values: "Great", "Down"' in out
    for form in ("plaintext", "plaintext-openapiv2"):
        code, out = await site.kubectl("explain", "foo", "--output", form)
        assert code == 0, out
        for text in ("Foo CRD for Testing", "apiVersion\t<string>", "APIVersion defines", "Specification of Foo"):
            assert text in out, (form, text)
        assert "List of Bars and their specs." in (await site.kubectl("explain", "foo.spec", "--output", form))[1]
        out = (await site.kubectl("explain", "foo.spec.bars", "--output", form))[1]
        assert "bazs\t<[]string>" in out
        assert "Name of Bar." in out
        code, out = await site.kubectl("explain", "foo.spec.bars2", "--output", form)
        assert code == 1
        assert 'field "bars2" does not exist' in out


@pytest.mark.conformance(NAME.format("works for CRD without validation schema"))
@pytest.mark.conformance(NAME.format("works for CRD preserving unknown fields at the schema root"))
async def test_where_anything_may_stand(site: Site) -> None:
    await site.publish(crd("Foo", PRESERVING_ROOT))
    found = await site.definition("com.example.publish.v1.Foo")
    assert bare(found) == {"type": "object"}
    for verb in ("create", "apply"):
        code, out = await site.kubectl(verb, "-f", "-", stdin=foo("{anything: [{is: fine}]}"))
        assert code == 0, out
        await site.kubectl("delete", "foo", "one")
    code, out = await site.kubectl("explain", "foo")
    assert code == 0
    assert "VERSION:    v1" in out


@pytest.mark.conformance(NAME.format("works for CRD preserving unknown fields in an embedded object"))
async def test_where_anything_may_stand_inside(site: Site) -> None:
    await site.publish(crd("Waldo", PRESERVING_INSIDE))
    found = await site.definition("com.example.publish.v1.Waldo")
    spec = {"description": "Specification of Waldo", "x-kubernetes-preserve-unknown-fields": True}
    assert found["properties"]["spec"] == spec
    assert found["properties"]["status"] == PRESERVING_INSIDE["properties"]["status"]
    code, out = await site.kubectl("apply", "-f", "-", stdin=foo("{any: {thing: [1]}, dummy: {}}", "Waldo"))
    assert code == 0, out
    assert "Specification of Waldo" in (await site.kubectl("explain", "waldos"))[1]


@pytest.mark.conformance(NAME.format("works for multiple CRDs of different groups"))
@pytest.mark.conformance(NAME.format("works for multiple CRDs of same group but different versions"))
@pytest.mark.conformance(NAME.format("works for multiple CRDs of same group and version but different kinds"))
async def test_many_definitions(site: Site) -> None:
    await site.publish(crd("Foo", FOO))
    await site.publish(crd("Foo", PRESERVING_INSIDE, "other.example.com"))
    await site.publish(crd("Waldo", PRESERVING_INSIDE, versions=("v1", "v2")))
    names = ("publish.v1.Foo", "other.v1.Foo", "publish.v1.Waldo", "publish.v2.Waldo", "publish.v2.WaldoList")
    swagger = await site.published(lambda known: all(f"com.example.{name}" in known for name in names))
    assert bare(swagger["definitions"]["com.example.publish.v1.Foo"]) == FOO
    paths = [path for path in swagger["paths"] if path.startswith("/apis/publish.example.com/v2/")]
    assert "/apis/publish.example.com/v2/namespaces/{namespace}/waldos" in paths


@pytest.mark.conformance(NAME.format("updates the published spec when one version gets renamed"))
async def test_a_renamed_version(site: Site) -> None:
    path = await site.publish(crd("Foo", FOO, versions=("v2", "v3")))
    await site.definition("com.example.publish.v3.Foo")
    renamed = crd("Foo", FOO, versions=("v2", "v4"))["spec"]["versions"]
    assert (await site.rest.request("PATCH", path, {"spec": {"versions": renamed}}, MERGE)).status == 200
    swagger = await site.published(lambda known: "com.example.publish.v4.Foo" in known)
    assert "com.example.publish.v3.Foo" not in swagger["definitions"]
    assert bare(swagger["definitions"]["com.example.publish.v2.Foo"]) == FOO


@pytest.mark.conformance(NAME.format("removes definition from spec when one version gets changed to not be served"))
async def test_a_version_that_is_no_longer_served(site: Site) -> None:
    path = await site.publish(crd("Foo", FOO, versions=("v5", "v6alpha1")))
    await site.definition("com.example.publish.v6alpha1.Foo")
    versions = crd("Foo", FOO, versions=("v5", "v6alpha1"))["spec"]["versions"]
    versions[1]["served"] = False
    assert (await site.rest.request("PATCH", path, {"spec": {"versions": versions}}, MERGE)).status == 200
    swagger = await site.published(lambda known: "com.example.publish.v6alpha1.Foo" not in known)
    assert bare(swagger["definitions"]["com.example.publish.v5.Foo"]) == FOO
    assert "apis/publish.example.com/v6alpha1" not in (await site.rest.get("/openapi/v3")).json["paths"]


async def test_embedded_objects_have_metadata(site: Site) -> None:
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}}
    await site.publish(crd("Foo", {"type": "object", "properties": {"template": embedded}}))
    template = (await site.definition("com.example.publish.v1.Foo"))["properties"]["template"]
    assert template["required"] == ["kind", "apiVersion"]
    assert template["properties"]["metadata"]["$ref"].endswith(".meta.v1.ObjectMeta")


async def test_the_document_as_clients_fetch_it(site: Site) -> None:
    rest = site.rest
    plain = await rest.get("/openapi/v2")
    assert plain.header("content-type") == "application/json"
    etag = plain.header("etag")
    assert (await rest.get("/openapi/v2", if_none_match=etag)).status == 304
    zipped = await rest.get("/openapi/v2", accept_encoding="gzip")
    assert zipped.header("content-encoding") == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    for name in ("spec.v2@v1.0", "spec.v2.v1.0"):
        binary = await rest.get("/openapi/v2", accept=f"application/com.github.proto-openapi.{name}+protobuf")
        assert binary.header("content-type") == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        assert binary.body.startswith(b"\x0a\x032.0\x12")
        assert binary.header("etag") != etag
    assert (await rest.get("/openapi/v2", accept="text/html")).status == 406
    await site.publish(crd("Foo", FOO))
    await site.definition("com.example.publish.v1.Foo")
    changed = await rest.get("/openapi/v2", if_none_match=etag)
    assert (changed.status, changed.header("etag") != etag) == (200, True)


async def test_every_reference_leads_somewhere(site: Site) -> None:
    await site.publish(crd("Foo", FOO))
    await site.definition("com.example.publish.v1.Foo")
    swagger = await site.swagger()
    seen = set()
    with contextlib.suppress(StopIteration):
        text = json.dumps(swagger)
        for part in text.split('"$ref": "#/')[1:]:
            seen.add(part.split('"', 1)[0])
    assert len(seen) > 500
    assert [each for each in seen if each.partition("/")[2] not in swagger[each.partition("/")[0]]] == []
