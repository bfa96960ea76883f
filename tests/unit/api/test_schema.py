"""The schema's nodes say what merging, pruning and decoding need, and cost little."""

import json

import pytest

from api import schema


def at(path: str) -> schema.SchemaNode:
    node = schema.for_kind("apps", "v1", "Deployment")
    for part in path.split("."):
        assert node is not None
        node = node.items if part == "[]" else node.child(part)
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("group", "version", "kind", "name"),
    [
        pytest.param("", "v1", "Pod", "io.k8s.api.core.v1.Pod", id="core"),
        pytest.param("apps", "v1", "Deployment", "io.k8s.api.apps.v1.Deployment", id="apps"),
        pytest.param("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction", id="subresource kind"),
        pytest.param("", "v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", id="shared kind"),
        pytest.param("example.com", "v1", "Widget", None, id="unknown"),
    ],
)
def test_definition_of_a_kind(group: str, version: str, kind: str, name: str | None) -> None:
    assert schema.definition_name(group, version, kind) == name


def test_merge_facts_of_a_list() -> None:
    ports = at("spec.template.spec.containers.[].ports")
    assert ports.type == "array"
    assert ports.list_type == "map"
    assert ports.list_map_keys == ("containerPort", "protocol")
    assert ports.patch_merge_key == "containerPort"
    assert ports.patch_strategy == ("merge",)


def test_merge_facts_on_a_reference_belong_to_the_field() -> None:
    assert at("spec.strategy").patch_strategy == ("retainKeys",)
    assert at("spec.strategy").child("type") is not None
    assert at("spec.template.spec.volumes").patch_strategy == ("merge", "retainKeys")
    assert at("spec.selector").resolve().map_type == "atomic"


def test_scalars() -> None:
    assert at("spec.replicas").format == "int32"
    assert at("spec.template.spec.containers.[].resources.limits.cpu").quantity
    assert at("spec.strategy.rollingUpdate.maxSurge").int_or_string
    assert schema.definition("io.k8s.apimachinery.pkg.util.intstr.IntOrString").int_or_string  # type: ignore[union-attr]


def test_required_follows_references() -> None:
    assert at("spec").resolve().required == ("selector", "template")


@pytest.mark.parametrize(
    ("name", "is_open"),
    [
        pytest.param("io.k8s.apimachinery.pkg.runtime.RawExtension", True, id="raw extension"),
        pytest.param("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", True, id="json"),
        pytest.param("io.k8s.api.core.v1.ConfigMap", False, id="fields"),
        pytest.param("io.k8s.apimachinery.pkg.api.resource.Quantity", False, id="quantity"),
    ],
)
def test_open(name: str, is_open: bool) -> None:
    node = schema.definition(name)
    assert node is not None
    assert node.open is is_open


def test_recursive_definitions_end() -> None:
    props = schema.definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert props is not None
    again = props.properties["properties"].additional_properties
    assert again is not None
    assert again.properties["properties"] is props.properties["properties"]


def test_raw_definition_is_the_shipped_json() -> None:
    for name in ("io.k8s.api.core.v1.Pod", "io.k8s.apimachinery.pkg.apis.meta.v1.Time"):
        assert "description" in json.loads(schema.raw_definition(name))


def test_every_definition_builds_and_every_reference_resolves() -> None:
    seen: set[int] = set()

    def walk(node: schema.SchemaNode | None) -> None:
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        assert not node.ref or schema.definition(node.ref) is not None, node.ref
        for child in node.properties.values():
            walk(child)
        walk(node.items)
        walk(node.additional_properties)

    names = list(schema.definition_names())
    assert len(names) == 771
    for name in names:
        walk(schema.definition(name))


def test_from_openapi_reads_a_custom_schema() -> None:
    node = schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "format": "int32"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "port": {"x-kubernetes-int-or-string": True},
            },
        }
    )
    assert node.properties["size"].format == "int32"
    assert node.properties["any"].open
    assert node.properties["port"].int_or_string
    assert not node.open


def test_from_openapi_refuses_what_is_no_schema() -> None:
    with pytest.raises(ValueError, match="type"):
        schema.from_openapi({"type": 5})
