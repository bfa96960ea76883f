"""OpenAPI v3 for backends that only speak v2, as older servers do.

Owns: the translation of one group version's part of a v2 document. Pure. Called by `aggregation.backend`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Node = Mapping[str, Any]
V2_PREFIX, V3_PREFIX = "#/definitions/", "#/components/schemas/"
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_PARAMETER_KEYS = ("name", "in", "description", "required")


def translated(path: str, body: bytes) -> bytes | None:
    """The v3 document of the group version at a path; None when the v2 document does not know it. ValueError."""
    try:
        whole = msgspec.json.decode(body, type=dict[str, Any])
        found = {name: item for name, item in (whole.get("paths") or {}).items() if name.startswith(f"{path}/")}
        if not found:
            return None
        shared = whole.get("parameters") or {}
        paths = {name: _path_item(item, shared) for name, item in found.items()}
        schemas = {name: _schema(node) for name, node in _reached(found, whole.get("definitions") or {})}
        info = {"title": "Kubernetes", "version": "unversioned", **(whole.get("info") or {})}
        return msgspec.json.encode(
            {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
        )
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"OpenAPI v2: {error!r}") from error


def _path_item(item: Node, shared: Node) -> dict[str, Any]:
    made: dict[str, Any] = {method: _operation(item[method], shared) for method in _METHODS if method in item}
    common = [_parameter(each) for each in _resolved(item, shared) if each["in"] != "body"]
    return {**made, "parameters": common} if common else made


def _resolved(owner: Node, shared: Node) -> list[Node]:
    listed = owner.get("parameters") or ()
    return [shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for each in listed]


def _operation(operation: Node, shared: Node) -> dict[str, Any]:
    skipped = ("parameters", "responses", "consumes", "produces", "schemes")
    made = {key: value for key, value in operation.items() if key not in skipped}
    parameters = _resolved(operation, shared)
    plain = [_parameter(each) for each in parameters if each["in"] != "body"]
    if plain:
        made["parameters"] = plain
    for each in parameters:
        if each["in"] == "body":
            content = {"schema": _schema(each["schema"])}
            body = {"content": dict.fromkeys(operation.get("consumes") or ("*/*",), content)}
            made["requestBody"] = {**body, "required": True} if each.get("required") else body
    kinds = operation.get("produces") or ("application/json",)
    made["responses"] = {code: _response(each, kinds) for code, each in (operation.get("responses") or {}).items()}
    return made


def _response(response: Node, kinds: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"description": response.get("description") or ""}
    if "schema" in response:
        content = {"schema": _schema(response["schema"])}
        made["content"] = dict.fromkeys(kinds, content)
    return made


def _parameter(parameter: Node) -> dict[str, Any]:
    made = {key: parameter[key] for key in _PARAMETER_KEYS if key in parameter}
    rest = {key: value for key, value in parameter.items() if key not in _PARAMETER_KEYS}
    return {**made, "schema": rest}


def _schema(node: Any) -> Any:
    """A schema with references to components; beside others, a reference needs a wrap in v3."""
    if isinstance(node, list):
        return [_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: value if key in ("default", "enum", "example") else _schema(value) for key, value in node.items()}
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = {"$ref": reference.replace(V2_PREFIX, V3_PREFIX)}
        del made["$ref"]
        return {**made, "allOf": [target]} if made else target
    return made


def _reached(paths: Node, definitions: Node) -> Iterator[tuple[str, Node]]:
    """The definitions that paths lead to."""
    waiting, done = list(references(paths)), set[str]()
    while waiting:
        name = waiting.pop().removeprefix(V2_PREFIX)
        if name not in done and name in definitions:
            done.add(name)
            yield name, definitions[name]
            waiting += references(definitions[name])


def references(node: Any) -> Iterator[str]:
    """Every `$ref` anywhere below."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)
