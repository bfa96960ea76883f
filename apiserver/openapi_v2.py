"""OpenAPI v2 out of v3: paths and definitions in the older form, piece by piece.

Owns: the rewriting of operations and schemas, and what is cut from custom schemas because v2's readers (kubectl's
validation) cannot bear it. Pure; a piece is one path or one definition, so that the whole, 3 MB of JSON, never exists
as objects. Called by `apiserver.openapi_swagger`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from api import schema
from apiserver.crd.resource import CustomResource
from apiserver.openapi_names import component_name, group_version_kind

Node = Mapping[str, Any]
V3_PREFIX, V2_PREFIX = "#/components/schemas/", "#/definitions/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_JUNCTORS = ("allOf", "oneOf", "anyOf", "not")
_BODY = {"name": "body", "in": "body"}
# Types that v3 tells as a choice; v2 has no choices.
_PLAIN: Mapping[str, Mapping[str, str]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
}


# -- paths ------------------------------------------------------------------------------------------------------------


def path_item(item: Node) -> dict[str, Any]:
    """One path of a v3 document. Common parameters become references to `parameters()`."""
    made: dict[str, Any] = {method: _operation(item[method]) for method in _METHODS if method in item}
    if "parameters" in item:
        made["parameters"] = [_parameter(each) for each in item["parameters"]]
    return made


def _operation(operation: Node) -> dict[str, Any]:
    made = {key: value for key, value in operation.items() if key not in ("requestBody", "responses", "parameters")}
    parameters = [_parameter(each) for each in operation.get("parameters") or ()]
    body = operation.get("requestBody")
    if body is not None:
        content = body["content"]
        found = next(iter(content.values()))
        required = {"required": True} if body.get("required") else {}
        parameters.insert(0, {**_BODY, **required, "schema": rewrite(found["schema"])})
        made["consumes"] = list(content)
    else:
        made["consumes"] = ["*/*"]
    made["produces"] = list(dict.fromkeys(kind for each in operation["responses"].values() for kind in _types(each)))
    if parameters:
        made["parameters"] = parameters
    made["responses"] = {code: _response(each) for code, each in operation["responses"].items()}
    made["schemes"] = ["https"]
    return made


def _types(response: Node) -> list[str]:
    return list(response.get("content") or ())


def _response(response: Node) -> dict[str, Any]:
    made = {"description": response["description"]}
    for each in (response.get("content") or {}).values():
        made["schema"] = rewrite(each["schema"])
        break
    return made


def _parameter(parameter: Node) -> dict[str, Any]:
    return {"$ref": f"#/parameters/{parameter_key(parameter)}"}


def parameter_key(parameter: Node) -> str:
    """What a shared parameter is called; those of one name and place say the same everywhere."""
    return f"{parameter['name']}-{parameter['in']}"


def parameters(item: Node) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameters that a path of a v3 document uses, as shared definitions."""
    for owner in (item, *(item[method] for method in _METHODS if method in item)):
        for parameter in owner.get("parameters") or ():
            made = {key: value for key, value in parameter.items() if key != "schema"}
            yield parameter_key(parameter), {**made, **parameter["schema"]}


# -- schemas ----------------------------------------------------------------------------------------------------------


def definition(name: str, node: Node) -> dict[str, Any]:
    """One schema of a v3 document as a definition."""
    if name in _PLAIN:
        described = {"description": node["description"]} if "description" in node else {}
        return {**described, **_PLAIN[name]}
    return rewrite(node)


def rewrite(node: Node) -> dict[str, Any]:
    """A schema in the words of v2."""
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key == "$ref":
            made[key] = value.replace(V3_PREFIX, V2_PREFIX)
        elif key == "properties":
            made[key] = {name: rewrite(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            made[key] = rewrite(value)
        elif key not in _JUNCTORS and key != "nullable":
            made[key] = value
    wrapped = node.get("allOf")
    if wrapped and len(wrapped) == 1 and "$ref" in wrapped[0]:
        made["$ref"] = wrapped[0]["$ref"].replace(V3_PREFIX, V2_PREFIX)
    if "$ref" in made:
        made.pop("default", None)
    return made


# -- custom resources -------------------------------------------------------------------------------------------------


def custom_definition(resource: CustomResource) -> dict[str, Any]:
    """A custom kind. Where anything may stand, nothing is told: v2's readers would forbid all else."""
    raw = resource.raw_schema
    kind = [group_version_kind(resource, resource.kind)]
    if raw.get("x-kubernetes-preserve-unknown-fields"):
        return {"type": "object", "x-kubernetes-group-version-kind": kind}
    made = _embedded(_structural(raw))
    made["properties"] = {**(made.get("properties") or {}), **type_meta(), "metadata": object_meta()}
    return {**made, "x-kubernetes-group-version-kind": kind}


def custom_list(resource: CustomResource) -> dict[str, Any]:
    """The list of a custom kind."""
    described = type_meta()
    items = {"$ref": V2_PREFIX + component_name(resource, resource.kind)}
    return {
        "type": "object",
        "required": ["items"],
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "properties": {
            "apiVersion": described["apiVersion"],
            "items": {"type": "array", "items": items, "description": f"List of {resource.plural}."},
            "kind": described["kind"],
            "metadata": {**object_meta(), "$ref": f"{V2_PREFIX}{_META}.ListMeta"},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(resource, resource.list_kind)],
    }


def _structural(node: Node) -> dict[str, Any]:
    """A structural schema without what v2 cannot say."""
    made = {key: value for key, value in node.items() if key not in _JUNCTORS}
    preserved = bool(made.get("x-kubernetes-preserve-unknown-fields"))
    nullable = bool(made.pop("nullable", False))
    if nullable:
        made.pop("type", None)
    if nullable or preserved:
        made.pop("items", None)
        made.pop("properties", None)
    if made.get("type") == "array" and "items" not in made:
        del made["type"]
    if preserved and made.get("type") == "object":
        del made["type"]
    properties = made.get("properties") or {}
    additional = made.get("additionalProperties")
    required = [name for name in made.get("required") or () if not (properties.get(name) or {}).get("nullable", False)]
    if isinstance(additional, Mapping) and additional.get("nullable"):
        required = []
    if "required" in made:
        made.pop("required")
        if required:
            made["required"] = required
    if properties:
        made["properties"] = {name: _structural(child) for name, child in properties.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), Mapping):
            made[key] = _structural(made[key])
    return made


def _embedded(node: dict[str, Any]) -> dict[str, Any]:
    """Objects inside of objects have apiVersion, kind and metadata as well."""
    if "properties" in node:
        node["properties"] = {name: _embedded(child) for name, child in node["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _embedded(node[key])
    if node.get("x-kubernetes-embedded-resource") and not node.get("x-kubernetes-preserve-unknown-fields"):
        node["properties"] = {**(node.get("properties") or {}), **type_meta(), "metadata": object_meta()}
        node["required"] = list(dict.fromkeys((*(node.get("required") or ()), "kind", "apiVersion")))
    return node


@cache
def _described() -> Mapping[str, str]:
    """What the shipped definitions say about the fields that every object has."""
    pod = msgspec.json.decode(schema.raw_definition("io.k8s.api.core.v1.Pod"))
    return {name: pod["properties"][name]["description"] for name in ("apiVersion", "kind", "metadata")}


def type_meta() -> dict[str, Any]:
    """`apiVersion` and `kind` as every object has them."""
    return {name: {"type": "string", "description": _described()[name]} for name in ("apiVersion", "kind")}


def object_meta() -> dict[str, Any]:
    """`metadata` as every object has it."""
    return {"$ref": f"{V2_PREFIX}{_META}.ObjectMeta", "description": _described()["metadata"]}
