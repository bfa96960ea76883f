"""OpenAPI documents: what is listed, what clients look for in them, and that every reference leads somewhere."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from api import resources
from apiserver import openapi


@cache
def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi.document(name))
    return found


def operations(name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document(name)["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def test_index_lists_groups_versions_and_the_plain_paths() -> None:
    names = set(openapi.index())
    assert {
        "api",
        "api/v1",
        "apis",
        "apis/apps",
        "apis/apps/v1",
        "version",
        ".well-known/openid-configuration",
    } <= names
    for resource in resources.RESOURCES:
        assert (f"apis/{resource.group_version}" if resource.group else "api/v1") in names


def test_hashes_are_stable_and_differ() -> None:
    hashes = openapi.index()
    assert len(set(hashes.values())) == len(hashes)
    assert all(len(value) == 128 for value in hashes.values())
    openapi.index.cache_clear()
    assert openapi.index() == hashes


def test_unknown_documents() -> None:
    with pytest.raises(KeyError):
        openapi.document("apis/nope/v1")


@pytest.mark.parametrize("name", sorted(openapi.index()))
def test_every_reference_leads_somewhere(name: str) -> None:
    text = openapi.document(name).decode()
    schemas = document(name)["components"]["schemas"]
    wanted = {part.split('"', 1)[0] for part in text.split('"#/components/schemas/')[1:]}
    assert wanted <= set(schemas)
    assert "$defs" not in text
    assert '"null"' not in text


@pytest.mark.parametrize("name", [n for n in sorted(openapi.index()) if n.startswith("apis/") or n == "api/v1"])
def test_operation_ids_are_unique(name: str) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(name)]
    assert len(ids) == len(set(ids))


def test_patch_knows_field_validation_and_its_kind() -> None:
    """Without both, kubectl validates by itself."""
    patches = [op for path, method, op in operations("apis/apps/v1") if method == "patch"]
    assert patches
    for operation in patches:
        assert "fieldValidation" in [parameter["name"] for parameter in operation["parameters"]]
        assert operation["x-kubernetes-action"] == "patch"
        assert set(operation["x-kubernetes-group-version-kind"]) == {"group", "version", "kind"}
    kinds = {operation["x-kubernetes-group-version-kind"]["kind"] for operation in patches}
    assert {"Deployment", "DaemonSet", "Scale"} <= kinds


def test_paths_of_a_namespaced_resource() -> None:
    paths = document("api/v1")["paths"]
    assert set(paths["/api/v1/namespaces/{namespace}/pods"]) == {"get", "post", "delete", "parameters"}
    assert set(paths["/api/v1/namespaces/{namespace}/pods/{name}"]) == {"get", "put", "patch", "delete", "parameters"}
    assert set(paths["/api/v1/pods"]) == {"get"}
    assert paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["post"]["x-kubernetes-action"] == "connect"
    assert "/api/v1/nodes/{name}" in paths


def test_schemas_say_what_clients_merge_by() -> None:
    container = document("apis/apps/v1")["components"]["schemas"]["io.k8s.api.core.v1.Container"]
    ports = container["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    assert ports["x-kubernetes-patch-merge-key"] == "containerPort"
    assert ports["items"] == {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"}]}
    assert container["required"] == ["name"]
    assert container["properties"]["image"]["type"] == "string"
    assert container["properties"]["image"]["description"]


def test_kinds_are_marked() -> None:
    schemas = document("apis/apps/v1")["components"]["schemas"]
    gvk = [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    assert schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"] == gvk
    assert "enum" not in schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["kind"]
    assert schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"


def test_custom_documents() -> None:
    widget = resources.Resource("example.com", "v1", "widgets", "Widget")
    custom = {"com.example.v1.Widget": {"type": "object"}}
    made = json.loads(openapi.custom_document("apis/example.com/v1", [widget], custom))
    assert "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}" in made["paths"]
    assert made["components"]["schemas"]["com.example.v1.Widget"] == {"type": "object"}
