"""Schemas of OpenAPI documents: the shipped definitions in the spelling that upstream serves.

Owns: the rewriting (references to components, no nullable types, none of the constants that the shipped files add)
and the closure of references. Called by `apiserver.openapi`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from api import schema
from api.resources import Resource

_PREFIX = "#/components/schemas/"
_LOCAL = "#/$defs/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_KEPT = ("description", "format", "type", "required", "oneOf", "default", "pattern")


def components(roots: Iterable[str]) -> dict[str, Any]:
    """The named definitions and all they refer to, sorted by name."""
    found: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        references: set[str] = set()
        found[name] = _rewrite(msgspec.json.decode(schema.raw_definition(name)), references, top=True)
        if name == _INT_OR_STRING:
            found[name]["format"] = "int-or-string"
        waiting.extend(references)
    return dict(sorted(found.items()))


def component_of(resource: Resource) -> list[str]:
    """The definitions that a resource's operations name: its kind, its list, its subresources' kinds."""
    names = [schema.definition_name(resource.group, resource.version, resource.kind)]
    if "list" in resource.verbs:
        names.append(schema.definition_name(resource.group, resource.version, resource.list_kind))
    for subresource in resource.subresources.values():
        group, version = subresource.group or resource.group, subresource.version or resource.version
        names.append(schema.definition_name(group, version, subresource.kind))
    return [name for name in names if name]


def _rewrite(node: dict[str, Any], references: set[str], *, top: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key == "type" and isinstance(value, list):
            result[key] = next(kind for kind in value if kind != "null")
        elif key in _KEPT or key.startswith("x-kubernetes-"):
            result[key] = value
    if "oneOf" in result:
        result["oneOf"] = [_rewrite(option, references) for option in node["oneOf"]]
    reference = node.get("$ref")
    if reference:
        name = reference.removeprefix(_LOCAL)
        references.add(name)
        # Beside a plain $ref other keys would be ignored by readers.
        result["allOf"] = [{"$ref": _PREFIX + name}]
    if "properties" in node:
        result["properties"] = {name: _rewrite(child, references) for name, child in node["properties"].items()}
        result.setdefault("type", "object")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            result[key] = _rewrite(node[key], references)
        elif key in node:
            result[key] = node[key]
    if not top:
        result.pop("x-kubernetes-group-version-kind", None)
    return result
