"""Structural schemas: what a definition's OpenAPI schema does to objects besides judging them.

Owns pruning, defaulting and the dropping of nulls, all in place on decoded JSON. Never judges values
(`crd.validation`). A node is built once per version of a definition and shared by all requests.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]
OBJECT_FIELDS = ("apiVersion", "kind", "metadata")


class Structural:
    """One place of a schema. `prunes` and `defaults` tell whether anything below can change an object."""

    __slots__ = (
        "additional",
        "default",
        "defaults",
        "embedded",
        "has_default",
        "items",
        "list_keys",
        "list_type",
        "map_type",
        "nullable",
        "preserve",
        "properties",
        "resource",
        "unique",
    )

    def __init__(self, raw: Json, *, root: bool = False) -> None:
        self.nullable = raw.get("nullable") is True
        self.has_default = raw.get("default") is not None
        self.default = raw.get("default")
        self.preserve = raw.get("x-kubernetes-preserve-unknown-fields") is True
        self.embedded = raw.get("x-kubernetes-embedded-resource") is True
        self.resource = self.embedded or root
        self.list_type: str = raw.get("x-kubernetes-list-type") or ""
        self.list_keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        self.map_type: str = raw.get("x-kubernetes-map-type") or ""
        self.properties: dict[str, Structural] = {
            name: Structural(child)
            for name, child in (raw.get("properties") or {}).items()
            if not (self.resource and name in OBJECT_FIELDS)
        }
        extra, items = raw.get("additionalProperties"), raw.get("items")
        self.additional: Structural | bool | None = Structural(extra) if isinstance(extra, dict) else extra
        self.items = Structural(items) if isinstance(items, dict) else None
        below = [*self.properties.values(), self.items, self.additional]
        nodes = [node for node in below if isinstance(node, Structural)]
        self.defaults: bool = self.has_default or any(node.defaults for node in nodes)
        self.unique: bool = self.list_type in ("set", "map") or any(node.unique for node in nodes)
        """Does any list below promise unique items?"""

    def child(self, key: str) -> Structural | None:
        """The schema of a member, or None."""
        found = self.properties.get(key)
        if found is None and isinstance(self.additional, Structural):
            return self.additional
        return found


NOTHING = Structural({"type": "object"}, root=True)
"""The schema of a version nobody defined: it knows no field."""


def prune(value: Any, node: Structural, path: str = "") -> list[str]:
    """Take away what the schema does not know; the paths of what was taken away. `metadata` is not looked at."""
    unknown: list[str] = []
    _prune(value, node, path, unknown)
    return unknown


def _prune(value: Any, node: Structural, path: str, unknown: list[str]) -> None:
    if isinstance(value, dict):
        properties, additional = node.properties, node.additional
        gone: list[str] = []
        for key, item in value.items():
            if node.resource and key in OBJECT_FIELDS:
                continue
            child = properties.get(key)
            if child is None and isinstance(additional, Structural):
                child = additional
            if child is not None:
                if isinstance(item, (dict, list)):
                    _prune(item, child, f"{path}.{key}" if path else key, unknown)
            elif not node.preserve and additional is not True:
                gone.append(key)
        for key in gone:
            del value[key]
            unknown.append(f"{path}.{key}" if path else key)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            if isinstance(item, (dict, list)):
                _prune(item, node.items, f"{path}[{index}]", unknown)


def drop_nulls(value: Any, node: Structural) -> None:
    """Take away nulls of members that may not be null and have no default."""
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is None]:
            child = node.child(key)
            if child is not None and not child.nullable and not child.has_default:
                del value[key]
        for key, item in value.items():
            if isinstance(item, (dict, list)) and (child := node.child(key)) is not None:
                drop_nulls(item, child)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            if isinstance(item, (dict, list)):
                drop_nulls(item, node.items)


def fill(value: Any, node: Structural) -> None:
    """Put defaults where nothing is, or a null that may not be there."""
    if not node.defaults:
        return
    if isinstance(value, dict):
        for name, child in node.properties.items():
            if child.has_default and (name not in value or (value[name] is None and not child.nullable)):
                value[name] = copy.deepcopy(child.default)
        for key, item in value.items():
            member = node.child(key)
            if member is None:
                continue
            if item is None and not member.nullable and key not in node.properties:
                value[key] = item = copy.deepcopy(member.default)
            if isinstance(item, (dict, list)):
                fill(item, member)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            if item is None and not node.items.nullable:
                value[index] = item = copy.deepcopy(node.items.default)
            if isinstance(item, (dict, list)):
                fill(item, node.items)


def embedded_objects(value: Any, node: Structural, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every embedded resource in a value, with its path."""
    found: list[tuple[str, dict[str, Any]]] = []
    if isinstance(value, dict):
        if node.embedded:
            found.append((path, value))
        for key, item in value.items():
            if isinstance(item, (dict, list)) and (child := node.child(key)) is not None:
                found += embedded_objects(item, child, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            if isinstance(item, (dict, list)):
                found += embedded_objects(item, node.items, f"{path}[{index}]")
    return found
